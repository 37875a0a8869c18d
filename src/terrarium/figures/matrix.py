"""Matrices with their numbers: fitted here, tested there."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from terrarium.evidence.intervals import mean_interval
from terrarium.evidence.rows import Interval
from terrarium.figures.figure import Figure
from terrarium.figures.layout import MADE, SPACED, Record, defined, frame, need, ordered, with_gaps
from terrarium.figures.theme import SHADES

_CELL = 64
"""Pixels of a cell's height: a number, its interval and a line of seeds."""
_SEEDS_WIDTH = 56
"""Pixels that the line of seeds may take."""


DRAWN = ("shade", "label", "range", "rank")
"""Columns that say how a cell is drawn."""


def matrix(
    name: str,
    rows: Sequence[Record],
    *,
    title: str,
    caption: str,
    x: str = "tested",
    y: str = "fitted",
    value: str = "value",
    seed: str = "seed",
    facet: str | None = None,
    x_title: str = "tested on",
    y_title: str = "fitted on",
    domain: tuple[float, float] = (0.0, 1.0),
    level: float = 0.95,
    decimals: int = 2,
) -> Figure:
    """Return a heat map of the mean of ``value`` over seeds, with the number in every cell.

    Below the number stand its t interval over seeds (``level``) and one small square per seed,
    coloured by that seed's own value.  Colours run from the lower end of ``domain`` (vermillion)
    through its middle (neutral) to the upper end (blue).  A cell without any defined value shows
    a dash.  Raises ``InputError`` where there are no rows or a column is missing.
    """
    need(rows, [x, y, value, seed, *([facet] if facet else [])], name, (*MADE, *DRAWN))
    keep = [*([facet] if facet else []), y, x]
    data: list[dict[str, Any]] = []
    for key in ordered(tuple(row[column] for column in keep) for row in rows):
        cell = dict(zip(keep, key, strict=True))
        here = [row for row in rows if tuple(row[column] for column in keep) == key]
        data.extend(_cell(cell, here, value, seed, domain, level, decimals))
    most = max((row["rank"] + 1 for row in data if row["rank"] is not None), default=0)
    xs, ys = ordered(r[x] for r in rows), ordered(r[y] for r in rows)
    layers = _layers(x, y, value, xs, ys, most)
    for layer in layers:
        layer["encoding"]["x"]["title"] = x_title
        layer["encoding"]["y"]["title"] = y_title
    longest = max(len(str(row[y])) for row in rows)
    spec = frame(
        data,
        layers,
        title=title,
        facet=facet,
        height=_CELL * len(ys),
        least=52 + 72 * len({row[x] for row in rows}),
        margin=44,
        labels=longest,
        widest=200 + 140 * len(xs) * (len({row[facet] for row in rows}) if facet else 1),
    )
    missing = len(rows) - len(defined(rows, value))
    return Figure(name, title, with_gaps(caption, missing), spec, data)


def _shade(number: float, domain: tuple[float, float]) -> int:
    share = (number - domain[0]) / (domain[1] - domain[0])
    return min(SHADES - 1, max(0, int(share * SHADES)))


def _shown(band: Interval | None, domain: tuple[float, float], decimals: int) -> str:
    """Return the interval in words, cut where the quantity itself ends (0 and 1 for an AUROC)."""
    if band is None:
        return ""
    low, high = max(band.low, domain[0]), min(band.high, domain[1])
    return f"{low:.{decimals}f}–{high:.{decimals}f}"


def _cell(
    cell: dict[str, Any],
    rows: Sequence[Record],
    value: str,
    seed: str,
    domain: tuple[float, float],
    level: float,
    decimals: int,
) -> list[dict[str, Any]]:
    seen = defined(rows, value)
    values = [row[value] for row in seen]
    blank = {
        "low": None,
        "high": None,
        "seeds": 0,
        "shade": SHADES // 2,
        "label": "–",
        "range": "",
        "rank": None,
    }
    if not values:
        return [{**cell, "kind": "mean", "seed": None, value: None, **blank}]
    band = mean_interval(values, level=level) if len(values) > 1 else None
    mean = fmean(values)
    whole = {
        **cell,
        "kind": "mean",
        "seed": None,
        value: mean,
        "low": band.low if band else None,
        "high": band.high if band else None,
        "seeds": len(values),
        "shade": _shade(mean, domain),
        "label": f"{mean:.{decimals}f}",
        "range": _shown(band, domain, decimals),
        "rank": None,
    }
    return [
        whole,
        *(
            {
                **cell,
                "kind": "seed",
                **blank,
                "seed": str(row[seed]),
                value: row[value],
                "seeds": None,
                "shade": _shade(row[value], domain),
                "label": "",
                "rank": rank,
            }
            for rank, row in enumerate(row for row in seen if row[seed] is not None)
        ),
    ]


def _layers(
    x: str, y: str, value: str, xs: list[Any], ys: list[Any], most: int
) -> list[dict[str, Any]]:
    def place() -> dict[str, Any]:
        axis = {"labelAngle": 0, "ticks": False, "domain": False, "labelPadding": 6}
        # Columns are narrow: one word a line.
        below = {**axis, "labelExpr": f"split({SPACED}, ' ')"}
        return {
            "x": {"field": x, "type": "nominal", "sort": xs, "axis": below},
            "y": {
                "field": y,
                "type": "nominal",
                "sort": ys,
                "axis": {**axis, "labelExpr": SPACED},
            },
        }

    shade = {
        "field": "shade",
        "type": "ordinal",
        "scale": {"domain": list(range(SHADES)), "range": "ordinal"},
        "legend": None,
    }
    mean = {"filter": "datum.kind == 'mean'"}
    extreme = "(datum.shade < 2 || datum.shade > 6)"
    tips = [
        {"field": y, "type": "nominal"},
        {"field": x, "type": "nominal"},
        {"field": value, "type": "quantitative", "format": ".4f"},
    ]
    ends = [{"field": e, "type": "quantitative", "format": ".4f"} for e in ("low", "high")]
    layers: list[dict[str, Any]] = [
        {
            "transform": [mean],
            "mark": {"type": "rect", "style": "cell"},
            "encoding": {**place(), "color": shade, "tooltip": [*tips, *ends]},
        }
    ]
    for style, test in (("on-extreme", extreme), ("on-middle", f"!{extreme}")):
        only = [mean, {"filter": test}]
        for field, size, dy in (("label", 16, -13), ("range", 10.5, 5)):
            mark = {"type": "text", "style": style, "fontSize": size, "dy": dy}
            text = {"text": {"field": field, "type": "nominal"}}
            layers.append({"transform": only, "mark": mark, "encoding": {**place(), **text}})
    seeds = {"type": "point", "shape": "square", "filled": True, "size": 46, "opacity": 1}
    tip = [*tips, {"field": "seed", "type": "nominal"}]
    gap = min(9.0, _SEEDS_WIDTH / max(1, most))
    for rank in range(most):
        # An offset channel would split the cells as well, so each rank has its own layer.
        offset = {"xOffset": (rank - (most - 1) / 2) * gap, "yOffset": 20}
        layers.append(
            {
                "transform": [{"filter": f"datum.kind == 'seed' && datum.rank == {rank}"}],
                "mark": {**seeds, "style": "seed-in-cell", **offset},
                "encoding": {**place(), "color": shade, "tooltip": tip},
            }
        )
    return layers
