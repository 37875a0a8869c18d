"""The solver under `LogisticRegression`: quasi-Newton with the exact Hessian to start from.

A pass over the rows costs n d, a Hessian n d^2, so passes are nearly free and Hessians are what
one pays for.  The first Hessian is exact (at w = 0 every row has weight 1/4); from there its
inverse follows the gradients by BFGS updates (Nocedal & Wright 2006, eq. 6.17), one pass over the
rows each, and is computed anew only where progress is slow (separable data).  The margins are
kept, so that the line search touches n numbers and no activations.

One problem at a time: its rows stay in the processor's cache, no problem waits for a slower one,
and a stack of problems gives the same bits as each by itself.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import get_blas_funcs, get_lapack_funcs

Vector = NDArray[Any]
Matrix = NDArray[Any]

_RENEW_AFTER = 6  # steps with one Hessian before a slow problem gets a new one
_SLOW = 0.2  # share of the decrement left after a step, above which the step was slow
_LONGEST_STEP = 4.0  # in units of the quasi-Newton step


@dataclass(frozen=True, eq=False)
class Problem:
    """Minimise ``sum log(1 + exp(-(rows w + ones b))) + w ridge w / 2`` over w and b.

    Attributes
    ----------
    rows:
        ``(n, d)`` float32 or float64: activations, those of false rows with their sign changed.
    ones:
        ``(n,)`` the same of a column of ones (-1 and 1); zeros for a fit without intercept.
    ridge:
        ``(d + 1,)``; its last entry is 0, or 1 for a fit without intercept.

    Weights are ``(d + 1,)``, b last.
    """

    rows: Matrix
    ones: Vector
    ridge: Vector

    def margins(self, weights: Vector) -> Vector:
        """Return ``rows w + ones b``."""
        margins: Vector = self.rows @ weights[:-1]
        margins += self.ones * weights[-1]
        return margins

    def gradient(self, wrong: Vector, weights: Vector) -> Vector:
        """Return the gradient where each row's label has probability ``1 - wrong``."""
        slope: Vector = self.ridge * weights
        slope[:-1] -= wrong @ self.rows
        slope[-1] -= wrong @ self.ones
        return slope

    def size(self, wrong: Vector, weights: Vector) -> float:
        """Return a little less than the objective: the loss of a row is at least ``wrong``."""
        return float(wrong.sum()) + 0.5 * float((self.ridge * weights) @ weights)

    def inverse_hessian(self, curvature: Vector | None) -> Matrix:
        """Return the inverse Hessian where rows have ``curvature``; None stands for 1/4."""
        d = self.rows.shape[1]
        root = (
            np.full(len(self.ones), 0.5, self.rows.dtype) if curvature is None else curvature**0.5
        )
        weighed = self.rows if curvature is None else self.rows * root[:, None]
        ones = self.ones * root
        hessian = np.zeros((d + 1, d + 1), self.rows.dtype, order="F")
        hessian[:d, :d] = weighed.T @ weighed
        hessian[:d, d] = ones @ weighed
        hessian[d, d] = ones @ ones
        if curvature is None:
            hessian *= hessian.dtype.type(0.25)
        return _inverse(hessian, self.ridge)


def minimise(
    problem: Problem, start: Vector | None, *, tolerance: float, steps: int
) -> tuple[Vector, bool]:
    """Return weights ``(d + 1,)`` and whether they converged.

    Converged means that the Newton decrement, about twice what is left to gain, is at most
    ``tolerance`` times the objective.
    """
    dtype = problem.rows.dtype
    symv = _routines(dtype)[0]
    n, d = problem.rows.shape
    if start is None:
        weights, margins, wrong = np.zeros(d + 1, dtype), np.zeros(n, dtype), np.full(n, 0.5, dtype)
        inverse = problem.inverse_hessian(None)
    else:
        weights = start.astype(dtype)
        margins = problem.margins(weights)
        wrong = _wrong(margins)
        inverse = problem.inverse_hessian(wrong * (1 - wrong))
    slope = problem.gradient(wrong, weights)
    before, renewed, scaled = np.inf, 0, start is not None
    for count in range(steps + 1):
        step = symv(-1, inverse, slope)
        decrement = -float(slope @ step)
        near = 0 <= decrement <= tolerance * n  # the objective starts at n log 2 and falls
        if near and decrement <= tolerance * problem.size(wrong, weights):
            return weights, True
        late = count - renewed >= _RENEW_AFTER and decrement > _SLOW * before
        if late or not decrement > 0:  # or rounding has eaten the inverse's definiteness
            inverse = problem.inverse_hessian(wrong * (1 - wrong))
            renewed, scaled = count, True
            step = symv(-1, inverse, slope)
            decrement = -float(slope @ step)
        before = decrement
        move = problem.margins(step)
        length, margins, wrong = _line_search(
            problem, weights, step, margins, move, wrong, decrement
        )
        step *= dtype.type(length)
        weights = weights + step
        after = problem.gradient(wrong, weights)
        inverse = _updated(inverse, step, after - slope, rescale=not scaled)
        slope, scaled = after, True
    return weights, False


@functools.cache
def _routines(dtype: np.dtype[Any]) -> tuple[Callable[..., Any], ...]:
    """Return BLAS symv, syr2 and LAPACK potrf, potri; looking them up costs more than they do."""
    blas = get_blas_funcs(("symv", "syr2"), dtype=dtype)
    return (*blas, *get_lapack_funcs(("potrf", "potri"), dtype=dtype))


def _wrong(margins: Vector) -> Vector:
    """Return the probability of the other label, ``1 / (1 + exp(margins))``."""
    wrong: Vector = np.exp(margins)
    wrong += 1
    return np.reciprocal(wrong, out=wrong)


def _line_search(
    problem: Problem,
    weights: Vector,
    step: Vector,
    margins: Vector,
    move: Vector,
    wrong: Vector,
    decrement: float,
) -> tuple[float, Vector, Vector]:
    """Return a step length and the margins and error probabilities after it.

    One Newton step along the line, shortened while it overshoots: the objective is convex, so an
    uphill slope of at most half the first slope bounds what the overshoot can cost.
    """
    ridge = problem.ridge * step
    linear, square = float(ridge @ weights), float(ridge @ step)
    pull = wrong * move
    bend = float(pull @ move) - float(pull @ pull) + square  # sum wrong (1 - wrong) move^2
    tiny = float(np.finfo(move.dtype).tiny)
    length = min(decrement / max(bend, tiny), _LONGEST_STEP)
    for _ in range(60):
        ahead = margins + move.dtype.type(length) * move
        missed = _wrong(ahead)
        uphill = linear + length * square - float(missed @ move)
        if uphill <= 0.5 * decrement:
            break
        length *= min(max(decrement / (decrement + uphill), 0.1), 0.9)
    return length, ahead, missed


def _updated(inverse: Matrix, step: Vector, bent: Vector, *, rescale: bool) -> Matrix:
    """Return the inverse made to map ``bent``, a change of slope, to ``step`` (BFGS)."""
    symv, syr2, _, _ = _routines(step.dtype)
    along = float(step @ bent)
    image = symv(1, inverse, bent)
    spread = float(bent @ image)
    tiny = float(np.finfo(step.dtype).tiny)
    if not (along > tiny and spread > tiny):
        return inverse
    number = step.dtype.type
    if rescale:  # before the first update only: how flat the function really is
        factor = along / spread
        inverse *= number(factor)
        image *= number(factor)
        spread *= factor
    other = number(0.5 * (spread / along + 1) / along) * step - number(1 / along) * image
    updated: Matrix = syr2(1, step, other, a=inverse, overwrite_a=1)
    return updated


def _inverse(hessian: Matrix, ridge: Vector) -> Matrix:
    """Return the inverse of a symmetric matrix plus ``ridge``, lifted until it has one."""
    _, _, potrf, potri = _routines(hessian.dtype)
    places = np.arange(len(hessian))
    exact = hessian[places, places] + ridge
    limits = np.finfo(hessian.dtype)
    lift = 10 * float(limits.eps)
    while True:
        floor = limits.tiny / limits.eps + lift * 1e-3 * exact.max()
        hessian[places, places] = exact * (1 + hessian.dtype.type(lift)) + hessian.dtype.type(floor)
        factor, failed = potrf(hessian, lower=0, clean=1)
        if failed == 0 or lift > 1:
            inverse: Matrix = potri(factor, lower=0, overwrite_c=1)[0]
            return inverse
        lift *= 30
