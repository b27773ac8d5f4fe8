"""Tiny data sets in Kaggle's layouts, of random grey images."""

import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

PNEUMONIA_FILES = (
    *(f"train/NORMAL/IM-{n:04d}-0001.jpeg" for n in range(1, 9)),
    *(f"train/NORMAL/NORMAL2-IM-{n:04d}-{k:04d}.jpeg" for n in (1, 2) for k in (1, 2)),
    *(f"train/PNEUMONIA/person{n}_bacteria_{n}.jpeg" for n in range(1, 16)),
    *(f"train/PNEUMONIA/person{n}_virus_{k}.jpeg" for n in (1, 2, 3) for k in (4, 5, 6)),
    *(f"val/NORMAL/NORMAL2-IM-{n}-0001.jpeg" for n in (1427, 1430)),
    *(f"val/PNEUMONIA/person{n}_bacteria_{n}.jpeg" for n in (1946, 1949)),
    *(f"test/NORMAL/IM-{n:04d}-0001.jpeg" for n in range(101, 105)),
    *(f"test/PNEUMONIA/person{n}_virus_{n}.jpeg" for n in range(101, 108)),
)
COVID_FILES = tuple(
    f"{folder}/images/{name}-{n}.png"
    for folder, name, count in (
        ("COVID", "COVID", 11),
        ("Lung_Opacity", "Lung_Opacity", 14),
        ("Normal", "Normal", 22),
        ("Viral Pneumonia", "Viral Pneumonia", 8),
    )
    for n in range(1, count + 1)
)

ImageWriter = Callable[..., Path]
FolderWriter = Callable[[Path, Sequence[str]], Path]


def _write_image(file: Path, content: str | None = None, size: int = 12) -> Path:
    seed = zlib.crc32((content or file.as_posix()).encode())
    values = np.random.default_rng(seed).integers(0, 256, (size, size), dtype=np.uint8)
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(file)
    return file


def _write_files(folder: Path, names: Sequence[str]) -> Path:
    for name in names:
        _write_image(folder / name, content=name)
    return folder


@pytest.fixture(scope="session")
def write_image() -> ImageWriter:
    """Writes a random image that depends on `content` alone, or on the path."""
    return _write_image


@pytest.fixture(scope="session")
def write_files() -> FolderWriter:
    return _write_files


@pytest.fixture(scope="session")
def pneumonia_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 NORMAL and 24 PNEUMONIA in train, 2 + 2 in val, 4 + 7 in test; not to be changed."""
    return _write_files(tmp_path_factory.mktemp("pneumonia") / "chest_xray", PNEUMONIA_FILES)


@pytest.fixture(scope="session")
def covid_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """11 COVID, 14 Lung_Opacity, 22 Normal, 8 Viral Pneumonia, with masks; not to be changed."""
    folder = tmp_path_factory.mktemp("covid") / "COVID-19_Radiography_Dataset"
    _write_files(folder, [name.replace("/images/", "/masks/") for name in COVID_FILES])
    return _write_files(folder, COVID_FILES)
