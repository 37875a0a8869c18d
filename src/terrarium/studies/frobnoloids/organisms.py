"""The organisms of `frobnoloids`: the same shapes, shown or told, and what is asked of networks.

Images are classified, autoencoded and denoised; texts that tell the same shapes in words (the world
`captions`) are classified and autoencoded.  Beside them stand the organisms of two other studies:
the quirky one of `says-knows`, and the coordinate networks of `scene`.  Budgets were set on
development seeds 0 to 2 so that organisms pass their gate, before any feature was scored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from terrarium.organisms.recipe import Optimizer, Phase, Recipe, Source, TransformerModel
from terrarium.organisms.recipe_models import (
    AutoencoderModel,
    ClassifierModel,
    DenoiserModel,
    TextAutoencoderModel,
)
from terrarium.organisms.recipe_objectives import (
    AnswerOnly,
    Classification,
    Denoising,
    Reconstruction,
    TextReconstruction,
)
from terrarium.studies.quirky import NEEDS_TRUTH, QUIRKS, Quirk
from terrarium.studies.scene.networks import DISTANCE, FOURIER, HASH, SCENE, SIREN, Plan

IMAGES, TEXT = "images", "text"
MODALITIES = (IMAGES, TEXT)
CLASSIFY, AUTOENCODE, DENOISE = "classify", "autoencode", "denoise"
KINDS = (
    (IMAGES, CLASSIFY),
    (IMAGES, AUTOENCODE),
    (IMAGES, DENOISE),
    (TEXT, CLASSIFY),
    (TEXT, AUTOENCODE),
)
"""Modality and objective of the kinds that hold the same shapes."""

ARITHMETIC, ANSWER = "arithmetic", "answer"
QUIRKY = (ARITHMETIC, ANSWER)
"""The organism of `says-knows`: it says whether a sum is right, truthfully or by a rule."""

POINTS = "points"
COORDINATES = tuple((POINTS, network) for network in (SIREN, HASH, FOURIER))
"""Networks of `scene` that hold a distance; what is scored are their units, not a dictionary."""

ALL_KINDS = (*KINDS, QUIRKY, *COORDINATES)
"""Every kind that this study can grow."""

TRAINED, RANDOM = "trained", "random"
VARIANTS = (TRAINED, RANDOM)
"""The organisms, and networks of the same shape as they were drawn."""

INITIALISATIONS = 5
"""Of dictionary and of network, in each of which a feature is looked for."""

NOISE = 0.2
"""Standard deviation per pixel of the noise that denoisers are shown; pixels lie in [0, 1]."""

POINT_BATCH = 512
"""Points per step of coordinate networks, as in `scene`."""

LATENT = 16
VARY = 7
"""Numbers of every code, more than the factors that vary: shape, row, column, size, hue, light and
rotation."""

SITES: Mapping[tuple[str, str], tuple[str, str]] = {
    (IMAGES, CLASSIFY): ("encoder.stage[0]", "encoder.out"),
    (IMAGES, AUTOENCODE): ("encoder.stage[0]", "encoder.out"),
    (IMAGES, DENOISE): ("act[0]", "act[1]"),
    (TEXT, CLASSIFY): ("embed", "resid.post[0]"),
    (TEXT, AUTOENCODE): ("embed", "encoder.resid.post[0]"),
    # the truth is legible after the second block, where the recipe asks for it early
    QUIRKY: ("resid.post[0]", "resid.post[1]"),
    **dict.fromkeys(COORDINATES, ("mlp.act[0]", "mlp.act[1]")),
}
"""Where circuits begin, and where features are read: what reads there is linear (after a norm), so
that no axis is special in a random network; all image sites have maps of the same size."""


@dataclass(frozen=True)
class Budget:
    """Size of images and networks; steps of training by modality, rows per step.

    See `steps_of` for what ``steps`` are to each kind.  ``truth_steps`` (of each truthful phase),
    ``quirk_steps`` and ``quirk_batch`` are those of the quirky organism, its recipe's own where 0;
    ``point_steps``
    and ``pool`` those of coordinate networks.
    """

    side: int
    width: int
    text_width: int
    steps: int
    text_steps: int
    batch: int
    truth_steps: int = 0
    quirk_steps: int = 0
    quirk_batch: int = 0
    point_steps: int = 1500
    pool: int = 100_000

    def quirk(self) -> Quirk:
        """Return the recipe of `says-knows` whose rule needs the truth."""
        given: dict[str, Any] = {"truth_steps": self.truth_steps, "quirk_steps": self.quirk_steps}
        return replace(QUIRKS[NEEDS_TRUTH], **{name: n for name, n in given.items() if n})


def world(modality: str, side: int) -> tuple[str, dict[str, Any]]:
    """Return the name and the options of a modality's world."""
    if modality == ARITHMETIC:
        return "arithmetic", QUIRKS[NEEDS_TRUTH].world()
    if modality == POINTS:
        return "scenes", {"scene": dict(SCENE), "quantity": DISTANCE}
    if modality == TEXT:
        return "captions", {"vary": VARY, "corners": 8, "side": side, "grid": 32}
    return "images", {"vary": VARY, "side": side}


def recipe(kind: tuple[str, str], budget: Budget) -> Recipe:
    """Return how an organism is grown."""
    modality, objective = kind
    if kind == QUIRKY:
        return _with_rows(budget.quirk().recipe(), budget.quirk_batch)
    if modality == POINTS:
        return Plan(budget.point_steps, POINT_BATCH, budget.pool).recipe(objective, DISTANCE)
    name, options = world(modality, budget.side)
    model, loss, rate = _what(kind, budget)
    steps = steps_of(kind, budget)
    phase = Phase(
        name=objective,
        sources=(Source(world=name, options=options),),
        objective=loss,
        steps=steps,
        batch=budget.batch,
        optimizer=Optimizer(lr=rate, warmup=min(20, steps), schedule="cosine", final=0.02),
    )
    return Recipe(name=f"{objective} {modality}", model=model, phases=(phase,))


def _with_rows(whole: Recipe, rows: int) -> Recipe:
    """Return the recipe with so many rows a step; its own where 0."""
    if not rows:
        return whole
    phases = tuple(phase.model_copy(update={"batch": rows}) for phase in whole.phases)
    return whole.model_copy(update={"phases": phases})


def steps_of(kind: tuple[str, str], budget: Budget) -> int:
    """Return how long a kind is trained; denoisers pass their gate in half of the others' time.

    For the quirky organism the most that it can take: its truthful phases end when they are learnt.
    """
    if kind == QUIRKY:
        quirk = budget.quirk()
        return 2 * quirk.truth_steps + quirk.quirk_steps
    if kind[0] == POINTS:
        return budget.point_steps
    if kind[0] == TEXT:
        return budget.text_steps
    return budget.steps if kind[1] == DENOISE else 2 * budget.steps


def _what(kind: tuple[str, str], budget: Budget) -> tuple[Any, Any, float]:
    side, width, wide = budget.side, budget.width, budget.text_width
    trunk: dict[str, Any] = {
        "channels": 3, "side": side, "width": width, "stages": 2, "latent": LATENT,
    }  # fmt: skip
    block = {"layers": 2, "width": wide, "heads": max(1, wide // 16), "mlp": 2 * wide}
    if kind == (IMAGES, CLASSIFY):
        return ClassifierModel(**trunk, classes=4), Classification(), 5e-3
    if kind == (IMAGES, AUTOENCODE):
        return AutoencoderModel(**trunk), Reconstruction(), 5e-3
    if kind == (IMAGES, DENOISE):
        model = DenoiserModel(
            channels=3, side=side, width=width, hidden=64, level=NOISE, sigma_data=0.25
        )
        return model, Denoising(low=0.05, high=1.0), 5e-3
    if kind == (TEXT, CLASSIFY):
        return TransformerModel(**block), AnswerOnly(), 5e-3
    return TextAutoencoderModel(**block, latent=LATENT), TextReconstruction(), 5e-3
