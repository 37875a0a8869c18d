"""Convolutional trunks with members: what autoencoders and classifiers of images share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from terrarium.organisms.fleet import Fleet, Key, multiply, normal, per_member

Shapes = dict[str, tuple[int, ...]]


class Stage(nn.Module):
    """Convolution 3x3 of stride 2, ReLU, then residual blocks.

    ``(member, n, channels, side, side)`` to ``(member, n, width, side / 2, side / 2)``.
    """

    def __init__(self, network: Fleet, index: int) -> None:
        super().__init__()
        self._network, self._name = (network,), stage_name("encoder", index)

    def forward(self, images: Tensor) -> Tensor:
        """Return the feature maps."""
        network = self._network[0]
        maps = torch.relu(convolve(images, network, self._name, stride=2))
        return residual(maps, network, self._name)


class Linear(nn.Module):
    """A linear map with bias of what comes in, flattened: ``(member, n, outputs)``."""

    def __init__(self, network: Fleet, name: str) -> None:
        super().__init__()
        self._network, self._name = (network,), name

    def forward(self, x: Tensor) -> Tensor:
        """Return the map's values."""
        network = self._network[0]
        out = multiply(x.flatten(2), network.matrix(f"{self._name}.weight"))
        return out + per_member(network.weights[f"{self._name}.bias"], out)


def convolve(x: Tensor, network: Fleet, name: str, stride: int) -> Tensor:
    """Convolve each member's images ``(member, n, c, h, w)`` with its own 3x3 kernels.

    One grouped convolution over the members.
    """
    members, n, channels, rows, columns = x.shape
    kernel, bias = network.weights[f"{name}.kernel"], network.weights[f"{name}.bias"]
    joined = x.transpose(0, 1).reshape(n, members * channels, rows, columns)
    out = F.conv2d(
        joined, kernel.flatten(0, 1), bias.flatten(), stride=stride, padding=1, groups=members
    )
    return out.view(n, members, -1, *out.shape[2:]).transpose(0, 1)


def residual(maps: Tensor, network: Fleet, name: str) -> Tensor:
    """Add the residual blocks of a stage: two convolutions, ReLU between and after the sum."""
    for block in range(network.spec.blocks):
        first, second = block_names(name, block)
        inner = torch.relu(convolve(maps, network, first, stride=1))
        maps = torch.relu(maps + convolve(inner, network, second, stride=1))
    return maps


def stage_name(part: str, index: int) -> str:
    """Return the name of a stage's tensors; the outermost stage of a part has no number."""
    return part if index == 0 else f"{part}.{index}"


def block_names(stage: str, block: int) -> tuple[str, str]:
    """Return the names of a residual block's two convolutions."""
    return f"{stage}.block{block}.first", f"{stage}.block{block}.second"


def stage_width(spec: Any, index: int) -> int:
    """Return the channels that leave a stage: they double from stage to stage."""
    return int(spec.width * 2**index)


def stage_side(spec: Any, index: int) -> int:
    """Return the rows (and columns) that leave a stage."""
    return int(spec.side // 2 ** (index + 1))


def trunk_shapes(spec: Any) -> Shapes:
    """Return the tensors of the encoder's stages; ``spec`` says channels, width, stages, blocks."""
    shapes: Shapes = {}
    channels = spec.channels
    for index in range(spec.stages):
        name, width = stage_name("encoder", index), stage_width(spec, index)
        shapes |= convolution_shapes(name, channels, width)
        shapes |= block_shapes(name, width, spec.blocks)
        channels = width
    return shapes


def trunk_size(spec: Any) -> int:
    """Return how many numbers leave the last stage for an image."""
    last = spec.stages - 1
    return stage_width(spec, last) * stage_side(spec, last) ** 2


def convolution_shapes(name: str, inputs: int, outputs: int) -> Shapes:
    """Return the tensors of one 3x3 convolution."""
    return {f"{name}.kernel": (outputs, inputs, 3, 3), f"{name}.bias": (outputs,)}


def block_shapes(stage: str, width: int, blocks: int) -> Shapes:
    """Return the tensors of a stage's residual blocks."""
    shapes: Shapes = {}
    for block in range(blocks):
        for name in block_names(stage, block):
            shapes |= convolution_shapes(name, width, width)
    return shapes


def linear_shapes(name: str, inputs: int, outputs: int) -> Shapes:
    """Return the tensors of one linear map."""
    return {f"{name}.weight": (inputs, outputs), f"{name}.bias": (outputs,)}


def initial_tensors(shapes: Mapping[str, tuple[int, ...]], key: Key) -> dict[str, Tensor]:
    """Draw a member's first tensors, He's for ReLU (He et al. 2015); biases are 0.

    The second convolution of a residual block is 0 at first, so that the block is the identity and
    depth changes nothing in scale (Zhang et al. 2019, Fixup).
    """
    state = {}
    for name, shape in shapes.items():
        if len(shape) == 1 or name.endswith(".second.kernel"):
            state[name] = torch.zeros(shape)
        else:
            inputs = math.prod(shape[1:]) if len(shape) == 4 else shape[0]
            state[name] = normal(key, name, shape, math.sqrt(2 / inputs))
    return state
