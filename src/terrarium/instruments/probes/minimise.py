"""Limited-memory BFGS for many small smooth problems side by side."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Objective = Callable[[Float], tuple[Float, Float]]


def lbfgs(
    objective: Objective, start: Float, *, steps: int, tolerance: float = 1e-7, memory: int = 10
) -> tuple[Float, Float]:
    """Return the minimisers ``(..., k)`` reached from ``start`` and their values ``(...,)``.

    ``objective`` maps points ``(..., k)`` to values ``(...,)`` and gradients ``(..., k)``.  Each
    problem takes its own step lengths (Armijo's rule, halving) and stops by itself where no
    component of its gradient exceeds ``tolerance`` or no step helps.  Source: Nocedal & Wright
    2006, algorithm 7.4.
    """
    point = start.copy()
    value, slope = objective(point)
    pairs: deque[tuple[Float, Float, Float]] = deque(maxlen=memory)
    for _ in range(steps):
        active = np.abs(slope).max(-1) > tolerance
        if not active.any():
            break
        step = _direction(slope, pairs)
        downhill = -(step * slope).sum(-1)
        uphill = downhill <= 0  # the memory misleads there: take the gradient
        step = np.where(uphill[..., None], -slope, step)
        downhill = np.where(uphill, np.square(slope).sum(-1), downhill)
        length = np.ones_like(value) if pairs else 1 / np.maximum(1, np.sqrt(downhill))
        length = np.where(active, length, 0.0)
        for _ in range(40):
            trial = point + length[..., None] * step
            fresh, gradient = objective(trial)
            short = fresh > value - 1e-4 * length * downhill
            if not (short & (length > 0)).any():
                break
            length = np.where(short, length / 2, length)
        helped = (fresh <= value) & (length > 0)
        if not helped.any():
            break
        keep = helped[..., None]
        change = np.where(keep, trial - point, 0.0)
        bent = np.where(keep, gradient - slope, 0.0)
        along = (change * bent).sum(-1)
        enough = along > 1e-10 * np.sqrt(np.square(change).sum(-1) * np.square(bent).sum(-1))
        pairs.append((change, bent, np.divide(1, along, out=np.zeros_like(along), where=enough)))
        point, slope = point + change, np.where(keep, gradient, slope)
        value = np.where(helped, fresh, value)
    return point, value


def _direction(slope: Float, pairs: deque[tuple[Float, Float, Float]]) -> Float:
    """Return minus the approximate inverse Hessian times ``slope`` (two-loop recursion)."""
    step = -slope
    shares = []
    for change, bent, rho in reversed(pairs):
        share = rho * (change * step).sum(-1)
        shares.append(share)
        step = step - share[..., None] * bent
    if pairs:
        _, bent, rho = pairs[-1]
        size = rho * np.square(bent).sum(-1)
        step = step * np.divide(1, size, out=np.ones_like(size), where=size > 0)[..., None]
    for (change, bent, rho), share in zip(pairs, reversed(shares), strict=True):
        back = rho * (bent * step).sum(-1)
        step = step + (share - back)[..., None] * change
    return step
