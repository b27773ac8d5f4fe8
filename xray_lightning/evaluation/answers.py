"""What the answers of several systems are worth, each a class an image, and how the first differs from the others: all
of it with 95 % intervals over patient groups."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from xray_lightning.evaluation.bootstrap import jackknife, resample
from xray_lightning.evaluation.comparison import Difference, compare
from xray_lightning.evaluation.intervals import bca
from xray_lightning.evaluation.proportions import grouped_wilson
from xray_lightning.evaluation.weighted import Weighted

Value = dict[str, float | None]
Answers = Mapping[str, np.ndarray]  # of each system, (N,) int
NONE: Value = {"value": None, "low": None, "high": None}
SHARES = ("sensitivity", "specificity", "accuracy")


def scores(
    answers: Answers, labels: np.ndarray, groups: Sequence[str], classes: int, healthy: int
) -> dict[str, dict[str, Value]]:
    """Of each system sensitivity to any disease, specificity, accuracy and macro F1 over `classes`.

    None where the images do not define it: without ill or healthy ones, and of macro F1 where a class has none.
    """
    f1 = macro_f1(answers, labels, groups, classes)
    return {name: shares(given, labels, groups, healthy) | {"macro_f1": f1[name]} for name, given in answers.items()}


def shares(given: np.ndarray, labels: np.ndarray, groups: Sequence[str], healthy: int) -> dict[str, Value]:
    """Those of `scores` that are proportions, of one system."""
    names = np.asarray(groups)
    return {name: share(hits, names[among]) for name, (hits, among) in _hits(given, labels, healthy).items()}


def share(hits: np.ndarray, groups: Sequence[str] | np.ndarray) -> Value:
    """Of hits (N,) bool; None without images."""
    low, high = grouped_wilson(hits, list(groups)) or (None, None)
    return {"value": float(hits.mean()) if len(hits) else None, "low": low, "high": high}


def _hits(given: np.ndarray, labels: np.ndarray, healthy: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Of each share: what is right, (n,) bool, among which images (N,) bool."""
    ill, every = labels != healthy, np.ones(len(labels), dtype=bool)
    return {
        "sensitivity": ((given != healthy)[ill], ill),
        "specificity": ((given == healthy)[~ill], ~ill),
        "accuracy": (given == labels, every),
    }


def differences(
    answers: Answers, labels: np.ndarray, groups: Sequence[str], classes: int, healthy: int
) -> list[dict[str, Any]]:
    """The first system, a, less each other one, b: in each share a `Difference` with McNemar's exact p and the images
    that only one of the two has right, and in macro F1 by the bootstrap. Everything can be written as JSON."""
    first, *others = answers
    changes = {metric: _changes(answers, labels, groups, healthy, metric) for metric in SHARES}
    f1 = macro_f1(answers, labels, groups, classes)
    return [
        {"a": first, "b": other, **{m: found[other] for m, found in changes.items()}, "macro_f1": f1[first, other]}
        for other in others
    ]


def _changes(
    answers: Answers, labels: np.ndarray, groups: Sequence[str], healthy: int, metric: str
) -> dict[str, dict[str, Any]]:
    first, *others = answers
    found = {name: _hits(given, labels, healthy)[metric] for name, given in answers.items()}
    among = found[first][1]
    if not among.any():
        none = asdict(Difference(None, None, None, None)) | {"only_a": 0, "only_b": 0, "mcnemar": None}
        return dict.fromkeys(others, none)
    # of two classes, the second of which is right for every image
    right = {name: np.stack([~hits, hits], axis=1).astype(np.float64) for name, (hits, _) in found.items()}
    every = np.ones(int(among.sum()), dtype=np.int64)
    pairs = [(first, other) for other in others]
    return {
        c.b: asdict(c.accuracy) | {"only_a": c.only_a, "only_b": c.only_b, "mcnemar": c.mcnemar}
        for c in compare(right, every, np.asarray(groups)[among].tolist(), pairs)
    }


def macro_f1(answers: Answers, labels: np.ndarray, groups: Sequence[str], classes: int) -> dict[Any, Value]:
    """Of each system by its name, and of the first less each other one by both names, with BCa intervals.

    None where a class has no images; a resample counts that has some of each class.
    """
    first, *others = answers
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    sums = {name: np.zeros((len(names), classes**2)) for name in answers}
    for name, given in answers.items():
        np.add.at(sums[name], (index, labels * classes + given), 1)

    def every(weights: np.ndarray) -> Weighted:
        found: dict[Any, np.ndarray] = {name: _macro_f1(weights @ sums[name], classes) for name in answers}
        return Weighted(found | {(first, other): found[first] - found[other] for other in others}, {})

    if not len(labels) or len(np.unique(labels)) < classes:
        return dict.fromkeys([*answers, *((first, other) for other in others)], NONE)
    whole, drawn = every(np.ones((1, len(names)))).scalars, resample(every, len(names)).scalars
    left_out = jackknife(every, len(names)).scalars if len(names) > 1 else whole
    return {key: _with_bounds(float(whole[key][0]), drawn[key], left_out[key]) for key in whole}


def _macro_f1(counts: np.ndarray, classes: int) -> np.ndarray:
    """(B,) of confusion matrices (B, classes * classes), NaN where a class has no images."""
    matrix = counts.reshape(-1, classes, classes)
    actual, predicted = matrix.sum(axis=2), matrix.sum(axis=1)
    f1 = 2 * np.diagonal(matrix, axis1=1, axis2=2) / np.maximum(actual + predicted, 1)
    return np.where((actual > 0).all(axis=1), f1.mean(axis=1), np.nan)


def _with_bounds(value: float, drawn: np.ndarray, left_out: np.ndarray) -> Value:
    low, high = bca(drawn, value, left_out) or (None, None)
    return {"value": value, "low": low, "high": high}
