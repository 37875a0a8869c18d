"""Figures as files: SVG, PNG, Vega-Lite JSON or CSV, by the name's suffix."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from terrarium.errors import InputError, StoreError, did_you_mean
from terrarium.figures.draw import png, svg
from terrarium.figures.figure import Figure
from terrarium.figures.layout import WIDTH
from terrarium.figures.theme import themed
from terrarium.pages.view import csv_text

SUFFIXES = (".svg", ".png", ".json", ".csv")


def export_figure(
    figure: Figure,
    path: str | Path,
    *,
    theme: Literal["light", "dark"] = "light",
    width: float = WIDTH,
) -> Path:
    """Write ``figure`` to ``path`` and return it; the suffix chooses the format.

    SVG and PNG carry title and caption; JSON is the Vega-Lite spec with its data, for any editor
    of Vega-Lite; CSV the rows drawn.  ``width`` is in pixels (a PNG has twice as many).  Raises
    ``InputError`` for another suffix or a folder that isn't there, ``StoreError`` where the disk
    refuses.
    """
    target = Path(path)
    suffix = target.suffix.lower()
    if suffix not in SUFFIXES:
        known = did_you_mean(suffix, SUFFIXES)
        raise InputError(f"A figure cannot be written as '{target.name}'{known}")
    if not target.parent.is_dir():
        raise InputError(f"There is no folder {target.parent}; make it first.")
    if suffix == ".svg":
        content = svg(
            figure.spec, title=figure.title, caption=figure.caption, theme=theme, width=width
        ).encode("utf-8")
    elif suffix == ".png":
        content = png(
            figure.spec, title=figure.title, caption=figure.caption, theme=theme, width=width
        )
    elif suffix == ".json":
        spec = {**themed(figure.spec, theme), "description": figure.caption}
        content = json.dumps(spec, indent=1, ensure_ascii=False).encode("utf-8")
    else:
        content = csv_text(figure.data).encode("utf-8")
    try:
        target.write_bytes(content)
    except OSError as error:
        raise StoreError(f"{target} cannot be written ({error.strerror}).") from error
    return target
