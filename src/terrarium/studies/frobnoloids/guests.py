"""How well the organisms of other studies do what they were grown for."""

from __future__ import annotations

from typing import Any

import numpy as np

from terrarium.evidence.rows import Row, measured
from terrarium.organisms.measure import answer_logits, balanced_accuracy
from terrarium.randomness import generator
from terrarium.studies.across_modalities.performance import SHARE, outputs
from terrarium.studies.frobnoloids.organisms import QUIRKY

ROWS = 512


def guest_rows(kind: tuple[str, str], organism: Any) -> list[Row]:
    """Return the loss, the blind loss and the share of it removed, on the split ``"test"``.

    The blind output is the best that is the same for all, fitted on ``"train"``.  Nats of what is
    to be said for the quirky organism, with the balanced accuracy of each kind of name beside it;
    absolute error of the distance for coordinate networks.
    """
    world, seed = organism.world, organism.seed
    train, test = (
        world.sample(ROWS, generator("frobnoloids", "performance", split, seed), split)
        for split in ("train", "test")
    )
    network = organism.network().eval()
    told = _says(network, world, test) if kind == QUIRKY else []
    if kind == QUIRKY:
        loss, unit = _answer_nats(network, world, test), "nats"
        share = np.clip(np.mean(train.facts["said"]), 1 / ROWS, 1 - 1 / ROWS)
        blind = -np.log(np.where(test.facts["said"], share, 1 - share))
    else:
        unit = "half sides of the box"
        loss = np.abs(outputs(network, test.inputs)[:, 0] - test.targets[:, 0])
        blind = np.abs(np.median(train.targets) - test.targets[:, 0])
    own, other = float(np.mean(loss)), float(np.mean(blind))
    return [
        measured("loss", own, unit=unit, n=ROWS),
        measured("blind_loss", other, unit=unit, n=ROWS),
        measured(SHARE, 1 - own / other, unit="proportion", n=ROWS),
        *told,
    ]


def _answer_nats(network: Any, world: Any, batch: Any) -> Any:
    logits = answer_logits(network, batch, world)[0].astype(np.float64)
    top = logits.max(-1, keepdims=True)
    logs = logits - top - np.log(np.exp(logits - top).sum(-1, keepdims=True))
    return -np.where(batch.facts["said"], logs[:, 0], logs[:, 1])


def _says(network: Any, world: Any, batch: Any) -> list[Row]:
    """Return the balanced accuracy of what is said, by the name's family."""
    said = answer_logits(network, batch, world).argmax(-1)[0] == 0
    rows = []
    for family in np.unique(batch.facts["family"]):
        mine = batch.facts["family"] == family
        value = balanced_accuracy(said[mine], batch.facts["said"][mine].astype(bool))
        rows.append(
            measured(
                "balanced_accuracy", value, unit="proportion", n=int(mine.sum()), family=str(family)
            )
        )
    return rows
