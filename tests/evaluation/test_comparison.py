"""Differences between runs: against naive loops, SciPy, a bootstrap over groups, and under the null."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, norm
from sklearn.metrics import roc_auc_score

from xray_lightning.evaluation.comparison import Comparison, Difference, compare, delong, holm, mcnemar

quick = settings(deadline=None, max_examples=50, database=None, derandomize=True)


def naive_delong(scores: np.ndarray, positive: np.ndarray, groups: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Obuchowski 1997 (DeLong et al. 1988 for groups of one image) by comparing every pair of images."""
    wins = [[[(a > b) + (a == b) / 2 for b in run[~positive]] for a in run[positive]] for run in scores]
    auroc = np.mean(wins, axis=(1, 2))
    names = np.array(groups)
    kinds = []
    for kind, components in ((positive, np.mean(wins, axis=2)), (~positive, np.mean(wins, axis=1))):
        each = (components - auroc[:, None]) / kind.sum()
        sums = [each[:, names[kind] == name].sum(axis=1) for name in dict.fromkeys(groups)]
        kinds.append((np.array(sums).T, len(set(names[kind]))))
    (x, i10), (y, i01) = kinds
    i = len(set(groups))
    own = i10 / (i10 - 1) * x @ x.T + i01 / (i01 - 1) * y @ y.T
    return auroc, own + i / (i - 1) * (x @ y.T + y @ x.T)


@quick
@given(
    rows=st.lists(st.tuples(*[st.integers(0, 5)] * 3, st.booleans()), min_size=4, max_size=40).filter(
        lambda rows: 2 <= sum(row[3] for row in rows) <= len(rows) - 2
    )
)
def test_delong_is_that_of_a_loop(rows: list[tuple[int, int, int, bool]]) -> None:
    scores = np.array([row[:3] for row in rows], np.float64).T
    positive = np.array([row[3] for row in rows])
    single = [str(i) for i in range(len(rows))]
    auroc, covariance = naive_delong(scores, positive, single)
    for groups in (None, single):
        found = delong(scores, positive, groups)
        np.testing.assert_allclose(found[0], auroc, rtol=1e-12)
        np.testing.assert_allclose(found[1], covariance, rtol=1e-9, atol=1e-15)


def clustered(
    count: int, classes: int, runs: int, skill: float, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities (runs, count, classes), labels, groups: 3 images, mostly of one class, that a run finds alike."""
    groups = np.arange(count) // 3
    of_group = generator.integers(0, classes, count)[groups]
    labels = np.where(generator.random(count) < 0.3, generator.integers(0, classes, count), of_group)
    shape = (runs, groups[-1] + 1, classes)
    noise = generator.normal(size=(count, classes)) + 1.5 * generator.normal(size=shape)[:, groups]
    powers = np.exp(noise + skill * np.eye(classes)[labels])
    return powers / powers.sum(axis=2, keepdims=True), labels, groups


def test_grouped_delong_is_obuchowskis() -> None:
    probabilities, labels, groups = clustered(240, 2, 3, 1.0, np.random.default_rng(0))
    scores, names = probabilities[:, :, 1], groups.astype(str).tolist()
    auroc, covariance = delong(scores, labels == 1, names)
    expected = naive_delong(scores, labels == 1, names)
    np.testing.assert_allclose(auroc, expected[0], rtol=1e-12)
    np.testing.assert_allclose(covariance, expected[1], rtol=0.01, atol=1e-6)


def fast_auroc(p: np.ndarray, labels: np.ndarray) -> np.ndarray:
    if p.shape[1] == 2:
        return roc_auc_score(labels, p[:, 1])
    return roc_auc_score(labels, p, multi_class="ovr")


@pytest.mark.parametrize("classes", [2, 4])
def test_intervals_agree_with_a_bootstrap_over_groups(classes: int) -> None:
    generator = np.random.default_rng(1)
    (a, b), labels, groups = clustered(360, classes, 2, 1.5, generator)
    (found,) = compare({"a": a, "b": b}, labels, groups.astype(str).tolist(), [("a", "b")])
    draws = []
    for picked in generator.integers(0, 120, (400, 120)):
        rows = (3 * picked[:, None] + np.arange(3)).ravel()
        hits = (a[rows].argmax(1) == labels[rows]).mean() - (b[rows].argmax(1) == labels[rows]).mean()
        draws.append((hits, fast_auroc(a[rows], labels[rows]) - fast_auroc(b[rows], labels[rows])))
    for difference, spread in zip((found.accuracy, found.auroc), np.std(draws, axis=0), strict=True):
        assert (difference.high - difference.low) / (2 * 1.96) == pytest.approx(spread, rel=0.12)
    assert found.auroc.value == pytest.approx(fast_auroc(a, labels) - fast_auroc(b, labels))
    assert found.accuracy.value == pytest.approx((a.argmax(1) == labels).mean() - (b.argmax(1) == labels).mean())


@pytest.mark.parametrize("classes", [2, 3])
def test_under_the_null_few_pairs_differ(classes: int) -> None:
    """5 % of p below 0.05, where images of a group are alike; taken for independent they reject far too often."""
    generator = np.random.default_rng(2)
    rejected = np.zeros(3)
    for _ in range(400):
        (a, b), labels, groups = clustered(240, classes, 2, 1.0, generator)
        (known,) = compare({"a": a, "b": b}, labels, groups.astype(str).tolist(), [("a", "b")])
        (unknown,) = compare({"a": a, "b": b}, labels, [str(i) for i in range(240)], [("a", "b")])
        outside = not known.accuracy.low <= 0 <= known.accuracy.high
        rejected += [known.auroc.p < 0.05, outside, unknown.auroc.p < 0.05]
    known_rate, outside_rate, unknown_rate = rejected / 400
    assert 0.025 < known_rate < 0.08
    assert 0.025 < outside_rate < 0.08
    assert unknown_rate > 0.09


@quick
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=80))
def test_mcnemar_is_scipys_binomial_test(rows: list[tuple[bool, bool]]) -> None:
    a, b = np.array(rows).T
    only_a, only_b, p = mcnemar(a, b)
    assert (only_a, only_b) == (rows.count((True, False)), rows.count((False, True)))
    assert p == pytest.approx(binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0, rel=1e-9)


@quick
@given(st.lists(st.floats(0, 1), max_size=6))
def test_holm_is_the_closed_test_of_bonferronis(p: list[float]) -> None:
    """Adjusted p is the largest of Bonferroni's over all sets of hypotheses that hold this one."""
    places = range(len(p))
    sets = [chosen for size in places for chosen in combinations(places, size + 1)]
    expected = [
        max(min(1.0, len(chosen) * min(p[i] for i in chosen)) for chosen in sets if place in chosen) for place in places
    ]
    assert holm(p) == pytest.approx(expected)


def two_classes(positive: list[float]) -> np.ndarray:
    return np.stack([1 - np.array(positive), np.array(positive)], axis=1)


def test_pairs_of_runs_by_hand() -> None:
    generator = np.random.default_rng(3)
    runs, labels, groups = clustered(90, 2, 3, 1.0, generator)
    names = groups.astype(str).tolist()
    pairs = [("a", "b"), ("c", "a"), ("b", "c")]
    found = compare(dict(zip("abc", runs, strict=True)), labels, names, pairs)
    assert [(c.a, c.b) for c in found] == pairs
    auroc, covariance = delong(runs[:, :, 1], labels == 1, names)
    for (a, b), comparison in zip([(0, 1), (2, 0), (1, 2)], found, strict=True):
        difference = comparison.auroc
        error = np.sqrt(covariance[a, a] + covariance[b, b] - 2 * covariance[a, b])
        assert difference.value == pytest.approx(auroc[a] - auroc[b])
        assert (difference.low, difference.high) == pytest.approx(norm.interval(0.95, difference.value, error))
        assert difference.p == pytest.approx(2 * norm.sf(abs(difference.value) / error))
        counts = mcnemar(runs[a].argmax(1) == labels, runs[b].argmax(1) == labels)
        assert (comparison.only_a, comparison.only_b, comparison.mcnemar) == counts
    for test in ("accuracy", "auroc"):
        differences = [getattr(comparison, test) for comparison in found]
        assert [d.adjusted for d in differences] == holm([d.p for d in differences])


def test_runs_that_predict_the_same_do_not_differ() -> None:
    p = two_classes([0.2, 0.6, 0.7, 0.4])
    same = Difference(0.0, None, None, 1.0, 1.0)
    found = compare({"a": p, "b": p.copy()}, np.array([0, 0, 1, 1]), list("wxyz"), [("a", "b")])
    assert found == [Comparison("a", "b", same, 0, 0, 1.0, same)]


def test_two_classes_are_ranked_by_the_positive_one() -> None:
    """Whose small probabilities still differ where the other's have been rounded to 1."""
    runs = {"a": two_classes([1e-20, 2e-20, 3e-20, 0.5]), "b": two_classes([0.4, 0.1, 0.2, 0.3])}
    (found,) = compare(runs, np.array([0, 0, 1, 1]), list("wxyz"), [("a", "b")])
    assert found.auroc.value == 0.5


@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [1, 1, 1, 1]])
def test_a_class_without_images_on_either_side_has_no_auroc(labels: list[int]) -> None:
    runs = {"a": two_classes([0.2, 0.6, 0.7, 0.4]), "b": two_classes([0.2, 0.1, 0.3, 0.9])}
    (found,) = compare(runs, np.array(labels), list("wxyz"), [("a", "b")])
    assert found.auroc == Difference(None, None, None, None)
    assert found.mcnemar == 1 and found.accuracy.low < found.accuracy.value < found.accuracy.high
    assert compare(runs, np.array(labels), list("wxyz"), []) == []


def test_without_variation_among_groups_there_is_no_interval() -> None:
    labels = np.array([0, 0, 1, 1])
    perfect, constant = two_classes([0.1, 0.2, 0.8, 0.9]), two_classes([0.3, 0.3, 0.3, 0.3])
    (found,) = compare({"a": perfect, "b": constant}, labels, list("wxyz"), [("a", "b")])
    assert found.auroc == Difference(0.5, None, None, None)
    (single,) = compare({"a": perfect, "b": constant}, labels, ["w"] * 4, [("a", "b")])
    assert (single.accuracy.value, single.accuracy.low, single.auroc.p) == (0.5, None, None)
