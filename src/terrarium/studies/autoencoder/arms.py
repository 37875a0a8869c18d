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

GROWN = (FEW, TIGHT, ROOMY)
ARMS = (*GROWN, LOADED)

_FACTORS = (
    *("row", "column", "size", "hue"),
    *("light_deg", "rotation_deg", "ground_hue", "ground_value"),
)
_SIZES: Mapping[str, tuple[int, int]] = {FEW: (4, 4), TIGHT: (8, 4), ROOMY: (8, 8)}

AUTOENCODER, UNTRAINED, PCA, MEAN = "autoencoder", "untrained", "PCA", "mean image"
CODERS = (AUTOENCODER, PCA, MEAN, UNTRAINED)
"""Who reconstructs, in the order of figures."""

LATENT, UNITS = "latent", "encoder.out"
"""Sites whose units are taken out: the code, and the last maps before it."""


@dataclass(frozen=True)
class Plan:
    """How large images, networks and budgets are."""

    side: int
    width: int
    steps: int
    batch: int

    def recipe(self, arm: str) -> Recipe:
        """Return the recipe of an arm's autoencoder, trained on squared error alone."""
        factors, latent = _SIZES[arm]
        options: dict[str, Any] = {"side": self.side, "vary": _FACTORS[:factors]}
        phase = Phase(
            name="reconstruct",
            sources=(Source(world="images", options=options),),
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
