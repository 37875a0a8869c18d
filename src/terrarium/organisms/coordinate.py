"""Coordinate networks: an MLP on coordinates that are encoded first.

Encodings: none; random Fourier features (Tancik et al. 2020, section 5); a multiresolution hash
grid (Müller et al. 2022, section 3).  Hidden units: ReLU, or sines (SIREN, Sitzmann et al. 2020).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from terrarium.errors import InputError
from terrarium.organisms.coordinate_encodings import (
    Encoding,
    encoding_shapes,
    encoding_width,
    initial_encoding,
    kind_of,
    uniform,
)
from terrarium.organisms.fleet import Fleet, Key, normal
from terrarium.organisms.network import Site
from terrarium.organisms.plain import save_plain
from terrarium.organisms.recipe import CoordinateModel


class Coordinate(Fleet):
    """A fleet of coordinate networks: ``(member, n, inputs)`` to ``(member, n, outputs)``, float32.

    Fourier features' frequencies are drawn once and do not train.
    """

    def __init__(self, spec: CoordinateModel, keys: Sequence[Key]) -> None:
        super().__init__(spec, _shapes(spec), lambda key: _initial(spec, key), keys)
        self.encoding = Encoding(self)
        self.layers = nn.ModuleList(Layer(self, i) for i in range(spec.layers))

    def forward(self, points: Tensor) -> Tensor:
        """Return the field at the points; raises ``InputError`` for points of another shape."""
        if points.dim() != 3 or points.shape[::2] != (self.members, self.spec.inputs):
            raise InputError(
                f"This coordinate network takes points ({self.members}, n, {self.spec.inputs}), "
                f"members first, and was given {tuple(points.shape)}."
            )
        encoded = self.encoding(self._normalised(points))
        hidden = encoded
        for i, layer in enumerate(self.layers):
            hidden = layer(torch.cat([hidden, encoded], dim=-1) if i in self.spec.skips else hidden)
        out = self.linear("head", hidden)
        scale, offset = self.spec.output_scale, self.spec.output_offset
        return out if (scale, offset) == (1.0, 0.0) else out * scale + offset

    def linear(self, name: str, x: Tensor, factor: float = 1.0) -> Tensor:
        """Return ``factor`` times a layer's linear map with its bias: one pass over the result."""
        bias = self.weights[f"{name}.bias"].unsqueeze(1)
        return torch.baddbmm(bias, x, self.matrix(f"{name}.weight"), beta=factor, alpha=factor)

    def _normalised(self, points: Tensor) -> Tensor:
        if self.spec.box is None:
            return points
        low, high = (points.new_tensor(corner) for corner in self.spec.box)
        return (points - low) * (2 / (high - low)) - 1

    def sites(self) -> Mapping[str, Site]:
        """Return ``encoding.out`` where inputs are encoded, and each layer's ``mlp.act[i]``."""
        encoded = {} if kind_of(self.spec) == "none" else {"encoding.out": Site(self.encoding)}
        return encoded | {f"mlp.act[{i}]": Site(layer) for i, layer in enumerate(self.layers)}

    def member_parameters(self, member: int, frozen: Sequence[str] = ()) -> list[nn.Parameter]:
        """Return the trainable leaves; the frequencies are not among them."""
        return super().member_parameters(member, (*frozen, "frequencies"))

    def save(self, member: int, folder: Path, tokenizer_json: str | None = None) -> None:
        """Write ``config.json`` and ``model.safetensors``."""
        save_plain(self.spec, self.member_state(member), folder)


class Layer(nn.Module):
    """One hidden layer: ReLU, or the sine of omega times the linear map."""

    def __init__(self, network: Coordinate, index: int) -> None:
        super().__init__()
        self._network, self._name = (network,), f"layers.{index}"
        self._omega = omega_of(network.spec, index)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(member, n, width)``."""
        out = self._network[0].linear(self._name, x, self._omega or 1.0)
        return torch.relu(out) if self._omega is None else torch.sin(out)


def coordinates_of(spec: CoordinateModel, world: Any) -> CoordinateModel:
    """Return the spec with the world's ``box`` filled in where it has none of its own.

    Raises ``InputError`` where the world has another number of outputs.
    """
    outputs = getattr(world.output, "dimensions", spec.outputs)
    if outputs != spec.outputs:
        raise InputError(
            f"The world '{world.name}' has {outputs} outputs, and the coordinate network "
            f"{spec.outputs}; set outputs to {outputs}."
        )
    box = getattr(world, "box", None)
    if spec.box is not None or box is None or len(box[0]) != spec.inputs:
        return spec
    corners = tuple(tuple(float(x) for x in corner) for corner in box)
    return CoordinateModel.model_validate({**spec.model_dump(), "box": corners})


def omega_of(spec: CoordinateModel, index: int) -> float | None:
    """Return what a layer's linear map is multiplied by before the sine; None for ReLU."""
    if spec.activation == "relu":
        return None
    return spec.omega_first if index == 0 else spec.omega_hidden


def _shapes(spec: CoordinateModel) -> dict[str, tuple[int, ...]]:
    shapes = encoding_shapes(spec)
    encoded = width = encoding_width(spec)
    for i in range(spec.layers):
        width += encoded if i in spec.skips else 0
        shapes |= {f"layers.{i}.weight": (width, spec.width), f"layers.{i}.bias": (spec.width,)}
        width = spec.width
    return shapes | {"head.weight": (width, spec.outputs), "head.bias": (spec.outputs,)}


def _initial(spec: CoordinateModel, key: Key) -> dict[str, Tensor]:
    """Draw a member's first tensors: He's for ReLU, SIREN's for sines."""
    state = initial_encoding(spec, key)
    for name, shape in _shapes(spec).items():
        if name in state:
            continue
        if spec.activation == "sine":
            state[name] = uniform(key, name, shape, _sine_bound(spec, name))
        elif len(shape) == 1:
            state[name] = torch.zeros(shape)
        else:
            state[name] = normal(key, name, shape, math.sqrt(2 / shape[0]))
    return state


def _sine_bound(spec: CoordinateModel, name: str) -> float:
    """Return the bound of SIREN's first weights (Sitzmann et al. 2020, section 3.2).

    Weights of the first layer are even in 1 / fan-in, those of the others in sqrt(6 / fan-in) /
    omega, so that what enters each sine is standard normal.  Biases are even in 1 / sqrt(fan-in)
    before omega in the first layer, where they are the phases, and after it in the others: times
    omega they would shift units by about one standard deviation at these widths.
    """
    layer, _, part = name.rpartition(".")
    fan_in = _shapes(spec)[f"{layer}.weight"][0]
    if layer == "layers.0":
        return 1 / fan_in if part == "weight" else 1 / math.sqrt(fan_in)
    return math.sqrt((6 if part == "weight" else 1) / fan_in) / spec.omega_hidden
