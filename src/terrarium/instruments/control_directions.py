"""Random directions that an effect is held against: of all channels alike, or as a site varies.

Any large enough shove changes an output, so that a removal is compared with moves of the same size
(Marks & Tegmark 2023, arXiv 2310.06824).  Directions of all channels alike may lie where nothing
ever varies and nothing is read; those with the site's own covariance do not.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]

ROWS = 4096
"""Activations that decide a covariance, at most."""


def isotropic(draws: int, d: int, rng: np.random.Generator) -> Float:
    """Return ``(draws, d)`` random directions of length 1."""
    normal = rng.standard_normal((draws, d))
    return np.asarray(normal / np.linalg.norm(normal, axis=1, keepdims=True))


def varying(draws: int, rows: NDArray[Any], rng: np.random.Generator) -> Float:
    """Return ``(draws, d)`` directions of length 1 with the covariance of ``rows`` ``(n, d)``.

    Where all rows are alike they are isotropic.
    """
    if not draws:
        return np.empty((0, rows.shape[1]))
    centred = np.asarray(rows, np.float64) - np.mean(rows, axis=0)
    drawn = rng.standard_normal((draws, len(centred))) @ centred
    length = np.linalg.norm(drawn, axis=1, keepdims=True)
    if not (length > 0).all():
        return isotropic(draws, centred.shape[1], rng)
    return np.asarray(drawn / length)


def taking(units: NDArray[Any], along: NDArray[Any], own: NDArray[Any]) -> Float:
    """Return ``units`` ``(draws, d)`` with the sign by which each takes where a removal takes.

    ``along`` ``(d,)`` is the sum over examples of the removal's signed size times the activation,
    ``own`` ``(d,)`` the removed direction.  A removal takes something away; without the sign it is
    compared with additions half of the time.
    """
    signs = np.sign(units @ along) * np.sign(own @ along)
    return np.asarray(units * np.where(signs == 0, 1.0, signs)[:, None])
