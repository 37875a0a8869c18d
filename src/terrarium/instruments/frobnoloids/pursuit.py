"""Sparse combinations of concepts for all features at once: orthogonal matching pursuit by block.

Everything is computed from Gram matrices, so that a thousand features cost little more than one.
Source: Pati et al. 1993 (orthogonal matching pursuit); Eldar et al. 2010, *Block-sparse signals*,
IEEE Transactions on Signal Processing 58, sec. V (by block).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Integers = NDArray[np.int64]
_TOGETHER = 64


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over rows, from which regressions of any features on any columns follow.

    ``count``; ``x`` ``(p,)`` and ``y`` ``(k,)`` sums; ``xx`` ``(p, p)``, ``xy`` ``(p, k)`` and
    ``yy`` ``(k,)`` sums of products.
    """

    count: int
    x: Float = field(repr=False)
    y: Float = field(repr=False)
    xx: Float = field(repr=False)
    xy: Float = field(repr=False)
    yy: Float = field(repr=False)

    @classmethod
    def of(cls, x: Float, y: Float, xx: Float | None = None) -> Moments:
        """Return the moments of rows ``x`` ``(n, p)`` and ``y`` ``(n, k)``; ``xx`` if known."""
        gram = x.T @ x if xx is None else xx
        return cls(len(x), x.sum(0), y.sum(0), gram, x.T @ y, (y**2).sum(0))

    def plus(self, other: Moments, sign: int = 1) -> Moments:
        """Return the moments of both sets of rows (sign -1: of the rows not in ``other``)."""
        return Moments(
            self.count + sign * other.count,
            self.x + sign * other.x,
            self.y + sign * other.y,
            self.xx + sign * other.xx,
            self.xy + sign * other.xy,
            self.yy + sign * other.yy,
        )

    def centred(self) -> tuple[Float, Float]:
        """Return sums of products about the means: xy ``(p, k)`` and yy ``(k,)``."""
        xy = self.xy - np.outer(self.x, self.y) / self.count
        return xy, np.maximum(self.yy - self.y**2 / self.count, 0.0)


@dataclass(frozen=True, eq=False)
class Fits:
    """Linear predictions: ``x @ weights + offset``, and which blocks they use.

    ``weights[s]`` ``(p, k)`` and ``offset[s]`` ``(k,)`` after ``s + 1`` blocks; ``blocks``
    ``(terms, k)`` in the order in which they were chosen, -1 where none helped any more.
    """

    weights: tuple[Float, ...] = field(repr=False)
    offset: tuple[Float, ...] = field(repr=False)
    blocks: Integers = field(repr=False)


@dataclass(frozen=True, eq=False)
class Columns:
    """Columns of a set of rows in their blocks, each block made orthonormal (but for the ridge).

    Independent of the features, so that any number of them is pursued on it.
    """

    moments: Moments
    edges: Integers = field(repr=False)
    sizes: Integers = field(repr=False)
    white: Float = field(repr=False)
    gram: Float = field(repr=False)

    @classmethod
    def of(cls, moments: Moments, block: Integers, penalty: float) -> Columns:
        """Return them; ``penalty`` is ridge relative to the number of rows (of variance 1)."""
        xx = moments.xx - np.outer(moments.x, moments.x) / moments.count
        edges = np.searchsorted(block, np.arange(block[-1] + 1))
        ends = np.r_[edges, len(block)]
        white = _whiten(xx, ends, penalty * moments.count)
        return cls(moments, edges, np.diff(ends), white, _between(xx, white, ends))


def pursue(columns: Columns, moments: Moments, terms: int) -> Fits:
    """Fit every feature by up to ``terms`` blocks of columns, the best next one at a time.

    ``moments`` hold the features' sums over the same rows.
    """
    edges, sizes, gram = columns.edges, columns.sizes, columns.gram
    xy, yy = moments.centred()
    target = columns.white.T @ xy
    k = target.shape[1]
    chosen = np.full((terms, k), -1, np.int64)
    beta = np.zeros_like(target)
    rest = yy.copy()
    weights, offsets = [], []
    for step in range(terms):
        left = target - gram @ beta if step else target
        energy = np.add.reduceat(left**2, edges, axis=0)
        # what a block of so many columns takes away by chance
        energy -= sizes[:, None] * (rest / max(1, moments.count - 1))
        for before in chosen[:step]:
            used = np.flatnonzero(before >= 0)
            energy[before[used], used] = -np.inf
        best = energy.argmax(0)
        helps = energy[best, np.arange(k)] > 0
        chosen[step] = np.where(helps, best, -1)
        beta = _refit(gram, target, chosen[: step + 1], edges, sizes)
        rest = np.maximum(yy - (beta * (2 * target - gram @ beta)).sum(0), 0.0)
        own = columns.white @ beta
        weights.append(own)
        offsets.append((moments.y - moments.x @ own) / moments.count)
    return Fits(tuple(weights), tuple(offsets), chosen)


def _whiten(xx: Float, edges: Integers, ridge: float) -> Float:
    """Return the block-diagonal map after which each block is orthonormal (but for the ridge)."""
    white = np.zeros_like(xx)
    for start, stop in pairwise(edges):
        own = slice(start, stop)
        values, vectors = np.linalg.eigh(xx[own, own])
        white[own, own] = vectors / np.sqrt(np.maximum(values, 0.0) + ridge)
    return white


def _between(xx: Float, white: Float, edges: Integers) -> Float:
    """Return ``white.T @ xx @ white`` of a block-diagonal map, block by block.

    With a hundred blocks of eight columns that is a hundred times less work.
    """
    half, gram = np.empty_like(xx), np.empty_like(xx)
    blocks = [slice(start, stop) for start, stop in pairwise(edges)]
    for own in blocks:
        half[:, own] = xx[:, own] @ white[own, own]
    for own in blocks:
        gram[own] = white[own, own].T @ half[own]
    return gram


def _refit(gram: Float, target: Float, chosen: Integers, edges: Integers, sizes: Integers) -> Float:
    """Return least-squares coefficients ``(p, k)`` on each feature's own blocks."""
    beta = np.zeros_like(target)
    width = np.where(chosen >= 0, sizes[chosen], 0).sum(0)
    order = np.argsort(width, kind="stable")
    for start in range(0, len(order), _TOGETHER):
        which = order[start : start + _TOGETHER]
        most = int(width[which].max())
        if not most:
            continue
        index = np.zeros((len(which), most), np.int64)
        for row, feature in enumerate(which):
            own = [np.arange(edges[b], edges[b] + sizes[b]) for b in chosen[:, feature] if b >= 0]
            if own:
                index[row, : width[feature]] = np.concatenate(own)
        real = np.arange(most) < width[which][:, None]
        both = real[:, :, None] & real[:, None, :]
        system = np.where(both, gram[index[:, :, None], index[:, None, :]], 0.0)
        # with the ridge added a whitened block's own Gram matrix is the identity
        diagonal = np.arange(most)
        system[:, diagonal, diagonal] = 1.0
        side = np.where(real, target[index, which[:, None]], 0.0)
        solved = np.linalg.solve(system, side[..., None])[..., 0]
        rows, columns = np.nonzero(real)
        beta[index[rows, columns], which[rows]] = solved[rows, columns]
    return beta
