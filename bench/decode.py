"""Decoding to grey squares: this project's way and the plain way, on the same files.

    python bench/decode.py <folder of JPEG or PNG files> [size]

Both read the same files, already in the page cache, on one thread. Ours is what building the cache does for each file:
read it once, hash it, make its thumbnail and the image. Run it on an otherwise idle machine.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from timing import best_of, table

from xray_lightning.data.decode import FORMATS, draft, fit, grey, open_image, read_bytes
from xray_lightning.data.examine import examine


def main() -> None:
    folder, size = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 224
    files = sorted(f for f in folder.rglob("*") if f.suffix.lower() in FORMATS and "masks" not in f.parts)[:500]
    if not files:
        sys.exit(f"{folder} holds no images.")

    def plain() -> None:
        for file in files:
            Image.open(file).convert("RGB").resize((size, size))

    def grey_plain() -> None:
        for file in files:
            Image.open(file).convert("L").resize((size, size), Image.Resampling.BILINEAR)

    def ours() -> None:
        for file in files:
            examine(file, size, "stretch")

    seconds = {
        'plain: Image.open(f).convert("RGB").resize(...)': best_of(plain),
        'plain, grey: .convert("L").resize(..., BILINEAR)': best_of(grey_plain),
        "ours: hash, thumbnail, scaled decoding": best_of(ours),
    }
    first = next(iter(seconds.values()))
    width, height = Image.open(files[0]).size
    print(f"{len(files)} files such as {files[0].name} ({width}x{height}), to {size} pixels, one thread")
    rows = [[name, f"{len(files) / t:.0f}", f"{first / t:.2f}"] for name, t in seconds.items()]
    table(["way", "images/s", "times the first"], rows)

    differences = [np.abs(_scaled(f, size) - _full(f, size)) for f in files]
    print(
        f"Scaled against full decoding: mean difference {np.mean([d.mean() for d in differences]):.2f} of 255, "
        f"99th percentile {np.mean([np.quantile(d, 0.99) for d in differences]):.1f}"
    )


def _scaled(file: Path, size: int) -> np.ndarray:
    return fit(grey(draft(open_image(read_bytes(file), file.suffix), size)), size).astype(float)


def _full(file: Path, size: int) -> np.ndarray:
    return fit(grey(open_image(read_bytes(file), file.suffix)), size).astype(float)


if __name__ == "__main__":
    main()
