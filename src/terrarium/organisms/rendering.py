"""Training by volume rendering: rays are to see the colours that a world says they see.

Stratified samples: Mildenhall et al. 2020, eq. 2; the loss, of both nets where there are two: the
same, eq. 6.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from terrarium.errors import InputError
from terrarium.organisms.objectives import Step
from terrarium.organisms.radiance import RadianceField
from terrarium.organisms.radiance_render import Rays, Rendered, importance, march
from terrarium.organisms.recipe import Rendering
from terrarium.randomness import generator


def rendering_loss(objective: Rendering, network: Any, step: Step) -> Tensor:
    """Return the mean squared error of the rays' colours, ``(member,)``; nets' errors add up.

    ``step.inputs`` are rays ``(member, n, 6)`` and ``step.targets`` colours ``(member, n, 3)``.
    """
    _check(objective, network, step)
    rays = Rays.of(step.inputs)
    at, lengths = stratified(network, rays, objective, step)
    total = step.targets.new_zeros(network.members)
    found: Rendered | None = None
    for name in network.nets:
        if found is not None and objective.importance:
            at, lengths = refined(network, rays, objective, found, step)
        found = march(network, network.net(name), rays, at, lengths)
        total = total + (found.colour - step.targets).square().flatten(1).mean(dim=1)
    return total


def stratified(
    network: RadianceField, rays: Rays, objective: Rendering, step: Step
) -> tuple[Tensor, Tensor]:
    """Return a place drawn in each of even intervals, ``(member, n, s)``, and their lengths.

    Each member's numbers come from its own key; the middles if ``objective`` draws none.
    """
    spec, n, s = network.spec, rays.lengths.shape[1], objective.samples
    width = (spec.far - spec.near) / s
    within: Tensor = rays.lengths.new_full((1, 1, 1), 0.5)
    if objective.stratified:
        drawn = [generator("rays", *key).random((n, s), dtype=np.float32) for key in step.keys]
        within = torch.from_numpy(np.stack(drawn)).to(rays.lengths.device)
    at = spec.near + width * (torch.arange(s, device=rays.lengths.device) + within)
    lengths = (width * rays.lengths)[..., None].expand(-1, -1, s)
    return at.expand_as(lengths), lengths


def refined(
    network: RadianceField, rays: Rays, objective: Rendering, coarse: Rendered, step: Step
) -> tuple[Tensor, Tensor]:
    """Return the coarse samples and those drawn where they weigh, in order, and their lengths.

    A sample stands for what is nearer to it than to its neighbours, so that lengths sum to the
    ray's.
    """
    spec, n, k = network.spec, rays.lengths.shape[1], objective.importance
    even = (torch.arange(k, device=rays.lengths.device) + 0.5) / k
    uniforms = even.expand(network.members, n, k)
    if objective.stratified:
        drawn = [generator("fine", *key).random((n, k), dtype=np.float32) for key in step.keys]
        uniforms = torch.from_numpy(np.stack(drawn)).to(rays.lengths.device)
    more = importance(coarse.at, coarse.weights.detach(), uniforms)
    at = torch.cat([coarse.at, more], dim=-1).sort(dim=-1).values
    first, last = torch.full_like(at[..., :1], spec.near), torch.full_like(at[..., :1], spec.far)
    edges = torch.cat([first, (at[..., 1:] + at[..., :-1]) / 2, last], dim=-1)
    return at, torch.diff(edges, dim=-1) * rays.lengths[..., None]


def _check(objective: Rendering, network: Any, step: Step) -> None:
    if not isinstance(network, RadianceField):
        raise InputError(
            "Rendering trains radiance fields; give the recipe a model of kind 'radiance'."
        )
    if objective.importance and not network.spec.coarse:
        raise InputError(
            "Samples by importance need a coarse net; set the model's coarse, or importance to 0."
        )
    shapes = tuple(step.inputs.shape[2:]), tuple(step.targets.shape[2:])
    if shapes != ((6,), (3,)):
        raise InputError(
            f"Rendering learns from rays (n, 6) with colours (n, 3); the world gives {shapes[0]} "
            f"and {shapes[1]}, so ask it for views."
        )
