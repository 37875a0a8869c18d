"""Points along the outlines of shapes, for worlds that tell shapes instead of showing them."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from terrarium.worlds.images.shapes import SHAPES

_ROOT3 = 3.0**0.5
_ARC = 64
"""Corners by which each round end of the bar is drawn."""


def _corners(shape: str) -> NDArray[np.float64]:
    """Return the polygon's corners ``(k, 2)`` in the shape's frame, in units of its size."""
    if shape == "rectangle":
        return np.array([(0.85, 0.5), (-0.85, 0.5), (-0.85, -0.5), (0.85, -0.5)])
    if shape == "triangle":
        half = 0.8
        return np.array([(0, 2 * half / _ROOT3), (-half, -half / _ROOT3), (half, -half / _ROOT3)])
    if shape == "bar":
        angle = np.linspace(-np.pi / 2, np.pi / 2, _ARC)
        right = np.stack([0.55 + 0.4 * np.cos(angle), 0.4 * np.sin(angle)], axis=1)
        return np.concatenate([right, -right])
    arm, half = 0.9, 0.3
    quarter = np.array([(half, half), (half, arm), (-half, arm)])
    turn = np.array([(0.0, 1.0), (-1.0, 0.0)])
    return np.concatenate([quarter @ np.linalg.matrix_power(turn, k) for k in range(4)])


@cache
def _polygon(shape: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the closed polygon ``(k + 1, 2)`` and how far along it each corner lies, 0 to 1."""
    corners = _corners(shape)
    closed = np.concatenate([corners, corners[:1]])
    length = np.linalg.norm(np.diff(closed, axis=0), axis=1)
    return closed, np.concatenate([[0.0], np.cumsum(length)]) / length.sum()


def points(label: NDArray[np.int64], start: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """Return ``(m, n, 2)`` points (u, v) evenly along each outline, beginning at ``start``.

    ``label`` ``(m,)`` is the place in `SHAPES`; ``start`` ``(m,)`` a proportion of the way round.
    In units of the shape's size.
    """
    along = (start[:, None] + np.arange(n) / n) % 1.0
    found = np.empty((*along.shape, 2))
    for place in np.unique(label):
        here = label == place
        corners, at = _polygon(SHAPES[place])
        for axis in (0, 1):
            found[here, :, axis] = np.interp(along[here], at, corners[:, axis])
    return found
