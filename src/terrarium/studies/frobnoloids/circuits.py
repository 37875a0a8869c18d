"""What computes the strongest features: circuits, judged on examples that did not choose them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrarium.errors import InputError
from terrarium.evidence.rows import Row, measured
from terrarium.instruments.frobnoloids.circuit import Circuit, Kept, find_circuit, network_kept
from terrarium.instruments.site_features import units
from terrarium.randomness import generator
from terrarium.studies.frobnoloids.networks import activations, sites
from terrarium.studies.frobnoloids.organisms import IMAGES, POINTS
from terrarium.studies.frobnoloids.subjects import Subject

EXAMPLES = 48
"""Examples that choose a circuit, and as many others that judge it."""

POINTS_EACH = 600
"""The same for points, each of which is one example."""

MOST = 6
DRAWS = 60


def circuit_rows(subject: Subject, which: Sequence[int], called: Any) -> list[Row]:
    """Return how faithful each feature's circuit is, random ones of its size, and its members.

    Upstream are the units of the site where circuits begin.  ``frobnoloid`` says whether the
    feature was called one.
    """
    begin, site = sites(subject.kind)
    halves = _halves(subject)
    wide = activations(subject.network, subject.given.some(slice(0, 1)), begin).shape[-1]
    target = subject.target

    def kept(rows: Any, index: int) -> Kept:
        some = subject.given.some(rows)
        return network_kept(
            subject.network,
            some.inputs,
            (begin, units(wide)),
            (site, target),
            index=index,
            positions=some.positions,
        )

    rows: list[Row] = []
    members: list[Row] = []
    for rank, j in enumerate(map(int, which)):
        factors: dict[str, Any] = {
            "feature": target.names[j],
            "frobnoloid": bool(called[j]),
        }
        key = ("circuit", *subject.kind, subject.seed, j)
        chosen, judging = (kept(rows, j) for rows in halves)
        try:
            circuit = find_circuit(chosen, wide, most=MOST, draws=4, together=8, key=key)
            found = _judged(judging, circuit.members, circuit.effect, key)
        except InputError as error:
            rows.append(_row(None, "circuit", str(error), **factors))
            continue
        size = len(circuit.members)
        for how, value in found.items():
            rows.append(_row(value, how, "the feature does not vary", size=size, **factors))
        weights = direct_weights(subject, j)
        members += [row.with_factors(rank=rank, **factors) for row in member_rows(circuit, weights)]
    return [*rows, *_means(rows), *members]


def _halves(subject: Subject) -> tuple[Any, Any]:
    """Return examples that choose and others that judge: of points, every second block's."""
    n = len(subject.given.inputs)
    if subject.kind[0] == POINTS:
        block = np.asarray(subject.shown.groups) % 2
        sides = (np.flatnonzero(block == side) for side in (0, 1))
        first, second = (side[:: max(1, len(side) // POINTS_EACH)] for side in sides)
        return first, second
    half = min(EXAMPLES, n // 2)
    return slice(0, half), slice(half, 2 * half)


def direct_weights(subject: Subject, j: int) -> NDArray[np.float64] | None:
    """Return ``(units upstream,)`` by which feature ``j`` reads them, where that is linear.

    A coordinate network's unit reads the layer before it by a linear map (times omega, then a
    sine or ReLU); a dictionary of a residual stream reads by its encoder what earlier blocks left
    there, beside what attention and the MLP make of it.  None for convolutions, whose ReLUs lie
    between.
    """
    index = int(subject.live[j])
    if subject.kind[0] == POINTS:
        matrix = subject.network.member_state(0)["layers.1.weight"]
        read: NDArray[np.float64] = matrix.double().numpy()[:, index]
        return read
    if subject.kind[0] == IMAGES:
        return None
    encoder: NDArray[np.float64] = np.asarray(subject.fitted.w_enc, np.float64)
    return np.asarray(encoder[index])


def member_rows(circuit: Circuit, weights: NDArray[np.float64] | None) -> list[Row]:
    """Return a row for each member: what its mean in its place does to the feature.

    ``order`` is when it was taken, ``reached`` the share of variance kept from then on, ``weight``
    that by which the feature reads it, None where no linear map does.
    """
    return [
        measured(
            "circuit_member",
            float(circuit.effect[unit]),
            unit="the feature's variances",
            n=1,
            member=f"unit {unit}",
            order=order,
            reached=round(circuit.faithfulness[order], 4),
            weight=None if weights is None else round(float(weights[unit]), 4),
        )
        for order, unit in enumerate(circuit.members)
    ]


def _means(rows: Sequence[Row]) -> list[Row]:
    """Return the mean over frobnoloids, and over the candidates that were not called so."""
    made = []
    for of, called in (("frobnoloids", True), ("candidates", False)):
        mine = [row for row in rows if row.factors["frobnoloid"] is called]
        for how in ("circuit", "random"):
            found = [r.value for r in mine if r.factors["circuit"] == how and r.value is not None]
            value = sum(found) / len(found) if found else None
            if mine or called:
                made.append(
                    measured(
                        "mean_faithfulness",
                        value,
                        unit="share of variance",
                        n=len(found),
                        reason=f"there are no {of} among the strongest features",
                        circuit=how,
                        of=of,
                    )
                )
    return made


def _row(value: float | None, how: str, why: str, **factors: Any) -> Row:
    return measured(
        "faithfulness", value, unit="share of variance", n=DRAWS, reason=why, circuit=how, **factors
    )


def _judged(
    kept: Kept, members: Sequence[int], effect: Any, key: Sequence[str | int]
) -> dict[str, float | None]:
    """Return the share of the feature's variance kept: by the circuit, and random ones' mean."""
    k = len(effect)
    live = np.flatnonzero(np.asarray(effect) > 1e-9)
    rng = generator("frobnoloids", "random circuits", *key)
    masks = np.zeros((DRAWS + 2, k), bool)
    masks[0], masks[1, list(members)] = True, True
    for row in masks[2:]:
        row[rng.permutation(live)[: len(members)]] = True
    values = np.concatenate([kept(masks[at : at + 8]) for at in range(0, len(masks), 8)])
    variance = float(values[0].var())
    if variance <= 1e-12:
        return {"circuit": None, "random": None}
    share = 1 - ((values[1:] - values[0]) ** 2).mean(1) / variance
    # a random circuit may do far worse than the mean; below -1 all are as bad
    share = np.maximum(share, -1.0)
    return {"circuit": float(share[0]), "random": float(share[1:].mean())}
