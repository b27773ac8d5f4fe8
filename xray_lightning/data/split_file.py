"""A split that is read from a list, so that others can repeat a result on the same images."""

import csv
import errno
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from xray_lightning.data.catalog import Radiograph
from xray_lightning.data.splits import SIDES, UNUSED
from xray_lightning.errors import XRayError

Line = dict[str, str]
NAMING = ("digest", "path", "class_name")  # columns that tell which image a line means, as far as they are there


def read_split(path: Path, rows: Sequence[Radiograph]) -> list[str]:
    """The side of each row from a CSV with `split` and `digest`, `path` or both, such as a run's catalog.csv.

    Where the list has digests, files may have been renamed or moved. Rows that the list does not have are
    unused. Raises XRayError for a list that cannot be read, that names other sides or images that are not there.
    """
    lines = _read_lines(path)
    classes = {row.class_name for row in rows}
    if "class_name" in lines[0] and not (lines := [line for line in lines if line["class_name"] in classes]):
        raise XRayError(f"dataset.split_file={path} has no image of the classes {', '.join(sorted(classes))}.")
    naming = [column for column in NAMING if column in lines[0]]
    sides, left = _matched(rows, [""] * len(rows), lines, naming)
    if "digest" in naming and "path" in naming:
        sides, left = _matched(rows, sides, left, [column for column in naming if column != "path"])
    if lost := sorted(line.get("path") or line["digest"] for line in left if line["split"] != UNUSED):
        raise XRayError(
            f"{len(lost)} of {len(lines)} images in {path} are not in the data set, or have other contents: "
            f"{', '.join(lost[:5])}{', …' * (len(lost) > 5)}. The split can be repeated on the same files only."
        )
    return [side or UNUSED for side in sides]


def _matched(
    rows: Sequence[Radiograph], sides: Sequence[str], lines: Sequence[Line], columns: Sequence[str]
) -> tuple[list[str], list[Line]]:
    """The sides, filled in for rows that agree with a line in these columns, and the lines that no row agrees with.

    Each line is for one row, but for the last of equal ones where there are no paths: it is for all further copies.
    """
    waiting: dict[tuple[str, ...], list[Line]] = defaultdict(list)
    for line in reversed(lines):
        waiting[tuple(line[c] for c in columns)].append(line)
    several = bool(lines) and "path" not in lines[0]
    used: set[int] = set()
    found = list(sides)
    for number, row in enumerate(rows):
        same = waiting.get(tuple(str(getattr(row, c)) for c in columns))
        if found[number] or not same:
            continue
        line = same[-1] if several and len(same) == 1 else same.pop()
        used.add(id(line))
        found[number] = line["split"]
    return found, [line for line in lines if id(line) not in used]


def _read_lines(path: Path) -> list[dict[str, str]]:
    try:
        if path.exists() and not path.is_file():  # opening a pipe would wait forever
            raise OSError(errno.EINVAL, "no plain file")
        with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:  # Excel writes a mark
            header, *content = [line for line in csv.reader(file) if line] or [[]]
    except (OSError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise XRayError(
            f"dataset.split_file={path} cannot be read ({reason}). Give a CSV, such as a run's catalog.csv."
        ) from error
    if "split" not in header or not {"digest", "path"} & set(header) or not content:
        raise XRayError(f"dataset.split_file={path} needs the columns split and digest or path, and a line an image.")
    if ragged := [number for number, line in enumerate(content, start=2) if len(line) != len(header)]:
        raise XRayError(f"dataset.split_file={path}: line {ragged[0]} has not the {len(header)} values of the first.")
    lines = [dict(zip(header, line, strict=True)) for line in content]
    valid = (*SIDES, UNUSED)
    if unknown := sorted({line["split"] for line in lines} - {*valid}):
        raise XRayError(f"dataset.split_file={path} has the split '{unknown[0]}'. Valid: {', '.join(valid)}.")
    sides: dict[tuple[str, str], str] = {}
    for line in lines:
        name = (line.get("digest", ""), line.get("path", ""))
        if sides.setdefault(name, line["split"]) != line["split"]:
            raise XRayError(f"dataset.split_file={path} has {name[1] or name[0]} in two splits.")
    return lines
