"""Isolation forest: how few random cuts set a row apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sklearn import ensemble

from terrarium.errors import InputError
from terrarium.instruments.base import Array
from terrarium.instruments.detectors.rows import trusted_rows
from terrarium.instruments.detectors.scikit import FittedScikit, Scaling, fit_each


@dataclass(frozen=True)
class IsolationForest:
    """Anomaly score of an isolation forest, in (0, 1]; about 0.5 and below inside.

    Source: Liu, Ting & Zhou 2008, *Isolation forest*, sec. 2 (eq. 2); computed by scikit-learn.

    Parameters
    ----------
    trees, samples:
        Number of trees, and of rows drawn for each (at most the trusted rows).
    scaling:
        ``"none"``, ``"standardise"`` or ``"whiten"``.  Cuts are along channels, so that units do
        not matter and only ``"whiten"`` changes much.
    seed:
        Seed of the cuts; the same for every leading index, so that sites are comparable.
    """

    trees: int = 100
    samples: int = 256
    scaling: Scaling = "none"
    seed: int = 0
    transductive: ClassVar[bool] = False
    invariant_to: ClassVar[tuple[str, ...]] = ()

    def fit(self, trusted: Array) -> FittedScikit:
        """Fit on ``trusted`` ``(..., n, d)``; one forest for each leading index.

        Raises ``InputError`` for NaN, fewer than 2 rows, no trees, or fewer than 2 samples.
        """
        if self.trees < 1 or self.samples < 2:
            raise InputError(
                f"IsolationForest: trees is {self.trees} and samples {self.samples}; "
                "give at least 1 and 2."
            )
        rows = trusted_rows(trusted, "IsolationForest")
        samples = min(self.samples, rows.shape[-2])

        def model() -> ensemble.IsolationForest:
            return ensemble.IsolationForest(
                n_estimators=self.trees, max_samples=samples, random_state=self.seed
            )

        return fit_each(rows, self.scaling, "IsolationForest", model)
