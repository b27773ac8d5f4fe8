"""Reading batches from the memory map, and from files as ImageFolder does.

    python bench/batches.py [images] [size]

Random images, in the page cache, one thread, shuffled batches of 32.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from timing import best_of, peak_megabytes, table

from xray_lightning.artifacts import RowsFile
from xray_lightning.data.batches import BatchLoader, RowSampler

FILES = 500  # read the plain way, which is too slow for all


def main() -> None:
    torch.set_num_threads(1)
    images, size = (int(a) for a in [*sys.argv[1:], "10240", "224"][:2]) if len(sys.argv) > 2 else (10240, 224)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pixels.npy"
        rows = RowsFile(path.with_suffix(".part"), (size, size), np.uint8)
        rng = np.random.default_rng(0)
        for _ in range(images):
            rows.append(rng.integers(0, 256, (size, size), dtype=np.uint8))
        rows.finish(path)
        pixels = np.load(path, mmap_mode="r")[:, None]
        labels = np.zeros(images, dtype=np.int64)
        before = peak_megabytes()
        loader = BatchLoader(pixels, labels, RowSampler(np.arange(images), seed=0), 32)
        ours = best_of(lambda: sum(len(y) for _, y in loader))
        after = peak_megabytes()
        for n in range(FILES):
            Image.fromarray(pixels[n, 0]).save(Path(folder) / f"{n}.png")
        plain = best_of(
            lambda: [np.asarray(Image.open(Path(folder) / f"{n}.png").convert("RGB")) for n in range(FILES)]
        )
    print(f"{images} images of {size}x{size} ({images * size * size / 1e6:.0f} MB), one thread, best epoch of three")
    table(
        ["way", "images/s"],
        [["plain: decode PNG files each time", f"{FILES / plain:.0f}"], ["ours: memory map", f"{images / ours:.0f}"]],
    )
    print(f"Peak memory {after:.0f} MB, {after - before:.0f} MB of it for reading")


if __name__ == "__main__":
    main()
