"""Cameras: OpenGL's convention, as in the Blender scenes of NeRF (Mildenhall et al. 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrarium.errors import InputError
from terrarium.worlds.scenes.jet import Floats

Vector = Sequence[float]


@dataclass(frozen=True, eq=False)
class Camera:
    """A pinhole camera that looks along its own -z axis, x to the right and y upwards.

    Attributes
    ----------
    rows, columns:
        Pixels of its picture.
    fov_rad:
        The horizontal field of view in radians (``camera_angle_x`` of NeRF's Blender scenes).
    pose:
        ``(4, 4)`` matrix from the camera's coordinates to the scene's (``transform_matrix``).
    offset:
        Where in a pixel its ray passes, in pixels from the upper left corner: 0.5 is the middle;
        NeRF's published code uses 0.
    """

    rows: int
    columns: int
    fov_rad: float
    pose: Floats
    offset: float = 0.5

    def __post_init__(self) -> None:
        pose = np.asarray(self.pose, dtype=np.float64)
        if pose.shape != (4, 4) or not np.isfinite(pose).all():
            raise InputError(
                f"A camera's pose is {pose.shape} here; expected (4, 4) finite numbers, from the "
                "camera's coordinates to the scene's."
            )
        if self.rows < 1 or self.columns < 1 or not 0 < self.fov_rad < np.pi:
            raise InputError(
                f"A camera has {self.rows} rows, {self.columns} columns and a field of view of "
                f"{self.fov_rad} rad; expected at least one of each and less than pi."
            )
        object.__setattr__(self, "pose", pose)

    def __repr__(self) -> str:
        """Say where it stands."""
        at = ", ".join(f"{c:.3g}" for c in self.pose[:3, 3])
        return f"Camera({self.rows} x {self.columns} pixels, {self.fov_rad:.4g} rad, at ({at}))"

    @property
    def focal(self) -> float:
        """The focal length in pixels."""
        return float(0.5 * self.columns / np.tan(0.5 * self.fov_rad))

    def rays(self, unit: bool = True) -> tuple[Floats, Floats]:
        """Return origins and directions ``(rows, columns, 3)``, the first row uppermost.

        Directions have length 1; with ``unit=False`` they are as NeRF's code has them, 1 long
        along the axis of view, so that "near" and "far" are depths along that axis.
        """
        row, column = np.meshgrid(np.arange(self.rows), np.arange(self.columns), indexing="ij")
        return self.through(row, column, unit)

    def through(
        self, row: NDArray[Any], column: NDArray[Any], unit: bool = True
    ) -> tuple[Floats, Floats]:
        """Return the origins and directions of the given pixels, shaped as they are, and 3."""
        across = (column + self.offset - 0.5 * self.columns) / self.focal
        up = -(row + self.offset - 0.5 * self.rows) / self.focal
        local: Floats = np.stack([across, up, -np.ones_like(across)], axis=-1)
        if unit:
            local /= np.linalg.norm(local, axis=-1, keepdims=True)
        directions = local @ self.pose[:3, :3].T
        return np.broadcast_to(self.pose[:3, 3], directions.shape).copy(), directions


def look_at(eye: Vector, target: Vector = (0, 0, 0), up: Vector = (0, 0, 1)) -> Floats:
    """Return the pose ``(4, 4)`` of a camera at ``eye`` that looks at ``target``.

    Raises ``InputError`` where it would look along ``up`` or at itself.
    """
    back = np.subtract(eye, target, dtype=np.float64)
    right = np.cross(np.asarray(up, dtype=np.float64), back)
    if np.linalg.norm(right) <= 1e-12 * max(float(np.linalg.norm(back)), 1e-300):
        raise InputError(
            f"A camera at {tuple(eye)} cannot look at {tuple(target)} with {tuple(up)} upwards: "
            "the three lie on one line; give another up."
        )
    back, right = back / np.linalg.norm(back), right / np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3] = np.stack([right, np.cross(back, right), back, np.asarray(eye, float)], axis=1)
    return pose


def on_sphere(
    radius: float,
    azimuth_rad: float,
    elevation_rad: float,
    *,
    target: Vector = (0, 0, 0),
    up: str = "z",
) -> Floats:
    """Return the pose of a camera on a sphere about ``target`` that looks at it.

    With ``up="z"`` (Blender) azimuth 0 is the positive x axis and azimuth pi / 2 positive y; with
    ``up="y"`` (glTF, most OBJ files) azimuth 0 is positive z and azimuth pi / 2 positive x.  The
    poles are no exception: there the top of the picture points along growing elevation.
    """
    if up not in ("y", "z") or not radius > 0:
        raise InputError(
            f"A camera on a sphere has radius {radius} and up '{up}'; expected a positive radius "
            "and 'y' or 'z'."
        )
    (sa, ca), (se, ce) = ((np.sin(a), np.cos(a)) for a in (azimuth_rad, elevation_rad))
    axes = np.array(
        [
            [-sa, ca, 0.0],  # right: along growing azimuth
            [-ca * se, -sa * se, ce],  # upwards: along growing elevation
            [ca * ce, sa * ce, se],  # back: away from the target
        ]
    )
    if up == "y":
        axes = axes[:, [1, 2, 0]]
    pose = np.eye(4)
    pose[:3, :3] = axes.T
    pose[:3, 3] = np.asarray(target, dtype=np.float64) + radius * axes[2]
    return pose
