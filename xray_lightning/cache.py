"""Lists what lies in the cache, and removes it.

Only files whose names this program gives are ever removed, and none that a process is making: it holds their lock.
Where another process reads a memory map that is removed here, POSIX keeps the data until it ends, and the space
is free only then; Windows refuses, which is told. The next run makes anew what it needs.
"""

import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import IO, Any

import numpy as np
from filelock import FileLock, Timeout
from omegaconf import DictConfig
from rich import box
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from xray_lightning.artifacts import is_stored, read_json
from xray_lightning.cli import command
from xray_lightning.console import printable
from xray_lightning.errors import XRayError

DAY = 86400  # seconds
BEING_WRITTEN = 60  # seconds that a temporary file without a lock may be somebody's
# kind: its folder, the ending of the file that matters, those of the files that go with it
KINDS = {
    "pixels": ("pixels", ".npy", (".json", ".npy.lock")),
    "features": ("features", ".npy", (".done.npy", ".json", ".npy.lock")),
    "catalog": ("catalogs", ".npz", (".npz.lock",)),
    "twins": ("catalogs", ".twins.csv", ()),
}
LEFTOVER, OTHER = "leftover", "other"
FOLDERS = {folder for folder, _, _ in KINDS.values()}
CLEARS = {
    "pixels": ("pixels",),
    "features": ("features",),
    "catalogs": ("catalog", "twins"),
    "leftovers": (LEFTOVER,),
    "all": (*KINDS, LEFTOVER),
}
NAME = "[0-9a-f]{24}"
TEMPORARY = re.compile(rf"\.{NAME}\.(json|npz|twins\.csv)\.\w{{8}}")  # of atomic_write
REMAINS = re.compile(rf"{NAME}\.(part|json|done\.npy|np[yz]\.lock)|\.{NAME}\.((done\.)?npy\.)?part|{TEMPORARY.pattern}")


@dataclass(frozen=True)
class CacheFile:
    """Files of the cache that belong together and go together."""

    kind: str  # pixels, features, catalog, twins, leftover, or other: not this program's
    what: str
    files: tuple[Path, ...]  # none where they are not this program's
    size: int  # bytes
    used: float  # seconds since 1970 at the last reading or writing, as far as the file system keeps it
    lock: Path | None = None  # held by whoever makes the files
    kept: str = ""  # why it could not be removed

    def unused_for(self, days: float) -> bool:
        return time.time() - self.used >= days * DAY


def list_cache(folder: Path) -> list[CacheFile]:
    """What lies in the folder, which need not exist. Reading it does not make anything look used."""
    found: list[CacheFile] = []
    for name, stat in _scan(folder).items():
        if name in FOLDERS and S_ISDIR(stat.st_mode):
            found += _list_kinds(folder / name)
        else:
            found.append(CacheFile(OTHER, name, (), 0, 0))
    order = [*KINDS, LEFTOVER, OTHER]
    return sorted(found, key=lambda file: (order.index(file.kind), file.what))


def clear_cache(folder: Path, clear: str, older_than: float | None = None) -> list[CacheFile]:
    """Removes what `clear` names, of any age or unused for `older_than` days, and returns it.

    What is in use or cannot be removed stays; its `kept` says why. Raises XRayError for another word than the
    keys of CLEARS.
    """
    if clear not in CLEARS:
        raise XRayError(f"clear={clear} is not valid. Give one of {', '.join(CLEARS)}.")
    chosen = [file for file in list_cache(folder) if file.kind in CLEARS[clear]]
    return [_remove(file) for file in chosen if older_than is None or file.unused_for(older_than)]


def _scan(folder: Path) -> dict[str, os.stat_result]:
    """Names in a folder with what the file system says of them, of links themselves and not of their targets."""
    found = {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # a run has just renamed it
                    found[entry.name] = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise XRayError(
            f"The cache cannot be read: {folder} ({error.strerror}). Name it with paths.cache=<folder> or the "
            "variable XRAY_CACHE."
        ) from error
    return found


def _list_kinds(folder: Path) -> Iterator[CacheFile]:
    stats = _scan(folder)
    plain = {name for name, stat in stats.items() if S_ISREG(stat.st_mode)}
    taken: set[str] = set()

    def made(kind: str, what: str, names: Sequence[str], lock: Path | None) -> CacheFile:
        taken.update(names)
        stat = stats[names[0]]  # that of the sidecar is not of use: listing reads it
        size, used = sum(stats[name].st_size for name in names), max(stat.st_atime, stat.st_mtime)
        return CacheFile(kind, what, tuple(folder / name for name in names), size, used, lock)

    for kind, (place, ending, more) in KINDS.items():
        for name in sorted(plain) if place == folder.name else ():
            if re.fullmatch(NAME + re.escape(ending), name):
                names = [name, *sorted({name.removesuffix(ending) + other for other in more} & plain)]
                lock = folder / f"{name}.lock" if more else None
                yield made(kind, _describe(kind, folder / name), names, lock)
    for name in sorted(stats.keys() - taken):
        if name in plain and REMAINS.fullmatch(name):
            yield made(LEFTOVER, f"{folder.name}/{name}", [name], _lock_of(folder, name))
        else:
            yield CacheFile(OTHER, f"{folder.name}/{name}", (), 0, 0)


def _lock_of(folder: Path, name: str) -> Path | None:
    """The lock that is held while a leftover is in the making."""
    if TEMPORARY.fullmatch(name):
        return None
    digest = name.lstrip(".").split(".")[0]
    if name == f".{digest}.part":  # images decoded while their catalog is made
        return folder.parent / "catalogs" / f"{digest}.npz.lock"
    return folder / f"{digest}.{'npz' if folder.name == 'catalogs' else 'npy'}.lock"


def _describe(kind: str, path: Path) -> str:
    about: dict[str, Any] = read_json(path.with_suffix(".json")) or {}
    try:
        if kind == "pixels":
            return "{root}: {images} images, {size} pixels a side, {resize}".format(**about)
        if kind == "features":
            return "{root}: features of {rows} images, {how}".format(**about)
        with _unnoticed(path) as file:
            if kind == "twins":
                return f"{max(sum(1 for _ in file) - 1, 0)} pairs of near-identical images"
            if not is_stored(path):
                raise ValueError("an archive that unpacks to more than it has")
            with np.load(file, allow_pickle=False) as archive:
                return f"{archive['root']}: {len(archive['path'])} files"
    except Exception:  # a broken archive fails in many ways; it is listed, so that it can be removed, all the same
        return f"{path.name}, of which nothing is known"


@contextmanager
def _unnoticed(path: Path) -> Iterator[IO[bytes]]:
    """Opens a file to read and sets its times back, since `older_than` goes by them."""
    with path.open("rb") as file:
        stat = os.fstat(file.fileno())
        try:
            yield file
        finally:
            with suppress(OSError):  # another user's file
                target = file.fileno() if os.utime in os.supports_fd else path
                os.utime(target, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def _remove(file: CacheFile) -> CacheFile:
    if file.lock is None and file.kind == LEFTOVER and time.time() - file.used < BEING_WRITTEN:
        return replace(file, kept="written just now")
    # a lock that is not there is held by nobody, and making it may fail where the disk is full
    lock = FileLock(file.lock, timeout=0) if file.lock and file.lock.exists() else nullcontext()
    try:
        with lock:
            for path in file.files:
                if path != file.lock:
                    path.unlink(missing_ok=True)
                elif not path.with_suffix("").exists():
                    with suppress(PermissionError):  # Windows: filelock removes it when it lets go
                        path.unlink(missing_ok=True)
    except Timeout:
        return replace(file, kept="in use")
    except OSError as error:
        return replace(file, kept=error.strerror or str(error))
    return file


def _show(console: Console, folder: Path, files: Sequence[CacheFile]) -> None:
    own = [file for file in files if file.kind != OTHER]
    others = [printable(file.what) for file in files if file.kind == OTHER]
    if own:
        table = Table("kind", box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("what", overflow="fold")
        table.add_column("size", justify="right", no_wrap=True)
        table.add_column("last used", no_wrap=True)
        for file in own:
            used = f"{datetime.fromtimestamp(file.used):%Y-%m-%d %H:%M}"
            table.add_row(file.kind, printable(file.what), decimal(file.size), used)
        console.print(table)
    console.print(f"{_total(own) if own else 'Nothing'} in {printable(folder)}", soft_wrap=True)
    if others:
        shown = ", ".join(others[:12] + ["…"] * (len(others) > 12))
        console.print(f"Not this command's, and never removed: {shown}", soft_wrap=True)
    if own:
        console.print(f"To free space: clear={'|'.join(CLEARS)}", soft_wrap=True)


def _show_cleared(console: Console, folder: Path, files: Sequence[CacheFile]) -> None:
    for file in files:
        what = f"{file.kind} {printable(file.what)} ({decimal(file.size)})"
        line = f"Kept {what}: {file.kept}" if file.kept else f"Removed {what}"
        console.print(line, style="yellow" if file.kept else "", soft_wrap=True)
    removed = [file for file in files if not file.kept]
    told = f"{_total(removed)} freed" if removed else "Nothing removed"
    console.print(f"{told} in {printable(folder)}", soft_wrap=True)


def _total(files: Sequence[CacheFile]) -> str:
    return decimal(sum(file.size for file in files))


@command("cache")
def main(cfg: DictConfig) -> None:
    days = cfg.older_than
    if days is not None and not (type(days) in (int, float) and days >= 0):
        raise XRayError(f"older_than={days} is not valid. Give a number of days, such as 30.")
    folder = Path(cfg.paths.cache).absolute()
    # a file or a pipe has no edge to fold at
    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 160)
    if cfg["clear"] is None:  # `cfg.clear` is a method
        files = list_cache(folder)
        _show(console, folder, [f for f in files if days is None or f.kind == OTHER or f.unused_for(days)])
    else:
        _show_cleared(console, folder, clear_cache(folder, cfg["clear"], days))


if __name__ == "__main__":
    main()
