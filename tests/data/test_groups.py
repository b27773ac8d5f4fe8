"""Which images belong together: those of one patient, identical ones and twins, however long the chain."""

import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xray_lightning.data.catalog import link_groups
from xray_lightning.data.twins import Pair

PATIENTS = ["", "p1", "p10", "p2", "patient:p1", "é", "a b", "0001"]
Table = tuple[list[str], list[str], list[Pair]]


@st.composite
def tables(draw: st.DrawFn) -> Table:
    """Patients and digests of images, of which some are missing, repeated or twins."""
    count = draw(st.integers(0, 25))
    patients = draw(st.lists(st.sampled_from(PATIENTS), min_size=count, max_size=count))
    content = st.integers(0, draw(st.integers(0, 60))).map(lambda n: f"{n:032x}")
    digests = draw(st.lists(content, min_size=count, max_size=count))
    twins = []
    for _ in range(draw(st.integers(0, 6)) if digests else 0):
        one, other = draw(st.sampled_from(digests)), draw(st.sampled_from(digests))
        if one != other:
            twins.append((min(one, other), max(one, other), 0.95))
    return patients, digests, twins


def connected(patients: Sequence[str], digests: Sequence[str], twins: Sequence[Pair]) -> np.ndarray:
    """(N, N) bool: whether a walk over links, tried one step longer until nothing is added, joins two images."""
    pairs = {frozenset((a, b)) for a, b, _ in twins}
    reach = np.eye(len(digests), dtype=bool)
    for i, one in enumerate(digests):
        for j, other in enumerate(digests):
            same_patient = patients[i] != "" and patients[i] == patients[j]
            reach[i, j] |= same_patient or one == other or frozenset((one, other)) in pairs
    while True:
        further = (reach.astype(int) @ reach.astype(int)) > 0
        if (further == reach).all():
            return reach
        reach = further


@settings(deadline=None)
@given(tables())
def test_two_images_share_a_group_exactly_where_a_chain_joins_them(table: Table) -> None:
    groups = np.array(link_groups(*table), dtype=object)
    assert ((groups[:, None] == groups) == connected(*table)).all()


@settings(deadline=None)
@given(tables())
def test_a_group_is_named_by_its_first_patient_or_else_its_first_digest(table: Table) -> None:
    patients, digests, _ = table
    for group, members in zip(link_groups(*table), connected(*table), strict=True):
        inside = np.flatnonzero(members)
        known = [patients[i] for i in inside if patients[i]]
        assert group == min(known or [digests[i] for i in inside])


@settings(deadline=None)
@given(tables(), st.randoms(use_true_random=False))
def test_groups_do_not_depend_on_any_order(table: Table, shuffler: random.Random) -> None:
    patients, digests, twins = table
    order = shuffler.sample(range(len(digests)), len(digests))
    mirrored = [(b, a, likeness) for a, b, likeness in shuffler.sample(twins, len(twins))]
    again = link_groups([patients[i] for i in order], [digests[i] for i in order], mirrored)
    assert again == [link_groups(*table)[i] for i in order]


def test_copies_and_twins_join_whole_patients() -> None:
    patients = ["p3", "p2", "p2", "p1", "", "p4"]
    digests = ["a", "a", "b", "c", "d", "e"]
    assert link_groups(patients, digests, []) == ["p2", "p2", "p2", "p1", "d", "p4"]
    assert link_groups(patients, digests, [("b", "c", 0.97), ("d", "e", 0.91)]) == [*["p1"] * 4, "p4", "p4"]


def test_images_of_unknown_patients_are_not_one_patient() -> None:
    assert link_groups(["", "", ""], ["a", "b", "b"], []) == ["a", "b", "b"]


def test_a_patient_who_is_called_like_a_digest_is_not_that_image() -> None:
    assert len(set(link_groups(["~p", "p"], ["1", "2"], []))) == 2


def test_every_image_needs_a_patient_or_an_empty_name() -> None:
    with pytest.raises(ValueError):
        link_groups(["p1"], ["a", "b"], [])
