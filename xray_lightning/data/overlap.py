"""Images that two splits, two classes, two patients or two data sets share."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from xray_lightning.data.catalog import Radiograph
from xray_lightning.data.collection import Collection
from xray_lightning.data.splits import UNUSED
from xray_lightning.data.twins import details, pairs_above

IDENTICAL, NEAR, PATIENT = "identical", "near-identical", "same patient"


@dataclass(frozen=True)
class Shared:
    """Two rows of catalogs that show one thing; `likeness` is 1 for identical files, None for patients."""

    kind: str
    a: int
    b: int
    likeness: float | None


def within(collection: Collection) -> list[Shared]:
    """Pairs of identical and near-identical images of one data set, as many as join all that are alike: each copy
    is paired with the first of its kind."""
    return _pairs(collection, range(len(collection.rows)))


def _pairs(collection: Collection, positions: Sequence[int]) -> list[Shared]:
    where: dict[str, list[int]] = defaultdict(list)
    for position in positions:
        where[collection.rows[position].digest].append(position)
    copies = [Shared(IDENTICAL, some[0], other, 1.0) for some in where.values() for other in some[1:]]
    twins = [
        Shared(NEAR, i, j, likeness)
        for a, b, likeness in collection.twins
        for i in where.get(a, ())
        for j in where.get(b, ())
    ]
    return copies + twins


def across_sides(collection: Collection, sides: Sequence[str]) -> list[Shared]:
    """Pairs that lie on two sides of the split, those of one patient too; unused images are on no side."""
    told = ["" if side == UNUSED else side for side in sides]
    return [*_apart(collection, told), *_parted_patients(collection.rows, told)]


def across_classes(collection: Collection) -> list[Shared]:
    return _apart(collection, [row.class_name for row in collection.rows])


def across_patients(collection: Collection) -> list[Shared]:
    """Pairs whose file names tell two different patients."""
    return _apart(collection, [row.patient for row in collection.rows])


def _apart(collection: Collection, told: Sequence[str]) -> list[Shared]:
    """Pairs of which different things are told. Images of which nothing is told are left out from the start:
    as the first of its kind, such a one would hide that two copies of it differ."""
    known = [position for position, what in enumerate(told) if what]
    return [pair for pair in _pairs(collection, known) if told[pair.a] != told[pair.b]]


def _parted_patients(rows: Sequence[Radiograph], told: Sequence[str]) -> Iterator[Shared]:
    """One image of each patient on each side, paired with the first side's."""
    seen: dict[str, dict[str, int]] = defaultdict(dict)
    for position, (row, side) in enumerate(zip(rows, told, strict=True)):
        if row.patient and side:
            seen[row.patient].setdefault(side, position)
    for places in seen.values():
        first, *others = places.values()
        yield from (Shared(PATIENT, first, other, None) for other in others)


def between(a: Collection, b: Collection) -> list[Shared]:
    """Pairs of images that two data sets share, positions in each."""
    where: dict[str, list[int]] = defaultdict(list)
    for position, row in enumerate(b.rows):
        where[row.digest].append(position)
    copies = [Shared(IDENTICAL, i, j, 1.0) for i, row in enumerate(a.rows) for j in where.get(row.digest, ())]
    known = {(pair.a, pair.b) for pair in copies}
    alike = pairs_above(details(a.thumbs), details(b.thumbs))
    return copies + [Shared(NEAR, i, j, likeness) for i, j, likeness in alike if (i, j) not in known]


def summary(collection: Collection, sides: Sequence[str]) -> dict[str, Any]:
    """Pairs of each kind in the data set and across its parts, and how its images hang together."""

    def of_each(pairs: Sequence[Shared], *kinds: str) -> dict[str, int]:
        found = Counter(pair.kind for pair in pairs)
        return {kind: found[kind] for kind in (IDENTICAL, NEAR, *kinds)}

    parted = across_sides(collection, sides)
    which = Counter(" and ".join(sorted((sides[p.a], sides[p.b]))) for p in parted)
    groups = Counter(row.group for row in collection.rows)
    return {
        "pairs": of_each(within(collection)),
        "two splits": of_each(parted, PATIENT) | {"which": dict(which)},
        "two classes": of_each(across_classes(collection)),
        "two patients": of_each(across_patients(collection)),
        "groups": len(groups),
        "largest group": max(groups.values()),
        "patients": len({row.patient for row in collection.rows if row.patient}),
        "without a patient": sum(not row.patient for row in collection.rows),
    }
