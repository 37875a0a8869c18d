"""The checks and cards of `autoencoder`."""

from __future__ import annotations

from collections.abc import Sequence

from terrarium.evidence.checks import Check, bound_check, gate_check
from terrarium.evidence.quantities import difference, per_seed
from terrarium.evidence.rows import Factor, Row
from terrarium.figures.cards import Card
from terrarium.studies.autoencoder.arms import ARMS, GROWN, LOADED, MEAN, PCA, UNTRAINED, YOURS
from terrarium.studies.autoencoder.hypotheses import learnt, reconstruction

LEARNT = 0.5
"""Share of the mean image's error that a network must not make."""


def checks(rows: Sequence[Row]) -> list[Check]:
    """Return the gates as checks, and the order that baselines must have."""
    seen = {row.factors.get("arm") for row in rows}
    others = [arm for arm in (*YOURS, LOADED) if arm in seen]
    arms = others or list(GROWN)
    made = [gate_check(f"{arm}: the network learnt", learnt(arm), rows) for arm in arms]
    made += [
        bound_check(
            f"{arm}: training removes the untrained network's error",
            per_seed("removed", arm=arm, of=UNTRAINED).called(
                "share of the untrained network's error that training removes"
            ),
            rows,
            at_least=0.9,
        )
        for arm in arms
    ]
    made += [
        bound_check(
            f"{arm}: PCA is better than the mean image (dB)",
            difference(reconstruction(arm, PCA), reconstruction(arm, MEAN)).called(
                "dB of PCA minus mean image"
            ),
            rows,
            at_least=0.0,
        )
        for arm in arms
    ]
    made += [
        bound_check(
            f"{arm}: the untrained network is worse than the mean image (dB)",
            difference(reconstruction(arm, UNTRAINED), reconstruction(arm, MEAN)).called(
                "dB of the untrained network minus mean image"
            ),
            rows,
            at_most=0.0,
        )
        for arm in arms
    ]
    return made


def cards(rows: Sequence[Row]) -> list[Card]:
    """Return a card for each arm's networks: the share of the mean image's error that is gone."""
    made = []
    for arm in ARMS:
        removed = per_seed("removed", arm=arm, of=MEAN).values(rows)
        if not removed:
            continue
        values: dict[Factor, float | None] = {
            seed: value if isinstance(value, float) else None for seed, value in removed.items()
        }
        sizes = [
            row.value
            for row in rows
            if row.metric == "parameters" and row.factors.get("arm") == arm and row.value
        ]
        told = f"{sizes[0]:,.0f}" if sizes else "unknown"
        made.append(
            Card(
                arm,
                {"test images": values},
                gate=LEARNT,
                facts=[("parameters", told)],
                what="Share of the mean image's squared error that the network does not make",
            )
        )
    return made
