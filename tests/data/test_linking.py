"""Chains of links against a brute-force closure."""

from hypothesis import given
from hypothesis import strategies as st

from xray_lightning.data.linking import Links

PAIRS = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=30)


def closure(pairs: list[tuple[int, int]]) -> dict[int, set[int]]:
    sets = {key: {key} for key in range(21)}
    for one, other in pairs:
        joined = sets[one] | sets[other]
        for key in joined:
            sets[key] = joined
    return sets


@given(PAIRS)
def test_linked_keys_have_one_name_the_smallest(pairs: list[tuple[int, int]]) -> None:
    links = Links[int]()
    for one, other in pairs:
        links.join(one, other)
    assert [links.first(key) for key in range(21)] == [min(closure(pairs)[key]) for key in range(21)]


@given(PAIRS)
def test_joining_tells_what_is_new(pairs: list[tuple[int, int]]) -> None:
    links = Links[int]()
    for position, (one, other) in enumerate(pairs):
        assert links.join(one, other) == (other not in closure(pairs[:position])[one])
