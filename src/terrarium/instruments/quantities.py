"""Known quantities of outputs, for `terrarium.instruments.effects`: errors to the truth, in units.

Each maker returns a function of one member's outputs ``(n, ...)``.  Images ``(n, channels, rows,
columns)`` give one number at each pixel (mean over the channels), except decibels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrarium.errors import InputError

Array = NDArray[Any]


def squared_error(truth: Array) -> Callable[[Array], Array]:
    """Return the squared error to ``truth`` (same shape as the outputs), in its unit squared."""
    return _against(truth, lambda difference: difference**2)


def absolute_error(truth: Array) -> Callable[[Array], Array]:
    """Return the absolute error to ``truth`` (of a signed distance, say), in its unit."""
    return _against(truth, np.abs)


def decibels(truth: Array, peak: float = 1.0) -> Callable[[Array], Array]:
    """Return the peak signal-to-noise ratio of each example, in dB; at most 120 dB.

    ``-10 log10(mean squared error / peak**2)``, so that a removal that hurts gives a fall.
    """
    reference = np.asarray(truth, np.float64)

    def measure(output: Array) -> Array:
        error = (_alike(output, reference) - reference) ** 2
        mean = error.reshape(len(error), -1).mean(1)
        return np.asarray(-10.0 * np.log10(np.maximum(mean / peak**2, 1e-12)))

    return measure


def channel(index: int) -> Callable[[Array], Array]:
    """Return the output itself in one channel: a colour, a distance, one logit of a classifier."""
    return lambda output: np.asarray(output[:, index], np.float64)


def nats(
    targets: NDArray[np.int64], at: NDArray[np.int64] | None = None
) -> Callable[[Array], Array]:
    """Return the negative log-probability of the right class or token, in nats.

    Parameters
    ----------
    targets:
        ``(n,)`` classes; the outputs are logits ``(n, classes)``, or ``(n, t, vocabulary)``.
    at:
        ``(n,)`` which position's logits to take, for sequences.
    """
    wanted = np.asarray(targets, np.int64)
    rows = np.arange(len(wanted))

    def measure(output: Array) -> Array:
        logits = np.asarray(output, np.float64)
        if at is not None:
            logits = logits[rows, np.asarray(at)]
        if logits.ndim != 2 or len(logits) != len(wanted):
            raise InputError(
                f"Nats need logits (n, classes) of {len(wanted)} examples, got {logits.shape}; "
                "name the position with 'at' for sequences."
            )
        top = logits.max(1)
        total = top + np.log(np.exp(logits - top[:, None]).sum(1))
        return np.asarray(total - logits[rows, wanted])

    return measure


def _against(truth: Array, error: Callable[[Array], Array]) -> Callable[[Array], Array]:
    reference = np.asarray(truth, np.float64)

    def measure(output: Array) -> Array:
        found = error(_alike(output, reference) - reference)
        return np.asarray(found if found.ndim == 1 else found.mean(1))

    return measure


def _alike(output: Array, truth: Array) -> Array:
    if output.shape != truth.shape:
        raise InputError(f"The outputs are {output.shape} and the truth {truth.shape}; match them.")
    return np.asarray(output, np.float64)
