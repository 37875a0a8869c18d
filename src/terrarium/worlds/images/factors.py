"""The world `images`: a lit shape on a ground, made from factors that are all known.

Joint table: ``label`` (the shape's class) is even over the four classes where the shape varies, and
always the same where it doesn't; whatever the other factors, and in every split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, model_validator

from terrarium.worlds import splits
from terrarium.worlds.base import Array, Batch, Counterfactual, Image, JointRow, Split
from terrarium.worlds.faults import Told
from terrarium.worlds.given import check_count, outputs
from terrarium.worlds.images import rendering
from terrarium.worlds.images.shapes import SHAPES

CELLS = 32
"""The unit square of the first two factors is cut into so many cells a side, one split each."""

TOLERANCE = 0.05
"""An image is right if its root mean squared error is at most this."""

Name = Literal[
    "shape",
    "row",
    "column",
    "size",
    "hue",
    "light_deg",
    "rotation_deg",
    "ground_hue",
    "ground_value",
    "elevation_deg",
]


@dataclass(frozen=True)
class Range:
    """The half-open range that a factor is drawn from evenly; the middle is taken where it isn't.

    Every range is an interval, angles and hues included (short of a full turn), so that the
    images of one shape are a box that as many numbers can hold as there are factors.
    """

    low: float
    high: float

    def at(self, share: Array) -> NDArray[np.float64]:
        """Return the values at proportions of the range."""
        return np.asarray(self.low + (self.high - self.low) * np.asarray(share, np.float64))


RANGES: Mapping[str, Range] = {
    "row": Range(0.35, 0.65),
    "column": Range(0.35, 0.65),
    "size": Range(0.2, 0.34),
    "hue": Range(0.0, 0.75),
    "light_deg": Range(-75.0, 75.0),
    "rotation_deg": Range(-40.0, 40.0),
    "ground_hue": Range(0.0, 0.75),
    "ground_value": Range(0.1, 0.6),
    "elevation_deg": Range(25.0, 75.0),
}
"""Factors that are numbers.

Row, column and size (of the shape's unit) are proportions of the side; facts give them in pixels.
Light comes from ``light_deg`` clockwise of straight up, ``elevation_deg`` above the image's plane.
Hues are shares of a turn (0 red, 1/3 green, 2/3 blue); ``ground_value`` is HSV's value.
"""

FACTORS: tuple[str, ...] = ("shape", *RANGES)
"""All factors, in the order in which a number of them is taken."""


class Images(Told):
    """Images ``(channels, side, side)`` float32 in [0, 1]; the right output is the input.

    A bar, rectangle, triangle or cross, cut from a dome and lit from one side (Lambert), on a flat
    ground; edges are antialiased.  Facts: ``label`` (int64, the place in `SHAPES`), ``shape``
    (text), ``row``, ``column``, ``size`` (pixels), ``rotation_deg``, ``light_deg``,
    ``elevation_deg`` (degrees), ``hue``, ``ground_hue`` (shares of a turn), ``ground_value``.

    Attributes
    ----------
    vary:
        The dial: how many factors vary, in the order of `FACTORS`, or which by name.  With no more
        of them than an autoencoder has latents, perfect reconstruction is attainable.
    channels:
        3 for linear RGB, 1 for its mean.
    samples:
        Subsamples a side of each pixel.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    side: int = Field(32, ge=8, le=128, multiple_of=4)
    channels: Literal[1, 3] = 3
    vary: Annotated[int, Field(ge=2, le=len(FACTORS))] | tuple[Name, ...] = 6
    samples: int = Field(2, ge=1, le=16)

    @model_validator(mode="after")
    def _some_number_varies(self) -> Images:
        if not set(self.varying) - {"shape"}:
            raise ValueError("some factor beside the shape must vary, or splits would share images")
        return self

    @property
    def varying(self) -> tuple[str, ...]:
        """The factors that vary, in the order of `FACTORS`."""
        if isinstance(self.vary, int):
            return FACTORS[: self.vary]
        return tuple(name for name in FACTORS if name in self.vary)

    @property
    def name(self) -> str:
        """``"images"``."""
        return "images"

    @property
    def output(self) -> Image:
        """An image like the input."""
        return Image(self.channels, self.side, self.side)

    def sample(self, n: int, rng: np.random.Generator, split: Split = "train") -> Batch:
        """Return ``n`` images of ``split``."""
        check_count(n, self.name)
        return self.render(*self.draw(n, rng, split))

    def draw(
        self, n: int, rng: np.random.Generator, split: Split = "train"
    ) -> tuple[NDArray[np.int64], dict[str, NDArray[np.float64]]]:
        """Return shape classes ``(n,)`` and factors for `render`, of images of ``split``.

        The first two varying numbers are cut into cells, each of which belongs to one split.
        """
        splits.check_split(split, splits.SPLITS, self.name)
        label = rng.integers(len(SHAPES), size=n) if "shape" in self.varying else np.zeros(n, int)
        numbers = [name for name in self.varying if name != "shape"]
        share = {name: np.full(n, 0.5) for name in RANGES}
        for name in numbers:
            share[name] = rng.random(n)
        keyed = numbers[:2]
        pending = np.flatnonzero(~_owned([share[name] for name in keyed], split))
        while len(pending):
            for name in keyed:
                share[name][pending] = rng.random(len(pending))
            pending = pending[~_owned([share[name][pending] for name in keyed], split)]
        return label.astype(np.int64), {name: RANGES[name].at(share[name]) for name in RANGES}

    def render(self, label: Array, factors: Mapping[str, Array]) -> Batch:
        """Return the images made from shape classes ``(n,)`` and all of `RANGES`' factors.

        Row, column and size are given as proportions of the side here.
        """
        facts: dict[str, Array] = {
            name: np.asarray(factors[name], np.float64)
            * (self.side if name in rendering.LENGTHS else 1)
            for name in RANGES
        }
        return self._of_facts(np.asarray(label, np.int64), facts)

    def _of_facts(self, label: NDArray[np.int64], facts: Mapping[str, Array]) -> Batch:
        images = rendering.images(label, facts, self.side, self.channels, self.samples)
        told = {"label": label, "shape": np.asarray(SHAPES)[label], **facts}
        return Batch(images, images.copy(), told)

    def maps(self, batch: Batch) -> dict[str, NDArray[np.float64]]:
        """Return the known concepts of every pixel, ``(n, rows, columns)`` each.

        ``mask`` (the shape's share of the pixel), ``distance`` (signed, of its centre to the
        outline, pixels), ``edge`` (the outline crosses it), ``height`` (of the dome above the
        ground, pixels), ``normal_row``, ``normal_column``, ``normal_up`` (unit; the ground looks
        up), ``shading`` (Lambert, 0 to 1), ``light_row``, ``light_column``, ``light_up``
        (directions, alike in an image), ``row``, ``column`` (pixels), ``hue`` (of what is there).
        """
        return rendering.maps(batch.facts, self.side, self.samples)

    def optimum(self, batch: Batch) -> NDArray[np.float32]:
        """Return the input."""
        return np.asarray(batch.inputs, dtype=np.float32)

    def regret(self, batch: Batch, output: Array) -> NDArray[np.float64]:
        """Return ``(n,)`` squared errors summed over channels and pixels."""
        return squared_errors(batch, output)

    def judge(self, batch: Batch, output: Sequence[Any]) -> Mapping[str, Array]:
        """Judge ``n`` images: valid if finite and in [0, 1], right within `TOLERANCE`."""
        return judged(batch, output)

    def joint_table(self, split: Split = "train") -> list[JointRow]:
        """Return the law of ``label``."""
        if "shape" not in self.varying:
            return [JointRow({"label": 0}, 1.0)]
        return [JointRow({"label": place}, 1 / len(SHAPES)) for place in range(len(SHAPES))]

    def counterfactuals(self, n: int, rng: np.random.Generator) -> list[Counterfactual]:
        """Return, for each factor that varies, images in which it alone is drawn anew."""
        before = self.sample(n, rng, "test")
        pairs = []
        for name in self.varying:
            label = before.facts["label"]
            facts = {key: before.facts[key] for key in RANGES}
            if name == "shape":
                label = (label + rng.integers(1, len(SHAPES), n)) % len(SHAPES)
            else:
                scale = self.side if name in rendering.LENGTHS else 1
                facts[name] = RANGES[name].at(rng.random(n)) * scale
            affects = ("label", "shape") if name == "shape" else (name,)
            after = self._of_facts(label, facts)
            pairs.append(Counterfactual(name, name, affects, before, after))
        return pairs


def _owned(shares: Sequence[Array], split: str) -> NDArray[np.bool_]:
    """Return which rows belong to ``split`` by one or two numbers in [0, 1)."""
    if len(shares) == 1:
        cell = (shares[0] * CELLS**2).astype(np.int64)
        return splits.owned(cell, np.full_like(cell, CELLS**2), split)
    one, two = ((share * CELLS).astype(np.int64) for share in shares)
    # the hash is of unordered pairs: shift one so that cells stay ordered
    return splits.owned(one, two + CELLS, split)


def squared_errors(batch: Batch, output: Array) -> NDArray[np.float64]:
    """Return ``(n,)`` squared errors to the inputs, summed over channels and pixels."""
    error = np.asarray(output, dtype=np.float64) - batch.inputs
    return np.asarray(np.square(error).sum(axis=(1, 2, 3)))


def judged(batch: Batch, output: Sequence[Any]) -> dict[str, Array]:
    """Judge images against the inputs: valid if finite and in [0, 1], right within `TOLERANCE`."""
    given = outputs(output, batch.inputs.shape, "images")
    finite = np.isfinite(given)
    safe = np.where(finite, given, 2.0)
    valid = finite.all(axis=(1, 2, 3)) & ((safe >= 0) & (safe <= 1)).all(axis=(1, 2, 3))
    error = np.sqrt(np.square(safe - batch.inputs).mean(axis=(1, 2, 3)))
    return {"valid": valid, "right": valid & (error <= TOLERANCE)}
