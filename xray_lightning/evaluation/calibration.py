"""Calibration: one temperature for all classes, and how often a stated confidence is right.

Guo et al., "On Calibration of Modern Neural Networks", 2017.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

COLDEST, HOTTEST = 0.05, 20.0


def fit_temperature(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The temperature in [0.05, 20] at which `temper` gives the least log-loss on (N, classes) for labels (N,).

    1 where none is defined: without images, with probabilities that are not finite, or where the likeliest
    class is always right, so that the loss falls for ever as the temperature goes to 0.
    """
    if not np.isfinite(probabilities).all():
        return 1.0
    logits = _logits(probabilities)
    margins = logits - np.take_along_axis(logits, labels[:, None], axis=1)
    if not (margins > 0).any():
        return 1.0
    farthest = margins.max(axis=1, keepdims=True)

    def slope(log_temperature: float) -> float:
        """Derivative of the log-loss by 1 / temperature, in which the loss is convex."""
        powers = np.exp((margins - farthest) * np.exp(-log_temperature))
        return float(((powers * margins).sum(axis=1) / powers.sum(axis=1)).mean())

    low, high = np.log(COLDEST), np.log(HOTTEST)
    if slope(low) <= 0:
        return COLDEST
    if slope(high) >= 0:
        return HOTTEST
    return float(np.exp(brentq(slope, low, high, xtol=1e-10)))


def temper(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """softmax(log p / temperature) of (N, classes) in float64. The order of the classes stays as it is.

    `temper(calibrated, 1 / temperature)` gives the probabilities from before back, up to rounding.
    """
    logits = _logits(probabilities) / temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def _logits(probabilities: np.ndarray) -> np.ndarray:
    """Logits but for a constant an image; a probability of 0 counts as the smallest normal float64."""
    return np.log(np.maximum(probabilities.astype(np.float64), np.finfo(np.float64).tiny))


@dataclass(frozen=True)
class ReliabilityBin:
    """Images whose confidence is in [low, high); `confidence` is its mean, `correct` the share that is right."""

    low: float
    high: float
    n: int
    confidence: float
    correct: float


def reliability(confidence: np.ndarray, correct: np.ndarray, bins: int = 10) -> list[ReliabilityBin]:
    """The diagram's bins of equal width for confidence (N,) in [0, 1] and correct (N,) bool, lowest first.

    Edges as in `metrics.calibration_error`: the last bin holds 1. Empty bins are left out.
    """
    positions = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    counts, confidences, hits = (
        np.bincount(positions, weights, minlength=bins).tolist() for weights in (None, confidence, correct)
    )
    return [
        ReliabilityBin(b / bins, (b + 1) / bins, n, confidences[b] / n, hits[b] / n) for b, n in enumerate(counts) if n
    ]
