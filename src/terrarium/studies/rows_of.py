"""Flat records of a study's rows, for its figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from terrarium.evidence.rows import Row


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
