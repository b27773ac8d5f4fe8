"""95 % bands of curves, by the bootstrap over patient groups."""

from collections.abc import Callable, Sequence

import numpy as np

from xray_lightning.evaluation.bootstrap import draws, percentiles
from xray_lightning.evaluation.proportions import LEVEL
from xray_lightning.evaluation.weighted import Ranking

BAND_RESAMPLES = 500  # a band is looked at, not read off


def roc_band(
    scores: np.ndarray, positive: np.ndarray, groups: Sequence[str], grid: np.ndarray, level: float = LEVEL
) -> tuple[np.ndarray, np.ndarray]:
    """Pointwise interval of the sensitivity at each false positive rate of `grid` (F,): low and high (F,).

    scores (N,) are the probabilities of the class, positive (N,) bool says which images are of it. From the first 500
    draws of `bootstrap.draws`. Between two cuts of a curve runs a straight line, at a rise its upper end counts. NaN
    where `percentiles` are None.
    """

    def sensitivity(hits: np.ndarray, alarms: np.ndarray) -> np.ndarray:
        if not hits[-1] or not alarms[-1]:
            return np.full(len(grid), np.nan)
        return np.interp(grid, np.append(0, alarms / alarms[-1]), np.append(0, hits / hits[-1]))

    return _band(sensitivity, scores, positive, groups, level)


def precision_band(
    scores: np.ndarray, positive: np.ndarray, groups: Sequence[str], grid: np.ndarray, level: float = LEVEL
) -> tuple[np.ndarray, np.ndarray]:
    """As `roc_band`, of the precision at each recall of `grid`: that of the strictest cut which reaches the recall,
    as the area under the steps (average precision) takes it."""

    def precision(hits: np.ndarray, alarms: np.ndarray) -> np.ndarray:
        if not hits[-1]:
            return np.full(len(grid), np.nan)
        needed = np.maximum(np.ceil(grid * hits[-1] - 1e-9), 1)  # whole images; 0.1 * 30 must not ask for 4
        cuts = np.searchsorted(hits, needed)
        return hits[cuts] / (hits[cuts] + alarms[cuts])

    return _band(precision, scores, positive, groups, level)


def _band(
    curve: Callable[[np.ndarray, np.ndarray], np.ndarray],
    scores: np.ndarray,
    positive: np.ndarray,
    groups: Sequence[str],
    level: float,
) -> tuple[np.ndarray, np.ndarray]:
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    ranking = Ranking(np.asarray(scores, dtype=np.float64), np.asarray(positive), index)
    counts = (ranking.counts(weights) for weights in draws(len(names), BAND_RESAMPLES, seed=0))
    curves = np.array([curve(*pair) for hits, alarms in counts for pair in zip(hits, alarms, strict=True)])
    bounds = np.array([percentiles(values, level) or (np.nan, np.nan) for values in curves.T])
    return bounds[:, 0], bounds[:, 1]
