"""Images of two runs: which there are, on which side of the split, and what is predicted of them."""

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np

from xray_lightning.compare.part import Difference, Found, only_in_one, such_as
from xray_lightning.errors import XRayError
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
