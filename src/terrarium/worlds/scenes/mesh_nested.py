"""Parts of a mesh inside other parts: solids in solids are left out, overlaps are told."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from terrarium.worlds.scenes.jet import Floats

Faces = NDArray[np.int64]

POINTS = 20_000
"""Points of the surface that tell which share of it lies inside another part."""

OFF = 1e-6
"""Points this many diagonals in front of a face tell whether it is hidden."""

_FEWEST = 5
"""Fewer hidden points than this are taken for rounding at creases."""

_ROUNDS = 5
"""How often triangles that may touch another part are cut in four."""

_TOGETHER = 64
"""So many faces, one after the other in the file, are asked about together."""

_MOST = 400_000
"""More triangles than this are not cut: their part counts as one that may touch another."""


class Nested(NamedTuple):
    """Which faces are kept ``(m,)`` bool, and what is to be told, a sentence each."""

    kept: NDArray[np.bool_]
    notes: list[str]


def nested(igl: Any, vertices: Floats, faces: Faces, closed: bool) -> Nested:
    """Return a mesh's faces without the closed parts that lie wholly inside its solid.

    A face is hidden where the mesh has an inside in front of it, too: the winding number there is
    over one half.  The wall of a cavity is not, since its front is the cavity.  A part is left out
    where all of it is hidden by parts that it does not touch, so that the solid stays the same
    and inside it the nearest face is of its surface.  Nothing is left out of an open mesh
    (``closed`` False), whose winding numbers change from place to place.
    """
    kept = np.ones(len(faces), dtype=bool)
    count, piece = igl.facet_components(faces)
    if count < 2 or not _boxes_meet(vertices, faces, np.asarray(piece), count):
        return Nested(kept, [])
    corners = vertices[faces]
    notes = []
    if closed:
        gone = _wholly_inside(igl, vertices, faces, np.asarray(piece), count)
        kept = ~gone[piece]
        if gone.any():
            lie = "1 part lies" if gone.sum() == 1 else f"{int(gone.sum())} parts lie"
            notes.append(
                f"{lie} wholly inside the solid of the others: {int((~kept).sum())} faces were "
                "left out."
            )
    left = np.ascontiguousarray(faces[kept])
    points, owner = _spread(corners[kept])
    hidden = _hidden(igl, vertices, left, points, owner)
    if hidden.sum() >= _FEWEST:
        share = 100 * float(hidden.mean())
        notes.append(
            f"About {share:.2g} % of the surface lies inside another part: inside the mesh, "
            "distances are to the nearest face, hidden ones too, and not to the surface of all "
            "parts together; occupancy and distances outside are right."
        )
    return Nested(kept, notes)


def _boxes_meet(vertices: Floats, faces: Faces, piece: NDArray[np.int64], count: int) -> bool:
    """Return whether the boxes about any two pieces have a point in common."""
    low, high = np.full((count, 3), np.inf), np.full((count, 3), -np.inf)
    for corner in range(3):
        np.minimum.at(low, piece, vertices[faces[:, corner]])
        np.maximum.at(high, piece, vertices[faces[:, corner]])
    order = np.argsort(low[:, 0])
    low, high = low[order], high[order]
    # from left to right: those that begin before this one ends
    stop = np.searchsorted(low[:, 0], high[:, 0], side="right")
    return any(
        ((low[i + 1 : end] <= high[i]) & (high[i + 1 : end] >= low[i])).all(axis=1).any()
        for i, end in enumerate(stop)
    )


def _wholly_inside(
    igl: Any, vertices: Floats, faces: Faces, piece: NDArray[np.int64], count: int
) -> NDArray[np.bool_]:
    """Return which pieces ``(count,)`` lie inside the solid of those that are not hidden."""
    corners = vertices[faces]
    seen = ~_hidden(igl, vertices, faces, corners.mean(axis=1), np.arange(len(faces)))
    gone = np.bincount(piece, weights=seen, minlength=count) == 0
    inner = gone[piece]
    if not inner.any() or inner.all():
        return np.zeros(count, dtype=bool)
    outer = np.ascontiguousarray(faces[~inner])
    around = np.asarray(
        igl.fast_winding_number(vertices, outer, np.ascontiguousarray(corners[inner].mean(axis=1)))
    )
    gone[piece[inner][around.reshape(-1) <= 0.5]] = False
    gone[_touching(igl, vertices, outer, corners[inner], piece[inner])] = False
    return np.asarray(gone)


def _touching(
    igl: Any, vertices: Floats, outer: Faces, triangles: Floats, piece: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the pieces of triangles ``(n, 3, 3)`` that are not for certain clear of ``outer``.

    A triangle is clear if the nearest outer face is farther from its centre than its corners are;
    the others are cut in four until they are small.  Neighbours are asked about together first.
    """
    tree = igl.AABB()
    tree.init(vertices, outer)

    def near(groups: Floats) -> NDArray[np.bool_]:
        """Return which groups of points ``(g, k, 3)`` may touch."""
        centre = np.ascontiguousarray(groups.mean(axis=1))
        reach = np.square(groups - centre[:, None]).sum(axis=2).max(axis=1)
        squared = np.reshape(tree.squared_distance(vertices, outer, centre)[0], -1)
        return np.asarray(squared <= reach * (1 + 1e-9))

    whole = np.arange(-(-len(triangles) // _TOGETHER) * _TOGETHER).clip(max=len(triangles) - 1)
    groups = triangles[whole].reshape(-1, 3 * _TOGETHER, 3)
    doubt = np.repeat(near(groups), _TOGETHER)[: len(triangles)]
    triangles, piece = triangles[doubt], piece[doubt]
    for _ in range(_ROUNDS if len(piece) else 0):
        still = near(triangles)
        triangles, piece = triangles[still], piece[still]
        if not len(piece) or 4 * len(piece) > _MOST:
            break
        a, b, c = triangles.transpose(1, 0, 2)
        ab, bc, ca = (a + b) / 2, (b + c) / 2, (c + a) / 2
        cut = ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))
        triangles = np.concatenate([np.stack(corners, axis=1) for corners in cut])
        piece = np.tile(piece, 4)
    return np.unique(piece)


def _hidden(
    igl: Any, vertices: Floats, faces: Faces, points: Floats, owner: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return which points ``(n,)`` of the faces ``owner`` have an inside in front of them."""
    a, b, c = (vertices[faces[owner, i]] for i in range(3))
    normal = np.cross(b - a, c - a)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    diagonal = float(np.linalg.norm(np.ptp(vertices, axis=0)))
    front = np.ascontiguousarray(points + OFF * diagonal * normal)
    winding = np.asarray(igl.fast_winding_number(vertices, faces, front)).reshape(-1)
    return np.asarray(winding > 0.5)


def _spread(corners: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """Return `POINTS` points of triangles ``(m, 3, 3)``, even by area, and whose they are."""
    rng = np.random.default_rng(0)
    a, b, c = corners.transpose(1, 0, 2)
    area = np.cumsum(np.linalg.norm(np.cross(b - a, c - a), axis=1))
    face = np.searchsorted(area, rng.random(POINTS) * area[-1], side="right")
    face = np.minimum(face, len(area) - 1)
    root, share = np.sqrt(rng.random((POINTS, 1))), rng.random((POINTS, 1))
    points = (1 - root) * a[face] + root * (1 - share) * b[face] + root * share * c[face]
    return points, np.asarray(face)
