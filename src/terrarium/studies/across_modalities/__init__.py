"""`across-modalities`: do insights carry over between text and images?

Question 18 of the mission.  The same shapes are told in words and shown as images; organisms
classify or autoencode them.  How near each comes to its oracle, against its parameters, stands on
one plot; and every instrument is asked for the same facts in both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from terrarium.errors import InputError, did_you_mean
from terrarium.evidence.rows import Row
from terrarium.keys import code_closure, code_package
from terrarium.progress import Progress
from terrarium.studies.across_modalities.checks import cards, checks
from terrarium.studies.across_modalities.figures import figures
from terrarium.studies.across_modalities.hypotheses import HYPOTHESES
from terrarium.studies.across_modalities.tasks import (
    BASE,
    MODALITIES,
    OBJECTIVES,
    TEXT,
    WIDTHS,
    Budget,
    recipe,
)
from terrarium.studies.base import Cell, Size, Study
from terrarium.studies.settings import check_least

QUESTION = (
    "Do insights carry over between modalities, and are they easier to find in one? "
    "The same shapes, told in words and shown as images."
)

FRESH_SEED = 10
"""Seeds below were on the screen while budgets were set."""


def _defaults(size: Size) -> dict[str, Any]:
    shared: dict[str, Any] = {
        "first_seed": FRESH_SEED,
        "seeds": 5,
        "rows": 2000,
        "steps": 1500,
        "batch": 64,
        "sizes": ["XS", BASE],
        "shown": 100_000,
    }
    sizes: dict[str, dict[str, Any]] = {
        "smoke": {
            "seeds": 1,
            "first_seed": 0,
            "rows": 200,
            "steps": 10,
            "sizes": [BASE],
            "shown": 10_000,
        },
        "quick": {},
        "full": {"rows": 4000, "steps": 3000, "sizes": list(WIDTHS), "shown": 200_000},
    }
    return shared | sizes[size]


def cells(settings: Mapping[str, Any]) -> list[Cell]:
    """Return a cell for each organism, and one for the instruments on each pair of them.

    Raises ``InputError`` for unknown sizes and impossible settings.
    """
    least = {"first_seed": 0, "seeds": 1, "rows": 100, "steps": 1, "batch": 1, "shown": 1000}
    check_least("across-modalities", settings, least)
    for size in settings["sizes"]:
        if size not in WIDTHS:
            raise InputError(
                f"across-modalities' setting 'sizes' has no level '{size}'"
                f"{did_you_mean(size, WIDTHS)}"
            )
    sizes = list(dict.fromkeys((*settings["sizes"], BASE)))
    budget = Budget(settings["steps"], settings["batch"])
    made: list[Cell] = []
    for seed in range(settings["first_seed"], settings["first_seed"] + settings["seeds"]):
        for objective in OBJECTIVES:
            made += _cells(settings, budget, objective, sizes, seed)
    return made


def _cells(
    settings: Mapping[str, Any], budget: Budget, objective: str, sizes: Sequence[str], seed: int
) -> list[Cell]:
    made = []
    needs = []
    shared = {"objective": objective, "seed": seed, "rows": settings["rows"]}
    for modality in MODALITIES:
        for size in sizes:
            how = recipe(modality, objective, size, budget).model_dump(mode="json")
            spec = {"stage": "grow", "modality": modality, "size": size, "recipe": how, **shared}
            width = WIDTHS[size][0]
            cost = budget.steps * budget.batch * (1.5e-4 * width / 32 + 5e-5)
            cost *= 1.0 if modality == TEXT else 0.4
            made.append(Cell(f"{objective} {modality}, {size}, seed {seed}", spec, 1 + cost))
            if size == BASE:
                needs.append(made[-1].name)
    recipes = {
        modality: recipe(modality, objective, BASE, budget).model_dump(mode="json")
        for modality in MODALITIES
    }
    spec = {"stage": "instruments", "recipes": recipes, "shown": settings["shown"], **shared}
    name = f"instruments, {objective}, seed {seed}"
    return [*made, Cell(name, spec, 20.0, tuple(needs), memory_mb=900.0)]


def measure(cell: Cell, store_home: str, progress: Progress) -> Sequence[Row]:
    """Grow what the cell asks for and measure it; pure in ``cell.spec``."""
    # torch is only needed where cells are measured, not where results are shown
    from terrarium.studies.across_modalities.measure import measure_cell

    return measure_cell(cell.spec, store_home, progress)


_ORGANISMS = (
    *("autoencoder", "build", "classification", "classifier", "convolutional", "engine", "feed"),
    *("fleet", "fused", "grow", "kernels", "lineage", "objectives", "optimizer", "parameters"),
    *("recipe", "text_autoencoder", "text_reconstruction", "transformer"),
)

STUDY = Study(
    name="across-modalities",
    question=QUESTION,
    hypotheses=HYPOTHESES,
    defaults={size: _defaults(size) for size in ("smoke", "quick", "full")},
    cells=cells,
    measure=measure,
    figures=figures,
    checks=checks,
    cards=cards,
    code=(
        "terrarium.studies.across_modalities.measure",
        "terrarium.studies.across_modalities.instruments",
        "terrarium.studies.across_modalities.performance",
        "terrarium.randomness",
        *code_closure("terrarium.worlds.images.captions"),
        *(f"terrarium.organisms.{name}" for name in _ORGANISMS),
        *code_package("terrarium.readings"),
        *code_package("terrarium.instruments.detectors"),
        *code_package("terrarium.instruments.dictionaries"),
        *code_package("terrarium.instruments.probes"),
    ),
)
