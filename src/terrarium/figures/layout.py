"""What all charts share: the frame of a spec, panels that wrap, and fitting it into a width."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from terrarium.errors import InputError
from terrarium.figures.theme import LIGHT

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
WIDTH = 720
"""Pixels of a chart that nobody fitted: a printed page, a notebook's cell."""
GAP = 18
"""Pixels between panels."""

Record = Mapping[str, Any]


def frame(
    data: Sequence[Record],
    layers: Sequence[Mapping[str, Any]],
    *,
    title: str,
    facet: str | None = None,
    height: int = 240,
    least: int = 230,
    columns: int = 3,
    margin: int = 64,
    labels: int = 0,
    gap: int = GAP,
    widest: int = 1200,
    legend: int = 0,
    description: str = "",
    resolve: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return a complete spec of ``layers`` over ``data``, in one panel or one per ``facet`` level.

    ``least`` is the narrowest panel, ``margin`` what the axis takes at the left, ``gap`` what lies
    between two panels and ``widest`` the widest chart, in pixels; ``legend`` and ``labels`` are
    the longest labels of the legend and of the vertical axis (beyond ``margin``), in characters.
    The page fits the chart into its width from these (``usermeta``), as `sized` does here.
    """
    levels = ordered(row[facet] for row in data) if facet else [""]
    meta = {
        "panels": len(levels),
        "least": least,
        "columns": columns,
        "widest": widest,
        "margin": margin,
        "legend": legend,
        "labels": labels,
        "gap": gap,
    }
    spec: dict[str, Any] = {
        "$schema": SCHEMA,
        "description": description or title,
        "title": title,
        "data": {"values": [dict(row) for row in data]},
        "config": LIGHT,
        "usermeta": {"terrarium": meta},
    }
    if resolve:
        spec["resolve"] = dict(resolve)
    inner = {"layer": list(layers), "height": height}
    if facet and len(levels) > 1:
        header = {"title": None}
        spec["facet"] = {"field": facet, "type": "nominal", "sort": levels, "header": header}
        spec["spacing"] = GAP
        spec["spec"] = inner
    else:
        spec.update(inner)
    return sized(spec, WIDTH)


def sized(spec: Mapping[str, Any], width: float) -> dict[str, Any]:
    """Return ``spec`` fitted into ``width`` pixels: panels wrap and the legend breaks its line."""
    meta = spec.get("usermeta", {}).get("terrarium")
    if meta is None:
        return {**spec, "width": width} if "layer" in spec or "mark" in spec else dict(spec)
    width = min(width, meta["widest"])
    config = dict(spec["config"])
    # Long labels may take a third of the width; what is longer ends in an ellipsis.
    limit = min(260, round(0.34 * width))
    config["axis"] = {**config["axis"], "labelLimit": limit}
    if meta["legend"]:
        per_row = max(1, int(width // (meta["legend"] * 7 + 36)))
        config["legend"] = {**config["legend"], "columns": per_row}
    fitted = {**spec, "config": config}
    if "facet" not in spec:
        return {**fitted, "width": width, "autosize": {"type": "fit-x", "contains": "padding"}}
    room = width - meta["margin"] - min(limit, 7 * meta["labels"])
    columns = max(1, min(meta["columns"], meta["panels"], int(room // meta["least"])))
    child = max(80, (room - meta["gap"] * (columns - 1)) / columns)
    return {**fitted, "columns": columns, "spec": {**spec["spec"], "width": round(child)}}


SPACED = "replace(datum.label, regexp('_', 'g'), ' ')"
"""An expression for labels: names of the code, with spaces for underscores."""


def ordered(values: Iterable[Any]) -> list[Any]:
    """Return the distinct values in the order in which they come."""
    return list(dict.fromkeys(values))


MADE = ("kind", "low", "high", "seeds")
"""Columns that charts of seeds and their means add to their data."""


def need(
    rows: Sequence[Record], columns: Iterable[str], name: str, made: Collection[str] = ()
) -> None:
    """Raise ``InputError`` unless there are rows and each has all ``columns``.

    ``made`` are columns that the chart adds to its data: one of the same name would be lost.
    """
    if not rows:
        raise InputError(f"Figure '{name}': there are no rows to draw; measure them first.")
    for column in columns:
        if column in made:
            raise InputError(
                f"Figure '{name}': the chart makes a column '{column}' of its own; give yours "
                "another name."
            )
        missing = sum(column not in row for row in rows)
        if missing:
            raise InputError(
                f"Figure '{name}': {missing} of {len(rows)} rows have no column '{column}'; "
                f"the first has {', '.join(map(str, rows[0]))}."
            )


def defined(rows: Iterable[Record], value: str) -> list[Record]:
    """Return the rows whose ``value`` is there; the undefined ones are told in the caption."""
    return [row for row in rows if row[value] is not None]


def with_gaps(caption: str, missing: int) -> str:
    """Return ``caption``, with a sentence about ``missing`` undefined values, if any."""
    if not missing:
        return caption
    noun = "value is" if missing == 1 else "values are"
    return f"{caption} {missing} undefined {noun} not drawn."


def reference_layers(references: Mapping[str, float], channel: str = "y") -> list[dict[str, Any]]:
    """Return a thin dotted rule with its name for each reference value (``{"chance": 0.5}``)."""
    # One mark per panel: without this there would be one for every row of data.
    once = [{"aggregate": [{"op": "count", "as": "rows"}]}]
    layers: list[dict[str, Any]] = []
    for name, value in references.items():
        datum = {channel: {"datum": value}}
        rule = {"type": "rule", "style": "reference"}
        layers.append({"transform": once, "mark": rule, "encoding": datum})
        place = (
            {"align": "right", "baseline": "bottom", "dy": -2, "dx": -2}
            if channel == "y"
            else {"align": "left", "baseline": "top", "dx": 3, "dy": 1}
        )
        end = {"x": {"value": "width"}} if channel == "y" else {"y": {"value": 0}}
        mark = {"type": "text", "style": "note", "text": name, **place}
        layers.append({"transform": once, "mark": mark, "encoding": {**datum, **end}})
    return layers
