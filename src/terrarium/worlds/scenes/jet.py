"""Second-order jets: a formula evaluated together with its exact gradient and Hessian.

Forward-mode differentiation (Griewank & Walther 2008, *Evaluating Derivatives*, chapter 13) in the
three coordinates of space.  The formulas of `terrarium.worlds.scenes.primitives` are written once,
over the functions of this module; given arrays they return arrays, given `Jet`s they return jets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Scalar = Any
"""One number per point: an ``(n,)`` float64 array, a plain number, or a `Jet`."""


@dataclass(frozen=True, eq=False)
class Jet:
    """A scalar field at ``n`` points: ``value`` (n,), ``gradient`` (n, 3), ``hessian`` (n, 3, 3).

    The Hessian is None in jets of first order, which cost a third.
    At a kink (of an absolute value, a minimum, a root at 0) it holds the derivatives of one side.
    """

    value: Floats
    gradient: Floats
    hessian: Floats | None

    __array_ufunc__ = None  # arrays leave the arithmetic to the jet

    def __add__(self, other: Scalar) -> Jet:
        if isinstance(other, Jet):
            return Jet(
                self.value + other.value,
                self.gradient + other.gradient,
                _sum(self.hessian, other.hessian),
            )
        return Jet(self.value + other, self.gradient, self.hessian)

    __radd__ = __add__

    def __neg__(self) -> Jet:
        return self * -1.0

    def __sub__(self, other: Scalar) -> Jet:
        return self.__add__(-other)

    def __rsub__(self, other: Scalar) -> Jet:
        return (self * -1.0).__add__(other)

    def __mul__(self, other: Scalar) -> Jet:
        if not isinstance(other, Jet):
            bent = None if self.hessian is None else self.hessian * other
            return Jet(self.value * other, self.gradient * other, bent)
        one, two = self.value[:, None], other.value[:, None]
        hessian = None
        if self.hessian is not None and other.hessian is not None:
            cross = self.gradient[:, :, None] * other.gradient[:, None, :]
            hessian = self.hessian * two[..., None] + other.hessian * one[..., None]
            hessian += cross + cross.transpose(0, 2, 1)
        gradient = self.gradient * two + other.gradient * one
        return Jet(self.value * other.value, gradient, hessian)

    __rmul__ = __mul__

    def __truediv__(self, other: float) -> Jet:
        return self * (1.0 / other)


def coordinates(points: Floats, order: int = 2) -> tuple[Jet, Jet, Jet]:
    """Return x, y and z of points ``(n, 3)`` as jets of first or second ``order``."""
    n = len(points)
    flat = np.zeros((n, 3, 3)) if order == 2 else None
    x, y, z = (Jet(points[:, i], np.tile(np.eye(3)[i], (n, 1)), flat) for i in range(3))
    return x, y, z


def _sum(a: Floats | None, b: Floats | None) -> Floats | None:
    return None if a is None or b is None else a + b


def value(a: Scalar) -> Any:
    """Return the number itself, without derivatives."""
    return a.value if isinstance(a, Jet) else a


def sqrt(a: Scalar) -> Scalar:
    """Return the square root; at 0 its derivatives are taken as 0."""
    if not isinstance(a, Jet):
        return np.sqrt(a)
    root = np.sqrt(np.maximum(a.value, 0.0))
    inverse = np.divide(1.0, root, out=np.zeros_like(root), where=root > 0)[:, None]
    half = 0.5 * a.gradient * inverse  # the gradient of the root
    if a.hessian is None:
        return Jet(root, half, None)
    outer = half[:, :, None] * half[:, None, :]
    return Jet(root, half, (0.5 * a.hessian - outer) * inverse[..., None])


def length(*parts: Scalar) -> Scalar:
    """Return the Euclidean length of a vector given by its coordinates."""
    total: Scalar = 0.0
    for part in parts:
        total = total + part * part
    return sqrt(total)


def where(chosen: NDArray[np.bool_], a: Scalar, b: Scalar) -> Scalar:
    """Return ``a`` where ``chosen`` and ``b`` elsewhere."""
    if not isinstance(a, Jet) and not isinstance(b, Jet):
        return np.where(chosen, a, b)
    flat = (a if isinstance(a, Jet) else b).hessian is None
    one, two = _lifted(a, chosen, flat), _lifted(b, chosen, flat)
    hessian = None
    if one.hessian is not None and two.hessian is not None:
        hessian = np.where(chosen[:, None, None], one.hessian, two.hessian)
    return Jet(
        np.where(chosen, one.value, two.value),
        np.where(chosen[:, None], one.gradient, two.gradient),
        hessian,
    )


def _lifted(a: Scalar, like: NDArray[np.bool_], flat: bool) -> Jet:
    if isinstance(a, Jet):
        return a
    n = len(like)
    hessian = None if flat else np.zeros((n, 3, 3))
    return Jet(np.broadcast_to(a, (n,)), np.zeros((n, 3)), hessian)


def minimum(a: Scalar, b: Scalar) -> Scalar:
    """Return the smaller of two, with its derivatives."""
    if not isinstance(a, Jet) and not isinstance(b, Jet):
        return np.minimum(a, b)
    return where(np.asarray(value(a) <= value(b)), a, b)


def maximum(a: Scalar, b: Scalar) -> Scalar:
    """Return the larger of two, with its derivatives."""
    if not isinstance(a, Jet) and not isinstance(b, Jet):
        return np.maximum(a, b)
    return where(np.asarray(value(a) >= value(b)), a, b)


def absolute(a: Scalar) -> Scalar:
    """Return the absolute value."""
    if not isinstance(a, Jet):
        return np.abs(a)
    return where(a.value >= 0, a, -a)


def mean_curvature(field: Jet) -> Floats:
    """Return the mean curvature ``(n,)`` of the level set through each point, in 1 / unit.

    Half the divergence of the unit normal (Goldman 2005, *Computer Aided Geometric Design* 22,
    section 4), so that a sphere of radius r has 1 / r with a field that grows outwards.
    NaN where the gradient is 0.
    """
    g, h = field.gradient, field.hessian
    if h is None:
        raise ValueError("curvature needs a jet of second order")
    square = np.square(g).sum(axis=1)
    bent = np.einsum("ni,nij,nj->n", g, h, g)
    top = square * np.trace(h, axis1=1, axis2=2) - bent
    empty = np.full(len(g), np.nan)
    return np.asarray(np.divide(top, 2 * square**1.5, out=empty, where=square > 0))
