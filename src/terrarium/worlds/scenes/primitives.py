"""Primitives: shapes whose signed distance is a closed form, negative inside.

Formulas: Quilez, "distance functions" (the article on 3D primitives); every one is the exact
Euclidean distance, inside as well as outside.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from terrarium.worlds.scenes import jet
from terrarium.worlds.scenes.colours import Colour, Constant, Frozen, Vector
from terrarium.worlds.scenes.jet import Floats, Scalar

Positive = Annotated[float, Field(gt=0)]

# Every primitive has `field` (the signed distance at coordinates), `box` (the corners (2, 3) of the
# axis-aligned box about it) and a `colour`; it is one part of the scene.


def _about(*half: float) -> Floats:
    return np.array([[-h for h in half], list(half)], dtype=np.float64)


def _box_field(x: Scalar, y: Scalar, z: Scalar, half: Vector) -> Scalar:
    beyond = [jet.absolute(c) - h for c, h in zip((x, y, z), half, strict=True)]
    outside = jet.length(*(jet.maximum(b, 0.0) for b in beyond))
    most = jet.maximum(beyond[0], jet.maximum(beyond[1], beyond[2]))
    return outside + jet.minimum(most, 0.0)


class Sphere(Frozen):
    """A ball about the origin."""

    kind: Literal["sphere"] = "sphere"
    colour: Colour = Constant()
    radius: Positive = 0.5

    def field(self, x: Scalar, y: Scalar, z: Scalar) -> Scalar:
        """Return the signed distance."""
        return jet.length(x, y, z) - self.radius

    def box(self) -> Floats:
        """Return the box about it."""
        return _about(self.radius, self.radius, self.radius)


class Box(Frozen):
    """A box about the origin; ``half`` are half its sides."""

    kind: Literal["box"] = "box"
    colour: Colour = Constant()
    half: tuple[Positive, Positive, Positive] = (0.5, 0.5, 0.5)

    def field(self, x: Scalar, y: Scalar, z: Scalar) -> Scalar:
        """Return the signed distance."""
        return _box_field(x, y, z, self.half)

    def box(self) -> Floats:
        """Return the box about it."""
        return _about(*self.half)


class RoundedBox(Frozen):
    """A box with edges and corners of the given radius; ``half`` are half its outer sides."""

    kind: Literal["rounded_box"] = "rounded_box"
    colour: Colour = Constant()
    half: tuple[Positive, Positive, Positive] = (0.5, 0.5, 0.5)
    radius: Positive = 0.1

    @model_validator(mode="after")
    def _fits(self) -> RoundedBox:
        if self.radius > min(self.half):
            raise ValueError(f"radius {self.radius} is larger than half a side, {min(self.half)}")
        return self

    def field(self, x: Scalar, y: Scalar, z: Scalar) -> Scalar:
        """Return the signed distance."""
        a, b, c = (h - self.radius for h in self.half)
        return _box_field(x, y, z, (a, b, c)) - self.radius

    def box(self) -> Floats:
        """Return the box about it."""
        return _about(*self.half)


class Torus(Frozen):
    """A ring about the z axis: a tube of radius ``minor`` along a circle of radius ``major``."""

    kind: Literal["torus"] = "torus"
    colour: Colour = Constant()
    major: Positive = 0.5
    minor: Positive = 0.2

    @model_validator(mode="after")
    def _open(self) -> Torus:
        if self.minor >= self.major:
            raise ValueError(f"minor {self.minor} must be less than major {self.major}")
        return self

    def field(self, x: Scalar, y: Scalar, z: Scalar) -> Scalar:
        """Return the signed distance."""
        return jet.length(jet.length(x, y) - self.major, z) - self.minor

    def box(self) -> Floats:
        """Return the box about it."""
        outer = self.major + self.minor
        return _about(outer, outer, self.minor)


class Capsule(Frozen):
    """All points within ``radius`` of the segment from ``start`` to ``stop``."""

    kind: Literal["capsule"] = "capsule"
    colour: Colour = Constant()
    start: Vector = (0.0, 0.0, -0.4)
    stop: Vector = (0.0, 0.0, 0.4)
    radius: Positive = 0.2

    def field(self, x: Scalar, y: Scalar, z: Scalar) -> Scalar:
        """Return the signed distance."""
        axis = np.subtract(self.stop, self.start)
        offset = [c - s for c, s in zip((x, y, z), self.start, strict=True)]
        along: Scalar = 0.0
        for o, a in zip(offset, axis, strict=True):
            along = along + o * float(a)
        share = jet.minimum(jet.maximum(along / max(float(axis @ axis), 1e-300), 0.0), 1.0)
        return (
            jet.length(*(o - share * float(a) for o, a in zip(offset, axis, strict=True)))
            - self.radius
        )

    def box(self) -> Floats:
        """Return the box about it."""
        ends = np.array([self.start, self.stop], dtype=np.float64)
        return np.array([ends.min(axis=0) - self.radius, ends.max(axis=0) + self.radius])


class Cylinder(Frozen):
    """A solid cylinder along the z axis, from ``-half_height`` to ``half_height``."""

    kind: Literal["cylinder"] = "cylinder"
    colour: Colour = Constant()
    radius: Positive = 0.4
    half_height: Positive = 0.5

    def field(self, x: Scalar, y: Scalar, z: Scalar) -> Scalar:
        """Return the signed distance."""
        side, end = jet.length(x, y) - self.radius, jet.absolute(z) - self.half_height
        outside = jet.length(jet.maximum(side, 0.0), jet.maximum(end, 0.0))
        return outside + jet.minimum(jet.maximum(side, end), 0.0)

    def box(self) -> Floats:
        """Return the box about it."""
        return _about(self.radius, self.radius, self.half_height)


class Plane(Frozen):
    """The half space behind a plane: inside is where ``normal . p < offset`` (unit normal)."""

    kind: Literal["plane"] = "plane"
    colour: Colour = Constant()
    normal: Vector = (0.0, 0.0, 1.0)
    offset: float = 0.0

    @model_validator(mode="after")
    def _has_direction(self) -> Plane:
        if not any(self.normal):
            raise ValueError("normal must not be the zero vector")
        return self

    def field(self, x: Scalar, y: Scalar, z: Scalar) -> Scalar:
        """Return the signed distance."""
        a, b, c = np.array(self.normal) / np.linalg.norm(self.normal)
        return x * float(a) + y * float(b) + z * float(c) - self.offset

    def box(self) -> Floats:
        """Return the box about it, which has no end."""
        return _about(np.inf, np.inf, np.inf)


Primitive = Sphere | Box | RoundedBox | Torus | Capsule | Cylinder | Plane
