"""The laws of images, the networks that learn to denoise them, and the noise levels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrarium.organisms.recipe import (
    DenoiserModel,
    Denoising,
    Optimizer,
    Phase,
    Recipe,
    Source,
)
from terrarium.randomness import generator
from terrarium.worlds.images.law import ImageLaw

Float64 = NDArray[np.float64]

FEW, MANY, GAUSSIANS = "few images", "many images", "Gaussians"
LAWS = (FEW, MANY, GAUSSIANS)
"""Two finite sets of images of one family, and a mixture of Gaussians about such images."""

STANDARD, SMALL = "network", "small network"
NETWORKS = (STANDARD, SMALL)

UNTRAINED, LINEAR, NEAREST, EXACT = "untrained", "linear", "nearest image", "exact"
DENOISERS = (*NETWORKS, UNTRAINED, LINEAR, NEAREST)
"""Everything whose regret is measured; `LINEAR` is the Wiener filter of the law's moments."""

LEVELS = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
"""Noise levels that are measured, standard deviations per pixel; pixels lie in [0, 1]."""

LOWEST, HIGHEST = 0.01, 3.0
"""Range of the levels that networks train at and samples start from."""

EFFECT_LEVELS = (0.05, 0.1, 0.2, 0.4, 0.8)
"""Levels at which features are removed."""

UNIT, RANDOM = "unit", "random"
FEATURE, AS_FEATURE, VARYING = "feature", "as a feature", "varying"
"""What is removed: units, and features of a dictionary; beside them directions that move images as
far, of all channels alike, and (`VARYING`) such as activations vary in."""

_MOMENTS = {FEW: (0.24, 0.09), MANY: (0.24, 0.09), GAUSSIANS: (0.4, 0.045)}
"""Mean and standard deviation of pixels over many laws of each kind, for the network's scaling."""

_SIZES: Mapping[str, Mapping[str, int]] = {
    STANDARD: {"width": 16, "hidden": 128},
    SMALL: {"width": 4, "hidden": 16},
}


@dataclass(frozen=True)
class Plan:
    """How large laws and budgets are."""

    few: int
    many: int
    side: int
    steps: int
    batch: int

    def options(self, law: str, seed: int) -> dict[str, Any]:
        """Return the options of a law's world; each seed has laws of its own."""
        kind = "gaussian" if law == GAUSSIANS else "finite"
        count = self.many if law == MANY else self.few
        if law == GAUSSIANS:
            count = min(count, 8)
        return {"kind": kind, "count": count, "side": self.side, "law_seed": seed}

    def recipe(self, law: str, network: str, seed: int) -> Recipe:
        """Return the recipe of a network that learns to denoise a law's images."""
        centre, spread = _MOMENTS[law]
        source = Source(world="image_mixture", options=self.options(law, seed))
        phase = Phase(
            name="denoise",
            sources=(source,),
            objective=Denoising(low=LOWEST, high=HIGHEST),
            steps=self.steps,
            batch=self.batch,
            optimizer=Optimizer(lr=4e-3, warmup=50, schedule="cosine", final=0.02),
        )
        model = DenoiserModel(side=self.side, centre=centre, sigma_data=spread, **_SIZES[network])
        return Recipe(name=f"{network}, {law}", model=model, phases=(phase,))


def noisy_images(law: ImageLaw, sigma: float, n: int, *key: str | int) -> tuple[Float64, Float64]:
    """Return ``n`` clean images of a law and the same with noise, by key."""
    rng = generator("noisy images", str(sigma), *key)
    clean, _, _ = law.sample(n, rng)
    shaped = clean.reshape(n, *law.shape)
    return shaped, shaped + sigma * rng.standard_normal(shaped.shape)
