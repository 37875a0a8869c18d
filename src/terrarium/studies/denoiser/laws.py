"""The laws of images, the networks that learn to denoise them, and the noise levels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from terrarium.organisms.recipe import (
    DenoiserModel,
    Denoising,
    Optimizer,
    Phase,
    Recipe,
    Source,
)

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
