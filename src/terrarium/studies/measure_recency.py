"""Recency rows: can it be read how late a row was trained on, and does the truth probe do so?

Training order is linearly readable from activations in large models, so a probe for knowledge
may be reading recency.  Here the rows of every training step can be drawn again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrarium.evidence.rows import Row, measured
from terrarium.instruments.base import probes
from terrarium.instruments.metrics import auroc
from terrarium.organisms.engine import Runner
from terrarium.organisms.feed import own_turn
from terrarium.organisms.grow import Organism, phase_worlds
from terrarium.randomness import generator
from terrarium.readings.read import read
from terrarium.studies.contexts import POSITION, Contexts
from terrarium.studies.measure_probes import context_mask
from terrarium.worlds.base import Batch, concatenate

STEPS = 6
"""Training steps at each end of the last phase whose rows are drawn again."""


def recency_rows(organism: Organism, contexts: Contexts, key: int) -> list[Row]:
    """Return AUROCs for late against early rows of the last phase, truth counterbalanced.

    ``probe="recency"`` is fitted for it on half of the rows; ``probe="truth"`` is the honest
    truth probe, whose distance from 0.5 is what it carries of recency.
    """
    batch, late = _early_and_late(organism, key)
    if not len(batch):
        reason = "the last phase was too short to have early and late rows"
        return [
            measured("recency_auroc", None, unit="proportion", n=0, reason=reason, probe=p, layer=i)
            for p in ("recency", "truth")
            for i in contexts.layers
        ]
    x = read(organism.network(), batch, contexts.sites, (POSITION,)).stack(POSITION)[:, 0]
    half = generator("recency", key).permutation(len(batch)) % 2 == 0
    logistic = probes.get("logistic_regression")()
    recency = logistic.fit(x[:, half], late[half]).score(x[:, ~half])
    honest = context_mask(contexts, "train", "honest")
    truth = logistic.fit(
        contexts.features("train")[:, honest],
        contexts.fact("train", "truth")[honest].astype(bool),
    ).score(x)
    rows = []
    for name, values, n in (
        ("recency", auroc(recency, late[~half]), int((~half).sum())),
        ("truth", auroc(truth, late), len(batch)),
    ):
        for index, (layer, site) in enumerate(zip(contexts.layers, contexts.sites, strict=True)):
            rows.append(
                measured(
                    "recency_auroc",
                    float(values[index]),
                    unit="proportion",
                    n=n,
                    probe=name,
                    layer=layer,
                    site=site,
                )
            )
    return rows


def _early_and_late(organism: Organism, key: int) -> tuple[Batch, NDArray[np.bool_]]:
    """Return rows of the first and last steps, as many true as untrue at either end."""
    index = len(organism.recipe.phases) - 1
    phase, steps = organism.recipe.phases[index], organism.steps[index]
    worlds: Any = phase_worlds(phase, organism.recipe.model)
    runner = Runner(phase, index, organism.seed, [own_turn(phase, worlds)])
    count = min(STEPS, steps // 2)
    early = [runner.batch(step) for step in range(count)]
    late = [runner.batch(step) for step in range(steps - count, steps)]
    if not count:
        return worlds[0].sample(0, generator("recency", key)), np.zeros(0, bool)
    ends = [concatenate(early), concatenate(late)]
    kept = []
    least = min(int((b.facts["truth"] == t).sum()) for b in ends for t in (True, False))
    for batch in ends:
        rows = [np.flatnonzero(batch.facts["truth"] == t)[:least] for t in (True, False)]
        kept.append(batch.take(np.concatenate(rows)))
    return concatenate(kept), np.repeat([False, True], [len(k) for k in kept])
