"""The figures of `scene` about features of the middle layer's dictionary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from terrarium.evidence.rows import Row
from terrarium.figures.dots import dots
from terrarium.figures.figure import Figure
from terrarium.studies.rows_of import mean_of, records_of
from terrarium.studies.scene.networks import DISTANCE, NETWORKS
from terrarium.studies.scene.removals import AS_FEATURE, FEATURE, TURNED, UNIT


def feature_figures(rows: Sequence[Row]) -> list[Figure]:
    """Return what features cover of the volume, and whether they keep to parts."""
    return [figure for figure in (_features(rows), _feature_parts(rows)) if figure is not None]


def by_network(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return records in the order of `NETWORKS`."""
    return sorted(records, key=lambda r: NETWORKS.index(r["network"]))


def _features(rows: Sequence[Row]) -> Figure | None:
    """Return how much of the volume features cover, beside units of the same layer."""
    layers = {r["layer"] for r in records_of(rows, "footprint", kind=FEATURE)}
    words = {
        FEATURE: "a feature",
        AS_FEATURE: "a direction moved as far",
        UNIT: "a unit",
        TURNED: "a turned unit",
    }
    found = [
        {**r, "label": text}
        for kind, text in words.items()
        for r in by_network(records_of(rows, "footprint", quantity=DISTANCE, kind=kind))
        if r["layer"] in layers
    ]
    if not any(r["value"] is not None for r in found):
        return None
    own, other = (mean_of([r for r in found if r["kind"] == kind]) for kind in (FEATURE, UNIT))
    told = "" if own is None or other is None else f"{own:.2f} of the volume, a unit {other:.2f}"
    cost = mean_of(records_of(rows, "cost_ratio", quantity=DISTANCE, part="features"))
    if cost is not None:
        told += f"; it costs {10**cost:.2f} times a random direction"
    return dots(
        "features",
        found,
        title=f"A dictionary feature of the middle layer covers {told}",
        caption="Participation ratio of the squared change over points of the volume: 1 for a "
        "change that is even everywhere. A feature is active at few points by construction, so "
        "that it is to be compared with the direction beside it, which moves the same points as "
        "far, not with units. Mean over what changes anything. Ticks are seeds.",
        group="network",
        x_title="share of the volume (proportion)",
    )


def _feature_parts(rows: Sequence[Row]) -> Figure | None:
    words = {FEATURE: "a feature", AS_FEATURE: "a direction moved as far"}
    found = [
        {**r, "label": text, "group": partition}
        for kind, text in words.items()
        for partition in ("parts", "slabs")
        for r in by_network(
            records_of(rows, "selectivity", quantity=DISTANCE, kind=kind, partition=partition)
        )
    ]
    if not any(r["value"] is not None for r in found):
        return None
    own, places, directions = (
        mean_of([r for r in found if (r["kind"], r["partition"]) == (kind, partition)])
        for kind, partition in ((FEATURE, "parts"), (FEATURE, "slabs"), (AS_FEATURE, "parts"))
    )
    told = ""
    if own is not None and places is not None and directions is not None:
        told = f": {own:.2f}, against {places:.2f} for slabs, {directions:.2f} for directions"
    return dots(
        "feature-parts",
        found,
        title=f"Do dictionary features keep to parts of the scene{told}",
        caption="Total variation between where an effect falls and where the points lie, near the "
        "surface: 0 where it is spread evenly. Slabs are as large as the parts and ignore them. "
        "Features of a sparse dictionary of the middle hidden layer. Ticks are seeds.",
        group="group",
        facet="network",
        x_title="selectivity (proportion)",
    )
