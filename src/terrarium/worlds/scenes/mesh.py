"""Meshes: the scene that a file from any 3D program holds, with its exact answers.

Distances, winding numbers and curvature by libigl, rays by Embree.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from terrarium.errors import InputError
from terrarium.worlds.given import coordinates
from terrarium.worlds.scenes.colours import Frozen
from terrarium.worlds.scenes.jet import Floats
from terrarium.worlds.scenes.lights import Light
from terrarium.worlds.scenes.mesh_curvature import vertex_curvature
from terrarium.worlds.scenes.mesh_files import checksum, needs_vision
from terrarium.worlds.scenes.mesh_surface import Surface, read_surface
from terrarium.worlds.scenes.scene import Hits, Lights
from terrarium.worlds.scenes.texture import Filter

DOUBT = 0.05
"""Approximate winding numbers this near one half are worked out exactly."""


class MeshFile(Frozen):
    """A mesh file as part of a spec: glTF, GLB, OBJ, PLY, STL or OFF.

    Attributes
    ----------
    texture:
        A picture to wear instead of the mesh's own colours, by its texture coordinates.
    filter:
        How a texture is read between the middles of its pixels.
    smooth:
        Normals interpolated between vertices, as 3D programs shade; else each face's own.
    checksum:
        Of the file and all that it refers to; filled in, and checked where it is given.
    """

    kind: Literal["mesh"] = "mesh"
    path: str
    texture: str | None = None
    filter: Filter = "bilinear"
    smooth: bool = False
    lights: tuple[Light, ...] = ()
    ambient: Annotated[float, Field(ge=0)] = 0.2
    checksum: str = ""

    @model_validator(mode="after")
    def _pin_content(self) -> MeshFile:
        picture = None if self.texture is None else Path(self.texture)
        content = checksum(Path(self.path), picture)
        if self.checksum not in ("", content):
            raise InputError(
                f"{self.path} is not the mesh that was used before (checksum {self.checksum}); put "
                "that one back, or leave checksum out to take this one."
            )
        object.__setattr__(self, "checksum", content)
        return self


class Nearest(NamedTuple):
    """The nearest points of a mesh.

    ``distance`` (n,) without sign, ``face`` (n,), ``point`` (n, 3), barycentric ``weights`` (n, 3).
    """

    distance: Floats
    face: NDArray[np.int64]
    point: Floats
    weights: Floats


@functools.lru_cache(maxsize=4)
def open_mesh(file: MeshFile) -> MeshScene:
    """Return the scene of a mesh file; the last few stay open, since trees take time to build."""
    texture = None if file.texture is None else Path(file.texture)
    return MeshScene(file, read_surface(Path(file.path), texture))


@dataclass(frozen=True, eq=False)
class MeshScene:
    """The oracle of a mesh, in the file's own coordinates.

    The nearest point is exact (libigl's AABB tree, float64).  Inside is where the generalized
    winding number is over one half (Jacobson, Kavan & Sorkine-Hornung 2013; computed as in Barill
    et al. 2018, and exactly where that leaves a doubt), which also serves meshes with holes.
    """

    file: MeshFile
    surface_mesh: Surface

    def __repr__(self) -> str:
        """Say what was opened, not its numbers."""
        holes = "watertight" if self.watertight else f"{self.surface_mesh.holes} open edges"
        return (
            f"MeshScene({Path(self.file.path).name!r}: {len(self.surface_mesh.vertices)} vertices, "
            f"{len(self.surface_mesh.faces)} faces, {holes}; {len(self.notes)} notes)"
        )

    @property
    def bounds(self) -> Floats:
        """The corners ``(2, 3)`` of the box about the mesh."""
        vertices = self.surface_mesh.vertices
        return np.array([vertices.min(axis=0), vertices.max(axis=0)])

    @property
    def notes(self) -> tuple[str, ...]:
        """What was mended and what is flagged, a sentence each."""
        return self.surface_mesh.notes

    @property
    def lights(self) -> Lights:
        """The lights of the spec."""
        return self.file.lights

    @property
    def ambient(self) -> float:
        """The ambient light of the spec."""
        return self.file.ambient

    @property
    def watertight(self) -> bool:
        """Whether every edge has faces on both sides."""
        return self.surface_mesh.holes == 0

    # trees, built when first asked for

    @functools.cached_property
    def _tree(self) -> Any:
        tree = _igl().AABB()
        tree.init(self.surface_mesh.vertices, self.surface_mesh.faces)
        return tree

    @functools.cached_property
    def _winding(self) -> Any:
        tree = _igl().FastWindingNumberBVH()
        tree.init(self.surface_mesh.vertices, self.surface_mesh.faces)
        return tree

    @functools.cached_property
    def _rays(self) -> Any:
        try:
            from embreex.mesh_construction import TriangleMesh
            from embreex.rtcore_scene import EmbreeScene
        except ImportError as error:
            raise needs_vision(error) from None
        scene = EmbreeScene()
        vertices = self._embree(self.surface_mesh.vertices)
        TriangleMesh(scene, vertices, self.surface_mesh.faces.astype(np.int32))
        return scene

    @functools.cached_property
    def _corners(self) -> Floats:
        """The faces' corners, ``(m, 3 corners, 3)``."""
        return np.asarray(self.surface_mesh.vertices[self.surface_mesh.faces])

    @functools.cached_property
    def _face_normals(self) -> Floats:
        a, b, c = self._corners.transpose(1, 0, 2)
        return _unit(np.cross(b - a, c - a))

    @functools.cached_property
    def _vertex_normals(self) -> Floats:
        """Vertex normals ``(v, 3)``, face normals weighted by their angles there."""
        surface = self.surface_mesh
        angles = _angles(self._corners)
        total = np.zeros_like(surface.vertices)
        for corner in range(3):
            np.add.at(total, surface.faces[:, corner], angles[:, corner, None] * self._face_normals)
        return _unit(total)

    @functools.cached_property
    def _vertex_curvature(self) -> Floats:
        surface = self.surface_mesh
        return vertex_curvature(_igl(), surface.vertices, surface.faces)

    @functools.cached_property
    def _pieces(self) -> NDArray[np.int64]:
        return np.asarray(_igl().facet_components(self.surface_mesh.faces)[1], dtype=np.int64)

    # the oracle

    def nearest(self, points: Floats) -> Nearest:
        """Return the nearest point of the mesh to each of ``points`` (n, 3)."""
        points, surface = coordinates(points), self.surface_mesh
        order = _along_a_curve(points)
        squared, faces, places = self._tree.squared_distance(
            surface.vertices, surface.faces, points[order]
        )
        distance, face = np.empty(len(points)), np.empty(len(points), dtype=np.int64)
        point = np.empty_like(points)
        distance[order] = np.sqrt(np.reshape(squared, -1))
        face[order], point[order] = np.reshape(faces, -1), np.reshape(places, (-1, 3))
        return Nearest(distance, face, point, _barycentric(self._corners[face], point))

    def winding(self, points: Floats) -> Floats:
        """Return the generalized winding number ``(n,)``: 1 inside, 0 outside, between at holes."""
        points, surface = coordinates(points), self.surface_mesh
        found = np.zeros(len(points))
        low, high = self.bounds
        # beyond the box of a closed mesh there is nothing to be inside of
        within = ((points >= low) & (points <= high)).all(axis=1) | (not self.watertight)
        asked = np.flatnonzero(within)
        asked = asked[_along_a_curve(points[asked])]
        if len(asked):
            found[asked] = np.reshape(self._winding.winding_number(points[asked]), -1)
        doubt = np.flatnonzero(np.abs(found - 0.5) < DOUBT)
        if len(doubt):
            exact = _igl().winding_number(
                surface.vertices, surface.faces, np.ascontiguousarray(points[doubt])
            )
            found[doubt] = np.reshape(exact, -1)
        return found

    def occupancy(self, points: Floats) -> NDArray[np.bool_]:
        """Return which points ``(n,)`` lie inside: winding number over one half."""
        return np.asarray(self.winding(points) > 0.5)

    def distance(self, points: Floats) -> Floats:
        """Return the signed distance ``(n,)``, negative inside."""
        size = self.nearest(points).distance
        return np.asarray(np.where(self.occupancy(points), -size, size))

    def colour(self, points: Floats) -> Floats:
        """Return the colour ``(n, 3)`` in [0, 1] of the nearest point of the mesh."""
        near = self.nearest(points)
        return self.surface_mesh.wear.at(near.face, near.weights, self.file.filter)

    def normals(self, points: Floats) -> Floats:
        """Return the unit normal ``(n, 3)`` at the nearest point of the mesh."""
        near = self.nearest(points)
        return self._normals(near.face, near.weights)

    def _normals(self, face: NDArray[np.int64], weights: Floats) -> Floats:
        if not self.file.smooth:
            return np.asarray(self._face_normals[face])
        at_corners = self._vertex_normals[self.surface_mesh.faces[face]]
        return _unit(np.einsum("nc,nck->nk", weights, at_corners))

    def closest(self, points: Floats) -> Floats:
        """Return the nearest point ``(n, 3)`` of the mesh."""
        return self.nearest(points).point

    def curvature(self, points: Floats) -> Floats:
        """Return the mean curvature ``(n,)``, 1 / unit, at the nearest point of the mesh.

        Fitted at vertices by libigl (``principal_curvature``) and interpolated; NaN where the fit
        failed and where the mesh has no thickness.  On a coarse mesh it is that of a surface
        smoother than the mesh.
        """
        near = self.nearest(points)
        at_corners = self._vertex_curvature[self.surface_mesh.faces[near.face]]
        return np.asarray(np.einsum("nc,nc->n", near.weights, at_corners))

    def parts(self, points: Floats) -> NDArray[np.int64]:
        """Return the connected piece ``(n,)`` of the mesh that is nearest, counted from 0."""
        return np.asarray(self._pieces[self.nearest(points).face])

    def cast(self, origins: Floats, directions: Floats) -> Hits:
        """Return where rays ``(n, 3)``, directions of length 1, first meet the mesh.

        Embree finds the face in float32; the depth is worked out in float64 in its plane.
        """
        origins, directions = coordinates(origins), coordinates(directions, "Directions")
        face = np.asarray(
            self._rays.run(self._embree(origins), directions.astype(np.float32), query="INTERSECT"),
            dtype=np.int64,
        )
        hit = np.flatnonzero(face >= 0)
        face = face[hit]
        a, flat = self._corners[face, 0], self._face_normals[face]
        slope = np.einsum("ni,ni->n", flat, directions[hit])
        height = np.einsum("ni,ni->n", flat, a - origins[hit])
        along = np.divide(height, slope, out=np.full(len(hit), -1.0), where=slope != 0)
        good = along >= 0
        hit, face, along = hit[good], face[good], along[good]
        points = origins[hit] + along[:, None] * directions[hit]
        weights = _barycentric(self._corners[face], points)
        depth = np.full(len(origins), np.inf)
        colour, normals = np.zeros_like(origins), np.zeros_like(origins)
        depth[hit] = along
        colour[hit] = self.surface_mesh.wear.at(face, weights, self.file.filter)
        normals[hit] = self._normals(face, weights)
        return Hits(depth, colour, normals)

    def surface(self, n: int, rng: np.random.Generator) -> Floats:
        """Return ``n`` points of the mesh, even by area."""
        a, b, c = self._corners.transpose(1, 0, 2)
        area = np.cumsum(np.linalg.norm(np.cross(b - a, c - a), axis=1))
        face = np.searchsorted(area, rng.random(n) * area[-1], side="right")
        face = np.minimum(face, len(area) - 1)
        root, share = np.sqrt(rng.random((n, 1))), rng.random((n, 1))
        return np.asarray(
            (1 - root) * a[face] + root * (1 - share) * b[face] + root * share * c[face]
        )

    def _embree(self, points: Floats) -> NDArray[np.float32]:
        """Return points in coordinates that suit float32: the mesh within a cube of side 100."""
        low, high = self.bounds
        return np.asarray((points - low) * (100 / float((high - low).max())), dtype=np.float32)


def _igl() -> Any:
    try:
        import igl
    except ImportError as error:
        raise needs_vision(error) from None
    return igl


def _along_a_curve(points: Floats) -> NDArray[np.int64]:
    """Return an order of points in which neighbours lie near each other (Morton's curve).

    Trees answer twice as fast in it, since they walk the same branches again.
    """
    if len(points) < 2:
        return np.arange(len(points))
    low, size = points.min(axis=0), np.maximum(np.ptp(points, axis=0), 1e-300)
    bits = np.clip((points - low) / size * 1023, 0, 1023).astype(np.int64)
    for shift, mask in ((16, 0x030000FF), (8, 0x0300F00F), (4, 0x030C30C3), (2, 0x09249249)):
        bits = (bits | bits << shift) & mask  # two empty bits between any two
    return np.argsort(bits[:, 0] | bits[:, 1] << 1 | bits[:, 2] << 2, kind="stable")


def _unit(vectors: Floats) -> Floats:
    size = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(np.divide(vectors, size, out=np.zeros_like(vectors), where=size > 0))


def _angles(corners: Floats) -> Floats:
    """Return the angles ``(m, 3)`` at the corners ``(m, 3, 3)`` of triangles."""
    ahead = _unit(np.roll(corners, -1, axis=1) - corners)
    behind = _unit(np.roll(corners, 1, axis=1) - corners)
    return np.asarray(np.arccos(np.clip(np.einsum("mck,mck->mc", ahead, behind), -1, 1)))


def _barycentric(corners: Floats, points: Floats) -> Floats:
    """Return barycentric coordinates ``(n, 3)``, not below 0, of points in triangles' planes."""
    a, b, c = corners.transpose(1, 0, 2)
    one, two, to = b - a, c - a, points - a
    normal = np.cross(one, two)
    square = np.maximum(np.einsum("ni,ni->n", normal, normal), 1e-300)
    second = np.einsum("ni,ni->n", np.cross(to, two), normal) / square
    third = np.einsum("ni,ni->n", np.cross(one, to), normal) / square
    weights = np.clip(np.stack([1 - second - third, second, third], axis=1), 0.0, None)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))
