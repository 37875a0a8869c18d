"""What every scene answers, and how a picture of it is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from terrarium.worlds.given import coordinates
from terrarium.worlds.scenes.camera import Camera
from terrarium.worlds.scenes.jet import Floats
from terrarium.worlds.scenes.lights import DirectionalLight, PointLight, shade

Lights = Sequence[DirectionalLight | PointLight]

RAYS = 1 << 18
"""Rays that `render` casts at a time, so that large pictures need little memory."""


class Hits(NamedTuple):
    """Where rays meet the surface first.

    ``depth`` (n,) in units along a direction of length 1, infinite where nothing is met; there
    ``colour`` and ``normals`` (n, 3) are 0.  ``normals`` point out of the solid.
    """

    depth: Floats
    colour: Floats
    normals: Floats

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Which rays meet anything, ``(n,)``."""
        return np.isfinite(self.depth)


@runtime_checkable
class Scene(Protocol):
    """The oracle of a scene.  Points are ``(n, 3)`` float64 in the scene's units."""

    @property
    def bounds(self) -> Floats:
        """The corners ``(2, 3)`` of the box about all of the scene."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know, a sentence each: repairs, holes, inexact formulas."""

    @property
    def lights(self) -> Lights:
        """The scene's own lights, none for plain colours."""

    @property
    def ambient(self) -> float:
        """The light that reaches every point, where there are lights."""

    def distance(self, points: Floats) -> Floats:
        """Return the signed distance ``(n,)`` to the surface, negative inside."""

    def occupancy(self, points: Floats) -> NDArray[np.bool_]:
        """Return which points ``(n,)`` lie inside."""

    def colour(self, points: Floats) -> Floats:
        """Return the colour ``(n, 3)`` in [0, 1], without light."""

    def normals(self, points: Floats) -> Floats:
        """Return the unit normal ``(n, 3)``, outwards, of the surface nearest to each point."""

    def closest(self, points: Floats) -> Floats:
        """Return the nearest point ``(n, 3)`` of the surface."""

    def curvature(self, points: Floats) -> Floats:
        """Return the mean curvature ``(n,)``, 1 / unit, of the surface nearest to each point.

        Positive where the solid bulges: 1 / r for a ball of radius r.
        """

    def parts(self, points: Floats) -> NDArray[np.int64]:
        """Return which part ``(n,)`` is nearest, counted from 0."""

    def cast(self, origins: Floats, directions: Floats) -> Hits:
        """Return where rays ``(n, 3)``, directions of length 1, first meet the surface."""

    def surface(self, n: int, rng: np.random.Generator) -> Floats:
        """Return ``n`` points of the surface, spread evenly over its area."""


class Picture(NamedTuple):
    """A rendered view: ``rgb`` (rows, columns, 3) in [0, 1], ``depth`` and ``mask`` beside it.

    ``depth`` is the distance along the ray, infinite where ``mask`` is False.
    """

    rgb: Floats
    depth: Floats
    mask: NDArray[np.bool_]


def render(
    scene: Scene,
    camera: Camera,
    *,
    lights: Lights | None = None,
    ambient: float | None = None,
    background: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> Picture:
    """Return the picture of ``scene`` that ``camera`` takes, one ray through each pixel.

    Lambert's law under ``lights``, by itself the scene's own; with none (``()``) the plain
    colours of the surface.
    """
    origins, directions = camera.rays()
    shape = origins.shape
    flat = origins.reshape(-1, 3), directions.reshape(-1, 3)
    rgb, depth = np.empty(flat[0].shape), np.empty(len(flat[0]))
    for start in range(0, len(depth), RAYS):
        part = slice(start, start + RAYS)
        rgb[part], depth[part] = seen(
            scene, flat[0][part], flat[1][part], lights, ambient, background
        )
    deep = depth.reshape(shape[:2])
    return Picture(rgb.reshape(shape), deep, np.isfinite(deep))


def seen(
    scene: Scene,
    origins: Floats,
    directions: Floats,
    lights: Lights | None = None,
    ambient: float | None = None,
    background: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> tuple[Floats, Floats]:
    """Return the colours ``(n, 3)`` and depths ``(n,)`` that rays ``(n, 3)`` see; see `render`."""
    hits = scene.cast(origins, directions)
    mask = hits.mask
    rgb = np.tile(np.asarray(background, dtype=np.float64), (len(mask), 1))
    points = origins[mask] + hits.depth[mask, None] * directions[mask]
    normals = hits.normals[mask]
    away = np.einsum("ni,ni->n", normals, directions[mask]) > 0
    facing = np.where(away[:, None], -normals, normals)  # the back of a sheet is lit as its front
    lights = scene.lights if lights is None else lights
    ambient = scene.ambient if ambient is None else ambient
    rgb[mask] = shade(hits.colour[mask], points, facing, lights, ambient)
    return rgb, hits.depth


@dataclass(frozen=True, eq=False)
class Framed:
    """A scene in other coordinates: shifted by ``-centre``, then divided by ``half``.

    All lengths are in units of ``half``, curvatures in 1 / half.
    """

    scene: Scene
    centre: Floats
    half: float

    def __repr__(self) -> str:
        """Say which scene and how it is placed."""
        return f"Framed({self.scene!r}, centre={self.centre.tolist()}, half={self.half:.6g})"

    def _back(self, points: Floats) -> Floats:
        return coordinates(points) * self.half + self.centre

    @property
    def bounds(self) -> Floats:
        """See `Scene`."""
        return np.asarray((self.scene.bounds - self.centre) / self.half)

    @property
    def notes(self) -> tuple[str, ...]:
        """See `Scene`."""
        return self.scene.notes

    @property
    def lights(self) -> Lights:
        """See `Scene`; positions are in these coordinates."""
        return [
            light.model_copy(
                update={
                    "position": tuple(
                        ((np.array(light.position) - self.centre) / self.half).tolist()
                    )
                }
            )
            if isinstance(light, PointLight)
            else light
            for light in self.scene.lights
        ]

    @property
    def ambient(self) -> float:
        """See `Scene`."""
        return self.scene.ambient

    def distance(self, points: Floats) -> Floats:
        """See `Scene`."""
        return np.asarray(self.scene.distance(self._back(points)) / self.half)

    def occupancy(self, points: Floats) -> NDArray[np.bool_]:
        """See `Scene`."""
        return self.scene.occupancy(self._back(points))

    def colour(self, points: Floats) -> Floats:
        """See `Scene`."""
        return self.scene.colour(self._back(points))

    def normals(self, points: Floats) -> Floats:
        """See `Scene`."""
        return self.scene.normals(self._back(points))

    def closest(self, points: Floats) -> Floats:
        """See `Scene`."""
        return np.asarray((self.scene.closest(self._back(points)) - self.centre) / self.half)

    def curvature(self, points: Floats) -> Floats:
        """See `Scene`."""
        return np.asarray(self.scene.curvature(self._back(points)) * self.half)

    def parts(self, points: Floats) -> NDArray[np.int64]:
        """See `Scene`."""
        return self.scene.parts(self._back(points))

    def cast(self, origins: Floats, directions: Floats) -> Hits:
        """See `Scene`."""
        hits = self.scene.cast(self._back(origins), coordinates(directions, "Directions"))
        return hits._replace(depth=hits.depth / self.half)

    def surface(self, n: int, rng: np.random.Generator) -> Floats:
        """See `Scene`."""
        return np.asarray((self.scene.surface(n, rng) - self.centre) / self.half)
