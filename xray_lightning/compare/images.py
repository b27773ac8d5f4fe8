"""Images of two runs: which there are, on which side of the split, and what is predicted of them."""

import csv
from collections import defaultdict
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from xray_lightning.compare.part import Difference, Found, only_in_one, such_as
from xray_lightning.errors import XRayError
from xray_lightning.evaluation.cascade_content import BEFORE, SYSTEMS
from xray_lightning.evaluation.versus import Scored

TOLD = ("split", "class_name")  # columns whose values say something to people


def catalogs(a: Path, b: Path) -> Found:
    """Images, by their paths, that only one catalog.csv has, or that have another side, class, content or group.

    Raises XRayError for a file that is no catalog.
    """
    before, now = _catalog(a), _catalog(b)
    changed: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for path in before.keys() & now:
        for column in (*TOLD, "digest", "group"):
            x, y = (str(lines[path].get(column)) for lines in (before, now))
            if x != y:
                changed[(column, x, y) if column in TOLD else (column, "one", "another")].append(path)
    found = [Difference(column, x, y, such_as(paths)) for (column, x, y), paths in sorted(changed.items())]
    return len(before | now), only_in_one(before, now) + found


def _catalog(file: Path) -> dict[str, dict[str, str]]:
    try:
        with file.open(newline="", encoding="utf-8", errors="surrogateescape") as lines:
            return {line["path"]: line for line in csv.DictReader(lines)}
    except (OSError, KeyError, csv.Error) as error:
        raise XRayError(f"{file} cannot be read as a catalog ({error!r}). Run the experiment again.") from error


def predictions(a: Scored, b: Scored) -> Found:
    """How far the probabilities of the images that both runs scored are apart, and how many decisions change."""
    classes = a.images[0]
    if classes != b.images[0]:
        return 0, [Difference("classes", ", ".join(classes), ", ".join(b.images[0]))]
    places = [{image[0]: place for place, image in enumerate(run.images[1:])} for run in (a, b)]
    both = [path for path in places[0] if path in places[1]]
    found = only_in_one(*places)
    p, q = (run.probabilities[[place[path] for path in both]] for run, place in zip((a, b), places, strict=True))
    gaps = np.abs(p - q)
    if gaps.any():
        row, column = np.unravel_index(gaps.argmax(), gaps.shape)
        farthest = f"probability of {classes[column]}, {both[row]}"
        apart, decided = gaps.any(axis=1).sum(), (p.argmax(axis=1) != q.argmax(axis=1)).sum()
        by = f"{q[row, column] - p[row, column]:+.3g}, the largest of {apart} images; {decided} have another class"
        found.append(Difference(farthest, float(p[row, column]), float(q[row, column]), by))
    return len(both), found


def cascade_predictions(a: Path, b: Path) -> Found:
    """How far each column of probabilities is apart at most, and how many answers of each system change.

    Raises XRayError for a file that is no cascade's.
    """
    (header, before), (other, now) = _of_cascade(a), _of_cascade(b)
    if header != other:
        return 0, [Difference("columns", ", ".join(header), ", ".join(other))]
    found = only_in_one(before, now)
    both = [path for path in before if path in now]
    for column, name in enumerate(header):
        pairs = {path: (before[path][column], now[path][column]) for path in both}
        changed = {path: pair for path, pair in pairs.items() if pair[0] != pair[1]}
        if changed:
            found += _farthest(name, changed) if _is_probability(column, header) else _exchanged(name, changed)
    return len(both), found


def _is_probability(column: int, header: list[str]) -> bool:
    return column == len(BEFORE) - 2 or len(BEFORE) <= column < len(header) - len(SYSTEMS)


def _farthest(name: str, changed: Mapping[str, tuple[Any, Any]]) -> list[Difference]:
    path = max(changed, key=lambda path: abs(changed[path][1] - changed[path][0]))
    x, y = changed[path]
    return [Difference(f"probability of {name}, {path}", x, y, f"{y - x:+.3g}, the largest of {len(changed)} images")]


def _exchanged(name: str, changed: Mapping[str, tuple[Any, Any]]) -> list[Difference]:
    paths: dict[tuple[str, str], list[str]] = defaultdict(list)
    for path, pair in changed.items():
        paths[("one", "another") if name == "group" else pair].append(path)
    return [Difference(name, x, y, such_as(images)) for (x, y), images in sorted(paths.items())]


def _of_cascade(file: Path) -> tuple[list[str], dict[str, list[Any]]]:
    """The header, and each image's cells by its path, probabilities as numbers."""
    try:
        with file.open(newline="", encoding="utf-8", errors="surrogateescape") as text:
            header, *lines = csv.reader(text)
        if tuple(header[: len(BEFORE)]) != BEFORE or tuple(header[-len(SYSTEMS) :]) != SYSTEMS:
            raise ValueError("it has other columns")
        numeric = [_is_probability(column, header) for column in range(len(header))]
        rows = [[float(cell) if is_p else cell for cell, is_p in zip(line, numeric, strict=True)] for line in lines]
        if not all(isfinite(cell) for row in rows for cell in row if isinstance(cell, float)):
            raise ValueError("a probability is missing")
    except (OSError, ValueError, csv.Error) as error:
        raise XRayError(f"{file} cannot be used ({error}). Run its test again.") from error
    return header, {str(row[0]): row for row in rows}
