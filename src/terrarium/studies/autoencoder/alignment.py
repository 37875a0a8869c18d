"""Do directions of a code, and what they do, follow known factors?"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]


def total_shares(before: Float, after: Mapping[str, Float]) -> Float:
    """Return ``(k, factors)``: the share of each direction's variance that each factor decides.

    ``before`` ``(n, k)`` are values of ``k`` directions, ``after[f]`` those of the same images with
    factor ``f`` drawn anew: Jansen's estimator of total Sobol indices, half the mean squared
    change over the variance (Saltelli et al. 2010, table 2).  Factors that act together both count.
    """
    variance = np.maximum(before.var(axis=0), 1e-12)
    return np.stack(
        [np.square(value - before).mean(axis=0) / (2 * variance) for value in after.values()],
        axis=1,
    )


def alignment(shares: Float) -> Float:
    """Return ``(k,)``: the largest factor's part of a direction's shares, 1 / factors to 1."""
    return np.asarray(shares.max(axis=1) / np.maximum(shares.sum(axis=1), 1e-12))


def random_directions(codes: Mapping[str, Float], count: int, rng: np.random.Generator) -> Float:
    """Return ``(count, k)`` random directions that weigh the ``k`` latents' variances alike."""
    (first, *_) = codes.values()
    drawn = rng.standard_normal((count, first.shape[1]))
    return np.asarray(drawn / np.maximum(first.std(axis=0), 1e-12))


def explained(values: Float, factors: Mapping[str, Float]) -> float:
    """Return how much of ``values`` ``(n,)`` one factor explains on rows that did not choose it.

    On the even rows a cubic polynomial of each factor is fitted and the factor with the largest
    R² chosen; its R² on the odd rows comes back, at least 0.
    """
    best, found = -np.inf, 0.0
    even, odd = slice(0, None, 2), slice(1, None, 2)
    for factor in factors.values():
        scaled = (factor - factor.mean()) / max(float(factor.std()), 1e-12)
        design = np.vander(scaled, 4)
        weights, *_ = np.linalg.lstsq(design[even], values[even], rcond=None)
        seen, unseen = (_r2(values[rows], design[rows] @ weights) for rows in (even, odd))
        if seen > best:
            best, found = seen, unseen
    return max(0.0, found)


def _r2(values: Float, fitted: Float) -> float:
    total = float(np.square(values - values.mean()).sum())
    return 1 - float(np.square(values - fitted).sum()) / total if total > 0 else 0.0
