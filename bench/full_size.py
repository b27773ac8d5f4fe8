"""A data set of full size: building the cache, a warm start and an epoch of reading, with their peak memory.

    python bench/full_size.py [images] [folder]

Writes `images` (21165, as the COVID-19 Radiography Database has) grey PNG files of 299x299 in its layout to `folder`
(a temporary one, 2 GB), then runs each step in a process of its own: this project's, and the plain way with
torchvision's ImageFolder, which decodes in one process without workers. Imports are not timed.
"""

import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter
from timing import peak_megabytes, table

CLASSES = {"COVID": 3616, "Lung_Opacity": 6012, "Normal": 10192, "Viral Pneumonia": 1345}
PLAIN_IMAGES = 1000  # of an epoch of the plain way, which is timed on these and scaled up


def write(job: tuple[Path, int]) -> None:
    """Clouds with grain: about as many bytes a file as a radiograph has (70 kB), and no two alike."""
    path, seed = job
    if path.is_file():
        return
    rng = np.random.default_rng(seed)
    clouds = Image.fromarray(rng.integers(0, 256, (16, 16), dtype=np.uint8)).resize(
        (299, 299), Image.Resampling.BICUBIC
    )
    film = np.asarray(clouds.filter(ImageFilter.GaussianBlur(2))) + rng.normal(0, 4, (299, 299))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(film.clip(0, 255).astype(np.uint8)).save(path, compress_level=1)


def generate(root: Path, images: int) -> None:
    total = sum(CLASSES.values())
    jobs = [
        (root / name / "images" / f"{name}-{n}.png", 10**6 * k + n)
        for k, (name, count) in enumerate(CLASSES.items())
        for n in range(round(count * images / total))
    ]
    with ProcessPoolExecutor() as pool:
        list(pool.map(write, jobs, chunksize=64))


def ours(root: Path, cache: Path) -> None:
    """Seconds to the first training batch, then of an epoch of reading, images read, peak memory before and after."""
    from xray_lightning.data.covid import CovidDataModule

    start = time.perf_counter()
    data = CovidDataModule("covid", str(root), image_size=224, cache_dir=str(cache), test_fraction=0.15)
    data.setup()
    next(iter(data.train_dataloader()))
    first = time.perf_counter() - start
    before = peak_megabytes()
    start = time.perf_counter()
    images = sum(len(y) for batches in (data.train_dataloader(), data.val_dataloader()) for _, y in batches)
    print(first, time.perf_counter() - start, images, before, peak_megabytes())


def plain(root: Path, cache: Path) -> None:
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import Compose, Resize, ToTensor

    start = time.perf_counter()
    folder = ImageFolder(str(root), Compose([Resize((224, 224)), ToTensor()]))
    batches = iter(DataLoader(folder, 32, shuffle=True))
    next(batches)
    first = time.perf_counter() - start
    before = peak_megabytes()
    start = time.perf_counter()
    images = sum(len(next(batches)[1]) for _ in range(PLAIN_IMAGES // 32))
    print(first, time.perf_counter() - start, images, before, peak_megabytes())


def measured(step: str, root: Path, cache: Path) -> list[float]:
    command = [sys.executable, __file__, step, str(root), str(cache)]
    return [float(v) for v in subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-5:]]


def main() -> None:
    images = int(sys.argv[1]) if len(sys.argv) > 1 else sum(CLASSES.values())
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(sys.argv[2] if len(sys.argv) > 2 else temporary) / "COVID-19_Radiography_Dataset"
        print(f"Writing {images} files to {root}")
        generate(root, images)
        rows = []
        for name, step in (("plain: ImageFolder", "plain"), ("ours, first run", "ours"), ("ours, warm", "ours")):
            first, epoch, read, _, peak = measured(step, root, Path(temporary) / "cache")
            rows.append([name, f"{first:.2f}", f"{read / epoch:.0f}", f"{peak:.0f}"])
        table(["way", "s to the first batch", "images/s in an epoch", "peak memory (MB)"], rows)


if __name__ == "__main__":
    if len(sys.argv) == 4 and sys.argv[1] in ("ours", "plain"):
        {"ours": ours, "plain": plain}[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        main()
