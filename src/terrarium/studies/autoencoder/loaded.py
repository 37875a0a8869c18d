"""Autoencoders made elsewhere, and the photographs that they are shown."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from terrarium.errors import ModelError
from terrarium.keys import folder_checksum
from terrarium.organisms.recipe import parse
from terrarium.organisms.vision_folder import partner_of
from terrarium.worlds.images.photographs import Photographs

_BLOCK = 1 << 20


def content_of(path: Path) -> str:
    """Return a checksum of a model's files: the folder's, or that of all beside a file."""
    if not path.exists():
        raise ModelError(
            f"There is no autoencoder at {path}; give a diffusers folder or TAESD-style state "
            "dicts (nothing is downloaded)."
        )
    if path.is_dir():
        return folder_checksum(path)
    digest = hashlib.blake2b(digest_size=16)
    partner = partner_of(path)
    for file in sorted({path, partner or path}):
        if file.exists():
            with file.open("rb") as opened:
                while block := opened.read(_BLOCK):
                    digest.update(block)
    return digest.hexdigest()


def photographs_of(folder: str, crop: int, reduce: int) -> dict[str, Any]:
    """Return the options of a world of crops: of a folder, or of what scikit-image ships.

    The digest of a folder's content is among them, the names of its files are not.
    """
    path = str(Path(folder).expanduser()) if folder else ""
    told = {"side": crop, "folder": path, "reduce": reduce}
    world: Photographs = parse(Photographs, told, "autoencoder's images")
    return world.model_dump(mode="json", exclude={"names"} if folder else None)
