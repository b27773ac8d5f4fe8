"""Intervals of proportions, such as a sensitivity: Wilson's, also where images come in patient groups."""

from collections.abc import Sequence

import numpy as np
from scipy.special import ndtri

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

    The sample size is divided by the design effect (Korn and Graubard, "Confidence intervals for proportions with
    small expected number of positive counts estimated from survey data", 1998; Dean and Pagano, "Evaluating confidence
    interval methods for binomial proportions in clustered surveys", 2015). For groups of one image it is `wilson`.
    None where there are no images.
    """
    n = len(hits)
    if n == 0:
        return None
    effective = n / design_effect(hits, groups)
    return wilson(float(np.mean(hits)) * effective, effective, level)


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
