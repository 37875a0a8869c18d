"""How a coordinate network's inputs enter it: as they are, as Fourier features, by a hash grid."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from terrarium.organisms.coordinate_hash import interpolate, levels_of, table_shape
from terrarium.organisms.fleet import Key, multiply, normal
from terrarium.organisms.recipe_models import CoordinateModel
from terrarium.randomness import generator

if TYPE_CHECKING:
    from terrarium.organisms.coordinate import Coordinate

FIRST_FEATURE = 1e-4
"""Features of a hash grid begin evenly between minus and plus this (the paper's section 4)."""


def kind_of(spec: CoordinateModel) -> str:
    """Return the encoding; Fourier features without frequencies are none."""
    return "none" if spec.encoding == "fourier" and not spec.frequencies else spec.encoding


def encoding_shapes(spec: CoordinateModel) -> dict[str, tuple[int, ...]]:
    """Return the encoding's own tensors.

    A hash grid's table has three axes, so that it is no matrix for adapters, and comes first in a
    member's row, where its pairs lie on even places.
    """
    if kind_of(spec) == "hash":
        return {"grid.table": table_shape(spec.grid, spec.inputs)}
    if kind_of(spec) == "fourier":
        return {"frequencies": (spec.inputs, spec.frequencies)}
    return {}


def encoding_width(spec: CoordinateModel) -> int:
    """Return the channels that the inputs become."""
    if kind_of(spec) == "hash":
        return len(levels_of(spec.grid, spec.inputs).cells) * spec.grid.features
    return 2 * spec.frequencies if kind_of(spec) == "fourier" else spec.inputs


def initial_encoding(spec: CoordinateModel, key: Key) -> dict[str, Tensor]:
    """Draw the encoding's first tensors."""
    drawn = {}
    for name, shape in encoding_shapes(spec).items():
        if name == "frequencies":
            drawn[name] = normal(key, name, shape, spec.scale)
        else:
            drawn[name] = uniform(key, name, shape, FIRST_FEATURE)
    return drawn


def uniform(key: Key, name: str, shape: tuple[int, ...], bound: float) -> Tensor:
    """Draw a float32 tensor evenly from [-bound, bound), by key and name."""
    drawn = generator("init", *key, name).random(shape, dtype="float32")
    return torch.from_numpy(drawn * 2 - 1) * bound


class Encoding(nn.Module):
    """Points ``(member, n, inputs)`` in [-1, 1] to channels ``(member, n, width)``."""

    def __init__(self, network: Coordinate) -> None:
        super().__init__()
        self._network = (network,)
        self._kind = kind_of(network.spec)

    def forward(self, points: Tensor) -> Tensor:
        """Return the encoding."""
        network = self._network[0]
        if self._kind == "hash":
            return interpolate(network.weights["grid.table"], (points + 1) / 2, network.spec.grid)
        if self._kind == "fourier":
            angle = 2 * math.pi * multiply(points, network.weights["frequencies"].detach())
            return torch.cat([angle.sin(), angle.cos()], dim=-1)
        return points
