"""Files are written whole or not at all, and read without surprises."""

import csv
import json
import os
import pickle
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.lib.format import open_memmap

from xray_lightning.artifacts import (
    RowsFile,
    atomic_write,
    is_stored,
    is_whole_array,
    read_json,
    write_csv,
    write_json,
    write_zeros,
)

NOT_UNICODE = os.fsdecode(b"caf\xe9.png")


def test_atomic_write_creates_missing_folders_and_leaves_only_the_file(tmp_path: Path) -> None:
    target = tmp_path / "runs" / "one" / "notes.txt"
    with atomic_write(target) as file:
        file.write("Größe\n")
    assert target.read_bytes() == "Größe\n".encode()
    assert list(target.parent.iterdir()) == [target]


def test_atomic_write_takes_bytes(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "a.bin", "wb") as file:
        file.write(b"\x00\r\n\xff")
    assert (tmp_path / "a.bin").read_bytes() == b"\x00\r\n\xff"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_while_writing_keeps_the_old_file_and_no_other(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "results.txt"
    target.write_text("old")
    with pytest.raises(error), atomic_write(target) as file:
        file.write("half of the ne")
        raise error
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_the_old_file_is_whole_until_the_new_one_is(tmp_path: Path) -> None:
    target = tmp_path / "results.txt"
    target.write_text("old")
    with atomic_write(target) as file:
        file.write("new")
        file.flush()
        assert target.read_text() == "old"
    assert target.read_text() == "new"


def test_a_target_that_cannot_be_replaced_leaves_no_temporary_file(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError), atomic_write(tmp_path / "taken") as file:
        file.write("x")
    assert [p.name for p in tmp_path.iterdir()] == ["taken"]


def test_written_files_have_the_permissions_of_ordinary_files(tmp_path: Path) -> None:
    (tmp_path / "ordinary").write_text("")
    with atomic_write(tmp_path / "atomic"):
        pass
    ordinary, atomic = (stat.S_IMODE((tmp_path / n).stat().st_mode) for n in ("ordinary", "atomic"))
    assert atomic == ordinary


def test_json_comes_back_as_written(tmp_path: Path) -> None:
    content = {"name": "Größe", "values": [1, 2.5, None, True], "inner": {"a": "b"}}
    write_json(tmp_path / "a.json", content)
    assert read_json(tmp_path / "a.json") == content
    assert "Größe" in (tmp_path / "a.json").read_text(encoding="utf-8")


def test_floats_come_back_to_the_last_digit(tmp_path: Path) -> None:
    values = [0.1 + 0.2, 1 / 3, 5e-324, 1.7976931348623157e308]
    write_json(tmp_path / "a.json", {"values": values})
    assert read_json(tmp_path / "a.json") == {"values": values}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_json_refuses_what_is_no_number_and_keeps_the_old_file(tmp_path: Path, value: float) -> None:
    target = tmp_path / "metrics.json"
    write_json(target, {"accuracy": 0.5})
    with pytest.raises(ValueError):
        write_json(target, {"accuracy": value})
    assert json.loads(target.read_text()) == {"accuracy": 0.5}
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"\xff\xfe\x00", b"[1, 2]", b"null", b"3"])
def test_read_json_gives_none_for_what_is_no_json_object(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    assert read_json(tmp_path / "a.json") is None


def test_read_json_gives_none_where_there_is_no_file(tmp_path: Path) -> None:
    assert read_json(tmp_path / "nothing.json") is None
    assert read_json(tmp_path) is None


def test_csv_comes_back_as_written(tmp_path: Path) -> None:
    rows = [["plain", "1"], ['comma, "quote"', "Größe"], ["two\nlines", ""]]
    write_csv(tmp_path / "a.csv", ["name", "value"], rows)
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [["name", "value"], *rows]


def test_rows_that_fail_halfway_leave_the_old_csv(tmp_path: Path) -> None:
    target = tmp_path / "a.csv"
    write_csv(target, ["n"], [[1]])
    with pytest.raises(ZeroDivisionError):
        write_csv(target, ["n"], ([1 / n] for n in (1, 0)))
    assert target.read_text() == "n\n1\n"
    assert list(tmp_path.iterdir()) == [target]


def test_names_that_are_no_unicode_are_written_as_they_are(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", ["path"], [[NOT_UNICODE], ["größe.png"]])
    assert (tmp_path / "a.csv").read_bytes() == b"path\ncaf\xe9.png\n" + "größe.png\n".encode()
    with (tmp_path / "a.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        assert list(csv.reader(file)) == [["path"], [NOT_UNICODE], ["größe.png"]]


def test_json_with_names_that_are_no_unicode_comes_back(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"root": NOT_UNICODE})
    assert read_json(tmp_path / "a.json") == {"root": NOT_UNICODE}


@pytest.mark.parametrize("count", [0, 1, 9, 10, 1234])
@pytest.mark.parametrize(("shape", "dtype"), [((), np.bool_), ((3,), np.float16), ((2, 4), np.uint8), ((0,), np.int64)])
def test_rows_come_back_as_an_array(tmp_path: Path, count: int, shape: tuple[int, ...], dtype: type) -> None:
    values: np.ndarray = np.random.default_rng(0).integers(0, 256, (count, *shape)).astype(dtype)
    rows = RowsFile(tmp_path / "folder" / "a.part", shape, dtype)
    for row in values:
        rows.append(row)
    rows.finish(tmp_path / "folder" / "a.npy")
    assert [file.name for file in (tmp_path / "folder").iterdir()] == ["a.npy"]
    np.save(tmp_path / "b.npy", values)
    for mode in (None, "r"):
        found, expected = (np.load(f, mmap_mode=mode) for f in (tmp_path / "folder" / "a.npy", tmp_path / "b.npy"))
        assert found.dtype == expected.dtype and found.shape == expected.shape
        assert found.flags.c_contiguous and np.array_equal(found, expected)
    assert is_whole_array(tmp_path / "folder" / "a.npy", dtype, (count, *shape))


def test_rows_of_any_layout_and_type_are_written_alike(tmp_path: Path) -> None:
    values = np.arange(12).reshape(3, 4)
    rows = RowsFile(tmp_path / "a.part", (3, 4), np.float32)
    for row in (values, np.asfortranarray(values), values[:, ::-1][:, ::-1], values.astype(">f8")):
        rows.append(row)
    rows.finish(tmp_path / "a.npy")
    assert np.array_equal(np.load(tmp_path / "a.npy"), np.stack([values] * 4).astype(np.float32))


def test_until_it_is_finished_a_file_of_rows_replaces_nothing(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros(3))
    rows = RowsFile(tmp_path / "a.part", (), np.float64)
    rows.append(np.ones(()))
    assert np.array_equal(np.load(tmp_path / "a.npy"), np.zeros(3))
    rows.finish(tmp_path / "a.npy")
    assert np.array_equal(np.load(tmp_path / "a.npy"), np.ones(1))


def test_discarded_rows_leave_no_file(tmp_path: Path) -> None:
    rows = RowsFile(tmp_path / "a.part", (2,), np.uint8)
    rows.append(np.zeros(2))
    rows.discard()
    rows.discard()
    assert not list(tmp_path.iterdir())


def test_what_is_finished_is_not_discarded(tmp_path: Path) -> None:
    rows = RowsFile(tmp_path / "a.part", (2,), np.uint8)
    rows.finish(tmp_path / "a.npy")
    rows.discard()
    assert is_whole_array(tmp_path / "a.npy", np.uint8, (0, 2))


@pytest.mark.parametrize("shape", [(0, 3), (5,), (1000, 7)])
def test_zeros_can_be_mapped_and_changed(tmp_path: Path, shape: tuple[int, ...]) -> None:
    for _ in range(2):
        write_zeros(tmp_path / "a.npy", shape, np.float16)
        assert is_whole_array(tmp_path / "a.npy", np.float16, shape)
        assert not np.load(tmp_path / "a.npy").any()
        array = open_memmap(tmp_path / "a.npy", mode="r+")
        array[:] = 1
        array.flush()
        assert np.load(tmp_path / "a.npy").all()
    assert [file.name for file in tmp_path.iterdir()] == ["a.npy"]


@pytest.fixture
def small_disk() -> Iterator[None]:
    """No file may grow above 64 KiB."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("small_disk")
def test_zeros_that_find_no_room_are_an_error_and_leave_nothing(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones(3))
    for shape in ((2**17,), (3, 2**15)):
        with pytest.raises(OSError):
            write_zeros(tmp_path / "a.npy", shape, np.uint8)
    assert [file.name for file in tmp_path.iterdir()] == ["a.npy"]
    assert np.load(tmp_path / "a.npy").all()


@pytest.mark.usefixtures("small_disk")
def test_rows_that_find_no_room_can_be_discarded(tmp_path: Path) -> None:
    rows = RowsFile(tmp_path / "a.part", (1000,), np.uint8)
    with pytest.raises(OSError):
        for _ in range(70):
            rows.append(np.ones(1000))
        rows.finish(tmp_path / "a.npy")
    rows.discard()
    assert not list(tmp_path.iterdir())


def test_an_array_is_whole_with_its_last_byte_and_as_asked_for_alone(tmp_path: Path) -> None:
    file = tmp_path / "a.npy"
    np.save(file, np.ones((4, 3), dtype=np.uint8))
    assert is_whole_array(file, np.uint8, (4, 3))
    for dtype, shape in ((np.int8, (4, 3)), (np.uint8, (3, 4)), (np.uint8, (12,)), (np.uint8, (4, 3, 1))):
        assert not is_whole_array(file, dtype, shape)
    whole = file.read_bytes()
    for length in (0, 5, 60, 128, len(whole) - 1):
        file.write_bytes(whole[:length])
        assert not is_whole_array(file, np.uint8, (4, 3))
    assert not is_whole_array(tmp_path / "nothing.npy", np.uint8, (4, 3))
    assert not is_whole_array(tmp_path, np.uint8, (4, 3))
    np.savez(tmp_path / "b.npz", a=np.ones((4, 3), dtype=np.uint8))
    assert not is_whole_array(tmp_path / "b.npz", np.uint8, (4, 3))


HEADERS = [
    b"{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000000, 4), }",
    b"{'descr': '|u1', 'fortran_order': False, 'shape': (10**9, 10**9), }",
    b"{'descr': '|u1', 'fortran_order': False, 'shape': (" + b"9" * 200 + b",), }",
    b"{'descr': '|u1', 'fortran_order': False, 'shape': (-1, 3), }",
    b"{'descr': '|u1', 'fortran_order': True, 'shape': (4, 3), }",
    b"{'descr': '|O', 'fortran_order': False, 'shape': (4, 3), }",
    b"{'descr': '|V12', 'fortran_order': False, 'shape': (), }",
    b"__import__('os').mkdir('executed')",
    b"(" * 9000,
    b"\xff" * 60,
]


@pytest.mark.parametrize("header", HEADERS, ids=lambda header: header[:60].decode("latin-1"))
def test_a_header_that_somebody_else_wrote_is_no_array(tmp_path: Path, header: bytes) -> None:
    for version in (b"\x01\x00", b"\x02\x00", b"\x03\x00", b"\x09\x09"):
        length = len(header).to_bytes(2 if version[0] == 1 else 4, "little")
        (tmp_path / "a.npy").write_bytes(b"\x93NUMPY" + version + length + header + bytes(12))
        assert not is_whole_array(tmp_path / "a.npy", np.uint8, (4, 3))


@pytest.mark.parametrize("content", [b"PK\x03\x04" + bytes(99), pickle.dumps([1]), b"\x93NUMPY", b""])
def test_another_file_under_an_arrays_name_is_no_array(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npy").write_bytes(content)
    assert not is_whole_array(tmp_path / "a.npy", np.uint8, (4, 3))


def test_pipes_are_neither_arrays_nor_json_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a")
    assert not is_whole_array(tmp_path / "a", np.uint8, (4, 3))
    assert read_json(tmp_path / "a") is None


@pytest.mark.parametrize("content", ["[" * 10**5, '{"a":' * 10**5, '{"a": ' + "9" * 5000 + "}"])
def test_json_that_is_too_deep_or_too_long_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.json").write_text(content)
    assert read_json(tmp_path / "a.json") is None


def test_an_archive_is_stored_where_it_cannot_grow(tmp_path: Path) -> None:
    content = np.zeros(10**5)
    np.savez(tmp_path / "stored.npz", a=content)
    np.savez_compressed(tmp_path / "small.npz", a=content)
    assert is_stored(tmp_path / "stored.npz") and not is_stored(tmp_path / "small.npz")
    whole = (tmp_path / "stored.npz").read_bytes()
    claimed = whole.replace((800128).to_bytes(4, "little"), b"\xf0\xff\xff\xff")  # 4 GB
    (tmp_path / "claims.npz").write_bytes(claimed)
    assert claimed != whole and not is_stored(tmp_path / "claims.npz")
