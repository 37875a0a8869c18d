"""The world of scenes: coordinates or rays in, the exact distance, occupancy or colour out.

Joint table: ``where`` (which law drew the point) has the shares of `PointLaw`; for occupancy
``inside`` is True with probability 1/2 besides, independently; for views ``camera`` is even among
the cameras of a split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from terrarium.errors import InputError
from terrarium.worlds import splits
from terrarium.worlds.base import Array, Batch, Counterfactual, JointRow, Split, VectorField
from terrarium.worlds.faults import Told
from terrarium.worlds.given import check_count, outputs
from terrarium.worlds.scenes.analytic import AnalyticScene
from terrarium.worlds.scenes.camera import Camera
from terrarium.worlds.scenes.jet import Floats
from terrarium.worlds.scenes.laws import STRATA, PointLaw, Views
from terrarium.worlds.scenes.load import SceneSpec, load_scene, scene_spec, with_kind
from terrarium.worlds.scenes.mesh import MeshScene
from terrarium.worlds.scenes.scene import Framed, Scene, seen

Quantity = Literal["distance", "occupancy", "colour", "view"]

DISTANCE_TOLERANCE = 0.005
"""A distance within this many diagonals of the optimum is right."""

COLOUR_TOLERANCE = 0.05
"""A colour is right if each channel is within this of the optimum."""

_SYMMETRY_POINTS = 4096


def _spec(given: Any) -> Any:
    if isinstance(given, str | Path):
        return scene_spec(given)
    return with_kind(given) if isinstance(given, Mapping) else given


_BALL = {"kind": "analytic", "shape": {"kind": "sphere"}}


class Scenes(Told):
    """A scene as a field over its box, or as what rays see.

    By itself the inputs are normalised: the middle of the box is the origin and the longest side,
    margin included, reaches from -1 to 1; distances are in that unit.  `oracle` answers in the
    same coordinates, `to_scene` leads back to the file's own.

    Facts of points: ``x``, ``y``, ``z``, ``distance`` (float64), ``inside`` (bool), ``where``
    (``volume``, ``near`` or ``surface``).  Facts of rays: ``camera``, ``row``, ``column`` (int64),
    ``depth`` (float64, infinite for none), ``hit`` (bool).

    Attributes
    ----------
    scene:
        A spec, or the path of a mesh or of a YAML file with one.
    quantity:
        ``distance``, ``occupancy`` (0 or 1) and ``colour`` at points ``(n, 3)``; ``view``: the
        colour ``(n, 3)`` that rays ``(n, 6)`` see, origin and direction of length 1.
    margin:
        About the scene's box, as a share of its longest half side.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    scene: Annotated[SceneSpec, BeforeValidator(_spec)] = Field(
        default_factory=lambda: AnalyticScene.model_validate(_BALL)
    )
    quantity: Quantity = "distance"
    law: PointLaw = PointLaw()
    views: Views = Views()
    margin: float = Field(0.1, ge=0, le=10)
    normalise: bool = True

    @model_validator(mode="after")
    def _has_two_sides(self) -> Scenes:
        if self.quantity == "occupancy" and self.law.surface:
            raise ValueError("a point on the surface is neither inside nor outside: surface: 0")
        return self

    @property
    def name(self) -> str:
        """``"scenes"``."""
        return "scenes"

    @property
    def output(self) -> VectorField:
        """A distance, an occupancy or a colour."""
        if self.quantity == "distance":
            own = "half sides of the box" if self.normalise else "units of the scene"
            return VectorField(1, own)
        if self.quantity == "occupancy":
            return VectorField(1, "occupancy (0 outside, 1 inside)")
        return VectorField(3, "RGB in [0, 1]")

    @cached_property
    def _frame(self) -> tuple[Floats, float]:
        """The middle of the scene's box, and half its longest side with the margin."""
        low, high = self._raw.bounds
        return (low + high) / 2, float((high - low).max()) / 2 * (1 + self.margin)

    @cached_property
    def _raw(self) -> Scene:
        scene = load_scene(self.scene)
        bare = isinstance(scene, MeshScene) and scene.surface_mesh.wear.plain
        if self.quantity == "colour" and bare and isinstance(scene, MeshScene):
            raise InputError(
                f"{scene.file.path} has one colour throughout; give texture, or a mesh with "
                "textures or vertex colours, to learn its colour."
            )
        return scene

    @cached_property
    def oracle(self) -> Scene:
        """The scene in the coordinates of the inputs."""
        return Framed(self._raw, *self._frame) if self.normalise else self._raw

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know about the scene, a sentence each."""
        return self._raw.notes

    @property
    def box(self) -> Floats:
        """The corners ``(2, 3)`` of the box that points are drawn from, margin included."""
        low, high = self.oracle.bounds
        edge = self.margin * float((high - low).max()) / 2
        return np.array([low - edge, high + edge])

    @property
    def diagonal(self) -> float:
        """The diagonal of the scene's own box, without the margin."""
        return float(np.linalg.norm(self.oracle.bounds[1] - self.oracle.bounds[0]))

    def to_scene(self, inputs: Array) -> Floats:
        """Return inputs ``(n, 3)`` in the coordinates of the scene's own file."""
        points = np.asarray(inputs, dtype=np.float64)
        return points * self._frame[1] + self._frame[0] if self.normalise else points

    @cached_property
    def _poses(self) -> Floats:
        return self.views.poses(self.box.mean(axis=0))

    def cameras(self, split: Split = "train") -> list[Camera]:
        """Return the cameras of ``split``, to `render` the world's `oracle` with."""
        splits.check_split(split, splits.SPLITS, self.name)
        return [self.views.camera(self._poses[i]) for i in self.views.of_split(split)]

    # examples

    def sample(self, n: int, rng: np.random.Generator, split: Split = "train") -> Batch:
        """Return ``n`` points of cells, or rays of cameras, that belong to ``split`` alone."""
        check_count(n, self.name)
        splits.check_split(split, splits.SPLITS, self.name)
        if self.quantity == "view":
            return self._rays(n, rng, split)
        where = rng.choice(len(STRATA), n, p=self.law.shares)
        points = np.zeros((n, 3), np.float32)
        sides = (True, False) if self.quantity == "occupancy" else (None,)
        side = rng.integers(0, len(sides), n)
        for stratum, name in enumerate(STRATA):
            for i, inside in enumerate(sides):
                rows = np.flatnonzero((where == stratum) & (side == i))
                points[rows] = self.law.points(
                    self.oracle, self.box, name, len(rows), rng, split, inside
                )
        return self.at(points, np.array(STRATA)[where])

    def at(self, points: NDArray[np.float32], where: Array | None = None) -> Batch:
        """Return the examples at given points ``(n, 3)``, in the coordinates of the inputs."""
        inputs = np.asarray(points, dtype=np.float32)
        exact = inputs.astype(np.float64)
        distance = self.oracle.distance(exact)
        facts: dict[str, Array] = dict(zip("xyz", exact.T, strict=True))
        facts |= {
            "distance": distance,
            "inside": np.asarray(distance < 0),
            "where": np.full(len(inputs), "volume") if where is None else where,
        }
        if self.quantity == "distance":
            targets = distance[:, None]
        elif self.quantity == "occupancy":
            targets = facts["inside"][:, None]
        else:
            targets = self.oracle.colour(exact)
        return Batch(inputs, np.asarray(targets, dtype=np.float32), facts)

    def _rays(self, n: int, rng: np.random.Generator, split: str) -> Batch:
        inputs, facts = self.views.rays(n, rng, split, self._poses)
        return self._seen(inputs, facts)

    def _seen(self, inputs: NDArray[np.float32], facts: Mapping[str, Array]) -> Batch:
        colour, depth = self._look(inputs)
        more = {**facts, "depth": depth, "hit": np.isfinite(depth)}
        return Batch(inputs, colour.astype(np.float32), more)

    def _look(self, inputs: Array) -> tuple[Floats, Floats]:
        rays = np.asarray(inputs, dtype=np.float64)
        unit = rays[:, 3:] / np.linalg.norm(rays[:, 3:], axis=1, keepdims=True)
        return seen(self.oracle, rays[:, :3], unit, background=self.views.background)

    # the oracle

    def optimum(self, batch: Batch) -> NDArray[np.float64]:
        """Return the exact right output, ``(n, 1)`` or ``(n, 3)``."""
        points = np.asarray(batch.inputs, dtype=np.float64)
        if self.quantity == "view":
            return self._look(points)[0]
        if self.quantity == "distance":
            return self.oracle.distance(points)[:, None]
        if self.quantity == "occupancy":
            return self.oracle.occupancy(points)[:, None].astype(np.float64)
        return self.oracle.colour(points)

    def regret(self, batch: Batch, output: Array) -> NDArray[np.float64]:
        """Return ``(n,)`` squared errors, summed over channels."""
        error = np.asarray(output, dtype=np.float64) - self.optimum(batch)
        return np.asarray(np.square(error).sum(axis=1))

    def judge(self, batch: Batch, output: Sequence[Any]) -> Mapping[str, Array]:
        """Judge ``n`` outputs: valid if finite, right if within the quantity's tolerance.

        Distances: `DISTANCE_TOLERANCE` diagonals; occupancy: on the right side of one half;
        colours: `COLOUR_TOLERANCE` in each channel.
        """
        best = self.optimum(batch)
        given = outputs(output, best.shape, self.name)
        valid: Array = np.asarray(np.isfinite(given).all(axis=1))
        worst = np.abs(np.where(valid[:, None], given, np.inf) - best).max(axis=1)
        if self.quantity == "occupancy":
            return {"valid": valid, "right": worst < 0.5}
        room = (
            DISTANCE_TOLERANCE * self.diagonal if self.quantity == "distance" else COLOUR_TOLERANCE
        )
        return {"valid": valid, "right": worst <= room}

    def joint_table(self, split: Split = "train") -> list[JointRow]:
        """Return the law of ``where`` (and ``inside`` for occupancy), or of ``camera``."""
        if self.quantity == "view":
            mine = self.views.of_split(split)
            return [JointRow({"camera": int(i)}, 1 / len(mine)) for i in mine]
        table = [
            JointRow({"where": name}, share)
            for name, share in zip(STRATA, self.law.shares, strict=True)
            if share
        ]
        if self.quantity != "occupancy":
            return table
        return [
            JointRow({**row.values, "inside": side}, row.probability / 2)
            for row in table
            for side in (True, False)
        ]

    def counterfactuals(self, n: int, rng: np.random.Generator) -> list[Counterfactual]:
        """Return points carried through the surface and mirrored; rays that start further on.

        ``mirror_x`` and the like are there where the scene has that symmetry: they change a
        coordinate and nothing else.  A ray that starts halfway to the surface sees the same.
        """
        before = self.sample(n, rng, "test")
        if self.quantity == "view":
            return [self._further(before)]
        points = before.inputs.astype(np.float64)
        across = self.at(
            (2 * self.oracle.closest(points) - points).astype(np.float32), before.facts["where"]
        )
        changed = tuple(f for f in before.facts if (before.facts[f] != across.facts[f]).any())
        pairs = [Counterfactual("through_the_surface", "point", changed, before, across)]
        for axis, name in enumerate("xyz"):
            if self._symmetric(axis):
                sign = np.where(np.arange(3) == axis, -1, 1).astype(np.float32)
                facts = {**before.facts, name: -before.facts[name]}
                after = replace(before, inputs=before.inputs * sign, facts=facts)
                pairs.append(Counterfactual(f"mirror_{name}", name, (name,), before, after))
        return pairs

    def _further(self, before: Batch) -> Counterfactual:
        depth = before.facts["depth"]
        step = np.where(before.facts["hit"], depth / 2, 0.1)
        rays = before.inputs.astype(np.float64)
        rays[:, :3] += step[:, None] * rays[:, 3:]
        facts = {**before.facts, "depth": depth - step}
        after = replace(before, inputs=rays.astype(np.float32), facts=facts)
        return Counterfactual("further_on", "origin", ("depth",), before, after)

    def _symmetric(self, axis: int) -> bool:
        """Return whether the answer is the same at mirrored inputs, at many points."""
        if not self.normalise:
            return False  # mirrored about a middle that float32 does not hold
        low, high = self.box
        points = np.random.default_rng(0).uniform(low, high, (_SYMMETRY_POINTS, 3))
        mirrored = points * np.where(np.arange(3) == axis, -1, 1)
        answer = self.oracle.colour if self.quantity == "colour" else self.oracle.distance
        same = np.abs(answer(points) - answer(mirrored)).max() <= 1e-9
        distances = np.abs(self.oracle.distance(points) - self.oracle.distance(mirrored)).max()
        return bool(same and distances <= 1e-9)
