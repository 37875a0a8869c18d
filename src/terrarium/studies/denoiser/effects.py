"""What removing a feature does to the regret: units, directions, or any change of a site.

A removal is a function of the site's activations, so that features of a dictionary can be measured
in the same way: ``lambda x: x - (code(x)[..., i, None] - mean) * directions[i]``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from terrarium.instruments.control_directions import isotropic, taking
from terrarium.randomness import generator
from terrarium.readings.hooks import capture, edit

Removal = Callable[[Tensor], Tensor]

_IMAGES = 384
"""Images in a forward pass."""

SITE = "act[2]"
"""The hidden units of the dense block, which see the whole image: one number each per image."""


def unit_removals(mean: Tensor) -> list[Removal]:
    """Return for each of ``k`` units the removal that sets it to its mean ``(k,)``."""
    return [_removed(place, mean, torch.eye(len(mean))[place]) for place in range(len(mean))]


def matched_removals(rows: Tensor, key: Sequence[str | int]) -> list[Removal]:
    """Return for each unit the same distance in a random direction, image by image.

    Every image is moved exactly as far as the unit's removal moves it, and over all ``rows``
    ``(n, channel)`` something is taken from the activations as the removal takes.
    """
    mean, width = rows.mean(dim=0), rows.shape[1]
    values = rows.double().numpy()
    units = isotropic(width, width, generator("directions", *key))
    along = -(values - values.mean(axis=0)).T @ values
    own = np.eye(width)
    signed = [taking(units[[j]], along[j], own[j])[0] for j in range(width)]
    directions = torch.from_numpy(np.stack(signed)).to(mean.dtype)
    return [_removed(place, mean, directions[place]) for place in range(width)]


def _removed(place: int, mean: Tensor, direction: Tensor) -> Removal:
    def change(x: Tensor) -> Tensor:
        return x - (x[..., place, None] - mean[place]) * direction

    return change


@torch.no_grad()
def site_rows(network: Any, noisy: NDArray[np.float64], sigma: float, site: str = SITE) -> Tensor:
    """Return activations ``(n, channel)`` of a fleet of one on images at a level."""
    with capture(network, site) as kept:
        network(torch.from_numpy(noisy.astype(np.float32))[None], sigma)
    return kept[site][0]


@torch.no_grad()
def removal_effects(
    network: Any,
    noisy: NDArray[np.float64],
    exact: NDArray[np.float64],
    sigma: float,
    removals: Mapping[str, Removal],
    site: str = SITE,
) -> dict[str, float]:
    """Return by how much each removal raises the mean squared regret per pixel at a level.

    ``network`` is a fleet of one; ``exact`` the exact denoiser's output on ``noisy``.  Several
    removals share a forward pass, each on a copy of the images.
    """
    n = len(noisy)
    images = torch.from_numpy(noisy.astype(np.float32))
    wanted = torch.from_numpy(exact)

    def regrets(changes: Sequence[Removal]) -> list[float]:
        def all_changes(x: Tensor) -> Tensor:
            parts = x.split(n, dim=1)  # type: ignore[no-untyped-call]
            return torch.cat([f(part) for f, part in zip(changes, parts, strict=True)], dim=1)

        copies = images.repeat(len(changes), 1, 1, 1)[None]
        with edit(network, site, all_changes):
            out = network(copies, sigma)[0].double().view(len(changes), *wanted.shape)
        means: list[float] = (out - wanted).square().flatten(1).mean(dim=1).tolist()
        return means

    (whole,) = regrets([lambda x: x])
    names, each = list(removals), max(1, _IMAGES // n)
    found: dict[str, float] = {}
    for start in range(0, len(names), each):
        some = names[start : start + each]
        values = regrets([removals[name] for name in some])
        found |= {name: value - whole for name, value in zip(some, values, strict=True)}
    return found
