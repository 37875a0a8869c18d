"""`autoencoder`: what does a network trained on squared error alone keep, and which parts of it?

Question 15 of the mission.  Autoencoders are grown on images with no more factors than latents (so
that perfect reconstruction is attainable) and with more, and measured in dB beside PCA of the same
size, the mean image and the untrained network; each latent and unit is taken out and its exact
effect compared with norm-matched random directions; and latents are set against the known factors.
With ``model`` the same is measured on an autoencoder that was made elsewhere, on photographs; with
``images`` alone autoencoders are grown on a folder's, without what needs known factors.  Features
of a sparse dictionary of the maps before the code are taken out as units are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from terrarium.evidence.rows import Row
from terrarium.keys import code_closure, code_package
from terrarium.progress import Progress
from terrarium.studies.autoencoder.arms import GROWN, LATENT, LOADED, UNITS, YOURS, Plan
from terrarium.studies.autoencoder.checks import cards, checks
from terrarium.studies.autoencoder.figures import figures
from terrarium.studies.autoencoder.hypotheses import HYPOTHESES
from terrarium.studies.base import Cell, Size, Study
from terrarium.studies.settings import check_active, check_least

QUESTION = (
    "What does an autoencoder that is trained on squared error alone keep of an image, and what "
    "does each part of its code add?"
)

FRESH_SEED = 30
"""Seeds below were on the screen while budgets and hypotheses were set, and in a run whose controls
lacked signs."""

DICTIONARY = ("features", "active", "dictionary_rows")
"""Settings of dictionaries: features, how many are active at a place, places shown in all."""

MOST, UNBOUNDED = 16, 1 << 20
"""Units, and features, of a loaded network's maps that are taken out: its passes are long."""


def _defaults(size: Size) -> dict[str, Any]:
    shared: dict[str, Any] = {
        "model": "",
        "images": "",
        "crop": 64,
        "reduce": 1,
        "first_seed": FRESH_SEED,
        "seeds": 5,
        "side": 16,
        "width": 16,
        "steps": 1000,
        "batch": 64,
        "rows": 500,
        "effect_rows": 128,
        "crops": 24,
        "effect_crops": 4,
        "randoms": 8,
        "features": 64,
        "active": 2,
        "dictionary_rows": 100_000,
    }
    sizes: dict[str, dict[str, Any]] = {
        "smoke": {
            "seeds": 1,
            "first_seed": 0,
            "width": 4,
            "steps": 30,
            "batch": 16,
            "rows": 40,
            "effect_rows": 16,
            "crops": 2,
            "effect_crops": 1,
            "crop": 32,
            "randoms": 2,
            "features": 8,
            "active": 2,
            "dictionary_rows": 4000,
        },
        "quick": {},
        "full": {
            "steps": 5000,
            "rows": 1000,
            "effect_rows": 256,
            "crops": 96,
            "effect_crops": 8,
            "randoms": 16,
        },
    }
    return shared | sizes[size]


def cells(settings: Mapping[str, Any]) -> list[Cell]:
    """Return one cell by seed and arm: its network, and all that is measured of it.

    With a ``model`` there is one arm, and seeds draw the crops and the random directions; with
    ``images`` alone the arms are those that learn from crops of that folder.
    Raises ``InputError`` for impossible settings.
    """
    least = {
        "first_seed": 0, "side": 8, "width": 1, "steps": 1, "batch": 1, "rows": 20, "crops": 2,
        "effect_rows": 8, "effect_crops": 1, "randoms": 1, "crop": 16, "reduce": 1, "features": 2,
        "active": 1, "dictionary_rows": 1000,
    }  # fmt: skip
    check_least("autoencoder", settings, least)
    check_active("autoencoder", settings)
    plan = Plan(**{name: settings[name] for name in ("side", "width", "steps", "batch")})
    arms: tuple[str, ...] = YOURS if settings["images"] else GROWN
    arms = (LOADED,) if settings["model"] else arms
    loaded = _loaded(settings) if settings["model"] else {}
    first = settings["first_seed"]
    made = []
    for seed in range(first, first + settings["seeds"]):
        for arm in arms:
            told = {"arm": arm, "seed": seed, "pictures": seed == first}
            spec = told | (loaded if arm == LOADED else _grown(settings, plan, arm))
            cost = 80.0 if arm == LOADED else 9 + 0.009 * settings["steps"]
            made.append(Cell(f"{arm}, seed {seed}", spec, cost))
    return made


def _grown(settings: Mapping[str, Any], plan: Plan, arm: str) -> dict[str, Any]:
    world = _photographs(settings, settings["side"]) if arm in YOURS else None
    if world is not None:
        from terrarium.studies.autoencoder.loaded import first_crop

        first_crop(world)  # so that images which are too small are no failed cells
    return {
        "recipe": plan.recipe(arm, world).model_dump(mode="json"),
        "sites": [LATENT, UNITS],
        "most": UNBOUNDED,
        **{name: settings[name] for name in ("rows", "effect_rows", "randoms", *DICTIONARY)},
    }


def _photographs(settings: Mapping[str, Any], side: int) -> dict[str, Any]:
    # torch and Pillow are only needed where images or a model are named
    from terrarium.studies.autoencoder.loaded import photographs_of

    return photographs_of(settings["images"], side, settings["reduce"])


def _loaded(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a cell of a loaded model is told; its files and images are part of the key."""
    # torch is only needed where a model is named
    from terrarium.studies.autoencoder.loaded import check_opens, content_of

    path = Path(settings["model"]).expanduser()
    content, world = content_of(path), _photographs(settings, settings["crop"])
    check_opens(path, world)
    return {
        "model": str(path),
        "content": content,
        "world": world,
        "sites": [LATENT, UNITS],
        "most": MOST,
        "rows": settings["crops"],
        "effect_rows": settings["effect_crops"],
        "randoms": min(settings["randoms"], 2),
        **{name: settings[name] for name in DICTIONARY},
    }


def measure(cell: Cell, store_home: str, progress: Progress) -> Sequence[Row]:
    """Grow or load what the cell asks for and measure it; pure in ``cell.spec``."""
    # torch is only needed where cells are measured, not where results are shown
    from terrarium.studies.autoencoder.measure import measure_cell

    return measure_cell(cell.spec, store_home, progress)


_ORGANISMS = (
    *("autoencoder", "build", "convolutional", "engine", "feed", "fleet", "grow", "kernels"),
    *("lineage", "objectives", "optimizer", "parameters", "recipe", "recipe_models"),
    *("state_files", "taesd", "vision_folder", "vision_network"),
)
_INSTRUMENTS = ("control_directions", "effect_inputs", "effects", "quantities", "site_features")

STUDY = Study(
    name="autoencoder",
    question=QUESTION,
    hypotheses=HYPOTHESES,
    defaults={size: _defaults(size) for size in ("smoke", "quick", "full")},
    cells=cells,
    measure=measure,
    figures=figures,
    checks=checks,
    cards=cards,
    code=(
        *(
            f"terrarium.studies.autoencoder.{name}"
            for name in (
                *("arms", "measure", "loaded", "alignment", "baselines", "features", "pictures"),
            )
        ),
        "terrarium.studies.site_dictionaries",
        "terrarium.figures.gallery",
        "terrarium.randomness",
        *code_closure("terrarium.worlds.images.factors"),
        *code_closure("terrarium.worlds.images.photographs"),
        *(f"terrarium.organisms.{name}" for name in _ORGANISMS),
        *(f"terrarium.instruments.{name}" for name in _INSTRUMENTS),
        *code_package("terrarium.readings"),
        *code_package("terrarium.instruments.dictionaries"),
    ),
)
