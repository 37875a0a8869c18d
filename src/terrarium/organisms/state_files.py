"""Weights made elsewhere: state dicts read without running code, and checked tensor by tensor."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from terrarium.errors import ModelError, did_you_mean
from terrarium.organisms.folder import brief


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
    except pickle.UnpicklingError:
        raise ModelError(
            f"{path} is no file of weights, or a pickle that would run code when loaded; convert "
            "it to safetensors where you trust it."
        ) from None
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, SafetensorError) as error:
        raise ModelError(
            f"{path} cannot be read as weights ({brief(error)}); copy the file again."
        ) from None
    if not isinstance(held, Mapping):
        raise ModelError(
            f"{path} holds a {type(held).__name__} and no state dict; save `model.state_dict()`."
        )
    return {str(name): value for name, value in held.items()}


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
        known = did_you_mean(place, {*held, *(name.partition(".")[0] for name in held)})
        raise ModelError(f"{where} holds no weights under '{place}'{known}")
    return found


def tensor_at(state: Mapping[str, Any], name: str, shape: tuple[int, ...], where: str) -> Tensor:
    """Return a tensor as float32; raises ``ModelError`` for one that is not what was promised."""
    tensor = state.get(name)
    if tensor is None:
        raise ModelError(f"{where} lacks the tensor '{name}'{did_you_mean(name, state)}")
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
