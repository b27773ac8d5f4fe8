"""What counts as an image of a data set, and whose image it is."""

import csv
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from xray_lightning.data.catalog import Layout, kermany_patient, scan, write_catalog
from xray_lightning.data.covid import CovidDataModule
from xray_lightning.data.pneumonia import PneumoniaDataModule
from xray_lightning.errors import XRayError

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


def test_every_image_of_both_layouts_is_found_once(pneumonia_root: Path, covid_root: Path) -> None:
    for folder, layout, classes in ((pneumonia_root, PNEUMONIA, TWO), (covid_root, COVID, FOUR)):
        rows = scan(folder, layout, classes)
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
    assert [row.path for row in scan(tmp_path, PNEUMONIA, TWO)] == sorted(SMALL)


def test_masks_are_no_images(covid_root: Path) -> None:
    rows = scan(covid_root, COVID, FOUR)
    assert len(rows) == 55
    assert {Path(row.path).parent.name for row in rows} == {"images"}


def test_covid_releases_without_an_images_folder_are_read(tmp_path: Path, write_files: FolderWriter) -> None:
    names = [f"{name}.png" for name in SMALL_COVID]
    write_files(tmp_path, [*names, "COVID/masks/COVID-1.png"])
    assert [row.path for row in scan(tmp_path, COVID, FOUR)] == sorted(names)


def test_capital_suffixes_are_images_too(tmp_path: Path, write_files: FolderWriter) -> None:
    write_files(tmp_path, [*SMALL, "train/NORMAL/IM-0009-0001.JPG", "train/NORMAL/IM-0010-0001.PNG"])
    assert len(scan(tmp_path, PNEUMONIA, TWO)) == 6


def test_rows_tell_class_split_size_and_patient(pneumonia_root: Path) -> None:
    rows = {row.path: row for row in scan(pneumonia_root, PNEUMONIA, TWO)}
    row = rows["train/PNEUMONIA/person1_virus_4.jpeg"]
    assert (row.label, row.class_name, row.group) == (1, "PNEUMONIA", "person1_virus")
    assert row.size == (pneumonia_root / row.path).stat().st_size
    assert {path.split("/")[0]: row.official for path, row in rows.items()} == {
        "train": "train",
        "val": "train",
        "test": "test",
    }


def test_labels_follow_the_order_of_the_classes_asked_for(covid_root: Path) -> None:
    rows = scan(covid_root, COVID, ["Pneumonia", "Covid"])
    assert {(row.class_name, row.label, Path(row.path).parts[0]) for row in rows} == {
        ("Pneumonia", 0, "Viral Pneumonia"),
        ("Covid", 1, "COVID"),
    }


def test_copies_have_one_digest_and_without_a_patient_one_group(
    tmp_path: Path, write_image: Callable[..., Path]
) -> None:
    for name in SMALL_COVID:
        write_image(tmp_path / f"{name}.png")
    original = write_image(tmp_path / "COVID" / "COVID-2.png")
    (tmp_path / "COVID" / "COVID-3.png").write_bytes(original.read_bytes())
    rows = {row.path: row for row in scan(tmp_path, COVID, FOUR)}
    one, two, three = (rows[f"COVID/COVID-{n}.png"] for n in (1, 2, 3))
    assert (two.digest, two.group) == (three.digest, three.group)
    assert one.digest != two.digest and one.group != two.group


def test_the_digest_is_of_the_contents_alone(tmp_path: Path, write_files: FolderWriter) -> None:
    digests = []
    for folder in ("here", "there"):
        write_files(tmp_path / folder, SMALL)
        os.utime(tmp_path / folder / SMALL[0], (0, 0))
        digests.append([row.digest for row in scan(tmp_path / folder, PNEUMONIA, TWO)])
    assert digests[0] == digests[1]


def test_every_missing_folder_is_named(tmp_path: Path, write_files: FolderWriter) -> None:
    write_files(tmp_path, [SMALL[0], SMALL[2]])
    with pytest.raises(XRayError) as error:
        scan(tmp_path, PNEUMONIA, TWO)
    message = str(error.value)
    assert str(tmp_path) in message
    assert "train/PNEUMONIA" in message and "test/PNEUMONIA" in message
    assert "train/NORMAL" not in message


def test_only_the_folders_of_the_classes_asked_for_are_needed(tmp_path: Path, write_files: FolderWriter) -> None:
    write_files(tmp_path, [f"{name}.png" for name in SMALL_COVID[:2]])
    assert len(scan(tmp_path, COVID, ["Covid", "Lung_infection"])) == 2


def test_the_official_val_folder_may_be_missing(tmp_path: Path, write_files: FolderWriter) -> None:
    assert len(scan(write_files(tmp_path, SMALL), PNEUMONIA, TWO)) == 4


def test_a_class_without_images_is_named(tmp_path: Path, write_files: FolderWriter) -> None:
    write_files(tmp_path, [f"{name}.png" for name in SMALL_COVID[:3]])
    (tmp_path / "Viral Pneumonia" / "images").mkdir(parents=True)
    (tmp_path / "Viral Pneumonia" / "images" / "readme.txt").write_text("no image")
    with pytest.raises(XRayError, match=r"no images .* of the class Pneumonia"):
        scan(tmp_path, COVID, FOUR)


def test_a_root_that_is_a_file_is_reported_like_a_missing_one(tmp_path: Path) -> None:
    file = tmp_path / "chest_xray"
    file.write_text("")
    with pytest.raises(XRayError, match="train/NORMAL"):
        scan(file, PNEUMONIA, TWO)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, write_files: FolderWriter) -> None:
    write_files(tmp_path, SMALL)
    (tmp_path / "train" / "NORMAL" / "IM-0005-0001.jpeg").symlink_to("nowhere.jpeg")
    with pytest.raises(XRayError, match=r"IM-0005-0001\.jpeg cannot be read"):
        scan(tmp_path, PNEUMONIA, TWO)


def test_another_layout_needs_only_its_folders(tmp_path: Path, write_files: FolderWriter) -> None:
    write_files(tmp_path, ["a/1.png", "b/1.png", "b/2.png"])
    rows = scan(tmp_path, Layout(folders={"A": ["a"], "B": ["b"]}), ["A", "B"])
    assert [(row.label, row.official) for row in rows] == [(0, ""), (1, ""), (1, "")]


@pytest.mark.parametrize(
    ("stem", "patient"),
    [
        ("person1_bacteria_1", "person1_bacteria"),
        ("person1_bacteria_24", "person1_bacteria"),
        ("person1_virus_6", "person1_virus"),
        ("person1946_bacteria_4874", "person1946_bacteria"),
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


def test_the_table_reads_back_with_the_split(tmp_path: Path, covid_root: Path) -> None:
    rows = scan(covid_root, COVID, FOUR)
    sides = [("train", "val", "test")[n % 3] for n in range(len(rows))]
    write_catalog(tmp_path / "catalog.csv", rows, sides)
    with (tmp_path / "catalog.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert [line["split"] for line in table] == sides
    for line, row in zip(table, rows, strict=True):
        assert line["path"] == row.path and (covid_root / line["path"]).is_file()
        assert (int(line["label"]), line["class_name"]) == (row.label, row.class_name)
        assert (int(line["size"]), line["group"], line["digest"]) == (row.size, row.group, row.digest)


def test_the_table_needs_a_side_for_every_row(tmp_path: Path, make_row: Callable[..., object]) -> None:
    with pytest.raises(ValueError):
        write_catalog(tmp_path / "catalog.csv", [make_row("a"), make_row("b")], ["train"])
    assert not list(tmp_path.iterdir())
