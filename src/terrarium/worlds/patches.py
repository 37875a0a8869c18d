"""A tiny world of images: one soft blob on an even ground, made from five numbers.

Joint table: ``bright`` (the blob is brighter than the ground) is True with probability 1/2 in
every split, whatever the other factors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field

from terrarium.worlds import splits
from terrarium.worlds.base import Array, Batch, Counterfactual, Image, JointRow, Split
from terrarium.worlds.faults import Told
from terrarium.worlds.given import check_count, outputs

CELLS = 32
"""The blob's centre lies in one of this many cells a side; a cell belongs to one split."""

TOLERANCE = 0.05
"""An image is right if its root mean squared error is at most this."""


class Patches(Told):
    """Images ``(channels, side, side)`` float32 in [0, 1]; the right output is the input.

    Ground 0.5; the blob is a Gaussian of standard deviation side / 6 with amplitude ``strength``
    in [0.2, 0.5), added where ``bright`` and taken off elsewhere; channels are alike.  Four
    factors vary (place, strength, sign), so that four latents can hold an image.

    Facts: ``bright`` (bool), ``row``, ``column`` (pixels, float64), ``strength`` (float64).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    side: int = Field(8, ge=4, multiple_of=4)
    channels: int = Field(1, ge=1)

    @property
    def name(self) -> str:
        """``"patches"``."""
        return "patches"

    @property
    def output(self) -> Image:
        """An image like the input."""
        return Image(self.channels, self.side, self.side)

    def sample(self, n: int, rng: np.random.Generator, split: Split = "train") -> Batch:
        """Return ``n`` images whose blobs lie in cells of ``split``."""
        check_count(n, self.name)
        splits.check_split(split, splits.SPLITS, self.name)
        place = np.zeros((n, 2))
        pending = np.arange(n)
        while len(pending):
            tried = rng.random((len(pending), 2))
            cell = (tried * CELLS).astype(np.int64)
            good = splits.owned(cell[:, 0], cell[:, 1] + CELLS, split)
            place[pending[good]] = tried[good]
            pending = pending[~good]
        return self.render(place * (self.side - 1), rng.uniform(0.2, 0.5, n), rng.random(n) < 0.5)

    def render(self, place: Array, strength: Array, bright: Array) -> Batch:
        """Return images with blobs at ``place`` ``(n, 2)`` (row, column; pixels)."""
        pixel = np.arange(self.side)
        spread = self.side / 6
        down, across = (
            np.exp(-0.5 * ((pixel - place[:, axis, None]) / spread) ** 2) for axis in (0, 1)
        )
        blob = np.where(bright, strength, -strength)[:, None, None] * (
            down[:, :, None] * across[:, None, :]
        )
        images = np.repeat((0.5 + blob)[:, None].astype(np.float32), self.channels, axis=1)
        facts = {
            "bright": np.asarray(bright),
            "row": place[:, 0],
            "column": place[:, 1],
            "strength": np.asarray(strength),
        }
        return Batch(images, images.copy(), facts)

    def optimum(self, batch: Batch) -> NDArray[np.float32]:
        """Return the input."""
        return np.asarray(batch.inputs, dtype=np.float32)

    def regret(self, batch: Batch, output: Array) -> NDArray[np.float64]:
        """Return ``(n,)`` squared errors summed over channels and pixels."""
        error = np.asarray(output, dtype=np.float64) - self.optimum(batch)
        return np.asarray(np.square(error).sum(axis=(1, 2, 3)))

    def judge(self, batch: Batch, output: Sequence[Any]) -> Mapping[str, Array]:
        """Judge ``n`` images: valid if finite and in [0, 1], right within `TOLERANCE`."""
        given = outputs(output, batch.inputs.shape, self.name)
        valid = np.isfinite(given).all(axis=(1, 2, 3))
        safe = np.where(np.isfinite(given), given, 2.0)
        valid &= ((safe >= 0) & (safe <= 1)).all(axis=(1, 2, 3))
        error = np.sqrt(np.square(safe - batch.inputs).mean(axis=(1, 2, 3)))
        return {"valid": valid, "right": valid & (error <= TOLERANCE)}

    def joint_table(self, split: Split = "train") -> list[JointRow]:
        """Return the law of ``bright``: even."""
        return [JointRow({"bright": value}, 0.5) for value in (True, False)]

    def counterfactuals(self, n: int, rng: np.random.Generator) -> list[Counterfactual]:
        """Return images whose blob is turned from bright to dark or back, all else equal."""
        before = self.sample(n, rng, "test")
        facts = before.facts
        place = np.stack([facts["row"], facts["column"]], axis=1)
        after = self.render(place, facts["strength"], ~facts["bright"])
        return [Counterfactual("sign", "blob", ("bright",), before, after)]
