"""Drawing images from a denoiser: the deterministic sampler of second order.

Karras et al. 2022 (arXiv 2206.00364), algorithm 1 with its noise levels, equation 5.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from terrarium.errors import InputError
from terrarium.randomness import generator

Denoise = Callable[[NDArray[np.float64], float], NDArray[np.float64]]
"""``denoise(noisy (n, channels, rows, columns), sigma)`` to clean images of the same shape."""


def noise_levels(
    steps: int = 18, low: float = 0.01, high: float = 10.0, rho: float = 7.0
) -> NDArray[np.float64]:
    """Return ``(steps + 1,)`` levels falling from ``high`` to ``low``, then 0 (equation 5)."""
    if steps < 2 or not 0 < low < high:
        raise InputError(
            f"Sampling needs 2 steps or more and levels 0 < low < high; got {steps} steps from "
            f"{high:g} to {low:g}."
        )
    share = np.arange(steps) / (steps - 1)
    ends = high ** (1 / rho), low ** (1 / rho)
    return np.append((ends[0] + share * (ends[1] - ends[0])) ** rho, 0.0)


def heun(
    denoise: Denoise, start: NDArray[np.float64], levels: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Follow the flow from noisy images at ``levels[0]`` down to ``levels[-1]``, 0 (algorithm 1).

    Euler's step, corrected by the slope at its end (Heun) but for the last one.
    """
    x = start
    for now, after in itertools.pairwise(levels):
        slope = (x - denoise(x, float(now))) / now
        moved = x + (after - now) * slope
        if after > 0:
            end = (moved - denoise(moved, float(after))) / after
            moved = x + (after - now) * (slope + end) / 2
        x = moved
    return x


def draw(
    denoise: Denoise,
    n: int,
    shape: tuple[int, int, int],
    key: tuple[str | int, ...],
    levels: NDArray[np.float64] | None = None,
    centre: float = 0.5,
) -> NDArray[np.float64]:
    """Return ``n`` images drawn by any denoiser, the exact one included; ``key`` decides the noise.

    They start as white noise of the first level about ``centre``.
    """
    levels = noise_levels() if levels is None else levels
    white = generator("draw", *key).standard_normal((n, *shape))
    return heun(denoise, centre + levels[0] * white, levels)


def network_denoiser(network: Any, member: int = 0, rows: int = 512) -> Denoise:
    """Return a member of a fleet as a function of arrays, float64 outside and float32 inside."""
    alone = network if network.members == 1 else network.select([member])
    alone.eval()
    device = alone.member_parameters(0)[0].device

    @torch.no_grad()
    def denoise(noisy: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
        given = torch.from_numpy(np.asarray(noisy, np.float32)).to(device)
        starts = range(0, len(given), rows)
        parts = [alone(given[None, at : at + rows], sigma)[0].cpu() for at in starts]
        return np.asarray(torch.cat(parts).double().numpy())

    return denoise
