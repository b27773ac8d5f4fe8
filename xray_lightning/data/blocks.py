"""Blocks of ID numbers: validation apart from training as an official test set is that was cut out in one piece."""

import logging
import re
from collections import defaultdict
from collections.abc import Sequence
from itertools import accumulate
from pathlib import PurePosixPath
from typing import NamedTuple

from xray_lightning.data.catalog import Radiograph

log = logging.getLogger(__name__)


class _Place(NamedTuple):
    """Where a row stands in the natural order: its series, and in it by number, person9 before person10."""

    series: str  # the patient's name, or where it is not known the file's, with # for each number
    numbers: tuple[int, ...]
    file_numbers: tuple[int, ...]
    path: str


def _place(row: Radiograph) -> _Place:
    stem = PurePosixPath(row.path).stem
    name = row.patient or stem
    return _Place(re.sub(r"\d+", "#", name), _numbers(name), _numbers(stem), row.path)


def _numbers(name: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", name)))


def block(groups: Sequence[Sequence[Radiograph]], *, wanted: int, count: int, seed: int) -> list[int]:
    """Positions of the groups in one of `count` disjoint blocks of about `wanted` images: the (seed mod count)-th.

    In each series a block is contiguous, and has about its share of the images; block 0 has the lowest numbers.
    A group stands where the first of its rows does. Where images are too few, blocks are smaller, and where
    groups are, there are fewer blocks: none is empty, or is all that there is. Of fewer than two none is chosen.
    A warning says where no name has a number to go by.
    """
    if len(groups) < 2:
        return []
    if not any(place.numbers or place.file_numbers for rows in groups for place in map(_place, rows)):
        log.warning("Blocks of ID numbers: no file name has one, so blocks go by the alphabet, which may mean nothing.")
    start, count = seed % count, min(count, len(groups))
    order = _abreast(groups)
    cuts = _cuts([len(groups[position]) for position in order], wanted, count)
    return order[cuts[start % count] : cuts[start % count + 1]]


def _abreast(groups: Sequence[Sequence[Radiograph]]) -> list[int]:
    """Positions of the groups from the first of each series to the last, all series abreast.

    What lies between two places of this order is contiguous in each series, and of each about the same share. A
    series of one group or a few has no such share, so where between its start and its end the groups of a series
    stand differs from one series to the next: small ones spread over all blocks.
    """
    places = [min(map(_place, rows)) for rows in groups]
    series: dict[str, list[int]] = defaultdict(list)
    for position in sorted(range(len(groups)), key=places.__getitem__):
        series[places[position].series].append(position)
    found: list[tuple[float, int, int]] = []
    for rank, members in enumerate(series.values()):
        shift = (rank + 0.5) / len(series)
        sizes = [len(groups[position]) for position in members]
        for position, size, end in zip(members, sizes, accumulate(sizes), strict=True):
            found.append(((end - size + shift * size) / sum(sizes), rank, position))
    return [position for _, _, position in sorted(found)]


def _cuts(sizes: Sequence[int], wanted: int, count: int) -> list[int]:
    """Where each of `count` blocks starts, and the last ends: as near to multiples of `wanted` as groups allow."""
    ends = [0, *accumulate(sizes)]
    step = min(wanted * count, ends[-1])  # of images, times count: whole numbers compare exactly
    cuts = [0]
    for number in range(1, count + 1):
        last = len(sizes) - max(count, 2) + number  # leaves a group to each later block, or to training
        off = {cut: abs(ends[cut] * count - number * step) for cut in range(cuts[-1] + 1, last + 1)}
        cuts.append(min(off, key=off.__getitem__))
    return cuts
