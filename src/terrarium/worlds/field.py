"""A tiny world of coordinates: the signed distance of a disc, or a smooth union of two.

Joint table: ``inside`` is True with probability 1/2 in every split (the points are drawn inside
and outside alike, evenly within each).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field

from terrarium.worlds import splits
from terrarium.worlds.base import Array, Batch, Counterfactual, JointRow, Split, VectorField
from terrarium.worlds.faults import Told
from terrarium.worlds.given import check_count, outputs

CELLS = 32
"""The square [-1, 1] x [-1, 1] is cut into this many cells a side; a cell belongs to one split."""

TOLERANCE = 0.01
"""An output within this distance of the optimum is right."""


class AnalyticField(Told):
    """Coordinates in [-1, 1] x [-1, 1] (float32) and the field's value there.

    ``circle``: exact signed distance to a circle about the origin, negative inside.
    ``smooth_union``: the polynomial smooth minimum of the distances to two such circles, at
    ``(-offset, 0)`` and ``(offset, 0)`` (Quilez, "smooth minimum", the quadratic one); exact as a
    formula, a distance only away from the seam.

    Facts: ``x``, ``y``, ``distance`` (float64), ``inside`` (bool).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    shape: Literal["circle", "smooth_union"] = "circle"
    radius: float = Field(0.5, gt=0.1, lt=0.7)
    offset: float = Field(0.3, ge=0, lt=0.3001, description="of the two centres, smooth_union")
    smoothing: float = Field(0.2, gt=0, le=0.5, description="width of the seam, smooth_union")

    @property
    def name(self) -> str:
        """``"field"``."""
        return "field"

    @property
    def output(self) -> VectorField:
        """One number: a distance, in units of half the square's side."""
        return VectorField(1, "half sides of the square")

    def value(self, points: Array) -> NDArray[np.float64]:
        """Return the field ``(n,)`` at points ``(n, 2)``, computed in float64."""
        x, y = np.asarray(points, dtype=np.float64).T
        if self.shape == "circle":
            return np.asarray(np.hypot(x, y) - self.radius)
        one = np.hypot(x - self.offset, y) - self.radius
        two = np.hypot(x + self.offset, y) - self.radius
        near = np.maximum(self.smoothing - np.abs(one - two), 0) / self.smoothing
        return np.asarray(np.minimum(one, two) - near**2 * self.smoothing / 4)

    def sample(self, n: int, rng: np.random.Generator, split: Split = "train") -> Batch:
        """Return ``n`` points of ``split``; cells of the square belong to one split each."""
        check_count(n, self.name)
        splits.check_split(split, splits.SPLITS, self.name)
        inside = rng.random(n) < 0.5
        points = np.zeros((n, 2), np.float32)
        pending = np.arange(n)
        while len(pending):
            tried = rng.uniform(-1, 1, (len(pending), 2)).astype(np.float32)
            cell = np.clip((tried + 1) * (CELLS / 2), 0, CELLS - 1).astype(np.int64)
            # the hash is of unordered pairs: shift one coordinate so that cells stay ordered
            good = splits.owned(cell[:, 0], cell[:, 1] + CELLS, split)
            good &= (self.value(tried) < 0) == inside[pending]
            points[pending[good]] = tried[good]
            pending = pending[~good]
        return self.at(points)

    def at(self, points: NDArray[np.float32]) -> Batch:
        """Return the examples at given points ``(n, 2)``."""
        distance: Array = self.value(points)
        x, y = np.asarray(points, dtype=np.float64).T
        inside = np.asarray(distance < 0)
        facts: dict[str, Array] = {"x": x, "y": y, "distance": distance, "inside": inside}
        return Batch(points, np.asarray(distance[:, None], dtype=np.float32), facts)

    def optimum(self, batch: Batch) -> NDArray[np.float64]:
        """Return the exact field ``(n, 1)``."""
        return self.value(batch.inputs)[:, None]

    def regret(self, batch: Batch, output: Array) -> NDArray[np.float64]:
        """Return ``(n,)`` squared errors."""
        error = np.asarray(output, dtype=np.float64) - self.optimum(batch)
        return np.asarray(np.square(error).sum(axis=1))

    def judge(self, batch: Batch, output: Sequence[Any]) -> Mapping[str, Array]:
        """Judge ``n`` values: valid if finite, right if within `TOLERANCE`."""
        given: Array = outputs(output, (len(batch),), self.name)
        valid: Array = np.isfinite(given)
        right: Array = (
            np.abs(np.where(valid, given, np.inf) - self.value(batch.inputs)) <= TOLERANCE
        )
        return {"valid": valid, "right": right}

    def joint_table(self, split: Split = "train") -> list[JointRow]:
        """Return the law of ``inside``: even."""
        return [JointRow({"inside": side}, 0.5) for side in (True, False)]

    def counterfactuals(self, n: int, rng: np.random.Generator) -> list[Counterfactual]:
        """Return points mirrored in each axis, which leaves the field unchanged."""
        before = self.sample(n, rng, "test")
        pairs = []
        for axis, sign in (("x", (-1, 1)), ("y", (1, -1))):
            after = self.at(before.inputs * np.array(sign, np.float32))
            pairs.append(Counterfactual(f"mirror_{axis}", axis, (axis,), before, after))
        return pairs
