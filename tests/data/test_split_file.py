"""A split that is known already: written down by a run or by hand, or a checkpoint's test set."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xray_lightning.data.catalog import Radiograph, write_catalog
from xray_lightning.data.split_file import read_split
from xray_lightning.data.splits import SIDES, TEST, TRAIN, UNUSED, VAL, images_of, known_test, split
from xray_lightning.errors import XRayError

MakeRow = Callable[..., Radiograph]
NAMES = st.text(st.sampled_from("ab/ ,;\"'\n\té\udcff"), min_size=1, max_size=6)


@pytest.fixture
def rows(make_row: MakeRow) -> list[Radiograph]:
    """Twelve images of three classes."""
    return [make_row(f"folder/{n}.png", label=n % 3) for n in range(12)]


@pytest.fixture
def write_list(tmp_path: Path) -> Callable[..., Path]:
    def write(*lines: str) -> Path:
        file = tmp_path / "list.csv"
        file.write_text("".join(f"{line}\n" for line in lines))
        return file

    return write


def some_split(rows: Sequence[Radiograph]) -> list[str]:
    return [(TRAIN, VAL, TEST, TRAIN, UNUSED)[n % 5] for n in range(len(rows))]


@settings(deadline=None, max_examples=30)
@given(paths=st.lists(NAMES, max_size=12, unique=True), data=st.data())
def test_a_written_split_reads_back_whatever_the_files_are_called(
    paths: list[str], data: st.DataObject, make_row: MakeRow, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rows = [make_row(path, digest=f"d{data.draw(st.integers(0, 20))}") for path in ["0.png", *paths]]
    sides = [data.draw(st.sampled_from([*SIDES, UNUSED])) for _ in rows]
    file = tmp_path_factory.mktemp("split") / "catalog.csv"
    write_catalog(file, rows, sides)
    assert read_split(file, rows) == sides
    assert read_split(file, rows[::-1]) == sides[::-1]


def test_renamed_and_moved_files_keep_their_sides(tmp_path: Path, rows: list[Radiograph]) -> None:
    write_catalog(tmp_path / "catalog.csv", rows, sides := some_split(rows))
    renamed = [replace(row, path=f"elsewhere/{n}.jpg") for n, row in enumerate(rows)]
    swapped = [replace(row, path=other.path) for row, other in zip(rows, rows[::-1], strict=True)]
    assert read_split(tmp_path / "catalog.csv", renamed) == sides
    assert read_split(tmp_path / "catalog.csv", swapped) == sides


def test_copies_on_two_sides_keep_their_sides(tmp_path: Path, make_row: MakeRow) -> None:
    rows = [make_row(f"{n}.png", digest=f"d{n // 2}") for n in range(40)]
    sides = split(rows, val_fraction=0.2, test_fraction=0.2, seed=0, grouped=False)
    write_catalog(tmp_path / "catalog.csv", rows, sides)
    assert read_split(tmp_path / "catalog.csv", rows) == sides


def test_a_new_copy_of_a_listed_image_is_unused(tmp_path: Path, rows: list[Radiograph]) -> None:
    write_catalog(tmp_path / "catalog.csv", rows, sides := some_split(rows))
    copies = [replace(row, path=f"copy/{row.path}") for row in rows]
    assert read_split(tmp_path / "catalog.csv", [*rows, *copies]) == [*sides, *[UNUSED] * len(rows)]


def test_renamed_copies_are_on_each_side_as_often_as_listed(tmp_path: Path, make_row: MakeRow) -> None:
    kinds = ((0, "1"), (0, "1"), (0, "2"), (1, "2"))
    rows = [make_row(f"{n}.png", label=label, digest=digest) for n, (label, digest) in enumerate(kinds)]
    write_catalog(tmp_path / "catalog.csv", rows, sides := [TRAIN, TEST, TRAIN, TEST])
    renamed = [replace(row, path=f"new/{row.path}") for row in rows]
    assert read_split(tmp_path / "catalog.csv", renamed) == sides


def test_a_list_of_other_classes_is_named_as_such(tmp_path: Path, rows: list[Radiograph]) -> None:
    write_catalog(tmp_path / "catalog.csv", rows, some_split(rows))
    with pytest.raises(XRayError, match="has no image of the classes other"):
        read_split(tmp_path / "catalog.csv", [replace(row, class_name="other") for row in rows])


def test_without_digests_files_are_known_by_their_paths(
    rows: list[Radiograph], write_list: Callable[..., Path]
) -> None:
    sides = some_split(rows)
    file = write_list("path,split", *(f"{row.path},{side}" for row, side in zip(rows, sides, strict=True)))
    exported_again = [replace(row, digest=f"new {row.digest}") for row in rows]
    assert read_split(file, exported_again) == sides
    with pytest.raises(XRayError, match="not in the data set"):
        read_split(file, [replace(row, path=f"elsewhere/{row.path}") for row in rows])


def test_digests_alone_are_enough(rows: list[Radiograph], write_list: Callable[..., Path]) -> None:
    file = write_list("split,digest", *(f"test,{row.digest}" for row in rows))
    assert read_split(file, rows) == [TEST] * len(rows)


@pytest.mark.parametrize("columns", ["path", "digest"])
def test_what_is_not_listed_is_unused(rows: list[Radiograph], write_list: Callable[..., Path], columns: str) -> None:
    file = write_list(f"split,{columns}", f"val,{getattr(rows[3], columns)}", f"test,{getattr(rows[5], columns)}")
    assert read_split(file, rows) == [{3: VAL, 5: TEST}.get(n, UNUSED) for n in range(len(rows))]


def test_the_list_of_all_classes_serves_some_of_them(tmp_path: Path, rows: list[Radiograph]) -> None:
    write_catalog(tmp_path / "catalog.csv", rows, sides := some_split(rows))
    two = [n for n, row in enumerate(rows) if row.class_name != "class1"]
    chosen = [replace(rows[n], label=rows[n].label // 2) for n in two]
    assert read_split(tmp_path / "catalog.csv", chosen) == [sides[n] for n in two]


def test_images_that_are_gone_or_changed_are_named(tmp_path: Path, rows: list[Radiograph]) -> None:
    write_catalog(tmp_path / "catalog.csv", rows, [TRAIN] * len(rows))
    changed = [replace(rows[0], digest="other"), *rows[2:]]
    with pytest.raises(XRayError) as error:
        read_split(tmp_path / "catalog.csv", changed)
    assert f"2 of 12 images in {tmp_path / 'catalog.csv'}" in str(error.value)
    assert "folder/0.png, folder/1.png." in str(error.value)


def test_of_many_lost_images_a_few_are_named(rows: list[Radiograph], write_list: Callable[..., Path]) -> None:
    file = write_list("split,path", *(f"train,lost/{n}.png" for n in range(7)))
    with pytest.raises(XRayError, match=r"7 of 7 images .*lost/4\.png, …\. "):
        read_split(file, rows)


def test_unused_images_may_be_gone(tmp_path: Path, rows: list[Radiograph]) -> None:
    write_catalog(tmp_path / "catalog.csv", rows, [UNUSED, *[TRAIN] * (len(rows) - 1)])
    assert read_split(tmp_path / "catalog.csv", rows[1:]) == [TRAIN] * (len(rows) - 1)


@pytest.mark.parametrize("side", ["Train", "validation", "", " test"])
def test_unknown_sides_are_named(rows: list[Radiograph], write_list: Callable[..., Path], side: str) -> None:
    with pytest.raises(XRayError, match=rf"dataset\.split_file=.* has the split '{side}'\. Valid: train, val, test, u"):
        read_split(write_list("split,path", "train,folder/0.png", f"{side},folder/1.png"), rows)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n\n",
        b"split,path\n",
        b"path,digest\nfolder/0.png,d\n",
        b"split,class_name\ntrain,class0\n",
        b"split;path\ntrain;folder/0.png\n",
        b"split,path\ntrain\n",
        bytes(1000),
        b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20,
        b"x" * 200_000,
        b"split,path\ntrain," + b"x" * 200_000,
        "split,path\ntrain,folder/0.png\n".encode("utf-16"),
    ],
    ids=lambda content: content[:20].decode("latin-1").encode("unicode_escape").decode(),
)
def test_a_file_that_is_no_such_list_is_named(tmp_path: Path, rows: list[Radiograph], content: bytes) -> None:
    file = tmp_path / "list.csv"
    file.write_bytes(content)
    with pytest.raises(XRayError, match=r"dataset\.split_file=.*list\.csv"):
        read_split(file, rows)


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path, rows: list[Radiograph]) -> None:
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(XRayError, match=rf"dataset\.split_file={path} cannot be read"):
            read_split(path, rows)


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_lists_that_spreadsheets_save_are_read(
    tmp_path: Path, rows: list[Radiograph], newline: str, start: str
) -> None:
    file = tmp_path / "list.csv"
    file.write_text(f"{start}split,path{newline}val,folder/3.png{newline}", encoding="utf-8", newline="")
    assert read_split(file, rows).count(VAL) == 1


@pytest.mark.parametrize(
    "lines",
    [
        ("split,path,digest", "val,folder/0.png", "val,folder/1.png,digest of folder/1.png"),
        ("split,path,digest", "val,folder/0.png,digest of folder/0.png", "val,folder/1.png"),
        ("split,path,digest", "val,folder/0.png,", "val,folder/1.png,digest of folder/1.png"),
        ("split,digest,path", "val,digest of folder/0.png", "val,,folder/1.png"),
    ],
)
def test_no_line_of_a_ragged_list_is_passed_over(
    rows: list[Radiograph], write_list: Callable[..., Path], lines: tuple[str, ...]
) -> None:
    try:
        assert read_split(write_list(*lines), rows).count(VAL) == 2
    except XRayError as error:
        assert "list.csv" in str(error)


@pytest.mark.parametrize("column", ["path", "digest"])
def test_a_list_that_contradicts_itself_is_refused(
    rows: list[Radiograph], write_list: Callable[..., Path], column: str
) -> None:
    file = write_list(f"split,{column}", *(f"{side},{getattr(rows[0], column)}" for side in (TRAIN, TEST)))
    with pytest.raises(XRayError, match=r"list\.csv"):
        read_split(file, rows)


def test_a_known_test_set_is_found_among_other_files(rows: list[Radiograph]) -> None:
    sides = [TEST if n in (2, 7) else TRAIN for n in range(len(rows))]
    images = [*images_of(TEST, rows, sides), "of a file that is gone"]
    assert known_test(rows, images) == [TEST if n in (2, 7) else UNUSED for n in range(len(rows))]
    assert known_test(rows, []) == [UNUSED] * len(rows)


def test_copies_are_tested_as_often_as_they_were(make_row: MakeRow) -> None:
    rows = [make_row(f"{n}.png", digest="same") for n in range(4)]
    images = images_of(TEST, rows, [TEST, TEST, TRAIN, TRAIN])
    assert known_test(rows, images) == [TEST, TEST, UNUSED, UNUSED]


def test_a_copy_in_another_class_does_not_pass_for_the_test_image(make_row: MakeRow) -> None:
    one, copy = make_row("b.png", label=1, digest="same"), make_row("a.png", label=0, digest="same")
    assert known_test([copy, one], images_of(TEST, [one], [TEST])) == [UNUSED, TEST]


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.csv")
    with pytest.raises(XRayError, match=r"cannot be read \(no plain file\)"):
        read_split(tmp_path / "a.csv", [])
