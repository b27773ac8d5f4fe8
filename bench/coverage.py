"""How often a 95 % interval contains the truth, over simulated test sets of which the truth is known.

    python bench/coverage.py [sets]

Prints a table for each kind of test set, after about two minutes in all on two idle cores for 500 sets of each, where
one standard error of a coverage near 95 % is 1 %. Patients have an effect that their images share; scores are normal,
so each truth is an integral. Each metric has the bootstrap over patient groups of this project, and the same over
images, as if each were a patient's only one. "Wilson" rows: `grouped_wilson`, and Wilson's interval of all images.
Widths are means, in points of 100.
"""

import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy: each process has a core
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

import numpy as np
from scipy.special import expit, ndtr
from timing import now, table

from xray_lightning.evaluation.bootstrap import interval, resample
from xray_lightning.evaluation.proportions import grouped_wilson, wilson

NAMES = {
    "accuracy": "accuracy",
    "recall": "sensitivity",
    "specificity": "specificity",
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "f1": "F1",
    "log_loss": "log-loss",
}
WILSON = "sensitivity, Wilson"
PREVALENCE = 0.625  # 390 of the 624 test images of Kermany et al. 2018
DISTANCE = 2.8  # between the classes' mean scores, in standard deviations of a class
SHARED = 0.7  # of a score's variance within a class: the patient's
LOG_ODDS = np.log(PREVALENCE / (1 - PREVALENCE))


class Kind(NamedTuple):
    """Test sets of `patients`, who have `sizes` images each with the probabilities `shares`."""

    name: str
    patients: int
    sizes: tuple[int, ...]
    shares: tuple[float, ...]


FEW = (1, 2, 3, 4, 6, 10), (0.72, 0.14, 0.06, 0.04, 0.03, 0.01)  # 1.62 on average, mostly 1
KINDS = (
    Kind("624 images, 385 patients", 385, *FEW),
    Kind("624 images, 100 patients", 100, (2, 4, 6, 8, 12), (0.16, 0.24, 0.28, 0.16, 0.16)),
    Kind("100 images, 62 patients", 62, *FEW),
)
Interval = tuple[float, float] | None


def truths() -> dict[str, float]:
    """Each metric of a model whose probabilities are right, over all images that there could be."""
    s = np.linspace(-12, 12, 100_001)
    density = {sign: np.exp(-((s - sign * DISTANCE / 2) ** 2) / 2) / np.sqrt(2 * np.pi) for sign in (-1, 1)}
    true, false = ndtr(DISTANCE / 2 - s), ndtr(-DISTANCE / 2 - s)  # shares of either class above s
    precision = PREVALENCE * true / (PREVALENCE * true + (1 - PREVALENCE) * false)
    p = expit(LOG_ODDS + DISTANCE * s)
    cut = -LOG_ODDS / DISTANCE  # where p is 0.5
    sensitivity, specificity = float(ndtr(DISTANCE / 2 - cut)), float(ndtr(cut + DISTANCE / 2))
    hits, alarms = PREVALENCE * sensitivity, (1 - PREVALENCE) * (1 - specificity)
    losses = PREVALENCE * density[1] * -np.log(p) + (1 - PREVALENCE) * density[-1] * -np.log1p(-p)
    return {
        "accuracy": hits + (1 - PREVALENCE) * specificity,
        "recall": sensitivity,
        "specificity": specificity,
        "auroc": float(ndtr(DISTANCE / np.sqrt(2))),
        "auprc": float(np.trapezoid(precision * density[1], s)),
        "f1": 2 * hits / (PREVALENCE + hits + alarms),
        "log_loss": float(np.trapezoid(losses, s)),
    }


def simulated(kind: Kind, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Probabilities (N, 2), labels (N,) and groups of one test set."""
    sizes = generator.choice(kind.sizes, kind.patients, p=kind.shares)
    patient = np.repeat(np.arange(kind.patients), sizes)
    labels = (generator.random(kind.patients) < PREVALENCE).astype(np.int64)[patient]
    effects = np.sqrt(SHARED) * generator.normal(size=kind.patients)[patient]
    scores = (labels - 0.5) * DISTANCE + effects + np.sqrt(1 - SHARED) * generator.normal(size=len(patient))
    p = expit(LOG_ODDS + DISTANCE * scores)
    return np.stack([1 - p, p], axis=1), labels, [f"patient {i}" for i in patient]


def intervals(kind: Kind, seed: int) -> dict[str, tuple[Interval, Interval]]:
    """Of one test set and each metric: over patient groups, and as if images were independent."""
    probabilities, labels, groups = simulated(kind, np.random.default_rng(seed))
    grouped = resample(probabilities, labels, groups, seed=seed).scalars
    naive = resample(probabilities, labels, [str(i) for i in range(len(labels))], seed=seed).scalars
    actual = np.flatnonzero(labels == 1)
    hits = probabilities[actual].argmax(axis=1) == 1
    by_wilson = grouped_wilson(hits, [groups[i] for i in actual]), wilson(hits.sum(), len(hits))
    return {name: (interval(grouped[name]), interval(naive[name])) for name in NAMES} | {WILSON: by_wilson}


def coverage(found: list[Interval], truth: float) -> list[str]:
    """Share of intervals that contain the truth, and their mean width, in points of 100."""
    known = [bounds for bounds in found if bounds is not None]  # one that is missing contains nothing
    share = sum(low <= truth <= high for low, high in known) / len(found)
    return [f"{100 * share:.1f} %", f"{100 * np.mean([high - low for low, high in known]):.1f}"]


def main() -> None:
    sets, true = int(sys.argv[1]) if len(sys.argv) > 1 else 500, truths()
    true[WILSON] = true["recall"]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for kind in KINDS:
            start = now()
            by_metric: dict[str, list[tuple[Interval, Interval]]] = defaultdict(list)
            for found in pool.map(intervals, [kind] * sets, range(sets), chunksize=10):
                for name, pair in found.items():
                    by_metric[name].append(pair)
            rows = []
            for name, pairs in by_metric.items():
                columns = [cell for found in zip(*pairs, strict=True) for cell in coverage(list(found), true[name])]
                rows.append([NAMES.get(name, name), f"{true[name]:.4f}", *columns])
            print(f"{sets} test sets of about {kind.name}, 95 % intervals, {now() - start:.0f} s")
            table(["metric", "truth", "patient groups", "width", "images alone", "width"], rows)


if __name__ == "__main__":
    main()
