"""Images that two splits, two classes, two patients or two data sets share."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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
    """Pairs of identical and near-identical images of one data set: each copy with the first of its kind."""
    where: dict[str, list[int]] = defaultdict(list)
    for position, row in enumerate(collection.rows):
        where[row.digest].append(position)
    copies = [Shared(IDENTICAL, some[0], other, 1.0) for some in where.values() for other in some[1:]]
    twins = [Shared(NEAR, i, j, likeness) for a, b, likeness in collection.twins for i in where[a] for j in where[b]]
    return copies + twins


def between(a: Collection, b: Collection) -> list[Shared]:
    """Pairs of images that two data sets share, positions in each."""
    where: dict[str, list[int]] = defaultdict(list)
    for position, row in enumerate(b.rows):
        where[row.digest].append(position)
    copies = [Shared(IDENTICAL, i, j, 1.0) for i, row in enumerate(a.rows) for j in where[row.digest]]
    known = {(pair.a, pair.b) for pair in copies}
    alike = pairs_above(details(a.thumbs), details(b.thumbs))
    return copies + [Shared(NEAR, i, j, likeness) for i, j, likeness in alike if (i, j) not in known]


def across_sides(rows: Sequence[Radiograph], sides: Sequence[str], pairs: Sequence[Shared]) -> list[Shared]:
    """Those pairs, and pairs of one patient, that lie on two sides of the split; unused images are on none."""

    def parted(a: int, b: int) -> bool:
        return sides[a] != sides[b] and UNUSED not in (sides[a], sides[b])

    return [pair for pair in pairs if parted(pair.a, pair.b)] + list(_parted_patients(rows, sides))


def _parted_patients(rows: Sequence[Radiograph], sides: Sequence[str]) -> Iterator[Shared]:
    """One image of each patient on each side, paired with the first side's."""
    seen: dict[str, dict[str, int]] = defaultdict(dict)
    for position, (row, side) in enumerate(zip(rows, sides, strict=True)):
        if row.patient and side != UNUSED:
            seen[row.patient].setdefault(side, position)
    for places in seen.values():
        first, *others = places.values()
        yield from (Shared(PATIENT, first, other, None) for other in others)


def across_classes(rows: Sequence[Radiograph], pairs: Sequence[Shared]) -> list[Shared]:
    return [pair for pair in pairs if rows[pair.a].label != rows[pair.b].label]


def across_patients(rows: Sequence[Radiograph], pairs: Sequence[Shared]) -> list[Shared]:
    """Pairs whose file names tell two different patients."""
    return [p for p in pairs if rows[p.a].patient and rows[p.b].patient and rows[p.a].patient != rows[p.b].patient]
