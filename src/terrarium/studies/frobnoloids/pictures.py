"""Pictures of the strongest features, and the words where those of texts are active, as rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrarium.evidence.rows import Row, measured
from terrarium.figures.gallery import png_uri
from terrarium.instruments.effects import what_it_adds
from terrarium.studies.frobnoloids.networks import Examples, activations, shows_images
from terrarium.studies.frobnoloids.organisms import POINTS
from terrarium.studies.frobnoloids.shown import STRIDE, tokens_of, world_of
from terrarium.studies.frobnoloids.subjects import Subject

SHOWN = 3
"""Features in a gallery, and examples of each."""

GAIN = 3.0
"""By how much what is added is enlarged."""

PATCH = 8
"""Pixels a side of a patch; a place sees 7."""

SLICE = 24
"""Points a side of a slice through the middle of a scene."""


def picture_rows(subject: Subject, order: NDArray[np.int64], frame: Any) -> list[Row]:
    """Return the strongest features where they are most active, at most one place an example."""
    k = subject.features.shape[-1]
    flat = subject.features.reshape(len(subject.shown.batch), -1, k)
    rows = []
    for rank, j in enumerate(order[:SHOWN]):
        called = bool(frame["frobnoloid"].iloc[j])
        best = flat[..., j].argmax(1)
        top = np.argsort(-flat[..., j].max(1), kind="stable")[:SHOWN]
        told: dict[str, Any] = {
            "rank": rank,
            "feature": subject.target.names[j],
            "frobnoloid": called,
            "concept": str(frame["concept"].iloc[j]),
            "nameability": round(float(np.nan_to_num(frame["nameability"].iloc[j])), 3),
        }
        if subject.kind[0] == POINTS:
            rows += [row.with_factors(**told) for row in _of_points(subject, int(j))]
            continue
        make = _of_texts if subject.shown.positions is not None else _of_images
        rows += [row.with_factors(**told) for row in make(subject, int(j), top, best[top])]
    return rows


def _of_images(
    subject: Subject, j: int, top: NDArray[np.int64], places: NDArray[np.int64]
) -> list[Row]:
    images = subject.given.inputs[top]
    maps = subject.features[top][..., j]
    largest = max(float(maps.max()), 1e-12)
    added = None
    if shows_images(subject.kind):
        added = what_it_adds(subject.network, images, subject.site, subject.target)[0, j]
    rows = []
    for place, (image, seen) in enumerate(zip(images, maps, strict=True)):
        y, x = divmod(int(places[place]), seen.shape[1])
        shown = {
            "image": image,
            "patch": _patch(image, y, x),
            "map": np.kron(seen / largest, np.ones((STRIDE, STRIDE))),
        }
        if added is not None:
            shown["adds"] = 0.5 + GAIN * added[place]
        rows += [
            measured(
                "picture",
                float(seen.max()),
                unit="activation",
                n=1,
                column=f"{what} {place + 1}",
                image=png_uri(pixels),
            )
            for what, pixels in shown.items()
        ]
    return rows


def _of_points(subject: Subject, j: int) -> list[Row]:
    """Return a slice through the middle of the scene: distance, unit, what the unit adds to it."""
    made = world_of(POINTS, SLICE)
    low, high = made.box
    at = (np.arange(SLICE) + 0.5) / SLICE
    x, y = np.meshgrid(at, at[::-1])
    unit = np.stack([x, y, np.full_like(x, 0.5)], -1).reshape(-1, 3)
    points = (low + unit * (high - low)).astype(np.float32)
    value = activations(subject.network, Examples(points, None), subject.site)
    value = value[:, int(subject.live[j])]
    added = what_it_adds(subject.network, points, subject.site, subject.target, how="mean")[0, j]
    spread = max(float(np.ptp(value)), 1e-12)
    largest = max(float(np.abs(added).max()), 1e-12)
    distance = made.at(points).facts["distance"]
    farthest = max(float(np.abs(distance).max()), 1e-12)
    shown = {
        "distance": 0.5 + distance / (2 * farthest),
        "unit": (value - value.min()) / spread,
        "adds": 0.5 + added[:, 0] / (2 * largest),
    }
    return [
        measured(
            "picture",
            largest,
            unit="half sides of the box",
            n=len(points),
            column=what,
            image=png_uri(pixels.reshape(SLICE, SLICE)),
        )
        for what, pixels in shown.items()
    ]


def _patch(image: Any, y: int, x: int) -> Any:
    """Return the pixels around a place, the border's repeated."""
    wide = np.pad(image, [(0, 0), (PATCH, PATCH), (PATCH, PATCH)], mode="edge")
    top, left = (STRIDE * place + STRIDE // 2 + PATCH // 2 for place in (y, x))
    return wide[:, top : top + PATCH, left : left + PATCH]


def _of_texts(
    subject: Subject, j: int, top: NDArray[np.int64], places: NDArray[np.int64]
) -> list[Row]:
    batch = subject.shown.batch
    texts, positions = tokens_of(world_of(subject.kind[0], 8)), subject.shown.positions
    assert positions is not None  # rows of text are read token by token
    features = subject.features.reshape(len(batch), -1, subject.features.shape[-1])
    rows = []
    for row, place in zip(top, places, strict=True):
        at = int(positions[row, place])
        said = [texts[int(token)] for token in batch.inputs[row, max(0, at - 5) : at + 1]]
        words = "".join(said[:-1]) + f"[{said[-1].strip()}]"
        value = float(features[row, place, j])
        rows.append(measured("words", value, unit="activation", n=1, words=words))
    return rows
