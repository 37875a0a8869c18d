"""Radiance fields: density and colour at points and directions (Mildenhall et al. 2020, section 3).

A field is one network, or two as published: a coarse one, which says where to look, and a fine one,
which is looked at.  Rendering is in `radiance_render` (in full) and `radiance_fast`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from terrarium.errors import InputError, did_you_mean
from terrarium.organisms.fleet import Fleet, Key, multiply, normal
from terrarium.organisms.network import Site
from terrarium.organisms.plain import save_plain
from terrarium.organisms.recipe_models import Encoding, RadianceModel

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    # in place: what goes in is always a product of its own, which no gradient needs
    "none": lambda x: x,
    "relu": torch.relu_,
    "softplus": F.softplus,
    "exponential": torch.exp,
    "sigmoid": torch.sigmoid,
}


class RadianceField(Fleet):
    """A fleet of radiance fields: ``(member, n, 6)`` to ``(member, n, 4)``, float32.

    Inputs are a point and a viewing direction of unit length; outputs are a colour in ``[0, 1]``
    and a density (per unit of length, never negative).  Sites are named by net:
    ``fine.mlp.act[i]``, ``fine.density``, ``fine.feat.out``, ``fine.dir.act[i]``,
    ``fine.colour``, each ``(member, n, channel)``; hooks there act in rendering too.
    """

    spec: RadianceModel

    def __init__(self, spec: RadianceModel, keys: Sequence[Key]) -> None:
        super().__init__(spec, _shapes(spec), lambda key: _initial(spec, key), keys)
        self.nets = nn.ModuleDict({name: Net(self, name) for name in net_names(spec)})

    def forward(self, inputs: Tensor, directions: Tensor | None = None) -> Tensor:
        """Return colour and density of the finest net; all nets run, so that hooks see them.

        ``inputs`` is ``(member, n, 6)``, or points ``(member, n, 3)`` beside ``directions``.
        """
        if directions is None:
            inputs, directions = inputs[..., :3], inputs[..., 3:]
        out = inputs
        for name in self.nets:
            density, colour = self.net(name)(inputs, directions)
            out = torch.cat([colour, density[..., None]], dim=-1)
        return out

    def net(self, name: str | None = None) -> Net:
        """Return the net of that name, by default the finest; raises ``InputError``."""
        chosen = name or list(self.nets)[-1]
        if chosen not in self.nets:
            raise InputError(f"The field has no net '{chosen}'{did_you_mean(chosen, self.nets)}")
        net = self.nets[chosen]
        assert isinstance(net, Net)
        return net

    def sites(self) -> Mapping[str, Site]:
        """Return each net's hidden layers, density and colour, in the order of the forward pass."""
        found: dict[str, Site] = {}
        for name in self.nets:
            found |= {f"{name}.{site}": Site(part) for site, part in self.net(name).parts().items()}
        return found

    def save(self, member: int, folder: Path, tokenizer_json: str | None = None) -> None:
        """Write ``config.json`` and ``model.safetensors``."""
        save_plain(self.spec, self.member_state(member), folder)


class Net(nn.Module):
    """One network of a field: a trunk of points alone, and a head that knows the direction."""

    def __init__(self, field: RadianceField, name: str) -> None:
        super().__init__()
        spec = self.spec = field.spec
        of = spec.activations or ("relu",) * len(spec.widths)
        self.trunk = nn.ModuleList(
            Layer(field, f"{name}.trunk.{i}", act) for i, act in enumerate(of)
        )
        self.density_head = Layer(field, f"{name}.density", spec.density_activation, squeeze=True)
        self.feature = None
        if spec.feature is not None:
            self.feature = Layer(field, f"{name}.feature", spec.feature_activation)
        self.direction = nn.ModuleList(
            Layer(field, f"{name}.direction.{i}", "relu") for i in range(len(spec.direction_widths))
        )
        self.colour_head = Layer(field, f"{name}.colour", "sigmoid")

    def parts(self) -> dict[str, nn.Module]:
        """Return the modules at which activations are named."""
        found: dict[str, nn.Module] = {f"mlp.act[{i}]": m for i, m in enumerate(self.trunk)}
        found["density"] = self.density_head
        if self.feature is not None:
            found["feat.out"] = self.feature
        found |= {f"dir.act[{i}]": m for i, m in enumerate(self.direction)}
        return found | {"colour": self.colour_head}

    def forward(self, points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """Return densities ``(member, n)`` and colours ``(member, n, 3)``."""
        density, hidden = self.density(points)
        return density, self.colour(hidden, directions)

    def density(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Return densities ``(member, n)`` and what the colour is made of, ``(member, n, d)``."""
        encoded = encode(points, self.spec.position)
        hidden = encoded
        for i, layer in enumerate(self.trunk):
            if i in self.spec.skips:
                both = (hidden, encoded) if self.spec.skip_last else (encoded, hidden)
                hidden = torch.cat(both, dim=-1)
            hidden = layer(hidden)
        if self.feature is not None and self.spec.density_after_feature:
            hidden = self.feature(hidden)
        density: Tensor = self.density_head(hidden)
        return density, hidden

    def colour(self, hidden: Tensor, directions: Tensor) -> Tensor:
        """Return colours ``(member, n, 3)`` of what `density` gave, seen along ``directions``."""
        if self.feature is not None and not self.spec.density_after_feature:
            hidden = self.feature(hidden)
        if self.spec.direction is not None:
            hidden = torch.cat([hidden, encode(directions, self.spec.direction)], dim=-1)
        for layer in self.direction:
            hidden = layer(hidden)
        colour: Tensor = self.colour_head(hidden)
        return colour


class Layer(nn.Module):
    """A linear map with its activation; ``squeeze`` drops a last axis of length 1."""

    def __init__(
        self, field: RadianceField, name: str, activation: str, squeeze: bool = False
    ) -> None:
        super().__init__()
        self._field, self._name, self._squeeze = (field,), name, squeeze
        self._activation = _ACTIVATIONS[activation]

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(member, n, width)``."""
        field = self._field[0]
        out = multiply(x, field.matrix(f"{self._name}.weight"))
        out = self._activation(out.add_(field.weights[f"{self._name}.bias"][:, None]))
        return out.squeeze(-1) if self._squeeze else out


def encode(x: Tensor, spec: Encoding) -> Tensor:
    """Return the positional encoding of ``(..., 3)`` (Mildenhall et al. 2020, eq. 4).

    The coordinates first if ``identity``, then for each frequency the sines and the cosines of
    all of them.
    """
    if not spec.frequencies:
        return x
    unit = math.pi if spec.pi else 1.0
    times = x.new_tensor([[unit * 2.0**i] for i in range(spec.frequencies)])
    angle = x[..., None, :] * times
    waves = torch.stack([angle.sin(), angle.cos()], dim=-2).flatten(-3)
    return torch.cat([x, waves], dim=-1) if spec.identity else waves


def net_names(spec: RadianceModel) -> tuple[str, ...]:
    """Return the names of the nets, the finest last."""
    return ("coarse", "fine") if spec.coarse else ("fine",)


def net_shapes(spec: RadianceModel) -> dict[str, tuple[int, int]]:
    """Return the layers of one net and the ``(in, out)`` shape of their matrices."""
    shapes: dict[str, tuple[int, int]] = {}
    encoded = spec.position.width
    width = encoded
    for i, out in enumerate(spec.widths):
        shapes[f"trunk.{i}"] = (width + encoded * (i in spec.skips), out)
        width = out
    after = spec.feature or width
    shapes["density"] = (after if spec.density_after_feature else width, 1)
    if spec.feature is not None:
        shapes["feature"] = (width, after)
    width = after + (spec.direction.width if spec.direction is not None else 0)
    for i, out in enumerate(spec.direction_widths):
        shapes[f"direction.{i}"] = (width, out)
        width = out
    return shapes | {"colour": (width, 3)}


def _shapes(spec: RadianceModel) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for net in net_names(spec):
        for layer, (inner, outer) in net_shapes(spec).items():
            shapes |= {f"{net}.{layer}.weight": (inner, outer), f"{net}.{layer}.bias": (outer,)}
    return shapes


def _initial(spec: RadianceModel, key: Key) -> dict[str, Tensor]:
    return {
        name: torch.zeros(shape)
        if len(shape) == 1
        else normal(key, name, shape, math.sqrt(2 / shape[0]))
        for name, shape in _shapes(spec).items()
    }
