"""A radiance field as the exact truth for a student: two functions of arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from terrarium.errors import InputError
from terrarium.organisms.radiance import Net, RadianceField

POINTS_AT_ONCE = 1 << 15


@dataclass(frozen=True)
class RadianceTruth:
    """What a radiance field says at points and in directions, computed in its float32."""

    net: Net
    device: torch.device

    @torch.no_grad()
    def density(self, points: NDArray[Any]) -> NDArray[np.float64]:
        """Return densities ``(n,)`` at points ``(n, 3)``, per unit of length."""
        found = [self.net.density(part)[0] for part in self._parts(points, "points")]
        return _together(found, ())

    @torch.no_grad()
    def colour(self, points: NDArray[Any], directions: NDArray[Any]) -> NDArray[np.float64]:
        """Return colours ``(n, 3)`` in ``[0, 1]`` at points, seen along directions ``(n, 3)``."""
        if np.shape(points) != np.shape(directions):
            raise InputError(
                f"Each point needs one direction; got {np.shape(points)} and "
                f"{np.shape(directions)}."
            )
        found = []
        both = zip(
            self._parts(points, "points"), self._parts(directions, "directions"), strict=True
        )
        for at, along in both:
            unit = along / torch.linalg.vector_norm(along, dim=-1, keepdim=True)
            found.append(self.net.colour(self.net.density(at)[1], unit))
        return _together(found, (3,))

    def _parts(self, values: NDArray[Any], name: str) -> list[Tensor]:
        given = np.asarray(values)
        if given.ndim != 2 or given.shape[1] != 3:
            raise InputError(f"The {name} must be (n, 3); got {given.shape}.")
        whole = torch.from_numpy(given.astype(np.float32)).to(self.device)
        return [part[None] for part in torch.split(whole, POINTS_AT_ONCE) if len(part)]


def as_truth(field: RadianceField, net: str | None = None) -> RadianceTruth:
    """Return the functions ``density`` and ``colour`` of a fleet of one; by default the fine net's.

    Raises ``InputError`` for a fleet of more, or for a net that is not there.
    """
    if field.members != 1:
        raise InputError(f"A truth is one field and this fleet has {field.members}; select one.")
    return RadianceTruth(field.net(net), field.device)


def _together(found: list[Tensor], shape: tuple[int, ...]) -> NDArray[np.float64]:
    if not found:
        return np.zeros((0, *shape))
    joined: NDArray[np.float64] = torch.cat([part[0] for part in found]).double().cpu().numpy()
    return joined
