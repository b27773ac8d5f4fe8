"""Pairs that parts of a data set, or two data sets, share: compared with a look at every pair there is."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xray_lightning.data.catalog import Radiograph, link_groups
from xray_lightning.data.collection import Collection
from xray_lightning.data.examine import THUMB
from xray_lightning.data.overlap import (
    IDENTICAL,
    NEAR,
    PATIENT,
    Shared,
    across_classes,
    across_patients,
    across_sides,
    between,
    summary,
    within,
)
from xray_lightning.data.splits import SIDES, TEST, TRAIN, UNUSED, VAL, leaks
from xray_lightning.data.twins import THRESHOLD, Pair, details

Image = tuple[str, int, str, str]  # digest, label, patient, side
Place = tuple[int, int]


def catalog(images: Sequence[Image], twins: Sequence[Pair] = (), thumbs: np.ndarray | None = None) -> Collection:
    groups = link_groups([patient for _, _, patient, _ in images], [digest for digest, *_ in images], twins)
    rows = [
        Radiograph(f"{n}.png", label, f"class{label}", patient, "", "", "", "PNG", "L", 12, 12, 1, digest, group)
        for n, ((digest, label, patient, _), group) in enumerate(zip(images, groups, strict=True))
    ]
    return Collection(
        rows, np.zeros((len(rows), THUMB, THUMB), np.uint8) if thumbs is None else thumbs, list(twins), {}
    )


@st.composite
def catalogs(draw: st.DrawFn) -> tuple[Collection, list[str]]:
    """Up to 25 images of a few contents, of which some are twins, with and without patients and sides."""
    contents = [f"d{n}" for n in range(draw(st.integers(1, 12)))]
    image = st.tuples(
        st.sampled_from(contents),
        st.integers(0, 2),
        st.sampled_from(["", "p1", "p2", "p3"]),
        st.sampled_from([*SIDES, UNUSED]),
    )
    images = draw(st.lists(image, max_size=25))
    pairs = list(combinations(sorted({digest for digest, *_ in images}), 2))
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True, max_size=6)) if pairs else []
    return catalog(images, [(a, b, 0.95) for a, b in chosen]), [side for *_, side in images]


def places(pairs: Sequence[Shared], kind: str) -> list[Place]:
    """Where pairs of one kind are, lower position first; none may be listed twice."""
    found = [(min(pair.a, pair.b), max(pair.a, pair.b)) for pair in pairs if pair.kind == kind]
    assert len(found) == len(set(found))
    return found


def every(collection: Collection, told: Sequence[str], kind: str) -> set[Place]:
    """All pairs of copies, or of twins, or of one patient, of which two different things are told."""
    rows, twins = collection.rows, {frozenset(pair[:2]) for pair in collection.twins}

    def shared(i: int, j: int) -> bool:
        a, b = rows[i], rows[j]
        if kind == PATIENT:
            return a.patient == b.patient != ""
        return a.digest == b.digest if kind == IDENTICAL else {a.digest, b.digest} in twins

    apart = ((i, j) for i, j in combinations(range(len(rows)), 2) if told[i] and told[j] and told[i] != told[j])
    return {(i, j) for i, j in apart if shared(i, j)}


def named(collection: Collection, told: Sequence[str], pairs: Iterable[Place], kind: str) -> dict[str, set[str]]:
    """What is told of the images in the pairs of each content, or of each patient."""
    found: dict[str, set[str]] = {}
    for pair in pairs:
        row = collection.rows[pair[0]]
        found.setdefault(row.patient if kind == PATIENT else row.digest, set()).update(told[i] for i in pair)
    return found


def check(collection: Collection, told: Sequence[str], pairs: Sequence[Shared], *kinds: str) -> None:
    """All twins are listed; of copies, and of a patient's images, as many as show all that is told of them."""
    assert {pair.kind for pair in pairs} <= {NEAR, *kinds}
    assert set(places(pairs, NEAR)) == every(collection, told, NEAR)
    for kind in kinds:
        listed, there = places(pairs, kind), every(collection, told, kind)
        assert set(listed) <= there
        assert named(collection, told, listed, kind) == named(collection, told, there, kind)


@given(catalogs())
def test_copies_and_twins_of_one_data_set(drawn: tuple[Collection, list[str]]) -> None:
    collection, _ = drawn
    pairs, digests = within(collection), Counter(row.digest for row in collection.rows)
    first = {row.digest: i for i, row in reversed(list(enumerate(collection.rows)))}
    copies = {(first[row.digest], i) for i, row in enumerate(collection.rows) if first[row.digest] != i}
    assert set(places(pairs, IDENTICAL)) == copies
    assert len(places(pairs, NEAR)) == sum(digests[a] * digests[b] for a, b, _ in collection.twins)
    assert {pair.likeness for pair in pairs} <= {1.0, 0.95}


@given(catalogs())
def test_pairs_across_sides_classes_and_patients(drawn: tuple[Collection, list[str]]) -> None:
    collection, sides = drawn
    used = [side if side != UNUSED else "" for side in sides]
    check(collection, used, across_sides(collection, sides), IDENTICAL, PATIENT)
    check(collection, [row.class_name for row in collection.rows], across_classes(collection), IDENTICAL)
    check(collection, [row.patient for row in collection.rows], across_patients(collection), IDENTICAL)


@given(catalogs())
def test_a_pair_across_sides_is_what_training_calls_a_leak(drawn: tuple[Collection, list[str]]) -> None:
    collection, sides = drawn
    pairs = across_sides(collection, sides)
    assert {frozenset((sides[p.a], sides[p.b])) for p in pairs} <= {
        frozenset(two) for two in leaks(collection.rows, sides)
    }


@pytest.mark.parametrize(
    ("across", "expected"),
    [("sides", [(1, 2)]), ("patients", [(1, 2)]), ("classes", [(0, 2)])],
)
def test_a_first_copy_that_tells_nothing_hides_no_others(across: str, expected: list[Place]) -> None:
    images = [("d", 0, "", UNUSED), ("d", 0, "p1", TRAIN), ("d", 1, "p2", TEST)]
    collection, sides = catalog(images), [side for *_, side in images]
    pairs = {
        "sides": across_sides(collection, sides),
        "patients": across_patients(collection),
        "classes": across_classes(collection),
    }
    assert places(pairs[across], IDENTICAL) == expected


def test_the_summary_of_a_small_catalog() -> None:
    images = [
        ("a", 0, "p1", TRAIN),
        ("a", 1, "p2", VAL),
        ("b", 0, "p1", TEST),
        ("c", 0, "", TRAIN),
        ("c", 0, "", TRAIN),
        ("e", 1, "", UNUSED),
    ]
    collection = catalog(images, [("b", "c", 0.93)])
    assert summary(collection, [side for *_, side in images]) == {
        "pairs": {IDENTICAL: 2, NEAR: 2},
        "two splits": {
            IDENTICAL: 1,
            NEAR: 2,
            PATIENT: 1,
            "which": {"train and val": 1, "test and train": 3},
        },
        "two classes": {IDENTICAL: 1, NEAR: 0},
        "two patients": {IDENTICAL: 1, NEAR: 0},
        "groups": 2,
        "largest group": 5,
        "patients": 2,
        "without a patient": 3,
    }


def films(*numbers: int, shift: int = 0) -> np.ndarray:
    """Random thumbnails, one for each number, made brighter or darker."""
    made = [np.random.default_rng(n).integers(40, 216, (THUMB, THUMB)) + shift for n in numbers]
    return np.array(made, dtype=np.uint8).reshape(-1, THUMB, THUMB)


@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 1)), max_size=12),
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 1)), max_size=12),
)
def test_what_two_data_sets_share(ours: list[tuple[int, int]], theirs: list[tuple[int, int]]) -> None:
    """Of each film there are two versions, an original and a brighter one."""
    a, b = (
        catalog(
            [(f"{film}/{version}", 0, "", TRAIN) for film, version in drawn],
            thumbs=np.concatenate([films(), *(films(film, shift=30 * version) for film, version in drawn)]),
        )
        for drawn in (ours, theirs)
    )
    pairs = between(a, b)
    everywhere = list(product(range(len(ours)), range(len(theirs))))
    copies = {(i, j) for i, j in everywhere if ours[i] == theirs[j]}
    alike = {(i, j) for i, j in everywhere if ours[i][0] == theirs[j][0]} - copies
    assert sorted((p.a, p.b) for p in pairs if p.kind == IDENTICAL) == sorted(copies)
    assert sorted((p.a, p.b) for p in pairs if p.kind == NEAR) == sorted(alike)
    likeness = details(a.thumbs) @ details(b.thumbs).T
    for pair in pairs:
        assert pair.likeness == pytest.approx(likeness[pair.a, pair.b], abs=1e-5) and pair.likeness >= THRESHOLD
