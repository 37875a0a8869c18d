"""scikit-learn's detectors behind leading axes: one model for each site and member."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from terrarium.errors import InputError, did_you_mean
from terrarium.instruments.base import Array
from terrarium.instruments.covariance import Float, Gaussian, fit_gaussian
from terrarium.instruments.detectors.rows import suspect_rows

Scaling = Literal["none", "standardise", "whiten"]


@dataclass(frozen=True, eq=False)
class Scaler:
    """What is done to rows before scikit-learn sees them, fitted on trusted rows.

    ``mean`` and ``spread`` are ``(..., d)`` for ``"standardise"``; ``gaussian`` for ``"whiten"``.
    """

    mean: Float | None = field(default=None, repr=False)
    spread: Float | None = field(default=None, repr=False)
    gaussian: Gaussian | None = field(default=None, repr=False)

    def __call__(self, x: Float) -> Float:
        """Return the scaled rows ``(..., n, d)``."""
        if self.gaussian is not None:
            return self.gaussian.whiten(x)
        if self.mean is not None and self.spread is not None:
            scaled: Float = (x - self.mean[..., None, :]) / self.spread[..., None, :]
            return scaled
        return x


def fit_scaler(rows: Float, scaling: Scaling, what: str) -> Scaler:
    """Fit ``scaling`` on ``rows`` ``(..., n, d)``.

    ``"standardise"`` gives each channel mean 0 and variance 1 (a constant channel keeps its
    unit); ``"whiten"`` removes correlations too, with Ledoit-Wolf shrinkage.  Raises
    ``InputError`` for an unknown name.
    """
    if scaling not in get_args(Scaling):
        known = did_you_mean(str(scaling), get_args(Scaling))
        raise InputError(f"{what}: there is no scaling '{scaling}'{known}")
    if scaling == "none":
        return Scaler()
    if scaling == "whiten":
        return Scaler(gaussian=fit_gaussian(rows, "ledoit_wolf", what))
    mean, spread = rows.mean(-2), rows.std(-2)
    constant = spread <= 10 * np.finfo(np.float64).eps * np.abs(mean)
    return Scaler(mean, np.where(constant, 1.0, spread))


@dataclass(frozen=True, eq=False)
class FittedScikit:
    """One fitted scikit-learn model for each leading index, and the scaler before them.

    ``models`` are in C order over ``lead``; ``method`` names the model's method whose negative is
    the score.
    """

    what: str
    lead: tuple[int, ...]
    width: int
    scaler: Scaler = field(repr=False)
    models: tuple[Any, ...] = field(repr=False)
    method: str = "score_samples"

    def score(self, x: Array) -> NDArray[np.float64]:
        """Return ``(..., n)`` anomaly scores of ``x`` ``(..., n, d)``; higher is odder.

        Raises ``InputError`` for NaN and for other leading axes or width than the trusted rows'.
        """
        rows = self.scaler(suspect_rows(x, self.lead, self.width, self.what))
        scores = np.empty(rows.shape[:-1])
        if rows.shape[-2] == 0:
            return scores
        for number, index in enumerate(np.ndindex(rows.shape[:-2])):
            model = self.models[number if self.lead else 0]
            scores[index] = -getattr(model, self.method)(rows[index])
        return scores


def fit_each(
    rows: Float,
    scaling: Scaling,
    what: str,
    model: Callable[[], Any],
    method: str = "score_samples",
) -> FittedScikit:
    """Fit ``model()`` to each leading index of ``rows`` ``(..., n, d)``."""
    scaler = fit_scaler(rows, scaling, what)
    scaled = scaler(rows)
    models = tuple(model().fit(scaled[index]) for index in np.ndindex(rows.shape[:-2]))
    return FittedScikit(what, rows.shape[:-2], rows.shape[-1], scaler, models, method)
