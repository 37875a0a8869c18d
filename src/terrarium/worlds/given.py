"""Checks of what users hand to worlds and scenes: counts, outputs, points; a sentence each."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrarium.errors import InputError


def check_count(n: Any, world: str) -> None:
    """Raise ``InputError`` unless ``n`` is a number of examples: a whole number, 0 or more."""
    if not isinstance(n, int | np.integer) or n < 0:
        raise InputError(
            f"The world '{world}' was asked for {n!r} examples; give a whole number, 0 or more."
        )


def outputs(output: Any, shape: tuple[int, ...], world: str) -> NDArray[np.float64]:
    """Return a batch's outputs as float64 of ``shape``; ``InputError`` for another number."""
    try:
        given = np.asarray(output, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(
            f"The outputs for the world '{world}' are no array of numbers; give one output of "
            f"shape {shape[1:]} for each of the {shape[0]} examples."
        ) from None
    if given.size != math.prod(shape):
        raise InputError(
            f"The outputs for the world '{world}' have the shape {given.shape}, and the batch's "
            f"examples ask for {shape}; give one output for each example."
        )
    return given.reshape(shape)


def coordinates(points: Any, what: str = "Points") -> NDArray[np.float64]:
    """Return points of space ``(n, 3)`` as contiguous float64; ``InputError`` for other shapes."""
    try:
        given = np.ascontiguousarray(points, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{what} must be numbers, an array (n, 3); these are none.") from None
    if given.ndim != 2 or given.shape[1] != 3:
        raise InputError(
            f"{what} must be an array (n, 3), x, y and z of each; these have the shape "
            f"{np.shape(points)}."
        )
    return given
