"""Validation as a block of ID numbers: what holds for any catalog, and where a block lies."""

import random
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import combinations
from math import ceil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xray_lightning.data.catalog import Radiograph, link_groups
from xray_lightning.data.covid import CovidDataModule
from xray_lightning.data.pneumonia import PneumoniaDataModule
from xray_lightning.data.splits import TEST, TRAIN, VAL, leaks, split

MakeRow = Callable[..., Radiograph]
FRACTIONS = st.sampled_from([0.05, 0.1, 0.15, 0.2, 0.25, 0.333, 0.5, 0.7])
NAMES = (("IM-{:04d}", "NORMAL2-IM-{:04d}"), ("person{}_bacteria", "person{}_virus", "scan{}", "scan{}b"))


@st.composite
def catalogs(draw: st.DrawFn, official: bool = False, mixed: bool = False) -> list[Radiograph]:
    """Patients of several numbered series, large and small, with copies across patients."""
    rows = []
    for label, names in enumerate(NAMES):
        for name in draw(st.lists(st.sampled_from(names), unique=True)):
            numbers = draw(st.lists(st.integers(0, 120), max_size=25, unique=True))
            for number in numbers:
                patient, side = name.format(number), draw(st.sampled_from(["", TEST])) if official else ""
                for image in range(draw(st.integers(1, 4))):
                    content = f"{'' if mixed else label}-{draw(st.integers(0, 400))}"
                    path = f"{label}/{patient}_{image}.png"
                    known = "" if name.startswith("scan") else patient
                    rows.append((path, label, known, side, content))
    groups = link_groups([row[2] for row in rows], [row[4] for row in rows], [])
    return [
        Radiograph(path, label, f"class{label}", patient, "", side, "", "PNG", "L", 12, 12, 1, digest, group)
        for (path, label, patient, side, digest), group in zip(rows, groups, strict=True)
    ]


def name_of(row: Radiograph) -> str:
    return row.patient or Path(row.path).stem


def series_of(row: Radiograph) -> str:
    return re.sub(r"\d+", "#", name_of(row))


def natural(row: Radiograph) -> tuple[object, ...]:
    """Series, then numbers: names as people sort them."""
    digits = [[int(n) for n in re.findall(r"\d+", name)] for name in (name_of(row), Path(row.path).stem)]
    return series_of(row), *digits, row.path


def placed(rows: Sequence[Radiograph], sides: Sequence[str], label: int) -> dict[str, list[tuple[str, int]]]:
    """Side and size of each group of one class that can train or validate, in order, by the series it starts in."""
    members: dict[str, list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        members[row.group].append(i)
    pure = [
        sorted(m, key=lambda i: natural(rows[i]))
        for m in members.values()
        if {rows[i].label for i in m} == {label} and sides[m[0]] in (TRAIN, VAL)
    ]
    found = defaultdict(list)
    for m in sorted(pure, key=lambda m: natural(rows[m[0]])):
        found[series_of(rows[m[0]])].append((sides[m[0]], len(m)))
    return found


def images(groups: Sequence[tuple[str, int]], side: str | None = None) -> int:
    return sum(size for s, size in groups if side in (None, s))


def block_of(rows: Sequence[Radiograph], seed: int, val: float, test: float | None = None, **own: bool) -> list[str]:
    return split(rows, val_fraction=val, test_fraction=test, seed=seed, blocks=True, **own)


def count_of(val: float) -> int:
    return int(1 / Fraction(str(val)))


@settings(deadline=None)
@given(catalogs(official=True, mixed=True), FRACTIONS, st.sampled_from([None, 0.15, 0.3]), st.integers(0, 12))
def test_a_block_is_contiguous_in_each_series(
    rows: list[Radiograph], val: float, test: float | None, seed: int
) -> None:
    sides = block_of(rows, seed, val, test)
    for label in range(len(NAMES)):
        for groups in placed(rows, sides, label).values():
            told = "".join("v" if side == VAL else "t" for side, _ in groups)
            assert re.fullmatch("t*v*t*", told)


@settings(deadline=None)
@given(catalogs(official=True, mixed=True), FRACTIONS, st.sampled_from([None, 0.15, 0.3]), st.integers(0, 12))
def test_groups_stay_whole_and_those_of_two_classes_train(
    rows: list[Radiograph], val: float, test: float | None, seed: int
) -> None:
    sides = block_of(rows, seed, val, test)
    assert leaks(rows, sides) == {}
    for group in {row.group for row in rows}:
        own = [i for i, row in enumerate(rows) if row.group == group]
        if len({rows[i].label for i in own}) > 1:
            assert VAL not in {sides[i] for i in own}


@settings(deadline=None)
@given(catalogs(official=True, mixed=True), FRACTIONS, st.sampled_from([None, 0.15]), st.integers(0, 12))
def test_only_validation_differs_from_the_random_split(
    rows: list[Radiograph], val: float, test: float | None, seed: int
) -> None:
    drawn = split(rows, val_fraction=val, test_fraction=test, seed=seed)
    for one, other in zip(drawn, block_of(rows, seed, val, test), strict=True):
        assert one == other or {one, other} == {TRAIN, VAL}


@settings(deadline=None)
@given(catalogs(official=True), FRACTIONS)
def test_blocks_are_disjoint_and_follow_each_other(rows: list[Radiograph], val: float) -> None:
    count = count_of(val)
    splits = [block_of(rows, seed, val) for seed in range(2 * count)]
    assert splits[:count] == splits[count:]
    for label in range(len(NAMES)):
        groups = placed(rows, splits[0], label)
        distinct = min(count, sum(map(len, groups.values())))
        own = [{i for i, s in enumerate(sides) if s == VAL and rows[i].label == label} for sides in splits[:distinct]]
        assert all(one.isdisjoint(other) for one, other in combinations(own, 2))
        for name in groups:
            sides = [[side for side, _ in placed(rows, sides, label)[name]] for sides in splits[:distinct]]
            starts = [told.index(VAL) for told in sides if VAL in told]
            assert starts == sorted(starts)


@settings(deadline=None)
@given(catalogs(official=True), FRACTIONS, st.sampled_from([None, 0.15, 0.3]), st.integers(0, 12))
def test_a_block_has_about_the_share_of_its_class(
    rows: list[Radiograph], val: float, test: float | None, seed: int
) -> None:
    sides = block_of(rows, seed, val, test)
    for label in range(len(NAMES)):
        groups = [group for series in placed(rows, sides, label).values() for group in series]
        if len(groups) > 1:
            own = [side for row, side in zip(rows, sides, strict=True) if row.label == label]
            tested = 0 if test is None else own.count(TEST)
            wanted = ceil((images(groups) + tested) * Fraction(str(val)))
            assert abs(images(groups, VAL) - wanted) <= max(size for _, size in groups) + 2
            assert {TRAIN, VAL} == {side for side, _ in groups}


@settings(deadline=None)
@given(catalogs(official=True), FRACTIONS, st.integers(0, 12))
def test_a_block_has_about_the_same_share_of_each_series(rows: list[Radiograph], val: float, seed: int) -> None:
    sides = block_of(rows, seed, val)
    for label in range(len(NAMES)):
        series = placed(rows, sides, label)
        groups = [group for own in series.values() for group in own]
        for own in series.values():
            share = images(own) / images(groups)
            largest = max(size for _, size in groups)
            given_by_class = share * images(groups, VAL)
            assert abs(images(own, VAL) - given_by_class) <= largest * (2 + 2 * len(series) * share)


@settings(deadline=None)
@given(catalogs(official=True, mixed=True), FRACTIONS, st.booleans(), st.integers(0, 12), st.randoms())
def test_the_order_of_rows_does_not_matter(
    rows: list[Radiograph], val: float, whole_groups: bool, seed: int, shuffler: random.Random
) -> None:
    shuffled = shuffler.sample(rows, len(rows))
    once, again = (
        dict(zip([row.path for row in r], block_of(r, seed, val, 0.15, grouped=whole_groups), strict=True))
        for r in (rows, shuffled)
    )
    assert once == again


@settings(deadline=None)
@given(st.integers(2, 200), FRACTIONS, st.integers(0, 30))
def test_a_block_of_single_images_has_the_exact_count_where_all_blocks_fit(count: int, val: float, seed: int) -> None:
    rows = [Radiograph(f"{n}.png", 0, "a", "", "", "", "", "PNG", "L", 1, 1, 1, f"d{n}", f"d{n}") for n in range(count)]
    chosen = [n for n, side in enumerate(block_of(rows, seed, val)) if side == VAL]
    wanted, blocks = ceil(count * Fraction(str(val))), count_of(val)
    assert chosen == list(range(chosen[0], chosen[-1] + 1))
    if wanted * blocks <= count and wanted < count:
        assert chosen == list(range(wanted * (seed % blocks), wanted * (seed % blocks + 1)))


def test_numbers_are_in_natural_order(make_row: MakeRow) -> None:
    rows = [make_row(f"person{n}_virus_{n}.png", patient=f"person{n}_virus") for n in (8, 9, 10, 11, 100, 101)]
    for seed, row in enumerate(rows):
        sides = block_of(rows, seed, 0.16)
        assert [r.patient for r, side in zip(rows, sides, strict=True) if side == VAL] == [row.patient]


def test_a_group_stands_where_its_first_image_does(make_row: MakeRow) -> None:
    rows = [make_row(f"COVID-{n}.png", group=f"g{1 if n == 90 else n}") for n in range(1, 101)]
    sides = block_of(rows, 0, 0.1)
    assert [n for n, side in enumerate(sides, 1) if side == VAL] == [*range(1, 10), 90]


def test_small_series_spread_over_all_blocks(make_row: MakeRow) -> None:
    large = [make_row(f"IM-{n}.png") for n in range(400)]
    small = [make_row(f"{chr(97 + n)}-{n}.png") for n in range(20)]
    for seed in range(5):
        chosen = [side == VAL for side in block_of([*large, *small], seed, 0.2)]
        assert sum(chosen) == 84 and 3 <= sum(chosen[400:]) <= 5


@pytest.mark.parametrize("sizes", [(1, 1), (1, 9), (9, 1), (1, 1, 9), (9, 9, 9, 1, 1, 1), (40, 1, 1)])
@pytest.mark.parametrize("val", [0.05, 0.15, 0.5, 0.9])
def test_few_groups_leave_neither_side_empty(make_row: MakeRow, sizes: tuple[int, ...], val: float) -> None:
    rows = [make_row(f"p{g}_{n}.png", patient=f"p{g}") for g, size in enumerate(sizes) for n in range(size)]
    for seed in range(20):
        assert set(block_of(rows, seed, val)) == {TRAIN, VAL}


def test_a_single_group_trains(make_row: MakeRow) -> None:
    assert block_of([make_row("p1_1.png", patient="p1"), make_row("p1_2.png", patient="p1")], 0, 0.5) == [TRAIN] * 2
    assert block_of([], 0, 0.5) == []


def test_without_groups_each_image_has_its_own_place(make_row: MakeRow) -> None:
    rows = [make_row(f"person1_virus_{n}.png", patient="person1_virus") for n in range(1, 41)]
    sides = block_of(rows, 1, 0.25, grouped=False)
    assert [n for n, side in enumerate(sides, 1) if side == VAL] == list(range(11, 21))


def test_as_many_blocks_as_fit_beside_a_random_test_set(make_row: MakeRow) -> None:
    rows = [make_row(f"COVID-{n}.png") for n in range(100)]
    for seed in range(7):
        sides = block_of(rows, seed, 0.15, 0.15)
        left = [side for side in sides if side != TEST]
        assert (sides.count(TEST), sides.count(VAL)) == (15, 15)
        assert left.index(VAL) == 15 * (seed % 5)


def test_the_data_module_validates_on_a_block_of_patients(phantoms: Path, shared_cache: Path) -> None:
    root, cache = str(phantoms / "chest_xray"), str(shared_cache)
    tested, chosen = [], []
    for seed in range(6):
        data = PneumoniaDataModule("pneumonia", root, 32, cache, split_seed=seed, validation="block")
        data.setup()
        tested.append({row.path for row, side in zip(data.rows, data.sides, strict=True) if side == TEST})
        chosen.append({row.group for row, side in zip(data.rows, data.sides, strict=True) if side == VAL})
        assert data.leaked == {} and all(data.counts()[VAL].values())
        for label in (0, 1):
            for groups in placed(data.rows, data.sides, label).values():
                assert re.fullmatch("t*v*t*", "".join("v" if side == VAL else "t" for side, _ in groups))
    assert all(paths == tested[0] for paths in tested)
    assert all(one.isdisjoint(other) for one, other in combinations(chosen, 2))


def test_a_random_test_set_stays_the_same(phantoms: Path, shared_cache: Path) -> None:
    root = str(phantoms / "COVID-19_Radiography_Dataset")
    sides = {}
    for validation in ("random", "block"):
        data = CovidDataModule("covid", root, 32, str(shared_cache), test_fraction=0.15, validation=validation)
        data.setup()
        sides[validation] = data.sides
    assert [s == TEST for s in sides["random"]] == [s == TEST for s in sides["block"]]
    assert sides["random"] != sides["block"]


@pytest.mark.parametrize(("names", "warned"), [(("left{}", "right{}"), False), (("left", "right", "up", "down"), True)])
def test_blocks_without_numbers_to_go_by_are_warned_of(
    make_row: MakeRow, caplog: pytest.LogCaptureFixture, names: tuple[str, ...], warned: bool
) -> None:
    rows = [make_row(f"{label}/{name.format(i)}.png", label=label) for label in (0, 1) for i, name in enumerate(names)]
    split(rows, val_fraction=0.5, test_fraction=0.2, seed=0, grouped=True, blocks=True)
    assert ("no file name has" in caplog.text) is warned
