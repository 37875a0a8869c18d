"""The figures of `scene`, from stored rows alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from terrarium.evidence.rows import Row
from terrarium.figures.curves import layer_curves
from terrarium.figures.dots import dots
from terrarium.figures.field_map import field_map
from terrarium.figures.figure import Figure
from terrarium.figures.gallery import gallery
from terrarium.figures.histogram import histogram
from terrarium.studies.rows_of import mean_of, records_of
from terrarium.studies.scene.feature_figures import by_network, feature_figures
from terrarium.studies.scene.networks import COLOUR, DISTANCE, LOADED, NETWORKS, QUANTITIES
from terrarium.studies.scene.removals import MATCHED, TURNED, UNIT

REGIONS = {"volume": "in the volume", "near": "near the surface"}
KINDS = (UNIT, MATCHED, TURNED)
UNITS = {DISTANCE: "% of the diagonal", COLOUR: "% of full intensity"}


def figures(rows: Sequence[Row]) -> list[Figure]:
    """Return every figure that the rows allow."""
    seen = [n for n in NETWORKS if records_of(rows, "error", network=n)]
    made = [
        *(_errors(rows, quantity) for quantity in QUANTITIES),
        _slices(rows, seen),
        _parts(rows),
        _curvature(rows),
        *(_atlas(rows, network, quantity) for quantity in QUANTITIES for network in seen),
        _sizes(rows),
        _ratios(rows),
        _footprints(rows),
        _selectivity(rows),
        *feature_figures(rows),
        _interaction(rows),
    ]
    return [figure for figure in made if figure is not None]


def _log10(value: float | None) -> float | None:
    return math.log10(value) if value is not None and value > 0 else None


def _told(rows: Sequence[Row], metric: str, text: str, **factors: Any) -> str:
    """Return ``text.format(mean)`` for each network, joined; empty without any."""
    told = []
    for network in NETWORKS:
        mean = mean_of(records_of(rows, metric, network=network, **factors))
        if mean is not None:
            told.append(f"{network} {text.format(mean)}")
    return ", ".join(told)


def _errors(rows: Sequence[Row], quantity: str) -> Figure | None:
    found = [
        {**r, "label": of, "panel": words, "value": _log10(r["value"])}
        for region, words in REGIONS.items()
        for of in ("network", "quadratic", "linear", "untrained")
        for r in by_network(records_of(rows, "error", quantity=quantity, region=region, of=of))
    ]
    if not found:
        return None
    told = _told(rows, "worst_error", "{:.2f}", quantity=quantity)
    return dots(
        f"errors-{quantity}",
        found,
        title=f"Mean error of the {quantity} in its worse region ({UNITS[quantity]}): {told}",
        caption=f"log10 of the mean absolute error, {UNITS[quantity]}. Linear and quadratic are "
        "the best polynomials of the coordinates. Networks have about as many parameters each. "
        "Ticks are seeds.",
        group="network",
        facet="panel",
        x_title=f"log10 of error ({UNITS[quantity]})",
    )


def _slices(rows: Sequence[Row], seen: Sequence[str]) -> Figure | None:
    found = records_of(rows, "slice", quantity=DISTANCE)
    if not found:
        return None
    first = min(r["seed"] for r in found)
    shown: list[dict[str, Any]] = []
    for network in seen:
        panels = ("truth", "error") if network == seen[0] else ("error",)
        for r in found:
            if r["network"] == network and r["seed"] == first and r["panel"] in panels:
                name = "truth" if r["panel"] == "truth" else f"error, {network}"
                shown += _line(r, name)
    shown.sort(key=lambda r: r["panel"] != "truth")
    errors = [abs(r["value"]) for r in shown if r["panel"] != "truth"]
    own = "the scene's own unit" if LOADED in seen else "half sides of the box"
    limit = float(np.quantile(errors, 0.99))
    return field_map(
        "slices",
        shown,
        title=f"Where the networks err: 99 % of a middle slice lies within {limit:.2g} %",
        caption="Signed distance on the slice through the middle of the box, first seed, and "
        "output minus truth, all in % of the diagonal. Errors share one limit, that of 99 % of "
        "them.",
        unit="%",
        x_title=f"x ({own})",
        y_title=f"z ({own})",
        limits={r["panel"]: limit for r in shown if r["panel"] != "truth"},
    )


def _line(record: dict[str, Any], panel: str) -> list[dict[str, Any]]:
    values = [float(v) for v in record["values"].split()]
    places = np.linspace(record["x_from"], record["x_to"], len(values))
    return [
        {"panel": panel, "x": float(x), "y": record["y"], "value": v}
        for x, v in zip(places, values, strict=True)
    ]


def _parts(rows: Sequence[Row]) -> Figure | None:
    found = [
        {**r, "label": r["part"], "value": _log10(r["value"])}
        for r in by_network(records_of(rows, "part_error", quantity=DISTANCE))
    ]
    if not found:
        return None
    means = {
        part: mean_of(records_of(rows, "part_error", quantity=DISTANCE, part=part))
        for part in dict.fromkeys(r["part"] for r in found)
    }
    told = ", ".join(f"{part} {v:.3f} %" for part, v in means.items() if v is not None)
    return dots(
        "parts",
        found,
        title=f"Error on the surface by part: {told}",
        caption="log10 of the mean absolute error at points of the surface, % of the diagonal; the "
        "title's means are over networks. A point belongs to the part that decides its distance. "
        "Ticks are seeds.",
        group="network",
        x_title="log10 of error (% of the diagonal)",
        label_title="part",
    )


def _curvature(rows: Sequence[Row]) -> Figure | None:
    found = [
        {**r, "x": r["curvature_group"] + 1, "value": _log10(r["value"])}
        for r in by_network(records_of(rows, "curvature_error", quantity=DISTANCE))
    ]
    if all(r["value"] is None for r in found):
        return None
    told = _told(rows, "curvature_rank", "{:+.2f}", quantity=DISTANCE, order="as it is")
    return layer_curves(
        "curvature",
        found,
        title=f"Does the error follow the surface's curvature? Rank correlation: {told or 'none'}",
        caption="log10 of the mean absolute error on the surface (% of the diagonal) in groups of "
        "points by the size of the mean curvature, flattest first.",
        x="x",
        quantity="network",
        x_title="group by curvature",
        y_title="log10 of error (%)",
        y_domain=None,
    )


def _atlas(rows: Sequence[Row], network: str, quantity: str) -> Figure | None:
    found = records_of(rows, "picture", network=network, quantity=quantity)
    if not found:
        return None
    first = min(r["seed"] for r in found)
    keep = ("line", "column", "image", "value", "seed", "shows")
    shown = [{name: r[name] for name in keep} for r in found if r["seed"] == first]
    for r in shown:  # pages have room for short labels only
        r["line"] = r["line"].replace(", covers", ";")
    own = [r for r in shown if r["shows"] in ("unit", "feature")]
    largest = max((r["value"] for r in own), default=0.0)
    channel = "" if quantity == DISTANCE else ", first channel"
    return gallery(
        f"atlas-{network}-{quantity}".lower().replace(" ", "-"),
        shown,
        title=f"What the strongest units and features add to the {quantity}, {network}: up to "
        f"{largest:.2g} %",
        caption=f"Output with the unit, less output with it at its mean (features: without it), on "
        f"three slices through "
        f"the middle of the box ({UNITS[quantity]}{channel}). Blue adds, vermillion takes away, "
        "each line to its own limit. '1.14: ±3 %; 20 %' is unit 14 of hidden layer 1, its limit, "
        "and the share of the volume that it covers (footprint). 'Feature 2.14' is one of a sparse "
        "dictionary of hidden layer 2. The four of each layer that change the output most, first "
        "seed.",
        row="line",
        column="column",
        size=64,
    )


def _sizes(rows: Sequence[Row]) -> Figure | None:
    found = [
        {**r, "group": kind}
        for kind in KINDS
        for r in by_network(records_of(rows, "size_share", quantity=DISTANCE, kind=kind))
    ]
    if not found:
        return None
    told = _told(rows, "largest_ratio", "{:+.2f}", quantity=DISTANCE, layer="all")
    return histogram(
        "sizes",
        _pooled(found),
        title="How much a removal changes the output; largest unit against the best of as many "
        f"matched directions (log10): {told}",
        caption="Root mean square change of the distance, log10 of % of the diagonal, all hidden "
        "layers; the first bin holds all that is smaller, dead units above all. A matched "
        "direction moves every point's activations as far as a unit's removal; a turned unit is an "
        "axis of a random rotation of the layer.",
        facet="network",
        groups=KINDS,
        x_title="log10 of change (% of the diagonal)",
        y_title="share (proportion)",
    )


def _pooled(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the mean over layers of each histogram; bins that hold nothing are 0."""
    layers = len({(r["network"], r["layer"]) for r in found}) / len({r["network"] for r in found})
    bins = sorted({(r["low"], r["high"]) for r in found})
    sums: dict[tuple[Any, ...], float] = {}
    for r in found:
        key = (r["network"], r["seed"], r["group"], r["low"])
        sums[key] = sums.get(key, 0.0) + r["value"]
    return [
        {
            "network": network,
            "seed": seed,
            "group": group,
            "low": low,
            "high": high,
            "value": sums.get((network, seed, group, low), 0.0) / layers,
        }
        for network, seed, group in dict.fromkeys(key[:3] for key in sums)
        for low, high in bins
    ]


def _ratios(rows: Sequence[Row]) -> Figure | None:
    found = [
        {**r, "quantity": r["network"]}
        for r in by_network(records_of(rows, "cost_ratio", quantity=DISTANCE))
        if r["layer"] != "all" and "part" not in r
    ]
    if not found:
        return None
    mean = mean_of(records_of(rows, "cost_ratio", quantity=DISTANCE, layer="all"))
    told = "" if mean is None else f": {10**mean:.2f} times as much"
    return layer_curves(
        "costs",
        found,
        title=f"What a unit's removal costs against moving as far in a random direction{told}",
        caption="log10 of the mean rise of the absolute error when a unit is set to its mean, over "
        "that of directions which move every point as far.",
        x_title="hidden layer",
        y_title="log10 of the ratio",
        y_domain=None,
        references={"the same": 0.0},
    )


def _footprints(rows: Sequence[Row]) -> Figure | None:
    found = [
        {**r, "quantity": kind}
        for kind in KINDS
        for r in by_network(records_of(rows, "footprint", quantity=DISTANCE, kind=kind))
    ]
    if not found:
        return None
    told = []
    for network in NETWORKS:
        own, turned = (
            mean_of([r for r in found if r["network"] == network and r["kind"] == kind])
            for kind in (UNIT, TURNED)
        )
        if own is not None and turned is not None:
            told.append(f"{network} {own:.2f} (turned {turned:.2f})")
    return layer_curves(
        "footprints",
        found,
        title=f"Share of the volume that a unit's effect covers: {', '.join(told)}",
        caption="Participation ratio of the squared change over points of the volume: 1 for a "
        "change that is even everywhere. Mean over units that change anything. A matched direction "
        "moves the same points as its unit; a turned unit is an axis of a random rotation.",
        facet="network",
        x_title="hidden layer",
        y_title="share of the volume (proportion)",
    )


def _selectivity(rows: Sequence[Row]) -> Figure | None:
    found = [
        {**r, "label": kind, "group": partition}
        for kind in KINDS
        for partition in ("parts", "slabs")
        for r in by_network(
            records_of(
                rows, "selectivity", quantity=DISTANCE, kind=kind, partition=partition, layer="all"
            )
        )
    ]
    if not any(r["value"] is not None for r in found):
        return None
    own, places, turned = (
        mean_of([r for r in found if r["kind"] == kind and r["partition"] == partition])
        for kind, partition in ((UNIT, "parts"), (UNIT, "slabs"), (TURNED, "parts"))
    )
    told = "" if own is None or places is None or turned is None else (
        f": {own:.2f}, against {places:.2f} for slabs and {turned:.2f} of turned units"
    )  # fmt: skip
    return dots(
        "selectivity",
        found,
        title=f"Do units keep to parts of the scene{told}",
        caption="Total variation between where an effect falls and where the points lie, near the "
        "surface: 0 where it is spread evenly. Slabs are as large as the parts and ignore them. "
        "Mean over hidden layers. Ticks are seeds.",
        group="group",
        facet="network",
        x_title="selectivity (proportion)",
    )


def _interaction(rows: Sequence[Row]) -> Figure | None:
    words = {"pair": "two units", "half": "half of the layer"}
    found = [
        {**r, "quantity": r["network"], "panel": text}
        for together, text in words.items()
        for r in by_network(records_of(rows, "interaction", quantity=DISTANCE, together=together))
    ]
    if not found:
        return None
    told = _told(rows, "interaction", "{:.0%}", quantity=DISTANCE, together="half", layer=1)
    return layer_curves(
        "interaction",
        found,
        title=f"What single removals miss of taking out half of the first layer: {told}",
        caption="Root mean square difference between the joint change and the sum of the single "
        "ones, over the joint change's. In the last layer nothing is missed: what follows is "
        "linear.",
        facet="panel",
        x_title="hidden layer",
        y_title="missed (of the joint change)",
        y_domain=None,
    )
