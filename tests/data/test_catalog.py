"""What counts as an image of a data set, and whose image it is."""

import csv
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path

import pytest

from xray_lightning.data.catalog import (
    Entry,
    Layout,
    MissingFolders,
    Radiograph,
    kermany_patient,
    list_images,
    make_catalog,
    write_catalog,
)
from xray_lightning.data.covid import CovidDataModule
from xray_lightning.data.examine import Facts
from xray_lightning.data.pneumonia import PneumoniaDataModule

PNEUMONIA = PneumoniaDataModule.layout
COVID = CovidDataModule.layout
TWO = ["NORMAL", "PNEUMONIA"]
FOUR = ["Covid", "Healthy", "Lung_infection", "Pneumonia"]
SMALL = (
    "train/NORMAL/IM-0001-0001.jpeg",
    "train/PNEUMONIA/person1_bacteria_1.jpeg",
    "test/NORMAL/IM-0002-0001.jpeg",
    "test/PNEUMONIA/person2_virus_2.jpeg",
)
SMALL_COVID = ("COVID/COVID-1", "Lung_Opacity/Lung_Opacity-1", "Normal/Normal-1", "Viral Pneumonia/Viral-1")

FolderWriter = Callable[..., Path]
MakeRow = Callable[..., Radiograph]


def test_every_image_of_both_layouts_is_found_once(pneumonia_root: Path, covid_root: Path) -> None:
    for folder, layout, classes in ((pneumonia_root, PNEUMONIA, TWO), (covid_root, COVID, FOUR)):
        rows = list_images(folder, layout, classes)
        images = {p.relative_to(folder).as_posix() for p in folder.rglob("*.*") if "masks" not in p.parts}
        assert [row.path for row in rows] == sorted(images)


def test_leftovers_of_kaggles_archive_are_neither_read_nor_counted(tmp_path: Path, write_files: FolderWriter) -> None:
    write_files(tmp_path, SMALL)
    write_files(tmp_path / "chest_xray", SMALL)
    for name in SMALL:
        for apple in (tmp_path / "__MACOSX" / name, tmp_path / name):
            apple.parent.mkdir(parents=True, exist_ok=True)
            (apple.parent / f"._{apple.name}").write_bytes(b"\x00\x05\x16\x07")
            (apple.parent / ".DS_Store").write_bytes(b"\x00\x00\x00\x01Bud1")
    (tmp_path / "train" / "NORMAL" / "Thumbs.db").write_bytes(b"x")
    assert [row.path for row in list_images(tmp_path, PNEUMONIA, TWO)] == sorted(SMALL)


def test_masks_are_no_images(covid_root: Path) -> None:
    rows = list_images(covid_root, COVID, FOUR)
    assert len(rows) == 55
    assert {Path(row.path).parent.name for row in rows} == {"images"}


def test_covid_releases_without_an_images_folder_are_read(tmp_path: Path, write_files: FolderWriter) -> None:
    names = [f"{name}.png" for name in SMALL_COVID]
    write_files(tmp_path, [*names, "COVID/masks/COVID-1.png"])
    assert [row.path for row in list_images(tmp_path, COVID, FOUR)] == sorted(names)


def test_capital_suffixes_are_images_too(tmp_path: Path, write_files: FolderWriter) -> None:
    write_files(tmp_path, [*SMALL, "train/NORMAL/IM-0009-0001.JPG", "train/NORMAL/IM-0010-0001.PNG"])
    assert len(list_images(tmp_path, PNEUMONIA, TWO)) == 6


def test_entries_tell_class_published_split_and_patient(pneumonia_root: Path) -> None:
    entries = {entry.path: entry for entry in list_images(pneumonia_root, PNEUMONIA, TWO)}
    path = "train/PNEUMONIA/person1_virus_4.jpeg"
    assert entries[path] == Entry(path, 1, "PNEUMONIA", patient="person1_virus", official="train", subtype="virus")
    assert {path.split("/")[0]: entry.official for path, entry in entries.items()} == {
        "train": "train",
        "val": "train",
        "test": "test",
    }


def test_what_a_layout_does_not_know_is_empty(tmp_path: Path, write_files: FolderWriter) -> None:
    write_files(tmp_path, ["a/1.png"])
    assert list_images(tmp_path, Layout(folders={"A": ["a"]}), ["A"]) == [Entry("a/1.png", 0, "A", "", "", "")]


def test_the_source_of_an_image_comes_from_its_folder(tmp_path: Path, write_files: FolderWriter) -> None:
    write_files(tmp_path, ["a/1.png", "b/1.png"])
    layout = Layout(folders={"A": ["a"], "B": ["b"]}, source=lambda folder: f"hospital {folder}")
    assert [entry.source for entry in list_images(tmp_path, layout, ["A", "B"])] == ["hospital a", "hospital b"]


def test_labels_follow_the_order_of_the_classes_asked_for(covid_root: Path) -> None:
    rows = list_images(covid_root, COVID, ["Pneumonia", "Covid"])
    assert {(row.class_name, row.label, Path(row.path).parts[0]) for row in rows} == {
        ("Pneumonia", 0, "Viral Pneumonia"),
        ("Covid", 1, "COVID"),
    }


def test_every_missing_folder_is_named(tmp_path: Path, write_files: FolderWriter) -> None:
    write_files(tmp_path, [SMALL[0], SMALL[2]])
    with pytest.raises(MissingFolders) as error:
        list_images(tmp_path, PNEUMONIA, TWO)
    message = str(error.value)
    assert str(tmp_path) in message
    assert "train/PNEUMONIA" in message and "test/PNEUMONIA" in message
    assert "train/NORMAL" not in message


def test_only_the_folders_of_the_classes_asked_for_are_needed(tmp_path: Path, write_files: FolderWriter) -> None:
    write_files(tmp_path, [f"{name}.png" for name in SMALL_COVID[:2]])
    assert len(list_images(tmp_path, COVID, ["Covid", "Lung_infection"])) == 2


def test_the_official_val_folder_may_be_missing(tmp_path: Path, write_files: FolderWriter) -> None:
    assert len(list_images(write_files(tmp_path, SMALL), PNEUMONIA, TWO)) == 4


def test_a_class_without_images_is_named(tmp_path: Path, write_files: FolderWriter) -> None:
    write_files(tmp_path, [f"{name}.png" for name in SMALL_COVID[:3]])
    (tmp_path / "Viral Pneumonia" / "images").mkdir(parents=True)
    (tmp_path / "Viral Pneumonia" / "images" / "readme.txt").write_text("no image")
    with pytest.raises(MissingFolders, match=r"no images .* of the class Pneumonia"):
        list_images(tmp_path, COVID, FOUR)


def test_a_root_that_is_a_file_is_reported_like_a_missing_one(tmp_path: Path) -> None:
    file = tmp_path / "chest_xray"
    file.write_text("")
    with pytest.raises(MissingFolders, match="train/NORMAL"):
        list_images(file, PNEUMONIA, TWO)


def test_no_file_is_opened(tmp_path: Path, write_files: FolderWriter) -> None:
    write_files(tmp_path, SMALL)
    folder = tmp_path / "train" / "NORMAL"
    (folder / "IM-0005-0001.jpeg").symlink_to("nowhere.jpeg")
    (folder / "IM-0006-0001.jpeg").write_text("no image")
    os.mkfifo(folder / "IM-0007-0001.jpeg")  # would block whoever opens it
    assert len(list_images(tmp_path, PNEUMONIA, TWO)) == 7


def test_another_layout_needs_only_its_folders(tmp_path: Path, write_files: FolderWriter) -> None:
    write_files(tmp_path, ["a/1.png", "b/1.png", "b/2.png"])
    rows = list_images(tmp_path, Layout(folders={"A": ["a"], "B": ["b"]}), ["A", "B"])
    assert [(row.label, row.official) for row in rows] == [(0, ""), (1, ""), (1, "")]


@pytest.mark.parametrize(
    ("stem", "patient"),
    [
        ("person1_bacteria_1", "person1_bacteria"),
        ("person1_bacteria_24", "person1_bacteria"),
        ("person1_virus_6", "person1_virus"),
        ("person1946_bacteria_4874", "person1946_bacteria"),
        ("person1_virus_6_2", "person1_virus"),
        ("IM-0123-0001", "IM-0123"),
        ("IM-0123-0001-0002", "IM-0123"),
        ("IM-0123", "IM-0123"),
        ("NORMAL2-IM-0123-0001", "NORMAL2-IM-0123"),
        ("NORMAL2-IM-0123-0001-0003", "NORMAL2-IM-0123"),
        ("", None),
        ("image", None),
        ("person1", None),
        ("person1_fungus_3", None),
        ("personX_virus_3", None),
        ("person1_virus_6 (copy)", None),
        ("NORMAL3-IM-0123-0001", None),
        ("COVID-12", None),
    ],
)
def test_patients_of_kermany_file_names(stem: str, patient: str | None) -> None:
    assert kermany_patient(stem) == patient


def _facts(digest: str) -> Facts:
    return Facts("stamp", size=7, digest=digest, format="JPEG", mode="RGB", width=3, height=2, problem="")


def test_a_row_joins_place_contents_and_group() -> None:
    entries = [
        Entry("a.jpg", 0, "well", patient="p1", source="here", official="train"),
        Entry("b.jpg", 1, "ill"),
        Entry("c.jpg", 1, "ill"),
    ]
    rows = make_catalog(entries, [_facts("d1"), _facts("d2"), _facts("d3")], [("d1", "d2", 0.95)])
    facts = {"format": "JPEG", "mode": "RGB", "width": 3, "height": 2, "size": 7}
    assert [row.group for row in rows] == ["p1", "p1", "d3"]
    for row, entry, digest in zip(rows, entries, ("d1", "d2", "d3"), strict=True):
        assert asdict(row) == asdict(entry) | facts | {"digest": digest, "group": row.group}


def test_every_entry_needs_its_facts() -> None:
    with pytest.raises(ValueError):
        make_catalog([Entry("a.jpg", 0, "well")], [], [])


def test_the_table_reads_back_with_the_split(tmp_path: Path, make_row: MakeRow) -> None:
    rows = [make_row(f'{n}, "é".png', n % 2, official="train", patient=f"p{n}") for n in range(6)]
    sides = [("train", "val", "test")[n % 3] for n in range(len(rows))]
    write_catalog(tmp_path / "catalog.csv", rows, sides)
    with (tmp_path / "catalog.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert list(table[0]) == [*(field.name for field in fields(Radiograph)), "split"]
    for line, row, side in zip(table, rows, sides, strict=True):
        assert line == {name: str(value) for name, value in asdict(row).items()} | {"split": side}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_names_that_are_no_utf8_are_written_as_they_are(tmp_path: Path, make_row: MakeRow) -> None:
    write_catalog(tmp_path / "catalog.csv", [make_row(os.fsdecode(b"caf\xe9.png"))], ["train"])
    assert b"\ncaf\xe9.png,0," in (tmp_path / "catalog.csv").read_bytes()


def test_the_table_needs_a_side_for_every_row(tmp_path: Path, make_row: MakeRow) -> None:
    with pytest.raises(ValueError):
        write_catalog(tmp_path / "catalog.csv", [make_row("a"), make_row("b")], ["train"])
    assert not list(tmp_path.iterdir())
