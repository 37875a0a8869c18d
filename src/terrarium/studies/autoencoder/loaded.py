"""Autoencoders made elsewhere, and the photographs that they are shown."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from terrarium.errors import ModelError
from terrarium.keys import folder_checksum
from terrarium.organisms.recipe import parse
from terrarium.organisms.vision_folder import load_image_autoencoder, partner_of
from terrarium.randomness import generator
from terrarium.worlds.images.photographs import Photographs, image_files

_BLOCK = 1 << 20

QUICK_BYTES = 100_000_000
"""Models and images up to this size are opened whole before anything runs."""


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


def check_opens(path: Path, options: Mapping[str, Any]) -> None:
    """Open a model and its images and pass one crop through, so that faults are no failed cells.

    ``options`` are those of `photographs_of`.  What would take longer than a moment is left to the
    cells: models and folders of images above
    `QUICK_BYTES`.  Raises ``InputError`` (``ModelError``) with one sentence.
    """
    crop = first_crop(options)
    if sum(file.stat().st_size for file in _files(path)) > QUICK_BYTES:
        return
    network = load_image_autoencoder(path)
    if crop is not None:
        with torch.no_grad():
            network(torch.from_numpy(crop)[None])


def first_crop(options: Mapping[str, Any]) -> NDArray[np.float32] | None:
    """Return a crop ``(1, channels, side, side)`` of a world of `photographs_of`.

    None for folders above `QUICK_BYTES`.  Raises ``InputError`` where an image does not open or is
    too small for crops of three splits.
    """
    world = Photographs.model_validate(options)
    images = image_files(world.folder) if world.folder else []
    if sum(file.stat().st_size for file in images) > QUICK_BYTES:
        return None
    crop: NDArray[np.float32] = world.sample(1, generator("autoencoder", "opens")).inputs
    return crop


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return [file for file in path.rglob("*") if file.is_file()]
    return [file for file in {path, partner_of(path) or path} if file.exists()]


def photographs_of(folder: str, crop: int, reduce: int) -> dict[str, Any]:
    """Return the options of a world of crops: of a folder, or of what scikit-image ships.

    The digest of a folder's content is among them, the names of its files are not.
    """
    path = str(Path(folder).expanduser()) if folder else ""
    told = {"side": crop, "folder": path, "reduce": reduce}
    world: Photographs = parse(Photographs, told, "autoencoder's images")
    return world.model_dump(mode="json", exclude={"names"} if folder else None)
