"""Growing and measuring the cells of `across-modalities`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from terrarium.evidence.rows import Row, measured
from terrarium.organisms.build import build
from terrarium.organisms.grow import Organism, grow
from terrarium.organisms.recipe import Recipe
from terrarium.progress import Progress
from terrarium.randomness import generator
from terrarium.store import Store
from terrarium.studies.across_modalities.instruments import (
    FAMILIES,
    facts_of,
    instrument_rows,
    read_split,
)
from terrarium.studies.across_modalities.performance import share_rows
from terrarium.studies.across_modalities.tasks import IMAGES, MODALITIES, TEXT
from terrarium.worlds.base import Batch

VARIANTS = ("trained", "untrained")


def measure_cell(spec: Mapping[str, Any], store_home: str, progress: Progress) -> Sequence[Row]:
    """Return the rows of one cell: an organism's performance, or all instruments on a pair."""
    measuring = {"grow": _grown, "instruments": _instruments}[spec["stage"]]
    return measuring(spec, Store(store_home), progress)


def _batches(world: Any, spec: Mapping[str, Any]) -> dict[str, Batch]:
    seed, rows = int(spec["seed"]), int(spec["rows"])
    return {
        split: world.sample(rows, generator("across modalities", split, seed), split)
        for split in ("train", "test")
    }


def _lost(organism: Organism, **factors: Any) -> Row:
    why = f"the organism {organism.status}: {organism.reason}"
    return Row("", "", "cell", "", None, factors, None, 1, "failed", why)


def _grown(spec: Mapping[str, Any], store: Store, progress: Progress) -> list[Row]:
    recipe, seed = Recipe.model_validate(spec["recipe"]), int(spec["seed"])
    factors = {name: spec[name] for name in ("modality", "objective", "size", "seed")}
    (organism,) = grow([(recipe, seed)], store, progress)
    if organism.status != "grown":
        return [_lost(organism, **factors, variant="trained")]
    world, task = organism.world, (spec["modality"], spec["objective"])
    batches = _batches(world, spec)
    networks = {"trained": organism.network(), "untrained": _untrained(organism)}
    return [
        row.with_factors(**factors, variant=variant)
        for variant, network in networks.items()
        for row in share_rows(network, world, batches, task)
    ]


def _untrained(organism: Organism) -> Any:
    return build(organism.model, [("organism", organism.seed)])


def _instruments(spec: Mapping[str, Any], store: Store, progress: Progress) -> list[Row]:
    """All instruments on a text organism and an image organism, and how their ranks agree."""
    seed, objective = int(spec["seed"]), spec["objective"]
    rows: list[Row] = []
    scored: dict[tuple[str, str], dict[str, float | None]] = {}
    recipes = [Recipe.model_validate(spec["recipes"][modality]) for modality in MODALITIES]
    grown = grow([(recipe, seed) for recipe in recipes], store, progress)
    task = f"instruments, {objective}"
    progress.start(task, len(MODALITIES) * len(VARIANTS), "readings")
    for modality, organism in zip(MODALITIES, grown, strict=True):
        factors = {"modality": modality, "objective": objective, "seed": seed}
        if organism.status != "grown":
            rows += [_lost(organism, **factors, variant=variant) for variant in VARIANTS]
            continue
        world = organism.world
        batches = _batches(world, spec)
        names = facts_of(batches["test"], world.side)[0]
        for variant in VARIANTS:
            network = organism.network() if variant == "trained" else _untrained(organism)
            splits = {
                split: read_split(network, world, batch, (modality, objective))
                for split, batch in batches.items()
            }
            found = instrument_rows(splits, names, seed, int(spec["shown"]))
            scored[modality, variant] = {
                str(r.factors["instrument"]): r.value
                for r in found
                if r.metric == "instrument_auroc"
            }
            rows += [row.with_factors(**factors, variant=variant) for row in found]
            progress.advance(task)
    progress.finish(task)
    return rows + _agreements(scored, objective, seed)


def _agreements(
    scored: Mapping[tuple[str, str], Mapping[str, float | None]], objective: str, seed: int
) -> list[Row]:
    """Return, by family, the rank correlation of instruments between text and images.

    Probes are three, too few for a rank.
    """
    rows = []
    for variant in VARIANTS:
        if (TEXT, variant) not in scored or (IMAGES, variant) not in scored:
            continue
        for family, members in FAMILIES.items():
            if family == "probes":
                continue
            pairs = [(scored[TEXT, variant][m], scored[IMAGES, variant][m]) for m in members]
            whole = [(a, b) for a, b in pairs if a is not None and b is not None]
            value = rank_correlation(np.array(whole)) if len(whole) > 2 else None
            factors: dict[str, Any] = {"objective": objective, "seed": seed, "family": family}
            made = measured(
                "rank_agreement",
                value,
                unit="Spearman's rho",
                n=len(whole),
                reason="fewer than three instruments could be scored, or all alike",
                variant=variant,
            )
            rows.append(made.with_factors(**factors))
    return rows


def rank_correlation(pairs: Any) -> float | None:
    """Return Spearman's rho of ``(n, 2)`` scores, None where one side is all alike."""
    if any((np.ptp(side) == 0) for side in pairs.T):
        return None
    return float(spearmanr(pairs[:, 0], pairs[:, 1]).statistic)
