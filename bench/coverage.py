"""How often a 95 % interval contains the truth, over simulated test sets of which the truth is known.

    python bench/coverage.py [sets]

Prints a table for each kind of test set, after about three minutes in all on two idle cores for 300 sets of each, where
one standard error of a coverage near 95 % is 1.3 %. Patients have an effect that their images share; scores are normal,
so each truth is an integral. Each metric has the interval that a record has (xray_lightning/evaluation/intervals.py),
the percentile bootstrap over patient groups, and the same over images, as if each were a patient's only one. Widths
are means, in points of 100. The model is calibrated, so its expected calibration error is 0, which is the hardest truth
for an interval of a number that noise only raises.

A last table has how often each test of two models calls them different at 0.05 where they are equally good, and each
has patients of its own that it finds hard: 5 % is right. It has ten times as many sets (standard error 0.4 %).
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

from xray_lightning.evaluation.bootstrap import percentiles, resample
from xray_lightning.evaluation.comparison import compare, mcnemar
from xray_lightning.evaluation.intervals import Bounds, intervals
from xray_lightning.evaluation.weighted import WeightedMetrics

NAMES = {
    "accuracy": "accuracy",
    "recall": "sensitivity",
    "specificity": "specificity",
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "f1": "F1",
    "balanced_accuracy": "balanced acc.",
    "mcc": "MCC",
    "log_loss": "log-loss",
    "brier": "Brier",
    "ece": "ECE",
}
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
METHODS = ("as chosen", "percentile", "images alone")
TESTS = ("McNemar, exact", "accuracy, patients", "DeLong, patients")
PAIRS = 10  # of models, for each test set of the other tables: a comparison takes milliseconds
Found = tuple[Bounds | None, ...]  # by each of METHODS


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
    errors = PREVALENCE * density[1] * (1 - p) ** 2 + (1 - PREVALENCE) * density[-1] * p**2
    margins = PREVALENCE * (1 - PREVALENCE) * (hits + alarms) * (1 - hits - alarms)
    return {
        "accuracy": hits + (1 - PREVALENCE) * specificity,
        "recall": sensitivity,
        "specificity": specificity,
        "auroc": float(ndtr(DISTANCE / np.sqrt(2))),
        "auprc": float(np.trapezoid(precision * density[1], s)),
        "f1": 2 * hits / (PREVALENCE + hits + alarms),
        "balanced_accuracy": (sensitivity + specificity) / 2,
        "mcc": (hits - PREVALENCE * (hits + alarms)) / np.sqrt(margins),
        "log_loss": float(np.trapezoid(losses, s)),
        "brier": float(np.trapezoid(errors, s)),
        "ece": 0.0,  # of every image's probability, and so of any bin of them
    }


def simulated(kind: Kind, generator: np.random.Generator, models: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Probabilities (models, N, 2), labels (N,) and groups of one test set; models share nothing but the labels."""
    sizes = generator.choice(kind.sizes, kind.patients, p=kind.shares)
    patient = np.repeat(np.arange(kind.patients), sizes)
    labels = (generator.random(kind.patients) < PREVALENCE).astype(np.int64)[patient]
    effects = np.sqrt(SHARED) * generator.normal(size=(models, kind.patients))[:, patient]
    own = np.sqrt(1 - SHARED) * generator.normal(size=effects.shape)
    p = expit(LOG_ODDS + DISTANCE * ((labels - 0.5) * DISTANCE + effects + own))
    return np.stack([1 - p, p], axis=2), labels, [f"patient {i}" for i in patient]


def judged(kind: Kind, seed: int) -> dict[str, Found]:
    """Of one test set, each metric's intervals."""
    (probabilities,), labels, groups = simulated(kind, np.random.default_rng(seed), 1)
    chosen = intervals(probabilities, labels, groups).scalars
    drawn = []
    for names in (groups, [str(i) for i in range(len(labels))]):
        metrics = WeightedMetrics(probabilities, labels, names)
        drawn.append(resample(metrics.every, metrics.groups, seed=seed).scalars)
    return {name: (chosen[name], *(percentiles(values[name]) for values in drawn)) for name in NAMES}


def significant(kind: Kind, seed: int) -> list[bool]:
    """Of two equally good models on one test set, whether each of TESTS has a p below 0.05."""
    (a, b), labels, groups = simulated(kind, np.random.default_rng(seed), 2)
    found = compare({"a": a, "b": b}, labels, groups, [("a", "b")])[0]
    exact = mcnemar(a.argmax(axis=1) == labels, b.argmax(axis=1) == labels)[2]
    return [p is not None and p < 0.05 for p in (exact, found.accuracy.p, found.auroc.p)]


def coverage(found: Found, truth: float) -> list[str]:
    """Share of intervals that contain the truth, and their mean width, in points of 100."""
    known = [bounds for bounds in found if bounds is not None]  # one that is missing contains nothing
    share = sum(low <= truth <= high for low, high in known) / len(found)
    width = f"{100 * np.mean([high - low for low, high in known]):.1f}" if known else "-"
    return [f"{100 * share:.1f} %", width]


def main() -> None:
    sets, true = int(sys.argv[1]) if len(sys.argv) > 1 else 300, truths()
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for kind in KINDS:
            start = now()
            by_metric: dict[str, list[Found]] = defaultdict(list)
            for each in pool.map(judged, [kind] * sets, range(sets), chunksize=10):
                for name, found in each.items():
                    by_metric[name].append(found)
            rows = []
            for name, of_sets in by_metric.items():
                columns = [cell for found in zip(*of_sets, strict=True) for cell in coverage(found, true[name])]
                rows.append([NAMES[name], f"{true[name]:.4f}", *columns])
            print(f"{sets} test sets of about {kind.name}, 95 % intervals, {now() - start:.0f} s")
            table(["metric", "truth", *(cell for method in METHODS for cell in (method, "width"))], rows)
        start, rows = now(), []
        for kind in KINDS:
            called = list(pool.map(significant, [kind] * (PAIRS * sets), range(PAIRS * sets), chunksize=50))
            rows.append([kind.name, *(f"{100 * share:.1f} %" for share in np.mean(called, axis=0))])
    print(f"{PAIRS * sets} pairs of equally good models on each kind of test set, p < 0.05, {now() - start:.0f} s")
    table(["test set", *TESTS], rows)


if __name__ == "__main__":
    main()
