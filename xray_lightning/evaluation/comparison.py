"""Differences between runs that are scored on the same images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import erfc, isfinite, sqrt

import numpy as np
from scipy.special import bdtr
from scipy.stats import rankdata

Z95 = 1.959963984540054


@dataclass(frozen=True)
class Difference:
    """Run a's metric less run b's, a 95 % interval, and the two-sided p of no difference.

    `adjusted` is p after Holm over all pairs. None is what the images do not define.
    """

    value: float | None
    low: float | None
    high: float | None
    p: float | None
    adjusted: float | None = None


@dataclass(frozen=True)
class Comparison:
    """Runs a and b: accuracy over patient groups, AUROC by DeLong, and McNemar's p of the images that only one of
    them has right."""

    a: str
    b: str
    accuracy: Difference
    only_a: int
    only_b: int
    mcnemar: float
    auroc: Difference


def compare(
    runs: Mapping[str, np.ndarray], labels: np.ndarray, groups: Sequence[str], pairs: Sequence[tuple[str, str]]
) -> list[Comparison]:
    """Each pair of names of runs, whose probabilities are (N, classes), on labels (N,) of patient groups (N,).

    The AUROC is the positive class's for two classes and the mean over classes against the rest for more.
    Intervals and their p take the groups for what is independent. McNemar's p is exact, but takes the images for it:
    of patients with several images it calls far too many differences real (bench/coverage.py). Holm's adjustment is
    made over all pairs, for each of the two metrics by itself. Runs that predict the same differ by 0 with p 1. A class
    that no image or every image is of leaves the AUROC undefined; a difference without any variation among the groups
    has neither interval nor p, but for 0.
    """
    codes = np.unique(np.asarray(groups), return_inverse=True)[1]
    correct = {name: p.argmax(axis=1) == labels for name, p in runs.items()}
    aurocs, influences = _macro(np.stack(list(runs.values())), labels, codes)
    place = {name: r for r, name in enumerate(runs)}
    found = []
    for a, b in pairs:
        only_a, only_b, p = mcnemar(correct[a], correct[b])
        accuracy = _difference(*_mean_change(correct[a], correct[b], codes))
        i, j = place[a], place[b]
        auroc = _difference(float(aurocs[i] - aurocs[j]), influences[i] - influences[j])
        found.append(Comparison(a, b, accuracy, only_a, only_b, p, auroc))
    accuracies, ranked = (_adjusted([getattr(c, metric) for c in found]) for metric in ("accuracy", "auroc"))
    return [replace(c, accuracy=x, auroc=y) for c, x, y in zip(found, accuracies, ranked, strict=True)]


def _mean_change(a: np.ndarray, b: np.ndarray, codes: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean of a - b (N,) bool, and each group's part in its error: a sandwich estimate over group sums."""
    change = a.astype(np.float64) - b
    value = float(change.mean())
    scale = _small_sample(codes) / len(change)
    return value, _by_group((change - value)[None] * scale, codes)[0]


def _difference(value: float, influence: np.ndarray) -> Difference:
    """By the normal approximation, from each group's part (G,) in the error: their squares sum to the variance."""
    if not isfinite(value):
        return Difference(None, None, None, None)
    error = sqrt(influence @ influence)
    if not value and not error:
        return Difference(0.0, None, None, 1.0)
    if not error or not isfinite(error):
        return Difference(value, None, None, None)
    p = erfc(abs(value) / error / sqrt(2))
    return Difference(value, value - Z95 * error, value + Z95 * error, p)


def _adjusted(differences: Sequence[Difference]) -> list[Difference]:
    """With `adjusted` filled in, over those that have a p."""
    adjusted = iter(holm([d.p for d in differences if d.p is not None]))
    return [d if d.p is None else replace(d, adjusted=next(adjusted)) for d in differences]


def delong(
    scores: np.ndarray, positive: np.ndarray, groups: Sequence[str] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """AUROC (R,) of each run's scores (R, N) for positive (N,) bool, and their covariance (R, R).

    DeLong, DeLong & Clarke-Pearson 1988, by midranks as Sun & Xu 2014. With patient groups (N,) the structural
    components are summed within groups first, positive and negative images together, as Obuchowski, "Nonparametric
    Analysis of Clustered ROC Curve Data", 1997. With one image a group that is DeLong's to the digit; otherwise it
    differs from Obuchowski's only in the small-sample factor of the covariance between a group's positive and
    negative images: the geometric mean of the two variances' factors. NaN: the AUROC where all or no images are
    positive, and the covariance where all positive or all negative images are of one group.
    """
    codes = np.arange(len(positive)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    auroc, influence = _auroc(scores, positive, codes)
    return auroc, influence @ influence.T


def _macro(probabilities: np.ndarray, labels: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AUROC (R,) of probabilities (R, N, classes) and each group's part in its error (R, G).

    The mean over classes is linear in the classes' AUROCs, so a group's part in its error is the mean of its parts
    in theirs; that keeps the covariance between classes, for which the same images are positive or negative.
    """
    classes = probabilities.shape[2]
    judged = (1,) if classes == 2 else range(classes)
    aurocs, influences = zip(*(_auroc(probabilities[:, :, c], labels == c, codes) for c in judged), strict=True)
    return np.mean(aurocs, axis=0), np.mean(influences, axis=0)


def _auroc(scores: np.ndarray, positive: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AUROC (R,) of scores (R, N) and each group's part in its error (R, G), whose products sum to the covariance."""
    m, n = int(positive.sum()), int((~positive).sum())
    if not m or not n:
        return np.full(len(scores), np.nan), np.full((len(scores), codes.max(initial=-1) + 1), np.nan)
    ranks = rankdata(scores, axis=1)
    components = np.empty_like(ranks)  # the share of images of the other kind that an image is ranked right against
    components[:, positive] = (ranks[:, positive] - rankdata(scores[:, positive], axis=1)) / n
    components[:, ~positive] = 1 - (ranks[:, ~positive] - rankdata(scores[:, ~positive], axis=1)) / m
    auroc = components[:, positive].mean(axis=1)
    scale = np.where(positive, _small_sample(codes[positive]) / m, _small_sample(codes[~positive]) / n)
    return auroc, _by_group((components - auroc[:, None]) * scale, codes)


def _small_sample(codes: np.ndarray) -> float:
    """Root of the factor g / (g - 1) that a variance estimated from g groups needs; NaN for a single one."""
    g = len(np.unique(codes))
    return sqrt(g / (g - 1)) if g > 1 else np.nan


def _by_group(values: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Sums (R, G) of values (R, N) over the images of each group."""
    return np.stack([np.bincount(codes, row) for row in values])


def mcnemar(correct_a: np.ndarray, correct_b: np.ndarray) -> tuple[int, int, float]:
    """Images (N,) only a has right, only b has right, and the exact two-sided p (McNemar 1947, binomial)."""
    only_a, only_b = int((correct_a & ~correct_b).sum()), int((correct_b & ~correct_a).sum())
    return only_a, only_b, min(1.0, 2 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5)))


def holm(p: Sequence[float]) -> list[float]:
    """p adjusted for as many tests as there are, in the order given (Holm 1979)."""
    order = np.argsort(p)
    stepped = np.asarray(p, np.float64)[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1)
    return adjusted.tolist()
