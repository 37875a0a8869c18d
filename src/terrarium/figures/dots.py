"""Dot-and-interval plots: a line per instrument or edit, a dot, its interval, and the seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

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
from terrarium.figures.theme import shapes, slots


def dots(
    name: str,
    rows: Sequence[Record],
    *,
    title: str,
    caption: str,
    label: str = "label",
    value: str = "value",
    seed: str = "seed",
    group: str | None = None,
    facet: str | None = None,
    x_title: str = "AUROC (proportion)",
    label_title: str | None = None,
    domain: tuple[float, float] | None = None,
    references: Mapping[str, float] | None = None,
    detail: Sequence[str] = (),
    level: float = 0.95,
) -> Figure:
    """Return one line per ``label``: the mean as a dot, its interval as a rule, seeds as ticks.

    ``rows`` holds one flat dict per seed, in the order in which the labels shall stand; rows whose
    ``seed`` is None are means already, drawn with their ``low`` and ``high``.  ``group`` is a
    column for colour and shape, side by side within a line (a detector and its truthful-name
    control, an edit and its random directions); ``facet`` one for panels (metrics).  ``domain``
    gives the ends of the x axis, None fits it to the data.  ``detail`` names further columns for
    the tooltips and the table (of rows as given; a mean that is taken here has none).

    The rule is Student's t interval of the mean over seeds; where only one seed is there, it is
    missing, not zero.  Raises ``InputError`` where there are no rows or a column is missing.
    """
    extra = [column for column in (facet, group) if column]
    need(rows, [label, value, seed, *extra, *detail], name, MADE)
    drawn = defined(rows, value)
    keep = [*extra, label]
    data = _data(drawn, keep, value, seed, detail, level)
    labels = ordered(row[label] for row in rows)
    series = ordered(str(row[group]) for row in rows) if group else []
    layers = [
        *reference_layers(references or {}, channel="x"),
        *_layers(label, value, group, labels, series, x_title, label_title, domain, detail),
    ]
    longest = max(len(str(text)) for text in labels)
    spec = frame(
        data,
        layers,
        title=title,
        facet=facet,
        height=len(labels) * (12 + 15 * max(1, len(series))),
        margin=40,
        labels=longest,
        least=170,
        legend=max(map(len, series)) + 3 if series else 0,
    )
    return Figure(name, title, with_gaps(caption, len(rows) - len(drawn)), spec, data)


def _data(
    rows: Sequence[Record],
    keep: list[str],
    value: str,
    seed: str,
    detail: Sequence[str],
    level: float,
) -> list[dict[str, Any]]:
    data: list[dict[str, Any]] = []
    for key in ordered(tuple(row[column] for column in keep) for row in rows):
        here = [row for row in rows if tuple(row[column] for column in keep) == key]
        line = dict(zip(keep, key, strict=True))
        seeds = [row for row in here if row[seed] is not None]
        for row in here:
            if row[seed] is None:
                ends = {"low": row.get("low"), "high": row.get("high"), "seeds": row.get("n_seeds")}
                ends |= {column: row[column] for column in detail}
                data.append({**line, "kind": "mean", "seed": None, value: row[value], **ends})
        values = [row[value] for row in seeds]
        if values:
            band = mean_interval(values, level=level) if len(values) > 1 else None
            ends = {"low": band.low if band else None, "high": band.high if band else None}
            mean = {"kind": "mean", "seed": None, value: fmean(values), **ends}
            data.append({**line, **mean, "seeds": len(values), **dict.fromkeys(detail)})
        blank = {"low": None, "high": None, "seeds": None}
        data.extend(
            {**line, "kind": "seed", "seed": row[seed], value: row[value], **blank}
            | {column: row[column] for column in detail}
            for row in seeds
        )
    return data


def _layers(
    label: str,
    value: str,
    group: str | None,
    labels: list[Any],
    series: list[str],
    x_title: str,
    label_title: str | None,
    domain: tuple[float, float] | None,
    detail: Sequence[str],
) -> list[dict[str, Any]]:
    scale = {"domain": list(domain)} if domain else {"zero": False, "nice": True}
    axis = {
        "grid": True,
        "tickBand": "extent",
        "ticks": False,
        "domain": False,
        "labelPadding": 8,
        "labelExpr": SPACED,
    }
    at: dict[str, Any] = {
        "x": {
            "field": value,
            "type": "quantitative",
            "title": x_title,
            "scale": scale,
            "axis": {"tickCount": 5},
        },
        "y": {
            "field": label,
            "type": "nominal",
            "sort": labels,
            "title": label_title,
            "axis": axis,
        },
    }
    tips: list[dict[str, Any]] = [{"field": label, "type": "nominal"}]
    shape: dict[str, Any] = {}
    if group:
        at["yOffset"] = {"field": group, "type": "nominal", "sort": series}
        legend = {"title": None, "values": series, "symbolOpacity": 1, "labelExpr": SPACED}
        order = slots(series)
        hue = {"field": group, "type": "nominal", "legend": legend}
        at["color"] = {**hue, "scale": {"domain": order, "range": "category"}}
        shape["shape"] = {**hue, "scale": {"domain": order, "range": shapes(len(order))}}
        tips.append({"field": group, "type": "nominal"})
    else:
        at["color"] = {"datum": "knows", "legend": None, "type": "nominal"}
        at["color"]["scale"] = {"domain": slots([]), "range": "category"}
    number = {"type": "quantitative", "format": ".3f"}
    tips.append({"field": value, "title": x_title, **number})
    tips += [{"field": column, "type": "nominal"} for column in detail]
    return _marks(at, shape, tips)


def _marks(
    at: Mapping[str, Any], shape: Mapping[str, Any], tips: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return rules, ticks and dots as layers, from the channels that all of them share."""
    number = {"type": "quantitative", "format": ".3f"}
    ends = [{"field": "low", **number}, {"field": "high", **number}]
    mean = {"filter": "datum.kind == 'mean'"}
    return [
        {
            "transform": [{"filter": "datum.kind == 'mean' && datum.low != null"}],
            "mark": {"type": "rule", "strokeWidth": 2.5, "clip": True},
            "encoding": {**at, "x": {**at["x"], "field": "low"}, "x2": {"field": "high"}},
        },
        {
            "transform": [{"filter": "datum.kind == 'seed'"}],
            "mark": {"type": "tick", "thickness": 1.5, "size": 11, "opacity": 0.75, "clip": True},
            "encoding": {**at, "tooltip": [*tips, {"field": "seed", "type": "nominal"}]},
        },
        {
            "transform": [mean],
            "mark": {
                "type": "point",
                "filled": True,
                "size": 110,
                "opacity": 1,
                "style": "mean-dot",
            },
            "encoding": {
                **at,
                **shape,
                "tooltip": [*tips, *ends, {"field": "seeds", "type": "quantitative"}],
            },
        },
    ]
