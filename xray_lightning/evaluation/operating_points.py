"""Operating points: thresholds fixed on validation, and what they achieve on test.

An image is called positive where the calibrated probability p of a class is at least the threshold. For two
classes the second is the positive one; for more, each class is judged against the rest.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xray_lightning.evaluation.proportions import grouped_wilson, newcombe, wilson

POINTS = ("default", "sensitivity_95", "sensitivity_98", "balanced")
Point = dict[str, float]
Share = tuple[float, tuple[float, float]]  # and its interval


def choose(probabilities: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> dict[str, dict[str, Point]]:
    """For each class judged, the points of POINTS by calibrated validation probabilities (N, classes) and labels (N,).

    A point is {"threshold", "tp", "fn", "tn", "fp"}, plain numbers: the threshold and validation's counts at it.
    default is 0.5; sensitivity_95 and _98 are the highest thresholds with at least that sensitivity; balanced
    has the best balanced accuracy, and of equal ones the highest sensitivity. A threshold lies half-way between the
    validation probabilities above and below it (half-way to 0 below the lowest), so that rounding in another
    precision does not flip an image. A class without positive or without negative images, or with probabilities
    that are not finite, has only its default.
    """
    judged = (1,) if len(class_names) == 2 else range(len(class_names))
    return {class_names[c]: _points(probabilities[:, c].astype(np.float64), labels == c) for c in judged}


def _points(p: np.ndarray, positive: np.ndarray) -> dict[str, Point]:
    thresholds = {"default": 0.5}
    m = int(positive.sum())
    n = len(p) - m
    if m and n and np.isfinite(p).all():
        candidates, tp, fp = _candidates(p, positive)
        gain = tp * n - fp * m  # balanced accuracy in whole numbers, so that ties are ties
        thresholds |= {
            "sensitivity_95": candidates[np.argmax(tp / m >= 0.95)],
            "sensitivity_98": candidates[np.argmax(tp / m >= 0.98)],
            "balanced": candidates[np.flatnonzero(gain == gain.max())[-1]],
        }
    return {name: _counted(float(threshold), p, positive) for name, threshold in thresholds.items()}


def threshold_for(p: np.ndarray, positive: np.ndarray, sensitivity: float) -> float:
    """The highest threshold on p (N,) with at least that sensitivity for positive (N,) bool, as `choose` places it.

    ValueError without positive images.
    """
    if not positive.any():
        raise ValueError("no positive images")
    candidates, tp, _ = _candidates(p, positive)
    return float(candidates[np.argmax(tp / positive.sum() >= sensitivity)])


def _candidates(p: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each threshold that decides differently, from high to low, with its true and its false positives."""
    order = np.argsort(-p)
    scores = p[order]
    last = np.flatnonzero(np.diff(scores, append=-1.0))  # of images with the same score
    tp = positive[order].cumsum()[last]
    above, below = scores[last], np.append(scores[last[1:]], 0.0)
    middle = (above + below) / 2
    return np.where(middle > below, middle, above), tp, last + 1 - tp


def _counted(threshold: float, p: np.ndarray, positive: np.ndarray) -> Point:
    called = p >= threshold
    tp, fp = int((called & positive).sum()), int((called & ~positive).sum())
    m = int(positive.sum())
    return {"threshold": threshold, "tp": tp, "fn": m - tp, "tn": len(p) - m - fp, "fp": fp}


def operating_points(
    card_points: Mapping[str, Mapping[str, Mapping[str, float]]],
    probabilities: np.ndarray,
    labels: np.ndarray,
    groups: Sequence[str],
    class_names: Sequence[str],
) -> dict[str, dict[str, dict[str, Any]]]:
    """The "operating_points" of metrics.json, {class: {point: `achieved`}}, of the points that `choose` gave.

    probabilities (N, classes) are test's and calibrated, labels and patient groups (N,) are theirs.
    """
    entries = {}
    for name, points in card_points.items():
        c = class_names.index(name)
        entries[name] = {
            key: achieved(point, probabilities[:, c], labels == c, groups) for key, point in points.items()
        }
    return entries


def achieved(point: Mapping[str, float], p: np.ndarray, positive: np.ndarray, groups: Sequence[str]) -> dict[str, Any]:
    """A point's threshold, what validation promised, what test images give, and the gap: test less validation.

    p (N,) and positive (N,) bool are the test images'. Test's shares have 95 % intervals that respect groups (N,).
    A gap has Newcombe's, from test's and from Wilson's of validation. Of validation's images only counts are left, no
    patients, so each counts as independent there: where patients have several, that makes gaps look surer than they
    are. What no images tell is None. Everything can be written as JSON.
    """
    m, n = point["tp"] + point["fn"], point["tn"] + point["fp"]
    promised = {"sensitivity": _promised(point["tp"], m), "specificity": _promised(point["tn"], n)}
    called = p >= point["threshold"]
    names = np.asarray(groups)
    test = {
        "sensitivity": _share(called, positive, names),
        "specificity": _share(~called, ~positive, names),
        "ppv": _share(positive, called, names),
        "npv": _share(~positive, ~called, names),
        "accuracy": _share(called == positive, np.full(len(p), True), names),
    }
    return {
        "threshold": point["threshold"],
        "validation": {name: share and share[0] for name, share in promised.items()}
        | {"n_positive": m, "n_negative": n},
        "test": {name: _written(share) for name, share in test.items()},
        "gap": {name: _written(_gap(test[name], share)) for name, share in promised.items()},
    }


def _promised(hits: float, n: float) -> Share | None:
    return (hits / n, wilson(hits, n)) if n else None


def _share(hits: np.ndarray, among: np.ndarray, groups: np.ndarray) -> Share | None:
    """The share of hits (N,) among the images (N,) that count."""
    chosen = hits[among]
    bounds = grouped_wilson(chosen, groups[among].tolist())
    return (float(chosen.mean()), bounds) if bounds else None


def _gap(test: Share | None, validation: Share | None) -> Share | None:
    return (test[0] - validation[0], newcombe(*test, *validation)) if test and validation else None


def _written(share: Share | None) -> dict[str, float | None]:
    value, (low, high) = share or (None, (None, None))
    return {"value": value, "low": low, "high": high}


def net_benefit(p: np.ndarray, positive: np.ndarray, thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Net benefit at each threshold (T,) in [0, 1) of deciding by p (N,), and of calling every image positive.

    True positives less false ones weighted by the threshold's odds, an image (Vickers & Elkin, "Decision Curve
    Analysis", 2006). Calling no image positive has 0.
    """
    diseased, healthy = np.sort(p[positive]), np.sort(p[~positive])
    odds = thresholds / (1 - thresholds)
    tp = len(diseased) - np.searchsorted(diseased, thresholds)
    fp = len(healthy) - np.searchsorted(healthy, thresholds)
    return (tp - fp * odds) / len(p), (len(diseased) - len(healthy) * odds) / len(p)
