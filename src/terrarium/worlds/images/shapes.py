"""Outlines as exact signed distances, and the dome that each is cut from.

Distances of rectangle, segment, triangle and cross: Quilez, "2D distance functions".
Everything is in the shape's own frame, in units of its size: ``u`` along, ``v`` across.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.floating]

SHAPES = ("bar", "rectangle", "triangle", "cross")
"""Shape classes; ``label`` is the place in this tuple.

None looks the same after a turn of 80 degrees or less, so that rotation is a factor of each.
"""

DOME = 1.25
"""Radius of the sphere that shapes are cut from, in units of size; no outline reaches 1."""

_ROOT3 = 3.0**0.5


def _bar(u: Float, v: Float) -> Float:
    """Segment of half length 0.55, rounded by 0.4."""
    beyond = u - np.clip(u, -0.55, 0.55)
    return np.asarray(np.hypot(beyond, v) - 0.4)


def _rectangle(u: Float, v: Float) -> Float:
    """Half sides 0.85 and 0.5."""
    return _box(u, v, 0.85, 0.5)


def _box(u: Float, v: Float, along: float, across: float) -> Float:
    du, dv = np.abs(u) - along, np.abs(v) - across
    outside = np.hypot(np.maximum(du, 0), np.maximum(dv, 0))
    return np.asarray(outside + np.minimum(np.maximum(du, dv), 0))


def _triangle(u: Float, v: Float) -> Float:
    """Equilateral, with sides of 1.6."""
    half = 0.8
    x, y = np.abs(u) - half, v + half / _ROOT3
    over = x + _ROOT3 * y > 0
    x, y = np.where(over, (x - _ROOT3 * y) / 2, x), np.where(over, (-_ROOT3 * x - y) / 2, y)
    x = x - np.clip(x, -2 * half, 0)
    return np.asarray(-np.hypot(x, y) * np.sign(y))


def _cross(u: Float, v: Float) -> Float:
    """Two bars of half length 0.9 and half width 0.3."""
    x, y = np.abs(u), np.abs(v)
    x, y = np.maximum(x, y), np.minimum(x, y)
    corner = -np.hypot(x - 0.3, y - 0.3)  # in the middle an inner corner is nearest
    return np.asarray(np.where(x < 0.3, corner, _box(x, y, 0.9, 0.3)))


_DISTANCES: dict[str, Callable[[Float, Float], Float]] = {
    "bar": _bar,
    "rectangle": _rectangle,
    "triangle": _triangle,
    "cross": _cross,
}


def distance(shape: str, u: Float, v: Float) -> Float:
    """Return the signed distance of points to a shape's outline, negative inside.

    ``u``, ``v``: coordinates in the shape's frame, of any one shape and float dtype; in units of
    the shape's size, as is the result.
    """
    return _DISTANCES[shape](u, v)


def height(u: Float, v: Float) -> Float:
    """Return how high the dome stands above the plane through the sphere's centre."""
    return np.asarray(np.sqrt(np.maximum(DOME**2 - u**2 - v**2, 0.0)))


def normal(u: Float, v: Float) -> tuple[Float, Float, Float]:
    """Return the dome's unit normal: along ``u``, along ``v``, towards the viewer."""
    return u / DOME, v / DOME, height(u, v) / DOME
