"""Samples judged by a known law: on a finite set, by frequencies, as a whole."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from terrarium.randomness import generator


def chi_square(component: ArrayLike, weights: ArrayLike) -> float:
    """Return the p-value of counts of components under the law's weights (Pearson's test).

    ``component`` ``(n,)`` are indices into ``weights`` ``(k,)``.  The p-value is by the
    chi-square law with k - 1 degrees of freedom, good where each is expected five times.
    """
    from scipy.special import chdtrc  # scipy.stats takes seconds to import

    p = np.asarray(weights, np.float64)
    counts = np.bincount(np.asarray(component, np.int64), minlength=len(p))
    expected = counts.sum() * p / p.sum()
    return float(chdtrc(len(p) - 1, (np.square(counts - expected) / expected).sum()))


def total_variation(component: ArrayLike, weights: ArrayLike) -> float:
    """Return half the summed difference of frequencies and weights, a proportion."""
    p = np.asarray(weights, np.float64)
    counts = np.bincount(np.asarray(component, np.int64), minlength=len(p))
    return float(0.5 * np.abs(counts / counts.sum() - p / p.sum()).sum())


def expected_total_variation(n: int, weights: ArrayLike, draws: int = 200) -> float:
    """Return the mean `total_variation` of ``n`` true draws: what chance alone gives."""
    p = np.asarray(weights, np.float64)
    counts = generator("total variation", n, len(p)).multinomial(n, p / p.sum(), draws)
    return float(0.5 * np.abs(counts / n - p / p.sum()).sum(axis=1).mean())


def energy_distance(x: ArrayLike, y: ArrayLike) -> float:
    """Return the squared energy distance of two samples ``(n, ...)``, ``(m, ...)``, unbiased.

    ``2 E|X - Y| - E|X - X'| - E|Y - Y'|`` with Euclidean distances per root of the number of
    pixels (Szekely & Rizzo 2013); 0 for equal laws in expectation, so that a sample's may be
    negative.
    """
    both, n = _pooled(x, y)
    return _energy(_distances(both), np.arange(len(both)) < n)


def energy_p(x: ArrayLike, y: ArrayLike, key: str | int, permutations: int = 199) -> float:
    """Return the permutation p-value of `energy_distance`: which share is at least as large."""
    both, n = _pooled(x, y)
    far, first = _distances(both), np.arange(len(both)) < n
    found = _energy(far, first)
    rng = generator("energy", key)
    null = [_energy(far, rng.permutation(first)) for _ in range(permutations)]
    return float((1 + sum(value >= found for value in null)) / (1 + permutations))


def _pooled(x: ArrayLike, y: ArrayLike) -> tuple[NDArray[np.float64], int]:
    one, two = (np.asarray(part, np.float64).reshape(len(np.asarray(part)), -1) for part in (x, y))
    return np.concatenate([one, two]) / np.sqrt(one.shape[1]), len(one)


def _distances(x: NDArray[np.float64]) -> NDArray[np.float64]:
    square = np.square(x).sum(axis=1)
    return np.asarray(np.sqrt(np.maximum(square[:, None] + square - 2 * x @ x.T, 0)))


def _energy(far: NDArray[np.float64], first: NDArray[np.bool_]) -> float:
    n, m = int(first.sum()), int((~first).sum())
    cross = far[np.ix_(first, ~first)].sum() / (n * m)
    within = far[np.ix_(first, first)].sum() / (n * (n - 1))
    other = far[np.ix_(~first, ~first)].sum() / (m * (m - 1))
    return float(2 * cross - within - other)
