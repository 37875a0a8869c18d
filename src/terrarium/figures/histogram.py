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
    x_domain: tuple[float, float] | None = None,
    height: int = 220,
) -> Figure:
    """Return the share ``value`` of each ``group`` in the bins from ``low`` to ``high``.

    ``rows`` holds one flat dict per seed, group and bin; drawn is the mean over seeds, as the
    outline of bars that may lie over one another, one panel per ``facet``.  A bin without a row
    for a group that has others is 0 there.  ``references`` are named vertical lines, the same in
    each panel, ``groups`` fixes the order of the groups and ``x_domain`` the ends of the x axis.

    Raises ``InputError`` where there are no rows or a column is missing.
    """
    need(
        rows, [low, high, value, seed, group, *([facet] if facet else [])], name, ("kind", "seeds")
    )
    drawn = defined(rows, value)
    found = ordered(str(row[group]) for row in rows)
    series = [*(g for g in groups if g in found), *(g for g in found if g not in groups)]
    data = _data(drawn, (low, high), value, seed, group, facet, series)
    layers = [
        *_layers((low, high), value, group, series, x_title, y_title, x_domain),
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
    """Return one record per panel, group and bin: the mean over seeds, 0 where nothing lies.

    Behind each group's last bin stands one of kind ``"end"``, for its outline alone.
    """
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
                record = {**panel_of, group: name, **bin_ends, value: mean, "seeds": len(seeds)}
                data.append({**record, "kind": "bin"})
            if mine:  # the outline goes down behind the last bin
                end = {ends[0]: bins[-1][1], ends[1]: None, "kind": "end"}
                data.append({**data[-1], **end})
    return data


def _layers(
    ends: tuple[str, str],
    value: str,
    group: str,
    series: list[str],
    x_title: str,
    y_title: str,
    x_domain: tuple[float, float] | None,
) -> list[dict[str, Any]]:
    domain = slots(series)
    x_scale = {"domain": list(x_domain)} if x_domain else {"nice": False, "zero": False}
    legend = {"title": None, "values": series, "symbolOpacity": 1, "labelExpr": SPACED}
    hue = {"field": group, "type": "nominal", "legend": legend}
    dash = {
        **hue,
        "scale": {"domain": domain, "range": [DASHES[i % 8] for i in range(len(domain))]},
    }
    base: dict[str, Any] = {
        "x": {"field": ends[0], "type": "quantitative", "title": x_title, "scale": x_scale},
        "y": {"field": value, "type": "quantitative", "title": y_title, "scale": {"zero": True}},
        "color": {**hue, "scale": {"domain": domain, "range": "category"}},
    }
    tips = [
        {"field": group, "type": "nominal"},
        *({"field": end, "type": "quantitative", "format": ".2f"} for end in ends),
        {"field": value, "type": "quantitative", "format": ".3f"},
        {"field": "seeds", "type": "quantitative"},
    ]
    bars = {**base, "x2": {"field": ends[1]}, "y2": {"datum": 0}, "tooltip": tips}
    return [
        {
            "transform": [{"filter": "datum.kind == 'bin'"}],
            "mark": {"type": "bar", "opacity": 0.2, "binSpacing": 0},
            "encoding": bars,
        },
        {
            "mark": {"type": "line", "interpolate": "step-after", "strokeWidth": 1.6},
            "encoding": {**base, "strokeDash": dash},
        },
    ]
