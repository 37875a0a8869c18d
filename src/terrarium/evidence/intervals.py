"""Intervals: over seeds for what a study claims, over rows where only one model is at hand.

A verdict rests on intervals over seeds.  An interval over the rows of one seed says how well one
model was measured, and says so in ``Interval.over``.

Sources: Student (1908) for the mean; Efron and Tibshirani (1993), *An Introduction to the
Bootstrap*, ch. 12.5 (percentile-t) and 14.3 (BCa); Clopper and Pearson (1934); Wilson (1927);
Hanley and Lippman-Hand (1983) for the rule of three; DeLong et al. (1988) and Newcombe (2006),
Statistics in Medicine 25, part 2, method 5, for the AUROC; Obuchowski (1997), Biometrics
53, for the AUROC of rows that come in groups.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from terrarium.errors import InputError
from terrarium.evidence.laws import (
    beta_quantile,
    normal_quantile,
    normal_tail,
    t_quantile,
)
from terrarium.evidence.rows import Interval
from terrarium.randomness import generator

Floats = NDArray[np.float64]
EXACT_RESAMPLES = 50_000
"""Up to this many resamples (``n ** n``) the bootstrap enumerates all, and is then exact."""


def finite_vector(values: ArrayLike, name: str, least: int = 1) -> Floats:
    """Return ``values`` as a ``(n,)`` float64 array of at least ``least`` finite numbers.

    Raises ``InputError`` otherwise: an undefined value must be handled by its status before.
    """
    array: Floats = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or len(array) < least:
        raise InputError(
            f"{name}: expected a list of at least {least} numbers, got shape {array.shape}."
        )
    if not np.isfinite(array).all():
        raise InputError(
            f"{name}: {int((~np.isfinite(array)).sum())} values are NaN or infinite; "
            "leave out rows whose status is not 'ok' and count them."
        )
    return array


def check_level(level: float) -> None:
    """Raise ``InputError`` unless ``level`` is a proportion strictly between 0 and 1."""
    if not 0.0 < level < 1.0:
        raise InputError(f"level: expected a proportion such as 0.95, got {level}.")


def standard_error(array: Floats) -> float:
    """Return the standard error of the mean of ``(n,)`` values, 0.0 where all are equal.

    Summing n copies of 0.1 leaves a spread of rounding alone; that is no spread.
    """
    if bool((array == array[0]).all()):
        return 0.0
    return float(array.std(ddof=1)) / math.sqrt(len(array))


def mean_interval(values: ArrayLike, *, level: float = 0.95, over: str = "seeds") -> Interval:
    """Return Student's t interval of the mean of ``(n,)`` independent ``values``, n >= 2.

    Values without any spread give an interval without width, and the method says so.
    Raises ``InputError`` for fewer than two values, for NaN and for a level that is none.
    """
    check_level(level)
    array = finite_vector(values, "mean interval", 2)
    error = standard_error(array)
    mean = float(array[0]) if error == 0.0 else float(array.mean())
    half = t_quantile(0.5 + level / 2, len(array) - 1) * error
    method = "t" if error > 0 else "t (no spread)"
    return Interval(mean - half, mean + half, level, over, method)


def paired_interval(
    a: ArrayLike, b: ArrayLike, *, level: float = 0.95, over: str = "seeds"
) -> Interval:
    """Return the t interval of the mean of ``a - b``, paired item by item (by seed).

    Raises ``InputError`` where the two differ in length, and as `mean_interval` does.
    """
    left, right = finite_vector(a, "paired interval", 2), finite_vector(b, "paired interval", 2)
    if len(left) != len(right):
        raise InputError(
            f"paired interval: {len(left)} values against {len(right)}; pair them by seed first."
        )
    found = mean_interval(left - right, level=level, over=over)
    return Interval(found.low, found.high, level, over, f"paired {found.method}")


def _resamples(n: int, count: int, key: Sequence[str | int]) -> tuple[NDArray[np.int64], bool]:
    if n**n <= EXACT_RESAMPLES:
        digits = np.arange(n**n)[:, None] // n ** np.arange(n)[None, :] % n
        return digits, True
    return generator("bootstrap", *key).integers(0, n, (count, n)), False


def bootstrap_interval(
    values: ArrayLike,
    *,
    level: float = 0.95,
    method: Literal["bca", "percentile_t"] = "bca",
    resamples: int = 10_000,
    key: Sequence[str | int] = (),
    over: str = "seeds",
) -> Interval:
    """Return a bootstrap interval of the mean of ``(n,)`` values, n >= 2.

    With up to 6 values every resample is enumerated, so that the result is exact and without
    chance; with more, ``resamples`` are drawn from a generator keyed by ``key``.  ``"bca"`` is
    bias-corrected and accelerated, ``"percentile_t"`` studentised (resamples without spread are
    left out).  Both are too narrow with 5 seeds; the t interval is the default elsewhere.
    Raises ``InputError`` as `mean_interval`, and where percentile-t has no resample to use.
    """
    check_level(level)
    array = finite_vector(values, "bootstrap interval", 2)
    if method not in ("bca", "percentile_t"):
        raise InputError(f"bootstrap: '{method}' is no method; use 'bca' or 'percentile_t'.")
    chosen, exact = _resamples(len(array), resamples, key)
    name = f"{method} bootstrap" + (" (all resamples)" if exact else "")
    if standard_error(array) == 0.0:
        return Interval(float(array[0]), float(array[0]), level, over, f"{name}, no spread")
    drawn = array[chosen]
    low, high = _bca(array, drawn, level) if method == "bca" else _studentised(array, drawn, level)
    return Interval(low, high, level, over, name)


def _bca(array: Floats, drawn: Floats, level: float) -> tuple[float, float]:
    means, mean, n = drawn.mean(axis=1), float(array.mean()), len(array)
    # The mean is compared up to rounding: equal sums added in another order are equal.
    slack = 1e-12 * float(np.abs(array).max())
    below = float((means < mean - slack).mean() + (np.abs(means - mean) <= slack).mean() / 2)
    bias = normal_quantile(below)
    jackknife = (array.sum() - array) / (n - 1)
    deviation = jackknife.mean() - jackknife
    acceleration = float((deviation**3).sum() / (6.0 * (deviation**2).sum() ** 1.5))

    def end(tail: float) -> float:
        shifted = bias + normal_quantile(tail)
        p = 1.0 - normal_tail(bias + shifted / (1.0 - acceleration * shifted))
        return float(np.quantile(means, p))

    return end((1 - level) / 2), end((1 + level) / 2)


def _studentised(array: Floats, drawn: Floats, level: float) -> tuple[float, float]:
    spread = drawn.std(axis=1, ddof=1)
    usable = spread > 1e-12 * float(np.abs(array).max())
    if not usable.any():
        raise InputError("percentile-t bootstrap: no resample has any spread; use the t interval.")
    root, mean, error = math.sqrt(len(array)), float(array.mean()), standard_error(array)
    t = (drawn[usable].mean(axis=1) - mean) / (spread[usable] / root)
    low, high = np.quantile(t, [(1 - level) / 2, (1 + level) / 2])
    return mean - float(high) * error, mean - float(low) * error


def _counts(successes: int, n: int) -> None:
    if n < 1 or not 0 <= successes <= n:
        raise InputError(f"rate: {successes} of {n} is none; expected 0 <= successes <= n, n >= 1.")


def clopper_pearson(successes: int, n: int, *, level: float = 0.95, over: str = "rows") -> Interval:
    """Return the exact (conservative) interval of a rate, ``successes`` of ``n`` trials.

    Trials that were refused or failed belong to ``n``.  Raises ``InputError`` for counts that
    cannot be.
    """
    check_level(level)
    _counts(successes, n)
    tail = (1 - level) / 2
    low = 0.0 if successes == 0 else beta_quantile(tail, successes, n - successes + 1)
    high = 1.0 if successes == n else beta_quantile(1 - tail, successes + 1, n - successes)
    return Interval(low, high, level, over, "Clopper-Pearson")


def grouped_rate(
    hits: ArrayLike, groups: ArrayLike, *, level: float = 0.95, over: str = "groups"
) -> Interval:
    """Return the interval of the rate of ``hits`` ``(n,)`` whose ``groups`` ``(n,)`` repeat.

    Clopper and Pearson's with as many trials as there are groups, whatever their sizes: what is
    asked again of the same group is taken to add nothing (Korn and Graubard 1998, Survey
    Methodology 24, with the largest design effect there can be).  Without repetitions it is
    `clopper_pearson`.  Raises ``InputError`` for lists of different or no length.
    """
    check_level(level)
    found, group = np.asarray(hits, dtype=np.float64), np.asarray(groups)
    if found.ndim != 1 or found.shape != group.shape or not len(found):
        raise InputError(
            f"grouped rate: expected two lists of one length, got {found.shape} and {group.shape}."
        )
    trials, rate, tail = len(np.unique(group)), float(found.mean()), (1 - level) / 2
    low = 0.0 if rate == 0 else beta_quantile(tail, trials * rate, trials * (1 - rate) + 1)
    high = 1.0 if rate == 1 else beta_quantile(1 - tail, trials * rate + 1, trials * (1 - rate))
    return Interval(low, high, level, over, "Clopper-Pearson by group")


def wilson(successes: int, n: int, *, level: float = 0.95, over: str = "rows") -> Interval:
    """Return Wilson's score interval of a rate: shorter than the exact one, nearly its coverage.

    Raises ``InputError`` for impossible counts.
    """
    check_level(level)
    _counts(successes, n)
    z, rate = normal_quantile(0.5 + level / 2), successes / n
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return Interval(low, high, level, over, "Wilson")


def zero_rate_bound(n: int, *, level: float = 0.95) -> float:
    """Return the upper bound of a rate that was 0 of ``n``: ``1 - (1 - level) ** (1 / n)``.

    One-sided and exact; near 3 / n at 95 % (the rule of three).  Raises ``InputError`` for n < 1.
    """
    check_level(level)
    _counts(0, n)
    return -math.expm1(math.log1p(-level) / n)


def _midranks(values: Floats) -> Floats:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Floats = (last - (counts - 1) / 2.0)[inverse]
    return ranks


def auroc_interval(
    positive: ArrayLike, negative: ArrayLike, *, level: float = 0.95, over: str = "rows"
) -> tuple[float, Interval]:
    """Return the AUROC of ``(m,)`` positive and ``(n,)`` negative scores, and its interval.

    The AUROC is P(positive > negative) + P(equal) / 2.  The interval is DeLong's on the logit
    scale; at 0 or 1, where DeLong's variance vanishes, it is Newcombe's method 5.  It holds for
    one model and its rows: nothing here speaks about seeds.  Raises ``InputError`` for fewer than
    two scores on a side and for NaN.
    """
    check_level(level)
    high, low = finite_vector(positive, "AUROC", 2), finite_vector(negative, "AUROC", 2)
    m, n = len(high), len(low)
    area, wins, losses = _placements(high, low)
    z = normal_quantile(0.5 + level / 2)
    variance = float(wins.var(ddof=1) / m + losses.var(ddof=1) / n)
    if variance <= 1e-15 or not 0.0 < area < 1.0:
        return area, Interval(*_newcombe(area, m, n, z), level, over, "Newcombe method 5")
    return area, Interval(*_on_logit_scale(area, variance, z), level, over, "DeLong, logit")


def grouped_auroc_interval(
    scores: ArrayLike, positive: ArrayLike, groups: ArrayLike, *, level: float = 0.95
) -> tuple[float, Interval]:
    """Return the AUROC of ``(n,)`` scores, and its interval where rows come in groups.

    ``positive`` ``(n,)`` is true for the rows that should score high, ``groups`` ``(n,)`` names the
    group of each: rows of one group may depend on each other, groups may not.  The variance is
    Obuchowski's (1997, Biometrics 53, sec. 2), DeLong's where each row is a group of its own; the
    interval is on the logit scale with Student's t for the number of groups less one.  At 0 or 1,
    where that variance vanishes, it is Newcombe's method 5 with the groups of each class counted
    in place of its rows.  Raises ``InputError`` for NaN, for lengths that differ and where fewer
    than two groups hold rows of one of the two classes.
    """
    check_level(level)
    values, labels = finite_vector(scores, "AUROC", 2), np.asarray(positive, dtype=bool)
    codes = np.unique(np.asarray(groups), return_inverse=True)[1]
    if not len(values) == len(labels) == len(codes):
        raise InputError(
            f"AUROC: {len(values)} scores, {len(labels)} labels and {len(codes)} groups; "
            "give one of each for every row."
        )
    above, below = (
        np.bincount(codes[side], minlength=codes.max() + 1) for side in (labels, ~labels)
    )
    m_groups, n_groups = int((above > 0).sum()), int((below > 0).sum())
    if min(m_groups, n_groups) < 2:
        raise InputError("AUROC: an interval over groups needs two groups with rows of each class.")
    area, wins, losses = _placements(values[labels], values[~labels])
    z = normal_quantile(0.5 + level / 2)
    total, m, n = len(above), int(labels.sum()), int((~labels).sum())
    won = np.bincount(codes[labels], wins - area, total) / m
    lost = np.bincount(codes[~labels], losses - area, total) / n
    variance = float(
        m_groups / (m_groups - 1) * (won**2).sum()
        + n_groups / (n_groups - 1) * (lost**2).sum()
        + 2 * total / (total - 1) * (won * lost).sum()
    )
    if variance <= 1e-15 or not 0.0 < area < 1.0:
        method = "Newcombe method 5, groups"
        return area, Interval(*_newcombe(area, m_groups, n_groups, z), level, "groups", method)
    ends = _on_logit_scale(area, variance, t_quantile(0.5 + level / 2, total - 1))
    return area, Interval(*ends, level, "groups", "Obuchowski, logit")


def _placements(high: Floats, low: Floats) -> tuple[float, Floats, Floats]:
    """Return the AUROC, and for each score the share of the other side that it agrees with."""
    m, n = len(high), len(low)
    ranks = _midranks(np.concatenate([high, low]))
    wins = (ranks[:m] - _midranks(high)) / n
    return float(wins.mean()), wins, 1.0 - (ranks[m:] - _midranks(low)) / m


def _on_logit_scale(area: float, variance: float, quantile: float) -> tuple[float, float]:
    logit, half = math.log(area / (1 - area)), quantile * math.sqrt(variance) / (area * (1 - area))
    # A wide interval over few groups must not overflow.
    low, high = (max(-700.0, min(700.0, logit + side * half)) for side in (-1.0, 1.0))
    return 1.0 / (1.0 + math.exp(-low)), 1.0 / (1.0 + math.exp(-high))


def _newcombe(area: float, m: int, n: int, z: float) -> tuple[float, float]:
    half_total = (m + n) / 2 - 1

    def variance(a: float) -> float:
        return a * (1 - a) * (1 + half_total * ((1 - a) / (2 - a) + a / (1 + a))) / (m * n)

    def end(outer: float) -> float:
        # |area - a| - z sd(a) is negative next to the area and positive at the outer end.
        inner = area
        for _ in range(200):
            middle = (inner + outer) / 2
            if abs(area - middle) < z * math.sqrt(variance(middle)):
                inner = middle
            else:
                outer = middle
        return inner

    return (0.0 if area == 0.0 else end(0.0)), (1.0 if area == 1.0 else end(1.0))


def overlaps(interval: Interval, value: float) -> bool:
    """Return whether ``interval`` holds ``value``, ends included."""
    return interval.low <= value <= interval.high


def shown(value: float, interval: Interval | None = None, unit: str = "") -> str:
    """Return ``"0.93 [0.90, 0.96] nats"``, with as many decimals as the interval's width asks."""
    width = abs(interval.high - interval.low) if interval is not None else 0.0
    scale = width if width > 0 else abs(value)
    places = 2 if scale == 0 else min(5, max(2, -math.floor(math.log10(scale))))
    if scale >= 100:
        places = 0
    numbers = f"{_fixed(value, places)}"
    if interval is not None:
        numbers += f" [{_fixed(interval.low, places)}, {_fixed(interval.high, places)}]"
    return f"{numbers} {unit}".rstrip()


def _fixed(value: Any, places: int) -> str:
    text = f"{value:.{places}f}"
    # No "-0.00": the sign of a rounded zero means nothing to a reader.
    return text.lstrip("-") if float(text) == 0.0 else text
