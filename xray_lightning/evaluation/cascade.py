"""Two stages against one: a screen that flags, a diagnosis of what it flags; and whether that beats the diagnosis."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xray_lightning.evaluation.comparison import Comparison, compare
from xray_lightning.evaluation.operating_points import threshold_for
from xray_lightning.evaluation.proportions import grouped_wilson
from xray_lightning.evaluation.record import Value, judged

CASCADE, OPEN, ALONE, MATCHED = (
    "cascade",
    "cascade, second stage may say healthy",
    "diagnosis alone",
    "diagnosis, matched",
)
SURE = 0.97  # that an answer stands for as a probability, so that metrics of decisions can be asked for it


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


def thresholds(
    screen: np.ndarray, diagnosis: np.ndarray, labels: np.ndarray, healthy: int, sensitivity: float
) -> tuple[float, float]:
    """The screen's and the matched diagnosis', on validation: the highest with at least that sensitivity to disease."""
    ill = labels != healthy
    return threshold_for(screen, ill, sensitivity), threshold_for(1 - diagnosis[:, healthy], ill, sensitivity)


def scores(
    answers: np.ndarray, labels: np.ndarray, groups: Sequence[str], classes: int, healthy: int
) -> dict[str, Value]:
    """Sensitivity to any disease, specificity, accuracy and macro F1 over `classes`, with 95 % intervals over groups.

    None where the images do not define it: without ill or healthy ones, and of macro F1 where a class has none.
    """
    ill, named = labels != healthy, np.asarray(groups)
    found = {
        "sensitivity": _share((answers != healthy)[ill], named[ill]),
        "specificity": _share((answers == healthy)[~ill], named[~ill]),
        "accuracy": _share(answers == labels, named),
    }
    whole = len(np.unique(labels)) == classes
    macro = judged(np.where(np.eye(classes)[answers] > 0, SURE, (1 - SURE) / (classes - 1)), labels, groups)[0]
    return found | {"macro_f1": macro["macro_f1"] if whole else {"value": None, "low": None, "high": None}}


def _share(hits: np.ndarray, groups: np.ndarray) -> Value:
    if not len(hits):
        return {"value": None, "low": None, "high": None}
    low, high = grouped_wilson(hits, groups.tolist()) or (None, None)
    return {"value": float(hits.mean()), "low": low, "high": high}


def against(
    answers: Mapping[str, np.ndarray], labels: np.ndarray, groups: Sequence[str], classes: int
) -> list[Comparison]:
    """The cascade against each other system, by the accuracy of their answers."""
    sure = {
        name: np.where(np.eye(classes)[given] > 0, SURE, (1 - SURE) / (classes - 1)) for name, given in answers.items()
    }
    return compare(sure, labels, groups, [(CASCADE, name) for name in answers if name != CASCADE])


def verdict(comparisons: Sequence[Comparison], images: int) -> str:
    """Whether the study's conclusion, that two stages are better, holds on these images. A difference counts where its
    95 % interval, over groups and not adjusted for their number, leaves out 0."""
    told = []
    for found in (c for c in comparisons if c.b in (ALONE, MATCHED)):
        d = found.accuracy
        words = "cannot be compared with" if d.value is None else "is not shown to differ from"
        if d.value is not None and d.low is not None and d.high is not None:
            words = "is better than" if d.low > 0 else "is worse than" if d.high < 0 else "is not shown to differ from"
        interval = "" if d.low is None or d.high is None else f" ({d.low:+.3f} to {d.high:+.3f})"
        value = "" if d.value is None else f": {d.value:+.3f}{interval}, McNemar p {found.mcnemar:.2g}"
        told.append(f"{words} the {found.b.replace(', matched', ' at the same sensitivity on validation')}{value}")
    return f"On {images} images, in accuracy, the cascade " + "; it ".join(told) + "."


def sweep(
    validation: tuple[np.ndarray, np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray, np.ndarray],
    healthy: int,
    sensitivities: Sequence[float],
) -> list[dict[str, Any]]:
    """Of each sensitivity asked of validation, what cascade and matched diagnosis have on test; both are (screen p,
    diagnosis p, labels)."""
    lines = []
    for asked in sensitivities:
        threshold, matched = thresholds(*validation, healthy, asked)
        answers = systems(*test[:2], healthy, threshold, matched)
        ill = test[2] != healthy
        line: dict[str, Any] = {"validation_sensitivity": asked, "spared": float((test[0] < threshold).mean())}
        for name in (CASCADE, MATCHED):
            given = answers[name]
            line[name] = {
                "sensitivity": float((given != healthy)[ill].mean()),
                "specificity": float((given == healthy)[~ill].mean()),
                "accuracy": float((given == test[2]).mean()),
            }
        lines.append(line)
    return lines
