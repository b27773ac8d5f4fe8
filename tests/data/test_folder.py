"""Any data set with a folder for each class, or with a table: what is found, what is refused, and a whole run."""

import csv
import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from string import ascii_letters, digits
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from xray_lightning.arguments import check_arguments
from xray_lightning.config import CONF, build
from xray_lightning.data.catalog import Entry
from xray_lightning.data.download import KaggleSource, download, source_of
from xray_lightning.data.folder import FolderDataModule, patient_in
from xray_lightning.data.listing import below, few, read_table
from xray_lightning.errors import XRayError
from xray_lightning.run import test as score
from xray_lightning.run import train

FolderWriter = Callable[..., Path]
Configure = Callable[..., DictConfig]
PEOPLE = {"ill": range(10), "well": range(10, 20)}
TWO = [f"{folder}/p{n:02d}_{k}.png" for folder, people in PEOPLE.items() for n in people for k in (1, 2)]
PATIENT = r"^(p\d+)_"


def module(root: Path, **settings: Any) -> FolderDataModule:
    return FolderDataModule("mine", str(root), image_size=8, cache_dir=str(root.parent / "cache"), **settings)


def ready(root: Path, **settings: Any) -> FolderDataModule:
    data = module(root, **settings)
    data.setup()
    return data


def refused(root: Path, **settings: Any) -> str:
    with pytest.raises(XRayError) as caught:
        module(root, **settings).entries()
    return str(caught.value)


def classes(root: Path, **settings: Any) -> dict[str, int]:
    entries = module(root, **settings).entries()
    return {e.class_name: e.label for e in entries}


def by_path(root: Path, **settings: Any) -> dict[str, Entry]:
    return {entry.path: entry for entry in module(root, **settings).entries()}


@pytest.fixture
def root(tmp_path: Path, write_files: FolderWriter) -> Path:
    """Two classes, two images of each of ten patients in each."""
    return write_files(tmp_path / "lungs", TWO)


@pytest.fixture
def table(root: Path) -> Callable[..., Path]:
    """Writes root/list.csv of lines as they are given."""

    def write(*lines: str, encoding: str = "utf-8") -> Path:
        (root / "list.csv").write_text("\n".join(lines), encoding=encoding)
        return root

    return write


def test_each_folder_with_images_is_a_class_in_alphabetical_order(tmp_path: Path, write_files: FolderWriter) -> None:
    write_files(tmp_path, ["b/1.png", "C/images/1.png", "C/masks/1.png", "a/1.jpeg"])
    assert classes(tmp_path) == {"a": 0, "b": 1, "C": 2}
    assert "C/masks/1.png" not in by_path(tmp_path)


def test_what_comes_with_a_data_set_is_no_class(root: Path, write_files: FolderWriter) -> None:
    write_files(root, ["__MACOSX/1.png", ".hidden/1.png", "masks/1.png", "images/1.png", "top.png"])
    (root / "docs").mkdir()
    assert sorted(by_path(root)) == sorted(TWO)


def test_folders_that_are_not_read_are_named(
    root: Path, write_files: FolderWriter, caplog: pytest.LogCaptureFixture
) -> None:
    write_files(root, ["maybe/left/1.png"])
    module(root)
    assert "Not read, being no class folders: maybe" in caplog.text


@pytest.mark.parametrize("names", [("train", "test"), ("Train", "Test"), ("train", "val", "test"), ("valid", "test")])
def test_a_published_split_is_kept(tmp_path: Path, write_files: FolderWriter, names: tuple[str, ...]) -> None:
    write_files(tmp_path, [f"{side}/{file}" for side in names for file in TWO])
    data = ready(tmp_path)
    for row, side in zip(data.rows, data.sides, strict=True):
        assert (side == "test") == row.path.lower().startswith("test/")
    assert data.class_names == ["ill", "well"] and data.test_fraction is None


def test_a_test_fraction_pools_the_published_split(tmp_path: Path, write_files: FolderWriter) -> None:
    write_files(tmp_path, [f"{side}/{file}" for side in ("train", "test") for file in TWO])
    data = ready(tmp_path, test_fraction=0.1)
    assert data.counts()["test"] == {"ill": 4, "well": 4}
    assert {row.path.split("/")[0] for row in data.rows if data.sides[data.rows.index(row)] == "train"} == {
        "train",
        "test",
    }


@pytest.mark.parametrize("sides", [(), ("train",), ("test",), ("train", "validation")])
def test_without_a_published_test_15_percent_are_split_off(
    tmp_path: Path, write_files: FolderWriter, sides: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    write_files(tmp_path, [f"{side}/{file}" for side in sides for file in TWO] or TWO)
    (tmp_path / "test").mkdir(exist_ok=True)
    with caplog.at_level(logging.INFO):
        data = ready(tmp_path)
    assert data.counts()["test"] == dict.fromkeys(["ill", "well"], 3 * max(1, len(sides)))
    assert "no official test: 0.15" in caplog.text


def test_unlabelled_test_images_are_no_class(tmp_path: Path, write_files: FolderWriter) -> None:
    write_files(tmp_path, [*(f"train/{file}" for file in TWO), "test/1.png"])
    assert classes(tmp_path) == {"ill": 0, "well": 1}


def test_the_classes_and_the_positive_one_are_logged(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        module(root)
        module(root, classes=["well", "ill"])
    assert "classes 0 ill, 1 well; well is the positive one" in caplog.text
    assert "classes 0 well, 1 ill; ill is the positive one" in caplog.text


@pytest.mark.parametrize(
    "files", [[], ["1.png"], ["a/1.png"], ["data/a/1.png", "data/b/1.png"], ["train/1.png", "test/1.png"]]
)
def test_fewer_than_two_classes_are_refused_with_the_layout_expected(
    tmp_path: Path, write_files: FolderWriter, files: list[str]
) -> None:
    message = refused(write_files(tmp_path, files))
    assert str(tmp_path) in message and "<root>/<class>/*.png" in message and "dataset.folders" in message
    assert ("other folders: data" in message) == any(file.startswith("data/") for file in files)


def test_a_missing_root_says_what_was_looked_for(tmp_path: Path) -> None:
    message = refused(tmp_path / "nowhere")
    assert str(tmp_path / "nowhere") in message and "<root>/<class>/*.png" in message and "dataset.root" in message


def test_a_missing_root_that_kaggle_has_says_how_to_get_it(tmp_path: Path) -> None:
    message = refused(tmp_path / "nowhere", kaggle=KaggleSource("owner/name", "lungs", {"ill": 1}))
    assert "data.download dataset=mine" in message and "kaggle.com/datasets/owner/name" in message


def test_named_folders_keep_their_order(root: Path, write_files: FolderWriter) -> None:
    write_files(root, ["more/left/1.png", "more/right/1.png"])
    entries = by_path(root, folders={"Well": "well", "Ill": ["ill", "more\\left/"]})
    assert {e.class_name: e.label for e in entries.values()} == {"Well": 0, "Ill": 1}
    assert entries["more/left/1.png"].class_name == "Ill" and "more/right/1.png" not in entries


def test_named_folders_tell_a_published_split_too(tmp_path: Path, write_files: FolderWriter) -> None:
    write_files(tmp_path, [f"{side}/{file}" for side in ("train", "test") for file in TWO])
    data = ready(tmp_path, folders={c: [f"train/{c}", f"test/{c}"] for c in ("ill", "well")})
    assert data.counts()["test"] == {"ill": 20, "well": 20}


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        ({"a": "ill", "b": "gone"}, "has no gone"),
        ({"a": "ill", "b": []}, "dataset.folders.b=[] is not valid"),
        ({"a": "ill", "b": 3}, "dataset.folders.b=3 is not valid"),
        ({"a": "ill", "b": "../well"}, "dataset.folders.b='../well' is not valid"),
        ({"a": "ill", "b": "/well"}, "dataset.folders.b='/well' is not valid"),
        ({"a": "ill", False: "well"}, "Write it in quotes"),
        ({"a": "ill", "b": ["well", "ill"]}, "the same images under two folders: ill/p00_1.png"),
        ({"a": "ill"}, "two or more"),
        ({}, "two or more"),
    ],
)
def test_folders_that_cannot_be_used_are_refused(root: Path, folders: dict[Any, Any], message: str) -> None:
    with pytest.raises(XRayError, match=re.escape(message)):
        module(root, folders=folders).catalog()


def test_images_of_one_patient_are_one_group(root: Path) -> None:
    data = ready(root, patient_pattern=PATIENT)
    assert {row.group for row in data.rows} == {f"p{n:02d}" for n in range(20)}
    assert {row.patient for row in data.rows if "p03" in row.path} == {"p03"}


@pytest.mark.parametrize(
    ("pattern", "patient"),
    [(PATIENT, "p03"), (r"p\d+", "p03"), (r"(\d+)_(\d)", "03"), (r"(z)?p\d+", ""), (r"()p", ""), (r"q\d+", "")],
)
def test_the_patient_is_the_first_group_or_without_one_the_whole_match(pattern: str, patient: str) -> None:
    assert patient_in("p03_1", re.compile(pattern)) == patient


@given(number=st.integers(0, 10**6), rest=st.text(ascii_letters + digits, max_size=5))
def test_the_patient_does_not_depend_on_what_follows(number: int, rest: str) -> None:
    assert patient_in(f"p{number}_{rest}", re.compile(PATIENT)) == f"p{number}"


def test_a_pattern_that_matches_no_file_is_refused(root: Path) -> None:
    message = refused(root, patient_pattern="^patient")
    assert "^patient finds no patient in any of 40 file names, such as p00_1" in message


def test_a_pattern_that_matches_few_files_warns(
    root: Path, write_files: FolderWriter, caplog: pytest.LogCaptureFixture
) -> None:
    write_files(root, ["ill/q1.png"])
    module(root, patient_pattern=r"^(q\d)").entries()
    assert [r.getMessage() for r in caplog.records] == ["mine: the patient of 1 of 41 images is known, 1 patients"]


def test_patients_of_several_classes_warn(
    root: Path, write_files: FolderWriter, caplog: pytest.LogCaptureFixture
) -> None:
    write_files(root, ["well/p00_1.png"])
    module(root, patient_pattern=PATIENT).entries()
    assert "1 of 20 patients have images of several classes" in caplog.text


def test_a_pattern_that_is_none_is_refused(root: Path) -> None:
    assert "patient_pattern=( is no regular expression" in refused(root, patient_pattern="(")


def test_a_table_tells_class_patient_and_split(table: Callable[..., Path]) -> None:
    lines = [
        "path,label,patient,split",
        "ill/p00_1.png,sick,A,test",
        "well\\p10_1.png,fine,,Train",
        "well/p11_1.png,fine,B,val",
    ]
    entries = by_path(table(*lines), table="list.csv", patient_pattern=PATIENT)
    assert entries == {
        "ill/p00_1.png": Entry("ill/p00_1.png", 1, "sick", "A", "", "test"),
        "well/p10_1.png": Entry("well/p10_1.png", 0, "fine", "p10", "", "train"),
        "well/p11_1.png": Entry("well/p11_1.png", 0, "fine", "B", "", "train"),
    }


def test_the_classes_of_a_table_can_be_ordered_and_chosen(table: Callable[..., Path]) -> None:
    root = table("path,label", "ill/p00_1.png,a", "ill/p01_1.png,b", "ill/p02_1.png,c")
    assert classes(root, table="list.csv", classes=["c", "a"]) == {"c": 0, "a": 1}
    assert "Valid: a, b, c" in refused(root, table="list.csv", classes=["c", "sick"])


def test_without_labels_the_folders_tell_the_class(table: Callable[..., Path], write_files: FolderWriter) -> None:
    root = table("path,patient", "ill/p00_1.png,A", "well/images/1.png,A", "sub/ill/1.png,B")
    write_files(root, ["well/images/1.png", "sub/ill/1.png"])
    entries = by_path(root, table="list.csv", folders={"well": "well", "ill": ["ill", "sub/ill"]})
    assert {(e.path, e.class_name, e.patient) for e in entries.values()} == {
        ("ill/p00_1.png", "ill", "A"),
        ("well/images/1.png", "well", "A"),
        ("sub/ill/1.png", "ill", "B"),
    }


def test_a_table_without_a_split_leaves_it_to_the_folders(tmp_path: Path, write_files: FolderWriter) -> None:
    write_files(tmp_path, ["train/1.png", "test/1.png"])
    (tmp_path / "list.csv").write_text("path,label\ntrain/1.png,a\ntest/1.png,b\n")
    assert {p: e.official for p, e in by_path(tmp_path, table="list.csv").items()} == {
        "train/1.png": "train",
        "test/1.png": "test",
    }


def test_the_split_of_a_table_is_the_test_set(root: Path) -> None:
    with (root / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "split"], *([path, "test" if "3_" in path else "train"] for path in TWO)])
    data = ready(root, table="list.csv", patient_pattern=PATIENT)
    assert {row.path for row, side in zip(data.rows, data.sides, strict=True) if side == "test"} == {
        path for path in TWO if "3_" in path
    }


def test_a_table_serves_as_split_file_where_val_is_to_be_kept(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    sides = {path: ("train", "val", "test")[int(path[-7]) % 3] for path in TWO}
    (root / "list.csv").write_text("path,split\n" + "".join(f"{path},{side}\n" for path, side in sides.items()))
    with caplog.at_level(logging.INFO):
        data = ready(root, split_file=str(root / "list.csv"))
    assert "split off" not in caplog.text
    assert {row.path: side for row, side in zip(data.rows, data.sides, strict=True)} == sides


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_table_may_come_from_a_spreadsheet(table: Callable[..., Path], encoding: str, tmp_path: Path) -> None:
    root = table("Path, Label,Age", " ill/p00_1.png ,é,3", ",,", "./well//p10_1.png,b,4", "", encoding=encoding)
    (root / "list.csv").rename(tmp_path / "elsewhere.csv")
    assert classes(root, table=str(tmp_path / "elsewhere.csv")) == {"b": 0, "é": 1}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "Its first line is empty"),
        (["path,label"], "a line for each image"),
        (["file,label", "ill/p00_1.png,a"], "Its first line is file,label"),
        (["path;label", "ill/p00_1.png;a"], "with commas between"),
        (["path,label", "ill/p00_1.png"], "does not fill the columns path,label"),
        (["path,label", "ill/p00_1.png,"], "does not fill the columns path,label"),
        (["path,split", "ill/p00_1.png,"], "does not fill the columns path,split"),
        (["path,label", "ill/p00_1.png,a,b"], "does not fill the columns path,label"),
        (["path,label", "ill/p00_1.png,a"], "All images in .* have the label a"),
        (["path,label", "../p.png,a", "ill/p00_1.png,b"], r"do not lie below dataset\.root: \.\./p\.png\."),
        (["path,label", "/p.png,a", "ill/p00_1.png,b"], r"do not lie below dataset\.root: /p\.png"),
        (["path,label", "C:\\p.png,a", "ill/p00_1.png,b"], "do not lie below"),
        (["path,label", "ill/p00_1.dcm,a", "ill/p00_1.png,b"], r"no images .*: ill/p00_1\.dcm"),
        (["path,label", "ill/gone.png,a", "ill/p00_1.png,b"], r"not in .*lungs: ill/gone\.png"),
        (["path,label", "ill/p00_1.png,a", "ill\\p00_1.png,b"], r"more than once: ill/p00_1\.png"),
        (["path,split", "ill/p00_1.png,tset"], "has the split tset. Did you mean test"),
        (["path,patient", "masks/1.png,a"], r"in no class folder: masks/1\.png. The classes are in ill, well"),
        (["path,patient", "ill/p00_1.png,a"], "lists no image of well"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(
    table: Callable[..., Path], write_files: FolderWriter, lines: list[str], message: str
) -> None:
    root = write_files(table(*lines), ["masks/1.png"])
    with pytest.raises(XRayError, match=message):
        module(root, table="list.csv").entries()


def test_capital_suffixes_are_listed_too(table: Callable[..., Path], write_files: FolderWriter) -> None:
    root = write_files(table("path", "ill/1.PNG", "well/1.JPG"), ["ill/1.PNG", "well/1.JPG"])
    assert len(by_path(root, table="list.csv")) == 2


@pytest.mark.parametrize(("count", "told"), [(0, "none"), (5, "0, 1, 2, 3, 4"), (6, "0, 1, 2, 3, 4 and 1 more")])
def test_a_few_names_stand_for_many(count: int, told: str) -> None:
    assert few(map(str, range(count))) == told


def test_lost_files_are_counted_and_the_first_named(table: Callable[..., Path]) -> None:
    root = table("path,label", *(f"gone/{n}.png,{'ab'[n % 2]}" for n in range(12)))
    message = refused(root, table="list.csv")
    assert "gone/0.png, gone/1.png, gone/2.png, gone/3.png, gone/4.png and 7 more" in message


@pytest.mark.parametrize("content", [None, b"path,label\n\xff\xfe,a\n"], ids=["missing", "no text"])
def test_a_table_that_cannot_be_read_is_named(root: Path, content: bytes | None) -> None:
    if content is not None:
        (root / "list.csv").write_bytes(content)
    message = refused(root, table="list.csv")
    assert f"{root / 'list.csv'} cannot be read" in message and "relative to dataset.root" in message


def test_labels_and_folders_at_once_are_refused(table: Callable[..., Path]) -> None:
    root = table("path,label", "ill/p00_1.png,a", "well/p10_1.png,b")
    assert "Leave out one" in refused(root, table="list.csv", folders={"a": "ill", "b": "well"})


PARTS = st.text(ascii_letters + digits + " _-()é", min_size=1, max_size=8).map(str.strip).filter(bool)


@given(parts=st.lists(PARTS, min_size=1, max_size=4), slashes=st.lists(st.sampled_from("/\\"), min_size=4, max_size=4))
def test_either_slash_leads_to_the_same_file(parts: list[str], slashes: list[str]) -> None:
    written = "".join(part + slash for part, slash in zip(parts, slashes, strict=False))[:-1]
    assert below(written) == below(f".\\{written}") == "/".join(parts)
    assert not below(f"/{written}") and not below(f"C:\\{written}") and not below(f"{written}/../../x")


@given(st.text(max_size=30))
def test_no_path_leads_out_of_the_root(text: str) -> None:
    path = below(text)
    assert not path.startswith("/") and ".." not in path.split("/")


def node(**settings: Any) -> DictConfig:
    """The dataset node of conf/dataset/folder.yaml, alone."""
    own = OmegaConf.load(CONF / "dataset" / "folder.yaml")
    del own["defaults"]
    return OmegaConf.create({"paths": {"data": "data"}, "dataset": OmegaConf.merge(own, settings)}).dataset


KAGGLE = {
    "_target_": "xray_lightning.data.download.KaggleSource",
    "handle": "owner/name",
    "folder": ".",
    "counts": {"1": 2, "2": 3},
}


def test_the_kaggle_node_says_where_to_download() -> None:
    assert source_of(node(kaggle=KAGGLE)) == KaggleSource("owner/name", ".", {"1": 2, "2": 3})


def test_without_a_kaggle_node_the_class_says_it() -> None:
    covid = OmegaConf.create({"_target_": "xray_lightning.data.covid.CovidDataModule", "name": "covid"})
    assert source_of(covid).handle == "tawsifurrahman/covid19-radiography-database"


@pytest.mark.parametrize(
    ("kaggle", "message"),
    [
        (None, "folder does not say where it can be downloaded"),
        ({"handle": "a/b"}, "lacks _target_, counts, folder"),
        (KAGGLE | {"hande": "a/b"}, "Did you mean handle"),
        (KAGGLE | {"folder": 3}, r"dataset\.kaggle\.folder=3 is not valid"),
    ],
)
def test_a_source_that_is_not_there_or_not_complete_is_refused(kaggle: Any, message: str) -> None:
    with pytest.raises(XRayError, match=message):
        source_of(node(kaggle=kaggle))


def test_a_source_without_a_target_is_refused(root: Path) -> None:
    assert "dataset.kaggle needs _target_" in refused(root, kaggle={"handle": "a/b"})


def test_an_archive_may_hold_the_classes_at_its_top(
    tmp_path: Path, write_files: FolderWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = write_files(tmp_path / "versions" / "2", ["1/a.png", "1/b.png", "2/a.png", "2/b.png", "2/c.png"])
    monkeypatch.setattr("xray_lightning.data.download._fetch", lambda *_: archive)
    laid = download(KaggleSource("owner/name", ".", {"1": 2, "2": 3}), tmp_path / "data")
    assert len(list(laid.glob("[12]/*.png"))) == 5


def test_every_key_is_an_argument(root: Path, tmp_path: Path) -> None:
    cfg = node(root=str(root), patient_pattern=PATIENT, kaggle=KAGGLE)
    check_arguments(cfg)
    data = build(cfg, image_size=8, cache_dir=str(tmp_path))
    assert isinstance(data, FolderDataModule) and data.kaggle is not None


def test_a_run_with_patients_by_pattern_keeps_each_on_one_side(
    configure: Configure, root: Path, tmp_path: Path
) -> None:
    record = train(configure("dataset=folder", f"dataset.root={root}", f"dataset.patient_pattern='{PATIENT}'"))
    assert record["positive"] == "well" and record["images"]["test"] == {"ill": 2, "well": 2}
    with (tmp_path / "run" / "catalog.csv").open() as file:
        sides = {(line["patient"], line["split"]) for line in csv.DictReader(file)}
    assert len(sides) == 20


def test_a_checkpoint_knows_its_images_after_they_were_renamed(
    configure: Configure, root: Path, tmp_path: Path
) -> None:
    trained = train(configure("dataset=folder", f"dataset.root={root}", f"dataset.patient_pattern='{PATIENT}'"))
    for number, file in enumerate(sorted(root.glob("*/*.png"))):
        moved = tmp_path / "moved" / file.parent.name / f"{number}.png"
        moved.parent.mkdir(parents=True, exist_ok=True)
        file.rename(moved)
    ckpt = tmp_path / "run/checkpoints/best.ckpt"
    again = score(configure(f"ckpt={ckpt}", f"dataset.root={tmp_path / 'moved'}", config="test", run="again"))
    again, trained = ({n: v["value"] for n, v in r["metrics"].items()} for r in (again, trained))
    assert again == trained  # but for the intervals: the new names tell no patients


def test_a_new_data_set_is_one_yaml_file(configure: Configure, root: Path, tmp_path: Path) -> None:
    (tmp_path / "conf" / "dataset").mkdir(parents=True)
    (tmp_path / "conf" / "dataset" / "lungs.yaml").write_text(
        "defaults: [folder, _self_]\n"
        "name: lungs\n"
        r"patient_pattern: ^(p\d+)_" + "\n"
        "kaggle:\n"
        "  _target_: xray_lightning.data.download.KaggleSource\n"
        "  handle: owner/name\n"
        "  folder: lungs\n"
        "  counts: {ill: 20, well: 20}\n"
    )
    words = [f"hydra.searchpath=[file://{tmp_path / 'conf'}]", "dataset=lungs", f"paths.data={root.parent}"]
    trained = train(configure(*words))
    assert trained["dataset"] == "lungs" and trained["classes"] == ["ill", "well"]
    ckpt = tmp_path / "run/checkpoints/best.ckpt"
    assert score(configure(f"ckpt={ckpt}", config="test", run="again"))["metrics"] == trained["metrics"]
    assert download(source_of(configure(*words).dataset), root) == root


def test_a_pipe_as_a_table_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.csv")
    with pytest.raises(XRayError, match=r"cannot be read \(no plain file\)"):
        read_table(tmp_path / "a.csv")
