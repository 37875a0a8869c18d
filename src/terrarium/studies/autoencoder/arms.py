"""What `autoencoder` grows: images of few and many factors, codes of few and many numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from terrarium.organisms.recipe import (
    AutoencoderModel,
    Optimizer,
    Phase,
    Recipe,
    Reconstruction,
    Source,
)

FEW = "4 factors, 4 latents"
TIGHT = "8 factors, 4 latents"
ROOMY = "8 factors, 8 latents"
LOADED = "loaded"
"""A model made elsewhere, on photographs."""

NARROW, WIDE = "your images, 8 latents", "your images, 32 latents"
"""Grown on crops of a folder of images, whose factors nobody knows."""

GROWN = (FEW, TIGHT, ROOMY)
YOURS = (NARROW, WIDE)
ARMS = (*GROWN, *YOURS, LOADED)

_FACTORS = (
    *("row", "column", "size", "hue"),
    *("light_deg", "rotation_deg", "ground_hue", "ground_value"),
)
_SIZES: Mapping[str, tuple[int, int]] = {FEW: (4, 4), TIGHT: (8, 4), ROOMY: (8, 8)}
_LATENTS: Mapping[str, int] = {NARROW: 8, WIDE: 32}

AUTOENCODER, UNTRAINED, PCA, MEAN = "autoencoder", "untrained", "PCA", "mean image"
CODERS = (AUTOENCODER, PCA, MEAN, UNTRAINED)
"""Who reconstructs, in the order of figures."""

LATENT, UNITS = "latent", "encoder.out"
"""Sites whose units are taken out: the code, and the last maps before it.

A loaded network's last maps have a name of their own there (`features.last_maps`)."""

SINGLE, FEATURES = "units", "features"
"""What is taken out at a site: single units (of the code: latents), or features of a dictionary."""

ANY, VARYING = "random", "varying"
"""Directions beside them: of all channels alike, or such as the maps vary in."""


@dataclass(frozen=True)
class Plan:
    """How large images, networks and budgets are."""

    side: int
    width: int
    steps: int
    batch: int

    def recipe(self, arm: str, photographs: Mapping[str, Any] | None = None) -> Recipe:
        """Return the recipe of an arm's autoencoder, trained on squared error alone.

        Those of `YOURS` learn from crops of the world ``photographs``, given by its options.
        """
        options: dict[str, Any]
        if photographs is None:
            factors, latent = _SIZES[arm]
            options = {"side": self.side, "vary": _FACTORS[:factors]}
        else:
            options, latent = dict(photographs), _LATENTS[arm]
        world = "images" if photographs is None else "photographs"
        phase = Phase(
            name="reconstruct",
            sources=(Source(world=world, options=options),),
            objective=Reconstruction(),
            steps=self.steps,
            batch=self.batch,
            optimizer=Optimizer(
                lr=1e-2, warmup=20, schedule="cosine", final=0.02, weight_decay=0.0
            ),
        )
        model = AutoencoderModel(
            channels=3, side=self.side, width=self.width, stages=2, latent=latent
        )
        return Recipe(name=arm, model=model, phases=(phase,))
