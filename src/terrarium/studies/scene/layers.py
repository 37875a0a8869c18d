"""What the removal of each hidden unit does, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from terrarium.evidence.rows import Row, measured
from terrarium.randomness import generator
from terrarium.studies.scene.hypotheses import ALL
from terrarium.studies.scene.removals import (
    MATCHED,
    TURNED,
    UNIT,
    Float,
    changes,
    cost,
    footprint,
    interaction,
    joint_change,
    part_shares,
    selectivity,
    site_mean,
    size,
    slabs,
    turned_features,
    unit_features,
)

if TYPE_CHECKING:
    from terrarium.studies.scene.measure import Subject

LIVE = 1e-4
"""A unit whose removal changes the output by less (root mean square, %) is dead."""

CUTS = 8
"""Random cuts into slabs that parts are compared with."""

JOINT: Mapping[str, int] = {"pair": 12, "half": 4}
"""How many random sets of units are taken out together."""

BIN = 0.25
LOWEST, HIGHEST = -3.0, 2.0
"""The histogram of effects: width of a bin and its ends, log10 of %."""


@dataclass(frozen=True, eq=False)
class Points:
    """Where effects are measured: the first ``half`` lie in the volume, the others near."""

    points: NDArray[np.float32] = field(repr=False)
    error: Float = field(repr=False)
    half: int
    parts: NDArray[np.int64] = field(repr=False)
    cuts: Sequence[NDArray[np.int64]] = field(repr=False)
    even: Float
    names: Sequence[str]


def sites_of(network: Any) -> list[str]:
    """Return the hidden layers."""
    return [name for name in network.sites() if name.startswith("mlp.act")]


def points_of(
    subject: Subject, count: int, names: Sequence[str], key: Sequence[str | int]
) -> Points:
    """Return the points of effects, and the parts that those near the surface belong to."""
    near = subject.near[:count]
    points = np.concatenate([subject.volume[:count], near])
    exact = near.astype(np.float64)
    parts = subject.world.oracle.parts(exact)
    even = np.bincount(parts) / len(parts)
    rng = generator("scene", "slabs", *key)
    cuts = [slabs(exact, even, rng) for _ in range(CUTS)]
    told = [names[p] if p < len(names) else f"part {p + 1}" for p in range(len(even))]
    half = len(points) - len(near)
    return Points(points, subject.error(points), half, parts, cuts, even, told)


def layer_rows(subject: Subject, at: Points, randoms: int, key: Sequence[str | int]) -> list[Row]:
    """Return all that is measured of units and of the directions beside them."""
    rows: list[Row] = []
    footprints: list[float | None] = []
    for layer, site in enumerate(sites_of(subject.network), start=1):
        mean = site_mean(subject.network, subject.volume, site)
        told = (subject.network, at.points, site)
        own, matched = changes(*told, unit_features(mean), subject.outputs, randoms, *key, layer)
        turned, _ = changes(
            *told, turned_features(mean, *key, layer), subject.outputs, 0, *key, layer
        )
        own, matched, turned = (x * subject.scale for x in (own, matched, turned))
        found = _compared({UNIT: own, MATCHED: matched, TURNED: turned}, at)
        found += _joint_rows(subject, at, site, mean, own, (*key, layer))
        found += _unit_rows(own, at)
        footprints.append(value_of(found, "footprint", kind=UNIT))
        rows += [row.with_factors(layer=layer) for row in found]
    return [*rows, *_over_layers(rows), _depth_row(footprints, at.half)]


def _compared(change: Mapping[str, Float], at: Points) -> list[Row]:
    """Return sizes, costs, footprints and selectivity of units and of what stands beside them."""
    rows = [row for kind, x in change.items() for row in kind_rows(kind, x, at)]
    prints = {kind: value_of(rows, "footprint", kind=kind) for kind in change}
    own, matched = change[UNIT], change[MATCHED]
    sizes, n = size(own), len(at.points)
    dead = float((sizes <= LIVE).mean())
    rows.append(measured("dead", dead, unit="proportion", n=len(sizes)))
    first = size(matched[:, 0] if matched.shape[1] else matched.reshape(-1, *own.shape[1:]))
    rows.append(cost_ratio(own, matched, at))
    rows.append(ratio("largest_ratio", float(sizes.max()), float(first.max()), n))
    rows.append(ratio("locality", prints[TURNED], prints[UNIT], at.half))
    return rows


def kind_rows(kind: str, change: Float, at: Points) -> list[Row]:
    """Return sizes, costs, footprints and selectivity of changes ``(..., n, outputs)``."""
    x, n = change.reshape(-1, *change.shape[-2:]), len(at.points)
    sizes = size(x)
    live = sizes > LIVE
    rows = [
        measured("cost", float(cost(x, at.error).mean()), unit="%", n=n, kind=kind),
        measured("size", float(sizes.mean()), unit="%", n=n, kind=kind),
        *_bins(sizes, kind),
    ]
    area = footprint(x[live][:, : at.half])
    found = np.isfinite(area).any()
    covered = float(np.nanmean(area)) if found else None
    logged = float(np.nanmean(np.log10(area))) if found else None
    share = "share of the volume"
    rows.append(measured("footprint", covered, unit=share, n=at.half, kind=kind))
    rows.append(measured("log_footprint", logged, unit=f"log10 {share}", n=at.half, kind=kind))
    return [*rows, *_selectivity_rows(x[live][:, at.half :], at, kind)]


def cost_ratio(own: Float, matched: Float, at: Points) -> Row:
    """Return log10 of the mean cost of changes over that of matched directions."""
    mine, other = (float(cost(x, at.error).mean()) for x in (own, matched))
    return ratio("cost_ratio", mine, other, len(at.points))


def ratio(metric: str, a: float | None, b: float | None, n: int) -> Row:
    """Return log10 of a ratio as a row, undefined unless both are above 0."""
    defined = a is not None and b is not None and min(a, b) > 0
    value = float(np.log10(a / b)) if defined and a and b else None
    return measured(
        metric, value, unit="log10 of the ratio", n=n, reason="one of the two is not above 0"
    )


def _bins(sizes: Float, kind: str) -> list[Row]:
    """Return the histogram of effects; what is smaller lies in the first bin."""
    edges = np.arange(LOWEST, HIGHEST + BIN / 2, BIN)
    logged = np.clip(np.log10(np.maximum(sizes, 1e-12)), LOWEST, HIGHEST - BIN / 2)
    share = np.histogram(logged, edges)[0] / len(sizes)
    return [
        measured(
            "size_share", float(value), unit="proportion", n=len(sizes), kind=kind,
            low=float(low), high=float(low + BIN),
        )
        for low, value in zip(edges[:-1], share, strict=True)
        if value
    ]  # fmt: skip


def _selectivity_rows(change: Float, at: Points, kind: str) -> list[Row]:
    """Return the mean selectivity for parts, and for slabs that ignore them."""
    change = change[(change != 0).any(axis=(1, 2))]
    several = len(at.even) > 1 and len(change) > 0
    partitions = {"parts": [at.parts], "slabs": at.cuts}
    rows = []
    for name, cuts in partitions.items():
        value = None
        if several:
            found = [selectivity(part_shares(change, cut, len(at.even)), at.even) for cut in cuts]
            value = float(np.nanmean(found))
        why = "the scene has one part, or every unit is dead"
        rows.append(
            measured(
                "selectivity", value, unit="proportion", n=len(at.parts), reason=why,
                kind=kind, partition=name,
            )
        )  # fmt: skip
    return rows


def _joint_rows(
    subject: Subject, at: Points, site: str, mean: Float, own: Float, key: Sequence[str | int]
) -> list[Row]:
    """Return how far removals are from adding up, in pairs and in halves of the layer."""
    rng = generator("scene", "joint", *key)
    live = np.flatnonzero(size(own) > LIVE)
    rows = []
    for together, sets in JOINT.items():
        count = 2 if together == "pair" else len(live) // 2
        missed, costs = [], []
        for _ in range(sets if count >= 2 else 0):
            chosen = np.sort(rng.choice(live, count, replace=False))
            joint = joint_change(subject.network, at.points, site, mean, chosen) * subject.scale
            missed.append(interaction(joint, own[chosen]))
            costs.append((float(cost(joint, at.error)), float(cost(own[chosen], at.error).sum())))
        n = len(at.points)
        value = float(np.mean(missed)) if missed else None
        why = "the layer has too few live units"
        rows.append(measured("interaction", value, unit="", n=n, reason=why, together=together))
        pair = np.mean(costs, axis=0) if costs else (None, None)
        rows.append(ratio("joint_cost", pair[0], pair[1], n).with_factors(together=together))
    return rows


def _unit_rows(own: Float, at: Points) -> list[Row]:
    """Return each unit: its cost, size, footprint, and the part that it serves most."""
    costs, sizes = cost(own, at.error), size(own)
    areas = footprint(own[:, : at.half])
    shares = part_shares(own[:, at.half :], at.parts, len(at.even))
    rows = []
    for j in range(len(own)):
        alive = sizes[j] > LIVE and np.isfinite(shares[j]).all() and np.isfinite(areas[j])
        told: dict[str, Any] = {
            "number": j,
            "size": float(sizes[j]),
            "footprint": float(areas[j]) if alive else None,
            "part": at.names[int(np.argmax(shares[j] - at.even))] if alive else "none",
        }
        rows.append(measured("unit_cost", float(costs[j]), unit="%", n=len(at.points), **told))
    return rows


AVERAGED = ("cost_ratio", "largest_ratio", "locality", "log_footprint", "selectivity")


def _over_layers(rows: Sequence[Row]) -> list[Row]:
    """Return the means over hidden layers; a layer without a value leaves none."""
    groups: dict[tuple[str, Any, Any], list[Row]] = {}
    for row in rows:
        if row.metric in AVERAGED:
            key = (row.metric, row.factors.get("kind"), row.factors.get("partition"))
            groups.setdefault(key, []).append(row)
    made = []
    for (metric, _, _), found in groups.items():
        values = [row.value for row in found if row.value is not None]
        whole = float(np.mean(values)) if len(values) == len(found) else None
        told = {k: v for k, v in found[0].factors.items() if k != "layer"}
        made.append(
            measured(
                metric, whole, unit=found[0].unit, n=found[0].n,
                reason="a layer has no value", **told, layer=ALL,
            )
        )  # fmt: skip
    return made


def _depth_row(footprints: Sequence[float | None], n: int) -> Row:
    several = len(footprints) > 1
    return ratio(
        "depth_locality",
        footprints[0] if several else None,
        footprints[-1] if several else None,
        n,
    )


def value_of(rows: Sequence[Row], metric: str, **factors: str | int) -> float | None:
    """Return the value of the first row of ``metric`` at these factors, None without one."""
    for row in rows:
        if row.metric == metric and all(row.factors.get(k) == v for k, v in factors.items()):
            return row.value
    return None
