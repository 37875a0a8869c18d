"""What a dictionary is judged by: L0, variance unexplained, dead features, density, matches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from terrarium.errors import InputError
from terrarium.instruments.dictionaries.rows import blocks, encoding_rows, training_rows

Array = NDArray[Any]
Float = NDArray[np.float64]

ACTIVE = 0.0
"""A feature is active where its absolute value exceeds this."""


@dataclass(frozen=True, eq=False)
class DensityHistogram:
    """How often features are active: counts over ``log10`` of the share of rows.

    ``edges`` ``(bins + 1,)`` in log10 of the share, ``counts`` ``(bins,)``, ``dead`` the number
    of features that were active in no row and are in no bin.
    """

    edges: Float
    counts: NDArray[np.int64]
    dead: int


@dataclass(frozen=True, eq=False)
class DictionaryScores:
    """How well a dictionary describes some rows.

    Attributes
    ----------
    l0:
        Mean number of active features per row.
    fvu:
        Fraction of variance unexplained: ``sum |x - x_hat|^2 / sum |x - mean(x)|^2``, both over
        all rows and channels, the mean that of these rows.  None where the rows do not vary.
    dead:
        Share of features that were active in no row.
    density:
        ``(k,)`` share of rows in which each feature is active.
    n:
        Number of rows.
    """

    l0: float
    fvu: float | None
    dead: float
    density: Float
    n: int

    def __repr__(self) -> str:
        told = "undefined" if self.fvu is None else f"{self.fvu:.4f}"
        return f"DictionaryScores(FVU {told}, L0 {self.l0:.2f}, {self.dead:.1%} dead, n {self.n})"


def l0(features: Any) -> float:
    """Return the mean number of active features per row of ``(..., k)`` (dense or scipy CSR)."""
    return float(density(features).sum())


def density(features: Any) -> Float:
    """Return ``(k,)``: the share of rows in which each feature is active.

    Raises ``InputError`` where there are no rows.
    """
    if scipy.sparse.issparse(features):
        counts, n = np.asarray((abs(features) > ACTIVE).sum(0)).ravel(), features.shape[0]
    else:
        values = np.asarray(features)
        flat = values.reshape(-1, values.shape[-1])
        counts, n = (np.abs(flat) > ACTIVE).sum(0), len(flat)
    if n == 0:
        raise InputError("There are no rows to count active features in; give at least one.")
    return np.asarray(counts / n, np.float64)


def dead_share(features: Any) -> float:
    """Return the share of features that are active in no row of ``(..., k)``."""
    return float((density(features) == 0).mean())


def density_histogram(shares: Array, bins: int = 40, least: float = -6.0) -> DensityHistogram:
    """Return the histogram of ``log10`` of ``shares`` ``(k,)``, from ``least`` to 0.

    Live features below ``least`` are counted in the first bin.
    """
    share = np.asarray(shares, np.float64)
    if share.ndim != 1 or bool(((share < 0) | (share > 1)).any()):
        raise InputError("Densities are shares from 0 to 1, one for each feature.")
    alive = share > 0
    edges = np.linspace(least, 0.0, bins + 1)
    counts, _ = np.histogram(np.maximum(np.log10(share[alive]), least), edges)
    return DensityHistogram(edges, counts, int((~alive).sum()))


def fvu(x: Array, reconstruction: Array) -> float | None:
    """Return ``sum |x - x_hat|^2 / sum |x - mean(x)|^2`` over all rows; None if nothing varies.

    Both are ``(..., d)``.  As in Gao et al. 2024 (normalised mean squared error) and, less 1, the
    explained variance of SAEBench; not the mean of per-row or per-channel ratios.
    """
    one, two = np.asarray(x, np.float64), np.asarray(reconstruction, np.float64)
    if one.shape != two.shape or one.ndim < 2:
        raise InputError(
            f"x is {one.shape} and its reconstruction {two.shape}; both should be (..., d)."
        )
    rows = one.reshape(-1, one.shape[-1])
    total = float(np.square(rows - rows.mean(0)).sum())
    return float(np.square(one - two).sum()) / total if total > 0 else None


def evaluate(dictionary: Any, x: Any) -> DictionaryScores:
    """Return the scores of a fitted dictionary on rows ``(n, d)`` or maps ``(n, r, c, d)``.

    Rows run in blocks, so that memory-mapped activations need not fit in memory.
    """
    rows = training_rows(x, "evaluate")
    counts = np.zeros(dictionary.k, np.int64)
    error, total = 0.0, 0.0
    mean = sum(b.sum(0, dtype=np.float64) for b in blocks(rows)) / len(rows)
    for block in blocks(rows, max(1, (1 << 24) // dictionary.k)):
        features = dictionary.encode(block)
        counts += (np.abs(features) > ACTIVE).sum(0)
        error += float(np.square(block - dictionary.decode(features), dtype=np.float64).sum())
        total += float(np.square(block - mean).sum())
    share = counts / len(rows)
    return DictionaryScores(
        float(share.sum()),
        error / total if total > 0 else None,
        float((counts == 0).mean()),
        share,
        len(rows),
    )


@dataclass(frozen=True, eq=False)
class Match:
    """How directions ``a`` ``(k, d)`` are found among ``b`` ``(m, d)``, by cosine.

    Attributes
    ----------
    best:
        ``(k,)`` the greatest cosine of each of ``a`` with any of ``b``.
    nearest:
        ``(k,)`` which of ``b`` that is.
    pairs:
        ``(min(k, m), 2)`` the one-to-one assignment of greatest total cosine (Hungarian
        algorithm), as indices into ``a`` and ``b``.
    paired:
        ``(min(k, m),)`` the cosines of those pairs.
    """

    best: Float
    nearest: NDArray[np.int64]
    pairs: NDArray[np.int64]
    paired: Float

    @property
    def mean_max(self) -> float:
        """Mean over ``a`` of the greatest cosine (MMCS of Sharkey et al. 2022)."""
        return float(self.best.mean())

    @property
    def mean_paired(self) -> float:
        """Mean cosine of the one-to-one pairs."""
        return float(self.paired.mean())

    def __repr__(self) -> str:
        return f"Match(mean max cosine {self.mean_max:.3f}, one to one {self.mean_paired:.3f})"


def matched_cosine(a: Any, b: Any, *, absolute: bool = False) -> Match:
    """Return how directions ``a`` ``(k, d)`` are matched by ``b`` ``(m, d)``.

    ``absolute`` ignores signs (for PCA and ICA, whose signs mean nothing).  Directions of norm 0
    have cosine 0 with everything.  What chance gives depends on ``m`` and ``d``: state it beside,
    from random directions (`chance_cosine`).
    """
    one, two = (_unit(values) for values in (a, b))
    if one.shape[1] != two.shape[1]:
        raise InputError(f"Directions of {one.shape[1]} and {two.shape[1]} channels do not match.")
    cosines = one @ two.T
    if absolute:
        cosines = np.abs(cosines)
    rows, columns = linear_sum_assignment(cosines, maximize=True)
    return Match(
        cosines.max(1),
        cosines.argmax(1),
        np.stack([rows, columns], 1),
        cosines[rows, columns],
    )


def chance_cosine(
    a: Any, m: int, rng: np.random.Generator, draws: int = 20, *, absolute: bool = False
) -> Float:
    """Return ``(draws,)``: the mean max cosine of ``a`` with ``m`` random directions, as a null."""
    d = np.asarray(a).shape[1]
    found = [
        matched_cosine(a, rng.standard_normal((m, d)), absolute=absolute).mean_max
        for _ in range(draws)
    ]
    return np.asarray(found)


def _unit(values: Any) -> Float:
    rows, lead = encoding_rows(values, int(np.shape(values)[-1]))
    if len(lead) != 1 or not len(rows):
        raise InputError(f"Directions are {np.shape(values)}; expected (features, channels).")
    norms = np.linalg.norm(rows, axis=1, keepdims=True).astype(np.float64)
    return np.asarray(rows / np.where(norms > 0, norms, 1))
