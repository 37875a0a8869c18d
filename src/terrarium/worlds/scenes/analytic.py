"""Analytic scenes: a shape, its colours and lights, all of it closed forms that a YAML holds."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator

from terrarium.errors import InputError
from terrarium.worlds.given import coordinates
from terrarium.worlds.scenes import jet
from terrarium.worlds.scenes.colours import Frozen, Vector
from terrarium.worlds.scenes.jet import Floats
from terrarium.worlds.scenes.lights import Light
from terrarium.worlds.scenes.scene import Hits
from terrarium.worlds.scenes.shapes import Shape, edited, exactness, parts, trace

SHELL = 4e-3
"""Half the width of the shell about the surface, in diagonals, that `surface` draws from."""

STEPS = 512
"""The most steps of a ray; one that grazes the surface for longer counts as a miss."""

REACHED = 1e-9
"""A ray has arrived within this distance of the surface, in diagonals."""

_DRAWS = 100
"""Rounds of draws after which a surface counts as not to be found."""


class AnalyticScene(Frozen):
    """A scene whose right output is a formula.

    `distance` is the formula's value: the Euclidean signed distance where `notes` do not say
    otherwise, else a lower bound of it (in size) with the same sign.  `occupancy`, the surface
    itself, normals and curvature are exact throughout.  `colour` is a solid texture: that of the
    part which decides the distance, at the point itself.

    Attributes
    ----------
    extent:
        The corners of the box that counts as the scene; needed where the shape has no end (planes,
        repetition without end), by itself the box about the shape.  Rays see nothing beyond it.
    """

    kind: Literal["analytic"] = "analytic"
    shape: Shape
    lights: tuple[Light, ...] = ()
    ambient: Annotated[float, Field(ge=0)] = 0.2
    extent: tuple[Vector, Vector] | None = None

    @model_validator(mode="after")
    def _has_an_end(self) -> AnalyticScene:
        if not np.isfinite(self.bounds).all():
            raise ValueError(
                "the shape has no end; give extent, the corners of the box to look at, such as "
                "[[-1, -1, -1], [1, 1, 1]]"
            )
        if not (self.bounds[1] > self.bounds[0]).all():
            raise ValueError("the scene is empty: its box has no volume")
        return self

    @property
    def bounds(self) -> Floats:
        """The corners ``(2, 3)`` of the scene's box."""
        return self.shape.box() if self.extent is None else np.array(self.extent, dtype=np.float64)

    @property
    def exact(self) -> tuple[bool, bool]:
        """Whether the formula is the Euclidean distance outside, and inside."""
        return exactness(self.shape)

    @property
    def notes(self) -> tuple[str, ...]:
        """Where the formula is not the Euclidean distance."""
        inexact = [w for w, e in zip(("outside", "inside"), self.exact, strict=True) if not e]
        if not inexact:
            return ()
        return (
            f"{' and '.join(inexact).capitalize()} the formula is a lower bound of the distance; "
            "its sign, and so occupancy, is exact.",
        )

    @property
    def _size(self) -> float:
        return float(np.linalg.norm(self.bounds[1] - self.bounds[0]))

    def distance(self, points: Floats) -> Floats:
        """Return the formula's value ``(n,)`` at points ``(n, 3)``, negative inside."""
        x, y, z = coordinates(points).T
        return np.asarray(self.shape.field(x, y, z))

    def jet(self, points: Floats, order: int = 2) -> jet.Jet:
        """Return the formula with its exact gradient and (``order`` 2) Hessian at ``(n, 3)``."""
        found = self.shape.field(*jet.coordinates(coordinates(points), order))
        assert isinstance(found, jet.Jet)
        return found

    def occupancy(self, points: Floats) -> NDArray[np.bool_]:
        """Return which points ``(n,)`` lie inside."""
        return np.asarray(self.distance(points) < 0)

    def colour(self, points: Floats) -> Floats:
        """Return the solid texture ``(n, 3)`` in [0, 1] at the points themselves."""
        return trace(self.shape, coordinates(points)).colour

    def parts(self, points: Floats) -> NDArray[np.int64]:
        """Return the primitive ``(n,)`` that decides the distance, in the order of the spec."""
        return trace(self.shape, coordinates(points)).part

    def without(self, part: int) -> AnalyticScene:
        """Return the scene without one primitive, as `parts` counts them; its box stays.

        What is asked of the one scene can so be asked of the other, by a `Scenes` world in the same
        frame, too.  Raises ``InputError`` where there is no such primitive, or no other.
        """
        return self._edited(part, None)

    def with_moved(self, part: int, by: Vector) -> AnalyticScene:
        """Return the scene with one primitive shifted ``by`` (3,), its texture with it.

        The scene's box stays: rays see nothing of what leaves it.  Raises ``InputError`` where
        there is no such primitive, or no room for the shift in a grid's cell.
        """
        if np.shape(by) != (3,):
            raise InputError(f"The shift is {by!r:.60}; give three numbers, along x, y and z.")
        return self._edited(part, coordinates([by], "Shifts")[0])

    def _edited(self, part: int, by: Floats | None) -> AnalyticScene:
        count = parts(self.shape)
        if not 0 <= part < count:
            raise InputError(f"The scene has no part {part}; its parts are 0 to {count - 1}.")
        try:
            shape = edited(self.shape, part, by)
        except ValidationError as error:
            raise InputError(
                f"Part {part} cannot move there: {error.errors()[0]['msg']}."
            ) from None
        if shape is None:
            raise InputError(f"Without part {part} nothing is left of the scene; keep it.")
        told = {**dict(self), "shape": shape, "extent": self.bounds.tolist()}
        return AnalyticScene.model_validate(told)

    def normals(self, points: Floats) -> Floats:
        """Return the unit gradient ``(n, 3)``: the normal of the nearest surface.

        0 where there is none, such as at the centre of a ball.
        """
        return _unit(self.jet(points, 1).gradient)

    def closest(self, points: Floats) -> Floats:
        """Return points of the surface ``(n, 3)``: the nearest ones where the distance is exact.

        Newton's method along the gradient; one step where the formula is a distance.
        """
        found = coordinates(points).copy()
        moving = np.arange(len(found))
        for _ in range(30):
            here = self.jet(found[moving], 1)
            square = np.square(here.gradient).sum(axis=1, keepdims=True)
            step = np.divide(
                here.value[:, None] * here.gradient,
                square,
                out=np.zeros_like(here.gradient),
                where=square > 0,
            )
            found[moving] -= step
            moving = moving[np.linalg.norm(step, axis=1) > 1e-14 * self._size]
            if not len(moving):
                break
        return found

    def curvature(self, points: Floats) -> Floats:
        """Return the mean curvature ``(n,)`` of the surface at `closest`, in 1 / unit.

        NaN where the surface has none: at a point without a nearest one.  On an edge it is that
        of one of its sides (asked for a billionth of a diagonal within the solid).
        """
        there = self.closest(points) - 1e-9 * self._size * self.normals(points)
        return jet.mean_curvature(self.jet(there))

    def cast(self, origins: Floats, directions: Floats) -> Hits:
        """Return where rays first meet the surface, by sphere tracing (Hart 1996).

        Steps by the formula's value never pass a surface, since it is 1-Lipschitz; the last one is
        Newton's.  Depth is good to about 1e-9 diagonals over the cosine of the angle of incidence.
        """
        origins, directions = coordinates(origins), coordinates(directions, "Directions")
        start, stop = _slab(self.bounds, origins, directions)
        depth = np.full(len(origins), np.inf)
        rows, t = np.flatnonzero(start < stop), start[start < stop]
        for _ in range(STEPS):
            value = np.abs(self.distance(origins[rows] + t[:, None] * directions[rows]))
            arrived = value <= REACHED * self._size
            depth[rows[arrived]] = t[arrived]
            on = ~arrived & (t + value <= stop[rows])
            rows, t = rows[on], (t + value)[on]
            if not len(rows):
                break
        hit = np.flatnonzero(np.isfinite(depth))
        points = origins[hit] + depth[hit, None] * directions[hit]
        normals, colour = np.zeros_like(origins), np.zeros_like(origins)
        normals[hit], colour[hit] = self.normals(points), self.colour(points)
        return Hits(depth, colour, normals)

    def surface(self, n: int, rng: np.random.Generator) -> Floats:
        """Return ``n`` points of the surface, even by area.

        Points even in a shell of half width `SHELL` diagonals about the surface, carried to the
        surface along the gradient: even by area but for terms of the order of (width x
        curvature) squared, and at edges, which draw a little more.
        """
        width = SHELL * self._size
        low, high = self.bounds + np.array([[-width], [width]])
        found: list[Floats] = []
        have = 0
        for _ in range(_DRAWS):
            tried = rng.uniform(low, high, (max(20_000, 16 * n), 3))
            near = tried[np.abs(self.distance(tried)) < width]
            here = self.jet(near, 1)
            slope = np.linalg.norm(here.gradient, axis=1)
            kept = self.closest(near[np.abs(here.value) < width * slope])
            kept = kept[((kept >= low) & (kept <= high)).all(axis=1)]
            found.append(kept)
            have += len(kept)
            if have >= n:
                return np.concatenate(found)[:n]
        raise InputError(
            "The scene's surface was not found in its box; check that its shapes overlap as meant "
            "(an intersection may be empty), and extent."
        )


def _unit(vectors: Floats) -> Floats:
    size = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(np.divide(vectors, size, out=np.zeros_like(vectors), where=size > 0))


def _slab(box: Floats, origins: Floats, directions: Floats) -> tuple[Floats, Floats]:
    """Return where rays enter (at least 0) and leave a box; they miss it where start >= stop."""
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = 1.0 / directions
        one, two = (box[0] - origins) * inverse, (box[1] - origins) * inverse
    # 0 / 0: a ray within a face of the box, which does not limit it
    low = np.where(np.isnan(one) | np.isnan(two), -np.inf, np.minimum(one, two)).max(axis=1)
    high = np.where(np.isnan(one) | np.isnan(two), np.inf, np.maximum(one, two)).min(axis=1)
    return np.maximum(low, 0.0), high
