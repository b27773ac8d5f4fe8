"""From files on disk to a catalog that can be trusted: bad files are named, copies and twins found, leaks refused."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from xray_lightning.console import printable
from xray_lightning.data.catalog import Entry, Radiograph, make_catalog
from xray_lightning.data.inventory import take_inventory
from xray_lightning.data.pixels import PixelPlan
from xray_lightning.data.splits import SIDES, TEST, TRAIN, VAL
from xray_lightning.data.twins import Pair, find_twins
from xray_lightning.errors import XRayError

log = logging.getLogger(__name__)
LISTED = 50  # bad files that a message names


@dataclass(frozen=True)
class Collection:
    """The catalog, a thumbnail (32, 32) uint8 of each row, near-identical pairs, and bad files with what is wrong."""

    rows: list[Radiograph]
    thumbs: np.ndarray
    twins: list[Pair]
    bad: dict[str, str]


def collect(root: Path, entries: Sequence[Entry], cache_dir: Path, plan: PixelPlan | None = None) -> Collection:
    """Examines the files that are new or changed; where all are, makes the pixels of `plan` as well."""
    inventory = take_inventory(root, [entry.path for entry in entries], cache_dir, plan)
    whole = [i for i, facts in enumerate(inventory.facts) if not facts.problem]
    facts, thumbs = [inventory.facts[i] for i in whole], inventory.thumbs[whole]
    twins = find_twins([f.digest for f in facts], thumbs, cache_dir)
    bad = {e.path: f.problem for e, f in zip(entries, inventory.facts, strict=True) if f.problem}
    return Collection(make_catalog([entries[i] for i in whole], facts, twins), thumbs, twins, bad)


def report_bad(root: Path, collection: Collection, on_bad_image: Literal["stop", "skip"]) -> None:
    """Names all bad files at once. Raises XRayError unless they are to be skipped."""
    if not collection.bad:
        return
    total = len(collection.rows) + len(collection.bad)
    lines = [f"{printable(path)} {problem}" for path, problem in sorted(collection.bad.items())]
    more = [f"… and {len(lines) - LISTED} more"] * (len(lines) > LISTED)
    listed = "\n  ".join(lines[:LISTED] + more)
    message = f"{len(lines)} of {total} files in {root} cannot be used:\n  {listed}\n"
    if on_bad_image == "stop":
        raise XRayError(f"{message}Replace or remove them, or go on without them: dataset.on_bad_image=skip.")
    log.warning("%sThe run goes on without them (dataset.on_bad_image=skip).", message)


def refuse_leaks(found: Mapping[tuple[str, str], int], sides: Sequence[str], *, expected: bool, told: bool) -> None:
    """Raises XRayError where images of one group are on two sides, unless that is `expected` of the split or the
    user was `told` and wants it; then it warns."""
    if not found:
        return
    what = {(TRAIN, VAL): "validation", (TRAIN, TEST): "test", (VAL, TEST): "test"}
    lines = [
        f"{count} of {sides.count(b)} {what[a, b]} images have a patient, a copy or a twin in {a}"
        for (a, b), count in found.items()
    ]
    message = "This split leaks: " + "; ".join(lines) + "."
    if not (expected or told):
        raise XRayError(
            f"{message} Scores on it would be too good. Use dataset.split=grouped without dataset.split_file, or, if "
            "that is what you want to measure, dataset.on_leak=warn."
        )
    log.warning("%s Scores on it are too good.", message)


def refuse_empty_sides(root: Path, counts: Mapping[str, Mapping[str, int]]) -> None:
    """Raises XRayError where train, validation or test has no image of some class."""
    for side in SIDES:
        if lacking := [name for name, count in counts[side].items() if not count]:
            raise XRayError(
                f"{root}: no {side} image of {', '.join(lacking)}. The class has too few images, or too few "
                "patients, to be split, or dataset.split_file names none. Add images, change dataset.val_fraction, "
                "or leave the class out with dataset.classes=[…]."
            )
