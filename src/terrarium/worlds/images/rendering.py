"""From factors to pixels, and to the concepts that are known of each pixel.

A shape's unit is its ``size``; its frame is turned by ``rotation_deg`` clockwise.  Rows go down,
columns to the right, pixel centres lie at half integers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from terrarium.worlds.base import Array
from terrarium.worlds.images import shapes
from terrarium.worlds.images.shapes import SHAPES, Float

LENGTHS = ("row", "column", "size")
"""Factors that are lengths: proportions of the side in laws, pixels in facts."""

AMBIENT = 0.25
"""Light that reaches every surface; the rest comes from the lamp."""

SATURATION, VALUE, GROUND_SATURATION = 0.7, 1.0, 0.45


@dataclass(frozen=True)
class _Points:
    """Shape frames ``(n, m, m)`` of a grid of points: coordinates, and distances in pixels."""

    u: Float
    v: Float
    distance: Float


def images(
    label: NDArray[np.int64], facts: Mapping[str, Array], side: int, channels: int, samples: int
) -> NDArray[np.float32]:
    """Return ``(n, channels, side, side)`` float32 images of shapes with ``facts`` (pixels)."""
    points = _points(label, facts, side, samples)
    # a subsample counts by how much of it the outline leaves, as if it were straight there
    cover = np.clip(0.5 - points.distance * samples, 0, 1)
    lit = _lambert(_normals(points, facts), facts)
    ground = AMBIENT + (1 - AMBIENT) * np.sin(np.radians(facts["elevation_deg"]))
    front = hsv(facts["hue"], SATURATION, VALUE)
    back = hsv(facts["ground_hue"], GROUND_SATURATION, facts["ground_value"]) * ground[:, None]
    if channels == 1:
        front, back = front.mean(axis=1, keepdims=True), back.mean(axis=1, keepdims=True)
    cover, shade = _pooled(cover, samples), _pooled(cover * lit, samples)
    f, b = front[:, :, None, None], back[:, :, None, None]
    mixed = f * shade[:, None] + b * (1 - cover[:, None])
    return np.clip(mixed, 0, 1).astype(np.float32)


def maps(facts: Mapping[str, Array], side: int, samples: int) -> dict[str, NDArray[np.float64]]:
    """Return the known concepts of each pixel, ``(n, side, side)`` float64; see `Images.maps`."""
    label = np.asarray(facts["label"], np.int64)
    exact = {name: np.asarray(value, np.float64) for name, value in _numbers(facts).items()}
    fine, centre = (_points(label, exact, side, k, np.float64) for k in (samples, 1))
    mask = _pooled(np.clip(0.5 - fine.distance * samples, 0, 1), samples)
    inside = centre.distance < 0
    dome = zip(_normals(centre, exact), (0.0, 0.0, 1.0), strict=True)
    normals = [np.where(inside, part, flat) for part, flat in dome]
    size = exact["size"][:, None, None]
    whole = np.ones_like(mask)
    row, column = np.mgrid[:side, :side] + 0.5
    light = light_direction(exact)
    return {
        "mask": mask,
        "distance": centre.distance,
        "edge": ((mask > 0) & (mask < 1)).astype(np.float64),
        "height": np.where(inside, shapes.height(centre.u, centre.v) * size, 0.0),
        "normal_row": normals[0],
        "normal_column": normals[1],
        "normal_up": normals[2],
        "shading": _lambert((normals[0], normals[1], normals[2]), exact),
        **{
            f"light_{name}": whole * part[:, None, None]
            for name, part in zip(("row", "column", "up"), light, strict=True)
        },
        "row": whole * row,
        "column": whole * column,
        "hue": np.where(inside, exact["hue"][:, None, None], exact["ground_hue"][:, None, None]),
    }


def _numbers(facts: Mapping[str, Array]) -> dict[str, Array]:
    return {name: value for name, value in facts.items() if name not in ("label", "shape")}


def hsv(hue: Array, saturation: float, value: Array | float) -> NDArray[np.float64]:
    """Return ``(n, 3)`` RGB of hues ``(n,)`` in shares of a turn (Smith 1978)."""
    turned = (np.asarray(hue)[:, None] * 6 + np.array([5.0, 3.0, 1.0])) % 6
    ramp = np.clip(np.minimum(turned, 4 - turned), 0, 1)
    return np.asarray(np.reshape(value, (-1, 1)) * (1 - saturation * ramp))


def light_direction(facts: Mapping[str, Array]) -> tuple[Array, Array, Array]:
    """Return where the light comes from: unit parts along rows, columns and up, ``(n,)`` each."""
    around, up = np.radians(facts["light_deg"]), np.radians(facts["elevation_deg"])
    flat = np.cos(up)
    return -flat * np.cos(around), flat * np.sin(around), np.sin(up)


def _points(
    label: NDArray[np.int64],
    facts: Mapping[str, Array],
    side: int,
    samples: int,
    dtype: type[np.floating] = np.float32,
) -> _Points:
    at = ((np.arange(side * samples) + 0.5) / samples).astype(dtype)
    row, column, size, turn = (
        np.asarray(facts[name], dtype)[:, None, None]
        for name in ("row", "column", "size", "rotation_deg")
    )
    down, across = (at[None, :, None] - row) / size, (at[None, None, :] - column) / size
    cos, sin = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    u, v = across * cos + down * sin, down * cos - across * sin
    far = np.empty_like(u)
    for place in np.unique(label):
        here = label == place
        far[here] = shapes.distance(SHAPES[place], u[here], v[here])
    return _Points(u, v, far * size)


def _normals(points: _Points, facts: Mapping[str, Array]) -> tuple[Float, Float, Float]:
    """Return the dome's unit normals along rows, along columns and up."""
    along, across, up = shapes.normal(points.u, points.v)
    turn = np.radians(facts["rotation_deg"])[:, None, None].astype(along.dtype)
    cos, sin = np.cos(turn), np.sin(turn)
    return along * sin + across * cos, along * cos - across * sin, up


def _lambert(normals: tuple[Float, Float, Float], facts: Mapping[str, Array]) -> Float:
    """Return ambient light and the lamp's by the cosine of its angle, 0 to 1."""
    light = [part[:, None, None].astype(normals[0].dtype) for part in light_direction(facts)]
    cosine = sum(n * l for n, l in zip(normals, light, strict=True))
    return np.asarray(AMBIENT + (1 - AMBIENT) * np.maximum(cosine, 0))


def _pooled(values: Float, samples: int) -> Float:
    """Return the means of squares of ``samples`` x ``samples`` values."""
    n, rows, columns = values.shape
    if samples == 1:
        return values
    shape = (n, rows // samples, samples, columns // samples, samples)
    return np.asarray(values.reshape(shape).mean(axis=(2, 4)))
