"""What `scene` grows: four kinds of coordinate networks of about equal size, and their scene."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from terrarium.organisms.recipe import (
    CoordinateModel,
    Optimizer,
    Phase,
    Recipe,
    Reconstruction,
    Source,
)

RELU, FOURIER, SIREN, HASH = "ReLU", "Fourier features", "SIREN", "hash grid"
LOADED = "loaded"
"""A network made elsewhere."""

GROWN = (RELU, FOURIER, SIREN, HASH)
NETWORKS = (*GROWN, LOADED)

DISTANCE, COLOUR = "distance", "colour"
QUANTITIES = (DISTANCE, COLOUR)

GATE = 0.5
"""Mean absolute error, % of the diagonal, that a fit of a distance may have at most."""


def _moved(shape: Mapping[str, Any], place: list[float], turn: list[float]) -> dict[str, Any]:
    return {"kind": "moved", "shape": dict(shape), "translation": place, "rotation_deg": turn}


THREE_PARTS = "ball, box and torus"
SCENE: Mapping[str, Any] = {
    "kind": "analytic",
    "shape": {
        "kind": "smooth_union",
        "smoothing": 0.15,
        "shapes": [
            _moved(
                {
                    "kind": "sphere",
                    "radius": 0.42,
                    "colour": {"kind": "stripes", "axis": "z", "period": 0.6, "sharp": False},
                },
                [-0.75, 0.0, 0.1],
                [0.0, 0.0, 0.0],
            ),
            _moved(
                {
                    "kind": "rounded_box",
                    "half": [0.35, 0.3, 0.25],
                    "radius": 0.08,
                    "colour": {"kind": "constant", "rgb": [0.2, 0.6, 0.3]},
                },
                [0.0, 0.0, -0.1],
                [0.0, 0.0, 0.0],
            ),
            _moved(
                {"kind": "torus", "major": 0.42, "minor": 0.15, "colour": {"kind": "gradient"}},
                [0.75, 0.0, 0.1],
                [60.0, 0.0, 0.0],
            ),
        ],
    },
}
"""The scene by default: three parts that run into one another."""
PARTS = ("ball", "box", "torus")

# About 8,600 parameters each: three hidden layers, as wide as what the encoding leaves.
_MODELS: Mapping[str, dict[str, Any]] = {
    RELU: {"encoding": "none", "width": 64},
    FOURIER: {"encoding": "fourier", "frequencies": 48, "scale": 0.35, "width": 44},
    SIREN: {"encoding": "none", "activation": "sine", "omega_first": 10.0, "width": 64},
    HASH: {
        "encoding": "hash",
        "width": 40,
        "grid": {"levels": 4, "features": 2, "table": 1024, "coarsest": 4, "finest": 16},
    },
}
_RATES: Mapping[str, float] = {RELU: 1e-2, FOURIER: 1e-2, SIREN: 1e-3, HASH: 1e-2}
HIDDEN = 3


@dataclass(frozen=True)
class Plan:
    """How long networks train, on how many points."""

    steps: int
    batch: int
    rows: int
    scene: Mapping[str, Any] = field(default_factory=lambda: SCENE)

    def recipe(self, network: str, quantity: str) -> Recipe:
        """Return the recipe of one fit, trained on squared error to the exact answer."""
        scenes = {"scene": dict(self.scene), "quantity": quantity}
        options = {"world": "scenes", "options": scenes, "rows": self.rows}
        phase = Phase(
            name="fit",
            sources=(Source(world="finite", options=options),),
            objective=Reconstruction(),
            steps=self.steps,
            batch=self.batch,
            optimizer=Optimizer(
                lr=_RATES[network],
                betas=(0.9, 0.99),
                weight_decay=0.0,
                clip=None,
                warmup=10,
                schedule="cosine",
                final=0.02,
            ),
        )
        told = {
            **_MODELS[network],
            "inputs": 3,
            "outputs": 1 if quantity == DISTANCE else 3,
            "layers": HIDDEN,
        }
        model = CoordinateModel.model_validate(told)
        return Recipe(name=f"{network}, {quantity}", model=model, phases=(phase,))
