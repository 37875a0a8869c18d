"""What taking units out does, as numbers at every point; and what can be said of such maps.

A unit's removal sets it to its mean over the volume.  Beside units stand *matched directions*,
which move each point's activations as far as the unit does, and *turned units*: components along
the axes of a random rotation of the layer, which are set to their mean as units are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from terrarium.instruments.effects import exact_effects
from terrarium.instruments.quantities import channel
from terrarium.instruments.site_features import SiteFeatures
from terrarium.randomness import generator
from terrarium.readings.hooks import capture, edit

Float = NDArray[np.float64]

UNIT, MATCHED, TURNED = "unit", "matched direction", "turned unit"
FEATURE, AS_FEATURE = "feature", "matched to a feature"
"""Features of a sparse dictionary of a layer, and directions that move points as far as they do."""


@torch.no_grad()
def says(network: Any, points: NDArray[np.floating]) -> Float:
    """Return a fleet of one's outputs ``(n, outputs)`` at points ``(n, inputs)``."""
    parts = torch.split(torch.from_numpy(np.asarray(points, np.float32)), 1 << 14)
    found = [network(part[None])[0] for part in parts]
    return np.asarray(torch.cat(found).double().numpy())


@torch.no_grad()
def site_mean(network: Any, points: NDArray[np.floating], site: str) -> Float:
    """Return the mean activation ``(width,)`` of a site over points."""
    with capture(network, site) as kept:
        network(torch.from_numpy(np.asarray(points, np.float32))[None])
    return np.asarray(kept[site][0].double().mean(dim=0).numpy())


def centred(directions: Float, mean: Float, names: Sequence[str]) -> SiteFeatures:
    """Return features whose coefficients are components of the activation less its ``mean``.

    Taking one out (``how="zero"``) sets the component along the direction to that of the mean.
    ``directions`` ``(k, width)`` have length 1.
    """

    def coefficients(x: Tensor) -> Tensor:
        found: Tensor = (x - torch.from_numpy(mean).to(x)) @ torch.from_numpy(directions.T).to(x)
        return found

    return SiteFeatures(tuple(names), directions, coefficients)


def unit_features(mean: Float) -> SiteFeatures:
    """Return the units of a site with mean activation ``mean`` ``(width,)``."""
    return centred(np.eye(len(mean)), mean, [f"unit {j}" for j in range(len(mean))])


def turned_features(mean: Float, *key: str | int) -> SiteFeatures:
    """Return the axes of a random rotation of the site (uniform over rotations, by ``key``)."""
    normal = generator("scene", "turned", *key).standard_normal((len(mean), len(mean)))
    q, r = np.linalg.qr(normal)
    axes = np.ascontiguousarray((q * np.sign(np.diag(r))).T)
    return centred(axes, mean, [f"axis {j}" for j in range(len(mean))])


def changes(
    network: Any,
    points: NDArray[np.floating],
    site: str,
    features: SiteFeatures,
    outputs: int,
    randoms: int,
    *key: str | int,
) -> tuple[Float, Float]:
    """Return by how much the outputs change when each feature is taken out, at each point.

    ``(k, n, outputs)``, and ``(k, randoms, n, outputs)`` for matched directions.
    """
    inputs = np.asarray(points, np.float32)
    found = [
        exact_effects(network, inputs, site, features, channel(c), randoms=randoms, key=key)
        for c in range(outputs)
    ]
    own = np.stack([effects.change[0] for effects in found], axis=-1)
    return own, np.stack([effects.random[0] for effects in found], axis=-1)


@torch.no_grad()
def joint_change(
    network: Any,
    points: NDArray[np.floating],
    site: str,
    mean: Float,
    members: NDArray[np.int64],
) -> Float:
    """Return the change ``(n, outputs)`` of the outputs when several units are at their mean."""
    level = torch.from_numpy(mean[members])

    def removed(x: Tensor) -> Tensor:
        new = x.clone()
        new[..., members] = level.to(x)
        return new

    before = says(network, points)
    with edit(network, site, removed):
        return np.asarray(says(network, points) - before)


# Of maps of changes (..., n, outputs)


def cost(change: Float, error: Float) -> Float:
    """Return how much the mean absolute error rises: ``(..., n, outputs)`` to ``(...)``.

    ``error`` ``(n, outputs)`` is that of the untouched network, with its sign.
    """
    return np.asarray((np.abs(error + change) - np.abs(error)).mean(axis=(-2, -1)))


def size(change: Float) -> Float:
    """Return the root mean square of a change, ``(...)``."""
    return np.asarray(np.sqrt(np.square(change).mean(axis=(-2, -1))))


def footprint(change: Float) -> Float:
    """Return the participation ratio over points, ``(...)``: from 1 / n to 1.

    With e the squared change at a point, ``(sum e)^2 / (n sum e^2)``: the share of the points
    that a change of even size would cover.  NaN where nothing changes.
    """
    energy = np.square(change).sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = energy.sum(axis=-1) ** 2 / (energy.shape[-1] * np.square(energy).sum(axis=-1))
    return np.asarray(ratio)


def part_shares(change: Float, parts: NDArray[np.int64], count: int) -> Float:
    """Return ``(..., count)``: how much of a change's size falls on the points of each part."""
    length = np.sqrt(np.square(change).sum(axis=-1))
    sums = np.stack([length[..., parts == p].sum(axis=-1) for p in range(count)], axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(sums / sums.sum(axis=-1, keepdims=True))


def selectivity(shares: Float, even: Float) -> Float:
    """Return ``(...)``: what share of a change would have to move to be spread as points are.

    The total variation between ``shares`` ``(..., parts)`` and the points' own ``even``
    ``(parts,)``: 0 for a change that is spread evenly, 1 minus a part's share for one that falls
    on it alone.
    """
    return np.asarray(np.abs(shares - even).sum(axis=-1) / 2)


def slabs(points: Float, even: Float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Cut points ``(n, 3)`` into slabs across a random direction, as large as the parts.

    Places that are no parts, of the same shares ``even`` in random order: ``(n,)``.
    """
    direction = rng.standard_normal(3)
    order = np.argsort(points @ direction)
    shuffled = rng.permutation(len(even))
    ends = np.cumsum(even[shuffled]) * len(points)
    slab = np.searchsorted(ends[:-1], np.arange(len(points)), side="right")
    found = np.empty(len(points), np.int64)
    found[order] = shuffled[slab]
    return found


def interaction(joint: Float, singles: Float) -> float:
    """Return how far single changes ``(k, n, outputs)`` are from adding up to a joint one.

    The root mean square of their difference over that of the joint change: 0 where they add up.
    """
    left = float(size(joint - singles.sum(axis=0)))
    whole = float(size(joint))
    return left / whole if whole > 0 else float("nan")
