"""A Gaussian over the log-odds that probes of every layer give to a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from terrarium.errors import InputError
from terrarium.instruments.base import Array, FittedProbe
from terrarium.instruments.covariance import Shrinkage, check_shrinkage, fit_gaussian
from terrarium.instruments.detectors.mahalanobis import (
    FittedMahalanobis,
    FittedRelativeMahalanobis,
    RelativeMahalanobis,
)
from terrarium.instruments.detectors.rows import trusted_rows


def log_odds_features(fitted_probe: FittedProbe | Any, x: Array) -> NDArray[np.float64]:
    """Return ``(..., n, site)``: each row's probe score at each site, for `ProbeLogOddsGaussian`.

    ``fitted_probe`` was fitted on ``(site, ..., n, d)`` and ``x`` has the same leading axes.  The
    score is the log-odds of "true" for logistic regression; other probes give their own scale,
    which serves as well.  Raises ``InputError`` if the scores don't have one axis less than ``x``.
    """
    scores = np.asarray(fitted_probe.score(x), dtype=np.float64)
    if scores.ndim < 2 or scores.shape != np.shape(x)[:-1]:
        raise InputError(
            f"log_odds_features: the probe's scores are {scores.shape} for rows {np.shape(x)}; "
            "fit the probe on (site, ..., n, d) and give rows with the same axes."
        )
    return np.ascontiguousarray(np.moveaxis(scores, 0, -1))


@dataclass(frozen=True)
class ProbeLogOddsGaussian:
    """Squared Mahalanobis distance of a row's per-layer probe log-odds from trusted rows'.

    Finds rows on which the layers disagree in a way that they don't on trusted rows: middle layers
    that read "true" under a last layer that reads "false".  Source: Mallen et al. 2023,
    arXiv 2312.01037, section on anomaly detection: probes are fitted on Alice's easy rows, the
    Gaussian on the log-odds of trusted rows, and Bob's rows are the anomalies.  Fit the probes on
    other rows than the Gaussian, or their overfitting becomes part of "normal".

    ``x`` is ``(..., n, k)``, log-odds over k layers, as `log_odds_features` makes them.

    Parameters
    ----------
    shrinkage:
        As in `Mahalanobis`; 0 in the paper's code (k is small beside n).
    subtract_diagonal:
        Subtract the distance under the diagonal covariance, as the code published with the paper
        can (after Bai et al. 2022, arXiv 2204.05862).
    """

    shrinkage: Shrinkage = 0.0
    subtract_diagonal: bool = False
    transductive: ClassVar[bool] = False
    invariant_to: ClassVar[tuple[str, ...]] = ("translation", "scale")

    def fit(self, trusted: Array) -> FittedMahalanobis | FittedRelativeMahalanobis:
        """Fit on ``trusted`` ``(..., n, k)``.

        Raises ``InputError`` for NaN, too few rows, or layers that are copies of one another (the
        covariance then has no inverse; choose shrinkage 'ledoit_wolf' or drop a layer).
        """
        check_shrinkage(self.shrinkage, "ProbeLogOddsGaussian")
        rows = trusted_rows(trusted, "ProbeLogOddsGaussian")
        if self.subtract_diagonal:
            return RelativeMahalanobis(self.shrinkage).fit(rows)
        gaussian = fit_gaussian(rows, self.shrinkage, "ProbeLogOddsGaussian")
        return FittedMahalanobis(gaussian, "ProbeLogOddsGaussian")
