"""What networks are shown, and every name that is known for it, image by image or word by word."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrarium.instruments.frobnoloids.concepts import (
    Vocabulary,
    image_vocabulary,
    text_concepts,
)
from terrarium.organisms.grow import make_world
from terrarium.organisms.recipe import Source
from terrarium.randomness import generator
from terrarium.studies.frobnoloids.organisms import DENOISE, IMAGES, NOISE, world
from terrarium.worlds.base import Batch

Array = NDArray[Any]
Concepts = Mapping[str, Array]

STRIDE = 4
"""Pixels a side of one place of the feature maps."""

HELD_OUT = (
    *("distance", "distance to mask", "normals", "curvature", "height", "shading"),
    *("normal_row", "normal_column", "normal_up"),
)
"""Concepts of images that plants' vocabulary lacks, so that there is something unnamed to plant.

The features in question are held against the whole vocabulary.
"""

HELD_OUT_FACTS = ("hue", "light_deg")
"""The same for text: told by one word each, known at all words that follow."""

_MAPS = (
    *("edge", "height", "normal_row", "normal_column", "normal_up", "shading"),
    *("light_row", "light_column", "hue"),
)
_FACTS = ("label", "row", "column", "size", "hue", "light_deg", "rotation_deg")


@dataclass(frozen=True, eq=False)
class Shown:
    """Examples, and all that is known of each place (of a map) or word.

    Attributes
    ----------
    batch:
        The world's examples.
    inputs:
        What networks are given: images ``(n, 3, side, side)``, noisy for denoisers, or tokens.
    positions:
        ``(n, p)`` words at which features are read; None for images and points.
    groups:
        Image, text or block of space of each row of features.
    concepts, reduced, held_out:
        All concepts; those that plants' vocabulary has; those that it lacks.
    student:
        What the student of `teachable` sees.
    fine:
        For images, ``reduced`` and ``held_out`` by pixel, from which plants are made.
    lead:
        Texts and words in each, or blocks and points in each, of rows of vectors; None for maps.
    """

    batch: Batch = field(repr=False)
    inputs: Array = field(repr=False)
    positions: NDArray[np.int64] | None = field(repr=False)
    groups: Array = field(repr=False)
    concepts: Concepts = field(repr=False)
    reduced: Concepts = field(repr=False)
    held_out: Concepts = field(repr=False)
    student: Array = field(repr=False)
    fine: tuple[Concepts, Concepts] = field(default=({}, {}), repr=False)
    lead: tuple[int, int] | None = None


def world_of(modality: str, side: int) -> Any:
    """Return the world of a modality."""
    name, options = world(modality, side)
    return make_world(Source(world=name, options=options))


def given(kind: tuple[str, str], batch: Batch, *key: str | int) -> Array:
    """Return what a kind of network is given: the inputs, with noise for denoisers."""
    if kind[1] != DENOISE:
        return batch.inputs
    noise = generator("frobnoloids", "noise", *key).standard_normal(batch.inputs.shape)
    return (batch.inputs + NOISE * noise).astype(np.float32)


def positions_of(batch: Batch) -> NDArray[np.int64] | None:
    """Return the words up to the one before the answer, None for images."""
    if batch.lengths is None:
        return None
    end = int(batch.spans["answer"][0, 0])
    return np.tile(np.arange(end), (len(batch), 1))


def shown(kind: tuple[str, str], side: int, n: int, seed: int) -> Shown:
    """Return ``n`` examples of the split ``"test"`` and the names of all that is in them."""
    modality, _ = kind
    made = world_of(modality, side)
    # the same seed shows every objective the same examples
    batch = made.sample(n, generator("frobnoloids", "shown", seed), "test")
    inputs = given(kind, batch, "shown", seed)
    return _images(made, batch, inputs) if modality == IMAGES else _texts(made, batch)


def _images(made: Any, batch: Batch, inputs: Array) -> Shown:
    seen = np.clip(inputs, 0.0, 1.0)
    maps = made.maps(batch)
    known: dict[str, Array] = {name: _wide(maps[name]) for name in ("distance", "mask", *_MAPS)}
    lead = (len(batch), *inputs.shape[2:])
    for name in _FACTS:
        value = np.asarray(batch.facts[name])[:, None, None]
        known[f"the shape's {name}"] = np.broadcast_to(value, lead)
    whole = _vocabulary(known)
    fine = whole.without(*HELD_OUT).maps(seen, known), whole.only(*HELD_OUT).maps(seen, known)
    reduced, held_out = ({name: pooled(x) for name, x in part.items()} for part in fine)
    return Shown(
        batch,
        inputs,
        None,
        np.arange(len(batch)),
        {**reduced, **held_out},
        reduced,
        held_out,
        retina(seen),
        fine,
    )


def _vocabulary(known: Mapping[str, Array]) -> Vocabulary:
    names = [name for name in known if name not in ("distance", "mask")]
    return image_vocabulary(
        known=names,
        strides=(2 * STRIDE,),
        gabor_wavelengths=(3.0, 6.0),
        scales=(1.0, 2.0),
    )


def _wide(values: Array) -> Array:
    array = np.asarray(values)
    return array if array.dtype.kind == "b" else array.astype(np.float64)


def pooled(values: Array) -> Array:
    """Return maps ``(n, rows, columns, ...)`` at the features' places: means over their pixels.

    Categories are the same all over a place's pixels (the shape's class), or shares (masks).
    """
    if values.dtype.kind in "iuSU":
        return values[:, ::STRIDE, ::STRIDE]
    n, rows, columns, *rest = values.shape
    cut = values.reshape(n, rows // STRIDE, STRIDE, columns // STRIDE, STRIDE, *rest)
    return np.asarray(cut.mean((2, 4), dtype=np.float64))


def retina(images: Array) -> Array:
    """Return ``(n, 7, rows, columns)`` at the features' places: what their students see.

    The mean colour of a place and the brightness of its four quarters, less the place's mean:
    averages over whole places would hide every outline.
    """
    n, channels, side, _ = images.shape
    half = STRIDE // 2
    small = images.reshape(n, channels, side // half, half, side // half, half).mean((3, 5))
    cells = small.reshape(n, channels, side // STRIDE, 2, side // STRIDE, 2)
    colour = cells.mean((3, 5))
    quarters = (cells - colour[:, :, :, None, :, None]).mean(1)
    return np.concatenate(
        [colour, quarters.transpose(0, 2, 4, 1, 3).reshape(n, 4, *colour.shape[2:])], 1
    )


def _texts(made: Any, batch: Batch) -> Shown:
    at = positions_of(batch)
    assert at is not None
    n, p = at.shape
    concepts = {
        name: values
        for name, values in text_concepts(batch, at).items()
        if len(np.unique(values)) > 1  # some factors do not vary, the answer is not among the words
    }
    concepts |= _said(made, batch, at)
    held_out = {name: concepts[name] for name in HELD_OUT_FACTS}
    reduced = {name: x for name, x in concepts.items() if name not in held_out}
    groups = np.repeat(np.arange(n), p)
    seen = words(made, batch, at)
    return Shown(batch, batch.inputs, at, groups, concepts, reduced, held_out, seen, lead=(n, p))


def tokens_of(made: Any) -> dict[int, str]:
    """Return each token's text."""
    found = json.loads(made.tokenizer_json())["model"]["vocab"]
    pairs = found.items() if isinstance(found, dict) else ((t, i) for i, (t, _) in enumerate(found))
    return {int(index): str(text) for text, index in pairs}


def _said(made: Any, batch: Batch, at: NDArray[np.int64]) -> dict[str, Array]:
    """Return what words say: their kind, their number (of an outline's point), those before."""
    texts = tokens_of(made)
    size = max(texts) + 1
    number, sort = np.full(size, -1.0), np.zeros(size, np.int64)
    for index, text in texts.items():
        part = text.strip().rstrip("/")
        if part.isdigit():
            number[index], sort[index] = float(part), 1 + text.strip().endswith("/")
    rows = np.arange(len(batch))[:, None]
    before = batch.inputs[rows, np.maximum(at - 1, 0)]
    two = batch.inputs[rows, np.maximum(at - 2, 0)]
    return {
        "kind of word": sort[batch.inputs[rows, at]].reshape(-1),
        "number said": number[batch.inputs[rows, at]].reshape(-1),
        "number said before": number[before].reshape(-1),
        "number said two before": number[two].reshape(-1),
        "place": at.reshape(-1).astype(np.int64),
    }


def words(made: Any, batch: Batch, at: NDArray[np.int64]) -> Array:
    """Return ``(n * p, d)`` what students of texts see.

    The word and the one before (one-hot), the numbers said last, which words were said so far, and
    the place.
    """
    size = max(tokens_of(made)) + 1
    hot = np.eye(size, dtype=np.float32)[batch.inputs]
    n, p = at.shape
    rows = np.arange(n)[:, None]
    so_far = np.maximum.accumulate(hot, 1)[rows, at]
    before = hot[rows, np.maximum(at - 1, 0)]
    numbers = np.stack(
        [x for name, x in _said(made, batch, at).items() if name.startswith("number")], 1
    )
    place = np.eye(p, dtype=np.float32)[at]
    parts = [hot[rows, at], before, so_far, place]
    flat = np.concatenate([part.reshape(n * p, -1) for part in parts], 1)
    return np.concatenate([flat, numbers], 1).astype(np.float64)
