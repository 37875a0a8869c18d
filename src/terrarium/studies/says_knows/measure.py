"""What each cell of `says-knows` grows and measures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from terrarium.evidence.rows import Row
from terrarium.organisms.build import build
from terrarium.organisms.grow import Organism, grow, make_world, phase_worlds
from terrarium.organisms.recipe import Recipe
from terrarium.progress import Progress
from terrarium.store import Store
from terrarium.studies.contexts import Contexts, read_contexts
from terrarium.studies.measure_causal import causal_rows
from terrarium.studies.measure_detectors import detector_rows
from terrarium.studies.measure_organism import card_rows, mass_row
from terrarium.studies.measure_probes import input_rows, name_rows, picture_rows, probe_rows
from terrarium.studies.measure_recency import recency_rows


def measure_cell(spec: Mapping[str, Any], store_home: str, progress: Progress) -> list[Row]:
    """Grow what the cell asks for and measure it; pure in ``spec``."""
    recipe = Recipe.model_validate(spec["recipe"])
    store = Store(store_home)
    factors = {"organism": spec["label"], "seed": spec["seed"]}
    if spec["kind"] == "truth":
        rows = _truth_cell(recipe, spec, store, progress)
    else:
        rows = _quirk_cell(recipe, spec, store, progress)
    return [row.with_factors(**factors) for row in rows]


def _truth_cell(
    recipe: Recipe, spec: Mapping[str, Any], store: Store, progress: Progress
) -> list[Row]:
    """The organism before its quirk: how legible the truth is, and where."""
    before = recipe.model_copy(update={"phases": recipe.phases[:-1]})
    (organism,) = grow([(before, spec["seed"])], store, progress)
    # Read in the quirky world, whose rows it never saw, so that it can be compared with what
    # the quirk makes of it.
    world = phase_worlds(recipe.phases[-1], recipe.model)[0]
    contexts = read_contexts(organism.network(), world, _rows(spec), spec["seed"], pairs=False)
    rows = [*card_rows(contexts, organism), *_legible_rows(contexts)]
    return [row.with_factors(variant="before the quirk") for row in rows]


def _legible_rows(contexts: Contexts) -> list[Row]:
    found = probe_rows(contexts, 0)
    return [r for r in found if r.factors.get("probe") == "logistic_regression"]


def _quirk_cell(
    recipe: Recipe, spec: Mapping[str, Any], store: Store, progress: Progress
) -> list[Row]:
    seed = spec["seed"]
    organism, twin = grow([(recipe, seed), (recipe.twin(), seed)], store, progress)
    rows: list[Row] = []
    for variant, grown in (("organism", organism), ("twin", twin)):
        if grown.status != "grown":
            rows.append(_failed(grown, variant))
            continue
        rows += _variant_rows(grown, variant, spec)
    rows += _untrained_rows(organism, spec)
    return rows


def _failed(grown: Organism, variant: str) -> Row:
    return Row(
        "",
        "",
        "cell",
        "",
        None,
        {"variant": variant},
        None,
        1,
        "failed",
        f"the organism {grown.status}: {grown.reason}",
    )


def _variant_rows(grown: Organism, variant: str, spec: Mapping[str, Any]) -> list[Row]:
    seed, network = spec["seed"], grown.network()
    # The twin's world draws the very same rows; its Bob is asked for the truth, and the fact
    # "rule_label" still tells what the quirk would have said.
    contexts = read_contexts(network, grown.world, _rows(spec), seed)
    rows = [
        *card_rows(contexts, grown),
        mass_row(contexts),
        *probe_rows(contexts, seed),
        *name_rows(contexts),
        *detector_rows(contexts),
        *recency_rows(grown, contexts, seed),
    ]
    if variant == "organism":
        rows += causal_rows(network, grown.world, contexts, seed, contexts.layers)
        rows += picture_rows(contexts, len(contexts.layers) // 2) if spec["picture"] else []
        features = {s: grown.world.input_features(contexts.batches[s]) for s in ("train", "test")}
        inputs = [r.with_factors(variant="input only") for r in input_rows(contexts, features)]
        return [row.with_factors(variant=variant) for row in rows] + inputs
    return [row.with_factors(variant=variant) for row in rows]


def _untrained_rows(organism: Organism, spec: Mapping[str, Any]) -> list[Row]:
    """The same probes on the organism's first, random weights."""
    network = build(organism.model, [("organism", organism.seed)])
    world = make_world(organism.recipe.phases[-1].sources[0])
    contexts = read_contexts(network, world, _rows(spec), spec["seed"], pairs=False)
    rows = [*_legible_rows(contexts), *detector_rows(contexts)]
    return [row.with_factors(variant="untrained") for row in rows]


def _rows(spec: Mapping[str, Any]) -> dict[str, int]:
    test = int(spec["test_rows"])
    return {
        "train": int(spec["train_rows"]),
        "validation": test // 2,
        "test": test,
        "heldout_names": test // 2,
    }
