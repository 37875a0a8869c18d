"""The objective of denoisers: squared error to the clean image, over all noise levels.

Karras et al. 2022 (arXiv 2206.00364), equations 2 and 8 and table 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from terrarium.errors import InputError
from terrarium.organisms.recipe_objectives import Denoising
from terrarium.randomness import generator

if TYPE_CHECKING:
    from terrarium.organisms.objectives import Step


def denoising_loss(objective: Denoising, network: Any, step: Step) -> Tensor:
    """Return ``(member,)`` weighted mean squared errors per pixel.

    Each image is seen at a noise level of its own; levels and noise are drawn by each member's key
    of the step, so that neither fleets nor interruptions change them.  The weight is the inverse
    variance of what the network has to add, ``(sigma**2 + d**2) / (sigma * d)**2``.  Raises
    ``InputError`` for networks that take no noise level.
    """
    data = getattr(network.spec, "sigma_data", None)
    if data is None:
        kind = network.spec.kind
        raise InputError(f"The objective 'denoising' needs a denoiser; the model is a '{kind}'.")
    drawn = [noise(objective, step.targets.shape[1:], key) for key in step.keys]
    device = step.targets.device
    sigma = torch.from_numpy(np.stack([levels for levels, _ in drawn])).to(device)
    white = torch.from_numpy(np.stack([white for _, white in drawn])).to(device)
    noisy = step.targets + sigma[..., None, None, None] * white
    error = (network(noisy, sigma) - step.targets).square().flatten(2).mean(dim=2)
    weight = (sigma**2 + data**2) / (sigma * data) ** 2
    loss: Tensor = (weight * error).mean(dim=1)
    return loss


def noise(
    objective: Denoising, shape: tuple[int, ...], key: tuple[str | int, ...]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return noise levels ``(n,)`` and white noise ``shape`` ``(n, ...)``, by key."""
    rng = generator(*key, "denoising")
    if objective.levels == "log_normal":
        log = objective.mean + objective.deviation * rng.standard_normal(shape[0])
        log = np.clip(log, np.log(objective.low), np.log(objective.high))
    else:
        log = rng.uniform(np.log(objective.low), np.log(objective.high), shape[0])
    return np.exp(log).astype(np.float32), rng.standard_normal(shape, dtype=np.float32)
