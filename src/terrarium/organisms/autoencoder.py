"""A small convolutional autoencoder of square images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from terrarium.organisms.fleet import Fleet, Key, multiply, normal, per_member
from terrarium.organisms.network import Site
from terrarium.organisms.plain import save_plain
from terrarium.organisms.recipe import AutoencoderModel


class Autoencoder(Fleet):
    """A fleet of autoencoders: ``(member, n, channels, side, side)`` to the same, float32.

    One strided convolution and a linear map to ``latent`` numbers; a linear map, one convolution
    and a pixel shuffle back.  Convolutions run as one grouped convolution over the members.
    """

    def __init__(self, spec: AutoencoderModel, keys: Sequence[Key]) -> None:
        super().__init__(spec, _shapes(spec), lambda key: _initial(spec, key), keys)
        self.encoder, self.latent, self.decoder = Encoder(self), Latent(self), Decoder(self)

    def forward(self, images: Tensor) -> Tensor:
        """Return the reconstructions."""
        out: Tensor = self.decoder(self.latent(self.encoder(images)))
        return out

    def sites(self) -> Mapping[str, Site]:
        """Return ``encoder.out`` (images) and ``latent`` (member, n, channel)."""
        return {"encoder.out": Site(self.encoder), "latent": Site(self.latent)}

    def save(self, member: int, folder: Path, tokenizer_json: str | None = None) -> None:
        """Write ``config.json`` and ``model.safetensors``."""
        save_plain(self.spec, self.member_state(member), folder)


class Encoder(nn.Module):
    """Convolution 3x3 of stride 2 and ReLU: ``(member, n, width, side / 2, side / 2)``."""

    def __init__(self, network: Autoencoder) -> None:
        super().__init__()
        self._network = (network,)

    def forward(self, images: Tensor) -> Tensor:
        """Return the feature maps."""
        return torch.relu(convolve(images, self._network[0], "encoder", stride=2))


class Latent(nn.Module):
    """A linear map of the feature maps: ``(member, n, latent)``."""

    def __init__(self, network: Autoencoder) -> None:
        super().__init__()
        self._network = (network,)

    def forward(self, maps: Tensor) -> Tensor:
        """Return the code."""
        network = self._network[0]
        out = multiply(maps.flatten(2), network.matrix("latent.weight"))
        return out + per_member(network.weights["latent.bias"], out)


class Decoder(nn.Module):
    """From the code to images."""

    def __init__(self, network: Autoencoder) -> None:
        super().__init__()
        self._network = (network,)

    def forward(self, code: Tensor) -> Tensor:
        """Return ``(member, n, channels, side, side)``."""
        network = self._network[0]
        spec, half = network.spec, network.spec.side // 2
        wide = multiply(code, network.matrix("wide.weight"))
        wide = torch.relu(wide + per_member(network.weights["wide.bias"], wide))
        maps = wide.view(*wide.shape[:2], spec.width, half, half)
        return F.pixel_shuffle(convolve(maps, network, "decoder", stride=1), 2)


def convolve(x: Tensor, network: Autoencoder, name: str, stride: int) -> Tensor:
    """Convolve each member's images ``(member, n, c, h, w)`` with its own kernels."""
    members, n, channels, rows, columns = x.shape
    kernel, bias = network.weights[f"{name}.kernel"], network.weights[f"{name}.bias"]
    joined = x.transpose(0, 1).reshape(n, members * channels, rows, columns)
    out = F.conv2d(
        joined, kernel.flatten(0, 1), bias.flatten(), stride=stride, padding=1, groups=members
    )
    return out.view(n, members, -1, *out.shape[2:]).transpose(0, 1)


def _shapes(spec: AutoencoderModel) -> dict[str, tuple[int, ...]]:
    flat = spec.width * (spec.side // 2) ** 2
    return {
        "encoder.kernel": (spec.width, spec.channels, 3, 3),
        "encoder.bias": (spec.width,),
        "latent.weight": (flat, spec.latent),
        "latent.bias": (spec.latent,),
        "wide.weight": (spec.latent, flat),
        "wide.bias": (flat,),
        "decoder.kernel": (4 * spec.channels, spec.width, 3, 3),
        "decoder.bias": (4 * spec.channels,),
    }


def _initial(spec: AutoencoderModel, key: Key) -> dict[str, Tensor]:
    state = {}
    for name, shape in _shapes(spec).items():
        if len(shape) == 1:
            state[name] = torch.zeros(shape)
        else:
            inputs = math.prod(shape[1:]) if len(shape) == 4 else shape[0]
            state[name] = normal(key, name, shape, math.sqrt(2 / inputs))
    return state
