"""Intervals of proportions, such as a sensitivity: Wilson's, also where images come in patient groups."""

from collections.abc import Sequence
from math import hypot

import numpy as np
from scipy.special import ndtri, stdtrit

LEVEL = 0.95


def wilson(successes: float, n: float, level: float = LEVEL) -> tuple[float, float]:
    """The score interval of successes out of n independent trials (Wilson, "Probable inference, the law of
    succession, and statistical inference", 1927), without continuity correction. Neither needs to be whole, as an
    effective sample size is not. ValueError unless 0 <= successes <= n and n > 0."""
    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"{successes} successes of {n} is not a proportion.")
    p, z2 = successes / n, float(ndtri((1 + level) / 2)) ** 2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = (z2 * (p * (1 - p) / n + z2 / (4 * n * n))) ** 0.5 / (1 + z2 / n)
    return 0.0 if p == 0 else centre - half, 1.0 if p == 1 else centre + half


def grouped_wilson(hits: np.ndarray, groups: Sequence[str], level: float = LEVEL) -> tuple[float, float] | None:
    """Wilson's interval of the share of hits (n,) bool, for as many independent images as these groups are worth.

    The sample size is divided by the design effect, and as that is an estimate from G groups, multiplied by the square
    of Student's t for n - 1 degrees of freedom over that for G - 1 (Korn and Graubard, "Confidence intervals for
    proportions with small expected number of positive counts estimated from survey data", 1998; Dean and Pagano,
    "Evaluating confidence interval methods for binomial proportions in clustered surveys", 2015). Where the design
    effect is none of these images (all or none hit, or there is one group) it is a bound, and stands alone: one group
    counts as one image. For groups of one image it is `wilson`. None where there are no images.
    """
    n = len(hits)
    if n == 0:
        return None
    p, clusters = float(np.mean(hits)), len(set(groups))
    effective = n / design_effect(hits, groups)
    if 0 < p < 1 and clusters > 1:
        high = (1 + level) / 2
        effective *= float(stdtrit(n - 1, high) / stdtrit(clusters - 1, high)) ** 2
    return wilson(p * effective, effective, level)


def newcombe(
    first: float, of_first: tuple[float, float], second: float, of_second: tuple[float, float]
) -> tuple[float, float]:
    """The interval of first - second, two proportions of independent images, from their Wilson intervals (Newcombe,
    "Interval estimation for the difference between independent proportions", 1998, method 10)."""
    (low1, high1), (low2, high2) = of_first, of_second
    value = first - second
    return value - hypot(first - low1, high2 - second), value + hypot(high1 - first, second - low2)


def design_effect(hits: np.ndarray, groups: Sequence[str]) -> float:
    """How many times the variance of the share of hits (n,) is that of n independent images; at least 1.

    The variance between G groups, with its factor G / (G - 1), over p (1 - p) / (n - 1), which is as unbiased: groups
    of one image have a design effect of 1. Where all or none hit, or of one group, images cannot tell how alike
    those of a group are, and are taken to be quite alike: the sum of squared group sizes over n (Kish, "Survey
    Sampling", 1965).
    """
    _, index = np.unique(np.asarray(groups), return_inverse=True)
    sizes, n = np.bincount(index), len(hits)
    p = float(np.mean(hits))
    if p in (0, 1) or len(sizes) == 1:
        return float((sizes**2).sum() / n)
    residuals = np.bincount(index, weights=hits) - p * sizes
    variance = len(sizes) / (len(sizes) - 1) * float((residuals**2).sum()) / n**2
    return max(1.0, variance / (p * (1 - p) / (n - 1)))
