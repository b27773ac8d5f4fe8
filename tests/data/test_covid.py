"""The COVID-19 database: its classes and its 70/15/15 split."""

import shutil
from collections.abc import Callable
from math import ceil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from xray_lightning.data.covid import CovidDataModule, CovidScreenDataModule

Build = Callable[..., CovidDataModule]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    cache = tmp_path_factory.mktemp("cache")

    def ready(root: Path, **settings: Any) -> CovidDataModule:
        data = CovidDataModule("covid", str(root), 8, str(cache), test_fraction=0.15, **settings)
        data.setup()
        return data

    return ready


def test_the_classes_come_from_their_folders_in_order(build: Build, covid_root: Path) -> None:
    data = build(covid_root)
    assert data.class_names == ["Covid", "Healthy", "Lung_infection", "Pneumonia"]
    assert {(row.path.split("/")[0], row.class_name, row.label) for row in data.rows} == {
        ("COVID", "Covid", 0),
        ("Normal", "Healthy", 1),
        ("Lung_Opacity", "Lung_infection", 2),
        ("Viral Pneumonia", "Pneumonia", 3),
    }


def test_the_published_numbers_are_those_of_kaggle() -> None:
    counts = CovidDataModule.kaggle.counts
    assert sum(counts.values()) == 21165
    assert sum(ceil(15 * n / 100) for n in counts.values()) == CovidDataModule.published_test == 3176
    assert set(counts) == {folder for f in CovidDataModule.layout.folders.values() for folder in f}


@pytest.mark.parametrize("split_seed", [0, 1])
def test_test_and_validation_are_15_percent_of_each_class(build: Build, covid_root: Path, split_seed: int) -> None:
    share = {"Covid": 2, "Healthy": 4, "Lung_infection": 3, "Pneumonia": 2}
    data = build(covid_root, split_seed=split_seed)
    assert data.counts() == {
        "train": {"Covid": 7, "Healthy": 14, "Lung_infection": 8, "Pneumonia": 4},
        "val": share,
        "test": share,
    }


def test_identical_files_are_on_one_side(
    build: Build, tmp_path: Path, covid_root: Path, write_files: Callable[..., Path]
) -> None:
    write_files(tmp_path, [p.relative_to(covid_root).as_posix() for p in covid_root.glob("*/images/*")])
    images = tmp_path / "COVID" / "images"
    for n in (1, 2, 3):
        (images / f"COVID-copy-{n}.png").write_bytes((images / f"COVID-{n}.png").read_bytes())
    for seed in range(12):
        data = build(tmp_path, split_seed=seed)
        sides = {Path(row.path).stem: side for row, side in zip(data.rows, data.sides, strict=True)}
        assert all(sides[f"COVID-{n}"] == sides[f"COVID-copy-{n}"] for n in (1, 2, 3))
        assert data.counts()["test"]["Covid"] == 3


def test_an_image_saved_again_is_on_the_side_of_its_original(build: Build, tmp_path: Path, covid_root: Path) -> None:
    root = shutil.copytree(covid_root, tmp_path / "data")
    images = root / "Normal" / "images"
    for n in range(1, 6):
        Image.open(images / f"Normal-{n}.png").point(lambda value: 0.8 * value).save(
            images / f"again-{n}.jpg", quality=60
        )
    for seed in range(12):
        data = build(root, split_seed=seed)
        sides = {Path(row.path).stem: side for row, side in zip(data.rows, data.sides, strict=True)}
        assert all(sides[f"Normal-{n}"] == sides[f"again-{n}"] for n in range(1, 6))
        assert data.counts()["test"]["Healthy"] == data.counts()["val"]["Healthy"] == 5
    assert len(data.collection.twins) == 5


def test_one_image_in_two_classes_trains(
    build: Build, tmp_path: Path, covid_root: Path, write_files: Callable[..., Path]
) -> None:
    write_files(tmp_path, [p.relative_to(covid_root).as_posix() for p in covid_root.glob("*/images/*")])
    twice = (tmp_path / "COVID" / "images" / "COVID-1.png").read_bytes()
    (tmp_path / "Normal" / "images" / "Normal-1.png").write_bytes(twice)
    for seed in range(12):
        data = build(tmp_path, split_seed=seed)
        sides = {Path(row.path).stem: side for row, side in zip(data.rows, data.sides, strict=True)}
        assert sides["COVID-1"] == sides["Normal-1"] == "train"


@pytest.mark.parametrize("settings", [{}, {"split_seed": 3, "val_fraction": 0.2}, {"split": "reference"}])
def test_the_screen_has_the_same_split_image_by_image(
    tmp_path: Path, covid_root: Path, build: Build, settings: dict[str, Any], write_files: Callable[..., Path]
) -> None:
    write_files(tmp_path, [p.relative_to(covid_root).as_posix() for p in covid_root.glob("*/images/*")])
    # as in the whole data set, one image that two diseases share: for the screen, too, it is for training alone
    twice = (tmp_path / "COVID" / "images" / "COVID-1.png").read_bytes()
    (tmp_path / "Lung_Opacity" / "images" / "Lung_Opacity-1.png").write_bytes(twice)
    data = build(tmp_path, on_leak="warn", **settings)
    screen = CovidScreenDataModule(
        "screen", str(tmp_path), 8, str(tmp_path / "cache"), test_fraction=0.15, on_leak="warn", **settings
    )
    screen.setup()
    assert [row.path for row in screen.rows] == [row.path for row in data.rows]
    assert screen.sides == data.sides
    assert screen.class_names == ["Healthy", "Disease"]
    for row, same in zip(screen.rows, data.rows, strict=True):
        assert (row.subtype, row.label) == (same.class_name, int(same.class_name != "Healthy"))
