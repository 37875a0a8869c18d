"""A score of each feature, its null and its interval; p-values and false discoveries."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from terrarium.errors import InputError

Float = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Score:
    """One score of ``k`` features; NaN, and p of 1, where a feature is constant.

    Attributes
    ----------
    value, error:
        ``(k,)`` the score, and its standard error over groups.
    degrees:
        Degrees of freedom of the errors.
    null:
        ``(draws, k)`` the same score under its null.
    level:
        Of the intervals.
    share:
        Whether the score is a share of variance (R²), whose p-values are taken on the scale
        -log(1 - R²): there the spread of a null depends little on where it lies.
    """

    value: Float = field(repr=False)
    error: Float = field(repr=False)
    degrees: int
    null: Float = field(repr=False)
    level: float = 0.95
    share: bool = False

    @property
    def low(self) -> Float:
        """``(k,)`` lower end of Student's interval over groups."""
        return self.value - self._half

    @property
    def high(self) -> Float:
        """``(k,)`` upper end."""
        return self.value + self._half

    @property
    def _half(self) -> Float:
        return np.asarray(student.ppf(0.5 + self.level / 2, self.degrees) * self.error)

    @property
    def p(self) -> Float:
        """``(k,)`` chance of so high a score under the null; see `pooled_p`."""
        return pooled_p(self._scaled(self.value), self._scaled(self.null))

    def _scaled(self, values: Float) -> Float:
        return -np.log(np.maximum(1.0 - values, _TIE)) if self.share else values

    @property
    def excess(self) -> Float:
        """``(k,)`` the score above its null's mean."""
        return np.asarray(self.value - self.null.mean(0))

    @property
    def deviations(self) -> Float:
        """``(k,)`` the excess in the null's standard deviations (comparable between setups)."""
        spread = self.null.std(0, ddof=1)
        real = np.abs(self.null[np.isfinite(self.null)])
        floor = 1e-12 * (1.0 + real.max(initial=0.0))
        return np.asarray(self.excess / np.maximum(spread, floor))

    def p_below(self, threshold: float) -> Float:
        """``(k,)`` p-value of "the score is at ``threshold`` or above", by Student's t."""
        floor = np.maximum(self.error, 1e-12)
        p = student.cdf((self.value - threshold) / floor, self.degrees)
        return np.where(np.isfinite(self.value), p, 1.0)


def pooled_p(value: Float, null: Float) -> Float:
    """Return ``(k,)`` one-sided p-values of ``value`` against ``null`` ``(draws, k)``.

    Each feature's null is put on its own scale (mean and spread, each draw by those of the
    others), and the nulls of all features together tell how often so large a deviation comes
    about, so that few draws for each feature give small p-values (Tusher et al. 2001, PNAS 98,
    p. 5116; the +1: Phipson & Smyth 2010).  Variances lean on the median of all features' (Smyth
    2004, sec. 4, with 4 prior degrees of freedom), since those of few draws are wild.  It holds
    where standardised nulls are alike.  Raises ``InputError`` for fewer than 4 draws.
    """
    draws, k = null.shape
    if draws < 4:
        raise InputError(f"A null of {draws} draws is too small to be scaled; give 4 at least.")
    floor = (1e-12 * (1.0 + float(np.abs(null[np.isfinite(null)]).max(initial=0.0)))) ** 2
    total, squares = null.sum(0), (null**2).sum(0)
    others = (total - null) / (draws - 1)
    variance = (squares - null**2 - (draws - 1) * others**2) / (draws - 2)
    each = _apart(null, others) / np.sqrt(_leaning(variance, draws - 2, floor))
    # a new draw lies sqrt(1 + 1/m) standard deviations from the mean of m others
    each /= np.sqrt(1 + 1 / (draws - 1))
    spread = _leaning(null.var(0, ddof=1), draws - 1, floor) * (1 + 1 / draws)
    own = _apart(value, null.mean(0)) / np.sqrt(spread)
    pool = np.sort(each[np.isfinite(each)])
    above = len(pool) - np.searchsorted(pool, own, side="left")
    p = (1 + above) / (1 + len(pool))
    return np.where(np.isfinite(own), p, 1.0).reshape(k)


_PRIOR = 4  # degrees of freedom
_TIE = 1e-9  # relative: what differs by less is rounding


def _apart(a: Float, b: Float) -> Float:
    """Return ``a - b``, 0 where that is rounding, so that ties count as ties."""
    difference = a - b
    return np.where(np.abs(difference) <= _TIE * np.maximum(np.abs(a), np.abs(b)), 0.0, difference)


def _leaning(variance: Float, degrees: int, floor: float) -> Float:
    """Return variances drawn towards the median over features."""
    real = variance[np.isfinite(variance)]
    prior = float(np.median(real)) if real.size else 0.0
    found = (degrees * np.maximum(variance, 0.0) + _PRIOR * prior) / (degrees + _PRIOR)
    return np.maximum(found, floor)


def benjamini_hochberg(p_values: Any) -> Float:
    """Return q-values ``(k,)``: reject all at most ``level``, and the expected share of false
    discoveries is at most ``level`` (Benjamini & Hochberg 1995, sec. 3; independent or positively
    dependent p-values).  Raises ``InputError`` for what is no p-value.
    """
    p = np.asarray(p_values, np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise InputError("Benjamini-Hochberg: expected a vector of p-values from 0 to 1.")
    order = np.argsort(-p)
    ranks = np.arange(len(p), 0, -1)
    q = np.empty_like(p)
    q[order] = np.minimum.accumulate(p[order] * len(p) / ranks)
    return np.minimum(q, 1.0)


@dataclass(frozen=True, eq=False)
class GroupedR2:
    """Held-out squared errors by group: R² and its jackknife over groups.

    ``errors`` and ``totals`` are ``(group, k)``: sums of squared errors of the prediction and of
    the training rows' mean.
    """

    errors: Float
    totals: Float

    @property
    def value(self) -> Float:
        """``(k,)`` 1 - errors / totals over all groups; NaN where nothing varies."""
        return _r2(self.errors.sum(0), self.totals.sum(0))

    @property
    def error(self) -> Float:
        """``(k,)`` standard error: jackknife over groups (Efron & Tibshirani 1993, ch. 11)."""
        size = len(self.errors)
        left = _r2(self.errors.sum(0) - self.errors, self.totals.sum(0) - self.totals)
        with np.errstate(invalid="ignore"):
            spread = ((left - left.mean(0)) ** 2).sum(0)
        return np.asarray(np.sqrt((size - 1) / size * spread))

    def score(self, null: Float, level: float = 0.95) -> Score:
        """Return the score with its null."""
        return Score(self.value, self.error, len(self.errors) - 1, null, level, share=True)


def _r2(errors: Float, totals: Float) -> Float:
    with np.errstate(invalid="ignore", divide="ignore"):
        found = 1.0 - errors / totals
    return np.where(totals > 0, found, np.nan)


def by_group(values: Float, groups: NDArray[np.int64], size: int) -> Float:
    """Return sums ``(group, k)`` of ``values`` ``(n, k)``."""
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    sums = np.zeros((size, values.shape[1]))
    sums[ordered[starts]] = np.add.reduceat(values[order], starts, axis=0)
    return sums
