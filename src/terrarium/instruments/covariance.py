"""Covariances that stay invertible, for every leading axis at once.

Shrinkage pulls the empirical covariance S towards a scaled identity: (1 - a) S + a m I with
m = trace(S) / d, the target of Ledoit & Wolf (2004), *A well-conditioned estimator for
large-dimensional covariance matrices*, sec. 2, which keeps the total variance as it is.  (A bare
identity would depend on the unit of the activations.)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from terrarium.errors import InputError

Shrinkage = Literal["ledoit_wolf", "oas"] | float
Float = NDArray[np.float64]


def check_shrinkage(shrinkage: Any, what: str) -> None:
    """Raise ``InputError`` unless ``shrinkage`` is a known name or a number in ``[0, 1]``."""
    if isinstance(shrinkage, str):
        if shrinkage in ("ledoit_wolf", "oas"):
            return
    elif isinstance(shrinkage, (int, float)) and 0.0 <= shrinkage <= 1.0:
        return
    raise InputError(
        f"{what}: shrinkage is {shrinkage!r}; give 'ledoit_wolf', 'oas' or a number from 0 to 1."
    )


def shrunk_covariance(centred: Float, shrinkage: Shrinkage) -> tuple[Float, Float]:
    """Return the covariance ``(..., d, d)`` of centred rows and the amount of shrinkage ``(...,)``.

    Parameters
    ----------
    centred:
        ``(..., n, d)`` float64, mean already subtracted.  Divided by n, not n - 1, as in the
        papers and in scikit-learn.
    shrinkage:
        ``"ledoit_wolf"`` (Ledoit & Wolf 2004, sec. 3), ``"oas"`` (Chen et al. 2010,
        *Shrinkage algorithms for MMSE covariance estimation*, arXiv 0907.4698, eq. 23 without its
        term 2/d, as scikit-learn has it), or the amount itself, 0 for the empirical covariance.
    """
    n, d = centred.shape[-2:]
    empirical = np.swapaxes(centred, -1, -2) @ centred / n
    mean_variance = np.trace(empirical, axis1=-2, axis2=-1) / d
    amount = np.broadcast_to(
        _amount(centred, empirical, mean_variance, shrinkage), mean_variance.shape
    )
    shrunk = (1.0 - amount)[..., None, None] * empirical
    shrunk += (amount * mean_variance)[..., None, None] * np.eye(d)
    return shrunk, np.array(amount)


def _amount(centred: Float, empirical: Float, variance: Float, shrinkage: Shrinkage) -> Any:
    n, d = centred.shape[-2:]
    if not isinstance(shrinkage, str):
        return float(shrinkage)
    if d == 1:  # target and covariance are the same number
        return 0.0
    square = np.square(empirical).sum((-1, -2))
    distance = square - d * variance**2  # squared Frobenius distance from S to m I
    if shrinkage == "ledoit_wolf":
        fourth = np.square(np.square(centred).sum(-1)).sum(-1)
        noise = np.minimum((fourth / n - square) / n, distance)
        return np.divide(noise, distance, out=np.zeros_like(noise), where=noise > 0)
    top = square / d**2 + variance**2
    bottom = (n + 1) * (square / d**2 - variance**2 / d)
    return np.minimum(np.divide(top, bottom, out=np.ones_like(top), where=bottom > 0), 1.0)


@dataclass(frozen=True, eq=False)
class Gaussian:
    """A Gaussian for every leading index.

    Attributes
    ----------
    mean:
        ``(..., d)``.
    whitener:
        ``(..., d, d)`` upper triangular W with W W^T = inverse covariance, so that the rows of
        ``(x - mean) @ W`` are white.
    shrinkage:
        ``(...,)`` the amount used.
    """

    mean: Float = field(repr=False)
    whitener: Float = field(repr=False)
    shrinkage: Float

    def whiten(self, x: Float) -> Float:
        """Return ``(..., n, d)``: ``x`` with the Gaussian's mean at 0 and its covariance I."""
        white: Float = (x - self.mean[..., None, :]) @ self.whitener
        return white

    def squared_distance(self, x: Float) -> Float:
        """Return ``(..., n)`` squared Mahalanobis distances of ``x`` ``(..., n, d)``."""
        total: Float = np.square(self.whiten(x)).sum(-1)
        return total


def fit_gaussian(
    x: Float, shrinkage: Shrinkage, what: str, centred: Float | None = None
) -> Gaussian:
    """Fit a `Gaussian` to ``x`` ``(..., n, d)``.

    ``centred`` are the residuals whose covariance is wanted, where they are not simply ``x``
    less its mean (within-class covariance).  Raises ``InputError`` (its sentence starts with
    ``what``) if the covariance has no inverse.
    """
    mean = x.mean(-2)
    residuals = x - mean[..., None, :] if centred is None else centred
    covariance, amount = shrunk_covariance(residuals, shrinkage)
    return Gaussian(mean, _whitener(covariance, residuals.shape[-2], what), amount)


def _whitener(covariance: Float, n: int, what: str) -> Float:
    d = covariance.shape[-1]
    advice = (
        f"{what}: the covariance of {n} trusted rows of width {d} has no inverse; "
        "give more rows, drop constant or repeated channels, or choose shrinkage 'ledoit_wolf'."
    )
    try:
        lower = np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        raise InputError(advice) from None
    pivots = np.square(np.diagonal(lower, axis1=-2, axis2=-1))
    # A pivot is what the channels before leave unexplained of a channel's variance.  Rounding lets
    # a singular matrix through with a share of about 1e-16 left, in float32 rows 1e-14.
    if bool((pivots <= 1e-12 * np.diagonal(covariance, axis1=-2, axis2=-1)).any()):
        raise InputError(advice)
    whitener: Float = np.swapaxes(np.linalg.inv(lower), -1, -2)
    return whitener
