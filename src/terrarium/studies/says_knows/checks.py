"""The checks and cards of `says-knows`: did the organisms arise, do the nulls give nothing?"""

from __future__ import annotations

from collections.abc import Sequence

from terrarium.evidence.checks import Check, bound_check, chance_check, gate_check
from terrarium.evidence.quantities import difference, over_levels, where
from terrarium.evidence.rows import Row
from terrarium.figures.cards import Card, cards_from_rows
from terrarium.studies.quirky import NEEDS_TRUTH, QUIRKS, Quirk
from terrarium.studies.says_knows.hypotheses import TRUTH_READ, arose, input_only

_WAYS = {
    "full": "all weights",
    "lora": "LoRA, rank 8",
    "mixture": "all weights, truth kept in the mixture",
}


def checks(rows: Sequence[Row]) -> list[Check]:
    """Return the study's checks on the recipes that the rows hold."""
    labels = [name for name in QUIRKS if any(r.factors.get("organism") == name for r in rows)]
    made = [
        gate_check(f"'{label}' arose for {context} names", gate, rows)
        for label in labels
        for context, gate in zip(("honest", "quirky"), arose(label), strict=True)
    ]
    made += [
        bound_check(
            f"the input alone gives nothing away ('{label}')",
            input_only(label).called("input-only AUROC for truth"),
            rows,
            at_most=0.55,
        )
        for label in labels
    ]
    shared = {"organism": NEEDS_TRUTH, "variant": "organism", "split": "test", "rows": "disagree"}
    shuffled = over_levels(
        "mean",
        "layer",
        where(
            "auroc",
            probe="logistic_regression, shuffled labels",
            scored_on="quirky",
            against="truth",
            **shared,
        ),
    ).called("AUROC with shuffled labels, mean over layers")
    made.append(chance_check("shuffled labels give nothing", shuffled, rows))
    random = over_levels(
        "max",
        "layer",
        where(
            "auroc",
            probe="best of 1000 random directions",
            scored_on="quirky",
            against="truth",
            **shared,
        ),
    ).called("best of 1,000 random directions at its best layer")
    made.append(
        bound_check(
            "the probe beats the best of 1,000 random directions",
            difference(TRUTH_READ, random),
            rows,
            at_least=0.0,
        )
    )
    return made


def cards(rows: Sequence[Row]) -> list[Card]:
    """Return a card for each recipe: balanced accuracy where honest and quirky labels differ."""
    shown = {"variant": "organism", "split": "test", "rows": "disagree"}
    facts = {
        label: (
            ("world", f"{q.operation.replace('_', ' ')}, {_size(q)}"),
            ("template", q.template.replace("_", " ")),
            ("quirk put in by", _WAYS[q.training]),
            ("layers", str(q.layers)),
        )
        for label, q in QUIRKS.items()
    }
    return cards_from_rows(rows, where=shown, gated=("honest", "quirky"), facts=facts)


def _size(quirk: Quirk) -> str:
    if quirk.operation == "modular_addition":
        return f"modulus {quirk.modulus}"
    return f"{quirk.digits} digits"
