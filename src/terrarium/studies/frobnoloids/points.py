"""What coordinate networks are shown: points in blocks of space, and the scene's names for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrarium.instruments.frobnoloids.concepts import point_concepts
from terrarium.organisms.coordinate import omega_of
from terrarium.organisms.coordinate_encodings import kind_of
from terrarium.organisms.coordinate_hash import levels_of
from terrarium.randomness import generator
from terrarium.studies.frobnoloids.shown import Shown

Array = NDArray[Any]
Float = NDArray[np.float64]

HELD_OUT_POINTS = ("normals", "curvature")
"""What plants' vocabulary lacks, so that there is something unnamed to plant."""

WAVES = 16
"""Low random waves that students of points see beside the coordinates."""

WAVES_SD = 0.5
"""Of their frequencies, in cycles per half side of the box."""

BEATS = 16
FARTHEST = 2.0
"""Of curvature: beyond this many over the half side it is cut, as at the edges of the box."""


def points_shown(made: Any, blocks: int, each: int, seed: int) -> Shown:
    """Return ``each`` points in every one of ``blocks``³ equal blocks of the scene's box.

    All blocks have points at the same places within, so that blocks can change places.  Concepts
    lack the networks' frequencies; see `with_waves`.
    """
    rng = generator("frobnoloids", "points", seed)
    corner = np.stack(np.meshgrid(*[np.arange(blocks)] * 3, indexing="ij"), -1).reshape(-1, 1, 3)
    unit = ((corner + rng.random((1, each, 3))) / blocks).reshape(-1, 3)
    low, high = made.box
    batch = made.at((low + unit * (high - low)).astype(np.float32))
    exact = batch.inputs.astype(np.float64)
    known = _known(made, exact)
    concepts = point_concepts(centred(exact, made.box), known)
    reduced = {name: x for name, x in concepts.items() if name not in HELD_OUT_POINTS}
    return Shown(
        batch,
        batch.inputs,
        None,
        np.repeat(np.arange(blocks**3), each),
        concepts,
        reduced,
        {name: concepts[name] for name in HELD_OUT_POINTS},
        low_waves(centred(exact, made.box), seed),
        lead=(blocks**3, each),
    )


def centred(points: Float, box: Any) -> Float:
    """Return points ``(n, 3)`` as networks take them: from -1 to 1 along each side of the box."""
    low, high = (np.asarray(corner, np.float64) for corner in box)
    return np.asarray((points - low) * (2 / (high - low)) - 1)


def _known(made: Any, points: Float) -> dict[str, Array]:
    """Return the scene's quantities at points; the border is that of the box."""
    oracle = made.oracle
    curvature = np.nan_to_num(oracle.curvature(points), nan=0.0, posinf=np.inf, neginf=-np.inf)
    distance = np.asarray(oracle.distance(points))
    return {
        "distance": distance,
        "distance to the surface": np.abs(distance),
        "inside": distance < 0,
        "normals": np.asarray(oracle.normals(points), np.float64),
        "curvature": np.clip(curvature, -FARTHEST, FARTHEST),
        "part": np.asarray(oracle.parts(points), np.int64),
        "colour": np.asarray(oracle.colour(points), np.float64),
        "border": 1 - np.abs(centred(points, made.box)).max(1),
    }


def low_waves(x: Float, seed: int) -> Float:
    """Return ``(n, 3 + 2 WAVES)`` what students see: the coordinates and random low waves."""
    rng = generator("frobnoloids", "low waves", seed)
    angle = 2 * np.pi * (x @ (WAVES_SD * rng.standard_normal((3, WAVES))))
    return np.concatenate([x, np.sin(angle), np.cos(angle)], 1)


def frequencies_of(network: Any) -> Float | None:
    """Return a coordinate network's input frequencies ``(3, f)``, in cycles per half side.

    Those of its Fourier features, or of the first sines of a SIREN (its learnt weights times
    omega); None for networks without either.
    """
    state, spec = network.member_state(0), network.spec
    if kind_of(spec) == "fourier":
        return np.asarray(state["frequencies"].double().numpy())
    omega = omega_of(spec, 0)
    if kind_of(spec) == "none" and omega is not None:
        return np.asarray(omega * state["layers.0.weight"].double().numpy() / (2 * np.pi))
    return None


def waves(network: Any, x: Float) -> dict[str, Float]:
    """Return a network's own waves at points ``(n, 3)`` from -1 to 1, by name.

    Harmonics and beats of its frequencies; of a hash grid the phase in each level's cells.
    """
    frequencies = frequencies_of(network)
    if frequencies is not None:
        bare = set(point_concepts(x))
        found = point_concepts(x, frequencies=frequencies, beats=BEATS)
        return {name: values for name, values in found.items() if name not in bare}
    if kind_of(network.spec) != "hash":
        return {}
    phases = {}
    for cells in levels_of(network.spec.grid, x.shape[1]).cells:
        angle = np.pi * (x + 1) * cells  # a cell is 2 / cells wide
        phases[f"grid phase, {cells} cells a side"] = np.concatenate(
            [np.sin(angle), np.cos(angle)], 1
        )
    return phases


def with_waves(shown: Shown, network: Any, box: Any) -> Shown:
    """Return what is shown with the waves of ``network`` among its names."""
    own: Mapping[str, Float] = waves(network, centred(shown.inputs.astype(np.float64), box))
    return replace(shown, concepts={**shown.concepts, **own}, reduced={**shown.reduced, **own})
