"""Linear discriminant analysis with a covariance that stays invertible."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import scipy.linalg

from terrarium.errors import InputError
from terrarium.instruments.covariance import Shrinkage, check_shrinkage, shrunk_covariance
from terrarium.instruments.probes.linear import Bool, Float, LinearProbe, fit_each, labels, rows


@dataclass(frozen=True)
class LDA:
    """Linear discriminant analysis: the inverse within-class covariance times the mean difference.

    The score is the log-odds under two Gaussians of one covariance, class frequencies as priors.
    The covariance is pooled over both classes (maximum likelihood, divided by n) and shrunk
    towards a multiple of the identity, so that channels which hardly vary in training get no
    large weight.

    Parameters
    ----------
    shrinkage:
        ``"ledoit_wolf"``, ``"oas"`` or the amount itself in ``[0, 1]``.  scikit-learn's
        ``shrinkage="auto"`` shrinks each class towards its own diagonal instead; with a number
        and with ``covariance_estimator`` the two agree.

    Source: Fisher 1936; Ledoit & Wolf 2004; as a probe in Mallen et al. 2023 (arXiv 2312.01037).
    """

    shrinkage: Shrinkage = "ledoit_wolf"
    supervised: ClassVar[bool] = True
    on_pairs: ClassVar[bool] = False
    rotation_equivariant: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_shrinkage(self.shrinkage, "LDA")

    def fit(self, x: Any, y: Any = None) -> LinearProbe:
        """Fit on ``x`` ``(..., n, d)`` and ``y`` ``(n,)`` or ``(..., n)``.

        Raises ``InputError`` for NaN, shapes that do not match, a single class, or a covariance
        without an inverse.
        """
        values = rows(x, "the activations")
        lead, truth = labels(y, values, "LDA")
        return fit_each(lead, values, truth, self._fit_one)

    def _fit_one(self, x: Float, y: Bool) -> tuple[Float, float]:
        true, false = x[y].mean(0), x[~y].mean(0)
        residuals = x - np.where(y[:, None], true, false)
        covariance, _ = shrunk_covariance(residuals, self.shrinkage)
        direction = _solve(covariance, true - false, len(x))
        prior = np.log(y.mean() / (1 - y.mean()))
        return direction, float(prior - direction @ (true + false) / 2)


def _solve(covariance: Float, difference: Float, n: int) -> Float:
    advice = (
        f"LDA: the covariance of {n} rows of {len(difference)} channels has no inverse; "
        "give more rows, drop constant channels, or choose shrinkage 'ledoit_wolf'."
    )
    try:
        factor = scipy.linalg.cho_factor(covariance, lower=True)
    except np.linalg.LinAlgError:
        raise InputError(advice) from None
    pivots = np.square(np.diagonal(factor[0]))
    eps = np.finfo(np.float64).eps
    if pivots.min() <= 4 * len(difference) * eps * np.diagonal(covariance).max():
        raise InputError(advice)  # rounding lets a singular matrix through with such pivots
    direction: Float = scipy.linalg.cho_solve(factor, difference)
    return direction
