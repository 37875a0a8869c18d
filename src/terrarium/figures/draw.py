"""Pictures of specs: SVG and PNG by vl-convert, which carries Vega along and needs no network."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from terrarium.figures.layout import WIDTH, sized
from terrarium.figures.theme import Theme, themed


def picture_spec(
    spec: Mapping[str, Any],
    *,
    title: str = "",
    caption: str = "",
    theme: Theme = "light",
    width: float = WIDTH,
) -> dict[str, Any]:
    """Return ``spec`` in ``theme`` and ``width`` (pixels), with title and caption inside it.

    Both are broken into lines that fit; without either the picture has no heading at all.
    """
    fitted = sized(themed(spec, theme), width)
    # charts of few columns are narrower than what was asked for
    drawn = min(width, spec.get("usermeta", {}).get("terrarium", {}).get("widest", width))
    heading = {
        "text": textwrap.wrap(title, max(20, int(drawn / 8.6))),
        "subtitle": textwrap.wrap(caption, max(24, int(drawn / 6.6))),
    }
    fitted["title"] = {**heading, "frame": "bounds"} if title or caption else None
    if fitted["title"] is None:
        del fitted["title"]
    return fitted


def svg(
    spec: Mapping[str, Any],
    *,
    title: str = "",
    caption: str = "",
    theme: Theme = "light",
    width: float = WIDTH,
) -> str:
    """Return the chart as SVG text."""
    import vl_convert

    drawn = picture_spec(spec, title=title, caption=caption, theme=theme, width=width)
    return str(vl_convert.vegalite_to_svg(drawn))


def png(
    spec: Mapping[str, Any],
    *,
    title: str = "",
    caption: str = "",
    theme: Theme = "light",
    width: float = WIDTH,
    scale: float = 2.0,
) -> bytes:
    """Return the chart as PNG bytes, ``scale`` pixels for each of the layout's."""
    import vl_convert

    drawn = picture_spec(spec, title=title, caption=caption, theme=theme, width=width)
    return bytes(vl_convert.vegalite_to_png(drawn, scale=scale))


def columns_of(data: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the columns of flat rows, in the order in which they first appear."""
    return list(dict.fromkeys(column for row in data for column in row))
