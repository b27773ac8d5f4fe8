"""Which interval each metric has, and BCa against SciPy and naive loops."""

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import sklearn.metrics as sk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from xray_lightning.evaluation.bootstrap import draws, percentiles, resample
from xray_lightning.evaluation.intervals import bca, calibration_intervals, intervals, shifted_percentiles
from xray_lightning.evaluation.metrics import PER_CLASS, SCALARS
from xray_lightning.evaluation.proportions import grouped_wilson, wilson
from xray_lightning.evaluation.weighted import Weighted, WeightedMetrics

quick = settings(deadline=None, max_examples=60, database=None, derandomize=True)
NOWHERE = (np.nan, np.nan)
Images = tuple[np.ndarray, np.ndarray, list[str]]
Statistic = Callable[[np.ndarray, np.ndarray], float]


def made_up(patients: int, classes: int = 2, per_patient: int = 1) -> Images:
    """Probabilities, labels and groups; images of a patient are of one class and found alike."""
    generator = np.random.default_rng(0)
    patient = np.repeat(np.arange(patients), per_patient)
    labels = generator.integers(0, classes, patients)[patient]
    logits = 1.5 * np.eye(classes)[labels] + generator.normal(size=(patients, classes))[patient]
    powers = np.exp(logits + 0.3 * generator.normal(size=logits.shape))
    return powers / powers.sum(axis=1, keepdims=True), labels, [f"patient {i:04}" for i in patient]


def on_resamples(images: Images) -> Weighted:
    metrics = WeightedMetrics(*images)
    return resample(metrics.every, metrics.groups)


@pytest.mark.parametrize("patients", [40, 300, 1500])  # 1500 are left out in blocks, of which chance decides
@pytest.mark.parametrize("name", ["log_loss", "brier"])
def test_without_groups_a_means_interval_is_scipys(name: str, patients: int) -> None:
    probabilities, labels, groups = made_up(patients)
    p = probabilities[np.arange(patients), labels]
    of_images = {"log_loss": -np.log(p), "brier": (1 - p) ** 2}[name]
    same = SimpleNamespace(bootstrap_distribution=on_resamples((probabilities, labels, groups)).scalars[name])
    theirs = stats.bootstrap(
        (of_images,), np.mean, n_resamples=0, method="BCa", bootstrap_result=same
    ).confidence_interval
    near = 1e-9 if patients <= 1000 else 0.02 * (theirs.high - theirs.low)
    found = intervals(probabilities, labels, groups).scalars[name]
    assert found == pytest.approx((theirs.low, theirs.high), abs=near)
    assert found != pytest.approx(percentiles(same.bootstrap_distribution), abs=1e-9)


def naive_bca(statistic: Statistic, scores: np.ndarray, positive: np.ndarray, patients: int) -> tuple[float, float]:
    """Efron and Tibshirani, An Introduction to the Bootstrap (1993), equations 14.9 to 14.15, in loops over patients
    of three images each."""
    normal, value, drawn = stats.norm(), statistic(scores, positive), []
    for times in np.concatenate(list(draws(patients, 2000, seed=0))).astype(int):
        rows = np.repeat(np.arange(3 * patients), times.repeat(3))
        drawn.append(statistic(scores[rows], positive[rows]))
    rest = [np.arange(3 * patients) // 3 != i for i in range(patients)]
    left_out = np.array([statistic(scores[r], positive[r]) for r in rest])
    difference = left_out.mean() - left_out
    a = (difference**3).sum() / (6 * (difference**2).sum() ** 1.5)
    z0 = normal.ppf(np.mean([0.5 if abs(d - value) < 1e-12 else d < value for d in drawn]))
    at = [normal.cdf(z0 + (z0 + z) / (1 - a * (z0 + z))) for z in (normal.ppf(0.025), normal.ppf(0.975))]
    return float(np.quantile(drawn, at[0])), float(np.quantile(drawn, at[1]))


@pytest.mark.parametrize(("name", "theirs"), [("auroc", sk.roc_auc_score), ("auprc", sk.average_precision_score)])
def test_ranking_metrics_have_the_interval_of_a_loop_over_patients(name: str, theirs: Callable[..., float]) -> None:
    probabilities, labels, groups = made_up(70, per_patient=3)
    low, high = intervals(probabilities, labels, groups).scalars[name] or NOWHERE
    expected = naive_bca(lambda s, y: float(theirs(y, s)), probabilities[:, 1], labels == 1, 70)
    assert (low, high) == pytest.approx(expected, abs=1e-9)
    alone = intervals(probabilities, labels, [str(i) for i in range(210)]).scalars[name] or NOWHERE
    assert high - low > 1.3 * (alone[1] - alone[0])


@pytest.mark.parametrize("classes", [2, 4])
def test_proportions_have_wilsons_interval(classes: int) -> None:
    probabilities, labels, groups = made_up(80, classes, per_patient=3)
    found, predicted = intervals(probabilities, labels, groups), probabilities.argmax(axis=1)

    def of(hits: np.ndarray, among: np.ndarray) -> tuple[float, float] | None:
        return grouped_wilson(hits[among], [g for g, counts in zip(groups, among, strict=True) if counts])

    accuracy = of(predicted == labels, labels >= 0)
    for c in range(classes):
        assert found.per_class["recall"][c] == of(predicted == c, labels == c)
        assert found.per_class["precision"][c] == of(labels == c, predicted == c)
        assert found.per_class["specificity"][c] == of(predicted != c, labels != c)
    assert found.scalars["accuracy"] == accuracy
    if classes == 2:
        for name in PER_CLASS:
            assert found.scalars[name] == found.per_class[name][1], name
    else:
        assert found.scalars["recall"] == accuracy
        assert found.scalars["specificity"] not in [accuracy, *found.per_class["specificity"]]


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("patients", [12, 200])
def test_intervals_contain_the_value(classes: int, patients: int) -> None:
    images = made_up(patients, classes, per_patient=2)
    metrics, found = WeightedMetrics(*images), intervals(*images)
    once = metrics.every(np.ones((1, patients)))
    assert tuple(found.scalars) == SCALARS and tuple(found.per_class) == PER_CLASS
    pairs = [(name, found.scalars[name], once.scalars[name][0]) for name in SCALARS]
    pairs += [(n, found.per_class[n][c], once.per_class[n][0, c]) for n in PER_CLASS for c in range(classes)]
    assert patients == 12 or all(bounds for _, bounds, _ in pairs)
    for name, bounds, value in pairs:
        low, high = bounds or (-np.inf, np.inf)
        assert low <= value <= high and low < high, name


@quick
@given(
    values=st.lists(st.integers(0, 20), min_size=2, max_size=60),
    value=st.integers(0, 20),
    left_out=st.lists(st.integers(0, 20), min_size=2, max_size=9),
)
def test_any_interval_contains_its_value(values: list[int], value: int, left_out: list[int]) -> None:
    drawn = np.array(values) / 20
    corrected, shifted = bca(drawn, value / 20, np.array(left_out) / 20), shifted_percentiles(drawn, value / 20)
    assert corrected or np.mean(drawn == value / 20) > 0.5
    assert shifted or value == 0 or len({*values}) == 1
    for found in (corrected, shifted):
        low, high = found or (value / 20 - 1, value / 20)
        assert low <= value / 20 <= high and high - low > 1e-10
    assert shifted is None or shifted[0] >= 0


def test_resamples_that_agree_but_for_a_few_give_no_interval() -> None:
    """Their percentiles are equal, although the resamples are not."""
    values = np.append(np.ones(995), np.full(5, 0.9))
    assert bca(values, 1.0, np.append(np.ones(8), 0.9)) is None
    assert shifted_percentiles(np.append(np.zeros(995), np.full(5, 1e-9)), 0.0) is None
    assert bca(np.append(values, np.full(300, 0.9)), 1.0, np.append(np.ones(8), 0.9)) is not None


@pytest.mark.parametrize(
    ("value", "left_out"),
    [
        (0.1, np.arange(9.0)),  # a z0 of -1.3
        (0.5, np.append(np.nan, np.arange(9.0))),
        (0.5, np.ones(9)),
    ],
)
def test_an_extreme_correction_is_left_out(value: float, left_out: np.ndarray) -> None:
    values = np.linspace(0, 1, 1001)
    assert bca(values, value, left_out) == pytest.approx((0.025, 0.975))
    assert bca(values, 0.4, np.arange(9.0) ** 2) != pytest.approx((0.025, 0.975), abs=0.05)


def test_where_few_resamples_define_a_metric_there_is_no_interval() -> None:
    values, left_out = np.append(np.arange(95.0), [np.nan] * 5), np.arange(9.0)
    assert bca(values, 47.0, left_out) == pytest.approx((94 * 0.025, 94 * 0.975))
    assert bca(np.append(values, np.nan), 47.0, left_out) is None
    assert bca(values, np.nan, left_out) is None
    assert shifted_percentiles(np.append(values, np.nan), 47.0) is None


def test_the_calibration_error_has_percentiles_without_what_resampling_adds() -> None:
    images = made_up(60, per_patient=2)
    drawn = on_resamples(images).scalars["ece"]
    value = WeightedMetrics(*images).every(np.ones((1, 60))).scalars["ece"][0]
    low, high = intervals(*images).scalars["ece"] or NOWHERE
    added = drawn.mean() - value
    assert added > 0.01
    expected = np.quantile(drawn, [0.025, 0.975]) - 2 * added
    assert (low, high) == pytest.approx((max(expected[0], 0), max(expected[1], value)))
    assert shifted_percentiles(np.array([0.1, 0.2, 0.9]), 0.3) == (0.0, pytest.approx(0.665))
    assert shifted_percentiles(np.array([0.1, 0.2, 0.9]), 0.05) == (0.0, pytest.approx(0.19))
    assert shifted_percentiles(np.array([0.3, 0.4, 0.5]), 0.1) == (0.0, 0.1)  # all of them at 0, up to the value


def test_the_calibration_error_of_a_calibrated_model_may_be_nothing() -> None:
    """Percentiles that are centred on the value contain the truth, 0, in hardly any test set."""
    generator, inside = np.random.default_rng(0), 0
    for _ in range(40):
        p = generator.beta(1, 1, 100)
        labels = (generator.random(100) < p).astype(np.int64)
        metrics = WeightedMetrics(np.stack([1 - p, p], axis=1), labels, [str(i) for i in range(100)])
        drawn = resample(metrics.calibration, 100, 300).scalars["ece"]
        low, _ = shifted_percentiles(drawn, metrics.calibration(np.ones((1, 100))).scalars["ece"][0]) or NOWHERE
        inside += low == 0
    assert inside >= 14


@pytest.mark.parametrize("classes", [2, 4])
def test_calibration_alone_is_as_among_all(classes: int) -> None:
    images = made_up(60, classes, per_patient=2)
    every = intervals(*images).scalars
    assert calibration_intervals(*images) == {name: every[name] for name in ("log_loss", "brier", "ece")}


@pytest.mark.parametrize("classes", [2, 4])
def test_perfect_predictions_have_intervals_of_proportions_alone(classes: int) -> None:
    labels = np.arange(40) % classes
    found = intervals(np.eye(classes)[labels], labels, [str(i) for i in range(40)])
    known = {name for name, bounds in found.scalars.items() if bounds}
    assert known == {"accuracy", "recall"} | ({"precision", "specificity"} if classes == 2 else set())
    assert found.scalars["accuracy"] == wilson(40, 40)
    assert found.per_class["recall"] == [wilson(40 // classes, 40 // classes)] * classes
    assert found.per_class["auroc"] == [None] * classes


def test_a_class_of_few_patients_leaves_averages_over_classes_without_an_interval() -> None:
    """Two patients of 60 are in 86 % of the resamples, and four in 98 %."""
    probabilities, _, groups = made_up(60)
    for patients, known in ((2, False), (4, True)):
        found = intervals(probabilities, (np.arange(60) >= patients).astype(np.int64), groups)
        for name in ("balanced_accuracy", "macro_recall", "macro_precision", "macro_f1", "auroc"):
            assert bool(found.scalars[name]) == known, name
        assert bool(found.per_class["f1"][0]) == known and found.scalars["accuracy"]


def test_a_class_without_images_has_only_a_specificity() -> None:
    probabilities, _, groups = made_up(60, 4)
    found = intervals(probabilities, np.arange(60) % 3, groups)
    assert [name for name in PER_CLASS if found.per_class[name][3]] == ["precision", "specificity"]
    assert found.scalars["auroc"] is None and found.scalars["auprc"] is None
    assert found.scalars["accuracy"] and found.scalars["macro_f1"]


def test_one_patient_says_little() -> None:
    probabilities, labels, _ = made_up(40)
    found = intervals(probabilities, labels, ["patient"] * 40)
    assert {name for name, bounds in found.scalars.items() if bounds} == {
        "accuracy", "recall", "precision", "specificity"
    }  # fmt: skip
    low, high = found.scalars["accuracy"] or NOWHERE
    assert high - low > 0.6
