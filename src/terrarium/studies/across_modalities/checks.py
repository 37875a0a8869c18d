"""The checks and cards of `across-modalities`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from terrarium.evidence.checks import Check, bound_check, chance_check, gate_check
from terrarium.evidence.predictions import Gate
from terrarium.evidence.rows import Row
from terrarium.figures.cards import Card, cards_from_rows
from terrarium.studies.across_modalities.hypotheses import ARISEN, arose, mean_area, share
from terrarium.studies.across_modalities.instruments import INPUT, READ, SHUFFLED
from terrarium.studies.across_modalities.performance import SHARE
from terrarium.studies.across_modalities.tasks import BASE, MODALITIES, OBJECTIVES


def checks(rows: Sequence[Row]) -> list[Check]:
    """Return the gates as checks, the nulls, the positive control and the input-only baseline."""
    made = []
    for objective in OBJECTIVES:
        for modality, gate in zip(MODALITIES, arose(objective), strict=True):
            made.append(gate_check(f"the organism learnt to {objective} {modality}", gate, rows))
    for objective in OBJECTIVES:
        for modality in MODALITIES:
            task = f"{objective} {modality}"
            made.append(
                chance_check(
                    f"shuffled labels tell nothing: {task}",
                    mean_area(modality, objective, SHUFFLED),
                    rows,
                )
            )
            # a loss has no upper end, so seeds are counted: a mean's interval would say nothing
            untrained = share(modality, objective, BASE, "untrained")
            made.append(
                gate_check(
                    f"untrained networks are far from the oracle: {task}",
                    Gate(untrained, at_most=0.1, share=1.0),
                    rows,
                )
            )
            made.append(
                bound_check(
                    f"the facts are there for a supervised probe: {task}",
                    mean_area(modality, objective, READ),
                    rows,
                    at_least=0.7,
                )
            )
            made.append(
                bound_check(
                    f"the input alone tells the facts to a linear model: {task}",
                    mean_area(modality, objective, INPUT),
                    rows,
                    at_least=0.7,
                )
            )
    return made


def cards(rows: Sequence[Row]) -> list[Card]:
    """Return a card for each task: the share of the oracle by size."""
    told = [
        replace(row, metric="card").with_factors(
            organism=f"{row.factors['objective']} {row.factors['modality']}",
            context=f"size {row.factors['size']}",
        )
        for row in rows
        if row.metric == SHARE and row.factors.get("variant") == "trained"
    ]
    found = cards_from_rows(told, metric="card", gate=ARISEN, gated=(f"size {BASE}",))
    what = "Share of the loss of the best blind output that is removed (the oracle: 1)"
    return [replace(card, what=what) for card in found]
