"""Grouped, stratified splits: what belongs together stays together, and the counts are exact."""

import hashlib
import logging
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import ceil, floor

from xray_lightning.data.blocks import block
from xray_lightning.data.catalog import Radiograph

log = logging.getLogger(__name__)
TRAIN, VAL, TEST = "train", "val", "test"
ALL = "all"  # of other images: what a checkpoint of another data set is scored on
UNUSED = "unused"  # an image outside the official test whose patient is in it, or one that a split file leaves out
SIDES = (TRAIN, VAL, TEST)


def split(
    rows: Sequence[Radiograph],
    *,
    val_fraction: float,
    test_fraction: float | None,
    seed: int,
    grouped: bool = True,
    blocks: bool = False,
) -> list[str]:
    """The side of each row: train, val, test or unused.

    Without `test_fraction`, test is the official one, and `val_fraction` is of each class of the rest. With
    it, ceil(fraction) of each class goes to test and to validation. Depends on the seed and on the files'
    contents alone, not on their order. A group that holds several classes always trains. Unless `grouped`,
    each image is for itself, as in the plain stratified splits of most studies.

    With `blocks`, validation is of each class the (seed mod K)-th of K blocks of ID numbers, which names tell (see
    `block`): as many as there is room for, with the official test floor(1 / val_fraction). Its count is then as near
    as whole groups allow.
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
    names = {row.label: row.class_name for row in rows}
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
            if side == VAL and blocks:
                own = [[rows[i] for i in members[group]] for group in pool]
                chosen = block(own, wanted=wanted, count=_room(val_fraction, test_fraction), seed=seed)
            else:
                chosen = _choice([len(members[g]) for g in pool], wanted, names[label], side)
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


def _room(val_fraction: float, test_fraction: float | None) -> int:
    """How many validation sets fit beside the test set."""
    return max(1, floor((1 - Fraction(str(test_fraction or 0))) / Fraction(str(val_fraction))))


def _choice(sizes: Sequence[int], wanted: int, name: str, side: str) -> list[int]:
    chosen = _exact_choice(sizes, wanted)
    if (found := sum(sizes[position] for position in chosen)) < wanted:
        log.warning("%s: %d %s images instead of %d, which whole groups do not give", name, found, side, wanted)
    return chosen


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


def images_of(side: str, rows: Sequence[Radiograph], sides: Sequence[str]) -> list[str]:
    """The images of one side by content and class, which is how a checkpoint knows them again."""
    return sorted(f"{row.digest} {row.class_name}" for row, where in zip(rows, sides, strict=True) if where == side)


def known_test(rows: Sequence[Radiograph], images: Sequence[str]) -> list[str]:
    """Test for what `images_of` named, as often as it did, and unused for all others."""
    left = Counter(images)
    sides = []
    for row in rows:
        image = f"{row.digest} {row.class_name}"
        sides.append(TEST if left[image] > 0 else UNUSED)
        left[image] -= 1
    return sides


def leaked(rows: Sequence[Radiograph], sides: Sequence[str]) -> dict[str, int]:
    """How many validation images have a group that trains too, and test images one that trains or validates."""
    groups: dict[str, set[str]] = defaultdict(set)
    for row, side in zip(rows, sides, strict=True):
        groups[side].add(row.group)
    seen = {VAL: groups[TRAIN], TEST: groups[TRAIN] | groups[VAL]}
    counts = Counter(s for row, s in zip(rows, sides, strict=True) if s in seen and row.group in seen[s])
    return dict(sorted(counts.items()))


def leak_note(leaked: Mapping[str, int]) -> str:
    """What `leaked` means for whoever reads a score; empty where nothing leaks."""
    counts = " and ".join(f"{count} {side}" for side, count in leaked.items())
    return f"leaks: of {counts} images a patient, a copy or a twin was trained or chosen on" if leaked else ""


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
