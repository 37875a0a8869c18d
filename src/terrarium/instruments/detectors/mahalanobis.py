"""Distances from a Gaussian fitted to trusted rows, absolute and relative to a background."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

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
    shrunk_covariance,
)
from terrarium.instruments.detectors.rows import suspect_rows, trusted_rows


@dataclass(frozen=True, eq=False)
class FittedMahalanobis:
    """A fitted `Mahalanobis`; ``gaussian`` holds mean, whitener and the shrinkage used."""

    gaussian: Gaussian
    what: str = "Mahalanobis"

    def score(self, x: Array) -> NDArray[np.float64]:
        """Return ``(..., n)`` squared Mahalanobis distances of ``x`` ``(..., n, d)``.

        Raises ``InputError`` for NaN and for other leading axes or width than the trusted rows'.
        """
        mean = self.gaussian.mean
        rows = suspect_rows(x, mean.shape[:-1], mean.shape[-1], self.what)
        return self.gaussian.squared_distance(rows)


@dataclass(frozen=True)
class Mahalanobis:
    """Squared Mahalanobis distance from the trusted mean under the trusted covariance.

    For anomalies that break correlations between channels or lie far out in quiet directions.
    Source: Lee et al. 2018, *A simple unified framework for detecting out-of-distribution
    samples*, arXiv 1807.03888, sec. 2, with one class; Johnston et al. 2025, arXiv 2504.08812,
    use it on quirky models' activations.

    Parameters
    ----------
    shrinkage:
        ``"ledoit_wolf"``, ``"oas"`` or an amount in ``[0, 1]``, towards the identity times the
        mean variance (see `terrarium.instruments.covariance.shrunk_covariance`).
    """

    shrinkage: Shrinkage = "ledoit_wolf"
    transductive: ClassVar[bool] = False
    invariant_to: ClassVar[tuple[str, ...]] = ("translation", "scale", "rotation")

    def fit(self, trusted: Array) -> FittedMahalanobis:
        """Fit on ``trusted`` ``(..., n, d)``, any float dtype; computed in float64.

        Raises ``InputError`` for NaN, fewer than 2 rows, or a covariance without an inverse
        (possible only with a fixed amount of shrinkage).
        """
        check_shrinkage(self.shrinkage, "Mahalanobis")
        rows = trusted_rows(trusted, "Mahalanobis")
        return FittedMahalanobis(fit_gaussian(rows, self.shrinkage, "Mahalanobis"))


@dataclass(frozen=True, eq=False)
class FittedRelativeMahalanobis:
    """A fitted `RelativeMahalanobis`.

    Attributes
    ----------
    class_means:
        ``(..., k, d)``; a class without rows at some leading index holds infinity there and is
        never the nearest.
    within:
        The covariance shared by the classes.
    background:
        One Gaussian for all trusted rows; None where the background is ``spread``.
    spread:
        ``(..., d)`` standard deviations of the channels, where no groups were given; else None.
    """

    class_means: Float = field(repr=False)
    within: Gaussian = field(repr=False)
    background: Gaussian | None = field(repr=False)
    spread: Float | None = field(repr=False)

    def score(self, x: Array) -> NDArray[np.float64]:
        """Return ``(..., n)``: squared distance to the nearest class minus to the background.

        May be negative.  Raises ``InputError`` as `Mahalanobis` does.
        """
        lead, d = self.class_means.shape[:-2], self.class_means.shape[-1]
        rows = suspect_rows(x, lead, d, "RelativeMahalanobis")
        nearest = np.full(rows.shape[:-1], np.inf)
        for k in range(self.class_means.shape[-2]):
            mean = self.class_means[..., k, :]
            present = np.asarray(np.isfinite(mean).all(-1))[..., None]
            offset = rows - np.where(present, mean, 0.0)[..., None, :]
            distance = np.square(offset @ self.within.whitener).sum(-1)
            nearest = np.minimum(nearest, np.where(present, distance, np.inf))
        return nearest - self._background(rows)

    def _background(self, rows: Float) -> Float:
        if self.background is not None:
            return self.background.squared_distance(rows)
        offset = rows - self.class_means[..., 0, None, :]
        distance: Float = np.square(offset / self.spread[..., None, :]).sum(-1)  # type: ignore[index]
        return distance


@dataclass(frozen=True)
class RelativeMahalanobis:
    """Distance to the nearest class of trusted rows, less the distance to a background.

    Subtracting a background removes what is merely unusual in general (a long operand, a rare
    token) and leaves what fits none of the classes.  Source: Ren et al. 2021, *A simple fix to
    Mahalanobis distance for improving near-OOD detection*, arXiv 2106.09022, sec. 2: score =
    min over k of MD_k minus MD_0, where the MD_k share one within-class covariance and MD_0 is
    one Gaussian over all training rows.

    What that means when only trusted rows are given: the classes are groups of trusted rows that
    ought to look different and are all fine, such as what is said (true / false) or the template;
    they are *not* labels of untruth.  The background is all trusted rows together, not the suspect
    ones.  Without groups there is one class, both Gaussians coincide and that score is 0
    everywhere; the background is then the Gaussian with the same mean and the trusted rows'
    *diagonal* covariance, so that the score counts broken correlations and not big channels
    (the variant of Bai et al. 2022, arXiv 2204.05862, which the code published with Mallen et al.
    2023 used on log-odds).

    Parameters
    ----------
    shrinkage:
        As in `Mahalanobis`, for the within-class and for the background covariance alike.
        Ren et al. use 0.
    """

    shrinkage: Shrinkage = "ledoit_wolf"
    transductive: ClassVar[bool] = False
    invariant_to: ClassVar[tuple[str, ...]] = ("translation", "scale")

    def fit(self, trusted: Array, groups: Any = None) -> FittedRelativeMahalanobis:
        """Fit on ``trusted`` ``(..., n, d)``.

        ``groups`` are labels of any type, ``(n,)`` or broadcastable to ``(..., n)``.  Raises
        ``InputError`` for NaN, too few rows, groups of another shape, and a single group.
        """
        check_shrinkage(self.shrinkage, "RelativeMahalanobis")
        rows = trusted_rows(trusted, "RelativeMahalanobis")
        if groups is None:
            return self._fit_diagonal(rows)
        means, residuals = _by_group(rows, groups)
        within = fit_gaussian(rows, self.shrinkage, "RelativeMahalanobis", residuals)
        background = fit_gaussian(rows, self.shrinkage, "RelativeMahalanobis")
        return FittedRelativeMahalanobis(means, within, background, None)

    def _fit_diagonal(self, rows: Float) -> FittedRelativeMahalanobis:
        gaussian = fit_gaussian(rows, self.shrinkage, "RelativeMahalanobis")
        centred = rows - gaussian.mean[..., None, :]
        covariance, _ = shrunk_covariance(centred, self.shrinkage)
        spread = np.sqrt(np.diagonal(covariance, axis1=-2, axis2=-1))
        return FittedRelativeMahalanobis(gaussian.mean[..., None, :], gaussian, None, spread)


def _by_group(rows: Float, groups: Any) -> tuple[Float, Float]:
    """Return the groups' means ``(..., k, d)`` and the rows' residuals from their own mean."""
    labels = np.asarray(groups)
    try:
        labels = np.broadcast_to(labels, rows.shape[:-1])
    except ValueError:
        raise InputError(
            f"RelativeMahalanobis: groups have shape {labels.shape} and the trusted rows "
            f"{rows.shape}; give one group for each row."
        ) from None
    names, codes = np.unique(labels, return_inverse=True)
    member = codes.reshape(labels.shape)[..., None] == np.arange(len(names))
    counts = member.sum(-2)
    if bool(((counts > 0).sum(-1) < 2).any()):
        raise InputError(
            "RelativeMahalanobis: the trusted rows hold a single group, so that class and "
            "background coincide; give at least two groups, or none for a diagonal background."
        )
    sums = np.swapaxes(member.astype(np.float64), -1, -2) @ rows
    means = np.full(sums.shape, np.inf)
    np.divide(sums, counts[..., None], out=means, where=(counts > 0)[..., None])
    own = np.take_along_axis(means, codes.reshape(labels.shape)[..., None], axis=-2)
    return means, rows - own
