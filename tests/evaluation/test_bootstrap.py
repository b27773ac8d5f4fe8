"""The bootstrap against metrics of images that are literally repeated, scikit-learn, SciPy and naive loops."""

from collections.abc import Sequence

import numpy as np
import pytest
import sklearn.metrics as sk
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from xray_lightning.evaluation.bootstrap import BLOCKS, jackknife, percentiles, resample
from xray_lightning.evaluation.metrics import PER_CLASS, SCALARS, per_class_metrics, scalar_metrics
from xray_lightning.evaluation.weighted import Weighted, WeightedMetrics

quick = settings(deadline=None, max_examples=60, database=None, derandomize=True)
images = st.tuples(st.integers(0, 4), st.integers(0, 9), st.integers(0, 5), st.sampled_from([0, 0, 1, 1, 2, 3]))


def tied(rows: list[tuple[int, int, int, int]], classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, Weighted]:
    """Probabilities (N, classes) of few distinct values, labels (N,), weights of images (N,), metrics so weighted."""
    label, score, group, weight = np.array(rows).T
    table = np.random.default_rng(0).integers(0, 4, (10, classes)) + np.eye(classes)[np.arange(10) % classes] * 1e-3
    table[0] = np.eye(classes)[0]  # certain
    table[1] = 0.9 * np.eye(classes)[1] + 0.1 * np.eye(classes)[0]  # in the last bin but one
    weights = np.zeros((1, 6))
    weights[0, group] = weight
    if not weights[0, group].any():
        weights[0, group[0]] = 1
    probabilities, labels = (table / table.sum(axis=1, keepdims=True))[score], label % classes
    found = WeightedMetrics(probabilities, labels, group.astype(str).tolist()).every(weights[:, np.unique(group)])
    return probabilities, labels, weights[0, group], found


def made_up(
    count: int, classes: int = 2, per_group: int = 1, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Probabilities, labels and groups of which images are alike."""
    generator = np.random.default_rng(0)
    patient = np.arange(count) // per_group
    labels = generator.integers(0, classes, count)[patient]
    logits = 1.5 * np.eye(classes)[labels] + generator.normal(size=(count, classes))[patient]
    powers = np.exp(logits + 0.3 * generator.normal(size=(count, classes)))
    return powers / powers.sum(axis=1, keepdims=True), labels, [f"patient {i}" for i in patient]


def drawn(
    probabilities: np.ndarray, labels: np.ndarray, groups: Sequence[str], resamples: int = 2000, seed: int = 0
) -> Weighted:
    metrics = WeightedMetrics(probabilities, labels, groups)
    return resample(metrics.every, metrics.groups, resamples, seed)


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], tolerance: float) -> None:
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=0, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("classes", [2, 3])
@quick
@given(rows=st.lists(images, min_size=1, max_size=40))
def test_weights_are_repetitions(classes: int, rows: list[tuple[int, int, int, int]]) -> None:
    probabilities, labels, weights, found = tied(rows, classes)
    repeats = weights.astype(int)
    p, y = torch.from_numpy(probabilities.repeat(repeats, axis=0)), torch.from_numpy(labels.repeat(repeats))
    assert tuple(found.scalars) == SCALARS and tuple(found.per_class) == PER_CLASS
    expected = {name: value.numpy()[None] for name, value in scalar_metrics(p, y).items()}
    if len(np.unique(labels)) > len(np.unique(labels.repeat(repeats))):  # averages would judge fewer classes
        over_classes = ["balanced_accuracy", "macro_recall", "macro_precision", "macro_f1"]
        over_classes += ["specificity", "auroc", "auprc"] if classes > 2 else []
        expected |= {name: np.array([np.nan]) for name in over_classes}
    assert_same(found.scalars, expected, 2e-6)
    assert_same(found.per_class, {n: v.numpy()[None] for n, v in per_class_metrics(p, y).items()}, 2e-6)


@quick
@given(rows=st.lists(images, min_size=2, max_size=60))
def test_ranking_metrics_are_scikit_learns_with_sample_weights(rows: list[tuple[int, int, int, int]]) -> None:
    probabilities, labels, of_images, found = tied(rows, 3)
    each = found.per_class
    for c in range(3):
        positive, scores = labels == c, probabilities[:, c]
        if 0 < of_images[positive].sum() < of_images.sum():
            area = sk.roc_auc_score(positive, scores, sample_weight=of_images)
            precision = sk.average_precision_score(positive, scores, sample_weight=of_images)
            assert (each["auroc"][0, c], each["auprc"][0, c]) == pytest.approx((area, precision), abs=1e-12)
        else:
            assert np.isnan([each["auroc"][0, c], each["auprc"][0, c]]).all()


@pytest.mark.parametrize("classes", [2, 4])
def test_a_resample_is_some_patients_with_all_their_images(classes: int) -> None:
    probabilities, labels, groups = made_up(12, classes, per_group=4)
    found = drawn(probabilities, labels, groups, 200).scalars["log_loss"]
    loss = -np.log(probabilities[np.arange(12), labels]).reshape(3, 4).mean(axis=1)
    possible = [loss[[a, b, c]].mean() for a in range(3) for b in range(3) for c in range(3)]
    assert {*np.round(found, 9)} == {*np.round(possible, 9)}


@pytest.mark.parametrize("name", ["accuracy", "log_loss"])
def test_without_groups_the_interval_is_scipys(name: str) -> None:
    probabilities, labels, groups = made_up(300)
    of_images = {
        "accuracy": probabilities.argmax(axis=1) == labels,
        "log_loss": -np.log(probabilities[np.arange(300), labels]),
    }[name].astype(float)
    theirs = stats.bootstrap(
        (of_images,), np.mean, n_resamples=2000, method="percentile", rng=np.random.default_rng(1), vectorized=True
    ).confidence_interval
    low, high = percentiles(drawn(probabilities, labels, groups).scalars[name]) or (np.nan, np.nan)
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=0.12 * (theirs.high - theirs.low))


@pytest.mark.parametrize("classes", [2, 4])
def test_percentiles_contain_the_value(classes: int) -> None:
    probabilities, labels, groups = made_up(400, classes, per_group=2)
    once = WeightedMetrics(probabilities, labels, groups).every(np.ones((1, 200)))
    found = drawn(probabilities, labels, groups)
    for name in set(SCALARS) - {"ece"}:  # which resamples raise
        low, high = percentiles(found.scalars[name]) or (np.nan, np.nan)
        assert low < once.scalars[name][0] < high, name
    for name in PER_CLASS:
        for c in range(classes):
            low, high = percentiles(found.per_class[name][:, c]) or (np.nan, np.nan)
            assert low < once.per_class[name][0, c] < high, (name, c)


def test_images_of_one_patient_have_an_interval_without_width() -> None:
    probabilities, labels, _ = made_up(40, 4)
    for values in drawn(probabilities, labels, ["patient"] * 40, 100).scalars.values():
        low, high = percentiles(values) or (np.nan, np.nan)
        assert low == high


def test_copies_in_a_group_add_nothing_and_would_if_taken_for_patients() -> None:
    probabilities, labels, groups = made_up(150, 4)
    copied = probabilities.repeat(2, axis=0), labels.repeat(2)
    once, twice = drawn(probabilities, labels, groups, 500), drawn(*copied, np.repeat(groups, 2).tolist(), 500)
    assert_same(twice.scalars, once.scalars, 1e-12)
    assert_same(twice.per_class, once.per_class, 1e-12)
    naive = drawn(*copied, [str(i) for i in range(300)], 500)
    for name in ("accuracy", "auroc", "log_loss", "mcc"):
        widths = [np.ptp(percentiles(r.scalars[name]) or (np.nan, np.nan)) for r in (naive, twice)]
        assert widths[0] == pytest.approx(widths[1] / 2**0.5, rel=0.15), name


def test_order_of_images_does_not_matter() -> None:
    probabilities, labels, groups = made_up(90, 4, per_group=3)
    order = np.random.default_rng(0).permutation(90)
    there = drawn(probabilities, labels, groups, 50)
    back = drawn(probabilities[order], labels[order], [groups[i] for i in order], 50)
    assert_same(back.scalars, there.scalars, 1e-12)
    assert_same(back.per_class, there.per_class, 1e-12)


def test_a_seed_repeats_and_more_resamples_begin_with_the_same() -> None:
    data = made_up(60)
    few, many, other = drawn(*data, 70), drawn(*data, 99), drawn(*data, 70, seed=1)
    assert_same({n: v[:70] for n, v in many.scalars.items()}, few.scalars, 1e-12)
    assert len(many.scalars["auroc"]) == 99
    assert not np.array_equal(few.scalars["auroc"], other.scalars["auroc"])


@pytest.mark.parametrize("level", [0.5, 0.95])
def test_percentiles_are_of_what_is_defined(level: float) -> None:
    values = np.random.default_rng(0).permutation(1000.0 + np.arange(1001))
    bounds = (1000 + 1000 * (1 - level) / 2, 1000 + 1000 * (1 + level) / 2)
    assert percentiles(values, level) == pytest.approx(bounds)
    assert percentiles(np.append(values, [np.nan] * 50), level) == pytest.approx(bounds)
    assert percentiles(np.append(values, [np.nan] * 60), level) is None
    assert percentiles(np.array([])) is None


def test_a_class_without_images_has_no_ranking_percentiles() -> None:
    probabilities, _, groups = made_up(60, 4)
    found = drawn(probabilities, np.arange(60) % 3, groups, 100)
    assert [percentiles(values) is None for values in found.per_class["auroc"].T] == [False, False, False, True]
    assert percentiles(found.scalars["auroc"]) is None and percentiles(found.scalars["auprc"]) is None
    assert percentiles(found.scalars["accuracy"]) is not None


@pytest.mark.parametrize("classes", [2, 4])
def test_calibration_alone_is_as_among_all_metrics(classes: int) -> None:
    probabilities, labels, groups = made_up(90, classes, per_group=3)
    metrics, weights = WeightedMetrics(probabilities, labels, groups), np.arange(60.0).reshape(2, 30)
    alone = metrics.calibration(weights)
    assert set(alone.scalars) == {"log_loss", "brier", "ece"} and not alone.per_class
    assert_same(alone.scalars, {n: v for n, v in metrics.every(weights).scalars.items() if n in alone.scalars}, 0)


def test_the_jackknife_leaves_out_each_patient_once() -> None:
    probabilities, labels, groups = made_up(90, 4, per_group=3)
    metrics = WeightedMetrics(probabilities, labels, groups)
    found = jackknife(metrics.every, metrics.groups)
    rest = [np.array(groups) != name for name in dict.fromkeys(groups)]
    for name in ("accuracy", "log_loss", "auroc"):
        expected = [scalar_metrics(torch.from_numpy(probabilities[r]), torch.from_numpy(labels[r]))[name] for r in rest]
        np.testing.assert_allclose(np.sort(found.scalars[name]), np.sort(expected), atol=2e-6)


def test_many_patients_are_left_out_in_blocks() -> None:
    parts: list[np.ndarray] = []

    def metrics(weights: np.ndarray) -> Weighted:
        parts.append(weights)
        return Weighted({}, {})

    jackknife(metrics, 2 * BLOCKS + 1)
    left_out = 1 - np.concatenate(parts)
    assert left_out.shape == (BLOCKS, 2 * BLOCKS + 1) and (left_out.sum(axis=0) == 1).all()
    assert sorted({*left_out.sum(axis=1)}) == [2, 3]
