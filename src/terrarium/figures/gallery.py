"""Galleries: rows of small images with captions, from pixels alone."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from terrarium.errors import InputError
from terrarium.figures.figure import Figure
from terrarium.figures.layout import Record, frame, need, ordered

LARGEST = 72
"""Pixels of a side on the page, at most."""


def png_uri(image: ArrayLike, scale: int = 4) -> str:
    """Return an image as a ``data:`` address of a PNG file of 8 bits.

    ``image`` is ``(rows, columns)``, ``(1, rows, columns)`` or ``(3, rows, columns)``, cut to
    [0, 1]; each pixel becomes a square of ``scale`` pixels, so that none is smoothed.  Raises
    ``InputError`` for other shapes and what is not finite.
    """
    x = np.asarray(image, np.float64)
    x = x[None] if x.ndim == 2 else x
    if x.ndim != 3 or x.shape[0] not in (1, 3) or not np.isfinite(x).all():
        raise InputError(
            f"A picture needs finite pixels of 1 or 3 channels; got an array of {x.shape}."
        )
    small = np.round(np.clip(x, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
    pixels = small.repeat(scale, axis=0).repeat(scale, axis=1)
    rows, columns, channels = pixels.shape
    lines = np.zeros((rows, 1 + columns * channels), np.uint8)  # each line begins with filter 0
    lines[:, 1:] = pixels.reshape(rows, -1)
    colour = {1: 0, 3: 2}[channels]
    header = struct.pack(">IIBBBBB", columns, rows, 8, colour, 0, 0, 0)
    parts = (
        (b"IHDR", header),
        (b"IDAT", zlib.compress(lines.tobytes(), 9)),
        (b"IEND", b""),
    )
    file = b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in parts)
    return f"data:image/png;base64,{base64.b64encode(file).decode('ascii')}"


def _chunk(name: bytes, data: bytes) -> bytes:
    check = zlib.crc32(name + data)
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", check)


def gallery(
    name: str,
    rows: Sequence[Record],
    *,
    title: str,
    caption: str,
    image: str = "image",
    row: str = "row",
    column: str = "column",
    facet: str | None = None,
    size: int = 56,
) -> Figure:
    """Return images on a grid: one line per ``row``, one column per ``column``, both labelled.

    ``rows`` holds one flat dict per image, with its address (`png_uri`) in ``image``, in the order
    in which lines and columns shall stand; ``size`` is an image's side in pixels of the page.
    The figure's ``data`` leave the addresses out: they are pixels, not numbers to read.  Raises
    ``InputError`` where there are no rows or a column is missing.
    """
    need(rows, [image, row, column, *([facet] if facet else [])], name)
    size = min(size, LARGEST)
    lines, columns = ordered(r[row] for r in rows), ordered(r[column] for r in rows)
    longest = max(len(str(line)) for line in lines)
    wide = len(columns) * (size + 4)
    layer: dict[str, Any] = {
        "mark": {"type": "image", "width": size, "height": size, "smooth": False},
        "encoding": {
            "url": {"field": image, "type": "nominal"},
            "x": _axis(column, columns, "top"),
            "y": _axis(row, lines, "left"),
            "tooltip": [{"field": row, "type": "nominal"}, {"field": column, "type": "nominal"}],
        },
    }
    spec = frame(
        rows,
        [layer],
        title=title,
        facet=facet,
        height=len(lines) * (size + 4),
        least=wide,
        columns=2,
        labels=longest,
        widest=64 + 7 * longest + wide,
    )
    told = [{key: value for key, value in r.items() if key != image} for r in rows]
    return Figure(name, title, caption, spec, told)


def _axis(field: str, levels: Sequence[Any], side: str) -> dict[str, Any]:
    axis = {"orient": side, "title": None, "domain": False, "ticks": False, "labelAngle": 0}
    return {"field": field, "type": "ordinal", "sort": list(levels), "axis": axis}
