"""Folders of radiographs -> a table, one row an image."""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from xray_lightning.artifacts import write_csv
from xray_lightning.errors import XRayError

SUFFIXES = frozenset({".jpeg", ".jpg", ".png"})
SYNTHETIC_MARKER = "SYNTHETIC.json"  # written by xray_lightning.data.phantoms beside the data sets


class MissingFolders(XRayError):
    """A data set is not where it was looked for, or holds no images."""


@dataclass(frozen=True, slots=True)
class Radiograph:
    """One row. `path` is relative to the root, with forward slashes; `digest` is of the file's bytes.

    `group` names what must stay on one side of a split: a patient where the file name tells, else the digest.
    `official` is the split that the publisher put the image in, or empty.
    """

    path: str
    label: int
    class_name: str
    group: str
    official: str
    size: int  # bytes
    digest: str


@dataclass(frozen=True)
class Layout:
    """Where a data set keeps its images: all that differs from one data set to another.

    `folders` maps each class, in order, to its folders below the root. A folder's images lie in it or, where
    there is one, in its `images/` subfolder; nothing else in it is read. `official` tells the published split
    from a folder, and `patient` the patient from a file name, None where it does not say.
    """

    folders: Mapping[str, Sequence[str]]
    optional: frozenset[str] = frozenset()
    official: Callable[[str], str] = lambda folder: ""
    patient: Callable[[str], str | None] = lambda stem: None


def image_files(folder: Path) -> list[Path]:
    """Images directly in a folder, or in its `images/` where that exists; hidden files are no images."""
    inner = folder / "images"
    found = (inner if inner.is_dir() else folder).iterdir()
    return sorted(f for f in found if f.suffix.lower() in SUFFIXES and not f.name.startswith("."))


def scan(root: Path, layout: Layout, classes: Sequence[str]) -> list[Radiograph]:
    """The catalog of `classes`, labelled by their position, sorted by path.

    Raises MissingFolders that lists what is missing or holds no image, XRayError for a file that cannot be read.
    """
    todo = [(label, name, folder) for label, name in enumerate(classes) for folder in layout.folders[name]]
    missing = [f for _, _, f in todo if not (root / f).is_dir() and f not in layout.optional]
    if missing:
        raise MissingFolders(f"{root} has no {', '.join(missing)}.")
    found = [
        (file, label, name, layout.official(folder))
        for label, name, folder in todo
        if (root / folder).is_dir()
        for file in image_files(root / folder)
    ]
    counts = Counter(name for _, _, name, _ in found)
    empty = [name for name in classes if not counts[name]]
    if empty:
        raise MissingFolders(f"{root} holds no images ({', '.join(sorted(SUFFIXES))}) of the class {', '.join(empty)}.")
    with ThreadPoolExecutor() as pool:  # reading and hashing both let other threads run
        contents = list(pool.map(lambda entry: _fingerprint(entry[0]), found))
    rows = [
        Radiograph(
            path=file.relative_to(root).as_posix(),
            label=label,
            class_name=name,
            group=layout.patient(file.stem) or digest,
            official=official,
            size=size,
            digest=digest,
        )
        for (file, label, name, official), (size, digest) in zip(found, contents, strict=True)
    ]
    return sorted(rows, key=lambda row: row.path)


def _fingerprint(file: Path) -> tuple[int, str]:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise XRayError(f"{file} cannot be read ({error.strerror}). Mend its permissions or remove it.") from error
    return len(content), hashlib.blake2b(content, digest_size=16).hexdigest()


def write_catalog(path: Path, rows: Sequence[Radiograph], sides: Sequence[str]) -> None:
    """Writes the table as CSV, with the split of each image as its last column."""
    header = [*(f.name for f in fields(Radiograph)), "split"]
    write_csv(path, header, ([*asdict(row).values(), side] for row, side in zip(rows, sides, strict=True)))


def kermany_patient(stem: str) -> str | None:
    """The patient of a Kermany file name.

    `personN` restarts for bacteria and virus, so the subtype is part of the key; `NORMAL2-IM-0123` and
    `IM-0123` are different people, so the prefix is too. The last number counts a patient's images.
    """
    if match := re.fullmatch(r"(person\d+)_(bacteria|virus)_\d+", stem):
        return f"{match[1]}_{match[2]}"
    if match := re.fullmatch(r"((?:NORMAL2-)?IM-\d+)(?:-\d+)*", stem):
        return match[1]
    return None
