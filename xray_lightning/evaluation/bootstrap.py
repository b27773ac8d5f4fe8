"""Resamples of patient groups: the bootstrap, and the jackknife that tells how skewed a metric is.

Images of one patient resemble each other, so what is drawn is patients: of G groups G with replacement, each with all
of its images (Field and Welsh, "Bootstrapping clustered data", 2007). An image then weighs as often as its group was
drawn.
"""

from collections.abc import Callable, Iterator

import numpy as np

from xray_lightning.evaluation.proportions import LEVEL
from xray_lightning.evaluation.weighted import Weighted, joined

RESAMPLES = 2000
BLOCKS = 1000  # of groups that the jackknife leaves out; one a group costs as the square of their number
DEFINED = 0.95  # least share of resamples that must define a metric for it to have an interval
CHUNK = 16  # resamples at a time: the few (CHUNK, N) arrays that they take stay in a processor's cache
Metrics = Callable[[np.ndarray], Weighted]  # of weights (B, G), as `WeightedMetrics.every`


def resample(metrics: Metrics, groups: int, resamples: int = RESAMPLES, seed: int = 0) -> Weighted:
    """Metrics of `resamples` draws of groups. What is drawn depends on the number of groups and the seed alone."""
    return joined([metrics(weights) for weights in draws(groups, resamples, seed)])


def jackknife(metrics: Metrics, groups: int) -> Weighted:
    """Metrics without each of the groups in turn, of which there are at least two.

    Above 1000, they are left out in as many random blocks (Shao and Tu, "The jackknife and bootstrap", 1995, chapter
    2): influences of groups add up in blocks, and so do their second and third central moments.
    """
    blocks = min(groups, BLOCKS)
    block = np.random.default_rng(0).permutation(groups) % blocks
    chunks = np.split(np.arange(blocks), range(CHUNK, blocks, CHUNK))
    return joined([metrics((block != left_out[:, None]).astype(np.float64)) for left_out in chunks])


def draws(groups: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each group is drawn: (CHUNK or what is left, groups) float64. More resamples begin with the same."""
    generator = np.random.default_rng(seed)
    for first in range(0, resamples, CHUNK):
        count = min(CHUNK, resamples - first)
        drawn = generator.integers(groups, size=(count, groups)) + groups * np.arange(count)[:, None]
        yield np.bincount(drawn.ravel(), minlength=count * groups).reshape(count, groups).astype(np.float64)


def defined(values: np.ndarray) -> np.ndarray | None:
    """Those of the resamples' values (B,) that are finite; None where fewer than 95 % are. A ranking metric of a class
    in three groups is at that limit: exp(-3) of the resamples have none of them."""
    finite = values[np.isfinite(values)]
    return finite if len(finite) >= max(1, DEFINED * len(values)) else None


def percentiles(values: np.ndarray, level: float = LEVEL) -> tuple[float, float] | None:
    """The percentiles between which `level` of the values (B,) lie, of those that are `defined`; None without them."""
    finite = defined(values)
    if finite is None:
        return None
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
