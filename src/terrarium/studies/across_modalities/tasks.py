"""The four tasks of `across-modalities`: text or images, to classify or to autoencode.

Both modalities hold the same shapes under the same law (`terrarium.worlds.images.captions`), so
that modality is all that differs.  Budgets were set on development seeds 0 to 2 so that organisms
of `BASE` arise (the gate), before any instrument was run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from terrarium.organisms.recipe import Optimizer, Phase, Recipe, Source, TransformerModel
from terrarium.organisms.recipe_models import (
    AutoencoderModel,
    ClassifierModel,
    TextAutoencoderModel,
)
from terrarium.organisms.recipe_objectives import (
    AnswerOnly,
    Classification,
    Reconstruction,
    TextReconstruction,
)

TEXT, IMAGES = "text", "images"
MODALITIES = (TEXT, IMAGES)
CLASSIFY, AUTOENCODE = "classify", "autoencode"
OBJECTIVES = (CLASSIFY, AUTOENCODE)

WIDTHS: Mapping[str, tuple[int, int]] = {"XS": (16, 2), "S": (32, 4), "M": (64, 8), "L": (96, 16)}
"""Size of organism to the width of the text network and of the image network."""

BASE = "S"
"""The size at which instruments are compared."""

LATENT = 16
"""Numbers of every code; more than the factors that vary."""

VARY = 7
"""Shape, row, column, size, hue, light and rotation."""

SIDE = 24


@dataclass(frozen=True)
class Budget:
    """Steps of training, of which images get the share ``images``; rows per step."""

    steps: int
    batch: int
    images: float = 0.5


def world(modality: str) -> tuple[str, dict[str, Any]]:
    """Return the name and the options of a modality's world."""
    if modality == TEXT:
        return "captions", {"vary": VARY, "corners": 8, "side": SIDE, "grid": 32}
    return "images", {"vary": VARY, "side": SIDE}


def recipe(modality: str, objective: str, size: str, budget: Budget) -> Recipe:
    """Return how an organism is grown."""
    name, options = world(modality)
    models = {
        (TEXT, CLASSIFY): _transformer,
        (TEXT, AUTOENCODE): _text_autoencoder,
        (IMAGES, CLASSIFY): _classifier,
        (IMAGES, AUTOENCODE): _autoencoder,
    }
    losses = {
        (TEXT, CLASSIFY): AnswerOnly(),
        (TEXT, AUTOENCODE): TextReconstruction(),
        (IMAGES, CLASSIFY): Classification(),
        (IMAGES, AUTOENCODE): Reconstruction(),
    }
    steps = budget.steps if modality == TEXT else max(1, round(budget.steps * budget.images))
    return Recipe(
        name=f"{objective} {modality}, {size}",
        model=models[modality, objective](WIDTHS[size][MODALITIES.index(modality)]),
        phases=(
            Phase(
                name=objective,
                sources=(Source(world=name, options=options),),
                objective=losses[modality, objective],
                steps=steps,
                batch=budget.batch,
                optimizer=Optimizer(
                    lr=3e-3 if modality == TEXT else 5e-3,
                    warmup=min(50, steps),
                    schedule="cosine",
                    final=0.02,
                ),
            ),
        ),
    )


def _transformer(width: int) -> TransformerModel:
    return TransformerModel(layers=2, width=width, heads=max(1, width // 16), mlp=2 * width)


def _text_autoencoder(width: int) -> TextAutoencoderModel:
    heads = max(1, width // 16)
    return TextAutoencoderModel(layers=1, width=width, heads=heads, mlp=2 * width, latent=LATENT)


def _classifier(width: int) -> ClassifierModel:
    return ClassifierModel(channels=3, side=SIDE, width=width, stages=2, latent=LATENT, classes=4)


def _autoencoder(width: int) -> AutoencoderModel:
    return AutoencoderModel(channels=3, side=SIDE, width=width, stages=2, latent=LATENT)
