"""Rows over seeds: mean and t interval of every group, with what failed kept in the count."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from terrarium.errors import InputError, did_you_mean
from terrarium.evidence.intervals import mean_interval
from terrarium.evidence.quantities import SEED
from terrarium.evidence.rows import Factor, Row, Status

Group = tuple[str, str, str, tuple[tuple[str, str], ...]]


def over_seeds(
    rows: Iterable[Row], by: Sequence[str] | None = None, *, level: float = 0.95
) -> list[Row]:
    """Return one row per study, metric, unit and levels of ``by``: the mean over seeds.

    ``by`` names the factors to keep; None keeps all but the seed.  ``n`` counts all seeds, those
    without a value included, and ``reason`` says which and why.  The interval is Student's over
    the seeds that have a value, absent below two.  Groups appear in the order of their first row;
    ``cell`` is empty, for several made them.  Raises ``InputError`` for a row without a seed, for
    a factor in ``by`` that no row has, and where a seed has several rows in a group (the message
    names what varies).
    """
    all_rows = list(rows)
    known = {name for row in all_rows for name in row.factors}
    for name in by or ():
        if all_rows and name not in known:
            raise InputError(f"over seeds: no row has a factor '{name}'{did_you_mean(name, known)}")
    groups: dict[Group, dict[Factor, Row]] = {}
    kept: dict[Group, dict[str, Factor]] = {}
    for row in all_rows:
        if SEED not in row.factors:
            raise InputError(f"over seeds: a row of {row.metric} names no '{SEED}'.")
        names = [name for name in row.factors if name != SEED] if by is None else by
        factors = {name: row.factors[name] for name in names if name in row.factors}
        # repr keeps 1, 1.0, True and "1" apart.
        levels = tuple(sorted((name, repr(level)) for name, level in factors.items()))
        key = (row.study, row.metric, row.unit, levels)
        kept.setdefault(key, factors)
        seeds = groups.setdefault(key, {})
        seed = row.factors[SEED]
        if seed in seeds:
            raise _several(row, seeds[seed])
        seeds[seed] = row
    return [_summary(list(seeds.values()), kept[key], level) for key, seeds in groups.items()]


def _several(a: Row, b: Row) -> InputError:
    names = sorted({*a.factors, *b.factors})
    varying = [n for n in names if repr(a.factors.get(n)) != repr(b.factors.get(n))]
    advice = f"add {', '.join(varying)} to 'by'" if varying else "the row is there twice"
    return InputError(
        f"over seeds: {a.metric} has several rows for seed {a.factors[SEED]}; {advice}."
    )


def _summary(rows: list[Row], factors: dict[str, Factor], level: float) -> Row:
    values = [row.value for row in rows if row.value is not None]
    lost = [row for row in rows if row.value is None]
    reason = ""
    if lost:
        why = "; ".join(f"seed {r.factors[SEED]} {r.status}: {r.reason}" for r in lost)
        reason = f"{len(values)} of {len(rows)} seeds have a value; {why}"
    value = math.fsum(values) / len(values) if values else None
    status: Status = "ok"
    if value is None:
        kinds = {row.status for row in lost}
        status = lost[0].status if len(kinds) == 1 else "undefined"
    return Row(
        study=rows[0].study,
        cell="",
        metric=rows[0].metric,
        unit=rows[0].unit,
        value=value,
        factors=factors,
        interval=mean_interval(values, level=level) if len(values) >= 2 else None,
        n=len(rows),
        status=status,
        reason=reason,
    )
