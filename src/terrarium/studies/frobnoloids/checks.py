"""The checks and cards of `frobnoloids`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from terrarium.evidence.checks import Check, bound_check, gate_check
from terrarium.evidence.quantities import per_seed
from terrarium.evidence.rows import Row
from terrarium.figures.cards import Card, cards_from_rows
from terrarium.studies.frobnoloids.hypotheses import (
    LEARNT,
    LEVEL,
    fraction,
    important_in_random,
    kinds_of,
    learnt,
)
from terrarium.studies.frobnoloids.organisms import RANDOM

ONE_KIND = 2 * LEVEL
"""Bound on the share of a kind's random features that matter at p of at most 0.05.

Where all of them are null, five seeds of 30 features give 5 % with an interval of about 5 % on
either side, so that its upper end is above `LEVEL` every second time; that bound is asked of all
kinds together, whose interval is about a third as wide.
"""


def checks(rows: Sequence[Row]) -> list[Check]:
    """Return the gates as checks, the planted controls of each kind, and the null of importance."""
    kinds = kinds_of(rows)
    made = [
        gate_check(
            f"the organism learnt to {objective} {modality}", learnt(modality, objective), rows
        )
        for modality, objective in kinds
    ]
    for modality, objective in kinds:
        task = f"{objective} {modality}"
        levels = {"modality": modality, "objective": objective}
        made.append(
            bound_check(
                f"planted unnamed features rank first: {task}",
                per_seed("plant_auroc", **levels).called("AUROC of unnamed plants that matter"),
                rows,
                at_least=0.9,
            )
        )
        made += [
            bound_check(
                f"planted {plant} features are not called frobnoloids: {task}",
                per_seed("plants_called", plant=plant, **levels).called(
                    f"share of {plant} plants called frobnoloids"
                ),
                rows,
                at_most=LEVEL,
            )
            for plant in ("named", "noise")
        ]
        made.append(
            bound_check(
                f"features of random networks matter no more than random directions: {task}",
                fraction(modality, objective, RANDOM, "important by p alone"),
                rows,
                at_most=ONE_KIND,
            )
        )
    made.append(
        bound_check(
            "features of random networks matter no more than random directions: all kinds",
            important_in_random(),
            rows,
            at_most=LEVEL,
        )
    )
    return made


def cards(rows: Sequence[Row]) -> list[Card]:
    """Return a card for each kind of organism: its share of the oracle's performance."""
    told = [
        replace(row, metric="card").with_factors(
            organism=f"{row.factors['objective']} {row.factors['modality']}", context="unseen"
        )
        for row in rows
        if row.metric == "share_of_oracle"
    ]
    what = "Share of the loss of the best blind output (of the noise, for denoisers) removed"
    gates = {f"{objective} {modality}": gate for (modality, objective), gate in LEARNT.items()}
    found = cards_from_rows(told, metric="card", gated=("unseen",))
    return [replace(card, what=what, gate=gates[card.name]) for card in found]
