"""Planted features whose nature is known: named, unnamed, and noise, with known importance.

They set the thresholds (`terrarium.instruments.frobnoloids.decide.calibrate`) and test the whole
road; those that test must have another key than those that set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from terrarium.errors import InputError
from terrarium.instruments.frobnoloids.arrays import keyed, phase_scrambled, shuffled
from terrarium.instruments.frobnoloids.filters import filtered
from terrarium.organisms.network import Site

Array = NDArray[Any]
Float = NDArray[np.float64]
SITE = "features"


@dataclass(frozen=True, eq=False)
class Plants:
    """Planted features on given images.

    Attributes
    ----------
    kind:
        ``(k,)`` ``"named"``, ``"unnamed"`` or ``"noise"``.
    important:
        ``(k,)`` whether the output needs it.
    made_of:
        What each was made from, in words.
    features:
        ``(n, rows, columns, k)``, standardised.
    runs:
        The same features as other initialisations would show them: in another order, of another
        sign, with noise; noise plants are others in each run.
    readout:
        ``(outputs, k + idle)`` weights of the output that the features enter.
    """

    kind: NDArray[np.str_]
    important: NDArray[np.bool_]
    made_of: tuple[str, ...] = field(repr=False)
    features: Float = field(repr=False)
    runs: tuple[Float, ...] = field(repr=False)
    readout: Float = field(repr=False)

    def network(self) -> LinearReadout:
        """Return the network whose site ``"features"`` holds them, and whose output needs them."""
        return LinearReadout(torch.from_numpy(self.readout).float())

    def inputs(self, images: int = 12, step: int = 2) -> NDArray[np.float32]:
        """Return ``(images, k + idle, ...)``: what that network takes, at every ``step``-th pixel.

        Its output at each pixel depends on that pixel alone, so that fewer do no harm.
        """
        seen = np.moveaxis(self.features[:images, ::step, ::step], -1, 1)
        idle = self.readout.shape[1] - seen.shape[1]
        return np.pad(seen, [(0, 0), (0, idle), (0, 0), (0, 0)]).astype(np.float32)

    def outputs(self, images: int = 12, step: int = 2) -> Float:
        """Return ``(images, outputs, ...)``: what that network says, its own truth."""
        found = np.einsum("ok,nkrc->norc", self.readout, self.inputs(images, step))
        return np.asarray(found, np.float64)


def plant(
    images: Array,
    vocabulary: Mapping[str, Array],
    held_out: Mapping[str, Array] | None = None,
    *,
    named: int = 16,
    unnamed: int = 16,
    noise: int = 16,
    important: float = 0.5,
    runs: int = 4,
    signal: float = 4.0,
    outputs: int = 24,
    idle: int = 64,
    key: Sequence[str | int] = (),
) -> Plants:
    """Return planted features on images ``(n, channels, rows, columns)``.

    Parameters
    ----------
    images, vocabulary:
        Images, and concept maps ``(n, rows, columns)`` by name (others are passed over): named
        plants are smooth functions of one of them, or sums of such functions of two.
    held_out:
        Concept maps that the vocabulary under test will not contain: half of the unnamed plants
        are functions of them; the others are textures of a hidden dictionary, products of what two
        random filters find a few pixels apart.
    named, unnamed, noise:
        How many of each.  Noise plants have the spectra of unnamed ones and random phases.
    important:
        Share of each kind that the output needs; the others enter it with a twentieth.
    runs, signal:
        Other initialisations; their ratio of feature to noise in standard deviations.
    outputs, idle:
        Channels of the output; channels of the site that hold nothing and that no output heeds,
        as most directions of a wide layer do.
    key:
        Decides everything.
    """
    pictures = np.asarray(images, np.float64)
    rng = keyed("plants", key)
    usable = _numbers(vocabulary, pictures)
    secret = _numbers(held_out or {}, pictures)
    made: list[Float] = []
    words: list[str] = []
    for number in range(named + unnamed):
        if number < named:
            values, told = _named(usable, rng)
        elif secret and number % 2:
            values, told = _of_held_out(secret, rng)
        else:
            values, told = _texture(pictures, rng)
        made.append(_standard(values))
        words.append(told)
    stack = np.stack(made, -1)
    sources = rng.choice(np.arange(named, named + unnamed), noise)
    fakes = [_fake(stack[..., sources], rng) for _ in range(runs + 1)]
    features = np.concatenate([stack, fakes[0]], -1)
    kind = np.repeat(["named", "unnamed", "noise"], [named, unnamed, noise])
    k = len(kind)
    needed = np.zeros(k, bool)
    for which in ("named", "unnamed", "noise"):
        own = np.flatnonzero(kind == which)
        needed[rng.permutation(own)[: round(important * len(own))]] = True
    readout = rng.standard_normal((outputs, k))
    readout *= np.where(needed, 1.0, 0.05) / np.linalg.norm(readout, axis=0)
    readout = np.pad(readout, [(0, 0), (0, idle)])
    told_all = (*words, *(f"noise with the spectrum of: {words[s]}" for s in sources))
    seen = tuple(_as_run(np.concatenate([stack, fake], -1), signal, rng) for fake in fakes[1:])
    return Plants(kind, needed, told_all, features, seen, readout)


def _numbers(maps: Mapping[str, Array], images: Float) -> dict[str, Float]:
    lead = (len(images), *images.shape[2:])
    kept = {}
    for name, values in maps.items():
        array = np.asarray(values)
        if array.shape == lead and array.dtype.kind == "f" and array.std() > 1e-9:
            kept[name] = _standard(array.astype(np.float64))
    if maps and not kept:
        raise InputError(f"Plants need at least one concept map of numbers of shape {lead}.")
    return kept


def _standard(values: Float) -> Float:
    return np.asarray((values - values.mean()) / max(float(values.std()), 1e-9))


def _named(concepts: Mapping[str, Float], rng: np.random.Generator) -> tuple[Float, str]:
    if not concepts:
        raise InputError("Named plants need a vocabulary; give concept maps.")
    names = list(concepts)
    chosen = rng.choice(len(names), min(len(names), int(rng.integers(1, 3))), replace=False)
    parts, told = [], []
    for index in chosen:
        word, values = _link(concepts[names[index]], rng)
        parts.append(_standard(values) * rng.choice([-1.0, 1.0]) * rng.uniform(0.7, 1.4))
        told.append(f"{word}({names[index]})")
    return np.sum(parts, 0), " + ".join(told)


def _link(values: Float, rng: np.random.Generator) -> tuple[str, Float]:
    word = str(rng.choice(["identity", "relu", "tanh", "square"]))
    shift = rng.uniform(-0.5, 0.7)
    found = {
        "identity": values,
        "relu": np.maximum(values - shift, 0.0),
        "tanh": np.tanh(2 * (values - shift)),
        "square": np.minimum(values, 3.0) ** 2,
    }[word]
    return (word, found) if found.std() > 1e-3 else ("identity", values)


def _of_held_out(concepts: Mapping[str, Float], rng: np.random.Generator) -> tuple[Float, str]:
    name = str(rng.choice(list(concepts)))
    word, values = _link(np.clip(concepts[name], -3, 3), rng)
    return values, f"{word}({name})"


def _texture(images: Float, rng: np.random.Generator) -> tuple[Float, str]:
    """Return where a pattern of a hidden dictionary stands: no edge, no Gabor, no one colour."""
    responses = []
    for _ in range(2):
        kernels = rng.standard_normal((images.shape[1], 5, 5))
        kernels -= kernels.mean((1, 2), keepdims=True)
        found = [filtered(images[:, c], kernel) for c, kernel in enumerate(kernels)]
        responses.append(_standard(np.sum(found, 0)))
    if rng.random() < 0.5:
        return np.hypot(*responses), "energy of two hidden patterns"
    return np.maximum(responses[0] - rng.uniform(0, 0.8), 0.0), "relu of a hidden pattern"


def _fake(maps: Float, rng: np.random.Generator) -> Float:
    """Return maps with the same spectra that have nothing to do with the images."""
    fake = phase_scrambled(shuffled(maps, np.arange(len(maps)), rng), rng)
    return np.asarray((fake - fake.mean((0, 1, 2))) / np.maximum(fake.std((0, 1, 2)), 1e-9))


def _as_run(features: Float, signal: float, rng: np.random.Generator) -> Float:
    k = features.shape[-1]
    noisy = features + rng.standard_normal(features.shape) / signal
    return np.asarray((noisy * rng.choice([-1.0, 1.0], k))[..., rng.permutation(k)])


class LinearReadout(nn.Module):
    """A network of one member: features ``(1, n, k, rows, columns)`` to a linear map of each pixel.

    Its site ``"features"`` holds what it is given.
    """

    def __init__(self, readout: Tensor) -> None:
        super().__init__()
        self.members = 1
        self.readout = nn.Parameter(readout)
        self.features = nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        """Return ``(1, n, outputs, rows, columns)``."""
        return torch.einsum("ok,mnkrc->mnorc", self.readout, self.features(features))

    def sites(self) -> Mapping[str, Site]:
        """Return the one site."""
        return {SITE: Site(self.features)}

    def member_parameters(self, member: int, frozen: Sequence[str] = ()) -> list[nn.Parameter]:
        """Return the readout."""
        return [self.readout]

    def member_state(self, member: int) -> dict[str, Tensor]:
        """Return a copy of the readout."""
        return {"readout": self.readout.detach().clone()}

    def load_member_state(self, member: int, state: Mapping[str, Tensor]) -> None:
        """Put back what `member_state` returned."""
        self.readout.data.copy_(state["readout"])

    def save(self, member: int, folder: Path, tokenizer_json: str | None = None) -> None:
        """Refuse: it is made from plants, whose key makes it again."""
        raise InputError("A readout of plants is not kept; make the plants again from their key.")

    def select(self, members: Sequence[int]) -> Self:
        """Return a copy."""
        return type(self)(self.readout.detach().clone())


def shapes(
    n: int, side: int, key: Sequence[str | int] = ()
) -> tuple[NDArray[np.float64], dict[str, Float]]:
    """Return images of two rounded shapes on textured ground, and their known maps.

    Images ``(n, 3, side, side)`` in [0, 1]; known: ``distance`` (pixels, negative inside) and
    ``mask``.  Small, for plants and tests; the worlds have better ones.
    """
    rng = keyed("shapes", key)
    y, x = np.mgrid[:side, :side].astype(np.float64)
    images, distances = [], []
    for _ in range(n):
        far = np.full((side, side), np.inf)
        ground = rng.uniform(0.2, 0.8, 3)[:, None, None]
        wave = rng.uniform(0.4, 1.6, 2) * rng.choice([-1, 1], 2)
        texture = 0.12 * np.sin(wave[0] * x + wave[1] * y) + 0.05 * rng.standard_normal(x.shape)
        picture = ground + texture + 0.2 * (x - side / 2) / side * rng.uniform(-1, 1)
        for _ in range(2):
            centre, size = rng.uniform(0.2, 0.8, 2) * side, rng.uniform(0.08, 0.2, 2) * side
            turn = rng.uniform(0, np.pi)
            u = (x - centre[0]) * np.cos(turn) + (y - centre[1]) * np.sin(turn)
            v = (y - centre[1]) * np.cos(turn) - (x - centre[0]) * np.sin(turn)
            out_u, out_v = np.abs(u) - size[0], np.abs(v) - size[1]
            outside = np.hypot(np.maximum(out_u, 0), np.maximum(out_v, 0))
            shape = outside + np.minimum(np.maximum(out_u, out_v), 0) - 0.06 * side
            cover = np.clip(0.5 - shape, 0, 1)
            colour = rng.uniform(0, 1, 3)[:, None, None] + 0.3 * texture
            picture = picture * (1 - cover) + colour * cover
            far = np.minimum(far, shape)
        images.append(np.clip(picture, 0, 1))
        distances.append(far)
    distance = np.array(distances)
    return np.array(images), {"distance": distance, "mask": (distance < 0).astype(np.float64)}
