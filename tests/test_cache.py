"""The cache is listed without leaving a trace, and cleared of nothing but what this program made."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock

from xray_lightning.artifacts import read_json
from xray_lightning.cache import CLEARS, DAY, CacheFile, clear_cache, list_cache
from xray_lightning.data.inventory import take_inventory
from xray_lightning.data.pixels import PixelPlan
from xray_lightning.data.twins import find_twins
from xray_lightning.errors import XRayError
from xray_lightning.models.features import FeatureStore

A, B, C = "a" * 24, "b" * 24, "c" * 24
REMAINS = [
    f"pixels/{B}.part",
    f"pixels/.{C}.part",
    f"pixels/{C}.json",
    f"pixels/{B}.npy.lock",
    f"pixels/.{A}.json.k3_x9abc",
    f"features/.{A}.npy.part",
    f"features/.{A}.done.npy.part",
    f"features/{B}.done.npy",
    f"catalogs/.{A}.npz.abcdefgh",
    f"catalogs/.{A}.twins.csv.abcdefgh",
    f"catalogs/{C}.npz.lock",
]
FOREIGN = [
    "phantoms/chest_xray/image.png",
    "notes.txt",
    f"{A}.npy",
    "pixels/my_array.npy",
    f"pixels/{A}.npy.bak",
    f"pixels/{A}.npz",
    f"pixels/deeper/{A}.npy",
    f"features/{A}.twins.csv",
    "catalogs/.hidden.part",
]


@pytest.fixture
def cache(tmp_path: Path, phantoms: Path) -> Path:
    """One of each kind, made by the program itself."""
    folder, root = tmp_path / "cache", phantoms / "chest_xray"
    paths = sorted(str(path.relative_to(root)) for path in root.rglob("*.jpeg"))[:10]
    inventory = take_inventory(root, paths, folder, PixelPlan(root, 32, "pad", folder / "pixels"))
    find_twins([facts.digest for facts in inventory.facts], inventory.thumbs, folder)
    store = FeatureStore(folder / "features", "key", rows=10, width=3, root="lungs", how="float32, plain")
    store.filled(np.arange(10), lambda rows: torch.ones(len(rows), 3), 4, "Computing")
    return folder


def put(folder: Path, *names: str, days: float = 1) -> None:
    """Small files that were last used so many days ago."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"xyz")
        age(folder / name, days)


def age(path: Path, days: float) -> None:
    os.utime(path, (time.time() - days * DAY,) * 2)


def kinds(files: list[CacheFile]) -> list[str]:
    return [file.kind for file in files]


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


def test_each_kind_is_listed_with_what_it_holds(cache: Path, phantoms: Path) -> None:
    files = list_cache(cache)
    assert [(file.kind, file.what) for file in files] == [
        ("pixels", f"{phantoms / 'chest_xray'}: 10 images, 32 pixels a side, pad"),
        ("features", "lungs: features of 10 images, float32, plain"),
        ("catalog", f"{phantoms / 'chest_xray'}: 10 files"),
        ("twins", "0 pairs of near-identical images"),
    ]
    assert sum(file.size for file in files) == sum(path.stat().st_size for path in cache.rglob("*") if path.is_file())
    assert {str(path.relative_to(cache)) for file in files for path in file.files} == names(cache)


def test_features_say_beside_them_what_they_are(cache: Path) -> None:
    (sidecar,) = (cache / "features").glob("*.json")
    about = read_json(sidecar)
    assert about is not None and about.keys() == {"rows", "width", "root", "how", "written"}
    assert sidecar.with_suffix(".npy").is_file()


def test_listing_makes_nothing_look_used(cache: Path) -> None:
    for path in cache.rglob("*.*"):
        age(path, days=40)
    for _ in range(2):
        assert all(file.unused_for(39) for file in list_cache(cache))


@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"[1]", b'{"root": null}', b"PK\x03\x04 cut off"])
def test_what_cannot_be_read_is_listed_and_cleared_all_the_same(tmp_path: Path, content: bytes) -> None:
    own = [f"pixels/{A}.npy", f"pixels/{A}.json", f"features/{A}.npy", f"features/{A}.json", f"catalogs/{A}.npz"]
    put(tmp_path, *own)
    for name in own:
        (tmp_path / name).write_bytes(content)
    assert all("nothing is known" in file.what for file in list_cache(tmp_path))
    clear_cache(tmp_path, "all")
    assert not names(tmp_path)


@pytest.mark.parametrize("clear", ["pixels", "features", "catalogs", "leftovers"])
def test_clearing_takes_what_was_named_and_no_other(cache: Path, clear: str) -> None:
    put(cache, *REMAINS)
    before, chosen = list_cache(cache), CLEARS[clear]
    removed = clear_cache(cache, clear)
    assert set(kinds(removed)) == set(chosen) and not any(file.kept for file in removed)
    assert not any(path.exists() for file in removed for path in file.files)
    assert list_cache(cache) == [file for file in before if file.kind not in chosen]


def test_every_leftover_is_known_for_one(tmp_path: Path) -> None:
    put(tmp_path, *REMAINS)
    assert {file.what for file in list_cache(tmp_path) if file.kind == "leftover"} == set(REMAINS)


def test_all_leaves_nothing_but_what_is_not_this_programs(cache: Path) -> None:
    put(cache, *REMAINS, *FOREIGN)
    clear_cache(cache, "all")
    assert names(cache) == set(FOREIGN)
    assert set(kinds(list_cache(cache))) == {"other"}


def test_links_are_not_followed(cache: Path, tmp_path: Path) -> None:
    put(tmp_path / "outside", f"{A}.npy", f"{A}.json")
    (cache / "pixels" / f"{A}.npy").symlink_to(tmp_path / "outside" / f"{A}.npy")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "features").symlink_to(tmp_path / "outside")
    for folder in (cache, tmp_path / "other"):
        assert "other" in kinds(list_cache(folder))
        clear_cache(folder, "all")
    assert names(tmp_path / "outside") == {f"{A}.npy", f"{A}.json"}
    assert (cache / "pixels" / f"{A}.npy").is_symlink()


def test_only_what_was_not_used_for_so_long_goes(tmp_path: Path) -> None:
    put(tmp_path, f"pixels/{A}.npy", days=31)
    put(tmp_path, f"pixels/{B}.npy", days=29)
    put(tmp_path, f"pixels/{C}.npy", days=31)
    os.utime(tmp_path / f"pixels/{C}.npy", (time.time(), time.time() - 31 * DAY))  # read today
    assert len(clear_cache(tmp_path, "pixels", older_than=30)) == 1
    assert names(tmp_path) == {f"pixels/{B}.npy", f"pixels/{C}.npy"}


@pytest.mark.parametrize(
    ("lock", "made"),
    [
        (f"pixels/{A}.npy.lock", f"pixels/{A}.npy"),
        (f"pixels/{A}.npy.lock", f"pixels/{A}.part"),
        (f"catalogs/{A}.npz.lock", f"pixels/.{A}.part"),
        (f"features/{A}.npy.lock", f"features/{A}.npy"),
        (f"features/{A}.npy.lock", f"features/.{A}.done.npy.part"),
        (f"catalogs/{A}.npz.lock", f"catalogs/{A}.npz"),
    ],
)
def test_what_somebody_is_making_stays(tmp_path: Path, lock: str, made: str) -> None:
    put(tmp_path, lock, made)
    with FileLock(tmp_path / lock):
        assert {file.kept for file in clear_cache(tmp_path, "all")} == {"in use"}
        assert names(tmp_path) == {lock, made}
    assert not any(file.kept for file in clear_cache(tmp_path, "all"))
    assert not names(tmp_path)


def test_a_temporary_file_of_this_minute_stays(tmp_path: Path) -> None:
    put(tmp_path, f"catalogs/.{A}.npz.abcdefgh", days=0)
    (file,) = clear_cache(tmp_path, "all")
    assert file.kept == "written just now" and file.files[0].exists()


def test_a_file_that_cannot_be_removed_is_told_with_the_reason(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refuse)
    assert [file.kept for file in clear_cache(cache, "pixels")] == ["Permission denied"]


def test_a_map_that_is_open_can_still_be_read(cache: Path) -> None:
    (path,) = (cache / "pixels").glob("*.npy")
    images = np.load(path, mmap_mode="r")
    before = images.copy()
    clear_cache(cache, "pixels")
    np.testing.assert_array_equal(images, before)


def test_a_missing_folder_is_empty(tmp_path: Path) -> None:
    assert list_cache(tmp_path / "none") == clear_cache(tmp_path / "none", "all") == []
    assert not (tmp_path / "none").exists()


def test_a_file_in_place_of_the_folder_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(XRayError, match=r"paths\.cache="):
        list_cache(tmp_path / "file")


def test_another_word_than_those_is_answered_with_them(tmp_path: Path) -> None:
    with pytest.raises(XRayError, match="pixels, features, catalogs, leftovers, all"):
        clear_cache(tmp_path, "pixel")


@pytest.fixture
def shell(cache: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    (tmp_path / "here").mkdir()
    environment = os.environ | {"XRAY_CACHE": str(cache), "PYTHONWARNINGS": "default"}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "xray_lightning.cache", *words]
        here = tmp_path / "here"
        return subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, timeout=60)

    return run


def test_the_command_lists_clears_and_leaves_no_trace(
    shell: Callable[..., subprocess.CompletedProcess[str]], cache: Path, tmp_path: Path
) -> None:
    put(cache, *FOREIGN[:2], f"pixels/{A}.npy", days=40)
    (tmp_path / "here" / "metrics.json").write_text(json.dumps({"of": "a run that is not this one"}))
    listed = shell()
    assert (listed.returncode, listed.stderr) == (0, "")
    for told in ("10 images, 32 pixels a side, pad", "kB", str(cache), "never removed: notes.txt, phantoms"):
        assert told in listed.stdout
    aged = shell("older_than=30").stdout
    assert A in aged and "10 images" not in aged
    old = shell("clear=all", "older_than=30")
    assert "Removed pixels" in old.stdout and f"3 bytes freed in {cache}" in old.stdout
    assert len(names(cache / "pixels")) == 2
    assert shell("clear=all").returncode == 0
    assert names(cache) == set(FOREIGN[:2])
    assert "Nothing removed" in shell("clear=all").stdout
    assert f"Nothing in {tmp_path / 'none'}" in shell(f"paths.cache={tmp_path / 'none'}").stdout
    assert names(tmp_path / "here") == {"metrics.json"}


@pytest.mark.parametrize(
    ("words", "message"),
    [("clear=pixel", "Give one of pixels, features"), ("older_than=long", "Give a number of days")],
)
def test_a_wrong_value_is_one_message_and_removes_nothing(
    shell: Callable[..., subprocess.CompletedProcess[str]], cache: Path, words: str, message: str
) -> None:
    before = names(cache)
    failed = shell("clear=all", words) if words.startswith("older") else shell(words)
    assert failed.returncode == 1
    assert message in failed.stderr and "Traceback" not in failed.stderr + failed.stdout
    assert names(cache) == before
