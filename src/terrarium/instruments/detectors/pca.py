"""Reconstruction error under the principal components of trusted rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from terrarium.errors import InputError
from terrarium.instruments.base import Array
from terrarium.instruments.covariance import Float
from terrarium.instruments.detectors.rows import suspect_rows, trusted_rows


@dataclass(frozen=True, eq=False)
class FittedPCAReconstruction:
    """A fitted `PCAReconstruction`.

    ``mean`` is ``(..., d)``; ``components`` ``(..., r, d)`` are orthonormal rows, those not kept
    set to zero; ``kept`` ``(...,)`` counts the kept ones (it may differ between leading indices);
    ``explained`` ``(...,)`` is the share of trusted variance that they carry.
    """

    mean: Float = field(repr=False)
    components: Float = field(repr=False)
    kept: NDArray[np.int64]
    explained: Float

    def project(self, x: Array) -> NDArray[np.float64]:
        """Return ``(..., n, r)`` coordinates of ``x`` on the components (for pictures)."""
        rows = suspect_rows(x, self.mean.shape[:-1], self.mean.shape[-1], "PCAReconstruction")
        coordinates: Float = (rows - self.mean[..., None, :]) @ np.swapaxes(self.components, -1, -2)
        return coordinates

    def score(self, x: Array) -> NDArray[np.float64]:
        """Return ``(..., n)`` squared reconstruction errors, in squared units of ``x``.

        Raises ``InputError`` for NaN and for other leading axes or width than the trusted rows'.
        """
        rows = suspect_rows(x, self.mean.shape[:-1], self.mean.shape[-1], "PCAReconstruction")
        centred = rows - self.mean[..., None, :]
        coordinates = centred @ np.swapaxes(self.components, -1, -2)
        error: Float = np.square(centred - coordinates @ self.components).sum(-1)
        return error


@dataclass(frozen=True)
class PCAReconstruction:
    """Squared distance from the subspace in which the trusted rows lie.

    For anomalies that leave the subspace; blind to those that move inside it.  Source: Jackson &
    Mudholkar 1979, *Control procedures for residuals associated with principal component
    analysis*, Technometrics 21(3): the Q statistic.

    Parameters
    ----------
    components:
        How many components to keep, from 0 to d - 1 and at most n - 1.
    explained_variance:
        Or: keep the fewest components that carry more than this share of the trusted variance,
        never all d of them (every score would be 0).  Neither given means 0.95.
    """

    components: int | None = None
    explained_variance: float | None = None
    transductive: ClassVar[bool] = False
    invariant_to: ClassVar[tuple[str, ...]] = ("translation", "scale", "rotation")

    def fit(self, trusted: Array) -> FittedPCAReconstruction:
        """Fit on ``trusted`` ``(..., n, d)``, any float dtype; computed in float64.

        Raises ``InputError`` for NaN, fewer than 2 rows, both parameters at once, a share outside
        (0, 1), or more components than the rows have.
        """
        share = self._share()
        rows = trusted_rows(trusted, "PCAReconstruction")
        n, d = rows.shape[-2:]
        mean = rows.mean(-2)
        _, singular, axes = np.linalg.svd(rows - mean[..., None, :], full_matrices=False)
        variance = np.square(singular)
        cumulative = np.cumsum(variance, -1) / variance.sum(-1, keepdims=True)
        kept = np.minimum((cumulative <= share).sum(-1) + 1, d - 1)
        if self.components is not None:
            self._check_components(n, d)
            kept = np.full(rows.shape[:-2], self.components)
        mask = np.arange(singular.shape[-1]) < kept[..., None]
        explained = (variance * mask).sum(-1) / variance.sum(-1)
        return FittedPCAReconstruction(mean, axes * mask[..., None], np.asarray(kept), explained)

    def _share(self) -> float:
        if self.components is not None and self.explained_variance is not None:
            raise InputError(
                "PCAReconstruction: components and explained_variance are both set; set one."
            )
        share = 0.95 if self.explained_variance is None else self.explained_variance
        if not 0.0 < share < 1.0:
            raise InputError(
                f"PCAReconstruction: explained_variance is {share}; "
                "give a share between 0 and 1, such as 0.95."
            )
        return share

    def _check_components(self, n: int, d: int) -> None:
        most = min(n - 1, d - 1)
        if self.components is None or not 0 <= self.components <= most:
            raise InputError(
                f"PCAReconstruction: components is {self.components}; with {n} trusted rows of "
                f"width {d} it must be from 0 to {most}."
            )
