"""One-class support vector machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sklearn import svm

from terrarium.errors import InputError
from terrarium.instruments.base import Array
from terrarium.instruments.detectors.rows import trusted_rows
from terrarium.instruments.detectors.scikit import FittedScikit, Scaling, fit_each


@dataclass(frozen=True)
class OneClassSVM:
    """How far outside the smallest region that holds most trusted rows (RBF kernel).

    The score is minus scikit-learn's decision function: 0 on the boundary, positive outside,
    flat far away (the kernel dies out), so that it does not rank very odd rows among themselves.
    Source: Schoelkopf et al. 2001, *Estimating the support of a high-dimensional distribution*,
    Neural Computation 13(7), sec. 3.

    Parameters
    ----------
    nu:
        Upper bound on the share of trusted rows left outside, in (0, 1].
    gamma:
        Kernel width, exp(-gamma |a - b|^2); None for 1 / (d times the variance of all entries).
    scaling:
        ``"none"``, ``"standardise"`` or ``"whiten"``, fitted on the trusted rows.
    tolerance:
        Where the solver stops.
    """

    nu: float = 0.1
    gamma: float | None = None
    scaling: Scaling = "standardise"
    tolerance: float = 1e-4
    transductive: ClassVar[bool] = False
    invariant_to: ClassVar[tuple[str, ...]] = ()

    def fit(self, trusted: Array) -> FittedScikit:
        """Fit on ``trusted`` ``(..., n, d)``; one machine for each leading index.

        Raises ``InputError`` for NaN, fewer than 2 rows, or parameters out of range.
        """
        if not 0.0 < self.nu <= 1.0:
            raise InputError(f"OneClassSVM: nu is {self.nu}; give a share in (0, 1].")
        if (self.gamma is not None and self.gamma <= 0) or self.tolerance <= 0:
            raise InputError("OneClassSVM: gamma and tolerance must be positive.")
        rows = trusted_rows(trusted, "OneClassSVM")

        def model() -> svm.OneClassSVM:
            gamma = "scale" if self.gamma is None else self.gamma
            return svm.OneClassSVM(nu=self.nu, gamma=gamma, tol=self.tolerance)

        return fit_each(rows, self.scaling, "OneClassSVM", model, "decision_function")
