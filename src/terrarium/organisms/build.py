"""From model specs to networks, and from folders back to networks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from terrarium.keys import folder_checksum
from terrarium.organisms.autoencoder import Autoencoder
from terrarium.organisms.classifier import Classifier
from terrarium.organisms.coordinate import Coordinate, coordinates_of
from terrarium.organisms.denoiser import Denoiser
from terrarium.organisms.export import load_llama
from terrarium.organisms.fleet import Key
from terrarium.organisms.plain import load_plain
from terrarium.organisms.radiance import RadianceField
from terrarium.organisms.recipe import (
    CoordinateModel,
    HuggingFaceModel,
    TextAutoencoderModel,
    TransformerModel,
)
from terrarium.organisms.text_autoencoder import TextAutoencoder
from terrarium.organisms.transformer import Transformer
from terrarium.worlds.tokenise import tokenizer

ARCHITECTURES = {
    "transformer": "terrarium.organisms.transformer",
    "coordinate": "terrarium.organisms.coordinate",
    "autoencoder": "terrarium.organisms.autoencoder",
    "classifier": "terrarium.organisms.classifier",
    "text_autoencoder": "terrarium.organisms.text_autoencoder",
    "radiance": "terrarium.organisms.radiance",
    "denoiser": "terrarium.organisms.denoiser",
    "huggingface": "terrarium.organisms.huggingface",
}
"""Kind of model to the module whose code gives it its meaning."""

COMPANIONS: dict[str, tuple[str, ...]] = {
    "coordinate": (
        "terrarium.organisms.coordinate_encodings",
        "terrarium.organisms.coordinate_hash",
    ),
    "autoencoder": ("terrarium.organisms.convolutional",),
    "classifier": ("terrarium.organisms.convolutional",),
    "denoiser": ("terrarium.organisms.convolutional",),
    "text_autoencoder": ("terrarium.organisms.transformer",),
}
"""Kind of model to further modules that give it its meaning; they count in its keys, too."""

_NETWORKS: dict[str, Callable[[Any, Sequence[Key]], Any]] = {
    "transformer": Transformer,
    "coordinate": Coordinate,
    "autoencoder": Autoencoder,
    "classifier": Classifier,
    "denoiser": Denoiser,
    "text_autoencoder": TextAutoencoder,
    "radiance": RadianceField,
}
"""Kind of model to what builds a fleet of it, all but `HuggingFaceModel`."""


def resolved(model: Any, world: Any) -> Any:
    """Return the spec with what the world decides filled in: a vocabulary, the box of inputs."""
    text = isinstance(model, (TransformerModel, TextAutoencoderModel))
    if text and model.vocabulary is None:
        size = tokenizer(world.tokenizer_json()).get_vocab_size(with_added_tokens=True)
        return model.model_copy(update={"vocabulary": size})
    if isinstance(model, CoordinateModel):
        return coordinates_of(model, world)
    return model


def identity(model: Any) -> dict[str, Any]:
    """Return what the model is, for a key: its spec, and a folder's content instead of its path."""
    spec: dict[str, Any] = model.model_dump(mode="json")
    if isinstance(model, HuggingFaceModel):
        spec["content"] = _content(model.path, _stamp(model.path))
        del spec["folder"], spec["device_map"]
    return spec


def _stamp(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Return names, sizes and times of a folder's files."""
    found = sorted(p for p in folder.rglob("*") if p.is_file())
    return tuple((str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in found)


@functools.lru_cache(maxsize=8)
def _content(folder: Path, stamp: tuple[tuple[str, int, int], ...]) -> str:
    """Return the folder's checksum, computed once: a large model takes seconds to read."""
    return folder_checksum(folder)


def build(model: Any, keys: Sequence[Key]) -> Any:
    """Return a fleet with first weights drawn by ``keys`` (or read from the model's folder)."""
    if isinstance(model, HuggingFaceModel):
        return _load_huggingface(model, model.path)
    return _NETWORKS[model.kind](model, keys)


def load(model: Any, folders: Sequence[Path]) -> Any:
    """Return a fleet of the members that lie in ``folders``, one each."""
    if isinstance(model, HuggingFaceModel):
        return _load_huggingface(model, folders[0])
    network = build(model, [("load", i) for i in range(len(folders))])
    for member, folder in enumerate(folders):
        transformer = isinstance(model, TransformerModel)
        state = load_llama(model, folder) if transformer else load_plain(folder)
        network.load_member_state(member, state)
    return network


def _load_huggingface(model: HuggingFaceModel, folder: Path) -> Any:
    from terrarium.organisms.huggingface import load_folder  # transformers is heavy

    return load_folder(folder, dtype=model.dtype, device_map=model.device_map)
