"""A convolutional autoencoder of square images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from terrarium.organisms.convolutional import (
    Linear,
    Shapes,
    Stage,
    block_shapes,
    convolution_shapes,
    convolve,
    initial_tensors,
    linear_shapes,
    residual,
    stage_name,
    stage_side,
    stage_width,
    trunk_shapes,
    trunk_size,
)
from terrarium.organisms.fleet import Fleet, Key, multiply, per_member
from terrarium.organisms.network import Site
from terrarium.organisms.plain import save_plain
from terrarium.organisms.recipe import AutoencoderModel


class Autoencoder(Fleet):
    """A fleet of autoencoders: ``(member, n, channels, side, side)`` to the same, float32.

    Each of ``stages`` strided convolutions halves the sides and is followed by ``blocks`` residual
    blocks; then the code: a linear map to ``latent`` numbers, or a convolution to ``latent``
    channels at each place.  The decoder mirrors it: a linear map (or convolution) back, and for
    each stage residual blocks, a convolution and a pixel shuffle (Shi et al. 2016).
    """

    def __init__(self, spec: AutoencoderModel, keys: Sequence[Key]) -> None:
        super().__init__(spec, _shapes(spec), lambda key: initial_tensors(_shapes(spec), key), keys)
        self.encoder = nn.ModuleList(Stage(self, i) for i in range(spec.stages))
        self.latent = Linear(self, "latent") if spec.code == "vector" else LatentMap(self)
        self.expand = Expand(self)
        self.decoder = nn.ModuleList(UpStage(self, i) for i in reversed(range(spec.stages)))

    def forward(self, images: Tensor) -> Tensor:
        """Return the reconstructions."""
        return self.decode(self.encode(images))

    def encode(self, images: Tensor) -> Tensor:
        """Return the code: ``(member, n, latent)``, or ``(member, n, latent, rows, columns)``."""
        for stage in self.encoder:
            images = stage(images)
        code: Tensor = self.latent(images)
        return code

    def decode(self, code: Tensor) -> Tensor:
        """Return the images of a code."""
        maps: Tensor = self.expand(code)
        for stage in self.decoder:
            maps = stage(maps)
        return maps

    def sites(self) -> Mapping[str, Site]:
        """Return the maps that leave each stage, and the code.

        ``encoder.stage[i]`` (all but the last, which is ``encoder.out``), ``latent``,
        ``decoder.in`` and ``decoder.stage[i]`` (all but the last, which gives the image).
        """
        *inner, last = self.encoder
        found: dict[str, nn.Module] = {f"encoder.stage[{i}]": x for i, x in enumerate(inner)}
        found |= {"encoder.out": last, "latent": self.latent, "decoder.in": self.expand}
        found |= {f"decoder.stage[{i}]": x for i, x in enumerate(list(self.decoder)[:-1])}
        return {name: Site(module) for name, module in found.items()}

    def save(self, member: int, folder: Path, tokenizer_json: str | None = None) -> None:
        """Write ``config.json`` and ``model.safetensors``."""
        save_plain(self.spec, self.member_state(member), folder)


class LatentMap(nn.Module):
    """A convolution of the feature maps: ``(member, n, latent, rows, columns)``."""

    def __init__(self, network: Autoencoder) -> None:
        super().__init__()
        self._network = (network,)

    def forward(self, maps: Tensor) -> Tensor:
        """Return the code."""
        return convolve(maps, self._network[0], "latent", stride=1)


class Expand(nn.Module):
    """From the code to the decoder's first maps, after ReLU."""

    def __init__(self, network: Autoencoder) -> None:
        super().__init__()
        self._network = (network,)

    def forward(self, code: Tensor) -> Tensor:
        """Return ``(member, n, width, rows, columns)``."""
        network = self._network[0]
        if network.spec.code == "map":
            return torch.relu(convolve(code, network, "wide", stride=1))
        last = network.spec.stages - 1
        side = stage_side(network.spec, last)
        wide = multiply(code, network.matrix("wide.weight"))
        wide = torch.relu(wide + per_member(network.weights["wide.bias"], wide))
        return wide.view(*wide.shape[:2], stage_width(network.spec, last), side, side)


class UpStage(nn.Module):
    """Residual blocks, a convolution and a pixel shuffle: sides are doubled.

    Every stage but the last, which gives the image, ends in a ReLU.
    """

    def __init__(self, network: Autoencoder, index: int) -> None:
        super().__init__()
        self._network, self._index = (network,), index

    def forward(self, maps: Tensor) -> Tensor:
        """Return ``(member, n, channels, 2 rows, 2 columns)``."""
        network, name = self._network[0], stage_name("decoder", self._index)
        maps = residual(maps, network, name)
        made = F.pixel_shuffle(convolve(maps, network, name, stride=1), 2)
        return made if self._index == 0 else torch.relu(made)


def _shapes(spec: AutoencoderModel) -> Shapes:
    last = spec.stages - 1
    deepest = stage_width(spec, last)
    shapes = trunk_shapes(spec)
    if spec.code == "vector":
        flat = trunk_size(spec)
        shapes |= linear_shapes("latent", flat, spec.latent)
        shapes |= linear_shapes("wide", spec.latent, flat)
    else:
        shapes |= convolution_shapes("latent", deepest, spec.latent)
        shapes |= convolution_shapes("wide", spec.latent, deepest)
    for index in range(spec.stages):
        name, width = stage_name("decoder", index), stage_width(spec, index)
        made = spec.channels if index == 0 else stage_width(spec, index - 1)
        shapes |= block_shapes(name, width, spec.blocks)
        shapes |= convolution_shapes(name, width, 4 * made)
    return shapes
