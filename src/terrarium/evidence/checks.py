"""Named checks beside a study's verdicts: passed, failed, or not made with the reason.

A check that cannot be made is shown as such; it is never left out and never counted as passed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from terrarium.errors import InputError
from terrarium.evidence.intervals import mean_interval, overlaps, shown
from terrarium.evidence.predictions import Gate
from terrarium.evidence.quantities import CELL, Missing, Quantity
from terrarium.evidence.rows import Interval, Row

CheckStatus = Literal["passed", "failed", "not made"]


@dataclass(frozen=True)
class Check:
    """One check: what was checked, how it went, and the numbers or the reason in a sentence."""

    name: str
    status: CheckStatus
    sentence: str

    def __post_init__(self) -> None:
        if not self.sentence:
            raise InputError(f"check '{self.name}': say what was found, or why it was not made.")

    def record(self) -> dict[str, Any]:
        """Return the check as plain data for JSON."""
        return {"check": self.name, "status": self.status, "sentence": self.sentence}


def not_made(name: str, reason: str) -> Check:
    """Return a check that could not be made, with the reason."""
    return Check(name, "not made", reason)


def _over_seeds(
    quantity: Quantity, rows: Sequence[Row], level: float
) -> tuple[float, Interval, str] | str:
    """Return mean, interval and a note on missing seeds, or why there is none."""
    values = quantity.values(rows)
    numbers = [v for v in values.values() if not isinstance(v, Missing)]
    lost = [f"seed {s}: {v.reason}" for s, v in values.items() if isinstance(v, Missing)]
    note = f"; without a value: {'; '.join(lost)}" if lost else ""
    if not values:
        return f"no rows of {quantity.text}"
    if len(numbers) < 2:
        return f"{quantity.text}: an interval needs 2 seeds, {len(numbers)} has a value{note}"
    mean = sum(numbers) / len(numbers)
    return mean, mean_interval(numbers, level=level), f"over {len(numbers)} seeds{note}"


def chance_check(
    name: str,
    quantity: Quantity,
    rows: Sequence[Row],
    *,
    chance: float = 0.5,
    margin: float = 0.1,
    level: float = 0.95,
) -> Check:
    """Check that a null gives what chance gives: the interval over seeds holds ``chance``.

    For shuffled labels and the like.  One of twenty true nulls fails it at level 0.95.  An
    interval that holds chance and reaches further than ``margin`` from it shows nothing: the check
    is then not made.
    """
    found = _over_seeds(quantity, rows, level)
    if isinstance(found, str):
        return not_made(name, found)
    mean, interval, note = found
    said = f"{quantity.text}: {shown(mean, interval, quantity.unit)} {note}, chance is {chance:g}"
    wide = max(interval.high - chance, chance - interval.low) > margin
    if overlaps(interval, chance) and wide:
        return not_made(name, f"{said}; the interval is too wide to tell (margin {margin:g})")
    return Check(name, "passed" if overlaps(interval, chance) else "failed", said)


def bound_check(
    name: str,
    quantity: Quantity,
    rows: Sequence[Row],
    *,
    at_most: float | None = None,
    at_least: float | None = None,
    level: float = 0.95,
) -> Check:
    """Check that the whole interval over seeds respects a bound.

    For an input-only baseline (``at_most=0.55``) or a positive control (``at_least=0.95``).
    Raises ``InputError`` unless exactly one bound is given.
    """
    if (at_most is None) == (at_least is None):
        raise InputError(f"check '{name}': give either at_most or at_least.")
    found = _over_seeds(quantity, rows, level)
    if isinstance(found, str):
        return not_made(name, found)
    mean, interval, note = found
    above = at_least is None or interval.low >= at_least
    passed = above and (at_most is None or interval.high <= at_most)
    bound = f"at most {at_most:g}" if at_most is not None else f"at least {at_least:g}"
    said = f"{quantity.text}: {shown(mean, interval, quantity.unit)} {note}, asked: {bound}"
    return Check(name, "passed" if passed else "failed", said)


def gate_check(name: str, gate: Gate, rows: Sequence[Row]) -> Check:
    """Check that a property arose in enough organisms (balanced accuracy >= 0.95, say)."""
    if not gate.quantity.values(rows):
        return not_made(name, f"no rows of {gate.quantity.text}")
    result = gate.judge(rows)
    return Check(name, "passed" if result.passed else "failed", f"{result.text}: {result.reason}")


def cells_check(
    rows: Sequence[Row], expected: Mapping[str, str] | None = None, *, name: str = "all cells"
) -> Check:
    """Check that every cell was measured; failed, skipped and absent ones are listed.

    ``expected`` maps the key of each planned cell to its name for people.  A single failed or
    skipped row counts too: somebody expected a number there.
    """
    if not rows and not expected:
        return not_made(name, "there are no rows and no plan to compare them with")
    known = expected or {}
    present = {row.cell for row in rows}
    lost = [f"{known[key]}: absent" for key in known if key not in present]
    for row in rows:
        if row.status in ("failed", "skipped"):
            what = "" if row.metric == CELL else f" {row.metric}"
            lost.append(f"{known.get(row.cell, row.cell)}{what}: {row.status}, {row.reason}")
    if lost:
        return Check(name, "failed", "; ".join(dict.fromkeys(lost)))
    count = len(present | set(known))
    plural = "" if count == 1 else "s"
    return Check(name, "passed", f"{count} cell{plural}, none failed or skipped")
