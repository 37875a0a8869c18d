"""Weights made elsewhere: state dicts read without running code, and checked tensor by tensor.

The spec files that say what such weights are get their first check here, too.
"""

from __future__ import annotations

import difflib
import hashlib
import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from terrarium.errors import InputError, ModelError, did_you_mean
from terrarium.organisms.folder import brief

_STARTS = (b"PK\x03\x04", b"\x80")
"""How files that `torch.save` has written begin: zip archives, and pickles before PyTorch 1.6."""

_FAULTS = (RuntimeError, OSError, EOFError, ValueError, KeyError, SafetensorError)
"""What reading a damaged file raises, beside what unpickling does."""

_LISTED = 5
"""Names that an error lists at most."""


def read_state_file(path: str | Path) -> dict[str, Any]:
    """Return what a file of weights holds: ``.safetensors``, or a pickle that holds tensors alone.

    A pickle is read with ``weights_only=True``: one that would run code is refused.  Tensors come
    to the CPU.  Raises ``ModelError``.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise ModelError(f"There is no file of weights {path}; give a checkpoint or safetensors.")
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        held = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, *_FAULTS) as error:
        raise ModelError(_unreadable(path, error)) from None
    if not isinstance(held, Mapping):
        raise ModelError(
            f"{path} holds a {type(held).__name__} and no state dict; save `model.state_dict()`."
        )
    return {str(name): value for name, value in held.items()}


def _unreadable(path: Path, error: Exception) -> str:
    """Return the sentence about a file that did not load."""
    if path.suffix != ".safetensors" and not _begins_as_weights(path):
        return (
            f"{path} is not a file of PyTorch weights; give what torch.save or safetensors has "
            "written."
        )
    if isinstance(error, pickle.UnpicklingError):
        return (
            f"{path} is no file of weights, or a pickle that would run code when loaded; convert "
            "it to safetensors where you trust it."
        )
    return f"{path} cannot be read as weights ({brief(error)}); copy the file again."


def _begins_as_weights(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4).startswith(_STARTS)
    except OSError:  # unreadable is another fault than being something else
        return True


def check_tables(spec: type[BaseModel], data: Mapping[str, Any], where: str) -> None:
    """Raise ``InputError`` for a whole table of a spec file that is wrong, without showing it.

    A missing key, or keys that contradict each other, are a fault of the table that holds them.
    Faults of single values are left to `terrarium.organisms.recipe.parse`.
    """
    try:
        spec.model_validate(data)
    except ValidationError as error:
        faults = error.errors()
        first = faults[0]
        misspelt = any(fault["type"] == "extra_forbidden" for fault in faults)
        path = ".".join(str(part) for part in first["loc"])
        if first["type"] == "missing" and not misspelt:
            raise InputError(f"{where} lacks the key '{path}'; add it.") from None
        if isinstance(first["input"], Mapping) and not misspelt:
            place = f"{where}, '{path}'" if path else where
            said = first["msg"].removeprefix("Value error, ")
            raise InputError(f"{place}: {said}.") from None


def files_checksum(files: Iterable[Path]) -> str:
    """Return a checksum of the bytes of files, wherever they lie; raises ``OSError``."""
    digest = hashlib.blake2b(digest_size=16)
    for file in files:
        digest.update(hashlib.blake2b(file.read_bytes()).digest())
    return digest.hexdigest()


def state_at(held: Mapping[str, Any], place: str, where: str) -> dict[str, Any]:
    """Return the state dict at ``place``: under that key, or all that has it as its prefix.

    An empty ``place`` is the file as a whole.  ``where`` names the file in errors.
    """
    if not place:
        return dict(held)
    if isinstance(held.get(place), Mapping):
        return {str(name): value for name, value in held[place].items()}
    prefix = place if place.endswith(".") else f"{place}."
    found = {n.removeprefix(prefix): v for n, v in held.items() if n.startswith(prefix)}
    if not found:
        known = _near(place, {*held, *(name.partition(".")[0] for name in held)})
        raise ModelError(f"{where} holds no weights under '{place}'{known}")
    return found


def _near(name: str, options: Iterable[str]) -> str:
    """Return what `did_you_mean` does, with a few names where the list would be long."""
    known = sorted(options)
    more = len(known) - _LISTED
    if more <= 0 or difflib.get_close_matches(name, known, n=1, cutoff=0.5):
        return did_you_mean(name, known)
    return f"; known are: {', '.join(known[:_LISTED])} and {more} more."


def tensor_at(state: Mapping[str, Any], name: str, shape: tuple[int, ...], where: str) -> Tensor:
    """Return a tensor as float32; raises ``ModelError`` for one that is not what was promised."""
    tensor = state.get(name)
    if tensor is None:
        raise ModelError(f"{where} lacks the tensor '{name}'{_near(name, state)}")
    check_weight(name, tensor, where)
    if tuple(tensor.shape) != shape:
        raise ModelError(
            f"{where}: '{name}' has the shape {tuple(tensor.shape)} and the spec asks for {shape}; "
            "use the spec that belongs to the weights."
        )
    values: Tensor = tensor.detach().float()
    if not bool(torch.isfinite(values).all()):
        raise ModelError(f"{where}: '{name}' holds NaN or infinity; use weights that are whole.")
    return values


def check_weight(name: str, held: Any, where: str) -> None:
    """Raise ``ModelError`` unless what stands under ``name`` is a dense tensor of real numbers."""
    if not isinstance(held, Tensor):
        kind = type(held).__name__
    elif held.layout != torch.strided:
        kind = "a sparse tensor"
    elif not held.is_floating_point():
        kind = str(held.dtype)
    else:
        return
    raise ModelError(
        f"{where}: '{name}' is {kind} and must be a dense tensor of real numbers; save the state "
        "dict alone, its weights as floats."
    )


def check_all_used(state: Mapping[str, Any], used: set[str], where: str) -> None:
    """Raise ``ModelError`` where the state dict holds more than was taken from it."""
    if more := sorted(set(state) - used):
        others = f" and {len(more) - 1} more" if len(more) > 1 else ""
        raise ModelError(
            f"{where} holds '{more[0]}'{others}, of which the spec says nothing; name every layer."
        )
