"""Procedural colours of space: closed forms that a YAML file holds.

A colour is a function of position in the coordinates of the shape that wears it (a solid texture:
Peachey 1985, SIGGRAPH), so that it moves with the shape.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from terrarium.worlds.scenes.jet import Floats

Channel = Annotated[float, Field(ge=0, le=1)]
RGB = tuple[Channel, Channel, Channel]
Vector = tuple[float, float, float]

Axis = Literal["x", "y", "z"]


class Frozen(BaseModel):
    """What all specs of a scene share: they are frozen, and know no other field."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Constant(Frozen):
    """One colour everywhere."""

    kind: Literal["constant"] = "constant"
    rgb: RGB = (0.7, 0.7, 0.7)

    def at(self, points: Floats) -> Floats:
        """Return the colour ``(n, 3)`` in [0, 1] at points ``(n, 3)``."""
        return np.tile(np.asarray(self.rgb, dtype=np.float64), (len(points), 1))


class Checker(Frozen):
    """Cubes of side ``size`` in two colours by turns; the first holds the cube from 0 to size."""

    kind: Literal["checker"] = "checker"
    first: RGB = (0.9, 0.9, 0.9)
    second: RGB = (0.1, 0.1, 0.1)
    size: float = Field(0.25, gt=0)

    def at(self, points: Floats) -> Floats:
        """Return the colour ``(n, 3)`` in [0, 1] at points ``(n, 3)``."""
        odd = np.floor(points / self.size).astype(np.int64).sum(axis=1) % 2
        return np.where(odd[:, None] == 1, self.second, self.first)


class Gradient(Frozen):
    """From ``first`` at the point ``start`` evenly to ``second`` at ``stop``, constant beyond."""

    kind: Literal["gradient"] = "gradient"
    first: RGB = (0.1, 0.2, 0.8)
    second: RGB = (0.9, 0.7, 0.1)
    start: Vector = (0.0, 0.0, -1.0)
    stop: Vector = (0.0, 0.0, 1.0)

    def at(self, points: Floats) -> Floats:
        """Return the colour ``(n, 3)`` in [0, 1] at points ``(n, 3)``."""
        start, along = np.array(self.start), np.subtract(self.stop, self.start)
        share = np.clip((points - start) @ along / max(along @ along, 1e-300), 0, 1)[:, None]
        return np.asarray((1 - share) * np.array(self.first) + share * np.array(self.second))


class Stripes(Frozen):
    """Stripes across an axis: ``sharp`` ones of half a period each, else a cosine between two."""

    kind: Literal["stripes"] = "stripes"
    first: RGB = (0.8, 0.2, 0.1)
    second: RGB = (0.95, 0.95, 0.9)
    axis: Axis = "z"
    period: float = Field(0.25, gt=0)
    sharp: bool = False

    def at(self, points: Floats) -> Floats:
        """Return the colour ``(n, 3)`` in [0, 1] at points ``(n, 3)``; at 0 it is ``first``."""
        phase = points[:, "xyz".index(self.axis)] / self.period
        share = (1 - np.cos(2 * np.pi * phase)) / 2
        if self.sharp:
            share = (np.mod(phase, 1.0) >= 0.5).astype(np.float64)
        mix = share[:, None]
        return np.asarray((1 - mix) * np.array(self.first) + mix * np.array(self.second))


Colour = Annotated[Constant | Checker | Gradient | Stripes, Field(discriminator="kind")]
