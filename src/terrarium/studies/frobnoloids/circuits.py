"""What computes the strongest features: circuits, judged on examples that did not choose them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from terrarium.errors import InputError
from terrarium.evidence.rows import Row, measured
from terrarium.instruments.frobnoloids.circuit import Kept, find_circuit, network_kept
from terrarium.instruments.site_features import dictionary_features, units
from terrarium.randomness import generator
from terrarium.studies.frobnoloids.networks import activations, sites

EXAMPLES = 48
"""Examples that choose a circuit, and as many others that judge it."""

MOST = 6
DRAWS = 60


def circuit_rows(subject: Any, which: Sequence[int], called: Any) -> list[Row]:
    """Return how faithful each feature's circuit is, and random ones of its size.

    Upstream are the units of the site where circuits begin.  ``frobnoloid`` says whether the
    feature was called one.
    """
    begin, site = sites(subject.kind)
    half = min(EXAMPLES, len(subject.given.inputs) // 2)
    wide = activations(subject.network, subject.given.some(slice(0, 1)), begin).shape[-1]
    target = dictionary_features(subject.fitted, subject.live.tolist())

    def kept(rows: slice, index: int) -> Kept:
        some = subject.given.some(rows)
        return network_kept(
            subject.network,
            some.inputs,
            (begin, units(wide)),
            (site, target),
            index=index,
            positions=some.positions,
        )

    rows = []
    for j in map(int, which):
        factors = {"feature": target.names[j], "frobnoloid": bool(called[j])}
        key = ("circuit", *subject.kind, subject.seed, j)
        chosen, judging = kept(slice(0, half), j), kept(slice(half, 2 * half), j)
        try:
            circuit = find_circuit(chosen, wide, most=MOST, draws=4, together=8, key=key)
            found = _judged(judging, circuit.members, circuit.effect, key)
        except InputError as error:
            rows.append(_row(None, "circuit", str(error), **factors))
            continue
        size = len(circuit.members)
        for how, value in found.items():
            rows.append(_row(value, how, "the feature does not vary", size=size, **factors))
    return rows + _means(rows)


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
