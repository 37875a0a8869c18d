"""Denoisers of square images: a small U-Net conditioned on the noise level.

Karras et al. 2022 (arXiv 2206.00364), equation 7 and table 1: what the network computes is scaled
so that its inputs, its targets and the loss have unit variance at every noise level.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from terrarium.errors import InputError
from terrarium.organisms.convolutional import (
    Linear,
    Shapes,
    convolution_shapes,
    convolve,
    initial_tensors,
    linear_shapes,
)
from terrarium.organisms.fleet import Fleet, Key
from terrarium.organisms.network import Site
from terrarium.organisms.plain import save_plain
from terrarium.organisms.recipe_models import DenoiserModel

PATCH = 2
"""Rows and columns of pixels that are one place of the first maps."""

WAVES = 6
"""Frequencies by which the network is told the noise level, a sine and a cosine each."""


class Denoiser(Fleet):
    """A fleet of denoisers: noisy images ``(member, n, channels, side, side)`` to clean ones.

    ``D(y; sigma) = c_skip y + c_out F(c_in y; c_noise)`` with pixels counted from
    ``centre``.  ``F``:
    patches of 2 x 2 pixels, a residual block; a strided convolution, a residual block, a dense
    residual block over all places; back by pixel shuffle, added to what left the first block; a
    residual block, and patches back to pixels.  The noise level scales and shifts the hidden units
    of each block.  The last convolution is 0 at first: untrained, ``F`` is 0 and ``D`` shrinks the
    noisy image towards the centre, the best there is for white images of spread ``sigma_data``.
    """

    def __init__(self, spec: DenoiserModel, keys: Sequence[Key]) -> None:
        super().__init__(spec, _shapes(spec), lambda key: _initial(spec, key), keys)
        self.level = Level(self)
        self.stem = Convolution(self, "stem")
        self.blocks = nn.ModuleList(
            Dense(self, name) if name == "blocks.2" else Block(self, name)
            for name in ("blocks.0", "blocks.1", "blocks.2", "blocks.3")
        )
        self.down = Convolution(self, "down", stride=2)
        self.up, self.head = Convolution(self, "up"), Convolution(self, "head")

    def forward(self, images: Tensor, sigma: Tensor | float | None = None) -> Tensor:
        """Return the denoised images.

        ``sigma`` is the noise level (standard deviation per pixel, positive): one number, one per
        image ``(n,)`` or ``(member, n)``; None takes ``spec.level``, for readings.
        """
        levels = self._levels(images, sigma)
        data = self.spec.sigma_data
        total = (levels**2 + data**2).sqrt()
        skip, out = _wide(data**2 / total**2), _wide(levels * data / total)
        centred = images - self.spec.centre
        maps = F.pixel_unshuffle(centred * _wide(1 / total), PATCH)
        code = self.level(levels)
        first = self.blocks[0](self.stem(maps), code)
        inner = self.blocks[1](self.down(first), code)
        inner = self.blocks[2](inner, code)
        maps = self.blocks[3](first + F.pixel_shuffle(self.up(inner), 2), code)
        change = F.pixel_shuffle(self.head(F.silu(maps)), PATCH)
        denoised: Tensor = self.spec.centre + skip * centred + out * change
        return denoised

    def _levels(self, images: Tensor, sigma: Tensor | float | None) -> Tensor:
        """Return the noise levels ``(member, n)``."""
        given = torch.as_tensor(self.spec.level if sigma is None else sigma, dtype=images.dtype)
        try:
            levels = given.to(images.device).expand(images.shape[:2])
        except RuntimeError:
            raise InputError(
                f"sigma must be one number or one per image; got {tuple(given.shape)} for "
                f"{images.shape[1]} images."
            ) from None
        if not bool((levels > 0).all() & levels.isfinite().all()):
            raise InputError("The network denoises finite levels above 0; got another sigma.")
        return levels

    def sites(self) -> Mapping[str, Site]:
        """Return the hidden units ``act[i]`` and what leaves each block, ``resid.post[i]``.

        Maps ``(member, n, channel, row, column)``, but for ``act[2]``, the hidden units of the
        dense block ``(member, n, channel)``; ``embed`` is what enters the first block, ``code`` the
        noise level's ``(member, n, channel)``.
        """
        found: dict[str, nn.Module] = {"code": self.level, "embed": self.stem}
        for i, block in enumerate(self.blocks):
            found[f"act[{i}]"] = block.get_submodule("hidden")
            found[f"resid.post[{i}]"] = block
        return {name: Site(module) for name, module in found.items()}

    def save(self, member: int, folder: Path, tokenizer_json: str | None = None) -> None:
        """Write ``config.json`` and ``model.safetensors``."""
        save_plain(self.spec, self.member_state(member), folder)


class Level(nn.Module):
    """What a network is told of the noise level: waves of ln(sigma) / 4, and a layer."""

    def __init__(self, network: Denoiser) -> None:
        super().__init__()
        self.dense = Linear(network, "level")

    def forward(self, levels: Tensor) -> Tensor:
        """Return ``(member, n, code)``."""
        frequency = math.pi * 2.0 ** torch.arange(-2, WAVES - 2, device=levels.device)
        angle = (levels.log() / 4)[..., None] * frequency
        out: Tensor = F.silu(self.dense(torch.cat([angle.sin(), angle.cos()], dim=-1)))
        return out


class Convolution(nn.Module):
    """A 3x3 convolution with members."""

    def __init__(self, network: Denoiser, name: str, stride: int = 1) -> None:
        super().__init__()
        self._network, self._name, self._stride = (network,), name, stride

    def forward(self, maps: Tensor) -> Tensor:
        """Return the new maps."""
        return convolve(maps, self._network[0], self._name, self._stride)


class Hidden(nn.Module):
    """Hidden units: what the first map gives, scaled and shifted by the noise level, SiLU."""

    def __init__(self, network: Denoiser, name: str) -> None:
        super().__init__()
        self.film = Linear(network, f"{name}.film")

    def forward(self, maps: Tensor, code: Tensor) -> Tensor:
        """Return the activations, shaped as ``maps`` (channels on axis 2)."""
        scale, shift = self.film(code).chunk(2, dim=2)
        shape = (*scale.shape, *(1,) * (maps.dim() - 3))
        return F.silu(maps * (1 + scale.view(shape)) + shift.view(shape))


class Block(nn.Module):
    """A residual block: convolution, hidden units, convolution."""

    def __init__(self, network: Denoiser, name: str) -> None:
        super().__init__()
        self.hidden = Hidden(network, name)
        self.first = Convolution(network, f"{name}.first")
        self.second = Convolution(network, f"{name}.second")

    def forward(self, maps: Tensor, code: Tensor) -> Tensor:
        """Return ``(member, n, channel, row, column)``."""
        out: Tensor = maps + self.second(self.hidden(self.first(F.silu(maps)), code))
        return out


class Dense(nn.Module):
    """A residual block whose hidden units see all places at once."""

    def __init__(self, network: Denoiser, name: str) -> None:
        super().__init__()
        self.hidden = Hidden(network, name)
        self.first, self.second = Linear(network, f"{name}.in"), Linear(network, f"{name}.out")

    def forward(self, maps: Tensor, code: Tensor) -> Tensor:
        """Return ``(member, n, channel, row, column)``."""
        change = self.second(self.hidden(self.first(F.silu(maps)), code))
        out: Tensor = maps + change.view(maps.shape)
        return out


def _wide(values: Tensor) -> Tensor:
    """Return ``(member, n)`` shaped to broadcast against images."""
    return values[..., None, None, None]


def _shapes(spec: DenoiserModel) -> Shapes:
    pixels, width = spec.channels * PATCH**2, spec.width
    places = (spec.side // PATCH // 2) ** 2
    shapes = linear_shapes("level", 2 * WAVES, spec.code)
    shapes |= convolution_shapes("stem", pixels, width)
    shapes |= convolution_shapes("down", width, 2 * width)
    shapes |= convolution_shapes("up", 2 * width, 4 * width)
    shapes |= convolution_shapes("head", width, pixels)
    for name, inner in (("blocks.0", width), ("blocks.1", 2 * width), ("blocks.3", width)):
        shapes |= convolution_shapes(f"{name}.first", inner, inner)
        shapes |= convolution_shapes(f"{name}.second", inner, inner)
        shapes |= linear_shapes(f"{name}.film", spec.code, 2 * inner)
    shapes |= linear_shapes("blocks.2.in", 2 * width * places, spec.hidden)
    shapes |= linear_shapes("blocks.2.out", spec.hidden, 2 * width * places)
    return shapes | linear_shapes("blocks.2.film", spec.code, 2 * spec.hidden)


def _initial(spec: DenoiserModel, key: Key) -> dict[str, Tensor]:
    """Draw first tensors; what closes a block, and the head, are 0, so that all is linear."""
    state = initial_tensors(_shapes(spec), key)
    for name in ("head.kernel", "blocks.2.out.weight"):
        state[name] = torch.zeros_like(state[name])
    for name in state:
        if name.endswith(".film.weight"):
            state[name] = 0.1 * state[name]
    return state
