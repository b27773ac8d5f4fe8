"""Images are decoded once, in the order of the rows, and never half."""

import errno
import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest

from xray_lightning.artifacts import RowsFile, read_json, write_json
from xray_lightning.data import decode as decoding
from xray_lightning.data import pixels
from xray_lightning.data.catalog import Radiograph
from xray_lightning.data.decode import Resize, decode, read_bytes
from xray_lightning.data.examine import digest_of
from xray_lightning.data.pixels import ImageFiles, PixelPlan, load_pixels
from xray_lightning.errors import XRayError

NAMES = [f"{folder}/{n}.png" for folder in "ab" for n in range(6)]


@pytest.fixture
def folder(tmp_path: Path, write_files: Callable[..., Path]) -> Path:
    return write_files(tmp_path / "images", NAMES)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "pixels"


@pytest.fixture
def plan(folder: Path, cache: Path) -> PixelPlan:
    return PixelPlan(folder, 8, "stretch", cache)


@pytest.fixture
def catalog(folder: Path, make_row: Callable[..., Radiograph]) -> Callable[[], list[Radiograph]]:
    """A row for each of NAMES with the digest that its file has now."""
    return lambda: [make_row(name, digest=digest_of((folder / name).read_bytes())) for name in NAMES]


@pytest.fixture
def rows(catalog: Callable[[], list[Radiograph]]) -> list[Radiograph]:
    return catalog()


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files read from now on."""
    files: list[Path] = []

    def counted(file: Path) -> bytes:
        files.append(file)
        return read_bytes(file)

    monkeypatch.setattr(pixels, "read_bytes", counted)
    return files


def expected(plan: PixelPlan, rows: list[Radiograph]) -> np.ndarray:
    return np.stack([decode(plan.root / row.path, plan.size, plan.resize) for row in rows])


def left(cache: Path) -> set[str]:
    """The ends of the names of what lies in the cache, locks apart."""
    return {file.suffix for file in cache.iterdir() if file.suffix != ".lock"}


@pytest.mark.parametrize("resize", ["stretch", "pad", "crop"])
@pytest.mark.parametrize("size", [1, 8, 20])
def test_images_come_in_the_order_of_the_rows(
    plan: PixelPlan, rows: list[Radiograph], size: int, resize: Resize
) -> None:
    plan = replace(plan, size=size, resize=resize)
    array = load_pixels(plan, rows[::-1])
    assert array.shape == (12, size, size) and array.dtype == np.uint8
    assert np.array_equal(array, expected(plan, rows[::-1]))


def test_decoded_images_cannot_be_changed_by_mistake(plan: PixelPlan, rows: list[Radiograph]) -> None:
    array = load_pixels(plan, rows)
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 0


def test_no_rows_are_an_empty_array(plan: PixelPlan) -> None:
    assert load_pixels(plan, []).shape == (0, 8, 8)


def test_a_second_load_needs_no_image_file(plan: PixelPlan, rows: list[Radiograph]) -> None:
    first = np.array(load_pixels(plan, rows))
    for row in rows:
        (plan.root / row.path).unlink()
    assert np.array_equal(load_pixels(plan, rows), first)


def test_moved_or_renamed_files_are_not_decoded_again(
    plan: PixelPlan, rows: list[Radiograph], read: list[Path], tmp_path: Path
) -> None:
    first = np.array(load_pixels(plan, rows))
    assert len(read) == 12
    moved = replace(plan, root=plan.root.rename(tmp_path / "elsewhere"))
    renamed = [replace(row, path=f"{row.path}.png", label=1, patient="p", group="g") for row in rows]
    assert np.array_equal(load_pixels(moved, renamed), first)
    assert len(read) == 12


def test_changed_contents_are_decoded_anew(
    plan: PixelPlan, catalog: Callable[[], list[Radiograph]], write_image: Callable[..., Path]
) -> None:
    before = np.array(load_pixels(plan, catalog()))
    write_image(plan.root / NAMES[3], content="another")
    after = load_pixels(plan, catalog())
    assert [n for n in range(12) if not np.array_equal(before[n], after[n])] == [3]


def test_whatever_changes_the_images_is_another_cache(
    plan: PixelPlan, rows: list[Radiograph], monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = [row.digest for row in rows]
    plans = [plan, replace(plan, size=16), replace(plan, resize="pad"), replace(plan, resize="crop")]
    names = [p.fingerprint(digests) for p in plans]
    names += [plan.fingerprint(other) for other in (digests[::-1], digests[:5], [*digests, digests[0]], [])]
    monkeypatch.setattr(pixels, "DECODER_VERSION", decoding.DECODER_VERSION + 1)
    names.append(plan.fingerprint(digests))
    assert len(set(names)) == len(names)


def test_caches_of_several_sizes_and_choices_lie_side_by_side(
    plan: PixelPlan, rows: list[Radiograph], read: list[Path]
) -> None:
    asked = [(plan, rows), (replace(plan, size=16), rows), (plan, rows[:5]), (replace(plan, resize="crop"), rows)]
    for _ in range(2):
        for p, chosen in asked:
            assert np.array_equal(load_pixels(p, chosen), expected(p, chosen))
    assert len(read) == 12 + 12 + 12  # those five had been decoded


def test_a_new_file_costs_only_itself(plan: PixelPlan, rows: list[Radiograph], read: list[Path]) -> None:
    load_pixels(plan, rows[:7])
    load_pixels(plan, rows[::-1])
    assert len(read) == 12
    assert np.array_equal(load_pixels(plan, rows[::-1]), expected(plan, rows[::-1]))


def test_images_are_not_taken_from_a_cache_that_is_not_what_it_says(
    plan: PixelPlan, rows: list[Radiograph], read: list[Path]
) -> None:
    load_pixels(plan, rows[:7])
    (note,) = plan.folder.glob("*.json")
    about = read_json(note) or {}
    write_json(note, about | {"digests": about["digests"][::-1]})
    assert np.array_equal(load_pixels(plan, rows), expected(plan, rows))
    assert len(read) == 7 + 12


def test_beside_a_cache_lies_what_it_holds(plan: PixelPlan, rows: list[Radiograph]) -> None:
    load_pixels(plan, rows)
    about = read_json(plan.path([row.digest for row in rows]).with_suffix(".json")) or {}
    assert time.strptime(about.pop("written"), "%Y-%m-%dT%H:%M:%S")
    assert about.pop("digests") == [row.digest for row in rows]
    assert about == {"root": str(plan.root.resolve()), "images": 12, "size": 8, "resize": "stretch"}
    assert left(plan.folder) == {".npy", ".json"}


@pytest.mark.parametrize("length", [0, 60, 128, 500, -1])
def test_a_damaged_cache_is_made_anew(plan: PixelPlan, rows: list[Radiograph], length: int) -> None:
    file = plan.path([row.digest for row in rows])
    load_pixels(plan, rows)
    file.write_bytes(file.read_bytes()[:length])
    assert np.array_equal(load_pixels(plan, rows), expected(plan, rows))


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_interrupted_build_leaves_nothing(
    plan: PixelPlan, rows: list[Radiograph], monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    calls = count()

    def interrupted(file: Path) -> bytes:
        if next(calls) >= 6:
            raise error
        return read_bytes(file)

    with monkeypatch.context() as patch:
        patch.setattr(pixels, "read_bytes", interrupted)
        with pytest.raises(error):
            load_pixels(plan, rows)
    assert left(plan.folder) == set()
    assert np.array_equal(load_pixels(plan, rows), expected(plan, rows))


CHANGES: dict[str, Callable[[Path], object]] = {
    "has changed": lambda file: file.write_bytes(file.with_name("0.png").read_bytes()),
    "is no plain file": lambda file: file.unlink(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changed_since_it_was_examined_is_named_and_nothing_kept(
    plan: PixelPlan, rows: list[Radiograph], catalog: Callable[[], list[Radiograph]], change: str
) -> None:
    file = plan.root / NAMES[9]
    before = file.read_bytes()
    CHANGES[change](file)
    with pytest.raises(XRayError) as error:
        load_pixels(plan, rows)
    assert f"{file} {change}" in str(error.value) and "Run it again" in str(error.value)
    assert left(plan.folder) == set()
    with pytest.raises(XRayError, match=change):
        ImageFiles(plan, rows)[8:10]
    file.write_bytes(before)
    assert np.array_equal(load_pixels(plan, rows), expected(plan, rows))


def test_a_cache_folder_that_cannot_be_made_is_reported_with_the_remedy(
    plan: PixelPlan, rows: list[Radiograph], tmp_path: Path
) -> None:
    (tmp_path / "taken").write_text("")
    for place in (tmp_path / "taken", tmp_path / "taken" / "pixels"):
        with pytest.raises(XRayError) as error:
            load_pixels(replace(plan, folder=place), rows)
        for word in (str(place), "paths.cache", "XRAY_CACHE"):
            assert word in str(error.value)


def test_a_full_disk_is_reported_with_the_remedy_and_leaves_nothing(
    plan: PixelPlan, rows: list[Radiograph], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: RowsFile, row: np.ndarray) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(RowsFile, "append", full)
    with pytest.raises(XRayError, match=r"No space left.*clear=all.*cache=off"):
        load_pixels(plan, rows)
    assert left(plan.folder) == set()


def test_threads_that_want_the_same_images_decode_them_once(
    plan: PixelPlan, rows: list[Radiograph], read: list[Path]
) -> None:
    start = Barrier(3)

    def load(_: int) -> np.ndarray:
        start.wait()
        return load_pixels(plan, rows)

    with ThreadPoolExecutor(3) as pool:
        arrays = list(pool.map(load, range(3)))
    assert sorted(read) == [plan.root / name for name in NAMES]
    assert all(np.array_equal(array, arrays[0]) for array in arrays)


def test_processes_that_want_the_same_images_decode_them_once(plan: PixelPlan, rows: list[Radiograph]) -> None:
    script = textwrap.dedent("""
        import sys, time
        from pathlib import Path
        from xray_lightning.data import pixels
        from xray_lightning.data.catalog import Radiograph

        whole, calls = pixels.read_bytes, []
        def slow(file):
            calls.append(file)
            time.sleep(0.05)
            return whole(file)
        pixels.read_bytes = slow
        root, cache, *pairs = sys.argv[1:]
        row = lambda path, digest: Radiograph(path, 0, "A", "", "", "", "", "PNG", "L", 12, 12, 1, digest, digest)
        rows = [row(*pair.split("=")) for pair in pairs]
        print(len(pixels.load_pixels(pixels.PixelPlan(Path(root), 8, "stretch", Path(cache)), rows)), len(calls))
    """)
    pairs = [f"{row.path}={row.digest}" for row in rows]
    command = [sys.executable, "-c", script, str(plan.root), str(plan.folder), *pairs]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=60)[0].split() for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert sorted(outputs) == [["12", "0"], ["12", "12"]]
    assert np.array_equal(load_pixels(plan, rows), expected(plan, rows))


CHOICES = {
    "all": slice(None),
    "chunk": slice(3, 7),
    "last chunk": slice(8, 16),
    "backwards": slice(None, None, -3),
    "nothing": slice(12, 20),
    "rows": np.array([7, 0, 0, 11]),
    "from the end": np.array([-1, -12]),
    "no rows": np.array([], dtype=np.int64),
    "mask": np.arange(12) % 3 == 1,
    "empty mask": np.zeros(12, dtype=bool),
}


@pytest.mark.parametrize("choice", CHOICES)
def test_files_read_each_time_look_like_the_array(plan: PixelPlan, rows: list[Radiograph], choice: str) -> None:
    files, array = ImageFiles(plan, rows), load_pixels(plan, rows)[:, None]
    assert (files.shape, files.ndim, len(files)) == (array.shape, array.ndim, len(array))
    found = files[CHOICES[choice]]
    assert found.dtype == np.uint8 and np.array_equal(found, array[CHOICES[choice]])


def test_an_image_that_is_not_there_is_an_index_error_in_both(plan: PixelPlan, rows: list[Radiograph]) -> None:
    for images in (ImageFiles(plan, rows), load_pixels(plan, rows)[:, None]):
        with pytest.raises(IndexError):
            images[np.array([3, 12])]


def test_files_read_each_time_are_read_when_wanted_and_leave_nothing(
    plan: PixelPlan, rows: list[Radiograph], read: list[Path]
) -> None:
    files = ImageFiles(plan, rows)
    assert not read
    files[2:4]
    assert sorted(read) == [plan.root / name for name in NAMES[2:4]]
    assert not plan.folder.exists()


@pytest.mark.parametrize("digests", [5, None, {"a": 1}, [["a"]], [1, 2], ["\ud800"], "ab", [None]])
def test_what_a_cache_says_of_itself_is_not_believed(plan: PixelPlan, rows: list[Radiograph], digests: object) -> None:
    first = np.array(load_pixels(plan, rows))
    (beside,) = plan.folder.glob("*.json")
    told = json.loads(beside.read_text()) | {"digests": digests}
    beside.write_text(json.dumps(told))
    assert np.array_equal(load_pixels(plan, rows[1:]), first[1:])
