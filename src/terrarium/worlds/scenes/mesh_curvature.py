"""Mean curvature at a mesh's vertices, and where a mesh has no thickness to have one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrarium.worlds.scenes.jet import Floats

Faces = NDArray[np.int64]

CANCELLED = 1e-9
"""A vertex whose faces' areas cancel to this share of their sum has no normal."""

FLAT = 1e-7
"""A mesh that is thinner than this share of its extent lies in a plane."""


def vertex_curvature(igl: Any, vertices: Floats, faces: Faces) -> Floats:
    """Return the mean curvature ``(v,)`` at vertices, 1 / unit; NaN where there is none.

    A quadric is fitted to the neighbourhood of five rings (Panozzo et al. 2010, libigl's
    ``principal_curvature``).  Without a normal the fit divides by zero, and libigl reads beyond its
    memory: vertices whose faces lie back to back are kept from it, and so are flat closed meshes.
    """
    found = np.full(len(vertices), np.nan)
    if is_closed(faces) and is_flat(vertices):
        return found
    faces = _with_normals(vertices, faces)
    if not len(faces):
        return found
    used, index = np.unique(faces, return_inverse=True)
    _, _, most, least, bad = igl.principal_curvature(
        np.ascontiguousarray(vertices[used]), np.ascontiguousarray(index.reshape(faces.shape))
    )
    mean = np.asarray((most + least) / 2)
    mean[np.asarray(bad, dtype=np.int64)] = np.nan
    found[used] = mean
    return found


def _with_normals(vertices: Floats, faces: Faces) -> Faces:
    """Return the faces whose vertices all have a normal, with those faces alone."""
    while len(faces):
        a, b, c = (vertices[faces[:, i]] for i in range(3))
        normal = np.cross(b - a, c - a)
        total, area = np.zeros_like(vertices), np.zeros(len(vertices))
        for corner in range(3):
            np.add.at(total, faces[:, corner], normal)
            np.add.at(area, faces[:, corner], np.linalg.norm(normal, axis=1))
        clear = np.linalg.norm(total, axis=1) > CANCELLED * area
        kept = clear[faces].all(axis=1)
        if kept.all():
            break
        faces = faces[kept]
    return faces


def is_closed(faces: Faces) -> bool:
    """Return whether no edge has a face on one side alone."""
    ends = np.sort(np.stack([faces, np.roll(faces, -1, axis=1)], axis=2).reshape(-1, 2), axis=1)
    return bool((np.unique(ends, axis=0, return_counts=True)[1] > 1).all())


def is_flat(vertices: Floats) -> bool:
    """Return whether vertices ``(v, 3)`` lie in a plane, but for rounding."""
    spread = np.linalg.eigvalsh(np.cov(vertices, rowvar=False))
    return bool(spread[0] <= FLAT**2 * spread[2])


def thickness_notes(vertices: Floats, faces: Faces) -> list[str]:
    """Return what is to be told of a mesh without thickness, a sentence each."""
    if is_closed(faces) and is_flat(vertices):
        return ["The mesh is closed and flat: nothing is inside it, and it has no curvature."]
    _, count = np.unique(np.sort(faces, axis=1), axis=0, return_counts=True)
    if double := int((count > 1).sum()):
        return [
            f"{double} pairs of faces lie back to back: nothing is between them, and there is no "
            "curvature there."
        ]
    return []
