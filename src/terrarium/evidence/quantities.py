"""Quantities: one number per seed from rows, in a few combinators that also read as text.

A `Quantity` is a text and a function from rows to a number, or a `Missing` with its reason, for
each seed.  Studies put them together from top to bottom::

    truth = at_best(
        "layer",
        read=where("auroc", rows="disagree", split="test"),
        chosen_on=where("auroc", rows="all", split="validation"),
    )
    needs_truth = per_seed("auroc", recipe="odd", layer=2)
    gap = difference(needs_truth, per_seed("auroc", recipe="ten more", layer=2))

A seed for which anything needed is undefined, failed or skipped is missing, never dropped: it
stays in the count.  A cell that failed as a whole is one row with metric ``"cell"`` (`CELL`),
status ``"failed"`` and the cell's factors; it counts as missing for every quantity whose factors
it doesn't contradict.

Source of the earliest informative layer: Mallen et al. (2023), arXiv 2312.01037, sec. 4.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from terrarium.errors import InputError
from terrarium.evidence.rows import Factor, Row

SEED = "seed"
"""The factor that tells independent repetitions apart."""
CELL = "cell"
"""The metric of a row that stands for a whole cell (failed or skipped)."""


@dataclass(frozen=True)
class Missing:
    """No number for this seed, and why."""

    reason: str


Seed = Factor
PerSeed = Mapping[Seed, float | Missing]


@dataclass(frozen=True)
class Selection:
    """The rows of one metric at given levels of factors; a tuple of levels means any of them.

    Make it with `where`.
    """

    metric: str
    factors: tuple[tuple[str, Factor | tuple[Factor, ...]], ...] = ()

    @property
    def text(self) -> str:
        """``auroc (probe=lda, layer=1 or 2)``."""
        parts = [f"{name}={' or '.join(map(str, _levels(level)))}" for name, level in self.factors]
        return f"{self.metric} ({', '.join(parts)})" if parts else self.metric

    def matching(self, rows: Iterable[Row]) -> list[Row]:
        """Return the rows of this metric at these levels, whatever their status."""
        return [row for row in rows if row.metric == self.metric and self._fits(row, True)]

    def lost_cells(self, rows: Iterable[Row]) -> list[Row]:
        """Return the rows of failed or skipped cells that would have held this metric."""
        return [row for row in rows if row.metric == CELL and self._fits(row, False)]

    def _fits(self, row: Row, need_all: bool) -> bool:
        for name, level in self.factors:
            if name not in row.factors:
                if need_all:
                    return False
            elif not any(_same(row.factors[name], wanted) for wanted in _levels(level)):
                return False
        return True


def _levels(level: Factor | tuple[Factor, ...]) -> tuple[Factor, ...]:
    return level if isinstance(level, tuple) else (level,)


def _same(a: Factor, b: Factor) -> bool:
    # True == 1 in Python, but quirky=True and layer=1 are different levels.
    return a == b and isinstance(a, bool) == isinstance(b, bool)


def where(metric: str, /, **factors: Factor | Sequence[Factor]) -> Selection:
    """Return the selection of ``metric`` at the levels given; a list means any of its levels."""
    fixed: list[tuple[str, Factor | tuple[Factor, ...]]] = []
    for name, level in factors.items():
        one = level is None or isinstance(level, (str, int, float, bool))
        fixed.append((name, level if one else tuple(level)))  # type: ignore[arg-type]
    return Selection(metric, tuple(fixed))


@dataclass(frozen=True)
class Quantity:
    """One number per seed.

    Attributes
    ----------
    text:
        What it is, for the report.
    reduce:
        ``reduce(rows) -> {seed: number or Missing}``; pure.
    unit:
        Shown after the number; empty for proportions and ratios.
    """

    text: str
    reduce: Callable[[Sequence[Row]], PerSeed]
    unit: str = ""

    def called(self, text: str, unit: str | None = None) -> Quantity:
        """Return the same quantity under a shorter text (and another unit)."""
        return replace(self, text=text, unit=self.unit if unit is None else unit)

    def values(self, rows: Sequence[Row]) -> dict[Seed, float | Missing]:
        """Return the number or `Missing` of each seed, in the order of seeds."""
        found = self.reduce(rows)
        return {
            seed: value
            if isinstance(value, Missing) or math.isfinite(value)
            else Missing(f"{self.text} is not finite")
            for seed, value in sorted(found.items(), key=lambda item: _order(item[0]))
        }


def _order(level: Factor) -> tuple[int, float, str]:
    if isinstance(level, (int, float)):
        return (0, float(level), "")
    return (1, 0.0, str(level))


def _by_seed(rows: Sequence[Row], selection: Selection) -> dict[Seed, list[Row]]:
    found: dict[Seed, list[Row]] = {}
    for row in selection.matching(rows):
        if SEED not in row.factors:
            raise InputError(
                f"{selection.text}: a row names no '{SEED}', and evidence is counted over seeds; "
                "give every row the seed of its organism."
            )
        found.setdefault(row.factors[SEED], []).append(row)
    return found


def _lost(rows: Sequence[Row], *selections: Selection) -> dict[Seed, Missing]:
    return {
        row.factors[SEED]: Missing(f"cell {row.status}: {row.reason}")
        for selection in selections
        for row in selection.lost_cells(rows)
        if SEED in row.factors
    }


def _value(row: Row) -> float | Missing:
    return Missing(f"{row.status}: {row.reason}") if row.value is None else row.value


def _several(selection: Selection, rows: Sequence[Row]) -> InputError:
    names = sorted({name for row in rows for name in row.factors})
    varying = [n for n in names if len({repr(row.factors.get(n)) for row in rows}) > 1]
    advice = f"fix or reduce {', '.join(varying)}" if varying else "the row is there twice"
    return InputError(f"{selection.text}: {len(rows)} rows for one seed; {advice}.")


def per_seed(metric: str, /, **factors: Factor | Sequence[Factor]) -> Quantity:
    """Return the value of the one row that each seed has of ``metric`` at the levels given.

    Reducing raises ``InputError`` where a seed has several such rows, and names what varies.
    """
    selection = where(metric, **factors)

    def reduce(rows: Sequence[Row]) -> PerSeed:
        values: dict[Seed, float | Missing] = dict(_lost(rows, selection))
        for seed, found in _by_seed(rows, selection).items():
            if len(found) > 1:
                raise _several(selection, found)
            values[seed] = _value(found[0])
        return values

    return Quantity(selection.text, reduce)


def _table(rows: Sequence[Row], selection: Selection, level: str) -> dict[Seed, dict[Factor, Row]]:
    table: dict[Seed, dict[Factor, Row]] = {}
    for seed, found in _by_seed(rows, selection).items():
        table[seed] = {}
        for row in sorted(found, key=lambda r: _order(r.factors.get(level))):
            if level not in row.factors:
                raise InputError(f"{selection.text}: a row has no factor '{level}' to choose over.")
            if row.factors[level] in table[seed]:
                raise _several(selection, [table[seed][row.factors[level]], row])
            table[seed][row.factors[level]] = row
    return table


def over_levels(how: Literal["min", "max", "mean"], level: str, selection: Selection) -> Quantity:
    """Return each seed's least, greatest or mean value over all levels of the factor ``level``.

    One level without a value makes the seed missing.  Whoever takes the greatest must let the
    null take the greatest too.
    """
    word = {"min": "least", "max": "greatest", "mean": "mean"}[how]

    def reduce(rows: Sequence[Row]) -> PerSeed:
        values: dict[Seed, float | Missing] = dict(_lost(rows, selection))
        for seed, levels in _table(rows, selection, level).items():
            got = [_value(row) for row in levels.values()]
            lacking = next((value for value in got if isinstance(value, Missing)), None)
            numbers = [value for value in got if not isinstance(value, Missing)]
            if lacking is not None:
                values[seed] = lacking
            elif how == "mean":
                values[seed] = math.fsum(numbers) / len(numbers)
            else:
                values[seed] = min(numbers) if how == "min" else max(numbers)
        return values

    return Quantity(f"{word} over {level} of {selection.text}", reduce)


def at_best(
    level: str,
    *,
    read: Selection,
    chosen_on: Selection,
    rule: Literal["best", "earliest"] = "best",
    chance: float = 0.5,
    share: float = 0.95,
) -> Quantity:
    """Return ``read`` at the level (the layer) that each seed chooses on other rows.

    ``"best"`` takes the level with the greatest ``chosen_on`` (ties: the first); ``"earliest"``
    the first level whose gain over ``chance`` is at least ``share`` of the greatest gain (the
    earliest informative layer).  Levels are ordered as numbers, then as text.  Only levels with a
    value are candidates; the seed is missing where there is none, or where ``read`` has no value
    there.  Raises ``InputError`` where both selections are the same: a layer is not chosen on the
    rows that it is scored on.
    """
    if set(read.factors) == set(chosen_on.factors) and read.metric == chosen_on.metric:
        raise InputError(
            f"{read.text}: the {level} would be chosen on the very rows that score it; "
            "choose it on validation rows."
        )

    def reduce(rows: Sequence[Row]) -> PerSeed:
        values: dict[Seed, float | Missing] = dict(_lost(rows, read, chosen_on))
        choices, reads = _table(rows, chosen_on, level), _table(rows, read, level)
        for seed in {**choices, **reads}:
            scores = {k: r.value for k, r in choices.get(seed, {}).items() if r.value is not None}
            if not scores:
                values[seed] = Missing(f"no {level} could be chosen on {chosen_on.text}")
                continue
            top = max(scores.values())
            bar = top if rule == "best" or top <= chance else chance + share * (top - chance)
            chosen = next(k for k, score in scores.items() if score >= bar)
            row = reads.get(seed, {}).get(chosen)
            lacking = Missing(f"{read.text} was not measured at {level} {chosen}")
            values[seed] = lacking if row is None else _value(row)
        return values

    which = "best" if rule == "best" else "earliest informative"
    return Quantity(f"{read.text} at the {which} {level} by {chosen_on.text}", reduce)


def combined(text: str, function: Callable[..., float | Missing], *parts: Quantity) -> Quantity:
    """Return ``function(a, b, ...)`` of the parts' numbers, paired by seed.

    A seed that is missing in one part, or has no row there, is missing with that reason.
    """

    def reduce(rows: Sequence[Row]) -> PerSeed:
        columns = [part.values(rows) for part in parts]
        values: dict[Seed, float | Missing] = {}
        for seed in {seed: None for column in columns for seed in column}:
            got = [
                column.get(seed, Missing(f"no row of {part.text}"))
                for column, part in zip(columns, parts, strict=True)
            ]
            lacking = next((value for value in got if isinstance(value, Missing)), None)
            values[seed] = function(*got) if lacking is None else lacking
        return values

    return Quantity(text, reduce)


def difference(a: Quantity, b: Quantity) -> Quantity:
    """Return ``a - b``, paired by seed."""
    text = f"[{a.text}] minus [{b.text}]"
    return replace(combined(text, lambda x, y: x - y, a, b), unit=a.unit)


def recovered(
    reached: Quantity,
    floor: Quantity | float,
    ceiling: Quantity | float,
    *,
    least_gap: float = 0.01,
) -> Quantity:
    """Return the share of a gap that was closed, ``(reached - floor) / (ceiling - floor)``.

    The performance gap recovered (PGR: Burns et al. 2023, sec. 3), and, with the untrained
    network as floor and the optimum as ceiling, the share of the untrained residual that training
    removes.  For quantities that fall towards their optimum (losses) the gap is negative and the
    formula the same.  A seed whose gap is smaller than ``least_gap`` is missing: there was
    nothing to recover.
    """

    def ends(x: Quantity | float) -> Quantity:
        return x if isinstance(x, Quantity) else _constant(x, reached)

    def share(value: float, low: float, high: float) -> float | Missing:
        if abs(high - low) < least_gap:
            return Missing(f"the gap from {low:.3g} to {high:.3g} is too small to be recovered")
        return (value - low) / (high - low)

    low, high = ends(floor), ends(ceiling)
    text = f"share of the gap from [{low.text}] to [{high.text}] closed by [{reached.text}]"
    return combined(text, share, reached, low, high)


def _constant(number: float, like: Quantity) -> Quantity:
    def reduce(rows: Sequence[Row]) -> PerSeed:
        return {seed: number for seed in like.values(rows)}

    return Quantity(f"{number:g}", reduce)
