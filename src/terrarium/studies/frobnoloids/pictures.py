"""Pictures of the strongest features, and the words where those of texts are active, as rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrarium.evidence.rows import Row, measured
from terrarium.figures.gallery import png_uri
from terrarium.instruments.effects import what_it_adds
from terrarium.instruments.site_features import dictionary_features
from terrarium.studies.frobnoloids.networks import shows_images, sites
from terrarium.studies.frobnoloids.shown import STRIDE, tokens_of, world_of

SHOWN = 3
"""Features in a gallery, and examples of each."""

GAIN = 3.0
"""By how much what is added is enlarged."""

PATCH = 8
"""Pixels a side of a patch; a place sees 7."""


def picture_rows(subject: Any, order: NDArray[np.int64], frame: Any) -> list[Row]:
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
            "feature": f"feature {subject.live[j]}",
            "frobnoloid": called,
            "concept": str(frame["concept"].iloc[j]),
            "nameability": round(float(np.nan_to_num(frame["nameability"].iloc[j])), 3),
        }
        make = _of_texts if subject.shown.positions is not None else _of_images
        rows += [row.with_factors(**told) for row in make(subject, int(j), top, best[top])]
    return rows


def _of_images(
    subject: Any, j: int, top: NDArray[np.int64], places: NDArray[np.int64]
) -> list[Row]:
    images = subject.given.inputs[top]
    maps = subject.features[top][..., j]
    largest = max(float(maps.max()), 1e-12)
    added = None
    if shows_images(subject.kind):
        feature = dictionary_features(subject.fitted, [int(subject.live[j])])
        added = what_it_adds(subject.network, images, sites(subject.kind)[1], feature)[0, 0]
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


def _patch(image: Any, y: int, x: int) -> Any:
    """Return the pixels around a place, the border's repeated."""
    wide = np.pad(image, [(0, 0), (PATCH, PATCH), (PATCH, PATCH)], mode="edge")
    top, left = (STRIDE * place + STRIDE // 2 + PATCH // 2 for place in (y, x))
    return wide[:, top : top + PATCH, left : left + PATCH]


def _of_texts(subject: Any, j: int, top: NDArray[np.int64], places: NDArray[np.int64]) -> list[Row]:
    batch = subject.shown.batch
    texts = tokens_of(world_of(subject.kind[0], 8))
    features = subject.features.reshape(len(batch), -1, subject.features.shape[-1])
    rows = []
    for row, place in zip(top, places, strict=True):
        at = int(subject.shown.positions[row, place])
        said = [texts[int(token)] for token in batch.inputs[row, max(0, at - 5) : at + 1]]
        words = "".join(said[:-1]) + f"[{said[-1].strip()}]"
        value = float(features[row, place, j])
        rows.append(measured("words", value, unit="activation", n=1, words=words))
    return rows
