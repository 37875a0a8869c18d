"""`scene`: a network holds a 3D scene in its weights; what does each of its units do, exactly?

Question 14 of the mission.  Four kinds of coordinate networks of about equal size learn the signed
distance of a scene (and its colour in ``full``), whose right value is known at every point.  Errors
are measured in the volume and near the surface, by part and by curvature; each hidden unit is
taken out and the exact change compared, point by point, with matched random directions and with
the axes of a random rotation of its layer; so are features of a sparse dictionary of the middle
layer.  ``scene`` may be a mesh or a YAML file, and
``network`` a network made elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from terrarium.errors import InputError
from terrarium.evidence.rows import Row
from terrarium.keys import code_closure, code_package
from terrarium.progress import Progress
from terrarium.studies.base import Cell, Size, Study
from terrarium.studies.scene.checks import cards, checks
from terrarium.studies.scene.figures import figures
from terrarium.studies.scene.hypotheses import HYPOTHESES
from terrarium.studies.scene.networks import (
    COLOUR,
    DISTANCE,
    GROWN,
    LOADED,
    PARTS,
    SCENE,
    THREE_PARTS,
    Plan,
)
from terrarium.studies.settings import check_active, check_least

QUESTION = (
    "A coordinate network holds a 3D scene in its weights, and the scene says what is right at any "
    "point. What does each unit do, exactly?"
)

FRESH_SEED = 20
"""Seeds below were on the screen while budgets and hypotheses were set."""


def _defaults(size: Size) -> dict[str, Any]:
    shared: dict[str, Any] = {
        "scene": "",
        "network": "",
        "colour": False,
        "first_seed": FRESH_SEED,
        "seeds": 5,
        "steps": 1500,
        "batch": 512,
        "rows": 100_000,
        "points": 4000,
        "effect_points": 768,
        "randoms": 2,
        "side": 40,
        "features": 64,
        "active": 4,
        "dictionary_rows": 100_000,
    }
    sizes: dict[str, dict[str, Any]] = {
        "smoke": {
            "seeds": 1,
            "first_seed": 0,
            "steps": 30,
            "batch": 128,
            "rows": 2000,
            "points": 200,
            "effect_points": 64,
            "randoms": 1,
            "side": 12,
            "features": 8,
            "active": 2,
            "dictionary_rows": 4000,
        },
        "quick": {},
        "full": {"colour": True, "steps": 3000, "effect_points": 1500, "randoms": 4},
    }
    return shared | sizes[size]


def cells(settings: Mapping[str, Any]) -> list[Cell]:
    """Return one cell by seed, quantity and kind of network, or by seed for a loaded one.

    Raises ``InputError`` for impossible settings.
    """
    least = {
        "first_seed": 0, "steps": 1, "batch": 1, "rows": 100, "points": 20, "effect_points": 8,
        "randoms": 1, "side": 4, "features": 2, "active": 1, "dictionary_rows": 1000,
    }  # fmt: skip
    check_least("scene", settings, least)
    check_active("scene", settings)
    if settings["network"] and not settings["scene"]:
        raise InputError(
            "scene's setting 'network' needs the scene that it holds; name it, too, as scene=PATH."
        )
    name, scene = _scene_of(settings["scene"])
    shared = {
        "scene": name,
        "parts": [] if settings["scene"] else list(PARTS),
        **{
            key: settings[key]
            for key in (
                *("points", "effect_points", "randoms", "side"),
                *("features", "active", "dictionary_rows"),
            )
        },
    }
    quantities = (
        (DISTANCE, COLOUR) if settings["colour"] and not settings["network"] else (DISTANCE,)
    )
    _check_scene(scene, quantities)
    loaded = _loaded(settings["network"], scene) if settings["network"] else {}
    plan = Plan(settings["steps"], settings["batch"], settings["rows"], scene)
    first, made = settings["first_seed"], []
    for seed in range(first, first + settings["seeds"]):
        for quantity in quantities:
            told = {**shared, "quantity": quantity, "seed": seed, "pictures": seed == first}
            if settings["network"]:
                spec = {**told, "network": LOADED, **loaded}
                made.append(Cell(f"{LOADED}, seed {seed}", spec, 20.0))
                continue
            for network in GROWN:
                recipe = plan.recipe(network, quantity).model_dump(mode="json")
                spec = {**told, "network": network, "recipe": recipe}
                cost = 6 + 0.006 * settings["steps"] + 0.005 * settings["effect_points"]
                made.append(Cell(f"{network}, {quantity}, seed {seed}", spec, cost))
    return made


def _scene_of(path: str) -> tuple[str, Mapping[str, Any]]:
    """Return the scene's name and its spec; a file's checksum is part of it."""
    if not path:
        return THREE_PARTS, SCENE
    # the scenes' modules are heavy, and only needed where a scene is named
    from terrarium.worlds.scenes.load import scene_spec

    spec: Mapping[str, Any] = scene_spec(Path(path).expanduser()).model_dump(mode="json")
    return Path(path).stem, spec


def _check_scene(scene: Mapping[str, Any], quantities: Sequence[str]) -> None:
    """Open a mesh, so that its faults are no failed cells; a coloured one where that is asked."""
    if scene["kind"] == "analytic":
        return
    # opening takes a moment, and only a mesh has something to open
    from terrarium.worlds.scenes.world import Scenes

    for quantity in quantities:
        try:
            _ = Scenes.model_validate({"scene": scene, "quantity": quantity}).oracle
        except InputError as error:
            if quantity != COLOUR:
                raise
            raise InputError(f"{str(error).rstrip('.')}, or set colour=no.") from None


def _loaded(path: str, scene: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a cell of a loaded network is told; its files are part of the key."""
    from terrarium.studies.scene.loaded import content_of, open_network, world_of

    content = content_of(path)
    open_network(path)  # what is wrong with it is no failed cell
    return {"path": path, "content": content, "world": world_of(path, scene)}


def measure(cell: Cell, store_home: str, progress: Progress) -> Sequence[Row]:
    """Grow or load what the cell asks for and measure it; pure in ``cell.spec``."""
    # torch is only needed where cells are measured, not where results are shown
    from terrarium.studies.scene.measure import measure_cell

    return measure_cell(cell.spec, store_home, progress)


_ORGANISMS = (
    *("build", "coordinate", "coordinate_encodings", "coordinate_file", "coordinate_foreign"),
    *("coordinate_hash", "engine", "feed", "fleet", "grow", "kernels", "lineage", "objectives"),
    *("optimizer", "parameters", "recipe", "recipe_models", "state_files"),
)
_INSTRUMENTS = ("control_directions", "effect_inputs", "effects", "quantities", "site_features")

STUDY = Study(
    name="scene",
    question=QUESTION,
    hypotheses=HYPOTHESES,
    defaults={size: _defaults(size) for size in ("smoke", "quick", "full")},
    cells=cells,
    measure=measure,
    figures=figures,
    checks=checks,
    cards=cards,
    code=(
        *(
            f"terrarium.studies.scene.{name}"
            for name in (
                *("features", "layers", "loaded", "measure", "networks", "pictures", "removals"),
            )
        ),
        "terrarium.studies.site_dictionaries",
        "terrarium.figures.gallery",
        "terrarium.randomness",
        "terrarium.worlds.finite",
        *code_closure("terrarium.worlds.scenes.world"),
        *(f"terrarium.organisms.{name}" for name in _ORGANISMS),
        *(f"terrarium.instruments.{name}" for name in _INSTRUMENTS),
        *code_package("terrarium.readings"),
        *code_package("terrarium.instruments.dictionaries"),
    ),
)
