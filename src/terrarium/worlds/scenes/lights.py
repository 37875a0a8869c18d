"""Lights, and what a matt surface shows of them (Lambert's cosine law)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from terrarium.worlds.scenes.colours import Frozen, Vector
from terrarium.worlds.scenes.jet import Floats

Intensity = Annotated[float, Field(ge=0)]


class DirectionalLight(Frozen):
    """Light from afar; ``towards`` points from the scene to the light."""

    kind: Literal["directional"] = "directional"
    towards: Vector = (1.0, 1.0, 1.0)
    intensity: Intensity = 0.8

    @model_validator(mode="after")
    def _has_direction(self) -> DirectionalLight:
        if not any(self.towards):
            raise ValueError("towards must not be the zero vector")
        return self

    def reaching(self, points: Floats) -> tuple[Floats, float]:
        """Return unit vectors ``(n, 3)`` to the light, and its intensity."""
        return np.tile(_unit(np.array([self.towards])), (len(points), 1)), self.intensity


class PointLight(Frozen):
    """Light from a point of the scene, equally strong at any distance."""

    kind: Literal["point"] = "point"
    position: Vector = (0.0, 0.0, 3.0)
    intensity: Intensity = 0.8

    def reaching(self, points: Floats) -> tuple[Floats, float]:
        """Return unit vectors ``(n, 3)`` to the light, and its intensity."""
        return _unit(np.array(self.position) - points), self.intensity


Light = Annotated[DirectionalLight | PointLight, Field(discriminator="kind")]


def _unit(vectors: Floats) -> Floats:
    size = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(np.divide(vectors, size, out=np.zeros_like(vectors), where=size > 0))


def shade(
    colour: Floats,
    points: Floats,
    normals: Floats,
    lights: Sequence[DirectionalLight | PointLight],
    ambient: float,
) -> Floats:
    """Return the colours ``(n, 3)`` in [0, 1] under Lambert's law, without shadows.

    ``colour * (ambient + sum of intensity * max(0, normal . light))``, cut at 1; without any
    lights the colour itself.  All arrays are ``(n, 3)``; normals are of unit length.
    """
    if not lights:
        return colour
    total = np.full(len(points), ambient)
    for light in lights:
        towards, intensity = light.reaching(points)
        total += intensity * np.maximum(0.0, np.einsum("ni,ni->n", normals, towards))
    return np.asarray(np.clip(colour * total[:, None], 0.0, 1.0))
