"""Files are written whole or not at all, and read without surprises."""

import csv
import json
import stat
from pathlib import Path

import pytest

from xray_lightning.artifacts import atomic_write, read_json, write_csv, write_json


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
