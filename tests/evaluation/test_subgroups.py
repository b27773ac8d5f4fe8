"""Subgroups of a class: which are told apart, and how well each is recognised."""

from collections.abc import Callable

import numpy as np
import pytest

from xray_lightning.data.catalog import Radiograph, kermany_subtype
from xray_lightning.evaluation.proportions import grouped_wilson
from xray_lightning.evaluation.subgroups import subgroups

MakeRow = Callable[..., Radiograph]


def named(found: list[dict], by: str) -> dict[tuple[str, str], dict]:
    return {(s["class"], s["value"]): s for s in found if s["by"] == by}


@pytest.mark.parametrize(
    ("stem", "subtype"),
    [("person1_bacteria_2", "bacteria"), ("person12_virus_3_1", "virus"), ("IM-0001-0001", ""), ("virus", "")],
)
def test_kermanys_file_names_tell_the_subtype(stem: str, subtype: str) -> None:
    assert kermany_subtype(stem) == subtype


def test_each_subtype_of_a_class_has_its_recall_and_interval(make_row: MakeRow) -> None:
    kinds = ["bacteria"] * 5 + ["virus"] * 3 + [""] * 4
    rows = [make_row(f"{n}.png", int(n < 8), subtype=kind, group=f"g{n // 2}") for n, kind in enumerate(kinds)]
    labels = np.array([row.label for row in rows])
    predicted = np.array([1, 1, 0, 1, 1, 0, 0, 1, 0, 0, 0, 1])
    found = named(subgroups(rows, predicted, labels), "subtype")
    assert list(found) == [("class1", "bacteria"), ("class1", "virus")]
    assert [(s["n"], s["recall"]["value"]) for s in found.values()] == [(5, 0.8), (3, pytest.approx(1 / 3))]
    bounds = grouped_wilson(predicted[:5] == 1, [row.group for row in rows[:5]])
    assert (found["class1", "bacteria"]["recall"]["low"], found["class1", "bacteria"]["recall"]["high"]) == bounds


def test_what_does_not_tell_images_of_one_class_apart_is_not_listed(make_row: MakeRow) -> None:
    rows = [make_row(f"{n}.png", n % 2, source="here" if n % 2 else "there", subtype="kind") for n in range(8)]
    labels = np.array([row.label for row in rows])
    assert subgroups(rows, labels, labels) == []


def test_images_of_which_nothing_is_told_come_last(make_row: MakeRow) -> None:
    rows = [make_row(f"{n}.png", source=["", "zoo", "ark"][n % 3]) for n in range(9)]
    found = subgroups(rows, np.zeros(9, dtype=int), np.zeros(9, dtype=int))
    assert [s["value"] for s in found] == ["ark", "zoo", "unknown"]


def test_few_sizes_are_named_and_many_are_thirds_by_area(make_row: MakeRow) -> None:
    few = [make_row(f"{n}.png", width=w, height=10) for n, w in enumerate([100, 9, 100, 30])]
    labels = np.zeros(4, dtype=int)
    assert [s["value"] for s in subgroups(few, labels, labels)] == ["9 x 10", "30 x 10", "100 x 10"]
    many = [make_row(f"{n}.png", width=1000 + 100 * n, height=1000) for n in range(30)]
    labels = np.zeros(30, dtype=int)
    found = subgroups(many, labels, labels)
    assert [(s["value"], s["n"]) for s in found] == [
        ("up to 1.97 MP", 10),
        ("1.97 to 2.93 MP", 10),
        ("above 2.93 MP", 10),
    ]
