"""From real files to a catalog: what is wrong is told at once, and nothing of the user's is touched."""

import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image

from xray_lightning.data.catalog import Entry
from xray_lightning.data.collection import LISTED, Collection, collect, report_bad
from xray_lightning.errors import XRayError

GOOD = ("a.png", "b.jpeg", "c.tif")
Spoil = Callable[[Path], object]


def _cut(file: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    Image.fromarray(values).save(file)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


BAD: dict[str, tuple[Spoil, str]] = {
    "cut.png": (_cut, "is truncated"),
    "cut.jpg": (_cut, "is truncated"),
    "empty.png": (Path.touch, "is empty"),
    "renamed.jpeg": (lambda file: Image.new("L", (9, 9)).save(file, "PNG"), "is a PNG image under the name of another"),
    "page.png": (lambda file: file.write_text("\n<!DOCTYPE html><p>Sign in"), "is a web page, no image"),
    "text.bmp": (lambda file: file.write_text("hello"), "is no image"),
    "bomb.png": (lambda file: Image.new("1", (20_000, 20_000)).save(file), "pixels, which is no radiograph"),
    "loop.png": (lambda file: file.symlink_to(file.name), "leads nowhere"),
    "dangling.png": (lambda file: file.symlink_to("nowhere.png"), "leads nowhere"),
    "folder.png": (Path.mkdir, "is no plain file"),
    "pipe.png": (os.mkfifo, "is no plain file"),
}


@pytest.fixture
def root(tmp_path: Path, write_files: Callable[[Path, Sequence[str]], Path]) -> Path:
    """Three whole images, and room for bad ones."""
    return write_files(tmp_path / "films", GOOD)


@pytest.fixture
def gather(root: Path, tmp_path: Path) -> Callable[..., Collection]:
    """Collects all that lies in `root`, whoever the patients are."""

    def _gather(**patients: str) -> Collection:
        names = sorted(file.name for file in root.iterdir())
        entries = [Entry(name, 0, "ill", patient=patients.get(name.split(".")[0], "")) for name in names]
        return collect(root, entries, tmp_path / "cache")

    return _gather


def state(folder: Path) -> dict[str, tuple[object, ...]]:
    """All that can be told of a folder and what lies in it, but for the time of the last reading."""

    def told(path: Path) -> tuple[object, ...]:
        status = path.lstat()
        content = path.read_bytes() if path.is_file() else os.readlink(path) if path.is_symlink() else None
        return status.st_mode, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, content

    return {str(path): told(path) for path in (folder, *folder.rglob("*"))}


def test_every_kind_of_bad_file_is_told_in_one_message(root: Path, gather: Callable[..., Collection]) -> None:
    for name, (spoil, _) in BAD.items():
        spoil(root / name)
    collection = gather()
    assert [row.path for row in collection.rows] == list(GOOD)
    assert set(collection.bad) == set(BAD)
    with pytest.raises(XRayError) as error:
        report_bad(root, collection, "stop")
    lines = str(error.value).splitlines()
    assert lines[0] == f"{len(BAD)} of {len(BAD) + len(GOOD)} files in {root} cannot be used:"
    for line, (name, (_, problem)) in zip(lines[1:-1], sorted(BAD.items()), strict=True):
        assert line.startswith(f"  {name} ") and problem in line
    assert "dataset.on_bad_image=skip" in lines[-1]


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_told(root: Path, gather: Callable[..., Collection]) -> None:
    (root / "a.png").chmod(0)
    assert gather().bad == {"a.png": "cannot be read (Permission denied)"}


def test_skipping_warns_and_goes_on(
    root: Path, gather: Callable[..., Collection], caplog: pytest.LogCaptureFixture
) -> None:
    _cut(root / "cut.png")
    collection = gather()
    report_bad(root, collection, "skip")
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "1 of 4 files" in record.getMessage() and "cut.png is truncated" in record.getMessage()
    assert len(collection.rows) == len(collection.thumbs) == 3


@pytest.mark.parametrize("on_bad_image", ["stop", "skip"])
def test_whole_images_are_not_talked_about(
    root: Path,
    gather: Callable[..., Collection],
    caplog: pytest.LogCaptureFixture,
    on_bad_image: Literal["stop", "skip"],
) -> None:
    report_bad(root, gather(), on_bad_image)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_of_very_many_bad_files_the_first_are_named(root: Path, gather: Callable[..., Collection]) -> None:
    for n in range(LISTED + 3):
        (root / f"empty-{n:03d}.png").touch()
    with pytest.raises(XRayError) as error:
        report_bad(root, gather(), "stop")
    message = str(error.value)
    assert message.count(" is empty\n") == LISTED
    assert f"{LISTED + 3} of {LISTED + 6} files" in message and "… and 3 more\n" in message


def test_a_folder_of_bad_files_alone_has_no_rows(root: Path, gather: Callable[..., Collection]) -> None:
    for name in GOOD:
        (root / name).write_bytes(b"")
    collection = gather()
    assert (collection.rows, collection.twins, collection.thumbs.shape) == ([], [], (0, 32, 32))
    assert collection.bad == dict.fromkeys(GOOD, "is empty")


def test_a_file_that_was_replaced_is_looked_at_again(root: Path, gather: Callable[..., Collection]) -> None:
    good = (root / "a.png").read_bytes()
    _cut(root / "a.png")
    assert set(gather().bad) == {"a.png"}
    (root / "a.png").write_bytes(good)
    assert gather().bad == {}
    (root / "b.jpeg").unlink()
    (root / "b.jpeg").symlink_to("nowhere")
    assert set(gather().bad) == {"b.jpeg"}


def test_nothing_in_the_users_folder_changes(root: Path, gather: Callable[..., Collection]) -> None:
    for name, (spoil, _) in BAD.items():
        spoil(root / name)
    before = state(root)
    for _ in range(2):
        report_bad(root, gather(), "skip")
    assert state(root) == before


def test_a_folder_that_cannot_be_written_to_is_read(root: Path, gather: Callable[..., Collection]) -> None:
    root.chmod(0o500)
    try:
        assert len(gather().rows) == len(GOOD)
    finally:
        root.chmod(0o700)


def test_rows_tell_what_the_files_hold(root: Path, gather: Callable[..., Collection]) -> None:
    Image.new("RGB", (30, 20)).save(root / "d.jpeg")
    rows = {row.path: row for row in gather(d="p1").rows}
    row = rows["d.jpeg"]
    assert (row.format, row.mode, row.width, row.height, row.group) == ("JPEG", "RGB", 30, 20, "p1")
    assert row.size == (root / "d.jpeg").stat().st_size
    assert [rows[name].format for name in GOOD] == ["PNG", "JPEG", "TIFF"]


def test_the_digest_is_of_the_contents_alone(root: Path, gather: Callable[..., Collection]) -> None:
    one = gather().rows[0]
    os.utime(root / "a.png", (0, 0))
    (root / "a.png").rename(root / "z.png")
    two = gather().rows[-1]
    assert two == replace(one, path="z.png")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_names_that_are_no_utf8_are_names(root: Path, gather: Callable[..., Collection]) -> None:
    good, bad = os.fsdecode(b"caf\xe9.png"), os.fsdecode(b"caf\xe8.png")
    (root / "a.png").rename(root / good)
    _cut(root / bad)
    for _ in range(2):
        collection = gather()
        assert [row.path for row in collection.rows] == [*GOOD[1:], good]
        assert list(collection.bad) == [bad]


def test_copies_and_films_compressed_anew_join_their_patients(
    root: Path, gather: Callable[..., Collection], phantoms: Path
) -> None:
    film = min((phantoms / "COVID-19_Radiography_Dataset" / "Normal" / "images").iterdir())
    (root / "film.png").write_bytes(film.read_bytes())
    (root / "copy.png").write_bytes(film.read_bytes())
    with Image.open(film) as image:
        image.save(root / "again.jpg", quality=60)
    collection = gather(copy="p2", again="p1", a="p2")
    groups = {row.path: row.group for row in collection.rows}
    assert {groups[name] for name in ("film.png", "copy.png", "again.jpg", "a.png")} == {"p1"}
    assert len(set(groups.values())) == 3
    digests = {row.path: row.digest for row in collection.rows}
    ((one, other, likeness),) = collection.twins
    assert {one, other} == {digests["film.png"], digests["again.jpg"]} and likeness > 0.99
