"""Scatter plots: two coordinates of many examples, panel by panel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from terrarium.figures.figure import Figure
from terrarium.figures.layout import GAP, Record, frame, need, ordered
from terrarium.figures.theme import shapes, slots

_AXIS = 56
"""Pixels that a panel's own vertical axis takes."""


def scatter(
    name: str,
    rows: Sequence[Record],
    *,
    title: str,
    caption: str,
    x: str = "x",
    y: str = "y",
    group: str = "group",
    facet: str | None = None,
    x_title: str = "PC 1 (activation units)",
    y_title: str = "PC 2 (activation units)",
    groups: Sequence[str] = (),
    detail: Sequence[str] = (),
    height: int = 260,
) -> Figure:
    """Return points at (``x``, ``y``), with colour and shape by ``group``, one panel per ``facet``.

    Each panel has its own axes: principal components of two layers share no scale.  ``groups``
    fixes the order of the groups (the later lie on top) and ``detail`` names further columns for
    the tooltip (``"seed"``).  Raises ``InputError`` where there are no rows, a column is missing
    or a coordinate is undefined.
    """
    columns = [*([facet] if facet else []), group, x, y, *detail]
    need(rows, columns, name)
    found = ordered(str(row[group]) for row in rows)
    series = [*(g for g in groups if g in found), *(g for g in found if g not in groups)]
    data = [{column: row[column] for column in columns} for row in rows]
    data.sort(key=lambda row: series.index(str(row[group])))
    domain = slots(series)
    legend = {"title": None, "values": series, "symbolOpacity": 1}

    def axis(field: str, label: str) -> dict[str, Any]:
        shown = {"tickCount": 4, "grid": True}
        scale = {"zero": False, "nice": True}
        return {
            "field": field,
            "type": "quantitative",
            "title": label,
            "axis": shown,
            "scale": scale,
        }

    colour = {"field": group, "type": "nominal", "legend": legend}
    layer = {
        "mark": {"type": "point", "filled": True, "size": 22, "opacity": 0.55},
        "encoding": {
            "x": axis(x, x_title),
            "y": axis(y, y_title),
            "color": {**colour, "scale": {"domain": domain, "range": "category"}},
            "shape": {**colour, "scale": {"domain": domain, "range": shapes(len(domain))}},
            "tooltip": [{"field": column, "type": "nominal"} for column in (group, *detail)],
        },
    }
    own_axes = {"scale": {"x": "independent", "y": "independent"}} if facet else None
    spec = frame(
        data,
        [layer],
        title=title,
        facet=facet,
        height=height,
        legend=max(map(len, series)) + 3,
        margin=60,
        least=200,
        gap=GAP + (_AXIS if facet else 0),
        resolve=own_axes,
    )
    return Figure(name, title, caption, spec, data)
