"""Where the examples of a scene lie: points of its space, and rays of its views."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from terrarium.errors import InputError
from terrarium.worlds import splits
from terrarium.worlds.scenes.camera import Camera, on_sphere
from terrarium.worlds.scenes.colours import Frozen
from terrarium.worlds.scenes.jet import Floats
from terrarium.worlds.scenes.scene import Scene

CELLS = 16
"""The box is cut into this many cells a side; a cell belongs to one split."""

STRATA = ("volume", "near", "surface")

_ROUNDS = 200
"""Rounds of draws after which points with a property count as not to be found."""

_SHARES = dict(zip(splits.SPLITS, splits.SHARES, strict=True))

Share = Annotated[float, Field(ge=0, le=1)]


class PointLaw(Frozen):
    """How points are drawn: shares of three laws, which sum to 1.

    Attributes
    ----------
    volume:
        Even in the scene's box and its margin.
    near:
        A point of the surface (even by area) and a Gaussian step in space of standard deviation
        ``spread``, again and again until it ends in the box.
    surface:
        On the surface, even by area.
    spread:
        In diagonals of the scene's box.
    """

    volume: Share = 0.5
    near: Share = 0.5
    surface: Share = 0.0
    spread: float = Field(0.02, gt=0, le=1)

    @model_validator(mode="after")
    def _sums_to_one(self) -> PointLaw:
        total = sum(self.shares)
        if abs(total - 1) > 1e-9:
            raise ValueError(f"the shares volume, near and surface sum to {total:.6g}, not 1")
        return self

    @property
    def shares(self) -> tuple[float, float, float]:
        """The shares in the order of `STRATA`."""
        return self.volume, self.near, self.surface

    def points(
        self,
        scene: Scene,
        box: Floats,
        stratum: str,
        n: int,
        rng: np.random.Generator,
        split: str,
        inside: bool | None = None,
    ) -> NDArray[np.float32]:
        """Return ``n`` points of one law in the cells of ``split``, inside or outside if asked.

        Raises ``InputError`` where there are hardly any.
        """
        found: list[NDArray[np.float32]] = []
        have = 0
        for _ in range(_ROUNDS):
            if have >= n:
                break
            wanted = int(1.3 * (n - have) / _SHARES[split] * (1 if inside is None else 2)) + 32
            tried = self._tried(scene, box, stratum, wanted, rng).astype(np.float32)
            tried = tried[((tried >= box[0]) & (tried <= box[1])).all(axis=1)]
            tried = tried[owned(tried, box, split)]
            if inside is not None:
                tried = tried[scene.occupancy(tried.astype(np.float64)) == inside]
            found.append(tried)
            have += len(tried)
        if have < n:
            side = {True: " inside", False: " outside", None: ""}[inside]
            raise InputError(
                f"The scene has hardly any points{side} ({have} of {n} found, law '{stratum}', "
                f"split '{split}'); check that it is closed, its extent and the margin."
            )
        return np.concatenate(found)[:n] if found else np.zeros((0, 3), np.float32)

    def _tried(
        self, scene: Scene, box: Floats, stratum: str, n: int, rng: np.random.Generator
    ) -> Floats:
        if stratum == "volume":
            return rng.uniform(box[0], box[1], (n, 3))
        points = scene.surface(n, rng)
        if stratum == "near":
            diagonal = float(np.linalg.norm(scene.bounds[1] - scene.bounds[0]))
            points = points + rng.normal(0, self.spread * diagonal, points.shape)
        return points


def owned(points: NDArray[np.float32], box: Floats, split: str) -> NDArray[np.bool_]:
    """Return which points ``(n, 3)`` lie in a cell of ``split``."""
    place = (points.astype(np.float64) - box[0]) / (box[1] - box[0])
    cell = np.clip(place * CELLS, 0, CELLS - 1).astype(np.int64)
    # the hash is of unordered pairs: the second is always the larger
    return splits.owned(cell[:, 0] * CELLS + cell[:, 1], cell[:, 2] + CELLS * CELLS, split)


class Views(Frozen):
    """The pictures of a scene: cameras on a sphere about the middle of its box.

    They are spread evenly (a Fibonacci lattice) over the part of the sphere between two elevations,
    and each belongs to one split.

    Attributes
    ----------
    radius:
        Of the sphere, in the units of the world's inputs.
    up:
        The axis that points upwards: ``"z"`` in Blender, ``"y"`` in glTF and most OBJ files.
    """

    count: int = Field(100, ge=20, le=10_000)
    rows: int = Field(100, ge=1)
    columns: int = Field(100, ge=1)
    fov_rad: float = Field(0.6911, gt=0, lt=3.1, description="horizontal")
    radius: float = Field(4.0, gt=0)
    lowest_deg: float = Field(-30.0, ge=-90, lt=90)
    highest_deg: float = Field(80.0, gt=-90, le=90)
    up: Literal["y", "z"] = "z"
    background: tuple[float, float, float] = (1.0, 1.0, 1.0)

    @model_validator(mode="after")
    def _has_room(self) -> Views:
        if self.highest_deg <= self.lowest_deg:
            raise ValueError("highest_deg must be above lowest_deg")
        return self

    def of_split(self, split: str) -> NDArray[np.int64]:
        """Return the numbers of the cameras that belong to ``split``."""
        number = np.arange(self.count, dtype=np.int64)
        return np.flatnonzero(splits.owned(number, number + self.count, split))

    def poses(self, centre: Floats) -> Floats:
        """Return the poses ``(count, 4, 4)`` of all cameras about ``centre`` (3,)."""
        low, high = (np.sin(np.deg2rad(a)) for a in (self.lowest_deg, self.highest_deg))
        rank = (np.arange(self.count) + 0.5) / self.count
        elevation = np.arcsin(low + rank * (high - low))
        azimuth = np.arange(self.count) * np.pi * (3 - np.sqrt(5))
        return np.stack(
            [
                on_sphere(self.radius, a, e, target=centre.tolist(), up=self.up)
                for a, e in zip(azimuth, elevation, strict=True)
            ]
        )

    def rays(
        self, n: int, rng: np.random.Generator, split: str, poses: Floats, unit: bool = True
    ) -> tuple[NDArray[np.float32], dict[str, NDArray[np.int64]]]:
        """Return rays ``(n, 6)`` of even pixels of the cameras of ``split``, and their facts.

        ``poses`` are those of all cameras; directions are as `Camera.rays` gives them.  The facts
        are ``camera``, ``row`` and ``column``.  Raises ``InputError`` for a split without cameras.
        """
        mine = self.of_split(split)
        if not len(mine):
            raise InputError(
                f"Split '{split}' has none of the {self.count} cameras; raise views.count."
            )
        camera = mine[rng.integers(0, len(mine), n)]
        row, column = rng.integers(0, self.rows, n), rng.integers(0, self.columns, n)
        facts = {"camera": camera, "row": row, "column": column}
        return self.through(poses[camera], row, column, unit), facts

    def through(
        self, poses: Floats, row: NDArray[Any], column: NDArray[Any], unit: bool = True
    ) -> NDArray[np.float32]:
        """Return the rays ``(n, 6)`` of pixels, each of a camera of its own, ``(n, 4, 4)``."""
        _, local = self.camera(np.eye(4)).through(row, column, unit)
        directions = np.einsum("nij,nj->ni", poses[:, :3, :3], local)
        return np.concatenate([poses[:, :3, 3], directions], axis=1).astype(np.float32)

    def camera(self, pose: Floats) -> Camera:
        """Return the camera with a pose ``(4, 4)``."""
        return Camera(self.rows, self.columns, self.fov_rad, pose)
