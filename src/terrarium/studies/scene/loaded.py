"""Coordinate networks made elsewhere: opened, and as part of a cell's key."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from terrarium.errors import InputError
from terrarium.organisms.coordinate_file import load_coordinate_network, network_files
from terrarium.worlds.scenes.world import Scenes

_BLOCK = 1 << 20


def content_of(path: str) -> str:
    """Return a checksum of a network's files; raises ``InputError`` where one is missing."""
    digest = hashlib.blake2b(digest_size=16)
    for file in network_files(path):
        try:
            with file.open("rb") as opened:
                while block := opened.read(_BLOCK):
                    digest.update(block)
        except OSError:
            raise InputError(
                f"{file} cannot be read; scene's setting 'network' expects a spec file of a "
                "coordinate network, or a folder that one was saved in."
            ) from None
    return digest.hexdigest()


def world_of(path: str, scene: Mapping[str, Any]) -> dict[str, Any]:
    """Return options of the world `Scenes` in whose coordinates the network at ``path`` speaks.

    A network made elsewhere speaks those of the scene's own file; an organism those of the world
    that it was grown on, which frames its scene.  Raises ``InputError`` for an organism of another
    scene, or of no distances.
    """
    plain = {"scene": dict(scene), "normalise": False}
    told = _grown_on(path)
    if told is None:
        return plain
    try:
        grown = Scenes.model_validate(told)
        own = {"scene": dict(scene), "normalise": grown.normalise, "margin": grown.margin}
        corners = np.array([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])
        one, other = (w.to_scene(corners) for w in (grown, Scenes.model_validate(own)))
    except (InputError, ValueError) as error:
        raise InputError(
            f"{path} was grown on a scene that cannot be opened any more ({error}); put it back, "
            "or describe the weights by a spec file."
        ) from None
    if grown.quantity != "distance" or not np.allclose(one, other):
        raise InputError(
            f"{path} was grown on the {grown.quantity} of another scene than the one that is named "
            "by scene=PATH; name the one whose distance it holds."
        )
    return own


def _grown_on(path: str) -> dict[str, Any] | None:
    """Return the options of the world `Scenes` that an organism was grown on, None for others."""
    try:
        told = json.loads((Path(path).expanduser() / "spec.json").read_text(encoding="utf-8"))
        source = told["spec"]["phase"]["sources"][0]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    while source.get("world") == "finite":
        source = source["options"]
    options: dict[str, Any] | None = source["options"] if source.get("world") == "scenes" else None
    return options


def open_network(path: str) -> Any:
    """Return the network; raises ``InputError`` unless it maps 3 coordinates to one number."""
    network = load_coordinate_network(path)
    takes = (network.spec.inputs, network.spec.outputs)
    if takes != (3, 1):
        raise InputError(
            f"{path} takes {takes[0]} coordinates and gives {takes[1]} numbers; scene measures "
            "networks from 3 coordinates to a signed distance."
        )
    return network
