"""How long something lasts, where some still last at the end: Kaplan-Meier, half-lives, log-rank.

What doesn't decay in the time given is censored, not infinite: a half-life that isn't reached is
None with the time it was watched for.

Sources: Kaplan and Meier (1958); Brookmeyer and Crowley (1982), the interval of a median, with
the log-log transform of Klein and Moeschberger (2003), *Survival Analysis*, secs. 4.3 and 4.5;
Mantel (1966) for the log-rank test.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from terrarium.errors import InputError
from terrarium.evidence.intervals import Floats, check_level, finite_vector
from terrarium.evidence.laws import chi2_tail, normal_quantile
from terrarium.evidence.rows import Factor, Interval, Row, measured


@dataclass(frozen=True)
class KaplanMeier:
    """A survival curve at the distinct times ``(k,)`` at which anything ended or was censored.

    ``survival[i]`` is S just after ``times[i]``; ``variance`` Greenwood's sum (of log S), infinite
    where S is 0; ``at_risk`` and ``ended`` are counts at each time.
    """

    times: Floats
    survival: Floats
    variance: Floats
    at_risk: NDArray[np.int64]
    ended: NDArray[np.int64]

    def band(self, level: float = 0.95) -> tuple[Floats, Floats]:
        """Return the pointwise log-log band ``(k,)`` low and high.

        NaN where S is 0: the transform has no value there.  1 and 1 where nothing ended yet.
        """
        check_level(level)
        z = normal_quantile(0.5 + level / 2)
        low, high = np.full_like(self.survival, np.nan), np.full_like(self.survival, np.nan)
        inside = (self.survival > 0) & (self.survival < 1)
        s, v = self.survival[inside], self.variance[inside]
        spread = z * np.sqrt(v) / np.abs(np.log(s))
        low[inside], high[inside] = s ** np.exp(spread), s ** np.exp(-spread)
        whole = self.survival == 1.0
        low[whole], high[whole] = 1.0, 1.0
        return low, high


def _durations(durations: ArrayLike, observed: ArrayLike) -> tuple[Floats, NDArray[np.bool_]]:
    times = finite_vector(durations, "durations")
    ended = np.asarray(observed, dtype=bool)
    if ended.shape != times.shape:
        raise InputError(
            f"survival: {len(times)} durations and {ended.size} flags; one flag for each duration."
        )
    if bool((times < 0).any()):
        raise InputError("survival: a duration is negative; measure from the start of the phase.")
    return times, ended


def kaplan_meier(durations: ArrayLike, observed: ArrayLike) -> KaplanMeier:
    """Return the product-limit estimate from ``(n,)`` durations.

    ``observed`` ``(n,)`` is True where the end was seen and False where watching stopped first
    (right-censored).  Raises ``InputError`` for negative or non-finite durations.
    """
    times, ended = _durations(durations, observed)
    distinct, position = np.unique(times, return_inverse=True)
    leaving = np.bincount(position, minlength=len(distinct))
    events = np.bincount(position, weights=ended, minlength=len(distinct)).astype(np.int64)
    at_risk = len(times) - np.concatenate([[0], np.cumsum(leaving)[:-1]])
    survival = np.cumprod(1.0 - events / at_risk)
    with np.errstate(divide="ignore"):
        variance = np.cumsum(np.where(events > 0, events / (at_risk * (at_risk - events)), 0.0))
    return KaplanMeier(distinct, survival, variance, at_risk.astype(np.int64), events)


@dataclass(frozen=True)
class HalfLife:
    """The median duration with its interval; None is "not reached in the time given".

    ``watched`` is the longest duration, censored or not; ``n`` counts all, ``censored`` those
    that had not ended.
    """

    estimate: float | None
    low: float | None
    high: float | None
    level: float
    n: int
    censored: int
    watched: float

    @property
    def text(self) -> str:
        """The half-life in words, without a unit: ``"400 [350, not reached in 1000]"``."""
        beyond = f"not reached in {self.watched:g}"
        ends = [beyond if end is None else f"{end:g}" for end in (self.low, self.high)]
        if self.estimate is None:
            return f"{beyond} (at least {ends[0]})" if self.low is not None else beyond
        return f"{self.estimate:g} [{ends[0]}, {ends[1]}]"

    def row(self, metric: str = "half_life", *, unit: str = "steps", **factors: Factor) -> Row:
        """Return it as a row without study and cell; not reached is ``undefined``, with why."""
        censored = f"{self.text}; {self.censored} of {self.n} had not ended"
        row = measured(metric, self.estimate, unit=unit, n=self.n, reason=censored, **factors)
        if row.status != "ok":
            return row
        changes: dict[str, Any] = {"reason": censored if self.censored else ""}
        if self.low is not None and self.high is not None:
            method = "Brookmeyer-Crowley, log-log"
            changes["interval"] = Interval(self.low, self.high, self.level, "seeds", method)
        else:
            changes["reason"] = censored
        return Row("", "", metric, unit, row.value, factors, n=self.n, **changes)


def half_life(durations: ArrayLike, observed: ArrayLike, *, level: float = 0.95) -> HalfLife:
    """Return the median survival time of ``(n,)`` possibly right-censored durations.

    The median is the first time at which S <= 1/2; the interval holds the times at which the
    log-log band of S contains 1/2 (Brookmeyer-Crowley).  With few seeds its upper end is often
    not reached, even where every seed ended: that is what few seeds can tell.
    """
    curve = kaplan_meier(durations, observed)
    low_band, high_band = curve.band(level)

    def first(reached: NDArray[np.bool_]) -> float | None:
        return float(curve.times[reached.argmax()]) if reached.any() else None

    n = int(curve.at_risk[0])
    censored = n - int(curve.ended.sum())
    # Rounding in the product must not move the median past a time where S is exactly 1/2.
    half = 0.5 + 1e-12
    median = first(curve.survival <= half)
    low = first((low_band <= half) | (curve.survival == 0.0))
    high = first(high_band <= half)
    return HalfLife(median, low, high, level, n, censored, float(curve.times[-1]))


@dataclass(frozen=True)
class LogRank:
    """Result of a log-rank test: ``chi2`` with one degree of freedom and its two-sided ``p``."""

    chi2: float
    p: float


def log_rank(durations: ArrayLike, observed: ArrayLike, group: ArrayLike) -> LogRank:
    """Test whether two groups' durations follow one law.

    ``group`` ``(n,)`` is boolean.  Raises ``InputError`` where a group is empty or nothing ended:
    there is then nothing to compare.
    """
    times, ended = _durations(durations, observed)
    member = np.asarray(group, dtype=bool)
    if member.shape != times.shape or member.all() or not member.any():
        raise InputError("log-rank: expected a True or False for each duration, both present.")
    observed_total = expected = variance = 0.0
    for time in np.unique(times[ended]):
        risk = times >= time
        here = ended & (times == time)
        n, d, share = int(risk.sum()), int(here.sum()), float(member[risk].mean())
        observed_total += int((here & member).sum())
        expected += d * share
        if n > 1:
            variance += d * share * (1 - share) * (n - d) / (n - 1)
    if variance <= 0:
        raise InputError("log-rank: nothing ended while both groups were watched; watch longer.")
    chi2 = (observed_total - expected) ** 2 / variance
    return LogRank(chi2, chi2_tail(chi2, 1))


def first_time_below(times: ArrayLike, values: ArrayLike, threshold: float) -> tuple[float, bool]:
    """Return one curve's duration and whether its end was seen, for `half_life`.

    The duration is the first of the measured ``times`` ``(n,)`` (increasing) at which ``values``
    is at most ``threshold`` (half of the initial rate, say); if there is none, the last time and
    False.  The true crossing lies between that time and the one before.
    """
    steps = finite_vector(times, "times")
    curve = finite_vector(values, "values")
    if len(steps) != len(curve) or bool((np.diff(steps) <= 0).any()):
        raise InputError("decay curve: expected one value for each time, times increasing.")
    below = curve <= threshold
    if not below.any():
        return float(steps[-1]), False
    return float(steps[below.argmax()]), True
