"""The figures of what computes features, and of what a network's own frequencies name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from terrarium.evidence.rows import Row
from terrarium.figures.dots import dots
from terrarium.figures.figure import Figure
from terrarium.studies.frobnoloids.organisms import ALL_KINDS, TRAINED
from terrarium.studies.rows_of import mean_of, records_of

MEMBERS = 4
"""Members of a circuit that the figure shows; rows hold all."""


def members(rows: Sequence[Row]) -> Figure | None:
    """Return the circuits' members: the strongest feature of each organism of the first seed."""
    all_found = records_of(rows, "circuit_member", variant=TRAINED, rank=0)
    if not all_found:
        return None
    first = min(r["seed"] for r in all_found)
    found: list[dict[str, Any]] = [
        {
            "label": f"{r['objective']} {r['modality']}, {r['feature']} ← {r['member']}",
            "what": "frobnoloid" if r["frobnoloid"] else "candidate",
            "value": r["value"],
            "seed": r["seed"],
            "taken": r["order"] + 1,
            "variance kept from here": r["reached"],
            "weight": "no linear path" if r["weight"] is None else r["weight"],
        }
        for kind in ALL_KINDS
        for r in sorted(
            records_of(of_kind(rows, kind), "circuit_member", rank=0, seed=first),
            key=lambda r: r["order"],
        )
        if r["order"] < MEMBERS and r["value"] is not None
    ]
    if not found:
        return None
    alone = [r["value"] for r in found if r["taken"] == 1]
    share = sum(alone) / len(alone)
    return dots(
        "circuit-members",
        found,
        title="What computes the strongest feature of each organism: its first upstream unit alone "
        f"moves {share:.0%} of its variance",
        caption="First seed. A line is an upstream unit of the circuit, in the order in which it "
        "was taken (at most four): the mean squared change of the feature, in its variances, when "
        "that unit alone is set to its mean. The table holds the share of variance that the "
        "circuit keeps from there on, and the weight by which the feature reads the unit where a "
        "linear map does (the next layer of coordinate networks; a dictionary's encoder on what a "
        "residual stream carries over).",
        group="what",
        x_title="mean squared change (variances of the feature)",
        detail=("taken", "variance kept from here", "weight"),
    )


def of_kind(rows: Sequence[Row], kind: tuple[str, str]) -> list[Row]:
    """Return the rows of the trained organisms of a kind."""
    wanted = (*kind, TRAINED)
    names = ("modality", "objective", "variant")
    return [row for row in rows if tuple(row.factors.get(name) for name in names) == wanted]


def names(rows: Sequence[Row]) -> Figure | None:
    """Return how much of coordinate networks' units names explain, with and without waves."""
    words = {"whole": "with the network's own waves", "without waves": "without"}
    found: list[dict[str, Any]] = [
        {
            "label": f"{r['objective']}, {r['variant']}",
            "group": words[r["vocabulary"]],
            "value": r["value"],
            "seed": r["seed"],
        }
        for which in words
        for r in records_of(rows, "named", vocabulary=which)
    ]
    if not found:
        return None
    parts = [
        f"{round(gain, 2) + 0.0:+.2f} in {kind[1]}"
        for kind in ALL_KINDS
        if (gain := mean_of(records_of(of_kind(rows, kind), "named_gain"))) is not None
    ]
    return dots(
        "frequencies",
        sorted(found, key=lambda r: r["label"]),
        title=f"What a network's own frequencies name of its units: {', '.join(parts)}",
        caption="Mean held-out R² of the units of the second hidden layer, over blocks of space: "
        "by coordinates, their products and the scene (distance, normals, curvature, part, colour, "
        "border), and with the network's own waves (harmonics and beats of its frequencies; a "
        "grid's phases). Ticks are seeds.",
        group="group",
        x_title="held-out R²",
        references={"the mean": 0.0},
    )
