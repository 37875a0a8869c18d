"""The tidy row: one measured number with its factors, interval, count and status."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Status = Literal["ok", "undefined", "failed", "skipped"]
Factor = str | int | float | bool | None


@dataclass(frozen=True)
class Interval:
    """A confidence interval; ``level`` is a proportion, ``over`` says what varied (``"seeds"``)."""

    low: float
    high: float
    level: float = 0.95
    over: str = "seeds"
    method: str = ""


@dataclass(frozen=True)
class Row:
    """One result.

    Attributes
    ----------
    study, cell:
        The study's name and the key of the cell (spec and code) that measured it.
    factors:
        What was varied or conditioned on, level by level (``{"layer": 2, "probe": "lda"}``).
    metric, unit:
        What was measured (``"auroc"``) and in what (``"proportion"``, ``"nats"``, ``"dB"``).
    value:
        The number, or None where ``status`` is not ``"ok"``; never NaN.
    n:
        How many examples or runs the value rests on; refused and failed ones count.
    """

    study: str
    cell: str
    metric: str
    unit: str
    value: float | None
    factors: Mapping[str, Factor] = field(default_factory=dict)
    interval: Interval | None = None
    n: int = 0
    status: Status = "ok"
    reason: str = ""

    def __post_init__(self) -> None:
        if (self.status == "ok") != (self.value is not None):
            raise ValueError(f"{self.metric}: a value goes with status 'ok' and nothing else does")
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(f"{self.metric}: {self.value} is no value; use status 'undefined'")
        if self.status != "ok" and not self.reason:
            raise ValueError(f"{self.metric}: status '{self.status}' needs a reason")

    def with_factors(self, **more: Factor) -> Row:
        """Return the row with further factors."""
        return replace(self, factors={**self.factors, **more})


def measured(
    metric: str, value: float | None, *, unit: str, n: int, reason: str = "", **factors: Factor
) -> Row:
    """Return a row without study and cell; None or a non-finite value becomes ``undefined``."""
    if value is None or not math.isfinite(value):
        why = reason or "the metric is not defined on these examples"
        return Row("", "", metric, unit, None, factors, None, n, "undefined", why)
    return Row("", "", metric, unit, float(value), factors, None, n)


def stamped(rows: Iterable[Row], study: str, cell: str) -> list[Row]:
    """Return the rows with their study and cell filled in."""
    return [replace(row, study=study, cell=cell) for row in rows]


def records(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Return flat dicts: fixed columns and one ``factor.<name>`` column for each factor."""
    flat = []
    for row in rows:
        interval = row.interval
        flat.append(
            {
                "study": row.study,
                "cell": row.cell,
                "metric": row.metric,
                "unit": row.unit,
                "value": row.value,
                "low": interval.low if interval else None,
                "high": interval.high if interval else None,
                "n": row.n,
                "status": row.status,
                "reason": row.reason,
                **{f"factor.{name}": level for name, level in row.factors.items()},
            }
        )
    return flat
