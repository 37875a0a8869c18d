"""Coordinate networks of any shape: layers of their own widths and activations, as data.

What `terrarium.organisms.coordinate_file` loads; our own recipes grow
`terrarium.organisms.coordinate`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from terrarium.errors import InputError
from terrarium.organisms.fleet import Fleet, Key, multiply
from terrarium.organisms.network import Site
from terrarium.organisms.plain import save_plain
from terrarium.organisms.recipe_models import Spec

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "relu": torch.relu,
    "leaky_relu": F.leaky_relu,
    "sine": torch.sin,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softplus": F.softplus,
    "gelu": F.gelu,
    "silu": F.silu,
    "elu": F.elu,
}
Activation = Literal[
    "none",
    "relu",
    "leaky_relu",
    "sine",
    "tanh",
    "sigmoid",
    "softplus",
    "gelu",
    "silu",
    "elu",
]


class ForeignEncoding(Spec):
    """What becomes of the coordinates before the first layer.

    Attributes
    ----------
    kind:
        ``"positional"``: sines and cosines of 2^i times the coordinates, i below ``frequencies``,
        all coordinates' sines before their cosines for each i.  ``"fourier"``: sines of random
        projections, then their cosines; the projections are a matrix of the weights.
    identity:
        The coordinates themselves come first.
    factor:
        Angles are multiplied by this (pi or 2 pi in many codes).
    cosine_first:
        Cosines come before sines.
    matrix, transposed:
        Where the projections lie (``"fourier"``), and whether as ``(inputs, frequencies)``
        (otherwise ``(frequencies, inputs)``).
    """

    kind: Literal["none", "positional", "fourier"] = "none"
    frequencies: int = Field(0, ge=0, le=65536)
    identity: bool = False
    factor: float = 1.0
    cosine_first: bool = False
    matrix: str = ""
    transposed: bool = False

    @model_validator(mode="after")
    def _whole(self) -> ForeignEncoding:
        if self.kind == "positional" and not 0 < self.frequencies <= 24:
            raise ValueError("a positional encoding has 1 to 24 frequencies; give their number")
        if self.kind == "fourier" and not self.matrix:
            raise ValueError("Fourier features are projections; give the name of their matrix")
        return self

    def width(self, inputs: int) -> int:
        """Return the channels that ``inputs`` coordinates become."""
        if self.kind == "none":
            return inputs
        each = self.frequencies * (inputs if self.kind == "positional" else 1)
        return 2 * each + (inputs if self.identity else 0)


class ForeignLayer(Spec):
    """One linear layer and what follows it.

    Attributes
    ----------
    name:
        What its tensors ``<name>.weight`` and ``<name>.bias`` are called.
    activation, omega:
        The linear map is multiplied by omega before the activation.
    encoded:
        The layer is given the encoding once more, ``"before"`` or ``"after"`` what came so far.
    width:
        Its outputs; filled in from the weights.
    """

    name: str
    activation: Activation = "relu"
    omega: float = 1.0
    bias: bool = True
    encoded: Literal["before", "after"] | None = None
    width: int = Field(0, ge=0)


class ForeignModel(Spec):
    """A coordinate network made elsewhere.

    ``box`` (lower and upper corner) is mapped to [-1, 1] before the encoding; None leaves inputs as
    they are.  What the last layer gives is multiplied by ``output_scale`` (not 0), and
    ``output_offset`` added.
    """

    kind: Literal["coordinate_foreign"] = "coordinate_foreign"
    inputs: int = Field(ge=1)
    encoding: ForeignEncoding = ForeignEncoding()
    layers: tuple[ForeignLayer, ...] = Field(min_length=1)
    box: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    output_offset: float = 0.0
    output_scale: float = 1.0

    @model_validator(mode="after")
    def _fits_together(self) -> ForeignModel:
        if self.box is not None:
            low, high = self.box
            if not len(low) == len(high) == self.inputs:
                raise ValueError(f"box must have two corners of {self.inputs} numbers each")
            if not all(a < b for a, b in zip(low, high, strict=True)):
                raise ValueError("box must have its lower corner below its upper one on each axis")
        if self.output_scale == 0:
            raise ValueError("output_scale 0 makes every output alike; give another number")
        if self.layers[0].encoded:
            raise ValueError("the first layer is given the encoding anyway; leave encoded out")
        return self

    @property
    def outputs(self) -> int:
        """Numbers that come out."""
        return self.layers[-1].width

    def incoming(self, index: int) -> int:
        """Return how many channels enter a layer."""
        encoded = self.encoding.width(self.inputs)
        if index == 0:
            return encoded
        return self.layers[index - 1].width + (encoded if self.layers[index].encoded else 0)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return our names of all tensors and their shapes; matrices are ``(in, out)``."""
        found: dict[str, tuple[int, ...]] = {}
        if self.encoding.kind == "fourier":
            found["frequencies"] = (self.inputs, self.encoding.frequencies)
        for i, layer in enumerate(self.layers):
            found[f"layers.{i}.weight"] = (self.incoming(i), layer.width)
            if layer.bias:
                found[f"layers.{i}.bias"] = (layer.width,)
        return found


class ForeignCoordinate(Fleet):
    """A fleet of such networks: ``(member, n, inputs)`` to ``(member, n, outputs)``, float32.

    They begin at zero; their weights are loaded.  A Fourier matrix does not train.
    """

    def __init__(self, spec: ForeignModel, keys: Sequence[Key]) -> None:
        zeros = {name: torch.zeros(shape) for name, shape in spec.shapes().items()}
        super().__init__(spec, spec.shapes(), lambda key: zeros, keys)
        self.encoding = _Encoding(self)
        self.layers = nn.ModuleList(_Layer(self, i) for i in range(len(spec.layers)))

    def forward(self, points: Tensor) -> Tensor:
        """Return the field at the points; raises ``InputError`` for points of another shape."""
        spec = self.spec
        if points.dim() != 3 or points.shape[::2] != (self.members, spec.inputs):
            raise InputError(
                f"This coordinate network takes points ({self.members}, n, {spec.inputs}), "
                f"members first, and was given {tuple(points.shape)}."
            )
        if spec.box is not None:
            low, high = (points.new_tensor(corner) for corner in spec.box)
            points = (points - low) * (2 / (high - low)) - 1
        encoded = self.encoding(points)
        hidden = encoded
        for layer, told in zip(self.layers, spec.layers, strict=True):
            if told.encoded is not None:
                both = (encoded, hidden) if told.encoded == "before" else (hidden, encoded)
                hidden = torch.cat(both, dim=-1)
            hidden = layer(hidden)
        out: Tensor = hidden * spec.output_scale + spec.output_offset
        return out

    def sites(self) -> Mapping[str, Site]:
        """Return ``encoding.out`` where inputs are encoded, and the hidden ``mlp.act[i]``."""
        found = {} if self.spec.encoding.kind == "none" else {"encoding.out": Site(self.encoding)}
        hidden = list(self.layers)[:-1]
        return found | {f"mlp.act[{i}]": Site(layer) for i, layer in enumerate(hidden)}

    def member_parameters(self, member: int, frozen: Sequence[str] = ()) -> list[nn.Parameter]:
        """Return the trainable leaves; a Fourier matrix is not among them."""
        return super().member_parameters(member, (*frozen, "frequencies"))

    def save(self, member: int, folder: Path, tokenizer_json: str | None = None) -> None:
        """Write ``config.json`` and ``model.safetensors``."""
        save_plain(self.spec, self.member_state(member), folder)


class _Encoding(nn.Module):
    def __init__(self, network: ForeignCoordinate) -> None:
        super().__init__()
        self._network = (network,)

    def forward(self, points: Tensor) -> Tensor:
        network = self._network[0]
        spec = network.spec.encoding
        if spec.kind == "none":
            return points
        parts = [points] if spec.identity else []
        if spec.kind == "fourier":
            angles = [multiply(points, network.weights["frequencies"].detach())]
        else:
            angles = [points * 2.0**i for i in range(spec.frequencies)]
        for angle in angles:
            both = [(angle * spec.factor).sin(), (angle * spec.factor).cos()]
            parts += both[::-1] if spec.cosine_first else both
        return torch.cat(parts, dim=-1)


class _Layer(nn.Module):
    def __init__(self, network: ForeignCoordinate, index: int) -> None:
        super().__init__()
        self._network, self._name = (network,), f"layers.{index}"
        self._told = network.spec.layers[index]

    def forward(self, x: Tensor) -> Tensor:
        network = self._network[0]
        out = multiply(x, network.matrix(f"{self._name}.weight"))
        if self._told.bias:
            out = out + network.weights[f"{self._name}.bias"].unsqueeze(1)
        return ACTIVATIONS[self._told.activation](out * self._told.omega)
