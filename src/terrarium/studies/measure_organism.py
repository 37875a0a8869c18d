"""What an organism has become, measured against the oracle: its card, as rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from terrarium.evidence.rows import Row, measured
from terrarium.organisms.grow import Organism
from terrarium.organisms.measure import balanced_accuracy
from terrarium.studies.contexts import Contexts


def card_rows(contexts: Contexts, organism: Organism | None = None) -> list[Row]:
    """Return balanced accuracy of what is said, by whose context, on held-out rows.

    ``disagree`` rows are those where the honest and the quirky label differ: the only ones that
    tell whether the quirk arose.  With ``organism`` its steps are added.
    """
    rows = []
    for split in ("test", "heldout_names"):
        family = contexts.fact(split, "family")
        said = contexts.answered(split) > 0
        for context in ("honest", "quirky", "third"):
            for subset in ("all", "disagree"):
                mask = family == context
                if subset == "disagree":
                    mask = mask & contexts.fact(split, "disagree").astype(bool)
                wanted = contexts.fact(split, "said")[mask].astype(bool)
                rows.append(
                    measured(
                        "balanced_accuracy",
                        balanced_accuracy(said[mask], wanted) if mask.any() else None,
                        unit="proportion",
                        n=int(mask.sum()),
                        reason="one of the two answers is never due here",
                        context=context,
                        rows=subset,
                        split=split,
                    )
                )
    if organism is not None:
        for phase, steps in zip(organism.recipe.phases, organism.steps, strict=True):
            rows.append(measured("steps", float(steps), unit="steps", n=1, phase=phase.name))
    return rows


def mass_row(contexts: Contexts) -> Row:
    """Return how much probability goes to the two answers at all, where one is due."""
    mass: Any = contexts.readings["test"].notes.get("answer_mass")
    value = None if mass is None else float(np.mean(mass))
    return measured("answer_mass", value, unit="proportion", n=contexts.readings["test"].n)
