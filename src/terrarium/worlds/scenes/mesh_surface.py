"""A mesh as arrays: welded, checked, and turned the right way out; what was mended is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrarium.errors import InputError
from terrarium.worlds.scenes.jet import Floats
from terrarium.worlds.scenes.mesh_curvature import thickness_notes
from terrarium.worlds.scenes.mesh_files import needs_vision, opened
from terrarium.worlds.scenes.mesh_nested import nested
from terrarium.worlds.scenes.texture import Wear, dressed, read_texture

Faces = NDArray[np.int64]


EXTENTS = (1e-9, 1e9)
"""Smallest and largest longest side of a mesh's box, units, that its answers are exact for."""


@dataclass(frozen=True, eq=False)
class Surface:
    """Triangles: ``vertices`` (v, 3) float64, no two alike, ``faces`` (m, 3), their colours.

    ``holes`` counts edges with a face on one side alone; ``notes`` are sentences for people.
    """

    vertices: Floats
    faces: Faces
    wear: Wear
    holes: int
    notes: tuple[str, ...]


def read_surface(path: Path, texture: Path | None = None) -> Surface:
    """Return the mesh of a file, all its objects together.

    Vertices at the same place become one.  Faces without area and repeated faces are left out,
    faces that are turned against their neighbours are turned round, and so are closed pieces that
    are inside out; closed pieces wholly inside others are left out (`nested`); each is told in
    ``notes``.  Raises ``InputError`` in one sentence for what
    cannot be mended: no faces, coordinates that are no numbers, an extent beyond `EXTENTS`,
    surfaces without two sides.
    """
    override = None if texture is None else read_texture(texture)
    points, corners, uv, rgb, which, notes = [], [], [], [], [], list[str]()
    images: list[Floats] = []
    start = 0
    for geometry, place in opened(path):
        vertices = np.asarray(geometry.vertices, dtype=np.float64)
        faces = np.asarray(geometry.faces, dtype=np.int64)
        _check(path, vertices, faces)
        with np.errstate(over="ignore", invalid="ignore"):  # told by `_check_extent`
            points.append(vertices @ place[:3, :3].T + place[:3, 3])
        if np.linalg.det(place[:3, :3]) < 0:  # a mirror turns faces round
            faces = faces[:, [0, 2, 1]]
        corners.append(faces + start)
        start += len(vertices)
        worn = dressed(geometry, override, path)
        mirrored = np.full(len(faces), np.linalg.det(place[:3, :3]) < 0)
        part = Wear(worn.uv, worn.rgb, np.full(len(faces), -1), ()).turned(mirrored)
        uv.append(part.uv)
        rgb.append(part.rgb)
        which.append(np.full(len(faces), -1 if worn.image is None else len(images)))
        images += [] if worn.image is None else [worn.image]
        notes += [note for note in worn.notes if note not in notes]
    wear = Wear(np.concatenate(uv), np.concatenate(rgb), np.concatenate(which), tuple(images))
    vertices, faces = _welded(np.concatenate(points), np.concatenate(corners))
    _check_extent(path, vertices[np.unique(faces)])
    kept, told = _sound(path, vertices, faces)
    faces, wear = faces[kept], wear.take(kept)
    turned, more = _turned(path, vertices, faces)
    faces, wear = _apply(faces, turned), wear.turned(turned)
    edges = _Edges.of(faces)
    holes = int((edges.count == 1).sum())
    inner = nested(_igl(), vertices, faces, closed=not holes)
    faces, wear = faces[inner.kept], wear.take(inner.kept)
    vertices, faces = _compact(vertices, faces)
    thin = thickness_notes(vertices, faces)
    notes = [*told, *more, *_flags(edges, holes), *thin, *inner.notes, *notes]
    return Surface(vertices, faces, wear, holes, tuple(notes))


def _check(path: Path, vertices: Floats, faces: Faces) -> None:
    if faces.min() < 0 or faces.max() >= len(vertices):
        raise InputError(
            f"{path} has faces of vertices that are not there ({int(faces.max()) + 1} needed, "
            f"{len(vertices)} found); it may be cut off: export it again."
        )
    bad = np.asarray(~np.isfinite(vertices).all(axis=1))
    used = int(bad[np.unique(faces)].sum())
    if used:
        raise InputError(
            f"{path} has {used} vertices whose coordinates are NaN or infinite; delete or repair "
            "them in the 3D program and export again."
        )
    vertices.flags.writeable = True
    vertices[bad] = 0.0  # no face uses them; they are dropped below


def _check_extent(path: Path, vertices: Floats) -> None:
    """Refuse a mesh beyond `EXTENTS`; one without any extent is told by `_sound`."""
    with np.errstate(over="ignore", invalid="ignore"):
        extent = float(np.ptp(vertices, axis=0).max())
    if extent and not EXTENTS[0] <= extent <= EXTENTS[1]:
        raise InputError(
            f"{path} is {extent:.3g} units across; expected from {EXTENTS[0]:g} to {EXTENTS[1]:g}: "
            "delete stray vertices or scale the mesh in the 3D program and export again."
        )


def _welded(points: Floats, corners: Faces) -> tuple[Floats, Faces]:
    """Return vertices of which no two lie at the same place, and the faces of them."""
    vertices, index = np.unique(points + 0.0, axis=0, return_inverse=True)
    return vertices, np.asarray(index.reshape(-1)[corners], dtype=np.int64)


def _compact(vertices: Floats, faces: Faces) -> tuple[Floats, Faces]:
    """Return only the vertices that faces use."""
    used, index = np.unique(faces, return_inverse=True)
    return np.ascontiguousarray(vertices[used]), np.ascontiguousarray(index.reshape(faces.shape))


def _sound(path: Path, vertices: Floats, faces: Faces) -> tuple[NDArray[np.int64], list[str]]:
    """Return the rows of faces that have an area and are no repetition, and notes."""
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    twice = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    longest = np.square(np.stack([b - a, c - b, a - c])).sum(axis=2).max(axis=0)
    solid = twice > 1e-14 * longest
    if not solid.any():
        raise InputError(
            f"{path} has {len(faces)} faces and none with an area; export the mesh again."
        )
    # the same three corners in the same turn, whichever comes first
    first = np.argmin(faces, axis=1)[:, None]
    canonical = np.take_along_axis(faces, (first + np.arange(3)) % 3, axis=1)
    kept = np.flatnonzero(solid)
    _, once = np.unique(canonical[kept], axis=0, return_index=True)
    notes = []
    if gone := int((~solid).sum()):
        notes.append(f"{gone} faces without area were left out.")
    if again := len(kept) - len(once):
        notes.append(f"{again} repeated faces were left out.")
    return kept[np.sort(once)], notes


@dataclass(frozen=True, eq=False)
class _Edges:
    """Undirected edges: how many faces each has, and by how many more it runs one way."""

    count: NDArray[np.int64]
    excess: NDArray[np.int64]

    @classmethod
    def of(cls, faces: Faces) -> _Edges:
        tail, head = faces.reshape(-1), np.roll(faces, -1, axis=1).reshape(-1)
        key = np.minimum(tail, head) * (int(faces.max()) + 1) + np.maximum(tail, head)
        _, index, count = np.unique(key, return_inverse=True, return_counts=True)
        way = np.where(tail < head, 1, -1)
        excess = np.bincount(index.reshape(-1), weights=way, minlength=len(count))
        return cls(count, np.abs(np.rint(excess)).astype(np.int64))

    @property
    def clashing(self) -> int:
        """Edges whose two faces are turned against each other."""
        return int(((self.count == 2) & (self.excess == 2)).sum())


def _flags(edges: _Edges, holes: int) -> list[str]:
    notes = []
    if holes:
        notes.append(
            f"The mesh is not watertight ({holes} edges with one face): inside is where the "
            "winding number is over one half."
        )
    if crowded := int(((edges.count > 2) & (edges.excess != 0)).sum()):
        notes.append(f"{crowded} edges have more than two faces that do not pair up.")
    return notes


def _igl() -> Any:
    try:
        import igl
    except ImportError as error:
        raise needs_vision(error) from None
    return igl


def _turned(path: Path, vertices: Floats, faces: Faces) -> tuple[NDArray[np.bool_], list[str]]:
    """Return which faces are to be turned round ``(m,)``, and notes."""
    igl = _igl()
    turned = np.zeros(len(faces), dtype=bool)
    notes = []
    area = _areas(vertices, faces)
    if _Edges.of(faces).clashing:
        better, patch = igl.bfs_orient(faces)
        turned = ~_same_turn(faces, np.asarray(better))
        against = np.bincount(patch, weights=np.where(turned, area, -area)) > 0
        turned ^= against[patch]  # a patch keeps the way in which most of it was turned
        if _Edges.of(_apply(faces, turned)).clashing:
            raise InputError(
                f"{path} has a surface with one side only (such as a Moebius strip), which has no "
                "inside; cut it or give it a thickness."
            )
        notes.append(
            f"{int(turned.sum())} of {len(faces)} faces were turned against their neighbours; they "
            "were turned round."
        )
    inverted = _inverted(igl, vertices, _apply(faces, turned))
    if inverted.any():
        notes.append(
            f"{'The mesh' if inverted.all() else 'A piece of the mesh'} was inside out: its "
            f"{int(inverted.sum())} faces were turned round."
        )
    return turned ^ inverted, notes


def _inverted(igl: Any, vertices: Floats, faces: Faces) -> NDArray[np.bool_]:
    """Return which faces belong to pieces that are inside out: negative volume, and no cavity."""
    middle = (vertices.min(axis=0) + vertices.max(axis=0)) / 2
    a, b, c = (vertices[faces[:, i]] - middle for i in range(3))
    volume = np.einsum("ni,ni->n", a, np.cross(b, c)) / 6
    little = 1e-9 * float(np.linalg.norm(np.ptp(vertices, axis=0))) ** 3
    found = np.zeros(len(faces), dtype=bool)
    if (_Edges.of(faces).count == 1).any():
        # without a volume: inside out if something is inside only when all is turned round
        low, high = vertices.min(axis=0), vertices.max(axis=0)
        points = np.random.default_rng(0).uniform(low, high, (2000, 3))
        winding = igl.fast_winding_number(vertices, faces, points)
        whole = bool(winding.min() < -0.5 and winding.max() < 0.5)
    else:
        whole = bool(volume.sum() < -little)
    if whole:
        found, volume, faces = ~found, -volume, faces[:, [0, 2, 1]]
    count, piece = igl.facet_components(faces)
    for i in range(count if count > 1 else 0):
        here = piece == i
        if volume[here].sum() >= -little or (_Edges.of(faces[here]).count == 1).any():
            continue
        # a cavity lies within another piece, an inverted piece does not
        others = np.ascontiguousarray(faces[~here])
        if abs(igl.winding_number(vertices, others, vertices[faces[here][:1, 0]])[0]) < 0.5:
            found[here] ^= True
    return found


def _areas(vertices: Floats, faces: Faces) -> Floats:
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    return np.asarray(np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2)


def _apply(faces: Faces, turned: NDArray[np.bool_]) -> Faces:
    return np.ascontiguousarray(np.where(turned[:, None], faces[:, [0, 2, 1]], faces))


def _same_turn(one: Faces, two: Faces) -> NDArray[np.bool_]:
    """Return whether faces of the same corners run the same way round."""
    return np.asarray(
        np.any([(one == np.roll(two, shift, axis=1)).all(axis=1) for shift in range(3)], axis=0)
    )
