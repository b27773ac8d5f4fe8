"""Files are examined once, remembered while they stay as they are, and never remembered wrongly."""

import errno
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest

from xray_lightning.artifacts import RowsFile
from xray_lightning.data import examine as examining
from xray_lightning.data import inventory
from xray_lightning.data.catalog import Radiograph
from xray_lightning.data.decode import Resize, decode
from xray_lightning.data.examine import examine
from xray_lightning.data.inventory import Inventory, take_inventory
from xray_lightning.data.pixels import PixelPlan, load_pixels
from xray_lightning.errors import XRayError

NEVER = 10**18  # ns: no file is as new as that

NAMES = [f"{folder}/{n}.png" for folder in "ab" for n in range(4)]
UNUSUAL = ["with space.png", "größe 日本.png", "x/a,b;'c'.png"]
if sys.platform == "linux":  # elsewhere all names are Unicode
    UNUSUAL += ["new\nline.png", os.fsdecode(b"caf\xe9.png"), os.fsdecode(b"\xff.PNG")]


@pytest.fixture(autouse=True)
def trusted_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files written a moment ago count as settled."""
    monkeypatch.setattr(examining, "RACY", -NEVER)


@pytest.fixture
def root(tmp_path: Path, write_files: Callable[..., Path]) -> Path:
    return write_files(tmp_path / "images", NAMES)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def plan(root: Path, cache: Path) -> PixelPlan:
    return PixelPlan(root, 6, "stretch", cache / "pixels")


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files examined from now on, sorted or not."""
    names: list[str] = []

    def counted(file: Path, *how: Any) -> object:
        names.append(file.relative_to(file.parents[1]).as_posix())
        return examine(file, *how)

    monkeypatch.setattr(inventory, "examine", counted)
    return names


def same(one: Inventory, other: Inventory) -> bool:
    return one.facts == other.facts and np.array_equal(one.thumbs, other.thumbs)


def fresh(root: Path, names: list[str]) -> Inventory:
    """What examining says, with nothing remembered."""
    facts, thumbs, _ = zip(*(examine(root / name, None, "stretch") for name in names), strict=True)
    return Inventory(list(facts), np.stack(thumbs))


def left(cache: Path) -> set[str]:
    """What lies in the cache, locks apart, by the ends of the names."""
    return {"".join(file.suffixes) for file in cache.rglob("*") if file.is_file() and file.suffix != ".lock"}


def test_each_file_gets_its_own_facts_and_thumbnail(root: Path, cache: Path) -> None:
    for names in (NAMES, NAMES[::-1], NAMES[3:5]):
        assert same(take_inventory(root, names, cache), fresh(root, names))
    nothing = take_inventory(root, [], cache)
    assert nothing.facts == [] and nothing.thumbs.shape == (0, 32, 32)


def test_what_is_known_is_not_read_again(root: Path, cache: Path, read: list[str]) -> None:
    first = take_inventory(root, NAMES, cache)
    assert sorted(read) == NAMES
    assert same(take_inventory(root, NAMES, cache), first)
    assert take_inventory(root, NAMES[::-2], cache).facts == first.facts[::-2]
    assert len(read) == len(NAMES)


def test_only_what_is_new_or_has_changed_is_read(
    root: Path, cache: Path, read: list[str], write_image: Callable[..., Path]
) -> None:
    take_inventory(root, NAMES[:6], cache)
    read.clear()
    time.sleep(0.02)  # the kernel's clock ticks every few milliseconds
    write_image(root / NAMES[2], content="another")
    assert same(take_inventory(root, NAMES, cache), fresh(root, NAMES))
    assert sorted(read) == [NAMES[2], *NAMES[6:]]


def test_files_written_just_now_are_read_again(
    root: Path, cache: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examining, "RACY", 3600 * 10**9)
    first = take_inventory(root, NAMES, cache)
    assert same(take_inventory(root, NAMES, cache), first)
    assert len(read) == 2 * len(NAMES)
    (root / NAMES[0]).unlink()
    assert take_inventory(root, NAMES, cache).facts[0].problem


def test_other_files_of_the_same_root_stay_known(root: Path, cache: Path, read: list[str]) -> None:
    take_inventory(root, NAMES[:4], cache)
    take_inventory(root, NAMES[4:], cache)
    take_inventory(root, NAMES, cache)
    assert sorted(read) == NAMES


def test_each_root_has_its_own_memory(root: Path, cache: Path, write_files: Callable[..., Path]) -> None:
    other = write_files(root.parent / "other", NAMES)
    (other / NAMES[0]).write_bytes(b"other")
    expected = take_inventory(root, NAMES, cache), take_inventory(other, NAMES, cache)
    assert same(take_inventory(root, NAMES, cache), expected[0])
    assert same(take_inventory(other, NAMES, cache), expected[1])
    assert expected[0].facts[0] != expected[1].facts[0]


def test_files_that_are_gone_are_forgotten(root: Path, cache: Path) -> None:
    take_inventory(root, NAMES[:6], cache)
    (root / NAMES[0]).unlink()
    take_inventory(root, NAMES[1:], cache)
    [store] = (cache / "catalogs").glob("*.npz")
    with np.load(store) as archive:
        assert sorted(archive["path"]) == NAMES[1:]
        assert str(archive["root"]) == str(root)


def in_directory(offset: int, value: int) -> Callable[[bytes], bytes]:
    """Changes one byte of each entry in the directory at the archive's end."""

    def damage(content: bytes) -> bytes:
        start, *entries = content.split(b"PK\x01\x02")
        return b"PK\x01\x02".join([start, *(e[: offset - 4] + bytes([value]) + e[offset - 3 :] for e in entries)])

    return damage


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "cut": lambda content: content[:-1],
    "text": lambda content: b"no archive",
    "flipped": lambda content: content[:900] + bytes([content[900] ^ 1]) + content[901:],
    "encrypted": in_directory(8, 1),
    "compressed": in_directory(10, 99),
}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # NumPy leaves broken archives open
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_memory_is_made_anew(root: Path, cache: Path, read: list[str], damage: str) -> None:
    expected = take_inventory(root, NAMES, cache)
    [store] = (cache / "catalogs").glob("*.npz")
    damaged = DAMAGES[damage](store.read_bytes())
    assert damaged != store.read_bytes()
    store.write_bytes(damaged)
    assert same(take_inventory(root, NAMES, cache), expected)
    assert same(take_inventory(root, NAMES, cache), expected)
    assert len(read) == 2 * len(NAMES)


def test_what_other_rules_found_is_not_used(
    root: Path, cache: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    take_inventory(root, NAMES, cache)
    monkeypatch.setattr(inventory, "DECODER_VERSION", inventory.DECODER_VERSION + 1)
    take_inventory(root, NAMES, cache)
    take_inventory(root, NAMES, cache)
    assert sorted(read) == sorted(2 * NAMES)


def test_bad_files_are_remembered_with_what_is_wrong(root: Path, cache: Path, read: list[str]) -> None:
    (root / "a/page.png").write_bytes(b"<html></html>")
    (root / "a/0.png").write_bytes((root / "a/0.png").read_bytes()[:100])
    names = [*NAMES, "a/page.png"]
    first = take_inventory(root, names, cache)
    assert [i for i, facts in enumerate(first.facts) if facts.problem] == [0, 8]
    assert same(take_inventory(root, names, cache), first)
    assert len(read) == len(names)


def test_a_file_that_could_not_be_read_for_a_moment_is_not_bad_for_ever(
    root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unplugged(_: Path) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", unplugged)
        assert all("cannot be read" in facts.problem for facts in take_inventory(root, NAMES, cache).facts)
    assert not any(facts.problem for facts in take_inventory(root, NAMES, cache).facts)


def test_a_file_that_vanished_meanwhile_or_leads_nowhere_is_bad_until_it_is_there(
    root: Path, cache: Path, write_image: Callable[..., Path]
) -> None:
    names = [*NAMES, "a/gone.png", "a/link.png"]
    (root / "a/link.png").symlink_to(root / "a/gone.png")
    assert [bool(facts.problem) for facts in take_inventory(root, names, cache).facts] == [False] * 8 + [True] * 2
    write_image(root / "a/gone.png")
    assert not any(facts.problem for facts in take_inventory(root, names, cache).facts)


def test_unusual_names_are_names_like_others(
    tmp_path: Path, cache: Path, write_image: Callable[..., Path], read: list[str]
) -> None:
    root = tmp_path / UNUSUAL[-1] / "x"
    for name in UNUSUAL:
        write_image(root / name, content=ascii(name))
    plan = PixelPlan(root, 6, "stretch", cache / "pixels")
    first = take_inventory(root, UNUSUAL, cache, plan)
    assert same(first, fresh(root, UNUSUAL)) and not any(facts.problem for facts in first.facts)
    assert same(take_inventory(root, UNUSUAL, cache), first)
    assert len(read) == len(UNUSUAL)


def rows_of(found: Inventory, names: list[str], make_row: Callable[..., Radiograph]) -> list[Radiograph]:
    pairs = zip(names, found.facts, strict=True)
    return [make_row(name, digest=facts.digest) for name, facts in pairs if not facts.problem]


@pytest.mark.parametrize("resize", ["stretch", "pad", "crop"])
def test_pixels_made_in_passing_are_those_that_loading_makes(
    root: Path, cache: Path, tmp_path: Path, make_row: Callable[..., Radiograph], resize: Resize
) -> None:
    (root / NAMES[1]).write_bytes(b"bad")
    (root / NAMES[7]).write_bytes(b"")
    plans = [PixelPlan(root, 6, resize, folder / "pixels") for folder in (cache, tmp_path / "other")]
    rows = rows_of(take_inventory(root, NAMES, cache, plans[0]), NAMES, make_row)
    assert len(rows) == 6
    made = plans[0].path([row.digest for row in rows])
    apart = load_pixels(plans[1], rows)
    assert made.name == plans[1].path([row.digest for row in rows]).name
    assert made.read_bytes() == plans[1].path([row.digest for row in rows]).read_bytes()
    for row in rows:
        (root / row.path).unlink()
    assert np.array_equal(load_pixels(plans[0], rows), apart)
    assert left(cache) == {".npz", ".npy", ".json"}


def test_pixels_are_made_in_passing_only_where_all_files_are_read(root: Path, cache: Path, plan: PixelPlan) -> None:
    take_inventory(root, NAMES[:1], cache)
    take_inventory(root, NAMES, cache, plan)
    take_inventory(root, NAMES, cache, plan)
    assert left(cache) == {".npz"}


def test_where_all_files_are_bad_no_image_is_made(root: Path, cache: Path, plan: PixelPlan) -> None:
    for name in NAMES:
        (root / name).write_bytes(b"bad")
    assert all(facts.problem for facts in take_inventory(root, NAMES, cache, plan).facts)
    assert load_pixels(plan, []).shape == (0, 6, 6)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_interruption_leaves_nothing(
    root: Path, cache: Path, plan: PixelPlan, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    def interrupted(file: Path, *how: Any) -> object:
        if file == root / NAMES[5]:
            raise error
        return examine(file, *how)

    with monkeypatch.context() as patch, pytest.raises(error):
        patch.setattr(inventory, "examine", interrupted)
        take_inventory(root, NAMES, cache, plan)
    assert left(cache) == set()
    assert same(take_inventory(root, NAMES, cache, plan), fresh(root, NAMES))


def test_a_full_disk_is_reported_with_the_remedy_and_leaves_nothing(
    root: Path, cache: Path, plan: PixelPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(rows: RowsFile, row: np.ndarray) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(RowsFile, "append", full)
    with pytest.raises(XRayError) as error:
        take_inventory(root, NAMES, cache, plan)
    for word in ("No space left", str(cache), "clear=all", "paths.cache", "XRAY_CACHE", "cache=off"):
        assert word in str(error.value)
    assert left(cache) == set()


def test_a_cache_that_cannot_be_made_is_reported_with_the_remedy(root: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(XRayError, match=r"paths\.cache"):
        take_inventory(root, NAMES, tmp_path / "taken")


def test_threads_that_ask_at_once_read_the_files_once(root: Path, cache: Path, read: list[str]) -> None:
    start = Barrier(3)

    def ask(_: int) -> Inventory:
        start.wait()
        return take_inventory(root, NAMES, cache)

    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(ask, range(3)))
    assert sorted(read) == NAMES
    assert same(found[0], found[1]) and same(found[0], found[2])


SCRIPT = """
    import os, signal, sys, time
    from pathlib import Path
    from xray_lightning.data import examine, inventory
    from xray_lightning.data.pixels import PixelPlan

    examine.RACY, whole, calls = -10**18, examine.examine, []
    root, cache, names = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3].split(",")
    def watched(*given):
        calls.append(given)
        {each_call}
        return whole(*given)
    inventory.examine = watched
    {before}
    inventory.take_inventory(root, names, cache, PixelPlan(root, 6, "stretch", cache / "pixels"))
    print(len(calls))
"""


def start(root: Path, cache: Path, each_call: str = "", before: str = "") -> "subprocess.Popen[str]":
    script = textwrap.dedent(SCRIPT).format(each_call=each_call, before=before)
    command = [sys.executable, "-c", script, str(root), str(cache), ",".join(NAMES)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_processes_that_ask_at_once_read_the_files_once(root: Path, cache: Path) -> None:
    running = [start(root, cache, each_call="time.sleep(0.05)") for _ in range(2)]
    outputs = [process.communicate(timeout=60)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert sorted(map(int, outputs)) == [0, len(NAMES)]


KILL = "os.kill(os.getpid(), signal.SIGKILL)"
MOMENTS = {
    "while files are read": {"each_call": f"len(calls) == 6 and {KILL}"},
    "before pixels are named": {"before": f"os.replace = lambda *_: {KILL}"},
    "before facts are named": {"before": f"inventory.atomic_write = lambda *_: {KILL}"},
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_that_is_killed_leaves_nothing_wrong(
    root: Path, cache: Path, plan: PixelPlan, make_row: Callable[..., Radiograph], moment: str
) -> None:
    process = start(root, cache, **MOMENTS[moment])
    process.communicate(timeout=60)
    assert process.returncode < 0
    assert ".npz" not in left(cache)
    found = take_inventory(root, NAMES, cache, plan)
    assert same(found, fresh(root, NAMES))
    pixels = load_pixels(plan, rows_of(found, NAMES, make_row))
    assert np.array_equal(pixels, np.stack([decode(root / name, 6) for name in NAMES]))
    assert left(cache) == {".npz", ".npy", ".json"}


@pytest.mark.parametrize("fault", ["bomb", "thumbs", "types", "path", "objects", "pipe", "long"])
def test_an_archive_that_somebody_else_wrote_is_not_believed(
    root: Path, cache: Path, read: list[str], fault: str
) -> None:
    expected = take_inventory(root, NAMES, cache)
    (store,) = cache.rglob("*.npz")
    with np.load(store) as archive:
        arrays: dict[str, Any] = dict(archive)
    if fault == "bomb":
        np.savez_compressed(store, **arrays | {"thumbs": np.zeros((len(NAMES), 32, 32), np.uint8)})
    elif fault == "thumbs":
        np.savez(store, **arrays | {"thumbs": np.zeros((len(NAMES), 3), np.uint8)})
    elif fault == "types":
        np.savez(store, **arrays | {"digest": np.arange(len(NAMES))})
    elif fault == "path":
        np.savez(store, **arrays | {"path": np.arange(len(NAMES))})
    elif fault == "objects":
        np.savez(store, **arrays | {"digest": np.array([{}] * len(NAMES))}, allow_pickle=True)
    elif fault == "pipe":
        store.unlink()
        os.mkfifo(store)
    else:
        np.savez(store, **arrays | {"width": np.arange(3)})
    read.clear()
    assert same(take_inventory(root, NAMES, cache), expected) and sorted(read) == NAMES
