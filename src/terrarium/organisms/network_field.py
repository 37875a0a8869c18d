"""A world whose truth is a network: what a coordinate network says, everywhere in a box.

So a student's teacher is exact: the right output at any point is the network's own.  The network
lies in a folder (a grown organism's) or is described by a spec file, see
`terrarium.organisms.coordinate_file`; a function handed over in its place serves the same, but
has no key, so that no recipe can hold it.

Joint table: ``upper`` (the first coordinate lies in the upper half of the box) is True with
probability 1/2 in every split (points are drawn on both sides alike, evenly within each).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from terrarium.errors import InputError
from terrarium.organisms.coordinate_file import load_coordinate_network, network_files
from terrarium.organisms.state_files import files_checksum
from terrarium.worlds import splits
from terrarium.worlds.base import Array, Batch, Counterfactual, JointRow, Split, VectorField

CELLS = {1: 512, 2: 32, 3: 16}
"""Cells along each of the box's first three sides, by how many of them there are; a cell has one
split."""

TOLERANCE = 0.01
"""An output is right if each number is within this share of the outputs' standard deviation."""

Oracle = Callable[[NDArray[np.float32]], Array]
"""Points ``(n, d)`` float32 to the field there, ``(n, outputs)``."""


class NetworkField(BaseModel):
    """Points even in a box (float32), and what a network says there.

    Facts: ``x0``, ``x1``, ... and ``y0``, ``y1``, ... (float64), the coordinates and the outputs;
    ``upper`` (bool).

    Attributes
    ----------
    network:
        A folder or a spec file; empty where a function is handed over by `with_oracle`.
    low, high:
        The corners of the box.
    outputs:
        Numbers that come out; filled in from the network.
    checksum:
        Of the network's files; filled in, so that it is part of keys.  Files that no longer have it
        are refused.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: str = ""
    low: tuple[float, ...] = Field((-1.0, -1.0), min_length=1)
    high: tuple[float, ...] = Field((1.0, 1.0), min_length=1)
    outputs: int = Field(1, ge=1)
    unit: str = "units of the network"
    checksum: str = ""

    _oracle: Oracle | None = PrivateAttr(None)

    @model_validator(mode="before")
    @classmethod
    def _of_the_network(cls, given: Any) -> Any:
        if not isinstance(given, dict) or not given.get("network"):
            return given
        path = str(given["network"])
        found = _checksum(path)
        if given.get("checksum") not in (None, "", found):
            raise InputError(
                f"The network {path} is no longer the one of checksum {given['checksum']} (now "
                f"{found}); restore it, or leave checksum out."
            )
        spec = _loaded(path, found).spec
        if "outputs" in given and given["outputs"] != _outputs(spec):
            raise InputError(
                f"The network {path} has {_outputs(spec)} outputs, not {given['outputs']}; leave "
                "outputs out."
            )
        sides = {"low": (-1.0,) * spec.inputs, "high": (1.0,) * spec.inputs}
        if spec.box is not None:
            sides = {"low": spec.box[0], "high": spec.box[1]}
        filled = {**sides, **given, "checksum": found, "outputs": _outputs(spec)}
        if len(filled["low"]) != spec.inputs:
            raise InputError(
                f"The network {path} takes {spec.inputs} coordinates, and low has "
                f"{len(filled['low'])}; give as many."
            )
        return filled

    @model_validator(mode="after")
    def _is_a_box(self) -> NetworkField:
        if len(self.low) != len(self.high):
            raise ValueError("low and high must have as many numbers as the field has coordinates")
        if not all(a < b for a, b in zip(self.low, self.high, strict=True)):
            raise ValueError("low must lie below high in every coordinate")
        return self

    def with_oracle(self, oracle: Oracle) -> NetworkField:
        """Return this world with a function as its truth: ``(n, d)`` to ``(n, outputs)``."""
        world = self.model_copy(update={"network": "", "checksum": ""})
        world._oracle = oracle
        return world

    @property
    def name(self) -> str:
        """``"network_field"``."""
        return "network_field"

    @property
    def output(self) -> VectorField:
        """The network's outputs."""
        return VectorField(self.outputs, self.unit)

    @property
    def box(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """The corners of the box that inputs lie in."""
        return self.low, self.high

    def value(self, points: Array) -> NDArray[np.float64]:
        """Return what the network says ``(n, outputs)`` at points ``(n, d)``.

        Raises ``InputError`` where a function gives another shape, or none was handed over.
        """
        given = np.asarray(points, np.float32)
        if self.network:
            return _said(_loaded(self.network, self.checksum), given)
        if self._oracle is None:
            raise InputError(
                "This world's network was handed over as a function, which its spec cannot hold; "
                "call with_oracle again, or name a folder as its network."
            )
        said = np.asarray(self._oracle(given), np.float64)
        if said.shape != (len(given), self.outputs):
            raise InputError(
                f"The function gave {said.shape} for {len(given)} points, and must give "
                f"{(len(given), self.outputs)}; set outputs, or mend the function."
            )
        return said

    @functools.cached_property
    def _spread(self) -> NDArray[np.float64]:
        """The standard deviation of each output over the box."""
        rng = np.random.default_rng(0)
        points = rng.uniform(self.low, self.high, (4096, len(self.low)))
        return np.asarray(self.value(points.astype(np.float32)).std(axis=0))

    # examples

    def sample(self, n: int, rng: np.random.Generator, split: Split = "train") -> Batch:
        """Return ``n`` points of ``split``; cells of the box belong to one split each."""
        splits.check_split(split, splits.SPLITS, self.name)
        low, high = np.array(self.low), np.array(self.high)
        upper = rng.random(n) < 0.5
        points = np.zeros((n, len(low)), np.float32)
        pending = np.arange(n)
        while len(pending):
            tried = rng.uniform(low, high, (len(pending), len(low))).astype(np.float32)
            good = self._owned(tried, split) & (self._upper(tried) == upper[pending])
            points[pending[good]] = tried[good]
            pending = pending[~good]
        return self.at(points)

    def _owned(self, points: Array, split: str) -> NDArray[np.bool_]:
        low, high = np.array(self.low), np.array(self.high)
        place = (np.asarray(points, np.float64) - low) / (high - low)
        sides = min(3, len(low))
        count = CELLS[sides]
        cell = np.clip(place[:, :sides] * count, 0, count - 1).astype(np.int64)
        number = cell @ (count ** np.arange(sides))
        return splits.owned(number, np.full_like(number, count**sides), split)

    def _upper(self, points: Array) -> NDArray[np.bool_]:
        middle = (self.low[0] + self.high[0]) / 2
        return np.asarray(np.asarray(points, np.float64)[:, 0] > middle)

    def at(self, points: NDArray[np.float32]) -> Batch:
        """Return the examples at given points ``(n, d)``."""
        said = self.value(points)
        facts: dict[str, Array] = {
            f"x{i}": points[:, i].astype(np.float64) for i in range(points.shape[1])
        }
        facts |= {f"y{i}": said[:, i] for i in range(self.outputs)}
        facts["upper"] = self._upper(points)
        return Batch(np.asarray(points, np.float32), said.astype(np.float32), facts)

    # the oracle

    def optimum(self, batch: Batch) -> NDArray[np.float64]:
        """Return what the network says, ``(n, outputs)``."""
        return self.value(batch.inputs)

    def regret(self, batch: Batch, output: Array) -> NDArray[np.float64]:
        """Return ``(n,)`` squared errors, summed over outputs."""
        error = np.asarray(output, np.float64) - self.optimum(batch)
        return np.asarray(np.square(error).sum(axis=1))

    def judge(self, batch: Batch, output: Sequence[Any]) -> Mapping[str, Array]:
        """Judge ``n`` outputs: valid if finite, right if each is within `TOLERANCE`."""
        given = np.asarray(output, np.float64).reshape(len(batch), self.outputs)
        valid: Array = np.asarray(np.isfinite(given).all(axis=1))
        far = np.abs(np.where(valid[:, None], given, np.inf) - self.optimum(batch))
        right: Array = np.asarray((far <= TOLERANCE * self._spread).all(axis=1))
        return {"valid": valid, "right": right}

    def joint_table(self, split: Split = "train") -> list[JointRow]:
        """Return the law of ``upper``: even."""
        return [JointRow({"upper": side}, 0.5) for side in (True, False)]

    def counterfactuals(self, n: int, rng: np.random.Generator) -> list[Counterfactual]:
        """Return points mirrored about the middle of each side, with whatever that changes."""
        before = self.sample(n, rng, "test")
        pairs = []
        for axis, (low, high) in enumerate(zip(self.low, self.high, strict=True)):
            inputs = before.inputs.copy()
            inputs[:, axis] = (low + high) - inputs[:, axis]
            after = self.at(inputs)
            changed = tuple(f for f in before.facts if (before.facts[f] != after.facts[f]).any())
            pairs.append(Counterfactual(f"mirror_x{axis}", f"x{axis}", changed, before, after))
        return pairs


def _checksum(path: str) -> str:
    """Return a checksum of a network's files."""
    try:
        return files_checksum(network_files(path))
    except OSError as error:
        raise InputError(
            f"There is no file {error.filename}; give the folder of a saved coordinate network, or "
            "a YAML file that describes one."
        ) from None


@functools.lru_cache(maxsize=8)
def _loaded(path: str, checksum: str) -> Any:
    """Return the network, loaded once."""
    return load_coordinate_network(path)


def _outputs(spec: Any) -> int:
    return int(spec.outputs)


@torch.no_grad()
def _said(network: Any, points: NDArray[np.float32]) -> NDArray[np.float64]:
    parts = [network(part[None])[0] for part in torch.split(torch.from_numpy(points), 1 << 15)]
    return np.asarray(torch.cat(parts).double().numpy())
