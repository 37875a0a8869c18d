"""Local outlier factor: density compared with the neighbours' density."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sklearn import neighbors

from terrarium.errors import InputError
from terrarium.instruments.base import Array
from terrarium.instruments.detectors.rows import trusted_rows
from terrarium.instruments.detectors.scikit import FittedScikit, Scaling, fit_each


@dataclass(frozen=True)
class LocalOutlierFactor:
    """How much sparser a row's surroundings are than those of its nearest trusted rows.

    The score is the local outlier factor itself: about 1 inside, larger is odder.  For trusted
    rows in several clumps of different density.  Source: Breunig et al. 2000, *LOF: identifying
    density-based local outliers*, sec. 4; computed by scikit-learn with ``novelty=True``.
    A trusted row that is scored again meets itself as its nearest neighbour, so score rows that
    were held out.

    Parameters
    ----------
    neighbours:
        How many trusted rows are a neighbourhood (MinPts in the paper).
    scaling:
        ``"none"``, ``"standardise"`` or ``"whiten"``, fitted on the trusted rows: distances are
        Euclidean, and a few loud channels would decide them.
    """

    neighbours: int = 20
    scaling: Scaling = "standardise"
    transductive: ClassVar[bool] = False
    invariant_to: ClassVar[tuple[str, ...]] = ("translation", "scale")

    def fit(self, trusted: Array) -> FittedScikit:
        """Fit on ``trusted`` ``(..., n, d)``; one model for each leading index.

        Raises ``InputError`` for NaN, and for no more rows than ``neighbours``.
        """
        if self.neighbours < 1:
            raise InputError(
                f"LocalOutlierFactor: neighbours is {self.neighbours}; give at least 1."
            )
        rows = trusted_rows(trusted, "LocalOutlierFactor", max(2, self.neighbours + 1))

        def model() -> neighbors.LocalOutlierFactor:
            return neighbors.LocalOutlierFactor(n_neighbors=self.neighbours, novelty=True)

        return fit_each(rows, self.scaling, "LocalOutlierFactor", model)
