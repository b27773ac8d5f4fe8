"""Files that a run leaves behind, each written whole or not at all."""

import csv
import json
import logging
import os
import re
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from io import BytesIO
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from filelock import FileLock, Timeout

log = logging.getLogger(__name__)
RESULTS = ("metrics.json", "cascade.json", "predictions.csv", "history.csv", "report.html", "MODEL_CARD.md")
TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}")  # .<name>.<what tempfile draws>


@contextmanager
def atomic_write(path: Path, mode: str = "w", *, sync: bool = True) -> Iterator[IO[Any]]:
    """Opens a temporary file beside `path` and renames it into place when the block ends without error.

    Without `sync` that holds against a kill, but a power cut within seconds may leave a file cut short. It is for large
    files whose readers notice that, since disks can take seconds to confirm them.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    # names of files may hold bytes that are no UTF-8; they are passed on as they are
    text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}
    try:
        with os.fdopen(descriptor, mode, **text) as file:
            yield file
            if sync:
                file.flush()
                os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)  # mkstemp makes files that only their owner can read
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def keep(path: Path) -> None:
    """Waits until the disk has a file that was written without `sync`: from then on a power cut leaves it whole."""
    with path.open("rb+") as file:  # Windows confirms nothing of a file that is only read
        os.fsync(file.fileno())


def unnamed(folder: Path) -> list[Path]:
    """Temporary files of `atomic_write` in the folder, whose process was killed before it named them."""
    return [path for path in folder.glob(".*") if TEMPORARY.fullmatch(path.name) and path.is_file()]


def clear_results(folder: Path) -> None:
    """Takes away what an earlier attempt told, which would stand beside the new numbers, and its temporary files; not
    what somebody else has in a folder that hydra.run.dir names."""
    if not (folder / ".hydra").is_dir():  # which every run has from its beginning
        return
    for name in RESULTS:
        (folder / name).unlink(missing_ok=True)
    for figure in (folder / "figures").glob("*.png"):
        figure.unlink()
    for part in (folder, *(folder / name for name in (".hydra", "checkpoints", "figures"))):
        for file in unnamed(part):
            file.unlink(missing_ok=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keeps other processes from writing `path`, whose folder is made; says so where it has to wait for one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{path}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("Another process is at work on %s: waiting for it", path)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    with atomic_write(path) as file:
        json.dump(content, file, indent=2, ensure_ascii=False, allow_nan=False)
        file.write("\n")


def read_json(path: Path) -> dict[str, Any] | None:
    """The content, or None where there is no plain file of this name or it is not a JSON object."""
    if not path.is_file():  # opening a pipe would wait forever
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8", errors="surrogateescape"))
    except (OSError, ValueError, RecursionError):  # the last of a file that is nested too deep
        return None
    return content if isinstance(content, dict) else None


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with atomic_write(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def is_whole_array(path: Path, dtype: type, shape: tuple[int, ...]) -> bool:
    """Whether the .npy file holds such an array to its last byte; open_memmap would fill a cut one up with zeros.

    The header is compared and never parsed, so that nothing that somebody else wrote there has a meaning.
    """
    header = BytesIO()
    _write_header(header, np.dtype(dtype), shape)
    expected = header.getvalue()
    if not path.is_file():  # opening a pipe would wait forever
        return False
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            whole = size == len(expected) + prod(shape) * np.dtype(dtype).itemsize
            return whole and file.read(len(expected)) == expected
    except OSError:
        return False


def is_stored(path: Path) -> bool:
    """Whether a zip archive has its members as they are, so that it cannot unpack to more than it has itself.

    Raises what zipfile does of a damaged archive.
    """
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    plain = all(member.compress_type == zipfile.ZIP_STORED for member in members)
    return plain and sum(member.file_size for member in members) <= path.stat().st_size


def _write_header(file: IO[bytes], dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    np.lib.format.write_array_header_1_0(file, {"descr": dtype.str, "fortran_order": False, "shape": shape})


class RowsFile:
    """A .npy file written row by row, so that memory does not grow with it, and named once it is whole.

    Unlike a memory map over a file with holes, a full disk shows as an OSError and not as a crash.
    """

    def __init__(self, path: Path, row_shape: tuple[int, ...], dtype: type) -> None:
        self.path = path
        self.row_shape = row_shape
        self.dtype = np.dtype(dtype)
        self.rows = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("wb")
        self._write_header()

    def _write_header(self) -> None:
        # NumPy keeps room for the first axis to grow: the header is as long for any number of rows
        _write_header(self._file, self.dtype, (self.rows, *self.row_shape))

    def append(self, row: np.ndarray) -> None:
        self._file.write(np.asarray(row, dtype=self.dtype).reshape(self.row_shape).tobytes())
        self.rows += 1

    def finish(self, target: Path) -> None:
        """Writes what is left and renames the file to `target`."""
        self._file.seek(0)
        self._write_header()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        os.replace(self.path, target)

    def discard(self) -> None:
        with suppress(OSError):  # what could not be flushed to a full disk is not wanted any more
            self._file.close()
        self.path.unlink(missing_ok=True)


def write_zeros(path: Path, shape: tuple[int, ...], dtype: type) -> None:
    """A .npy file of zeros that a memory map may be opened on: its space is taken, so it cannot run out of it later."""
    rows = RowsFile(path.with_name(f".{path.name}.part"), shape[1:], dtype)
    try:
        zeros: np.ndarray = np.zeros(shape[1:], dtype=dtype)
        for _ in range(shape[0]):
            rows.append(zeros)
        rows.finish(path)
    except BaseException:
        rows.discard()
        raise
