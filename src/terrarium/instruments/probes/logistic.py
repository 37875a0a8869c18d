"""Logistic regression at every site, seed and condition in one call."""

from __future__ import annotations

import functools
import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from terrarium.errors import InputError
from terrarium.instruments.probes.linear import (
    Bool,
    Float,
    Index,
    LinearProbe,
    labels,
    refuse_nan,
    rows,
)
from terrarium.instruments.probes.newton import Problem, minimise

Standardize = Literal["global", "feature", "none"]
_STEPS = 300
_TOLERANCE = 1e-7
_SMALL = 1 << 20  # rows times channels


@dataclass(frozen=True)
class LogisticRegression:
    """L2-penalised logistic regression; the score is the log-odds of "true".

    Minimises ``|w|^2 / 2 + C sum log(1 + exp(-s (x w + b)))``, scikit-learn's objective, the
    intercept not penalised.  float32 activations are solved in float32 to 1e-7 of the objective,
    float64 activations in float64 to 1e-13.  Where there are more channels than rows the solve is
    in the span of the rows, which is exact.

    Parameters
    ----------
    C:
        Inverse strength of the penalty, as in scikit-learn.  (A penalty of ``l2 |w|^2`` on the
        *mean* loss, as in EleutherAI's elk code, is ``C = 1 / (2 l2 n)``.)
    standardize:
        What unit the penalty sees.  ``"global"``: one number per problem, the root mean variance
        of its channels, so that C means the same at a site of small and of large activations and
        rotations change nothing.  ``"feature"``: each channel's standard deviation, as after
        ``StandardScaler``; channels that hardly vary in training then get large weights in raw
        units.  ``"none"``: raw units, as plain scikit-learn.  Direction and bias are in raw units
        always.
    fit_intercept:
        Without, the score is ``x @ direction``.

    Source: as a probe, Alain & Bengio 2016 (arXiv 1610.01644); Mallen et al. 2023
    (arXiv 2312.01037).
    """

    C: float = 1.0
    standardize: Standardize = "global"
    fit_intercept: bool = True
    supervised: ClassVar[bool] = True
    on_pairs: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not (isinstance(self.C, (int, float)) and 0 < self.C < math.inf):
            raise InputError(f"LogisticRegression: C is {self.C!r}; give a positive number.")
        if self.standardize not in get_args(Standardize):
            raise InputError(
                f"LogisticRegression: standardize is {self.standardize!r}; "
                "give 'global', 'feature' or 'none'."
            )

    @property
    def rotation_equivariant(self) -> bool:
        """Whether rotating the activations only rotates the direction."""
        return self.standardize != "feature"

    def fit(self, x: Any, y: Any = None) -> LinearProbe:
        """Fit on ``x`` ``(..., n, d)`` (numpy or torch) and ``y`` ``(n,)`` or ``(..., n)``.

        Memory-mapped rows are read one problem at a time.  Raises ``InputError`` for NaN, shapes
        that do not match, or a single class, and where rounding keeps the fit from converging.
        """
        values = rows(x, "the activations", finite=False)
        lead, truth = labels(y, values, "LogisticRegression")
        wide = np.broadcast_to(values, (*lead, *values.shape[-2:]))
        direction, bias = np.empty((*lead, values.shape[-1])), np.empty(lead)
        # exp(1e3) = inf gives a probability its right 0
        with _threads(math.prod(values.shape[-2:])), np.errstate(over="ignore"):
            for index in np.ndindex(lead):
                direction[index], bias[index] = self._fit_one(index, wide[index], truth[index])
        return LinearProbe(direction, bias)

    def _fit_one(self, index: Index, x: NDArray[Any], y: Bool) -> tuple[Float, float]:
        n, d = x.shape
        number = x.dtype.type
        # As a product it is several times faster than x.mean(0).  What is subtracted need not be
        # the mean to the last digit: the intercept takes it up, and float32 keeps its digits.
        centre = np.full(n, number(1 / n)) @ x
        if not np.isfinite(centre).all():  # one bad number spoils it, so the rows need no look
            refuse_nan(x, "the activations", index)
            raise InputError("LogisticRegression: the activations are too large; rescale them.")
        centred = x - centre
        unit = self._unit(x, centred)
        signed = centred if self.fit_intercept else x.copy()
        sign = np.where(y, number(1), number(-1))
        if np.ndim(unit):
            signed /= unit
            signed *= sign[:, None]
        else:
            signed *= (sign / unit)[:, None]
        scale = float(unit) ** 2 if self.standardize == "none" else 1.0
        ridge = np.full(d + 1, 1 / self.C / scale, x.dtype)
        ridge[-1] = 0 if self.fit_intercept else 1
        ones = sign if self.fit_intercept else np.zeros_like(sign)
        if d > n:  # the solution lies in the span of the rows
            basis, triangle = scipy.linalg.qr(signed.T, mode="economic", check_finite=False)
            weights = _solve(Problem(np.ascontiguousarray(triangle.T), ones, ridge[-n - 1 :]))
            slopes = basis @ weights[:-1]
        else:
            weights = _solve(Problem(signed, ones, ridge))
            slopes = weights[:-1]
        direction: Float = slopes / np.asarray(unit, np.float64)
        shift = float(direction @ centre) if self.fit_intercept else 0.0
        return direction, float(weights[-1]) - shift

    def _unit(self, x: NDArray[Any], centred: NDArray[Any]) -> Any:
        """Return what the rows are divided by: one number, or one for each channel."""
        number = centred.dtype.type
        if self.standardize == "feature":
            deviation = x.std(0, dtype=np.float64)
            varies = (x != x[0]).any(0)  # a constant channel's deviation may be rounding alone
            return np.where(varies & (deviation > 0), deviation, 1).astype(centred.dtype)
        size = 1.0
        total = float(np.vdot(centred, centred))
        if not 1e-20 < total < 1e20:  # squares may have over- or underflowed
            size = float(np.abs(centred).max()) or 1.0
            scaled = centred / number(size)
            total = float(np.vdot(scaled, scaled))
            if bool((x == x[0]).all()):
                return number(1)
        return number(size * math.sqrt(total / centred.size))


@functools.cache
def _pools() -> ThreadpoolController:
    return ThreadpoolController()  # looks for libraries once, which takes milliseconds


def _threads(size: int) -> AbstractContextManager[Any]:
    """Keep BLAS to one thread where a problem is too small for two to pay.

    On a busy machine the waiting threads of small products cost a hundred times the product.
    """
    if size > _SMALL:
        return nullcontext()
    limit: AbstractContextManager[Any] = _pools().limit(limits=1, user_api="blas")
    return limit


def _solve(problem: Problem) -> Float:
    """Solve in float32; a float64 problem, or one that did not converge, goes on in float64."""
    exact = problem.rows.dtype == np.float64
    weights, done = minimise(_cast(problem, np.float32), None, tolerance=_TOLERANCE, steps=_STEPS)
    if done and not exact:
        return weights.astype(np.float64)
    start = weights if bool(np.isfinite(weights).all()) else np.zeros_like(weights)
    tolerance = 1e-13 if exact else _TOLERANCE
    weights, done = minimise(_cast(problem, np.float64), start, tolerance=tolerance, steps=_STEPS)
    if not done:
        raise InputError(
            "LogisticRegression: the fit did not converge, the activations are too badly "
            "conditioned for this C; give a smaller C or standardize='feature'."
        )
    return weights


def _cast(problem: Problem, dtype: type[np.floating[Any]]) -> Problem:
    return Problem(
        problem.rows.astype(dtype, copy=False),
        problem.ones.astype(dtype, copy=False),
        problem.ridge.astype(dtype, copy=False),
    )
