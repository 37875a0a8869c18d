"""Spectral signatures of a suspect batch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from terrarium.instruments.base import Array
from terrarium.instruments.covariance import Float
from terrarium.instruments.detectors.entropy import Centre, check_centre
from terrarium.instruments.detectors.rows import suspect_rows, trusted_rows


@dataclass(frozen=True, eq=False)
class FittedSpectralSignature:
    """A fitted `SpectralSignature`; ``mean`` ``(..., d)`` of the trusted rows."""

    mean: Float = field(repr=False)
    centre: Centre

    def score(self, x: Array) -> NDArray[np.float64]:
        """Return ``(..., n)`` squared projections, in squared units of ``x``; they depend on it.

        Raises ``InputError`` for NaN, fewer than 2 rows, and other leading axes or width than the
        trusted rows'.
        """
        lead, d = self.mean.shape[:-1], self.mean.shape[-1]
        rows = suspect_rows(x, lead, d, "SpectralSignature", minimum=2)
        mean = rows.mean(-2) if self.centre == "batch" else self.mean
        centred = rows - mean[..., None, :]
        direction = np.linalg.svd(centred, full_matrices=False)[2][..., 0, :]
        scores: Float = np.square((centred @ direction[..., None])[..., 0])
        return scores


@dataclass(frozen=True)
class SpectralSignature:
    """Squared projection on the direction in which the suspect batch strays most.

    A transductive score: the direction is the top right singular vector of the suspect rows, so
    that a row's score changes with the rows around it; score together what is to be compared.
    Works where many of the suspect rows share one shift.  Source: Tran, Li & Madry 2018,
    *Spectral signatures in backdoor attacks*, arXiv 1811.00636, algorithm 1.  The paper has no
    trusted rows and centres at the batch's mean; here the trusted mean is known.

    Parameters
    ----------
    centre:
        ``"trusted"``: centred at the trusted mean, so that a batch shifted as a whole shows;
        ``"batch"``: as in the paper (the trusted rows are then not used at all).
    """

    centre: Centre = "trusted"
    transductive: ClassVar[bool] = True
    invariant_to: ClassVar[tuple[str, ...]] = ("translation", "scale", "rotation")

    def fit(self, trusted: Array) -> FittedSpectralSignature:
        """Fit on ``trusted`` ``(..., n, d)``.

        Raises ``InputError`` for NaN, fewer than 2 rows, and an unknown ``centre``.
        """
        check_centre(self.centre, "SpectralSignature")
        rows = trusted_rows(trusted, "SpectralSignature")
        return FittedSpectralSignature(rows.mean(-2), self.centre)
