"""Coordinate networks made elsewhere: opened, and as part of a cell's key."""

from __future__ import annotations

import hashlib
from typing import Any

from terrarium.errors import InputError
from terrarium.organisms.coordinate_file import load_coordinate_network, network_files

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
