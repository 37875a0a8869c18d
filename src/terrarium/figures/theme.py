"""One look: a colour-blind-safe palette, and Vega configurations for light, dark and the page.

The colours are those of Okabe and Ito (2008), *Color Universal Design*; on a dark ground the two
that would be too faint there are exchanged (blue for sky blue, black for near-white).  Colour
never stands alone: each series also has its own dash and its own shape.

``PAGE`` names CSS variables instead of colours, so that one drawing follows the reader's light or
dark mode and the printer without being drawn again; the page's style sheet (`css_variables`)
gives them their values.  ``LIGHT`` and ``DARK`` hold colours, for files that leave the page.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

Theme = Literal["light", "dark", "page"]

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

SAYS, KNOWS, OPTIMAL = "says", "knows", "optimal"
QUANTITIES = (SAYS, KNOWS, OPTIMAL)
"""The three words of every study; they keep their colour, dash and shape in every chart."""

DASHES = ([6, 3], [1, 0], [2, 2], [10, 3], [8, 2, 2, 2], [4, 4], [1, 3], [12, 2])
SHAPES = (
    "square",
    "circle",
    "diamond",
    "triangle-up",
    "cross",
    "triangle-down",
    "triangle-left",
    "triangle-right",
)
SHADES = 9
"""Steps of the diverging ramp of heat maps: vermillion, neutral, blue."""

_COLOURS: Mapping[str, tuple[str, str]] = {
    # name: (light, dark)
    "paper": ("#ffffff", "#16191d"),
    "ink": ("#1c2126", "#e8eaed"),
    "muted": ("#5a636d", "#a3abb5"),
    "grid": ("#e4e7eb", "#2c3239"),
    "c1": ("#d55e00", "#e8761c"),
    "c2": ("#0072b2", "#56b4e9"),
    "c3": ("#1c2126", "#e8eaed"),
    "c4": ("#009e73", "#1fb58c"),
    "c5": ("#b8628f", "#cc79a7"),
    "c6": ("#b87d00", "#e6ae2e"),
    "c7": ("#7b848e", "#8d96a1"),
    "c8": ("#3b9dd0", "#a0d4f2"),
    "r1": ("#b34700", "#d0641a"),
    "r2": ("#d97a3d", "#a9531b"),
    "r3": ("#eeb08a", "#7d4424"),
    "r4": ("#f7dccb", "#533a2d"),
    "r5": ("#f1f1ef", "#363a3f"),
    "r6": ("#cfe2f0", "#2b4354"),
    "r7": ("#94c1e0", "#2a5674"),
    "r8": ("#4192c7", "#2b709d"),
    "r9": ("#00639c", "#2f8cc6"),
    "on-middle": ("#1c2126", "#f2f4f6"),
    "on-extreme": ("#ffffff", "#ffffff"),
}


def colour(name: str, theme: Theme) -> str:
    """Return the colour called ``name`` (``"ink"``, ``"c1"``): hex, or a CSS variable on a page."""
    if theme == "page":
        return f"var(--{name})"
    return _COLOURS[name][theme == "dark"]


def css_variables(theme: Literal["light", "dark"]) -> str:
    """Return the declarations (``--ink: #1c2126; ...``) that `PAGE` refers to."""
    return " ".join(f"--{name}: {pair[theme == 'dark']};" for name, pair in _COLOURS.items())


def config(theme: Theme) -> dict[str, Any]:
    """Return the Vega-Lite configuration of ``theme``."""

    def c(name: str) -> str:
        return colour(name, theme)

    text = {"labelFont": FONT, "titleFont": FONT, "labelColor": c("muted"), "titleColor": c("ink")}
    return {
        "background": "transparent" if theme == "page" else c("paper"),
        "font": FONT,
        "padding": 4,
        # The page and the files name the chart as a whole; thousands of labelled marks help nobody.
        "aria": False,
        "range": {
            "category": [c(f"c{i}") for i in range(1, 9)],
            "ordinal": [c(f"r{i}") for i in range(1, SHADES + 1)],
        },
        "axis": {
            **text,
            "labelFontSize": 12,
            "titleFontSize": 12,
            "titleFontWeight": "normal",
            "titlePadding": 8,
            "gridColor": c("grid"),
            "domainColor": c("muted"),
            "tickColor": c("muted"),
        },
        "legend": {
            **text,
            "labelColor": c("ink"),
            "labelFontSize": 12,
            "labelLimit": 260,
            "titleFontSize": 12,
            "titleFontWeight": "normal",
            "orient": "top",
            "symbolSize": 90,
            "symbolStrokeWidth": 2,
        },
        "header": {
            "labelFont": FONT,
            "labelFontSize": 12,
            "labelFontWeight": 600,
            "labelColor": c("ink"),
            "labelLimit": 240,
            "labelAnchor": "start",
            "labelPadding": 6,
        },
        "title": {
            "font": FONT,
            "fontSize": 15,
            "fontWeight": 600,
            "anchor": "start",
            "color": c("ink"),
            "subtitleFont": FONT,
            "subtitleFontSize": 12,
            "subtitleColor": c("muted"),
            "subtitlePadding": 5,
            "offset": 12,
        },
        "mark": {"invalid": "break-paths-filter-domains"},
        "view": {"stroke": None},
        "style": {
            "reference": {"color": c("muted"), "strokeDash": [2, 3], "strokeWidth": 1},
            "note": {"color": c("muted"), "font": FONT, "fontSize": 11},
            "on-middle": {"color": c("on-middle"), "font": FONT},
            "on-extreme": {"color": c("on-extreme"), "font": FONT},
            "cell": {"stroke": c("paper"), "strokeWidth": 2},
            "seed-in-cell": {"stroke": c("paper"), "strokeWidth": 1},
            "mean-dot": {"stroke": c("paper"), "strokeWidth": 1},
        },
    }


LIGHT = config("light")
DARK = config("dark")
PAGE = config("page")


def themed(spec: Mapping[str, Any], theme: Theme) -> dict[str, Any]:
    """Return ``spec`` with the configuration of ``theme`` in place of its own."""
    return {**spec, "config": {"light": LIGHT, "dark": DARK, "page": PAGE}[theme]}


def shapes(count: int) -> list[str]:
    """Return a shape for each of ``count`` series.

    Where colours begin again, shapes move on by one, so that no two series look alike.
    """
    return [SHAPES[(i + i // len(SHAPES)) % len(SHAPES)] for i in range(count)]


def slots(series: list[str]) -> list[str]:
    """Return the scale's domain for ``series``: says, knows, optimal first, then the rest in order.

    The three words are always there, drawn or not, so that their colours never move.  The first
    series that begins with one of them ("knows: the truth") takes its place.
    """
    first = [next((s for s in series if re.match(rf"{word}\b", s)), word) for word in QUANTITIES]
    return [*first, *(name for name in series if name not in first)]
