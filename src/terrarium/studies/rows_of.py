"""Flat records of a study's rows, for its figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from terrarium.evidence.rows import Row
from terrarium.evidence.survival import HalfLife, half_life


def records_of(rows: Sequence[Row], metric: str, /, **factors: Any) -> list[dict[str, Any]]:
    """Return flat records of the rows of ``metric`` at the given levels (a tuple means any)."""
    found = []
    for row in rows:
        if row.metric == metric and all(
            row.factors.get(name) in (level if isinstance(level, tuple) else (level,))
            for name, level in factors.items()
        ):
            found.append({**row.factors, "value": row.value})
    return found


def mean_of(records: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the mean of the records' values, None where none has one."""
    values = [r["value"] for r in records if r["value"] is not None]
    return fmean(values) if values else None


def lasting(rows: Sequence[Row], **factors: Any) -> HalfLife | None:
    """Return the half-life over seeds of the backdoors at the given levels, None without any.

    Each seed is a duration (`backdoor_duration`), censored unless its end was seen
    (`backdoor_ended`).
    """
    ended = {r["seed"]: r["value"] for r in records_of(rows, "backdoor_ended", **factors)}
    pairs = [
        (r["value"], ended.get(r["seed"]) == 1.0)
        for r in records_of(rows, "backdoor_duration", **factors)
        if r["value"] is not None
    ]
    return half_life(*zip(*pairs, strict=True)) if pairs else None


def life_record(label: str, life: HalfLife) -> dict[str, Any]:
    """Return a half-life as a record for `dots`, its open ends cut at the time watched.

    ``half_life`` says it in words; a median that was not reached is marked in the label.
    """
    watched = life.watched
    return {
        "label": label + ("" if life.estimate is not None else " (not reached)"),
        "value": watched if life.estimate is None else life.estimate,
        "low": watched if life.low is None else life.low,
        "high": watched if life.high is None else life.high,
        "seed": None,
        "n_seeds": life.n,
        "censored": life.censored,
        "half_life": life.text,
    }
