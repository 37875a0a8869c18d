"""An image autoencoder that was made elsewhere, as a fleet of one."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from terrarium.errors import InputError
from terrarium.organisms.huggingface import OneMember, only_member
from terrarium.organisms.network import Site
from terrarium.randomness import seed

_SLACK = 0.01
"""By how much images may leave [0, 1]: what resampling and rounding overshoot, and no more."""


class ImageAutoencoder(OneMember):
    """A fleet of one around an encoder and a decoder of images.

    ``network(images)`` takes ``(1, n, channels, rows, columns)`` in [0, 1], real numbers that it
    turns to the weights' own precision (float32), and gives the reconstructions, clamped to
    [0, 1]; sides must be multiples of ``stride``.

    Parameters
    ----------
    model:
        The module that holds all weights.
    encode, decode:
        ``encode(model, images)``: ``(n, channels, rows, columns)`` in [0, 1] to latents
        ``(n, latent_channels, rows / stride, columns / stride)``; ``decode(model, latents)`` back,
        not clamped.
    blocks:
        ``blocks(model)``: for ``"encoder"`` and ``"decoder"`` the layers that have weights, in the
        order of the forward pass.
    write:
        ``write(model, folder)`` saves so that `load_image_autoencoder` can read it.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        encode: Callable[[Any, Tensor], Tensor],
        decode: Callable[[Any, Tensor], Tensor],
        blocks: Callable[[Any], Mapping[str, Sequence[nn.Module]]],
        write: Callable[[Any, Path], None],
        channels: int,
        latent_channels: int,
        stride: int,
        name: str = "",
    ) -> None:
        super().__init__(model, name)
        self.latent = nn.Identity()
        self.channels, self.latent_channels, self.stride = channels, latent_channels, stride
        self._encode, self._decode, self._blocks, self._write = encode, decode, blocks, write

    @property
    def device(self) -> torch.device:
        """Where images go in."""
        return next(self.model.parameters()).device

    def forward(self, images: Tensor) -> Tensor:
        """Return the reconstructions ``(1, n, channels, rows, columns)`` in [0, 1]."""
        return self.decode(self.encode(images))

    def encode(self, images: Tensor) -> Tensor:
        """Return the latents ``(1, n, latent_channels, rows / stride, columns / stride)``.

        Raises ``InputError`` for images of another number of channels, of sides that are no
        multiples of ``stride``, of whole numbers, with NaN, or with values outside [0, 1].
        """
        self._check(images)
        self._check_values(images)
        weights = next(self.model.parameters())
        latents: Tensor = self.latent(self._encode(self.model, images[0].to(weights)))
        return latents[None]

    def decode(self, latents: Tensor) -> Tensor:
        """Return images in [0, 1] of latents shaped as those of `encode`."""
        if (
            latents.dim() != 5
            or latents.shape[:1] != (1,)
            or latents.shape[2] != (self.latent_channels)
        ):
            raise InputError(
                f"The autoencoder {self.name} decodes latents (1, n, {self.latent_channels}, rows, "
                f"columns), got {tuple(latents.shape)}; give what encode returns."
            )
        return self._decode(self.model, latents[0].to(self.device)).clamp(0, 1)[None]

    def _check(self, images: Tensor) -> None:
        if images.dim() != 5 or images.shape[0] != 1 or images.shape[2] != self.channels:
            raise InputError(
                f"The autoencoder {self.name} takes images (1, n, {self.channels}, rows, columns), "
                f"got {tuple(images.shape)}; give colour images with values in [0, 1]."
            )
        rows, columns = images.shape[3:]
        if rows % self.stride or columns % self.stride or not rows or not columns:
            raise InputError(
                f"The autoencoder {self.name} needs sides that are multiples of {self.stride}, got "
                f"{rows} x {columns}; crop the images to "
                f"{max(1, rows // self.stride) * self.stride} x "
                f"{max(1, columns // self.stride) * self.stride}."
            )

    def _check_values(self, images: Tensor) -> None:
        if not images.is_floating_point():
            raise InputError(
                f"The autoencoder {self.name} takes images of real numbers in [0, 1], got "
                f"{images.dtype}; divide by 255 where they are bytes."
            )
        if not images.numel():
            return
        low, high = (float(value) for value in images.detach().aminmax())
        if not (low >= -_SLACK and high <= 1 + _SLACK):  # NaN is on neither side
            raise InputError(
                f"The autoencoder {self.name} takes images with values in [0, 1], got {low:.4g} to "
                f"{high:.4g}; scale them to [0, 1] and leave out those that hold NaN."
            )

    def sites(self) -> Mapping[str, Site]:
        """Return ``encoder.block[i]``, ``latent`` (before any clamp) and ``decoder.block[i]``.

        A block is a layer with weights of its own (a convolution, a residual or attention block),
        counted from 0 in the order of the forward pass.
        """
        parts = self._blocks(self.model)
        found = {f"encoder.block[{i}]": b for i, b in enumerate(parts["encoder"])}
        found["latent"] = self.latent
        found |= {f"decoder.block[{i}]": b for i, b in enumerate(parts["decoder"])}
        return {name: Site(module, layout="single") for name, module in found.items()}

    def untrained(self, *key: str | int) -> ImageAutoencoder:
        """Return the same architecture with first weights, as PyTorch draws them, by ``key``."""
        fresh = copy.deepcopy(self)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed("untrained", *key))
            for module in fresh.modules():
                reset = getattr(module, "reset_parameters", None)
                if callable(reset):
                    reset()
        fresh.name = f"{self.name}.untrained"
        return fresh

    def save(self, member: int, folder: Path, tokenizer_json: str | None = None) -> None:
        """Write the weights (and config) in the layout they came in."""
        only_member(member)
        folder.mkdir(parents=True, exist_ok=True)
        self._write(self.model, folder)
