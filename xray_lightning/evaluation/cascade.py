"""Two stages against one: a screen that flags, a diagnosis of what it flags; and whether that beats the diagnosis."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from xray_lightning.evaluation.answers import differences, scores, share, shares
from xray_lightning.evaluation.cascade_content import ALONE, CASCADE, MATCHED, OPEN, conclusion
from xray_lightning.evaluation.operating_points import threshold_for
from xray_lightning.evaluation.report.numbers import count, equals, estimate, interval, signed

SENSITIVITIES = (0.8, 0.85, 0.9, 0.925, 0.95, 0.96, 0.97, 0.98, 0.985, 0.99, 0.995, 0.999)


class Scored(NamedTuple):
    """The screen's p of its positive class (N,), the diagnosis' p (N, classes), labels (N,) and patient groups (N,)."""

    screen: np.ndarray
    diagnosis: np.ndarray
    labels: np.ndarray
    groups: Sequence[str]


def systems(
    screen: np.ndarray, diagnosis: np.ndarray, healthy: int, threshold: float, matched: float
) -> dict[str, np.ndarray]:
    """What each system answers, (N,) int: classes by the screen's p (N,) and the diagnosis' p (N, classes).

    The cascade calls healthy what the screen gives less than `threshold`, and all else the likeliest disease. OPEN may
    still call healthy what is flagged. MATCHED is one network with a threshold of its own: healthy where its
    probability of disease is below `matched`.
    """
    diseases = diagnosis.copy()
    diseases[:, healthy] = -1
    likeliest, disease = diagnosis.argmax(axis=1), diseases.argmax(axis=1)
    flagged = screen >= threshold
    return {
        CASCADE: np.where(flagged, disease, healthy),
        OPEN: np.where(flagged, likeliest, healthy),
        ALONE: likeliest,
        MATCHED: np.where(1 - diagnosis[:, healthy] >= matched, disease, healthy),
    }


def thresholds(validation: Scored, healthy: int, sensitivity: float) -> tuple[float, float]:
    """The screen's and the matched diagnosis', on validation: the highest with at least that sensitivity to disease."""
    ill = validation.labels != healthy
    disease = 1 - validation.diagnosis[:, healthy]
    return threshold_for(validation.screen, ill, sensitivity), threshold_for(disease, ill, sensitivity)


def verdict(found: Sequence[Mapping[str, Any]], images: int) -> str:
    """Whether the study's conclusion, that two stages are better, holds on these images, by `answers.differences`. A
    difference counts where its 95 % interval, over groups and not adjusted for their number, leaves out 0."""
    told = []
    for pair in (p for p in found if p["b"] in (ALONE, MATCHED)):
        d = estimate(pair["accuracy"])
        words = "cannot be compared with" if d.value is None else "is not shown to differ from"
        if d.low is not None and d.high is not None:
            words = "is better than" if d.low > 0 else "is worse than" if d.high < 0 else words
        interval_ = f" ({interval(d)})" if d.bounded else ""
        value = (
            "" if d.value is None else f": {signed(d.value)}{interval_}, McNemar {equals(pair['accuracy']['mcnemar'])}"
        )
        told.append(f"{words} the {pair['b'].replace(', matched', ' at the same sensitivity on validation')}{value}")
    return (
        f"The study's conclusion, that two stages are better than one, {conclusion(found)} on these images. "
        f"On {count(images, 'image')}, in accuracy, the cascade {'; it '.join(told)}."
    )


def sweep(validation: Scored, test: Scored, healthy: int, sensitivities: Sequence[float]) -> list[dict[str, Any]]:
    """Of each sensitivity asked of validation, its thresholds, and what the systems with one have on test: the share
    of images that is not flagged, and the shares of `answers.shares`, each with its interval."""
    lines = []
    for asked in sensitivities:
        threshold, matched = thresholds(validation, healthy, asked)
        answers = systems(test.screen, test.diagnosis, healthy, threshold, matched)
        line = {
            "validation_sensitivity": asked,
            "threshold": threshold,
            "matched_threshold": matched,
            "spared": share(test.screen < threshold, test.groups),
        }
        of_systems = {n: shares(answers[n], test.labels, test.groups, healthy) for n in (CASCADE, OPEN, MATCHED)}
        lines.append(line | {"systems": of_systems})
    return lines


def judged(validation: Scored, test: Scored, classes: Sequence[str], healthy: int, asked: float) -> dict[str, Any]:
    """All that is said of one part of the test images, with thresholds of validation at the sensitivity asked.

    Without images it is their number and the verdict alone.
    """
    labels, groups, k = test.labels, test.groups, len(classes)
    told = {"images": len(labels), "counts": counted(labels, classes), "groups": len(set(groups))}
    if not len(labels):
        return told | {"verdict": "The screen knows all of these images."}
    threshold, matched = thresholds(validation, healthy, asked)
    answers = systems(test.screen, test.diagnosis, healthy, threshold, matched)
    found = differences(answers, labels, groups, k, healthy)
    pairs = {name: np.bincount(labels * k + given, minlength=k * k) for name, given in answers.items()}
    return told | {
        "spared": share(test.screen < threshold, groups),
        "systems": scores(answers, labels, groups, k, healthy),
        "confusion_matrices": {name: counts.reshape(k, k).tolist() for name, counts in pairs.items()},
        "differences": found,
        "verdict": verdict(found, len(labels)),
        "sweep": sweep(validation, test, healthy, sorted({*SENSITIVITIES, asked})),
    }


def counted(labels: np.ndarray, classes: Sequence[str]) -> dict[str, int]:
    return dict(zip(classes, np.bincount(labels, minlength=len(classes)).tolist(), strict=True))
