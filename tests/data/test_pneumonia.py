"""The pneumonia data set: its classes, its official test and its patients."""

import shutil
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from xray_lightning.data.pneumonia import PneumoniaDataModule


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., PneumoniaDataModule]:
    cache = tmp_path_factory.mktemp("cache")

    def ready(root: Path, **settings: Any) -> PneumoniaDataModule:
        data = PneumoniaDataModule("pneumonia", str(root), 8, str(cache), **settings)
        data.setup()
        return data

    return ready


Build = Callable[..., PneumoniaDataModule]


def test_normal_is_0_and_pneumonia_1(build: Build, pneumonia_root: Path) -> None:
    data = build(pneumonia_root)
    assert data.class_names == ["NORMAL", "PNEUMONIA"]
    assert {(row.path.split("/")[1], row.label) for row in data.rows} == {("NORMAL", 0), ("PNEUMONIA", 1)}


def test_the_published_numbers_are_those_of_kaggle() -> None:
    counts = PneumoniaDataModule.kaggle.counts
    assert sum(counts.values()) == 5856
    assert counts["test/NORMAL"] + counts["test/PNEUMONIA"] == PneumoniaDataModule.published_test == 624
    assert set(counts) == {folder for f in PneumoniaDataModule.layout.folders.values() for folder in f}


@pytest.mark.parametrize("split_seed", [0, 1])
def test_the_official_folder_is_the_test_set(build: Build, pneumonia_root: Path, split_seed: int) -> None:
    data = build(pneumonia_root, split_seed=split_seed)
    for row, side in zip(data.rows, data.sides, strict=True):
        assert (side == "test") == row.path.startswith("test/")


def test_train_and_the_small_val_are_pooled_and_split_anew(build: Build, pneumonia_root: Path) -> None:
    data = build(pneumonia_root)
    assert data.counts() == {
        "train": {"NORMAL": 11, "PNEUMONIA": 22},
        "val": {"NORMAL": 3, "PNEUMONIA": 4},
        "test": {"NORMAL": 4, "PNEUMONIA": 7},
    }
    sides = {
        data.sides[n]
        for seed in range(10)
        for data in [build(pneumonia_root, split_seed=seed)]
        for n, row in enumerate(data.rows)
        if row.path.startswith("val/")
    }
    assert sides == {"train", "val"}


def test_a_patient_is_on_one_side(build: Build, pneumonia_root: Path) -> None:
    for seed in range(10):
        data = build(pneumonia_root, split_seed=seed, val_fraction=0.4)
        sides = defaultdict(set)
        for row, side in zip(data.rows, data.sides, strict=True):
            sides[row.group].add(side)
        assert all(len(found) == 1 for found in sides.values())


def test_bacteria_and_virus_of_one_number_are_two_patients(build: Build, pneumonia_root: Path) -> None:
    groups = {row.path: row.group for row in build(pneumonia_root).rows}
    bacteria = groups["train/PNEUMONIA/person1_bacteria_1.jpeg"]
    virus = {groups[f"train/PNEUMONIA/person1_virus_{n}.jpeg"] for n in (4, 5, 6)}
    assert len(virus) == 1 and bacteria not in virus


def test_train_images_of_a_test_patient_are_unused_and_counted(
    build: Build, tmp_path: Path, pneumonia_root: Path, write_files: Callable[..., Path]
) -> None:
    names = [p.relative_to(pneumonia_root).as_posix() for p in pneumonia_root.rglob("*.jpeg")]
    extra = ["train/PNEUMONIA/person101_virus_9.jpeg", "train/NORMAL/IM-0101-0002.jpeg"]
    data = build(write_files(tmp_path, [*names, *extra]))
    assert {row.path for row, side in zip(data.rows, data.sides, strict=True) if side == "unused"} == set(extra)
    assert data.counts()["unused"] == {"NORMAL": 1, "PNEUMONIA": 1}
    assert data.counts()["test"] == {"NORMAL": 4, "PNEUMONIA": 7}


def test_a_train_image_that_is_nearly_one_of_the_test_is_unused(
    build: Build, tmp_path: Path, pneumonia_root: Path
) -> None:
    root = shutil.copytree(pneumonia_root, tmp_path / "chest_xray")
    film = Image.open(root / "test/NORMAL/IM-0101-0001.jpeg").point(lambda value: 0.8 * value)
    film.save(root / "train/NORMAL/NORMAL2-IM-0001-0003.jpeg", quality=60)
    data = build(root)
    unused = {row.path for row, side in zip(data.rows, data.sides, strict=True) if side == "unused"}
    assert unused == {f"train/NORMAL/NORMAL2-IM-0001-000{n}.jpeg" for n in (1, 2, 3)}  # all of that patient
    assert data.counts()["test"] == {"NORMAL": 4, "PNEUMONIA": 7}
    assert {row.group for row in data.rows if row.path in unused or "IM-0101" in row.path} == {"IM-0101"}


def test_the_folder_without_val_is_enough(
    build: Build, tmp_path: Path, pneumonia_root: Path, write_files: Callable[..., Path]
) -> None:
    names = [p.relative_to(pneumonia_root).as_posix() for p in pneumonia_root.rglob("*.jpeg")]
    data = build(write_files(tmp_path, [name for name in names if not name.startswith("val/")]))
    assert data.counts()["val"] == {"NORMAL": 2, "PNEUMONIA": 4}
