"""`denoiser`: how close does a small diffusion model come to the exact posterior mean?

Question 16 of the mission.  Images are drawn from laws whose best denoiser is known in closed form:
finite sets (few and many images) and mixtures of Gaussians.  Networks are measured by their regret
to it at each noise level, beside the Wiener filter and the nearest image; their samples are judged
by the law; and features by what their removal does to the regret.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from terrarium.evidence.rows import Row
from terrarium.keys import code_closure, code_package
from terrarium.progress import Progress
from terrarium.studies.base import Cell, Size, Study
from terrarium.studies.denoiser.checks import cards, checks
from terrarium.studies.denoiser.figures import figures
from terrarium.studies.denoiser.hypotheses import HYPOTHESES
from terrarium.studies.denoiser.laws import GAUSSIANS, LAWS, NETWORKS, STANDARD, Plan
from terrarium.studies.settings import check_active, check_least

QUESTION = (
    "How close does a small diffusion model come to the best denoiser, which is known in closed "
    "form, and which features carry the difference?"
)

FRESH_SEED = 30
"""Seeds below were in view while budgets were set, and in a run whose controls lacked signs."""


def _defaults(size: Size) -> dict[str, Any]:
    shared: dict[str, Any] = {
        "first_seed": FRESH_SEED,
        "seeds": 5,
        "few": 16,
        "many": 512,
        "side": 16,
        "steps": 800,
        "batch": 64,
        "rows": 200,
        "samples": 200,
        "effect_rows": 48,
        "features": 128,
        "active": 8,
        "dictionary_rows": 100_000,
    }
    sizes: dict[str, dict[str, Any]] = {
        "smoke": {
            "seeds": 1,
            "first_seed": 0,
            "side": 8,
            "few": 4,
            "many": 16,
            "steps": 40,
            "batch": 16,
            "rows": 20,
            "samples": 20,
            "effect_rows": 8,
            "features": 8,
            "active": 2,
            "dictionary_rows": 4000,
        },
        "quick": {},
        "full": {"many": 2048, "steps": 4000, "rows": 500, "samples": 500, "effect_rows": 96},
    }
    return shared | sizes[size]


def cells(settings: Mapping[str, Any]) -> list[Cell]:
    """Return one cell by seed and law: its networks, and all that is measured of them.

    Raises ``InputError`` for impossible settings.
    """
    least = {
        "first_seed": 0, "few": 2, "many": 2, "side": 8, "steps": 1, "batch": 1, "rows": 2,
        "samples": 4, "effect_rows": 2, "features": 2, "active": 1, "dictionary_rows": 1000,
    }  # fmt: skip
    check_least("denoiser", settings, least)
    check_active("denoiser", settings)
    sizes = {name: settings[name] for name in ("few", "many", "side", "steps", "batch")}
    plan = Plan(**sizes)
    made = []
    first = settings["first_seed"]
    for seed in range(first, first + settings["seeds"]):
        for law in LAWS:
            networks = NETWORKS if law == GAUSSIANS else (STANDARD,)
            recipes = {
                name: plan.recipe(law, name, seed).model_dump(mode="json") for name in networks
            }
            counts = {name: settings[name] for name in ("rows", "samples", "effect_rows")}
            if law == GAUSSIANS:
                names = ("features", "active", "dictionary_rows")
                counts |= {name: settings[name] for name in names}
            told = {"law": law, "seed": seed, "pictures": seed == first}
            spec = {"recipes": recipes, **counts, **told}
            cost = 0.011 * settings["steps"] * len(networks) + 0.03 * settings["rows"]
            cost += 6.0 if law == GAUSSIANS else 0.0
            made.append(Cell(f"{law}, seed {seed}", spec, cost))
    return made


def measure(cell: Cell, store_home: str, progress: Progress) -> Sequence[Row]:
    """Grow what the cell asks for and measure it; pure in ``cell.spec``."""
    # torch is only needed where cells are measured, not where results are shown
    from terrarium.studies.denoiser.measure import measure_cell

    return measure_cell(cell.spec, store_home, progress)


_ORGANISMS = (
    *("build", "convolutional", "denoiser", "denoising", "diffusion_sampling", "engine", "feed"),
    *("fleet", "grow", "kernels", "lineage", "objectives", "optimizer", "parameters", "recipe"),
)

STUDY = Study(
    name="denoiser",
    question=QUESTION,
    hypotheses=HYPOTHESES,
    defaults={size: _defaults(size) for size in ("smoke", "quick", "full")},
    cells=cells,
    measure=measure,
    figures=figures,
    checks=checks,
    cards=cards,
    code=(
        "terrarium.studies.denoiser.measure",
        "terrarium.studies.denoiser.effects",
        "terrarium.studies.denoiser.features",
        "terrarium.studies.denoiser.laws",
        "terrarium.studies.denoiser.pictures",
        "terrarium.studies.site_dictionaries",
        "terrarium.instruments.control_directions",
        "terrarium.figures.gallery",
        "terrarium.randomness",
        *code_closure("terrarium.worlds.images.mixtures"),
        "terrarium.worlds.images.judging",
        *(f"terrarium.organisms.{name}" for name in _ORGANISMS),
        *(f"terrarium.instruments.{name}" for name in ("effects", "site_features")),
        *code_package("terrarium.instruments.dictionaries"),
        *code_package("terrarium.readings"),
    ),
)
