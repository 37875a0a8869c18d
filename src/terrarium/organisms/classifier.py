"""A convolutional classifier of square images, with the autoencoder's trunk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from terrarium.organisms.convolutional import (
    Linear,
    Shapes,
    Stage,
    initial_tensors,
    linear_shapes,
    trunk_shapes,
    trunk_size,
)
from terrarium.organisms.fleet import Fleet, Key
from terrarium.organisms.network import Site
from terrarium.organisms.plain import save_plain
from terrarium.organisms.recipe import ClassifierModel


class Classifier(Fleet):
    """A fleet of classifiers: ``(member, n, channels, side, side)`` to logits ``(.., classes)``.

    The stages are those of `terrarium.organisms.autoencoder.Autoencoder`, and so are their first
    weights for the same key; then a linear map to ``latent`` numbers, ReLU, a linear map to the
    logits.
    """

    def __init__(self, spec: ClassifierModel, keys: Sequence[Key]) -> None:
        super().__init__(spec, _shapes(spec), lambda key: initial_tensors(_shapes(spec), key), keys)
        self.encoder = nn.ModuleList(Stage(self, i) for i in range(spec.stages))
        self.latent = Linear(self, "latent")
        self.head = Linear(self, "head")

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits ``(member, n, classes)``."""
        for stage in self.encoder:
            images = stage(images)
        logits: Tensor = self.head(torch.relu(self.latent(images)))
        return logits

    def sites(self) -> Mapping[str, Site]:
        """Return ``encoder.stage[i]`` (the last is ``encoder.out``) and ``latent``, before ReLU."""
        *inner, last = self.encoder
        found: dict[str, nn.Module] = {f"encoder.stage[{i}]": x for i, x in enumerate(inner)}
        found |= {"encoder.out": last, "latent": self.latent}
        return {name: Site(module) for name, module in found.items()}

    def save(self, member: int, folder: Path, tokenizer_json: str | None = None) -> None:
        """Write ``config.json`` and ``model.safetensors``."""
        save_plain(self.spec, self.member_state(member), folder)


def _shapes(spec: ClassifierModel) -> Shapes:
    shapes = trunk_shapes(spec) | linear_shapes("latent", trunk_size(spec), spec.latent)
    return shapes | linear_shapes("head", spec.latent, spec.classes)
