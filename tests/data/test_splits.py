"""Properties that hold for the split of any catalog."""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xray_lightning.data.catalog import Radiograph, link_groups
from xray_lightning.data.splits import TEST, TRAIN, UNUSED, VAL, leaks, split

MakeRow = Callable[..., Radiograph]
FRACTIONS = st.sampled_from([0.01, 0.05, 0.1, 0.15, 0.2, 0.25, 0.333, 0.5])


@st.composite
def catalogs(draw: st.DrawFn, official: bool = False) -> list[Radiograph]:
    """Patients with several images, copies, twins, and now and then one of them in two classes."""
    count = draw(st.integers(0, 40))
    patient = st.integers(0, draw(st.integers(1, 60)))
    content = st.integers(0, draw(st.integers(1, 200)))
    mixed = draw(st.booleans())
    labels = draw(st.lists(st.integers(0, 2), min_size=count, max_size=count))
    owners = ["" if mixed else f"c{label}-" for label in labels]
    patients = [f"{owner}p{number}" if (number := draw(patient)) else "" for owner in owners]
    digests = [f"{owner}d{draw(content)}" for owner in owners]
    pairs = draw(st.lists(st.tuples(content, content), max_size=5))
    twins = [(f"{owners[0]}d{a}", f"{owners[0]}d{b}", 0.95) for a, b in pairs if count]
    sides = [draw(st.sampled_from([TRAIN, TEST])) if official else "" for _ in labels]
    groups = link_groups(patients, digests, twins)
    return [
        Radiograph(f"{n}.png", label, f"class{label}", person, "", side, "", "PNG", "L", 12, 12, 1, digest, group)
        for n, (label, person, side, digest, group) in enumerate(
            zip(labels, patients, sides, digests, groups, strict=True)
        )
    ]


def grouped(rows: Sequence[Radiograph]) -> list[set[int]]:
    """The positions of each group."""
    return [{i for i, row in enumerate(rows) if row.group == group} for group in {row.group for row in rows}]


def most(sizes: Sequence[int], wanted: int) -> int:
    """The largest number of images, at most `wanted`, that whole groups of these sizes can give."""
    sums = {0}
    for size in sizes:
        sums |= {s + size for s in sums if s + size <= wanted}
    return max(sums)


def share(count: int, fraction: float) -> int:
    return ceil(count * Fraction(str(fraction)))


def by_path(rows: Sequence[Radiograph], sides: Sequence[str]) -> dict[str, str]:
    return {row.path: side for row, side in zip(rows, sides, strict=True)}


@settings(deadline=None)
@given(catalogs(), FRACTIONS, FRACTIONS, st.integers(0, 5))
def test_no_group_is_on_two_sides(rows: list[Radiograph], val: float, test: float, seed: int) -> None:
    sides = split(rows, val_fraction=val, test_fraction=test, seed=seed)
    assert len(sides) == len(rows) and set(sides) <= {TRAIN, VAL, TEST}
    for members in grouped(rows):
        assert len({sides[i] for i in members}) == 1
    assert leaks(rows, sides) == {}


@settings(deadline=None)
@given(catalogs(), FRACTIONS, FRACTIONS, st.integers(0, 5))
def test_counts_are_exact_or_the_nearest_below_that_whole_groups_allow(
    rows: list[Radiograph], val: float, test: float, seed: int
) -> None:
    sides = split(rows, val_fraction=val, test_fraction=test, seed=seed)
    for label in {row.label for row in rows}:
        pure = [m for m in grouped(rows) if {rows[i].label for i in m} == {label}]
        total = sum(row.label == label for row in rows)
        counts = Counter(side for side, row in zip(sides, rows, strict=True) if row.label == label)
        assert counts[TEST] == most([len(m) for m in pure], share(total, test))
        left = [len(m) for m in pure if sides[min(m)] != TEST]
        assert counts[VAL] == most(left, share(total, val))


@settings(deadline=None)
@given(catalogs(), FRACTIONS, st.integers(0, 5))
def test_groups_of_two_classes_train(rows: list[Radiograph], fraction: float, seed: int) -> None:
    sides = split(rows, val_fraction=fraction, test_fraction=fraction, seed=seed)
    for members in grouped(rows):
        if len({rows[i].label for i in members}) > 1:
            assert {sides[i] for i in members} == {TRAIN}


@settings(deadline=None)
@given(catalogs(), FRACTIONS, st.integers(0, 5), st.booleans(), st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(
    rows: list[Radiograph], fraction: float, seed: int, whole_groups: bool, shuffler: random.Random
) -> None:
    shuffled = shuffler.sample(rows, len(rows))
    once, again = (
        by_path(r, split(r, val_fraction=fraction, test_fraction=fraction, seed=seed, grouped=whole_groups))
        for r in (rows, shuffled)
    )
    assert once == again


@settings(deadline=None)
@given(catalogs(), FRACTIONS, st.integers(0, 5), st.randoms(use_true_random=False))
def test_names_and_places_of_files_do_not_matter(
    rows: list[Radiograph], fraction: float, seed: int, shuffler: random.Random
) -> None:
    names = [row.path for row in shuffler.sample(rows, len(rows))]
    renamed = [replace(row, path=f"elsewhere/{name}") for row, name in zip(rows, names, strict=True)]
    one, two = (split(r, val_fraction=fraction, test_fraction=fraction, seed=seed) for r in (rows, renamed))
    assert one == two
    one, two = (
        split(r, val_fraction=fraction, test_fraction=fraction, seed=seed, grouped=False) for r in (rows, renamed)
    )
    contents = [(row.digest, row.label) for row in rows]  # of identical files any may be chosen
    assert Counter(zip(contents, one, strict=True)) == Counter(zip(contents, two, strict=True))


@settings(deadline=None)
@given(catalogs(), FRACTIONS, FRACTIONS, st.integers(0, 5))
def test_without_groups_every_count_is_exact(rows: list[Radiograph], val: float, test: float, seed: int) -> None:
    sides = split(rows, val_fraction=val, test_fraction=test, seed=seed, grouped=False)
    counts = Counter((row.label, side) for row, side in zip(rows, sides, strict=True))
    for label, total in Counter(row.label for row in rows).items():
        assert counts[label, TEST] == share(total, test)
        assert counts[label, VAL] == min(share(total, val), total - share(total, test))
        assert counts[label, UNUSED] == 0


@settings(deadline=None)
@given(catalogs(official=True), FRACTIONS, st.integers(0, 5))
def test_without_groups_the_official_test_takes_nothing_else_away(
    rows: list[Radiograph], val: float, seed: int
) -> None:
    sides = split(rows, val_fraction=val, test_fraction=None, seed=seed, grouped=False)
    assert [side == TEST for side in sides] == [row.official == TEST for row in rows]
    left = Counter(row.label for row in rows if row.official != TEST)
    found = Counter(row.label for row, side in zip(rows, sides, strict=True) if side == VAL)
    assert found == Counter({label: share(total, val) for label, total in left.items()})


@settings(deadline=None)
@given(catalogs(), st.data())
def test_leaks_are_images_whose_group_is_on_a_side_before_theirs(rows: list[Radiograph], data: st.DataObject) -> None:
    side = st.sampled_from([TRAIN, VAL, TEST, UNUSED])
    sides = data.draw(st.lists(side, min_size=len(rows), max_size=len(rows)))
    expected = {}
    for first, second in ((TRAIN, VAL), (TRAIN, TEST), (VAL, TEST)):
        known = {row.group for row, s in zip(rows, sides, strict=True) if s == first}
        shared = [row.path for row, s in zip(rows, sides, strict=True) if s == second and row.group in known]
        if shared:
            expected[first, second] = len(shared)
    assert leaks(rows, sides) == expected


@settings(deadline=None)
@given(catalogs(official=True), FRACTIONS, st.integers(0, 5))
def test_the_official_test_is_kept_whole_and_its_patients_train_nothing(
    rows: list[Radiograph], val: float, seed: int
) -> None:
    sides = split(rows, val_fraction=val, test_fraction=None, seed=seed)
    for members in grouped(rows):
        tested = any(rows[i].official == "test" for i in members)
        for i in members:
            if rows[i].official == "test":
                assert sides[i] == TEST
            else:
                assert (sides[i] == UNUSED) == tested
        assert tested or len({sides[i] for i in members}) == 1


@settings(deadline=None)
@given(catalogs(official=True), FRACTIONS, st.integers(0, 5))
def test_validation_is_a_share_of_what_the_official_test_leaves(rows: list[Radiograph], val: float, seed: int) -> None:
    sides = split(rows, val_fraction=val, test_fraction=None, seed=seed)
    left = [i for i, side in enumerate(sides) if side in (TRAIN, VAL)]
    for label in {rows[i].label for i in left}:
        pure = [m for m in grouped(rows) if min(m) in left and {rows[i].label for i in m} == {label}]
        total = sum(rows[i].label == label for i in left)
        found = sum(rows[i].label == label and sides[i] == VAL for i in left)
        assert found == most([len(m) for m in pure], share(total, val))


def test_the_full_covid_database_gives_3176_test_images(make_row: MakeRow) -> None:
    sizes = (3616, 10192, 6012, 1345)
    rows = [make_row(f"{label}/{n}", label) for label, size in enumerate(sizes) for n in range(size)]
    sides = split(rows, val_fraction=0.15, test_fraction=0.15, seed=0)
    counts = Counter((row.label, side) for row, side in zip(rows, sides, strict=True))
    expected = (543, 1529, 902, 202)
    assert tuple(counts[label, TEST] for label in range(4)) == expected
    assert tuple(counts[label, VAL] for label in range(4)) == expected
    assert sum(expected) == 3176


@pytest.mark.parametrize(
    ("count", "fraction", "expected"), [(140, 0.15, 21), (141, 0.15, 22), (100, 0.07, 7), (1, 0.15, 1)]
)
def test_shares_are_rounded_up_without_float_error(
    make_row: MakeRow, count: int, fraction: float, expected: int
) -> None:
    rows = [make_row(f"{n}") for n in range(count)]
    sides = split(rows, val_fraction=fraction, test_fraction=fraction, seed=0)
    assert sides.count(TEST) == expected


def test_single_images_fill_up_what_large_patients_leave_open(make_row: MakeRow) -> None:
    large = [make_row(f"{p}-{k}", group=f"p{p}") for p in range(12) for k in range(7)]
    single = [make_row(f"s{n}") for n in range(16)]
    for seed in range(10):
        sides = split([*large, *single], val_fraction=0.15, test_fraction=0.15, seed=seed)
        assert (sides.count(TEST), sides.count(VAL)) == (15, 15)


def test_a_train_image_of_a_tested_group_is_unused(make_row: MakeRow) -> None:
    rows = [
        make_row("test/a", group="p1", official="test"),
        make_row("train/a", group="p1", official="train"),
        make_row("train/b", group="p1", official="train"),
        make_row("train/c", group="p3", official="train"),
    ]
    assert split(rows, val_fraction=0.01, test_fraction=None, seed=0) == [TEST, UNUSED, UNUSED, VAL]


def test_identical_files_may_part_only_without_groups(make_row: MakeRow) -> None:
    rows = [make_row(f"{n}", digest=f"d{n // 2}") for n in range(40)]
    sides = split(rows, val_fraction=0.2, test_fraction=0.2, seed=0)
    apart = [split(rows, val_fraction=0.1, test_fraction=0.075, seed=s, grouped=False) for s in range(5)]
    assert leaks(rows, sides) == {}
    assert all(leaks(rows, parted) for parted in apart)


def test_groups_of_one_image_are_split_like_no_groups(make_row: MakeRow) -> None:
    rows = [make_row(f"{n}", label=n % 3) for n in range(90)]
    one, two = (split(rows, val_fraction=0.2, test_fraction=0.15, seed=1, grouped=g) for g in (True, False))
    assert one == two


def test_the_seed_fixes_the_split_and_another_changes_it(make_row: MakeRow) -> None:
    rows = [make_row(f"{n}", label=n % 2) for n in range(60)]
    splits = [tuple(split(rows, val_fraction=0.2, test_fraction=0.2, seed=s)) for s in (0, 0, 1, 2)]
    assert splits[0] == splits[1]
    assert len(set(splits)) == 3


def test_every_image_is_tested_under_some_seed(make_row: MakeRow) -> None:
    rows = [make_row(f"{n}", group=f"p{n // 2}") for n in range(20)]
    tested = {
        row.path
        for seed in range(60)
        for row, side in zip(rows, split(rows, val_fraction=0.2, test_fraction=0.2, seed=seed), strict=True)
        if side == TEST
    }
    assert tested == {row.path for row in rows}


def test_a_class_is_split_alike_with_or_without_the_others(make_row: MakeRow) -> None:
    rows = [make_row(f"{n}", label=n % 3) for n in range(90)]
    alone = [row for row in rows if row.label == 1]
    whole = by_path(rows, split(rows, val_fraction=0.2, test_fraction=0.2, seed=0))
    part = by_path(alone, split(alone, val_fraction=0.2, test_fraction=0.2, seed=0))
    assert part == {path: whole[path] for path in part}
