"""Bands of curves against scikit-learn and naive loops."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import sklearn.metrics as sk
from hypothesis import given, settings
from hypothesis import strategies as st

from xray_lightning.evaluation.bands import precision_band, roc_band

Curve = Callable[[np.ndarray, np.ndarray], np.ndarray]
Band = Callable[[np.ndarray, np.ndarray, Sequence[str], np.ndarray], tuple[np.ndarray, np.ndarray]]
GRID = np.linspace(0, 1, 21)
quick = settings(deadline=None, max_examples=60, database=None, derandomize=True)


def sensitivities(scores: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """By scikit-learn's curve; where it rises, the upper end."""
    false, true, _ = sk.roc_curve(positive, scores, drop_intermediate=False)
    return np.array([max(np.interp(x, false, true), true[false <= x].max()) for x in GRID])


def precisions(scores: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Of the strictest threshold that reaches each recall, in loops."""
    cuts = [(positive[scores >= t].sum(), positive[scores >= t].mean()) for t in np.unique(scores)[::-1]]
    return np.array([next(p for hits, p in cuts if hits and hits >= x * positive.sum() - 1e-9) for x in GRID])


CURVES = pytest.mark.parametrize(("band", "curve"), [(roc_band, sensitivities), (precision_band, precisions)])


@CURVES
@quick
@given(rows=st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=1, max_size=30))
def test_the_band_of_one_patient_is_the_curve(band: Band, curve: Curve, rows: list[tuple[int, bool]]) -> None:
    scores = np.array([0, 0.5, *(score / 12 for score, _ in rows)])
    positive = np.array([False, True, *(label for _, label in rows)])
    low, high = band(scores, positive, ["patient"] * len(scores), GRID)
    np.testing.assert_allclose(low, curve(scores, positive), atol=1e-12)
    np.testing.assert_array_equal(low, high)


@CURVES
def test_a_band_is_that_of_a_loop_over_resamples(band: Band, curve: Curve) -> None:
    generator = np.random.default_rng(1)
    patient = np.arange(400) // 4
    positive = generator.random(100)[patient] < 0.5
    noise = generator.normal(size=100)[patient] + 0.3 * generator.normal(size=400)
    scores = (1 / (1 + np.exp(-1.5 * (2 * positive - 1) - 1.4 * noise))).round(2)
    groups = [f"patient {i}" for i in patient]
    curves = []
    for _ in range(500):
        rows = (4 * generator.integers(0, 100, 100)[:, None] + np.arange(4)).ravel()
        curves.append(curve(scores[rows], positive[rows]))
    expected = np.quantile(curves, [0.025, 0.975], axis=0)
    for found, bound in zip(band(scores, positive, groups, GRID), expected, strict=True):
        assert np.abs(found - bound).mean() < 0.02  # chance moves single points by more: curves are stairs


@pytest.mark.parametrize("band", [roc_band, precision_band])
def test_without_positives_there_is_no_band(band: Band) -> None:
    groups = [f"patient {i}" for i in range(30)]
    assert np.isnan(band(np.linspace(0, 1, 30), np.zeros(30, dtype=bool), groups, GRID)).all()
