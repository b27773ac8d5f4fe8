"""Metrics of images that count several times or not at all, for many choices of how often at once.

Images come in patient groups, and each counts as often as its group. Most metrics follow from sums over images, so one
matrix product of the weights with the sums of each group gives them; the ranking metrics follow from weights in order
of the score, summed cumulatively.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xray_lightning.evaluation.metrics import CALIBRATION_BINS, PER_CLASS, RANKING, SCALARS, WEIGHTED

EPS = np.finfo(np.float32).eps


@dataclass(frozen=True)
class Weighted:
    """Metrics for B choices of weights, as `metrics.py` defines them, NaN where the weights do not: by name (B,) and
    for each class (B, K) float64."""

    scalars: dict[str, np.ndarray]
    per_class: dict[str, np.ndarray]


def joined(parts: Sequence[Weighted]) -> Weighted:
    """One after the other."""
    return Weighted(
        {name: np.concatenate([part.scalars[name] for part in parts]) for name in parts[0].scalars},
        {name: np.concatenate([part.per_class[name] for part in parts]) for name in parts[0].per_class},
    )


class Ranking:
    """Images in order of falling score, to be cut after each distinct one, as scikit-learn does."""

    def __init__(self, scores: np.ndarray, positive: np.ndarray, group_index: np.ndarray) -> None:
        order = np.argsort(-scores, kind="stable")
        self.group_index = group_index[order]
        self.positive = positive[order].astype(np.float64)
        self.last = np.flatnonzero(np.diff(scores[order], append=-np.inf))  # image of each of T distinct scores

    def counts(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """True and false positives (B, T) above each cut, from the strictest to none, for weights (B, G)."""
        of_images = weights[:, self.group_index]
        called = of_images.cumsum(axis=1)[:, self.last]
        of_images *= self.positive
        hits = of_images.cumsum(axis=1)[:, self.last]
        return hits, called - hits

    def areas(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """AUROC and average precision (B,), NaN where all or none of the images are positive."""
        hits, alarms = self.counts(weights)
        positives, negatives = hits[:, -1], alarms[:, -1]
        gained = np.diff(hits, axis=1, prepend=0)
        correct = np.einsum("bt,bt->b", np.diff(alarms, axis=1, prepend=0), hits - gained / 2)  # pairs, ties half
        precise = np.einsum("bt,bt->b", gained, hits / np.maximum(hits + alarms, 1))
        mixed = (positives > 0) & (negatives > 0)
        pairs = np.where(mixed, positives * negatives, np.nan)
        return correct / pairs, precise / np.where(mixed, positives, np.nan)


class WeightedMetrics:
    """Metrics of probabilities (N, K) and labels (N,) as functions of weights (B, G): whole numbers, of which none may
    be all 0, for each of the G groups in order of their names.

    Balanced accuracy and macro averages are over the classes of the labels, so that all weights judge the same ones:
    NaN for weights that leave none of such a class's images.
    """

    def __init__(self, probabilities: np.ndarray, labels: np.ndarray, groups: Sequence[str]) -> None:
        names, group_index = np.unique(np.asarray(groups), return_inverse=True)
        probabilities = np.asarray(probabilities, dtype=np.float64)
        rows, k = np.arange(len(labels)), probabilities.shape[1]
        predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
        bins = np.minimum((confidence * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
        of_images = np.zeros((len(labels), k * k + 2 + CALIBRATION_BINS))
        of_images[rows, labels * k + predicted] = 1
        of_images[:, k * k] = -np.log(np.maximum(probabilities[rows, labels], EPS))
        of_images[:, k * k + 1] = np.square(probabilities - np.eye(k)[labels]).sum(axis=1) / (2 if k == 2 else 1)
        of_images[rows, k * k + 2 + bins] = confidence - (predicted == labels)
        self.classes, self.groups = k, len(names)
        self.present = np.unique(labels)
        self.sums = np.zeros((len(names), of_images.shape[1]))
        np.add.at(self.sums, group_index, of_images)
        self.rankings = [Ranking(probabilities[:, c], labels == c, group_index) for c in range(k)]

    def every(self, weights: np.ndarray) -> Weighted:
        """Those of SCALARS and of PER_CLASS."""
        k = self.classes
        matrix = (weights @ self.sums[:, : k * k]).reshape(-1, k, k)
        n = matrix.sum(axis=(1, 2))
        each = _decided(matrix)
        areas = [ranking.areas(weights) for ranking in self.rankings]
        each["auroc"], each["auprc"] = (np.stack(values, axis=1) for values in zip(*areas, strict=True))
        actual = matrix.sum(axis=2)
        complete = np.where((actual[:, self.present] > 0).all(axis=1), 1.0, np.nan)
        macro = {
            name: (v if name in RANKING else v[:, self.present]).mean(axis=1) * complete for name, v in each.items()
        }
        averages = {name: v[:, 1] for name, v in each.items()} if k == 2 else macro | _by_share(each, actual)
        values = averages | {
            "accuracy": np.trace(matrix, axis1=1, axis2=2) / n,
            "balanced_accuracy": macro["recall"],
            "mcc": _matthews(matrix),
            **self.calibration(weights).scalars,
            **{f"macro_{name}": macro[name] for name in WEIGHTED},
        }
        return Weighted({name: values[name] for name in SCALARS}, {name: each[name] for name in PER_CLASS})

    def calibration(self, weights: np.ndarray) -> Weighted:
        """log_loss, brier and ece alone, which need no ranking."""
        k2 = self.classes**2
        sums = weights @ self.sums
        n = sums[:, :k2].sum(axis=1)
        errors = np.abs(sums[:, k2 + 2 :]).sum(axis=1) / n
        return Weighted({"log_loss": sums[:, k2] / n, "brier": sums[:, k2 + 1] / n, "ece": errors}, {})


def _decided(matrix: np.ndarray) -> dict[str, np.ndarray]:
    """Of each class, by confusion matrices (B, K, K): the metrics (B, K) that need no ranking."""
    hits = np.diagonal(matrix, axis1=1, axis2=2)
    actual, predicted = matrix.sum(axis=2), matrix.sum(axis=1)
    others = actual.sum(axis=1, keepdims=True) - actual
    of_class, of_others = (np.where(count > 0, count, np.nan) for count in (actual, others))
    return {
        "recall": hits / of_class,
        "precision": hits / np.maximum(predicted, 1),
        "f1": 2 * hits / (of_class + predicted),
        "specificity": (others - (predicted - hits)) / of_others,
    }


def _by_share(each: dict[str, np.ndarray], actual: np.ndarray) -> dict[str, np.ndarray]:
    """Averages (B,) that are weighted by each class's images (B, K); a class without any has no part in them."""
    parts = {name: np.where(actual > 0, each[name], 0) * actual for name in WEIGHTED}
    return {name: part.sum(axis=1) / actual.sum(axis=1) for name, part in parts.items()}


def _matthews(matrix: np.ndarray) -> np.ndarray:
    """torchmetrics' coefficient (B,): where only one class occurs or is predicted it is 0, but for two classes 1 or
    -1 if all or none is right, and else the limit that Chicco and Jurman (2020, BMC Genomics) give."""
    actual, predicted = matrix.sum(axis=2), matrix.sum(axis=1)
    n, right = actual.sum(axis=1), np.trace(matrix, axis1=1, axis2=2)
    covariance = right * n - (actual * predicted).sum(axis=1)
    spread = (n**2 - (actual**2).sum(axis=1)) * (n**2 - (predicted**2).sum(axis=1))
    value = covariance / np.sqrt(np.where(spread > 0, spread, 1))
    if matrix.shape[1] > 2:
        return np.where(spread > 0, value, 0.0)
    limit = np.sqrt(EPS) * (2 * right - n) / np.sqrt(np.concatenate([actual, predicted], axis=1) + EPS).prod(axis=1)
    return np.select([right == n, right == 0, spread > 0], [1.0, -1.0, value], limit)
