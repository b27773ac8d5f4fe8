"""Wilson intervals against SciPy, and what patient groups do to them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, t

from xray_lightning.evaluation.proportions import design_effect, grouped_wilson, newcombe, wilson

quick = settings(deadline=None, database=None, derandomize=True)
grouped_hits = st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=1, max_size=60)


def parts(rows: list[tuple[bool, int]]) -> tuple[np.ndarray, list[str]]:
    return np.array([hit for hit, _ in rows]), [f"patient {group}" for _, group in rows]


@quick
@given(n=st.integers(1, 5000), share=st.floats(0, 1), level=st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_it_is_scipys(n: int, share: float, level: float) -> None:
    successes = round(share * n)
    expected = binomtest(successes, n).proportion_ci(level, method="wilson")
    assert wilson(successes, n, level) == pytest.approx((expected.low, expected.high), abs=1e-12)


@quick
@given(n=st.integers(1, 10**6), share=st.floats(0, 1))
def test_it_contains_the_proportion_and_stays_within_0_and_1(n: int, share: float) -> None:
    low, high = wilson(round(share * n), n)
    assert 0 <= low <= round(share * n) / n <= high <= 1 and low < high


def test_all_and_none_end_exactly_at_the_limit() -> None:
    for n in range(1, 200):
        assert wilson(0, n)[0] == 0.0 and wilson(n, n)[1] == 1.0


@pytest.mark.parametrize(("successes", "n"), [(1, 0), (0, 0), (-1, 5), (6, 5)])
def test_what_is_no_proportion_is_refused(successes: float, n: float) -> None:
    with pytest.raises(ValueError, match="not a proportion"):
        wilson(successes, n)


@quick
@given(hits=st.lists(st.booleans(), min_size=1, max_size=60))
def test_groups_of_one_image_give_the_plain_interval(hits: list[bool]) -> None:
    groups = [f"patient {i}" for i in range(len(hits))]
    assert grouped_wilson(np.array(hits), groups) == pytest.approx(wilson(sum(hits), len(hits)), abs=1e-12)


def test_no_images_have_no_interval() -> None:
    assert grouped_wilson(np.array([], dtype=bool), []) is None


@quick
@given(rows=grouped_hits)
def test_groups_never_narrow_the_interval_and_it_contains_the_proportion(rows: list[tuple[bool, int]]) -> None:
    hits, groups = parts(rows)
    low, high = grouped_wilson(hits, groups) or (np.nan, np.nan)
    plain = wilson(hits.sum(), len(hits))
    assert low - 1e-12 <= hits.mean() <= high + 1e-12
    assert high - low >= plain[1] - plain[0] - 1e-12


def naive_design_effect(hits: np.ndarray, groups: list[str]) -> float:
    """Variance of a ratio of group totals (Cochran, Sampling Techniques, 1977, chapter 9), in loops."""
    members = {group: [bool(h) for h, g in zip(hits, groups, strict=True) if g == group] for group in set(groups)}
    n, p = len(hits), sum(map(bool, hits)) / len(hits)
    if p in (0, 1) or len(members) == 1:
        return sum(len(m) ** 2 for m in members.values()) / n
    total = sum((sum(m) - p * len(m)) ** 2 for m in members.values())
    between = len(members) / (len(members) - 1) * total / n**2
    return max(1.0, between * (n - 1) / (p * (1 - p)))


@quick
@given(rows=grouped_hits)
def test_design_effect_is_the_naive_one(rows: list[tuple[bool, int]]) -> None:
    hits, groups = parts(rows)
    effect = design_effect(hits, groups)
    assert effect == pytest.approx(naive_design_effect(hits, groups), rel=1e-12)
    size = len(hits) / effect
    if 0 < hits.mean() < 1 and len(set(groups)) > 1:
        size *= (t(len(hits) - 1).ppf(0.975) / t(len(set(groups)) - 1).ppf(0.975)) ** 2
    assert grouped_wilson(hits, groups) == pytest.approx(wilson(hits.mean() * size, size), abs=1e-9)


@pytest.mark.parametrize(("patients", "images"), [(8, 10), (15, 6), (30, 4)])
def test_of_few_patients_it_contains_the_truth_as_often_as_it_says(patients: int, images: int) -> None:
    generator, inside = np.random.default_rng(0), []
    groups = [f"patient {i // images}" for i in range(patients * images)]
    for shares in generator.beta(0.8 * 2, 0.2 * 2, (1000, patients)):  # images of a patient correlate by 1/3
        low, high = grouped_wilson(generator.random(len(groups)) < shares.repeat(images), groups) or (1.0, 0.0)
        inside.append(low <= 0.8 <= high)
    assert 0.925 <= np.mean(inside) <= 0.975


def test_copies_of_an_image_are_worth_one_image() -> None:
    hits = np.arange(40) % 4 != 0
    groups = [f"patient {i}" for i in range(40)]
    once = wilson(30, 40)
    copied = grouped_wilson(np.repeat(hits, 3), np.repeat(groups, 3).tolist())
    assert copied == pytest.approx(once, abs=0.01)  # not quite: n - 1 counts copies, and t knows of 40
    assert wilson(90, 120)[0] > once[0] + 0.04  # as if copies were independent


def test_where_all_hit_large_groups_count_as_one_image_each() -> None:
    hits, groups = np.ones(12, dtype=bool), [f"patient {i // 4}" for i in range(12)]
    assert grouped_wilson(hits, groups) == wilson(3, 3)
    assert grouped_wilson(hits, ["one patient"] * 12) == wilson(1, 1)


def test_one_patient_counts_as_one_image() -> None:
    assert grouped_wilson(np.arange(12) < 9, ["one patient"] * 12) == pytest.approx(wilson(0.75, 1))


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((56, 70), (48, 80), (0.0524, 0.3339)),
        ((9, 10), (3, 10), (0.1705, 0.8090)),
        ((5, 56), (0, 29), (-0.0381, 0.1926)),
    ],
)
def test_differences_are_those_of_newcombes_table(
    first: tuple[int, int], second: tuple[int, int], expected: tuple[float, float]
) -> None:
    """Newcombe 1998, table II, method 10."""
    (a, m), (b, n) = first, second
    assert newcombe(a / m, wilson(a, m), b / n, wilson(b, n)) == pytest.approx(expected, abs=6e-5)
    low, high = newcombe(b / n, wilson(b, n), a / m, wilson(a, m))
    assert (-high, -low) == pytest.approx(expected, abs=6e-5)


def test_order_does_not_matter() -> None:
    generator = np.random.default_rng(0)
    hits, groups = generator.random(50) < 0.8, [f"patient {g}" for g in generator.integers(0, 20, 50)]
    order = generator.permutation(50)
    expected = grouped_wilson(hits, groups)
    assert grouped_wilson(hits[order], [groups[i] for i in order]) == pytest.approx(expected, rel=1e-12)
