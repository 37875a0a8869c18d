"""The checks and cards of `scene`."""

from __future__ import annotations

from collections.abc import Sequence

from terrarium.evidence.checks import Check, bound_check, chance_check, gate_check
from terrarium.evidence.quantities import difference, over_levels, per_seed, where
from terrarium.evidence.rows import Factor, Row
from terrarium.figures.cards import Card
from terrarium.studies.rows_of import records_of
from terrarium.studies.scene.hypotheses import fits, over_networks
from terrarium.studies.scene.networks import DISTANCE, GROWN, HIDDEN, LOADED, NETWORKS

EXACT = 1e-3
"""What may be left of a sum that is exact but for rounding of float32."""


def checks(rows: Sequence[Row]) -> list[Check]:
    """Return the gates, the order that baselines must have, and sums that must be exact."""
    loaded = bool(records_of(rows, "worst_error", network=LOADED))
    networks = (LOADED,) if loaded else GROWN
    made = [gate_check(f"{network}: the scene is learnt", fits(network), rows)
            for network in networks]  # fmt: skip
    made += [
        bound_check(
            f"{network}: better than the best quadratic function of the coordinates",
            per_seed("removed", network=network, quantity=DISTANCE, of="quadratic").called(
                "share of the quadratic's error that the network does not make"
            ),
            rows,
            at_least=0.5,
        )
        for network in networks
    ]
    if not loaded:
        made += [
            bound_check(
                f"{network}: training removes the untrained network's error",
                per_seed("removed", network=network, quantity=DISTANCE, of="untrained").called(
                    "share of the untrained network's error that training removes"
                ),
                rows,
                at_least=0.9,
            )
            for network in GROWN
        ]
        made.append(_equal_sizes(rows))
        made.append(
            bound_check(
                "removals in the last hidden layer add up, since what follows is linear",
                over_networks(
                    "interaction",
                    "part of a joint removal that single ones do not add up to",
                    layer=HIDDEN,
                    together="half",
                ),
                rows,
                at_most=EXACT,
            )
        )
    made.append(
        chance_check(
            "shuffled curvatures say nothing of the error",
            over_networks("curvature_rank", "rank correlation, shuffled", order="shuffled"),
            rows,
            chance=0.0,
        )
    )
    return made


def _equal_sizes(rows: Sequence[Row]) -> Check:
    ends = [
        over_levels(end, "network", where("parameters", quantity=DISTANCE))
        for end in ("max", "min")
    ]
    return bound_check(
        "networks are of about equal size",
        difference(*ends).called("parameters of the largest less those of the smallest"),
        rows,
        at_most=1000,
    )


def cards(rows: Sequence[Row]) -> list[Card]:
    """Return a card for each kind of network: the share of points that it has right."""
    made = []
    for network in NETWORKS:
        contexts: dict[str, dict[Factor, float | None]] = {}
        for r in records_of(rows, "right", network=network, quantity=DISTANCE):
            contexts.setdefault(str(r["region"]), {})[r["seed"]] = r["value"]
        if not contexts:
            continue
        sizes = [r["value"] for r in records_of(rows, "parameters", network=network)]
        made.append(
            Card(
                network,
                contexts,
                gate=None,
                facts=[("parameters", f"{sizes[0]:,.0f}" if sizes else "unknown")],
                what="Share of unseen points whose distance is right to 0.5 % of the diagonal",
            )
        )
    return made
