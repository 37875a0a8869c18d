"""A world of one picture as a field: pixel coordinates in, colours out.

Joint table: ``bright`` (the luminance is above the picture's median) has exactly the share of
bright points of each split, counted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, model_validator

from terrarium.errors import InputError
from terrarium.worlds import splits
from terrarium.worlds.base import Array, Batch, Counterfactual, JointRow, Split, VectorField
from terrarium.worlds.faults import Told
from terrarium.worlds.given import check_count, outputs
from terrarium.worlds.image_files import load_image, photograph_file, photographs, square

TOLERANCE = 0.05
"""A colour is right if each channel is within this of the optimum."""

LUMINANCE = (0.2126, 0.7152, 0.0722)
"""Weights of sRGB's channels (Rec. 709)."""


class Picture(Told):
    """The centre square of an image, resized to ``side`` pixels, as a field over [-1, 1]².

    Inputs ``(n, 2)`` are x (to the right) and y (downwards); the centres of the outermost pixels
    lie on the square's edge.  Between pixels the truth is the bilinear interpolation of the four
    around.  The split train is the pixels; validation and test are the middles between four, each
    of which belongs to one of the two: what a network does where it was not asked.

    Facts: ``x``, ``y``, ``luminance`` (float64), ``row``, ``column`` (pixels, float64, with halves
    for middles), ``bright`` (bool).

    Attributes
    ----------
    image:
        A photograph that ships with scikit-image (``"astronaut"``), or the path of an image file.
    checksum:
        Of the file's bytes; filled in by itself, so that it is part of keys.  A file that no longer
        has it is refused.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    image: str = Field("astronaut", min_length=1)
    side: int = Field(256, ge=4, le=4096, description="rows and columns, pixels")
    checksum: str = Field("", description="of the file; empty to fill in")

    @model_validator(mode="before")
    @classmethod
    def _of_the_file(cls, given: Any) -> Any:
        if not isinstance(given, dict) or not isinstance(given.get("image", "astronaut"), str):
            return given
        name = given.get("image", "astronaut")
        found = hashlib.blake2b(_file(name).read_bytes(), digest_size=16).hexdigest()
        if given.get("checksum") not in (None, "", found):
            raise InputError(
                f"The image {name} is no longer the one of checksum {given['checksum']} (now "
                f"{found}); restore the file, or leave checksum out."
            )
        return {**given, "checksum": found}

    @property
    def name(self) -> str:
        """``"picture"``."""
        return "picture"

    @property
    def output(self) -> VectorField:
        """Red, green, blue."""
        return VectorField(3, "sRGB in [0, 1]")

    @property
    def box(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """The corners of the square that inputs lie in."""
        return (-1.0, -1.0), (1.0, 1.0)

    @cached_property
    def pixels(self) -> NDArray[np.float32]:
        """The picture, ``(side, side, 3)`` in [0, 1]; not to be written to."""
        made = square(load_image(_file(self.image)), self.side)
        made.flags.writeable = False
        return made

    def value(self, points: Array) -> NDArray[np.float64]:
        """Return the colours ``(n, 3)`` at points ``(n, 2)``; outside the square, of its edge."""
        place = (np.clip(np.asarray(points, np.float64), -1, 1) + 1) / 2 * (self.side - 1)
        # a pixel's float32 coordinate is off by less than this, and must give its exact colour
        near = np.rint(place)
        place = np.where(np.abs(place - near) < 1e-3, near, place)
        corner = np.minimum(place.astype(np.int64), self.side - 2)
        (column, row), (right, down) = corner.T, (place - corner).T[..., None]
        total = np.zeros((len(place), 3))
        for lower in (0, 1):
            for later in (0, 1):
                weight = (down if lower else 1 - down) * (right if later else 1 - right)
                total += weight * self.pixels[row + lower, column + later]
        return total

    # examples

    @cached_property
    def _examples(self) -> dict[str, Batch]:
        """All examples of each split; rows of a picture are few enough to hold."""
        each = np.arange(self.side, dtype=np.float64)
        made = {"train": self._at_pixels(each[:, None], each[None])}
        row, column = np.indices((self.side - 1, self.side - 1)).reshape(2, -1)
        for split, start, stop in (("validation", 0.0, 0.5), ("test", 0.5, 1.0)):
            # one coordinate is shifted so that the hash, of unordered pairs, sees ordered ones
            share = splits.pair_hash(row, column + self.side) * 2.0**-64
            mine = (share >= start) & (share < stop)
            made[split] = self._at_pixels(row[mine] + 0.5, column[mine] + 0.5)
        return made

    def _at_pixels(self, row: Array, column: Array) -> Batch:
        """Return the examples at rows and columns (pixels), which are broadcast."""
        row, column = (part.ravel() for part in np.broadcast_arrays(row, column))
        points = np.stack([column, row], axis=1) * (2 / (self.side - 1)) - 1
        return self.at(points.astype(np.float32))

    def at(self, points: NDArray[np.float32]) -> Batch:
        """Return the examples at given points ``(n, 2)`` of the square."""
        colour = self.value(points)
        x, y = np.asarray(points, np.float64).T
        luminance = colour @ np.array(LUMINANCE)
        facts: dict[str, Array] = {
            "x": x,
            "y": y,
            "row": np.round((y + 1) / 2 * (self.side - 1), 3),
            "column": np.round((x + 1) / 2 * (self.side - 1), 3),
            "luminance": luminance,
            "bright": luminance > self._median,
        }
        return Batch(np.asarray(points, np.float32), colour.astype(np.float32), facts)

    @cached_property
    def _median(self) -> float:
        return float(np.median(self.pixels.astype(np.float64) @ np.array(LUMINANCE)))

    def grid(self) -> Batch:
        """Return every pixel, row by row: ``side ** 2`` examples."""
        return self._examples["train"]

    def sample(self, n: int, rng: np.random.Generator, split: Split = "train") -> Batch:
        """Return ``n`` examples of ``split``, drawn evenly and with replacement."""
        check_count(n, self.name)
        splits.check_split(split, splits.SPLITS, self.name)
        every = self._examples[split]
        return every.take(rng.integers(0, len(every), n))

    def psnr(self, output: Array) -> float:
        """Return the peak signal-to-noise ratio, dB, of colours ``(side ** 2, 3)`` of the `grid`.

        Of all three channels together, peak 1, after clipping to [0, 1]; infinite if exact.
        """
        given = np.clip(outputs(output, (self.side**2, 3), self.name), 0, 1)
        error = float(np.square(given - self.pixels.reshape(-1, 3)).mean())
        return float(-10 * np.log10(error)) if error else float("inf")

    # the oracle

    def optimum(self, batch: Batch) -> NDArray[np.float64]:
        """Return the exact colours ``(n, 3)``."""
        return self.value(batch.inputs)

    def regret(self, batch: Batch, output: Array) -> NDArray[np.float64]:
        """Return ``(n,)`` squared errors, summed over channels."""
        error = np.asarray(output, np.float64) - self.optimum(batch)
        return np.asarray(np.square(error).sum(axis=1))

    def judge(self, batch: Batch, output: Sequence[Any]) -> Mapping[str, Array]:
        """Judge ``n`` colours: valid if finite, right if each channel is within `TOLERANCE`."""
        given = outputs(output, (len(batch), 3), self.name)
        valid: Array = np.asarray(np.isfinite(given).all(axis=1))
        far = np.abs(np.where(valid[:, None], given, np.inf) - self.optimum(batch)).max(axis=1)
        return {"valid": valid, "right": far <= TOLERANCE}

    def joint_table(self, split: Split = "train") -> list[JointRow]:
        """Return the law of ``bright``, counted over the split."""
        splits.check_split(split, splits.SPLITS, self.name)
        share = float(self._examples[split].facts["bright"].mean())
        return [JointRow({"bright": True}, share), JointRow({"bright": False}, 1 - share)]

    def counterfactuals(self, n: int, rng: np.random.Generator) -> list[Counterfactual]:
        """Return points mirrored in each axis, with whatever that changes."""
        before = self.sample(n, rng, "test")
        pairs = []
        for axis, sign in (("x", (-1, 1)), ("y", (1, -1))):
            after = self.at(before.inputs * np.array(sign, np.float32))
            changed = tuple(f for f in before.facts if (before.facts[f] != after.facts[f]).any())
            pairs.append(Counterfactual(f"mirror_{axis}", axis, changed, before, after))
        return pairs


def _file(name: str) -> Path:
    """Return the file that ``name`` means; raises ``InputError`` where there is none."""
    path = Path(name).expanduser()
    if path.is_file():
        return path
    if path.suffix or path.name != name:
        raise InputError(f"There is no image file {path}; give a PNG, JPEG, TIFF or similar file.")
    if name not in photographs():
        raise InputError(
            f"'{name}' is neither an image file nor a photograph of scikit-image; those are: "
            f"{', '.join(photographs())}."
        )
    return photograph_file(name)
