"""Does the forgetting of facts predict how long a backdoor lasts?  Rank correlations per seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from terrarium.evidence.quantities import Missing, PerSeed, Quantity, Seed
from terrarium.evidence.rows import Factor, Row

LEAST_RATES = 4
"""Learning rates that a rank correlation within one seed needs."""

PREDICTORS = ("facts_forgotten_early", "nats_lost_early")

Table = dict[Seed, dict[Factor, tuple[float, float]]]


def table(rows: Sequence[Row], predictor: str = PREDICTORS[0]) -> Table:
    """Return (what was forgotten, log2 of the backdoor's duration) by seed and learning rate.

    A backdoor that outlasts the time counts with the time watched.  Rates at which either is
    undefined are absent.
    """
    forgotten = _values(rows, predictor)
    half_life, watched = _values(rows, "backdoor_half_life"), _values(rows, "backdoor_duration")
    ended = _values(rows, "backdoor_ended")
    found: Table = {}
    for (seed, rate), lost in forgotten.items():
        at = (seed, rate)
        lasted = half_life.get(at)
        if lasted is None and ended.get(at) == 0.0:
            lasted = watched.get(at)
        if lost is not None and lasted is not None:
            found.setdefault(seed, {})[rate] = (lost, math.log2(max(lasted, 1.0)))
    return found


def _values(rows: Sequence[Row], metric: str) -> dict[tuple[Seed, Factor], float | None]:
    return {
        (row.factors.get("seed"), row.factors.get("learning_rate")): row.value
        for row in rows
        if row.metric == metric
        and row.factors.get("variant") == "organism"
        and row.factors.get("exclusivity") == 0.0
    }


def _seeds(rows: Sequence[Row]) -> set[Seed]:
    return {
        row.factors["seed"]
        for row in rows
        if "seed" in row.factors and "learning_rate" in row.factors
    }


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> float | Missing:
    """Return Spearman's rank correlation; ties share their mean rank."""
    a, b = _ranks(x), _ranks(y)
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return Missing("all values are alike, so that there are no ranks")
    return float(np.corrcoef(a, b)[0, 1])


def _ranks(values: Sequence[float]) -> NDArray[np.float64]:
    """Return ranks from 1; ties share the mean of their ranks."""
    _, place, count = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    ranks: NDArray[np.float64] = (np.cumsum(count) - (count - 1) / 2)[place]
    return ranks


def across_rates(predictor: str = PREDICTORS[0]) -> Quantity:
    """Return each seed's rank correlation over learning rates, forgetting against duration."""

    def reduce(rows: Sequence[Row]) -> PerSeed:
        known = table(rows, predictor)
        found: dict[Seed, float | Missing] = {}
        for seed in _seeds(rows):
            pairs = list(known.get(seed, {}).values())
            if len(pairs) < LEAST_RATES:
                found[seed] = Missing(
                    f"both are known at {len(pairs)} learning rates; {LEAST_RATES} are needed"
                )
                continue
            x, y = zip(*pairs, strict=True)
            found[seed] = rank_correlation(x, y)
        return found

    return Quantity(f"rank correlation over learning rates, {predictor} with half-life", reduce)


def within_rates(predictor: str = PREDICTORS[0]) -> Quantity:
    """Return the correlation that is left within a learning rate, seed by seed.

    At every learning rate the mean over seeds is taken off both, so that the rate itself can
    explain nothing; what remains is correlated over all seeds and rates.  A seed's number is its
    jackknife pseudo-value, ``k r - (k - 1) r_without``, whose mean and t interval over seeds are
    the jackknife's (Tukey 1958; Efron and Tibshirani 1993, ch. 11).
    """

    def reduce(rows: Sequence[Row]) -> PerSeed:
        known, seeds = table(rows, predictor), sorted(_seeds(rows), key=str)
        if len(known) < 3:
            return {seed: Missing("fewer than 3 seeds have a value") for seed in seeds}
        whole = centred_correlation(known)
        found: dict[Seed, float | Missing] = {}
        for seed in seeds:
            if seed not in known:
                found[seed] = Missing("forgetting or half-life is undefined at every rate")
                continue
            rest = centred_correlation({s: v for s, v in known.items() if s != seed})
            if isinstance(whole, Missing) or isinstance(rest, Missing):
                found[seed] = Missing("within a learning rate nothing varies between seeds")
            else:
                found[seed] = len(known) * whole - (len(known) - 1) * rest
        return found

    return Quantity(f"correlation within a learning rate, {predictor} with half-life", reduce)


def centred_correlation(
    known: Mapping[Seed, Mapping[Factor, tuple[float, float]]],
) -> float | Missing:
    """Return the correlation of the pairs after each learning rate's mean has been taken off."""
    by_rate: dict[Factor, list[tuple[float, float]]] = {}
    for pairs in known.values():
        for rate, pair in pairs.items():
            by_rate.setdefault(rate, []).append(pair)
    parts: list[NDArray[np.float64]] = [
        np.asarray(pairs) - np.mean(pairs, axis=0) for pairs in by_rate.values() if len(pairs) > 1
    ]
    if not parts:
        return Missing("no learning rate has two seeds")
    x, y = np.concatenate(parts).T
    size = math.sqrt(float((x**2).sum() * (y**2).sum()))
    return Missing("nothing varies between seeds") if size < 1e-12 else float((x * y).sum() / size)
