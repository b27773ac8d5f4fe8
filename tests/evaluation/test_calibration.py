"""Temperatures against other minimisers, reliability against scikit-learn."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.calibration import calibration_curve

from xray_lightning.evaluation.calibration import ReliabilityBin, fit_temperature, reliability, temper
from xray_lightning.evaluation.metrics import CALIBRATION_BINS, calibration_error

quick = settings(deadline=None, max_examples=50, database=None, derandomize=True)


def simulated(count: int, classes: int, temperature: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that are right once their logits are divided by the temperature, and labels."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 1.5, size=(count, classes))
    labels = (softmax(logits, axis=1).cumsum(axis=1) < generator.random((count, 1))).sum(axis=1)
    return softmax(logits * temperature, axis=1), np.minimum(labels, classes - 1)


def log_loss(probabilities: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> float:
    logits = np.log(np.maximum(probabilities, np.finfo(float).tiny)) / temperature
    return float(-log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean())


@pytest.mark.parametrize("classes", [2, 4])
@quick
@given(count=st.integers(30, 300), temperature=st.floats(0.2, 6), seed=st.integers(0, 2**32 - 1))
def test_the_temperature_is_scipys(classes: int, count: int, temperature: float, seed: int) -> None:
    probabilities, labels = simulated(count, classes, temperature, seed)
    fitted = fit_temperature(probabilities, labels)
    found = minimize_scalar(
        lambda x: log_loss(probabilities, labels, np.exp(x)), bounds=np.log([0.05, 20]), options={"xatol": 1e-9}
    )
    assert log_loss(probabilities, labels, fitted) <= found.fun + 1e-12
    assert fitted == pytest.approx(np.exp(found.x), rel=1e-4)
    assert fit_temperature(probabilities, labels) == fitted


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_a_known_temperature_is_recovered(classes: int, temperature: float) -> None:
    probabilities, labels = simulated(20_000, classes, temperature, 1)
    assert fit_temperature(probabilities, labels) == pytest.approx(temperature, rel=0.05)


@quick
@given(
    rows=arrays(np.int64, 12, elements=st.integers(0, 4)),
    labels=arrays(np.int64, 12, elements=st.integers(0, 2)),
)
def test_log_loss_never_rises_whatever_the_probabilities(rows: np.ndarray, labels: np.ndarray) -> None:
    probabilities = np.array([[1, 0, 0], [0, 1e-9, 1], [1e-300, 0.5, 0.5], [0.2, 0.3, 0.5], [0.6, 0.3, 0.1]])[rows]
    temperature = fit_temperature(probabilities, labels)
    assert 0.05 <= temperature <= 20
    before = log_loss(probabilities, labels)
    assert log_loss(probabilities, labels, temperature) <= before + 1e-9 * (1 + before)


@quick
@given(
    logits=arrays(np.float64, (7, 3), elements=st.floats(-60, 60)),
    temperature=st.floats(0.05, 20),
    single=st.booleans(),
)
def test_tempering_keeps_the_likeliest_class_and_can_be_undone(
    logits: np.ndarray, temperature: float, single: bool
) -> None:
    probabilities = softmax(logits.astype(np.float32) if single else logits, axis=1)
    tempered = temper(probabilities, temperature)
    assert tempered.dtype == np.float64
    np.testing.assert_allclose(tempered.sum(axis=1), 1, rtol=1e-14)
    top = probabilities.argmax(axis=1)[:, None]
    np.testing.assert_array_equal(np.take_along_axis(tempered, top, axis=1)[:, 0], tempered.max(axis=1))
    np.testing.assert_allclose(temper(tempered, 1 / temperature), probabilities, atol=1e-6 if single else 1e-12)


def test_tempering_by_hand() -> None:
    roots = np.sqrt([0.9, 0.1])
    np.testing.assert_allclose(temper(np.array([[0.9, 0.1], [0.5, 0.5]]), 2.0)[0], roots / roots.sum())
    for temperature in (0.05, 20.0):
        certain = temper(np.array([[1.0, 0.0], [0.0, 1.0]]), temperature)
        np.testing.assert_allclose(certain, np.eye(2), atol=1e-15)


def test_a_temperature_that_is_not_defined_is_one() -> None:
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6]])
    assert fit_temperature(np.empty((0, 2)), np.empty(0, np.int64)) == 1
    assert fit_temperature(np.full((2, 2), np.nan), np.array([0, 1])) == 1
    assert fit_temperature(np.full((4, 2), 0.5), np.array([0, 1, 1, 0])) == 1
    assert fit_temperature(probabilities, np.array([0, 1])) == 1


def test_a_temperature_stays_within_bounds() -> None:
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6]])
    assert fit_temperature(probabilities, np.array([1, 0])) == 20
    faint = np.repeat([[0.5001, 0.4999], [0.4999, 0.5001]], [99, 1], axis=0)
    assert fit_temperature(faint, np.zeros(100, np.int64)) == 0.05


@quick
@given(count=st.integers(1, 400), bins=st.integers(1, 20), seed=st.integers(0, 2**32 - 1))
def test_reliability_is_scikit_learns(count: int, bins: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    confidence = generator.beta(2, 1, size=count)
    correct = generator.random(count) < confidence
    found = reliability(confidence, correct, bins)
    shares, means = calibration_curve(correct, confidence, n_bins=bins)
    np.testing.assert_allclose([b.correct for b in found], shares)
    np.testing.assert_allclose([b.confidence for b in found], means)
    assert sum(b.n for b in found) == count
    assert all(b.low <= b.confidence < b.high and b.n > 0 for b in found)


@quick
@given(st.lists(st.tuples(st.integers(0, 2 * CALIBRATION_BINS), st.booleans()), min_size=1))
def test_reliability_has_the_edges_of_the_calibration_error(rows: list[tuple[int, bool]]) -> None:
    """Probabilities on edges and half-way between them; the bins' gaps sum to the ECE of metrics.json."""
    positive = np.array([step for step, _ in rows]) / (2 * CALIBRATION_BINS)
    probabilities = np.stack([1 - positive, positive], axis=1)
    labels = np.array([int(label) for _, label in rows])
    found = reliability(probabilities.max(axis=1), probabilities.argmax(axis=1) == labels, CALIBRATION_BINS)
    gap = sum(b.n * abs(b.confidence - b.correct) for b in found) / len(rows)
    assert gap == pytest.approx(
        float(calibration_error(torch.from_numpy(probabilities), torch.from_numpy(labels))), abs=1e-12
    )


def test_the_last_bin_holds_one() -> None:
    only = ReliabilityBin(low=0.5, high=1.0, n=2, confidence=0.75, correct=0.5)
    assert reliability(np.array([0.5, 1.0]), np.array([True, False]), bins=2) == [only]
