"""Networks of a kind at their site: activations, dictionaries, and what the output is judged by."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from terrarium.instruments.base import dictionaries
from terrarium.instruments.dictionaries.train import Training
from terrarium.instruments.quantities import absolute_error, nats, squared_error
from terrarium.organisms.build import build
from terrarium.organisms.fleet import normal
from terrarium.organisms.grow import Organism
from terrarium.readings.hooks import capture
from terrarium.studies.frobnoloids.organisms import (
    CLASSIFY,
    IMAGES,
    POINTS,
    QUIRKY,
    SITES,
    TEXT,
)
from terrarium.studies.frobnoloids.shown import given, positions_of
from terrarium.worlds.base import Batch

Array = NDArray[Any]
ROWS = 64
POINT_ROWS = 4096
ANSWERED = ((TEXT, CLASSIFY), QUIRKY)
"""Kinds that say one token at the end, which they are never shown."""


@dataclass(frozen=True, eq=False)
class Examples:
    """What a network is given, and the words at which it is read (None for images and points)."""

    inputs: Array = field(repr=False)
    positions: NDArray[np.int64] | None = field(repr=False)

    def some(self, rows: slice | NDArray[np.int64]) -> Examples:
        """Return some of the examples."""
        at = None if self.positions is None else self.positions[rows]
        return Examples(self.inputs[rows], at)


def examples(kind: tuple[str, str], batch: Batch, *key: str | int) -> Examples:
    """Return a batch as networks of a kind take it; those that answer never see the answer."""
    inputs, at = given(kind, batch, *key), positions_of(batch)
    if kind in ANSWERED and at is not None:
        inputs = inputs[:, : at.shape[1]]
    return Examples(inputs, at)


@torch.no_grad()
def activations(network: Any, shown: Examples, site: str) -> NDArray[np.float32]:
    """Return activations of a fleet of one.

    ``(n, rows, columns, d)`` of images, ``(n, p, d)`` of texts, ``(n, d)`` of points.
    """
    parts = []
    step = POINT_ROWS if shown.inputs.ndim == 2 and shown.positions is None else ROWS
    for start in range(0, len(shown.inputs), step):
        part = shown.some(slice(start, start + step))
        with capture(network, site, part.positions) as kept:
            network(torch.from_numpy(np.ascontiguousarray(part.inputs))[None])
        found = kept[site][0].float()
        parts.append(
            # maps hold their channels first, words theirs last
            (found.movedim(1, -1) if found.dim() == 4 else found).numpy()
        )
    return np.concatenate(parts)


def untrained(organism: Organism) -> Any:
    """Return the network as it was drawn.

    A denoiser's blocks end in maps that are 0 at first, so that nothing inside it could matter;
    here they are drawn like all others.
    """
    network: Any = build(organism.model, [("organism", organism.seed)]).eval()
    state = network.member_state(0)
    closed = [name for name, x in state.items() if _is_map(name) and not bool(x.any())]
    for name in closed:
        shape = tuple(state[name].shape)
        inputs = math.prod(shape[1:]) if name.endswith("kernel") else shape[0]
        state[name] = normal(("frobnoloids", organism.seed), name, shape, 1 / math.sqrt(inputs))
    network.load_member_state(0, state)
    return network


def _is_map(name: str) -> bool:
    return name.endswith((".kernel", ".weight"))


@dataclass(frozen=True)
class Fit:
    """How dictionaries are fitted: features, how many are active at once, rows shown in all."""

    features: int
    active: int
    samples: int

    def dictionary(self, network: Any, shown: Examples, site: str, seed: int) -> Any:
        """Return a TopK dictionary of the site's activations."""
        x = activations(network, shown, site)
        training = Training(samples=self.samples, batch=256, dead_after=self.samples // 8)
        spec = dictionaries.get("topk")(
            features=self.features, active=self.active, training=training, seed=seed
        )
        return spec.fit(x.reshape(-1, x.shape[-1]))


def encoded(fitted: Any, x: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return features in the shape that scores take: maps ``(n, r, c, k)``, rows ``(n * p, k)``."""
    flat = np.asarray(fitted.encode(x.reshape(-1, x.shape[-1])), np.float64)
    return flat.reshape(*x.shape[:3], -1) if x.ndim == 4 else flat


def quantity(kind: tuple[str, str], batch: Batch) -> Callable[[Array], Array]:
    """Return what the output is judged by, worse where there is more.

    Squared error to the true image; nats of the right class, of what is to be said, or of a row's
    tokens; absolute error to the true distance.
    """
    modality, objective = kind
    if modality == POINTS:
        return absolute_error(batch.targets)
    if modality == IMAGES:
        if objective == CLASSIFY:
            return nats(batch.facts["label"])
        return squared_error(batch.inputs)
    if kind in ANSWERED:
        at = batch.spans["answer"][:, 0]
        return nats(batch.inputs[np.arange(len(batch)), at], at - 1)
    return _token_nats(batch.inputs)


def _token_nats(tokens: Array) -> Callable[[Array], Array]:
    """Return the mean nats of a row's tokens, ``(n,)``, from logits ``(n, t, vocabulary)``."""

    def measure(output: Array) -> Array:
        logits = np.asarray(output, np.float64)
        top = logits.max(-1)
        total = top + np.log(np.exp(logits - top[..., None]).sum(-1))
        right = np.take_along_axis(logits, tokens[..., None], -1)[..., 0]
        return np.asarray((total - right).mean(-1))

    return measure


def sites(kind: tuple[str, str]) -> tuple[str, str]:
    """Return where circuits begin and where features are read."""
    return SITES[kind]


def shows_images(kind: tuple[str, str]) -> bool:
    """Return whether the output is an image."""
    return kind[0] == IMAGES and kind[1] != CLASSIFY
