"""Quantum entropy (QUE) scores of a suspect batch, whitened by trusted rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from terrarium.errors import InputError
from terrarium.instruments.base import Array
from terrarium.instruments.covariance import (
    Float,
    Gaussian,
    Shrinkage,
    check_shrinkage,
    fit_gaussian,
)
from terrarium.instruments.detectors.rows import suspect_rows, trusted_rows

Centre = Literal["trusted", "batch"]


def check_centre(centre: str, what: str) -> None:
    """Raise ``InputError`` unless ``centre`` is ``"trusted"`` or ``"batch"``."""
    if centre not in ("trusted", "batch"):
        raise InputError(f"{what}: centre is {centre!r}; give 'trusted' or 'batch'.")


@dataclass(frozen=True, eq=False)
class FittedQuantumEntropy:
    """A fitted `QuantumEntropy`: the trusted Gaussian, and what the score needs."""

    gaussian: Gaussian
    alpha: float
    centre: Centre

    def score(self, x: Array) -> NDArray[np.float64]:
        """Return ``(..., n)`` QUE scores of the batch ``x`` ``(..., n, d)``; they depend on it.

        Non-negative; about 1 for trusted rows when ``alpha`` is 0.  Raises ``InputError`` for
        NaN, fewer than 2 rows, and other leading axes or width than the trusted rows'.
        """
        mean = self.gaussian.mean
        rows = suspect_rows(x, mean.shape[:-1], mean.shape[-1], "QuantumEntropy", minimum=2)
        white = self.gaussian.whiten(rows)
        if self.centre == "batch":
            white = white - white.mean(-2, keepdims=True)
        moment = np.swapaxes(white, -1, -2) @ white / white.shape[-2]
        values, vectors = np.linalg.eigh(moment)
        weights = self._weights(values)
        scores: Float = (np.square(white @ vectors) @ weights[..., None])[..., 0]
        return scores

    def _weights(self, values: Float) -> Float:
        """Return the eigenvalues ``(..., d)`` of Q / trace(Q), given those of the moment."""
        top = values[..., -1:]
        # Subtracting the top eigenvalue instead of 1 cancels in Q / trace(Q) and cannot overflow.
        exponent = np.divide(
            self.alpha * (values - top), top - 1.0, out=np.zeros_like(values), where=top > 1.0
        )
        weights = np.exp(exponent)
        normalised: Float = weights / weights.sum(-1, keepdims=True)
        return normalised


@dataclass(frozen=True)
class QuantumEntropy:
    """How much a row contributes to directions in which the suspect batch varies too much.

    A transductive score: it needs the whole suspect batch, and a row's score changes with the
    rows around it; score together what is to be compared.  Source: Hayase et al. 2021, *SPECTRE:
    defending against backdoor attacks using robust statistics*, arXiv 2104.11315, sec. 3 (QUE
    scores after Dong, Hopkins & Li 2019, arXiv 1906.11366): rows are whitened by the clean
    covariance, M is the second moment of the whitened batch, and

        score = x^T Q x / trace(Q),   Q = exp(alpha (M - I) / (|M|_2 - 1)).

    alpha = 0 gives the squared norm over d, alpha to infinity the squared projection on the top
    direction.  Here trusted rows are given, so that the clean mean and covariance are estimated
    from them (shrunk) and not robustly from the suspect batch, nor after a PCA.  Where the batch
    varies nowhere more than trusted rows do (|M|_2 at most 1) there is no direction to weigh and
    Q = I.

    Parameters
    ----------
    alpha:
        Sharpness; 4 in the paper.
    shrinkage:
        Of the trusted covariance, as in `Mahalanobis`.
    centre:
        ``"trusted"``: M is taken about the trusted mean, so that a batch shifted as a whole
        shows; ``"batch"``: about the batch's own mean, as without trusted rows.
    """

    alpha: float = 4.0
    shrinkage: Shrinkage = "ledoit_wolf"
    centre: Centre = "trusted"
    transductive: ClassVar[bool] = True
    invariant_to: ClassVar[tuple[str, ...]] = ("translation", "scale", "rotation")

    def fit(self, trusted: Array) -> FittedQuantumEntropy:
        """Fit on ``trusted`` ``(..., n, d)``, any float dtype; computed in float64.

        Raises ``InputError`` for NaN, fewer than 2 rows, parameters out of range, or a covariance
        without an inverse (possible only with a fixed amount of shrinkage).
        """
        check_shrinkage(self.shrinkage, "QuantumEntropy")
        check_centre(self.centre, "QuantumEntropy")
        if not 0.0 <= self.alpha < np.inf:
            raise InputError(f"QuantumEntropy: alpha is {self.alpha}; give a number from 0 up.")
        rows = trusted_rows(trusted, "QuantumEntropy")
        gaussian = fit_gaussian(rows, self.shrinkage, "QuantumEntropy")
        return FittedQuantumEntropy(gaussian, self.alpha, self.centre)
