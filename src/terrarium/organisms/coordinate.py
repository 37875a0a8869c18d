"""Coordinate networks: an MLP on random Fourier features (Tancik et al. 2020, section 5)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from terrarium.organisms.fleet import Fleet, Key, multiply, normal, per_member
from terrarium.organisms.network import Site
from terrarium.organisms.plain import save_plain
from terrarium.organisms.recipe import CoordinateModel


class Coordinate(Fleet):
    """A fleet of MLPs: ``(member, n, inputs)`` to ``(member, n, outputs)``, float32.

    The frequencies are drawn once and do not train.
    """

    def __init__(self, spec: CoordinateModel, keys: Sequence[Key]) -> None:
        super().__init__(spec, _shapes(spec), lambda key: _initial(spec, key), keys)
        self.layers = nn.ModuleList(Layer(self, i) for i in range(spec.layers))

    def forward(self, points: Tensor) -> Tensor:
        """Return the field at the points."""
        hidden = points
        if self.spec.frequencies:
            angle = 2 * math.pi * multiply(points, self.weights["frequencies"].detach())
            hidden = torch.cat([angle.sin(), angle.cos()], dim=-1)
        for layer in self.layers:
            hidden = layer(hidden)
        out = multiply(hidden, self.matrix("head.weight"))
        return out + per_member(self.weights["head.bias"], out)

    def sites(self) -> Mapping[str, Site]:
        """Return the hidden units of each layer, ``mlp.act[i]``."""
        return {f"mlp.act[{i}]": Site(layer) for i, layer in enumerate(self.layers)}

    def member_parameters(self, member: int, frozen: Sequence[str] = ()) -> list[nn.Parameter]:
        """Return the trainable leaves; the frequencies are not among them."""
        return super().member_parameters(member, (*frozen, "frequencies"))

    def save(self, member: int, folder: Path, tokenizer_json: str | None = None) -> None:
        """Write ``config.json`` and ``model.safetensors``."""
        save_plain(self.spec, self.member_state(member), folder)


class Layer(nn.Module):
    """One hidden layer with ReLU."""

    def __init__(self, network: Coordinate, index: int) -> None:
        super().__init__()
        self._network, self._name = (network,), f"layers.{index}"

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(member, n, width)``."""
        network = self._network[0]
        out = multiply(x, network.matrix(f"{self._name}.weight"))
        return torch.relu(out + per_member(network.weights[f"{self._name}.bias"], out))


def _shapes(spec: CoordinateModel) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    width = spec.inputs
    if spec.frequencies:
        shapes["frequencies"] = (spec.inputs, spec.frequencies)
        width = 2 * spec.frequencies
    for i in range(spec.layers):
        shapes |= {f"layers.{i}.weight": (width, spec.width), f"layers.{i}.bias": (spec.width,)}
        width = spec.width
    return shapes | {"head.weight": (width, spec.outputs), "head.bias": (spec.outputs,)}


def _initial(spec: CoordinateModel, key: Key) -> dict[str, Tensor]:
    state = {}
    for name, shape in _shapes(spec).items():
        if len(shape) == 1:
            state[name] = torch.zeros(shape)
        else:
            scale = spec.scale if name == "frequencies" else math.sqrt(2 / shape[0])
            state[name] = normal(key, name, shape, scale)
    return state
