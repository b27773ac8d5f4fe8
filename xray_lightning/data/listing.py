"""A table that lists the images of a data set: their classes, patients and sides of a published split."""

import csv
import errno
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path, PureWindowsPath

from xray_lightning.data.decode import FORMATS
from xray_lightning.data.splits import TEST, TRAIN
from xray_lightning.errors import XRayError, did_you_mean

log = logging.getLogger(__name__)
OFFICIAL = {"train": TRAIN, "val": TRAIN, "valid": TRAIN, "validation": TRAIN, "test": TEST}  # in lower case
MAY_BE_EMPTY = ("patient", "source", "subtype")
LISTED = 5  # files or folders that a message names


@dataclass(frozen=True, slots=True)
class Line:
    """One image of a table; what the table does not say is empty."""

    path: str
    label: str = ""
    patient: str = ""
    split: str = ""
    source: str = ""
    subtype: str = ""


def read_table(file: Path) -> list[Line]:
    """The lines of a CSV with a column path and any of label, patient, split, source and subtype.

    Raises XRayError for what cannot be read, and for paths that lead out of the root, repeat or name no image.
    """
    try:
        if file.exists() and not file.is_file():  # opening a pipe would wait forever
            raise OSError(errno.EINVAL, "no plain file")
        with file.open(newline="", encoding="utf-8-sig") as stream:
            header, *rows = [[c.strip() for c in row] for row in csv.reader(stream) if any(row)] or [[]]
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise XRayError(
            f"The table {file} cannot be read ({reason}). Give dataset.table=<file>, a CSV in UTF-8, absolute or "
            "relative to dataset.root."
        ) from error
    header = [name.lower() for name in header]
    columns = [field.name for field in fields(Line) if field.name in header]
    if "path" not in columns or not rows:
        raise XRayError(
            f"{file} needs a first line path,label[,patient][,split] and a line for each image, with commas between. "
            f"Its first line is {','.join(header) or 'empty'}."
        )
    for row in rows:
        if len(row) != len(header) or not all(row[header.index(c)] for c in columns if c not in MAY_BE_EMPTY):
            raise XRayError(
                f"{file} has the line '{','.join(row)}', which does not fill the columns {','.join(header)}."
            )
    log.info("%s: %d images, of which it tells %s", file.name, len(rows), ", ".join(columns[1:]) or "nothing more")
    lines = [Line(**{column: row[header.index(column)] for column in columns}) for row in rows]
    return _checked(file, lines)


def _checked(file: Path, lines: Sequence[Line]) -> list[Line]:
    if strays := [line.path for line in lines if not below(line.path)]:
        raise XRayError(
            f"{file} has paths that do not lie below dataset.root: {few(strays)}. Write them relative to it."
        )
    if others := [line.path for line in lines if Path(line.path).suffix.lower() not in FORMATS]:
        raise XRayError(f"{file} lists files that are no images ({', '.join(FORMATS)}): {few(others)}.")
    if wrong := [line.split for line in lines if line.split.lower() not in {*OFFICIAL, ""}]:
        raise XRayError(f"{file} has the split {few(dict.fromkeys(wrong))}. {did_you_mean(wrong[0], OFFICIAL)}")
    lines = [replace(x, path=below(x.path), split=OFFICIAL.get(x.split.lower(), "")) for x in lines]
    if twice := repeated(line.path for line in lines):
        raise XRayError(f"{file} lists images more than once: {few(twice)}. Keep one line for each.")
    return lines


def below(path: object) -> str:
    """A relative path with forward slashes; empty for what is none, or leads out of the folder it is relative to."""
    plain = PureWindowsPath(str(path))  # knows both kinds of slashes
    inside = isinstance(path, str) and plain.parts and not plain.anchor and ".." not in plain.parts
    return plain.as_posix() if inside else ""


def repeated(paths: Iterable[str]) -> list[str]:
    return [path for path, count in Counter(paths).items() if count > 1]


def few(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - LISTED} more" if len(listed) > LISTED else ""
    return ", ".join(listed[:LISTED]) + more or "none"
