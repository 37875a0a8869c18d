"""AUROC of many features at once, with errors over groups."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from terrarium.instruments.frobnoloids.scores import Float, by_group


def grouped_auroc(
    scores: Float, positive: NDArray[np.bool_], groups: NDArray[np.int64]
) -> tuple[Float, Float]:
    """Return AUROCs ``(k,)`` of ``scores`` ``(n, k)`` and their standard errors over groups.

    ``positive`` is ``(n, k)``, ``groups`` ``(n,)`` codes from 0.  The variance is that of
    Obuchowski 1997, Biometrics 53, sec. 2.  NaN where a class is missing.
    """
    n, k = scores.shape
    size = int(groups.max()) + 1
    ones = positive.sum(0)
    zeros = n - ones
    below = np.empty_like(scores)  # share of the other class that lies on the right side
    area = np.full(k, np.nan)
    for j in range(k):
        if not ones[j] or not zeros[j]:
            below[:, j] = 0.0
            continue
        mine = positive[:, j]
        high, low = scores[mine, j], scores[~mine, j]
        below[mine, j] = _share_below(high, low)
        below[~mine, j] = 1.0 - _share_below(low, high)
        area[j] = below[mine, j].mean()
    with np.errstate(invalid="ignore", divide="ignore"):
        residual = below - area
        won = by_group(np.where(positive, residual, 0.0), groups, size) / ones
        lost = by_group(np.where(positive, 0.0, residual), groups, size) / zeros
        m = (by_group(positive.astype(np.float64), groups, size) > 0).sum(0)
        o = (by_group((~positive).astype(np.float64), groups, size) > 0).sum(0)
        variance = (
            m / (m - 1) * (won**2).sum(0)
            + o / (o - 1) * (lost**2).sum(0)
            + 2 * size / (size - 1) * (won * lost).sum(0)
        )
    return area, np.sqrt(np.maximum(variance, 0.0))


def _share_below(values: Float, others: Float) -> Float:
    """Return for each value the share of ``others`` below it, ties counting one half."""
    ordered = np.sort(others)
    left = np.searchsorted(ordered, values, side="left")
    right = np.searchsorted(ordered, values, side="right")
    return np.asarray((left + right) / (2 * len(others)))
