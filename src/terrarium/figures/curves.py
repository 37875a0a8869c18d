"""Curves over layers or steps: one thin line per seed, a thick mean and its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, Literal

from terrarium.evidence.intervals import mean_interval
from terrarium.figures.figure import Figure
from terrarium.figures.layout import (
    MADE,
    SPACED,
    Record,
    defined,
    frame,
    need,
    ordered,
    reference_layers,
    with_gaps,
)
from terrarium.figures.theme import DASHES, shapes, slots

SEEDS = {"filter": "datum.kind == 'seed'"}


def layer_curves(
    name: str,
    rows: Sequence[Record],
    *,
    title: str,
    caption: str,
    x: str = "layer",
    y: str = "value",
    quantity: str = "quantity",
    seed: str = "seed",
    facet: str | None = None,
    x_title: str = "layer (blocks before the site)",
    y_title: str = "AUROC (proportion)",
    y_domain: tuple[float, float] | None = (0.0, 1.0),
    x_scale: Literal["linear", "symlog"] = "linear",
    references: Mapping[str, float] | None = None,
    level: float = 0.95,
    height: int = 240,
) -> Figure:
    """Return curves of ``y`` against ``x``, coloured by ``quantity``, one panel per ``facet``.

    ``rows`` holds one flat dict per seed and point.  Rows whose ``seed`` is None are means already
    and are drawn as they are, with their ``low`` and ``high`` where they have them.  A ``y`` of
    None is undefined: the line breaks there, and the caption counts it.  ``title`` is the finding,
    computed from rows by the caller; ``x_scale`` ``"symlog"`` is for steps that double, with 0
    among them; ``y_domain`` gives the ends of the y axis (None fits it to
    the data), and ``references`` named horizontal lines such as ``{"chance": 0.5}``.

    The band is Student's t interval of the mean over seeds (two seeds or more), at ``level``.
    Raises ``InputError`` where there are no rows or a column is missing.
    """
    need(rows, [x, y, quantity, seed, *([facet] if facet else [])], name, MADE)
    missing = len(rows) - len(defined(rows, y))
    keep = [*([facet] if facet else []), quantity, x]
    seeds = [_point(row, keep, y, row[seed], "seed") for row in rows if row[seed] is not None]
    given = [_point(row, keep, y, None, "mean") for row in rows if row[seed] is None]
    data = [*seeds, *_means(seeds, keep, y, level), *given]
    found = ordered(str(row[quantity]) for row in rows)
    series = [name for name in slots(found) if name in found]
    layers = [
        *reference_layers(references or {}),
        *_layers(
            x,
            y,
            quantity,
            series,
            x_title,
            y_title,
            y_domain,
            x_scale,
            bool(seeds),
            [row[x] for row in data],
        ),
    ]
    longest = max((len(s) for s in series), default=0)
    spec = frame(data, layers, title=title, facet=facet, height=height, legend=longest + 3)
    return Figure(name, title, with_gaps(caption, missing), spec, data)


def _point(row: Record, keep: list[str], y: str, seed: Any, kind: str) -> dict[str, Any]:
    return {
        **{column: row[column] for column in keep},
        "kind": kind,
        "seed": seed,
        y: row[y],
        "low": row.get("low") if kind == "mean" else None,
        "high": row.get("high") if kind == "mean" else None,
        "seeds": row.get("n_seeds") if kind == "mean" else None,
    }


def _means(
    seeds: list[dict[str, Any]], keep: list[str], y: str, level: float
) -> list[dict[str, Any]]:
    groups: dict[tuple[Any, ...], list[float]] = {}
    for row in seeds:
        values = groups.setdefault(tuple(row[column] for column in keep), [])
        values.extend([] if row[y] is None else [row[y]])
    means = []
    for key, values in groups.items():
        band = mean_interval(values, level=level) if len(values) > 1 else None
        means.append(
            {
                **dict(zip(keep, key, strict=True)),
                "kind": "mean",
                "seed": None,
                y: fmean(values) if values else None,
                "low": band.low if band else None,
                "high": band.high if band else None,
                "seeds": len(values),
            }
        )
    return means


def _layers(
    x: str,
    y: str,
    quantity: str,
    series: list[str],
    x_title: str,
    y_title: str,
    y_domain: tuple[float, float] | None,
    x_scale: str,
    seeded: bool,
    points: Sequence[Any],
) -> list[dict[str, Any]]:
    domain = slots(series)
    legend = {
        "title": None,
        "values": series,
        "symbolOpacity": 1,
        "symbolSize": 130,
        # Without an outline, which the dash would fray.
        "symbolStrokeWidth": 0,
        "labelExpr": SPACED,
    }
    y_scale = {"domain": list(y_domain)} if y_domain else {"zero": False}
    base: dict[str, Any] = {
        "x": _x_channel(x, x_title, x_scale, points),
        "y": {"field": y, "type": "quantitative", "title": y_title, "scale": y_scale},
        "color": {
            "field": quantity,
            "type": "nominal",
            "scale": {"domain": domain, "range": "category"},
            "legend": legend,
        },
    }
    tips = [
        {"field": quantity, "type": "nominal"},
        {"field": x, "type": "quantitative", "title": x_title},
        {"field": y, "type": "quantitative", "format": ".3f", "title": y_title},
    ]
    layers = _marks(base, tips, domain)
    # Vega warns of a layer without any data.
    return [layer for layer in layers if seeded or layer["transform"] != [SEEDS]]


def _x_channel(x: str, title: str, scale: str, points: Sequence[Any]) -> dict[str, Any]:
    axis: dict[str, Any] = {"tickMinStep": 1, "grid": False, "labelFlush": False}
    channel: dict[str, Any] = {"field": x, "type": "quantitative", "title": title, "axis": axis}
    if x == "layer":
        channel["scale"] = {"nice": False, "padding": 8}
        axis["values"] = _whole(points)
        axis["format"] = "d"
    if scale == "symlog":
        # beside 0 lies the smallest step, at the distance of a doubling
        least = min((abs(point) for point in points if point), default=1.0)
        channel["scale"] = {"type": "symlog", "constant": least}
        axis.update(values=_whole(points), labelOverlap=True, format=".6~g")
        axis.pop("tickMinStep")
    return channel


def _marks(
    base: Mapping[str, Any], tips: list[dict[str, Any]], domain: list[str]
) -> list[dict[str, Any]]:
    """Return bands, seeds and means as layers, from the channels that all of them share."""
    dash = {**base["color"], "scale": {"domain": domain, "range": _cycle(DASHES, domain)}}
    shape = {**base["color"], "scale": {"domain": domain, "range": shapes(len(domain))}}
    ends = [{"field": e, "type": "quantitative", "format": ".3f"} for e in ("low", "high")]
    mean = {"filter": "datum.kind == 'mean'"}
    banded = {"filter": "datum.kind == 'mean' && datum.low != null"}
    return [
        {
            "transform": [banded],
            "mark": {"type": "area", "opacity": 0.13, "clip": True},
            "encoding": {
                **base,
                "y": {**base["y"], "field": "low"},
                "y2": {"field": "high"},
            },
        },
        {
            "transform": [SEEDS],
            "mark": {"type": "line", "strokeWidth": 1, "opacity": 0.5, "clip": True},
            "encoding": {**base, "detail": {"field": "seed"}},
        },
        {
            "transform": [mean],
            "mark": {"type": "line", "strokeWidth": 3, "clip": True},
            "encoding": {**base, "strokeDash": dash},
        },
        {
            "transform": [mean],
            "mark": {"type": "point", "filled": True, "size": 60, "opacity": 1},
            "encoding": {
                **base,
                "shape": shape,
                "tooltip": [*tips, *ends, {"field": "seeds", "type": "quantitative"}],
            },
        },
        {
            # A seed that stands alone at a point has no line: show it as a dot as well.
            "transform": [SEEDS],
            "mark": {"type": "point", "filled": True, "size": 9, "opacity": 0.6},
            "encoding": {**base, "tooltip": [*tips, {"field": "seed", "type": "nominal"}]},
        },
    ]


def _whole(points: Sequence[Any]) -> list[Any]:
    """Return at most twelve evenly chosen layers to label."""
    found = sorted({point for point in points if point is not None})
    step = -(-len(found) // 12) or 1
    return found[::step]


def _cycle(options: Sequence[Any], domain: list[str]) -> list[Any]:
    return [options[i % len(options)] for i in range(len(domain))]
