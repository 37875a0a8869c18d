"""Shapes: primitives, and what is made of them by set operations, smooth ones, moves, repetition.

Every formula is 1-Lipschitz, 0 exactly on the surface and negative exactly inside, so that
occupancy is exact throughout.  Not every one is the Euclidean distance: `Exactness` says where.
Operators: Quilez, "distance functions" (boolean operations, domain repetition) and "smooth
minimum" (the quadratic one).
"""

from __future__ import annotations

import functools
from itertools import combinations, product
from typing import Annotated, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from terrarium.worlds.scenes import jet
from terrarium.worlds.scenes.colours import Frozen, Vector
from terrarium.worlds.scenes.jet import Floats, Scalar
from terrarium.worlds.scenes.primitives import (
    Box,
    Capsule,
    Cylinder,
    Plane,
    Positive,
    Primitive,
    RoundedBox,
    Sphere,
    Torus,
)


class Exactness(NamedTuple):
    """Whether a formula is the Euclidean distance outside and inside; else it is a lower bound."""

    outside: bool
    inside: bool


class Traced(NamedTuple):
    """At each point: the formula's value (n,), the part that decides it (n,), its colour (n, 3)."""

    value: Floats
    part: NDArray[np.int64]
    colour: Floats


class Union(Frozen):
    """All of several shapes together: the minimum of their distances."""

    kind: Literal["union"] = "union"
    shapes: tuple[Shape, ...] = Field(min_length=1)

    def field(self, x: Scalar, y: Scalar, z: Scalar) -> Scalar:
        """Return the formula's value; exact outside, inside only where the boxes are disjoint."""
        return functools.reduce(jet.minimum, (s.field(x, y, z) for s in self.shapes))

    def box(self) -> Floats:
        """Return the corners ``(2, 3)`` of a box about it."""
        boxes = np.array([s.box() for s in self.shapes])
        return np.array([boxes[:, 0].min(axis=0), boxes[:, 1].max(axis=0)])


class Intersection(Frozen):
    """What several shapes have in common: the maximum of their distances."""

    kind: Literal["intersection"] = "intersection"
    shapes: tuple[Shape, ...] = Field(min_length=1)

    def field(self, x: Scalar, y: Scalar, z: Scalar) -> Scalar:
        """Return the formula's value; exact inside, a lower bound outside."""
        return functools.reduce(jet.maximum, (s.field(x, y, z) for s in self.shapes))

    def box(self) -> Floats:
        """Return the corners ``(2, 3)`` of a box about it."""
        boxes = np.array([s.box() for s in self.shapes])
        low, high = boxes[:, 0].max(axis=0), boxes[:, 1].min(axis=0)
        return np.array([low, np.maximum(low, high)])


class Difference(Frozen):
    """``shape`` without ``without``: the maximum of the one's distance and minus the other's."""

    kind: Literal["difference"] = "difference"
    shape: Shape
    without: Shape

    def field(self, x: Scalar, y: Scalar, z: Scalar) -> Scalar:
        """Return the formula's value; exact inside, a lower bound outside."""
        return jet.maximum(self.shape.field(x, y, z), -self.without.field(x, y, z))

    def box(self) -> Floats:
        """Return the corners ``(2, 3)`` of a box about it."""
        return self.shape.box()


class SmoothUnion(Frozen):
    """A union whose creases are filled over a width of ``smoothing``, one shape after another.

    Exact as a formula; a distance nowhere near a seam.
    """

    kind: Literal["smooth_union"] = "smooth_union"
    shapes: tuple[Shape, ...] = Field(min_length=1)
    smoothing: Positive = 0.1

    def field(self, x: Scalar, y: Scalar, z: Scalar) -> Scalar:
        """Return the formula's value."""
        return functools.reduce(self._smooth, (s.field(x, y, z) for s in self.shapes))

    def _smooth(self, a: Scalar, b: Scalar) -> Scalar:
        near = jet.maximum(self.smoothing - jet.absolute(a - b), 0.0) / self.smoothing
        return jet.minimum(a, b) - near * near * (self.smoothing / 4)

    def weight(self, a: Floats, b: Floats) -> Floats:
        """Return the share of the second in the value: the formula's derivative by it."""
        near = np.maximum(self.smoothing - np.abs(a - b), 0) / self.smoothing
        return np.asarray(np.where(a <= b, near / 2, 1 - near / 2))

    def box(self) -> Floats:
        """Return the corners ``(2, 3)`` of a box about it."""
        swelling = (len(self.shapes) - 1) * self.smoothing / 4
        return np.asarray(Union(shapes=self.shapes).box() + np.array([[-swelling], [swelling]]))


class Moved(Frozen):
    """A shape scaled about the origin, then turned, then shifted.

    ``rotation_deg`` are right-handed turns about x, then y, then z.
    """

    kind: Literal["moved"] = "moved"
    shape: Shape
    translation: Vector = (0.0, 0.0, 0.0)
    rotation_deg: Vector = (0.0, 0.0, 0.0)
    scale: Positive = 1.0

    @property
    def rotation(self) -> Floats:
        """The rotation as a matrix ``(3, 3)`` that is applied to columns."""
        matrix = np.eye(3)
        for axis, degrees in enumerate(self.rotation_deg):
            c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
            turn, (i, j) = np.eye(3), [k for k in range(3) if k != axis]
            sign = -1 if axis == 1 else 1
            turn[[i, j, i, j], [i, j, j, i]] = c, c, -sign * s, sign * s
            matrix = turn @ matrix
        return matrix

    def local(self, x: Scalar, y: Scalar, z: Scalar) -> list[Scalar]:
        """Return the coordinates in the shape's own frame."""
        shifted = [c - t for c, t in zip((x, y, z), self.translation, strict=True)]
        back = self.rotation.T / self.scale
        return [
            shifted[0] * float(row[0]) + shifted[1] * float(row[1]) + shifted[2] * float(row[2])
            for row in back
        ]

    def field(self, x: Scalar, y: Scalar, z: Scalar) -> Scalar:
        """Return the formula's value; as exact as the shape's own."""
        return self.shape.field(*self.local(x, y, z)) * self.scale

    def box(self) -> Floats:
        """Return the corners ``(2, 3)`` of a box about it."""
        inner = self.shape.box()
        if not np.isfinite(inner).all():
            return np.array([[-np.inf] * 3, [np.inf] * 3])
        corners = np.array(list(product(*inner.T)))
        corners = corners @ self.rotation.T * self.scale + np.array(self.translation)
        return np.array([corners.min(axis=0), corners.max(axis=0)])


Repeats = Annotated[int, Field(ge=0)]


class Repeated(Frozen):
    """Copies of a shape on a grid, without end (``count`` 0) or ``count`` of them about the origin.

    An axis of spacing 0 is not repeated.  Copies may not overlap: the shape must lie within one
    cell about the origin.  The nearest copy is found among the two nearest cells of each axis,
    which holds it for certain; so the formula is as exact as the shape's own.
    """

    kind: Literal["repeated"] = "repeated"
    shape: Shape
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    count: tuple[Repeats, Repeats, Repeats] = (0, 0, 0)

    @model_validator(mode="after")
    def _fits_its_cell(self) -> Repeated:
        box = self.shape.box()
        for axis, (step, low, high) in enumerate(zip(self.spacing, *box, strict=True)):
            if step < 0:
                raise ValueError(f"spacing along {'xyz'[axis]} is {step}; expected 0 or more")
            if step and max(-low, high) > step / 2:
                raise ValueError(
                    f"the shape reaches {max(-low, high):.4g} along {'xyz'[axis]}, out of its cell "
                    f"of half side {step / 2:.4g}; raise spacing or make the shape smaller"
                )
        return self

    def cells(self, x: Scalar, y: Scalar, z: Scalar) -> list[list[Scalar]]:
        """Return the coordinates in the frame of each copy that may be the nearest."""
        options: list[list[Scalar]] = []
        for c, step, count in zip((x, y, z), self.spacing, self.count, strict=True):
            if not step:
                options.append([c])
                continue
            shift = (count - 1) / 2 if count else 0.0
            place = jet.value(c) / step + shift
            last = count - 1 if count else np.inf
            first = np.clip(np.round(place), 0 if count else -np.inf, last)
            beside = first + np.where(place >= first, 1, -1)
            second = np.clip(beside, 0 if count else -np.inf, last)
            options.append([c - (cell - shift) * step for cell in (first, second)])
        return [list(local) for local in product(*options)]

    def field(self, x: Scalar, y: Scalar, z: Scalar) -> Scalar:
        """Return the formula's value."""
        local = self.cells(x, y, z)
        return functools.reduce(jet.minimum, (self.shape.field(*c) for c in local))

    def box(self) -> Floats:
        """Return the corners ``(2, 3)`` of a box about it."""
        box = self.shape.box()
        for axis, (step, count) in enumerate(zip(self.spacing, self.count, strict=True)):
            reach = step * (count - 1) / 2 if count else (np.inf if step else 0.0)
            box[:, axis] += (-reach, reach)
        return box


Combination = Union | Intersection | Difference | SmoothUnion | Moved | Repeated
Shape = Annotated[
    Sphere
    | Box
    | RoundedBox
    | Torus
    | Capsule
    | Cylinder
    | Plane
    | Union
    | Intersection
    | Difference
    | SmoothUnion
    | Moved
    | Repeated,
    Field(discriminator="kind"),
]

for _model in (Union, Intersection, Difference, SmoothUnion, Moved, Repeated):
    _model.model_rebuild()


def children(shape: Primitive | Combination) -> tuple[Primitive | Combination, ...]:
    """Return the shapes that this one is made of, none for a primitive."""
    if isinstance(shape, Union | Intersection | SmoothUnion):
        return shape.shapes
    if isinstance(shape, Difference):
        return (shape.shape, shape.without)
    if isinstance(shape, Moved | Repeated):
        return (shape.shape,)
    return ()


def parts(shape: Primitive | Combination) -> int:
    """Return the number of primitives, which `trace` counts from 0 in the order of the spec."""
    return sum(map(parts, children(shape))) or 1


def edited(
    shape: Primitive | Combination, part: int, by: Floats | None
) -> Primitive | Combination | None:
    """Return the shape with its primitive ``part`` shifted ``by`` (3,), or without it for None.

    The shift is in the coordinates of ``shape``; copies of a repeated primitive go together.
    Nothing is left (None) of a shape whose only primitive is gone, and of a difference without its
    first shape.
    """
    if not children(shape):
        return None if by is None else Moved(shape=shape, translation=tuple(by.tolist()))
    if isinstance(shape, Moved | Repeated):
        if isinstance(shape, Moved) and by is not None:
            by = shape.rotation.T @ by / shape.scale
        inner = edited(shape.shape, part, by)
        return (
            None if inner is None else type(shape).model_validate({**dict(shape), "shape": inner})
        )
    found: list[Primitive | Combination | None] = []
    for child in children(shape):
        count = parts(child)
        found.append(edited(child, part, by) if 0 <= part < count else child)
        part -= count
    if isinstance(shape, Difference):
        whole, hollow = found
        if whole is None or hollow is None:
            return whole
        return Difference(shape=whole, without=hollow)
    left = tuple(child for child in found if child is not None)
    return type(shape).model_validate({**dict(shape), "shapes": left}) if left else None


def exactness(shape: Primitive | Combination) -> Exactness:
    """Return where the shape's formula is the Euclidean distance for certain."""
    inner = [exactness(child) for child in children(shape)]
    if isinstance(shape, Moved | Repeated):
        return inner[0]
    if isinstance(shape, Union | Intersection | SmoothUnion) and len(inner) == 1:
        return inner[0]
    if isinstance(shape, Union):
        apart = all(_apart(a.box(), b.box()) for a, b in combinations(shape.shapes, 2))
        return Exactness(all(e.outside for e in inner), apart and all(e.inside for e in inner))
    if isinstance(shape, Intersection):
        return Exactness(False, all(e.inside for e in inner))
    if isinstance(shape, Difference):
        return Exactness(False, inner[0].inside and inner[1].outside)
    return Exactness(not inner, not inner)


def _apart(a: Floats, b: Floats) -> bool:
    """Return whether two boxes have no point in common."""
    return bool((a[0] > b[1]).any() or (b[0] > a[1]).any())


def trace(shape: Primitive | Combination, points: Floats, first: int = 0) -> Traced:
    """Return value, part and colour at points ``(n, 3)``; parts are counted from ``first``."""
    x, y, z = points.T
    if isinstance(shape, Moved):
        inside = trace(shape.shape, np.stack(shape.local(x, y, z), axis=1), first)
        return inside._replace(value=inside.value * shape.scale)
    if isinstance(shape, Repeated):
        copies = [
            trace(shape.shape, np.stack(local, axis=1), first) for local in shape.cells(x, y, z)
        ]
        return functools.reduce(_nearer, copies)
    if isinstance(shape, Union | Intersection | SmoothUnion | Difference):
        traced = []
        for child in children(shape):
            traced.append(trace(child, points, first))
            first += parts(child)
        if isinstance(shape, Difference):
            hollow = traced[1]._replace(value=-traced[1].value)
            return _farther(traced[0], hollow)
        if isinstance(shape, SmoothUnion):
            return functools.reduce(functools.partial(_blended, shape), traced)
        return functools.reduce(_nearer if isinstance(shape, Union) else _farther, traced)
    part = np.full(len(points), first, dtype=np.int64)
    return Traced(np.asarray(shape.field(x, y, z)), part, shape.colour.at(points))


def _chosen(one: NDArray[np.bool_], a: Traced, b: Traced) -> Traced:
    return Traced(
        np.where(one, a.value, b.value),
        np.where(one, a.part, b.part),
        np.where(one[:, None], a.colour, b.colour),
    )


def _nearer(a: Traced, b: Traced) -> Traced:
    return _chosen(np.asarray(a.value <= b.value), a, b)


def _farther(a: Traced, b: Traced) -> Traced:
    return _chosen(np.asarray(a.value >= b.value), a, b)


def _blended(shape: SmoothUnion, a: Traced, b: Traced) -> Traced:
    weight = shape.weight(a.value, b.value)[:, None]
    return Traced(
        np.asarray(shape._smooth(a.value, b.value)),
        np.where(a.value <= b.value, a.part, b.part),
        (1 - weight) * a.colour + weight * b.colour,
    )
