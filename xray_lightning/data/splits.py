"""Grouped, stratified splits: what belongs together stays together, and the counts are exact."""

import csv
import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from fractions import Fraction
from math import ceil
from pathlib import Path

from xray_lightning.data.catalog import Radiograph
from xray_lightning.errors import XRayError

TRAIN, VAL, TEST = "train", "val", "test"
UNUSED = "unused"  # an image outside the official test whose patient is in it, or one that a split file leaves out
SIDES = (TRAIN, VAL, TEST)


def split(
    rows: Sequence[Radiograph],
    *,
    val_fraction: float,
    test_fraction: float | None,
    seed: int,
    grouped: bool = True,
) -> list[str]:
    """The side of each row: train, val, test or unused.

    Without `test_fraction`, test is the official one, and `val_fraction` is of each class of the rest. With
    it, ceil(fraction) of each class goes to test and to validation. Depends on the seed and on the files'
    contents alone, not on their order. A group that holds several classes always trains. Unless `grouped`,
    each image is for itself, as in the plain stratified splits of most studies.
    """
    groups = [row.group for row in rows] if grouped else [row.path for row in rows]
    members: dict[str, list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        members[group].append(index)
    sides = [TRAIN] * len(rows)
    if test_fraction is None:
        official = {groups[i] for i, row in enumerate(rows) if row.official == TEST}
        for group in official:
            for i in members.pop(group):
                sides[i] = TEST if rows[i].official == TEST else UNUSED
    pools: dict[int, list[str]] = defaultdict(list)
    sizes: dict[int, int] = defaultdict(int)
    for group, indices in members.items():
        labels = {rows[i].label for i in indices}
        for i in indices:
            sizes[rows[i].label] += 1
        if len(labels) == 1:
            pools[labels.pop()].append(group)
    for label in sorted(pools):
        pool = sorted(pools[label], key=lambda group: (_shuffle_key(rows, members[group], seed), group))
        for side, fraction in ((TEST, test_fraction), (VAL, val_fraction)):
            wanted = _ceil_share(sizes[label], fraction or 0.0)
            chosen = _exact_choice([len(members[g]) for g in pool], wanted)
            for position in chosen:
                for i in members[pool[position]]:
                    sides[i] = side
            taken = set(chosen)
            pool = [g for position, g in enumerate(pool) if position not in taken]
    return sides


def _shuffle_key(rows: Sequence[Radiograph], indices: Sequence[int], seed: int) -> bytes:
    content = min(rows[i].digest for i in indices)
    return hashlib.blake2b(f"{seed}:{content}".encode(), digest_size=16).digest()


def _ceil_share(count: int, fraction: float) -> int:
    return ceil(count * Fraction(str(fraction)))  # 0.15 * 140 is 21.000000000000004 in floats


def _exact_choice(sizes: Sequence[int], wanted: int) -> list[int]:
    """Positions of groups with `wanted` images together, from the shortest prefix that allows it.

    Where no choice of whole groups gives the count, the nearest lower count that can be had is taken. Subset
    sums are kept as bits of integers: bit s of `reachable[n]` says that some of the first n groups sum to s.
    """
    reachable = [1]
    mask = (1 << (wanted + 1)) - 1
    for size in sizes:
        if reachable[-1] >> wanted & 1:
            break
        reachable.append(reachable[-1] | (reachable[-1] << size) & mask)
    remaining = reachable[-1].bit_length() - 1
    chosen = []
    for n in range(len(reachable) - 1, 0, -1):
        if not reachable[n - 1] >> remaining & 1:
            chosen.append(n - 1)
            remaining -= sizes[n - 1]
    return chosen


def images_tested(rows: Sequence[Radiograph], sides: Sequence[str]) -> list[str]:
    """The test images by content and class, which is how a checkpoint knows them again."""
    return sorted(f"{row.digest} {row.class_name}" for row, side in zip(rows, sides, strict=True) if side == TEST)


def known_test(rows: Sequence[Radiograph], images: Sequence[str]) -> list[str]:
    """Test for what `images_tested` named, as often as it did, and unused for all others."""
    left = Counter(images)
    sides = []
    for row in rows:
        image = f"{row.digest} {row.class_name}"
        sides.append(TEST if left[image] > 0 else UNUSED)
        left[image] -= 1
    return sides


def leaked(rows: Sequence[Radiograph], sides: Sequence[str]) -> int:
    """Test images whose group is in training or validation too."""
    elsewhere = {row.group for row, side in zip(rows, sides, strict=True) if side in (TRAIN, VAL)}
    return sum(side == TEST and row.group in elsewhere for row, side in zip(rows, sides, strict=True))


def leaks(rows: Sequence[Radiograph], sides: Sequence[str]) -> dict[tuple[str, str], int]:
    """Images of the second side whose group is on the first side too, for each two sides that share a group."""
    where: dict[str, Counter[str]] = defaultdict(Counter)
    for row, side in zip(rows, sides, strict=True):
        where[row.group][side] += 1
    shared: Counter[tuple[str, str]] = Counter()
    for counts in where.values():
        for position, one in enumerate(SIDES):
            for other in SIDES[position + 1 :]:
                if counts[one]:
                    shared[one, other] += counts[other]
    return {pair: count for pair, count in shared.items() if count}


def read_split(path: Path, rows: Sequence[Radiograph]) -> list[str]:
    """The side of each row from a CSV with `split` and `digest`, `path` or both, such as a run's catalog.csv.

    Files are known by their digest where the list has one, so they may have been renamed or moved. Rows that
    the list does not have are unused. Raises XRayError for a list that cannot be read, that names other sides
    or images that are not there.
    """
    classes = {row.class_name for row in rows}
    lines = [line for line in _read_lines(path) if line.get("class_name") in {*classes, None}]
    key = "digest" if lines and "digest" in lines[0] else "path"
    exact = {(line[key], line.get("path", "")): line["split"] for line in lines}
    any_copy = {line[key]: line["split"] for line in lines}
    named = [exact.get((getattr(row, key), row.path)) or any_copy.get(getattr(row, key)) for row in rows]
    present = {getattr(row, key) for row in rows}
    asked = {line[key]: line.get("path", line[key]) for line in lines if line["split"] != UNUSED}
    if lost := sorted(name for known, name in asked.items() if known not in present):
        raise XRayError(
            f"{len(lost)} of {len(asked)} images in {path} are not in the data set, or have other contents: "
            f"{', '.join(lost[:5])}{', …' * (len(lost) > 5)}. The split can be repeated on the same files only."
        )
    return [side or UNUSED for side in named]


def _read_lines(path: Path) -> list[dict[str, str]]:
    try:
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
