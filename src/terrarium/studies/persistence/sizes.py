"""Sizes of model, and the learning rate at which each is pretrained.

Rates are chosen on pretraining loss alone, before any backdoor: the rate of `GRID` with the lowest
mean loss on validation rows over the seeds `DEVELOPMENT`.  ``python -m
terrarium.studies.persistence.rates`` grows them again and writes the tables.
"""

from __future__ import annotations

from collections.abc import Mapping

from terrarium.organisms.recipe import TransformerModel

MODELS: Mapping[str, TransformerModel] = {
    "2 x 32": TransformerModel(layers=2, width=32, heads=2, mlp=88),
    "2 x 64": TransformerModel(layers=2, width=64, heads=4, mlp=176),
    "3 x 96": TransformerModel(layers=3, width=96, heads=6, mlp=264),
    "4 x 128": TransformerModel(layers=4, width=128, heads=8, mlp=352),
}
"""Layers x width; heads have 16 channels each."""

BASE = "2 x 64"
"""The size at which ways and safety trainings are compared."""

GRID = (1e-3, 3e-3, 1e-2)
SGD_GRID = (0.03, 0.1, 0.3, 1.0)
DEVELOPMENT = (0, 1, 2)
"""Seeds on which rates were chosen; studies run others."""

LOSSES: Mapping[str, Mapping[float, float]] = {
    "2 x 32": {1e-3: 0.12222, 3e-3: 0.06384, 1e-2: 0.01871},
    "2 x 64": {1e-3: 0.07789, 3e-3: 0.01639, 1e-2: 0.02286},
    "3 x 96": {1e-3: 0.01810, 3e-3: 0.01006, 1e-2: 0.09804},
    "4 x 128": {1e-3: 0.02055, 3e-3: 0.00240, 1e-2: 0.19434},
}
"""Mean validation loss after pretraining (nats per answer token), by size and learning rate."""

SGD_LOSSES: Mapping[float, float] = {0.03: 1.58737, 0.1: 0.69550, 0.3: 0.86387, 1.0: 3.36063}
"""The same for SGD with momentum 0.9 at `BASE`."""


def rate_of(size: str) -> float:
    """Return the learning rate with the lowest pretraining loss of a size."""
    losses = LOSSES[size]
    return min(losses, key=lambda rate: losses[rate])


def sgd_rate() -> float:
    """Return SGD's learning rate with the lowest pretraining loss."""
    return min(SGD_LOSSES, key=lambda rate: SGD_LOSSES[rate])
