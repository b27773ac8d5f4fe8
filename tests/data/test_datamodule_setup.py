"""What every data module makes of a folder and its settings: sides, refusals and messages."""

import os
import shutil
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from xray_lightning.data.catalog import write_catalog
from xray_lightning.data.covid import CovidDataModule
from xray_lightning.data.datamodule import XRayDataModule
from xray_lightning.data.pneumonia import PneumoniaDataModule
from xray_lightning.data.splits import leaks
from xray_lightning.errors import XRayError

Build = Callable[..., XRayDataModule]
FolderWriter = Callable[..., Path]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def covid(covid_root: Path, cache: Path) -> Build:
    """A data module over the tiny covid folder, not set up."""

    def build(**settings: Any) -> CovidDataModule:
        defaults = {"root": str(covid_root), "image_size": 16, "cache_dir": str(cache), "test_fraction": 0.15}
        return CovidDataModule("covid", **defaults | settings)

    return build


@pytest.fixture(scope="module")
def pneumonia(pneumonia_root: Path, cache: Path) -> Build:
    """A data module over the tiny pneumonia folder, in which patients have up to three images, not set up."""

    def build(**settings: Any) -> PneumoniaDataModule:
        defaults = {"root": str(pneumonia_root), "image_size": 16, "cache_dir": str(cache)}
        return PneumoniaDataModule("pneumonia", **defaults | settings)

    return build


@pytest.fixture
def copied(tmp_path: Path, covid_root: Path) -> Path:
    """A copy of the tiny covid folder that may be changed."""
    return shutil.copytree(covid_root, tmp_path / "copy")


def ready(data: XRayDataModule) -> XRayDataModule:
    data.setup()
    return data


def sides_of_groups(data: XRayDataModule) -> list[set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for row, side in zip(data.rows, data.sides, strict=True):
        found[row.group].add(side)
    return list(found.values())


def test_sides_are_disjoint_and_complete(covid: Build) -> None:
    data = ready(covid())
    sides = [set(data.rows_of(side).tolist()) for side in ("train", "val", "test")]
    assert sum(map(len, sides)) == len(set.union(*sides)) == len(data.rows) == 55


def test_split_seed_sets_the_split(covid: Build) -> None:
    assert ready(covid(split_seed=1)).sides != ready(covid(split_seed=2)).sides


def test_a_failed_set_up_fails_again_and_succeeds_once_the_fault_is_mended(
    tmp_path: Path, covid: Build, write_files: FolderWriter, covid_root: Path
) -> None:
    names = [p.relative_to(covid_root).as_posix() for p in covid_root.glob("*/images/*")]
    write_files(tmp_path, names)
    broken = tmp_path / "COVID" / "images" / "COVID-99.png"
    broken.write_bytes(b"<html>")
    data = covid(root=str(tmp_path))
    for _ in range(2):
        with pytest.raises(XRayError, match=r"COVID-99\.png"):
            data.setup()
    broken.unlink()
    data.setup()
    assert sum(len(labels) for _, labels in data.test_dataloader()) == len(data.rows_of("test"))


def test_classes_can_name_a_subset_in_any_order(covid: Build) -> None:
    data = ready(covid(classes=["Pneumonia", "Covid"]))
    assert data.class_names == ["Pneumonia", "Covid"]
    assert {(row.class_name, row.label) for row in data.rows} == {("Pneumonia", 0), ("Covid", 1)}
    assert data.counts() == {
        "train": {"Pneumonia": 4, "Covid": 7},
        "val": {"Pneumonia": 2, "Covid": 2},
        "test": {"Pneumonia": 2, "Covid": 2},
    }


def test_counts_are_by_side_and_class(covid: Build) -> None:
    assert ready(covid(val_fraction=0.25)).counts() == {
        "train": {"Covid": 6, "Healthy": 12, "Lung_infection": 7, "Pneumonia": 4},
        "val": {"Covid": 3, "Healthy": 6, "Lung_infection": 4, "Pneumonia": 2},
        "test": {"Covid": 2, "Healthy": 4, "Lung_infection": 3, "Pneumonia": 2},
    }


def test_wrong_classes_are_answered_with_the_valid_ones(covid: Build) -> None:
    with pytest.raises(XRayError, match=r"dataset\.classes.*'Pnuemonia'.*Did you mean Pneumonia"):
        covid(classes=["Covid", "Pnuemonia"])
    with pytest.raises(XRayError, match="Covid, Healthy, Lung_infection, Pneumonia"):
        covid(classes=["Covid", "zzz"])


@pytest.mark.parametrize("classes", [[], ["Covid"], ["Covid", "Covid"], ["Covid", "Healthy", "Covid"]])
def test_classes_have_to_be_two_or_more_different_ones(covid: Build, classes: list[str]) -> None:
    with pytest.raises(XRayError, match="two or more different classes"):
        covid(classes=classes)


@pytest.mark.parametrize("key", ["batch_size", "eval_batch_size"])
@pytest.mark.parametrize("value", [0, -4])
def test_batch_sizes_have_to_be_positive(covid: Build, key: str, value: int) -> None:
    with pytest.raises(XRayError, match=rf"dataset\.{key}={value}"):
        covid(**{key: value})


@pytest.mark.parametrize("value", [0, -224])
def test_the_image_size_has_to_be_positive(value: int) -> None:
    with pytest.raises(XRayError, match=rf"dataset\.image_size={value}"):
        CovidDataModule("covid", root="data", image_size=value, cache_dir="cache")


@pytest.mark.parametrize("key", ["val_fraction", "test_fraction"])
@pytest.mark.parametrize("value", [0.0, 1.0, -0.1, 15, float("nan")])
def test_fractions_have_to_be_shares(covid: Build, key: str, value: float) -> None:
    with pytest.raises(XRayError, match=rf"dataset\.{key}={value}"):
        covid(**{key: value})


def test_a_class_with_too_few_images_is_named(tmp_path: Path, covid: Build, write_files: FolderWriter) -> None:
    many = [f"{folder}/images/{n}.png" for folder in ("COVID", "Normal") for n in range(10)]
    write_files(tmp_path, [*many, "Viral Pneumonia/images/1.png"])
    with pytest.raises(XRayError) as error:
        covid(root=str(tmp_path), classes=["Covid", "Healthy", "Pneumonia"]).setup()
    message = str(error.value)
    assert "no train image of Pneumonia" in message and str(tmp_path) in message
    assert "Covid" not in message and "dataset.classes" in message


def test_fractions_that_leave_nothing_to_train_on_are_refused(covid: Build) -> None:
    with pytest.raises(XRayError, match="no train image"):
        covid(val_fraction=0.5, test_fraction=0.5).setup()


@pytest.mark.parametrize("module", [PneumoniaDataModule, CovidDataModule])
def test_a_missing_folder_says_what_to_do(tmp_path: Path, module: type[XRayDataModule]) -> None:
    place = tmp_path / "nowhere" / module.kaggle.folder
    data = module("some_name", root=str(place), image_size=16, cache_dir=str(tmp_path))
    with pytest.raises(XRayError) as error:
        data.setup()
    for part in (
        str(place),
        "python -m xray_lightning.data.download dataset=some_name",
        f"https://www.kaggle.com/datasets/{module.kaggle.handle}",
        "XRAY_DATA",
        "dataset.root",
        "make demo",
        next(iter(module.layout.folders.values()))[0],
    ):
        assert part in str(error.value)


def test_a_relative_missing_folder_says_from_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, covid: Build
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(XRayError) as error:
        covid(root="data/COVID").setup()
    assert "data/COVID" in str(error.value) and str(tmp_path) in str(error.value)


def test_only_folders_beside_the_marker_are_synthetic(tmp_path: Path, covid: Build, covid_root: Path) -> None:
    assert not covid().synthetic
    (tmp_path / "SYNTHETIC.json").write_text("{}")
    assert covid(root=str(tmp_path / "COVID-19_Radiography_Dataset")).synthetic


def test_a_reference_split_warns_that_it_leaks(pneumonia: Build, caplog: pytest.LogCaptureFixture) -> None:
    data = ready(pneumonia(split="reference", val_fraction=0.4))
    assert {"train", "val"} in sides_of_groups(data)
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert f"{leaks(data.rows, data.sides)['train', 'val']} of 17 validation images" in warning


def test_a_grouped_split_never_leaks(pneumonia: Build, caplog: pytest.LogCaptureFixture) -> None:
    for split_seed in range(8):
        data = ready(pneumonia(split_seed=split_seed, val_fraction=0.4))
        assert data.leaked == {} and all(len(sides) == 1 for sides in sides_of_groups(data))
    assert "leak" not in caplog.text


def test_the_catalog_of_another_run_repeats_its_split(covid: Build, copied: Path, tmp_path: Path) -> None:
    other = ready(covid(split_seed=7, val_fraction=0.3))
    write_catalog(tmp_path / "catalog.csv", other.rows, other.sides)
    assert ready(covid()).sides != other.sides
    assert ready(covid(split_file=str(tmp_path / "catalog.csv"))).sides == other.sides
    for file in copied.glob("*/images/*"):
        file.rename(file.with_stem(f"renamed-{file.stem}"))
    renamed = ready(covid(root=str(copied), split_file=str(tmp_path / "catalog.csv")))
    by_digest = {row.digest: side for row, side in zip(other.rows, other.sides, strict=True)}
    assert [by_digest[row.digest] for row in renamed.rows] == renamed.sides


def test_a_leaking_split_file_is_refused_unless_it_is_wanted(
    pneumonia: Build, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = ready(pneumonia())
    patient = [n for n, row in enumerate(other.rows) if row.group == "person1_virus"]
    sides = list(other.sides)
    for number, side in zip(patient, ("train", "val", "test"), strict=True):
        sides[number] = side
    write_catalog(tmp_path / "leaking.csv", other.rows, sides)
    for split in ("grouped", "reference"):
        with pytest.raises(XRayError, match=r"1 of \d+ test images .* twin in train.*dataset\.on_leak=warn"):
            pneumonia(split=split, split_file=str(tmp_path / "leaking.csv")).setup()
    assert not caplog.text
    assert ready(pneumonia(split_file=str(tmp_path / "leaking.csv"), on_leak="warn")).sides == sides
    assert "This split leaks" in caplog.text


def test_a_split_file_without_a_side_is_refused(covid: Build, tmp_path: Path) -> None:
    other = ready(covid())
    write_catalog(tmp_path / "catalog.csv", other.rows, ["unused" if s == "val" else s for s in other.sides])
    with pytest.raises(XRayError, match=r"no val image of Covid.*dataset\.split_file names none"):
        covid(split_file=str(tmp_path / "catalog.csv")).setup()


def test_bad_files_stop_with_all_their_names_or_are_skipped(
    covid: Build, copied: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = copied / "COVID" / "images"
    (images / "COVID-1.png").write_bytes((images / "COVID-1.png").read_bytes()[:90])
    (images / "COVID-2.png").write_bytes(b"")
    Image.open(images / "COVID-3.png").save(images / "COVID-3.jpg", format="PNG")
    with pytest.raises(XRayError, match=r"(?s)3 of 56 files .*dataset\.on_bad_image=skip") as error:
        covid(root=str(copied)).setup()
    skipped = ready(covid(root=str(copied), on_bad_image="skip"))
    assert len(skipped.rows) == len(skipped.images) == 53
    for name, what in (("COVID-1.png", "truncated"), ("COVID-2.png", "is empty"), ("COVID-3.jpg", "rename it")):
        assert what in skipped.collection.bad[f"COVID/images/{name}"]
        assert f"COVID/images/{name} {skipped.collection.bad[f'COVID/images/{name}']}" in str(error.value)
        assert f"COVID/images/{name}" in caplog.text


def test_a_file_that_changes_is_noticed_even_if_its_time_is_set_back(covid: Build, copied: Path) -> None:
    before = ready(covid(root=str(copied)))
    changed = copied / "COVID" / "images" / "COVID-1.png"
    status = changed.stat()
    Image.open(changed).transpose(Image.Transpose.ROTATE_90).save(changed)
    os.utime(changed, ns=(status.st_atime_ns, status.st_mtime_ns))
    after = ready(covid(root=str(copied)))
    assert [a.path for a, b in zip(before.rows, after.rows, strict=True) if a.digest != b.digest] == [
        "COVID/images/COVID-1.png"
    ]
    row = [row.path for row in after.rows].index("COVID/images/COVID-1.png")
    assert (after.images[row] != before.images[row]).any()
