"""Histograms: what share of each group lies in each bin, as outlines over one another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from terrarium.figures.figure import Figure
from terrarium.figures.layout import (
    SPACED,
    Record,
    defined,
    frame,
    need,
    ordered,
    reference_layers,
    with_gaps,
)
from terrarium.figures.theme import DASHES, slots


def histogram(
    name: str,
    rows: Sequence[Record],
    *,
    title: str,
    caption: str,
    low: str = "low",
    high: str = "high",
    value: str = "value",
    seed: str = "seed",
    group: str = "group",
    facet: str | None = None,
    x_title: str = "score",
    y_title: str = "share of rows (proportion)",
    references: Mapping[str, float] | None = None,
    groups: Sequence[str] = (),
    height: int = 220,
) -> Figure:
    """Return the share ``value`` of each ``group`` in the bins from ``low`` to ``high``.

    ``rows`` holds one flat dict per seed, group and bin; drawn is the mean over seeds, as the
    outline of bars that may lie over one another, one panel per ``facet``.  A bin without a row
    for a group that has others is 0 there.  ``references`` are named vertical lines, the same in
    each panel, and ``groups`` fixes the order of the groups.

    Raises ``InputError`` where there are no rows or a column is missing.
    """
    need(rows, [low, high, value, seed, group, *([facet] if facet else [])], name)
    drawn = defined(rows, value)
    found = ordered(str(row[group]) for row in rows)
    series = [*(g for g in groups if g in found), *(g for g in found if g not in groups)]
    data = _data(drawn, (low, high), value, seed, group, facet, series)
    domain = slots(series)
    layers = [
        *_layers((low, high), value, group, series, domain, x_title, y_title),
        *reference_layers(references or {}, channel="x"),
    ]
    longest = max(map(len, series), default=0)
    spec = frame(data, layers, title=title, facet=facet, height=height, legend=longest + 3)
    return Figure(name, title, with_gaps(caption, len(rows) - len(drawn)), spec, data)


def _data(
    rows: Sequence[Record],
    ends: tuple[str, str],
    value: str,
    seed: str,
    group: str,
    facet: str | None,
    series: Sequence[str],
) -> list[dict[str, Any]]:
    """Return one record per panel, group and bin: the mean over seeds, 0 where nothing lies."""
    panels: list[Any] = ordered(row[facet] for row in rows) if facet else [None]
    data: list[dict[str, Any]] = []
    for panel in panels:
        here = [row for row in rows if facet is None or row[facet] == panel]
        bins = sorted({(row[ends[0]], row[ends[1]]) for row in here})
        for name in series:
            mine = [row for row in here if str(row[group]) == name]
            seeds = ordered(row[seed] for row in mine)
            for edge in bins if mine else []:
                shares = [r[value] for r in mine if (r[ends[0]], r[ends[1]]) == edge]
                mean = fmean([*shares, *([0.0] * (len(seeds) - len(shares)))])
                bin_ends = dict(zip(ends, edge, strict=True))
                panel_of = {} if facet is None else {facet: panel}
                data.append({**panel_of, group: name, **bin_ends, value: mean, "seeds": len(seeds)})
    return data


def _layers(
    ends: tuple[str, str],
    value: str,
    group: str,
    series: Sequence[str],
    domain: Sequence[str],
    x_title: str,
    y_title: str,
) -> list[dict[str, Any]]:
    legend = {"title": None, "values": list(series), "symbolOpacity": 1, "labelExpr": SPACED}
    hue = {"field": group, "type": "nominal", "legend": legend}
    dash = {
        **hue,
        "scale": {"domain": domain, "range": [DASHES[i % 8] for i in range(len(domain))]},
    }
    base: dict[str, Any] = {
        "x": {"field": ends[0], "type": "quantitative", "title": x_title, "scale": {"nice": False}},
        "y": {"field": value, "type": "quantitative", "title": y_title},
        "color": {**hue, "scale": {"domain": domain, "range": "category"}},
    }
    tips = [
        {"field": group, "type": "nominal"},
        *({"field": end, "type": "quantitative", "format": ".2f"} for end in ends),
        {"field": value, "type": "quantitative", "format": ".3f"},
        {"field": "seeds", "type": "quantitative"},
    ]
    bars = {**base, "x2": {"field": ends[1]}, "y": {**base["y"], "stack": None}, "tooltip": tips}
    return [
        {"mark": {"type": "bar", "opacity": 0.28, "binSpacing": 0}, "encoding": bars},
        {
            "mark": {"type": "line", "interpolate": "step-after", "strokeWidth": 1.6},
            "encoding": {**base, "strokeDash": dash},
        },
    ]
