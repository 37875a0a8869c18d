"""One prediction against rows: the estimate over seeds, its intervals, p-values and outcome."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from terrarium.evidence.intervals import mean_interval, shown
from terrarium.evidence.predictions import Prediction
from terrarium.evidence.quantities import Missing, Seed
from terrarium.evidence.rows import Interval, Row
from terrarium.evidence.significance import t_test

Outcome = Literal["supported", "contradicted", "undecided"]
ALPHA = 0.05
"""The chance of any false decision within one study."""
MIN_SEEDS = 5
"""Seeds with a value that a verdict needs."""


@dataclass(frozen=True)
class Finding:
    """What the rows say about one prediction.

    Attributes
    ----------
    prediction, predicted, unit:
        The prediction in words, its region (``"> 0.65"``), the unit of the estimate.
    values, missing:
        The number of each seed that has one, the reason of each that hasn't.
    estimate, interval:
        Mean over seeds and its 95 % t interval; None below one and two seeds.
    p, p_adjusted:
        Against the region's bar: two-sided for one bar, two one-sided tests for two; None where
        nothing was tested.  The adjusted one is Holm's within the study.
    adjusted_interval:
        The interval that decided: at the level at which Holm tested it.
    """

    prediction: str
    predicted: str
    unit: str
    values: Mapping[Seed, float]
    missing: Mapping[Seed, str]
    estimate: float | None
    interval: Interval | None
    p: float | None
    p_adjusted: float | None = None
    adjusted_interval: Interval | None = None
    outcome: Outcome = "undecided"
    reason: str = ""

    @property
    def n(self) -> int:
        """Number of seeds with a value."""
        return len(self.values)

    @property
    def seeds(self) -> int:
        """Number of all seeds, those without a value included."""
        return len(self.values) + len(self.missing)

    @property
    def text(self) -> str:
        """``"0.93 [0.90, 0.96] over 5 seeds, predicted > 0.65"``."""
        found = "no value"
        if self.estimate is not None:
            found = shown(self.estimate, self.interval, self.unit)
        of = f"{self.n} of {self.seeds}" if self.missing else f"{self.n}"
        return f"{found} over {of} seed{'' if self.seeds == 1 else 's'}, predicted {self.predicted}"

    def record(self) -> dict[str, Any]:
        """Return the finding as plain data for JSON."""
        return {
            "prediction": self.prediction,
            "predicted": self.predicted,
            "outcome": self.outcome,
            "estimate": self.estimate,
            "unit": self.unit,
            "interval": _ends(self.interval),
            "adjusted_interval": _ends(self.adjusted_interval),
            "p": self.p,
            "p_adjusted": self.p_adjusted,
            "n": self.n,
            "seeds": self.seeds,
            "values": {str(seed): value for seed, value in self.values.items()},
            "missing": {str(seed): reason for seed, reason in self.missing.items()},
            "reason": self.reason,
        }


def _ends(interval: Interval | None) -> dict[str, Any] | None:
    if interval is None:
        return None
    return {"low": interval.low, "high": interval.high, "level": interval.level}


def measure(prediction: Prediction, rows: Sequence[Row]) -> Finding:
    """Return the prediction's finding without any decision: that needs the study's family."""
    all_values = prediction.quantity.values(rows)
    values = {s: v for s, v in all_values.items() if not isinstance(v, Missing)}
    missing = {s: v.reason for s, v in all_values.items() if isinstance(v, Missing)}
    numbers = list(values.values())
    estimate = math.fsum(numbers) / len(numbers) if numbers else None
    several = len(numbers) >= 2
    return Finding(
        prediction=prediction.text,
        predicted=prediction.predicted,
        unit=prediction.quantity.unit,
        values=values,
        missing=missing,
        estimate=estimate,
        interval=mean_interval(numbers) if several else None,
        p=_cautious_p(prediction, numbers, len(missing)) if several else None,
        reason=untested(values, missing, prediction.quantity.text),
    )


def untested(values: Mapping[Seed, float], missing: Mapping[Seed, str], text: str) -> str:
    """Return why this many seeds allow no verdict, or an empty text where they do."""
    if not values and not missing:
        return f"no rows of {text}"
    if len(values) + len(missing) < MIN_SEEDS:
        seeds = len(values) + len(missing)
        return f"{seeds} seed{'' if seeds == 1 else 's'}; a verdict needs {MIN_SEEDS}"
    if len(values) < MIN_SEEDS:
        return f"{len(values)} seeds with a value; a verdict needs {MIN_SEEDS}; {_why(missing)}"
    return ""


def _why(missing: Mapping[Seed, str]) -> str:
    return "; ".join(f"seed {seed}: {reason}" for seed, reason in missing.items())


def _cautious_p(prediction: Prediction, numbers: list[float], lost: int) -> float:
    """Return the p-value on the side where the estimate lies, the largest over what is missing.

    Missing seeds are put on each bar in turn: there they speak for neither side and add spread.
    """
    mean = math.fsum(numbers) / len(numbers)
    p = _p(prediction, numbers, mean)
    fills = prediction.bounds if lost else ()
    return max([p, *(_p(prediction, numbers + [bar] * lost, mean) for bar in fills)])


def _p(prediction: Prediction, numbers: list[float], mean: float) -> float:
    low, high = prediction.low, prediction.high
    if low is None or high is None:
        return t_test(numbers, prediction.bounds[0])
    if mean >= high:
        return t_test(numbers, high, alternative="greater")
    if mean <= low:
        return t_test(numbers, low, alternative="less")
    greater = t_test(numbers, low, alternative="greater")
    return max(greater, t_test(numbers, high, alternative="less"))


def decided(finding: Finding, prediction: Prediction, p_adjusted: float, alpha: float) -> Finding:
    """Return the finding with its outcome.

    ``p_adjusted`` is Holm's within the study, ``alpha`` the one at which Holm tested it (the
    adjusted interval's).  A finding that could not be tested stays undecided with its reason.
    """
    if finding.reason or finding.estimate is None:
        return finding
    two_bars = len(prediction.bounds) == 2
    level = 1 - 2 * alpha if two_bars else 1 - alpha
    interval = mean_interval(list(finding.values.values()), level=level)
    found = replace(finding, p_adjusted=p_adjusted, adjusted_interval=interval)
    note = f"without a value: {_why(found.missing)}" if found.missing else ""
    if p_adjusted <= ALPHA:
        held = prediction.holds_at(finding.estimate)
        return replace(found, outcome="supported" if held else "contradicted", reason=note)
    inside = shown(finding.estimate, interval, finding.unit)
    if any(interval.low <= bar <= interval.high for bar in prediction.bounds):
        why = f"the interval adjusted by Holm, {inside}, reaches the bar"
    else:
        why = f"seeds without a value could move {inside} to the bar"
    return replace(found, reason=f"{why}; {note}" if note else why)
