"""`frobnoloids`: which features are regular, matter to the output, and have no name?

Question 17 of the mission.  Features of a dictionary are scored by structure, importance and
nameability in organisms that classify, autoencode and denoise the same images, and in organisms
that classify and autoencode texts which tell the same shapes; plants set the bars and test them,
random networks say how often the answer is wrong, and circuits say what computes the strongest.
By the same code stand beside them the organism of `says-knows`, whose world labels every word, and
coordinate networks of `scene`, whose scene and frequencies are known at every point.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from terrarium.errors import InputError, did_you_mean
from terrarium.evidence.rows import Row
from terrarium.keys import code_closure, code_package
from terrarium.progress import Progress
from terrarium.studies.base import Cell, Size, Study
from terrarium.studies.frobnoloids.checks import cards, checks
from terrarium.studies.frobnoloids.figures import figures
from terrarium.studies.frobnoloids.hypotheses import HYPOTHESES, LEVEL
from terrarium.studies.frobnoloids.organisms import (
    COORDINATES,
    INITIALISATIONS,
    KINDS,
    POINT_BATCH,
    POINTS,
    QUIRKY,
    Budget,
    recipe,
    steps_of,
)
from terrarium.studies.settings import check_active, check_least

QUESTION = (
    "Which features are regular, matter to the output, and have no name? Are there more in images "
    "than in text, and more where images are made than where they are classified?"
)

FRESH_SEED = 30
"""Seeds below were in view: 0 to 2 while budgets were set, 10 to 14 and 20 to 24 in runs whose
faults were mended; see decision 012."""

GUESTS: Mapping[str, tuple[str, str]] = {
    QUIRKY[0]: QUIRKY,
    **{kind[1]: kind for kind in COORDINATES},
}
"""Organisms of other studies, as the setting ``guests`` names them."""

QUICK_GUESTS = tuple(GUESTS)[:2]
"""The organism of `says-knows` and SIRENs; quick has no time for more."""


def _defaults(size: Size) -> dict[str, Any]:
    shared: dict[str, Any] = {
        "first_seed": FRESH_SEED,
        "seeds": 5,
        "side": 16,
        "width": 8,
        "text_width": 32,
        "steps": 600,
        "text_steps": 900,
        "batch": 64,
        "features": 32,
        "active": 4,
        "shown": 40_000,
        "fitted": 400,
        "examples": 120,
        "effect_examples": 48,
        "points": 1500,
        "draws": 12,
        "hidden": 48,
        "plants": 24,
        "guests": list(QUICK_GUESTS),
        "truth_steps": 0,
        "quirk_steps": 0,
        "quirk_batch": 0,
        "point_steps": 600,
        "pool": 30_000,
        "blocks": 5,
        "block_points": 12,
    }
    sizes: dict[str, dict[str, Any]] = {
        "smoke": {
            "seeds": 1,
            "first_seed": 0,
            "width": 4,
            "text_width": 16,
            "steps": 5,
            "text_steps": 5,
            "batch": 8,
            "features": 8,
            "active": 2,
            "shown": 4000,
            "fitted": 60,
            "examples": 40,
            "effect_examples": 8,
            "points": 500,
            "draws": 4,
            "hidden": 16,
            "plants": 6,
            "truth_steps": 3,
            "quirk_steps": 3,
            "quirk_batch": 16,
            "point_steps": 20,
            "pool": 1000,
            "blocks": 4,
            "block_points": 6,
        },
        "quick": {},
        "full": {
            "steps": 1500,
            "text_steps": 2500,
            "features": 64,
            "shown": 150_000,
            "fitted": 1000,
            "examples": 240,
            "effect_examples": 64,
            "points": 3000,
            "plants": 48,
            "guests": list(GUESTS),
            "point_steps": 1500,
            "pool": 100_000,
            "block_points": 24,
        },
    }
    return shared | sizes[size]


def cells(settings: Mapping[str, Any]) -> list[Cell]:
    """Return for each kind of organism a cell that grows them all, and one by seed that scores.

    Features are looked for in other initialisations of the network: where fewer seeds are asked
    for than that takes, more are grown.  Raises ``InputError`` for impossible settings.
    """
    kinds = _checked(settings)
    budget = Budget(**{field.name: settings[field.name] for field in fields(Budget)})
    first, count = settings["first_seed"], settings["seeds"]
    grown = list(range(first, first + max(count, INITIALISATIONS)))
    made: list[Cell] = []
    for kind in kinds:
        shared: dict[str, Any] = {
            "modality": kind[0],
            "objective": kind[1],
            "recipe": recipe(kind, budget).model_dump(mode="json"),
        }
        name = f"{kind[1]} {kind[0]}"
        steps = steps_of(kind, budget)
        scored = grown[:count]
        spec = {"stage": "grow", "seeds": grown, "scored": scored, **shared}
        each = _STEP_S.get(kind[0], settings["batch"] * 2e-4)
        made.append(Cell(f"grow: {name}", spec, 2 + len(grown) * steps * each))
        for seed in scored:
            # five initialisations: its own and the four that follow, round the seeds that are grown
            at = grown.index(seed)
            others = [grown[(at + i) % len(grown)] for i in range(INITIALISATIONS)]
            spec = {"stage": "score", "seed": seed, "seeds": others, **shared, **_scoring(settings)}
            spec["pictures"] = seed == first
            made.append(Cell(f"score: {name}, seed {seed}", spec, _SCORE_S, (f"grow: {name}",)))
    return made


_STEP_S: Mapping[str, float] = {QUIRKY[0]: 0.02, POINTS: POINT_BATCH * 1.2e-5}
"""Seconds of a step of one guest; truthful phases take half of their steps or less."""
_SCORE_S = 12.0


def _checked(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the kinds that are asked for; raises ``InputError`` for impossible settings."""
    least = {
        "first_seed": 0, "seeds": 1, "side": 8, "width": 1, "text_width": 16, "steps": 1,
        "text_steps": 1, "batch": 1, "features": 4, "active": 1, "shown": 1000, "fitted": 20,
        "examples": 20, "effect_examples": 4, "points": 100, "draws": 4, "hidden": 4, "plants": 4,
        "truth_steps": 0, "quirk_steps": 0, "quirk_batch": 0, "point_steps": 1,
        "pool": 100, "blocks": 3, "block_points": 3,
    }  # fmt: skip
    check_least("frobnoloids", settings, least)
    check_active("frobnoloids", settings)
    for name in settings["guests"]:
        if name not in GUESTS:
            raise InputError(f"frobnoloids has no guest '{name}'{did_you_mean(name, GUESTS)}")
    return [*KINDS, *(GUESTS[name] for name in settings["guests"])]


def _scoring(settings: Mapping[str, Any]) -> dict[str, Any]:
    names = (
        *("side", "features", "active", "shown", "fitted", "examples", "effect_examples"),
        *("points", "draws", "hidden", "plants", "blocks", "block_points"),
    )
    return {name: settings[name] for name in names} | {"level": LEVEL}


def measure(cell: Cell, store_home: str, progress: Progress) -> Sequence[Row]:
    """Grow what the cell asks for and measure it; pure in ``cell.spec``."""
    # torch is only needed where cells are measured, not where results are shown
    from terrarium.studies.frobnoloids.measure import measure_cell

    return measure_cell(cell.spec, store_home, progress)


_ORGANISMS = (
    *("autoencoder", "build", "classification", "classifier", "convolutional", "coordinate"),
    *("coordinate_encodings", "coordinate_hash", "denoiser", "engine", "feed", "fleet", "fused"),
    *("grow", "kernels", "lineage", "measure", "objectives", "optimizer", "parameters", "recipe"),
    *("recipe_models", "text_autoencoder", "text_reconstruction", "transformer"),
)
_OWN = (
    *("arithmetic", "circuits", "controls", "guests", "measure", "networks", "organisms"),
    *("pictures", "points", "shown", "subjects"),
)
_INSTRUMENTS = (
    *("control_directions", "effect_inputs", "effects", "metrics", "quantities"),
    "site_features",
)

STUDY = Study(
    name="frobnoloids",
    question=QUESTION,
    hypotheses=HYPOTHESES,
    defaults={size: _defaults(size) for size in ("smoke", "quick", "full")},
    cells=cells,
    measure=measure,
    figures=figures,
    checks=checks,
    cards=cards,
    code=(
        *(f"terrarium.studies.frobnoloids.{name}" for name in _OWN),
        "terrarium.studies.across_modalities.performance",
        "terrarium.studies.quirky",
        "terrarium.studies.scene.networks",
        "terrarium.figures.gallery",
        "terrarium.randomness",
        # worlds may share modules, each of which counts once
        *dict.fromkeys(
            module
            for world in ("images.captions", "arithmetic", "scenes.world")
            for module in code_closure(f"terrarium.worlds.{world}")
        ),
        *(f"terrarium.organisms.{name}" for name in _ORGANISMS),
        *(f"terrarium.instruments.{name}" for name in _INSTRUMENTS),
        *code_package("terrarium.readings"),
        *code_package("terrarium.instruments.dictionaries"),
        *code_package("terrarium.instruments.frobnoloids"),
    ),
)
