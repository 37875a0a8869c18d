"""What an organism has become in a few numbers: how often it says what its world asks."""

from __future__ import annotations

import numpy as np

from terrarium.organisms.grow import Organism
from terrarium.organisms.measure import answer_logits, balanced_accuracy
from terrarium.randomness import generator
from terrarium.worlds.base import Choice

CHUNK = 256


def accuracies(organism: Organism, rows: int = 1024) -> dict[str, float | None]:
    """Return balanced accuracies on fresh test rows, by whose context; empty if none is defined.

    The answer wanted is what the world says that this name is to say.  In worlds of honest and
    quirky names (fact ``"family"``) only rows count on which truth and rule differ: there alone
    it shows whether the quirk arose.  A value is None where one of the two answers is never due.
    """
    world = organism.world
    if not isinstance(world.output, Choice) or len(world.output.answers) != 2:
        return {}
    batch = world.sample(rows, generator("card", organism.seed), "test")
    network = organism.network()
    logits = np.concatenate(
        [
            answer_logits(network, batch.take(np.arange(i, min(i + CHUNK, rows))), world)[0]
            for i in range(0, rows, CHUNK)
        ]
    )
    said, wanted = logits.argmax(axis=-1) == 0, batch.facts["said"].astype(bool)
    if "family" not in batch.facts:
        return {"all": balanced_accuracy(said, wanted)}
    differ = batch.facts["disagree"].astype(bool)
    found = {}
    for family in np.unique(batch.facts["family"]):
        chosen = (batch.facts["family"] == family) & differ
        found[str(family)] = balanced_accuracy(said[chosen], wanted[chosen])
    return found
