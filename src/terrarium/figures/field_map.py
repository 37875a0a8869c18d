"""Maps of a field on a slice: the truth, what a network gives, and the error, side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from terrarium.errors import InputError
from terrarium.figures.figure import Figure
from terrarium.figures.layout import Record, defined, frame, need, ordered, with_gaps
from terrarium.figures.theme import SHADES

MOST_CELLS = 30_000
"""Cells that one map may have; more make pages that no browser likes."""

_LEGEND = "colour: share of the panel's limit"


def field_rows(
    x: Sequence[float],
    y: Sequence[float],
    truth: Sequence[Sequence[float]],
    output: Sequence[Sequence[float]],
) -> list[dict[str, Any]]:
    """Return tidy rows for `field_map` of a grid: panels ``truth``, ``output`` and ``error``.

    ``x`` (c,) and ``y`` (r,) are the middles of cells, ``truth`` and ``output`` (r, c) the values
    there; the error is output minus truth.  A value that is no finite number becomes None, and so
    does its error.
    """
    rows = []
    for place, true_line, given_line in zip(y, truth, output, strict=True):
        for across, true, given in zip(x, true_line, given_line, strict=True):
            values = {"truth": true, "output": given, "error": given - true}
            rows += [
                {
                    "panel": panel,
                    "x": float(across),
                    "y": float(place),
                    "value": float(value) if math.isfinite(value) else None,
                }
                for panel, value in values.items()
            ]
    return rows


def field_map(
    name: str,
    rows: Sequence[Record],
    *,
    title: str,
    caption: str,
    unit: str,
    x: str = "x",
    y: str = "y",
    value: str = "value",
    panel: str = "panel",
    x_title: str = "x (half sides of the box)",
    y_title: str = "z (half sides of the box)",
    together: Sequence[str] = ("truth", "output"),
    limits: Mapping[str, float] | None = None,
) -> Figure:
    """Return one heat map of ``value`` over (``x``, ``y``) for each ``panel``, side by side.

    ``rows`` are flat, one for each cell of a regular grid and panel (`field_rows` makes them).
    Colours run from minus a panel's limit (vermillion) through 0 (neutral) to the limit (blue), in
    steps of two ninths; panels named in ``together`` share one limit.  A limit is the largest size
    of a value there unless ``limits`` names it, and stands above its panel with the ``unit``.  What
    lies beyond a given limit has the colour of the limit.

    Raises ``InputError`` where there are no rows, a column is missing, the grid is not regular, or
    there are more than `MOST_CELLS` cells.
    """
    need(rows, [panel, x, y, value], name)
    if len(rows) > MOST_CELLS:
        raise InputError(
            f"Figure '{name}': {len(rows):,} cells are too many for a page; take a coarser grid "
            f"(at most {MOST_CELLS:,} in all panels)."
        )
    halves = [_half_step(name, axis, [row[axis] for row in rows]) for axis in (x, y)]
    sizes = _limits(rows, panel, value, together, limits or {})
    data = []
    for row in defined(rows, value):
        limit = sizes[row[panel]]
        heading = f"{str(row[panel]).replace('_', ' ')} (±{limit:.3g} {unit})"
        ends = {
            f"{axis}_{end}": row[axis] + sign * half
            for axis, half in zip((x, y), halves, strict=True)
            for end, sign in (("from", -1), ("to", 1))
        }
        data.append(
            {
                **{column: row[column] for column in (panel, x, y, value)},
                **ends,
                "shade": shade_of(row[value], limit),
                "heading": heading,
            }
        )
    if not data:
        raise InputError(f"Figure '{name}': no value is defined; there is nothing to draw.")
    spans = [
        max(row[f"{a}_to"] for row in data) - min(row[f"{a}_from"] for row in data) for a in (x, y)
    ]
    panels = ordered(row["heading"] for row in data)
    spec = frame(
        data,
        [_layer(x, y, value, x_title, y_title)],
        title=title,
        facet="heading",
        height=round(min(420.0, max(100.0, 205 * spans[1] / spans[0]))),
        least=180,
        widest=110 + 330 * len(panels),
        legend=6,
    )
    return Figure(name, title, with_gaps(caption, len(rows) - len(data)), spec, data)


def shade_of(number: float, limit: float) -> int:
    """Return the step of the diverging ramp, 0 to `SHADES` - 1, for a value between -limit, limit.

    0 has the middle one; what lies beyond the limit has the outermost.
    """
    share = (number / limit + 1) / 2 if limit else 0.5
    return min(SHADES - 1, max(0, math.floor(share * SHADES)))


def _half_step(name: str, axis: str, places: Sequence[float]) -> float:
    """Return half the distance between neighbours on a regular axis."""
    found = sorted(set(places))
    steps = [b - a for a, b in pairwise(found)]
    if not steps or max(steps) > 1.01 * min(steps):
        raise InputError(
            f"Figure '{name}': the places along '{axis}' are not evenly spaced ({len(found)} of "
            "them); a map needs a regular grid with at least two places a side."
        )
    return (found[-1] - found[0]) / len(steps) / 2


def _limits(
    rows: Sequence[Record],
    panel: str,
    value: str,
    together: Sequence[str],
    given: Mapping[str, float],
) -> dict[Any, float]:
    """Return the limit of each panel's colours."""
    largest: dict[Any, float] = {}
    for row in rows:
        size = 0.0 if row[value] is None else abs(row[value])
        largest[row[panel]] = max(largest.get(row[panel], 0.0), size)
    shared = max((largest[p] for p in together if p in largest), default=0.0)
    found = {p: shared if p in together else size for p, size in largest.items()}
    return {p: given.get(p, size) for p, size in found.items()}


def _layer(x: str, y: str, value: str, x_title: str, y_title: str) -> dict[str, Any]:
    def axis(field: str, label: str) -> dict[str, Any]:
        return {
            "field": f"{field}_from",
            "type": "quantitative",
            "title": label,
            "scale": {"zero": False, "nice": False},
            "axis": {"grid": False, "tickCount": 4},
        }

    scale = {"domain": list(range(SHADES)), "range": "ordinal"}
    # shares at the middles of the steps, such as -89 % to 89 %
    middle = f"(2 * datum.value + 1) / {SHADES} - 1"
    label = f"datum.value == {SHADES // 2} ? '0%' : format({middle}, '+.0%')"
    shown = [0, SHADES // 4, SHADES // 2, SHADES - 1 - SHADES // 4, SHADES - 1]
    legend = {"title": _LEGEND, "values": shown, "labelExpr": label, "symbolType": "square"}
    shade = {"field": "shade", "type": "ordinal", "scale": scale}
    return {
        # an outline of its own colour closes the seams between cells
        "mark": {"type": "rect", "strokeWidth": 0.7},
        "encoding": {
            "x": axis(x, x_title),
            "x2": {"field": f"{x}_to"},
            "y": axis(y, y_title),
            "y2": {"field": f"{y}_to"},
            "color": {**shade, "legend": legend},
            "stroke": {**shade, "legend": None},
            "tooltip": [
                {"field": x, "type": "quantitative", "format": ".3f"},
                {"field": y, "type": "quantitative", "format": ".3f"},
                {"field": value, "type": "quantitative", "format": ".4g"},
            ],
        },
    }
