"""Every metric against scikit-learn, by its definition in DESIGN.md."""

import math
import warnings

import numpy as np
import pytest
import sklearn.metrics as sk
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from xray_lightning.evaluation.metrics import (
    CALIBRATION_BINS,
    PER_CLASS,
    SCALARS,
    ClassificationMetrics,
    confusion_matrix,
    per_class_metrics,
    scalar_metrics,
)


def specificity(labels: np.ndarray, predicted: np.ndarray, one: int) -> float:
    return float((predicted[labels != one] != one).mean())


def calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Guo et al. 2017, in numpy: the last bin holds 1."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gaps = [abs((confidence[bins == b] - right[bins == b]).sum()) for b in range(CALIBRATION_BINS)]
    return float(sum(gaps) / len(labels))


def each_class_by_sklearn(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    classes = range(probabilities.shape[1])
    predicted = probabilities.argmax(axis=1)
    precision, recall, f1, _ = sk.precision_recall_fscore_support(labels, predicted, labels=classes, zero_division=0)
    return {
        "recall": recall,
        "precision": precision,
        "f1": f1,
        "specificity": np.array([specificity(labels, predicted, c) for c in classes]),
        "auroc": np.array([sk.roc_auc_score(labels == c, probabilities[:, c]) for c in classes]),
        "auprc": np.array([sk.average_precision_score(labels == c, probabilities[:, c]) for c in classes]),
    }


def by_sklearn(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    classes = probabilities.shape[1]
    two = classes == 2
    predicted = probabilities.argmax(axis=1)
    each = each_class_by_sklearn(probabilities, labels)
    average = {"average": "binary" if two else "weighted", "zero_division": 0}
    macro = {"average": "macro", "zero_division": 0}
    one_hot = np.eye(classes)[labels]
    return {
        "accuracy": sk.accuracy_score(labels, predicted),
        "recall": sk.recall_score(labels, predicted, **average),
        "precision": sk.precision_score(labels, predicted, **average),
        "f1": sk.f1_score(labels, predicted, **average),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, predicted),
        "specificity": each["specificity"][1] if two else each["specificity"].mean(),
        "auroc": sk.roc_auc_score(labels, probabilities[:, 1] if two else probabilities, multi_class="ovr"),
        "auprc": each["auprc"][1] if two else each["auprc"].mean(),
        "mcc": sk.matthews_corrcoef(labels, predicted),
        "log_loss": sk.log_loss(labels, probabilities, labels=range(classes)),
        "brier": ((probabilities - one_hot) ** 2).sum(axis=1).mean() / (2 if two else 1),
        "ece": calibration_error(probabilities, labels),
        "macro_recall": sk.recall_score(labels, predicted, **macro),
        "macro_precision": sk.precision_score(labels, predicted, **macro),
        "macro_f1": sk.f1_score(labels, predicted, **macro),
    }


def made_up(classes: int, count: int, skill: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (count, classes) float64 and labels of which every class has some."""
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.r_[np.arange(classes), generator.integers(0, classes, count - classes)])
    logits = generator.normal(size=(count, classes)) + skill * np.eye(classes)[labels]
    powers = np.exp(logits)
    return powers / powers.sum(axis=1, keepdims=True), labels


def values(metrics: dict[str, Tensor]) -> dict[str, float]:
    return {name: value.item() for name, value in metrics.items()}


@pytest.mark.parametrize("classes", [2, 3, 4])
@settings(deadline=None, max_examples=25, database=None, derandomize=True)
@given(count=st.integers(8, 300), skill=st.floats(-2, 6), seed=st.integers(0, 2**32 - 1))
def test_every_metric_is_scikit_learns(classes: int, count: int, skill: float, seed: int) -> None:
    probabilities, labels = made_up(classes, count, skill, seed)
    p, y = torch.from_numpy(probabilities), torch.from_numpy(labels)
    scalars = scalar_metrics(p, y)
    assert tuple(scalars) == SCALARS
    assert values(scalars) == pytest.approx(by_sklearn(probabilities, labels), abs=2e-6)
    each = per_class_metrics(p, y)
    assert tuple(each) == PER_CLASS
    for name, expected in each_class_by_sklearn(probabilities, labels).items():
        np.testing.assert_allclose(each[name].numpy(), expected, atol=2e-6, err_msg=name)
    np.testing.assert_array_equal(confusion_matrix(p, y), sk.confusion_matrix(labels, probabilities.argmax(axis=1)))


@settings(deadline=None, max_examples=40, database=None, derandomize=True)
@given(
    rows=st.lists(st.tuples(st.sampled_from([0.03, 0.31, 0.5, 0.77, 0.97, 1.0]), st.booleans()), min_size=1),
)
def test_calibration_error_of_tied_and_certain_predictions(rows: list[tuple[float, bool]]) -> None:
    positive = np.array([probability for probability, _ in rows])
    probabilities = np.stack([1 - positive, positive], axis=1)
    labels = np.array([int(label) for _, label in rows])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        measured = scalar_metrics(torch.from_numpy(probabilities), torch.from_numpy(labels))["ece"].item()
    assert measured == pytest.approx(calibration_error(probabilities, labels), abs=2e-6)


def test_two_classes_by_hand() -> None:
    positive = torch.tensor([0.9, 0.8, 0.4, 0.6, 0.1, 0.2, 0.3, 0.7])
    labels = torch.tensor([1, 1, 1, 0, 0, 0, 0, 1])
    found = values(scalar_metrics(torch.stack([1 - positive, positive], dim=1), labels))
    expected = {
        "accuracy": 6 / 8,
        "recall": 3 / 4,
        "precision": 3 / 4,
        "f1": 3 / 4,
        "balanced_accuracy": 3 / 4,
        "specificity": 3 / 4,
        "auroc": 15 / 16,
        "auprc": (1 + 1 + 1 + 4 / 5) / 4,
        "mcc": 1 / 2,
        "log_loss": -sum(map(math.log, (0.9, 0.8, 0.4, 0.4, 0.9, 0.8, 0.7, 0.7))) / 8,
        "brier": (0.01 + 0.04 + 0.36 + 0.36 + 0.01 + 0.04 + 0.09 + 0.09) / 8,
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-6)


def test_the_second_class_is_the_positive_one() -> None:
    probabilities = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.4, 0.6]])
    found = scalar_metrics(probabilities, torch.tensor([0, 0, 1, 1]))
    assert found["recall"] == 0.5 and found["precision"] == 1 and found["specificity"] == 1


def test_more_classes_are_weighted_by_their_frequency() -> None:
    probabilities = torch.eye(4)[[0, 0, 0, 0, 1, 2, 3, 3]] * 0.6 + 0.1
    labels = torch.tensor([0, 0, 0, 1, 1, 2, 3, 0])
    found = values(scalar_metrics(probabilities, labels))
    assert found["recall"] == pytest.approx(4 / 8 * 3 / 4 + 2 / 8 * 1 / 2 + 1 / 8 + 1 / 8)
    assert found["precision"] == pytest.approx(4 / 8 * 3 / 4 + 2 / 8 * 1 + 1 / 8 + 1 / 8 * 1 / 2)
    assert found["macro_recall"] == pytest.approx((3 / 4 + 1 / 2 + 1 + 1) / 4)
    right, wrong = 0.3**2 + 3 * 0.1**2, 0.7**2 + 0.9**2 + 2 * 0.1**2
    assert found["brier"] == pytest.approx((6 * right + 2 * wrong) / 8)


@pytest.mark.parametrize("classes", [2, 4])
def test_perfect_predictions(classes: int) -> None:
    labels = torch.arange(12) % classes
    found = values(scalar_metrics(torch.eye(classes)[labels], labels))
    losses = {"log_loss", "brier", "ece"}
    assert found == pytest.approx({name: 0.0 if name in losses else 1.0 for name in SCALARS}, abs=1e-6)


@pytest.mark.parametrize("classes", [2, 4])
def test_constant_predictions_score_as_chance(classes: int) -> None:
    labels = torch.arange(12) % classes
    probabilities = torch.full((12, classes), 0.1)
    probabilities[:, 0] = 1 - 0.1 * (classes - 1)
    found = values(scalar_metrics(probabilities, labels))
    assert found["auroc"] == pytest.approx(0.5)
    assert found["mcc"] == 0
    assert found["balanced_accuracy"] == pytest.approx(1 / classes)
    assert all(map(math.isfinite, found.values()))


def test_a_certain_and_wrong_prediction_has_a_finite_loss() -> None:
    found = scalar_metrics(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([1, 0]))
    assert found["log_loss"].isfinite()


def test_a_class_without_images_has_no_auroc_and_no_weight() -> None:
    probabilities, _ = made_up(4, 20, 1.0, 0)
    labels = np.arange(20) % 3
    p, y = torch.from_numpy(probabilities), torch.from_numpy(labels)
    each = per_class_metrics(p, y)
    for name in ("auroc", "auprc"):
        assert each[name].isnan().tolist() == [False, False, False, True], name
    predicted = probabilities.argmax(axis=1)
    found = values(scalar_metrics(p, y))
    by_class = np.array([(predicted[labels == c] == c).mean() for c in range(3)])
    assert (predicted == 3).any()
    for name in ("recall", "f1"):
        assert each[name].isnan().tolist() == [False, False, False, True], name
    assert each["precision"][3] == 0 and each["specificity"][3] == pytest.approx((predicted != 3).mean())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # y_pred contains classes not in y_true
        assert found["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(labels, predicted))
    for name in ("recall", "precision", "f1"):
        theirs = getattr(sk, f"{name}_score")
        options = {"labels": range(3), "zero_division": 0}
        assert found[f"macro_{name}"] == pytest.approx(theirs(labels, predicted, average="macro", **options)), name
        assert found[name] == pytest.approx(theirs(labels, predicted, average="weighted", **options)), name
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(labels, predicted))
    assert found["recall"] == pytest.approx(by_class @ np.bincount(labels) / 20)


def test_what_images_of_one_class_do_not_tell() -> None:
    positive = torch.tensor([0.9, 0.4, 0.8, 0.7])
    probabilities = torch.stack([1 - positive, positive], dim=1)
    diseased, healthy = (values(scalar_metrics(probabilities, torch.full((4,), c))) for c in (1, 0))
    undefined = {name for name, value in diseased.items() if math.isnan(value)}
    assert undefined == {"specificity", "auroc", "auprc"}
    assert diseased["balanced_accuracy"] == diseased["macro_recall"] == diseased["recall"] == 3 / 4
    assert {name for name, value in healthy.items() if math.isnan(value)} == {"recall", "f1", "auroc", "auprc"}
    assert healthy["precision"] == 0 and healthy["specificity"] == healthy["balanced_accuracy"] == 1 / 4


def test_the_precision_of_a_class_that_is_never_predicted_is_0() -> None:
    each = per_class_metrics(torch.tensor([[0.9, 0.1], [0.8, 0.2]]), torch.tensor([0, 1]))
    assert [each[name][1] for name in ("precision", "recall", "f1")] == [0, 0, 0]


@pytest.mark.parametrize("classes", [2, 4])
def test_metrics_of_batches_are_those_of_the_whole(classes: int) -> None:
    probabilities, labels = made_up(classes, 50, 1.0, 1)
    logits, y = torch.from_numpy(probabilities).log().float(), torch.from_numpy(labels)
    metric = ClassificationMetrics()
    for _ in range(2):
        for start in range(0, 50, 7):
            metric.update(logits[start : start + 7], y[start : start + 7])
        assert values(metric.compute()) == values(scalar_metrics(logits.double().softmax(dim=1), y))
        gathered, scored = metric.gathered()
        assert gathered.dtype == np.float64 and np.array_equal(scored, labels)
        np.testing.assert_allclose(gathered, probabilities, rtol=1e-6)
        metric.reset()
