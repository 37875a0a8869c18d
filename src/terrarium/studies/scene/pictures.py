"""Slices through the scene, and what the strongest units add there, as rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from terrarium.evidence.rows import Row, measured
from terrarium.figures.gallery import png_uri
from terrarium.studies.scene.layers import sites_of
from terrarium.studies.scene.removals import Float, centred, changes, says, site_mean

if TYPE_CHECKING:
    from terrarium.studies.scene.features import LayerDictionary
    from terrarium.studies.scene.measure import Subject

STRONGEST = 4
"""Units of each layer in the atlas."""

ATLAS_SIDE = 48
"""Pixels of a side in the atlas."""

PLANES: Mapping[str, int] = {"y": 1, "x": 0, "z": 2}
"""Slices through the middle of the box: the axis across each."""

_LOW, _MIDDLE, _HIGH = (np.array(c) / 255 for c in ((213, 94, 0), (247, 247, 247), (0, 114, 178)))


def plane(box: Float, axis: int, side: int) -> tuple[NDArray[np.float32], Float, Float]:
    """Return the points ``(rows * columns, 3)`` of a slice across ``axis``, and its two axes.

    Cells are square, ``side`` of them along the longest side of the box.  Rows run along the later
    of the other two axes, from its lower end; columns along the earlier.
    """
    across, up = (i for i in range(3) if i != axis)
    low, high = box
    length = float((high - low).max())
    middles = []
    for i in (across, up):
        count = max(2, round(side * float(high[i] - low[i]) / length))
        middles.append(low[i] + (np.arange(count) + 0.5) / count * (high[i] - low[i]))
    points = np.empty((len(middles[1]), len(middles[0]), 3))
    points[..., axis] = (low[axis] + high[axis]) / 2
    points[..., across] = middles[0][None, :]
    points[..., up] = middles[1][:, None]
    return points.reshape(-1, 3).astype(np.float32), middles[0], middles[1]


def slice_rows(subject: Subject, side: int) -> list[Row]:
    """Return the truth, the output and the error on the slice across y, a row for each line.

    Values are in %, first channel for colours; they stand in the factor ``values``.
    """
    points, x, y = plane(subject.world.box, 1, side)
    truth = subject.truth(points)[:, 0] * subject.scale
    output = says(subject.network, points)[:, 0] * subject.scale
    rows = []
    for panel, values in (("truth", truth), ("output", output), ("error", output - truth)):
        for place, line in zip(y, values.reshape(len(y), len(x)), strict=True):
            told: dict[str, Any] = {
                "panel": panel,
                "x_from": float(x[0]),
                "x_to": float(x[-1]),
                "values": " ".join(f"{value:.4g}" for value in line),
            }
            worst = float(np.abs(line).max())
            rows.append(measured("slice", worst, unit="%", n=len(x), y=float(place), **told))
    return rows


def atlas_rows(subject: Subject, rows: Sequence[Row], dictionary: LayerDictionary) -> list[Row]:
    """Return pictures of what the strongest units and features add on three slices.

    ``rows`` hold each unit's size and footprint.  Colours run from minus to plus the largest
    size on a line's three slices: vermillion takes away, blue adds.
    """
    grids = {
        f"{name} = middle": plane(subject.world.box, axis, ATLAS_SIDE)
        for name, axis in PLANES.items()
    }
    shapes = {name: (len(up), len(across)) for name, (_, across, up) in grids.items()}
    points = np.concatenate([points for points, _, _ in grids.values()])
    truth = subject.truth(points)[:, 0] * subject.scale
    given = says(subject.network, points)[:, 0] * subject.scale
    made = _line("truth", "truth", truth, shapes) + _line("error", "error", given - truth, shapes)
    for layer, site in enumerate(sites_of(subject.network), start=1):
        units = [r for r in rows if r.metric == "unit_cost" and r.factors["layer"] == layer]
        top = sorted(units, key=lambda r: -_number(r, "size"))[:STRONGEST]
        mean = site_mean(subject.network, subject.volume, site)
        chosen = [int(_number(r, "number")) for r in top]
        features = centred(np.eye(len(mean))[chosen], mean, [f"unit {j}" for j in chosen])
        removed, _ = changes(subject.network, points, site, features, subject.outputs, 0)
        for row, change in zip(top, removed[..., 0], strict=True):
            area = row.factors["footprint"]
            told = "" if area is None else f", covers {100 * float(area):.0f} %"
            label = f"{layer}.{row.factors['number']}"
            made += _line("unit", label, -change * subject.scale, shapes, told)
    strongest = np.argsort(-dictionary.sizes, kind="stable")[:STRONGEST]
    chosen = dictionary.live[strongest].tolist()
    if chosen:
        removed, _ = dictionary.changes(points, chosen, 0)
        for j, change in zip(chosen, removed[..., 0], strict=True):
            made += _line("feature", f"feature {dictionary.layer}.{j}", -change, shapes)
    return made


def _number(row: Row, name: str) -> float:
    return float(row.factors[name] or 0.0)


def _line(
    shows: str, label: str, values: Float, shapes: Mapping[str, tuple[int, int]], more: str = ""
) -> list[Row]:
    """Return one line of the atlas: ``values`` of all slices, one after another."""
    limit = float(np.abs(values).max())
    told: dict[str, Any] = {"line": f"{label}: ±{limit:.2g} %{more}", "shows": shows}
    made, start = [], 0
    for column, (height, width) in shapes.items():
        image = values[start : start + height * width].reshape(height, width)
        start += height * width
        picture = png_uri(squared(diverging(image[::-1], limit)), 2)
        made.append(measured("picture", limit, unit="%", n=1, **told, column=column, image=picture))
    return made


def squared(image: Float) -> Float:
    """Return ``(3, side, side)`` of ``(3, rows, columns)``, with white about it."""
    _, rows, columns = image.shape
    side = max(rows, columns)
    made = np.ones((3, side, side))
    top, left = (side - rows) // 2, (side - columns) // 2
    made[:, top : top + rows, left : left + columns] = image
    return made


def diverging(values: Float, limit: float) -> Float:
    """Return ``(3, rows, columns)`` colours of values between -limit and limit."""
    share = np.clip(values / limit if limit > 0 else np.zeros_like(values), -1, 1)[None]
    ends = np.where(share < 0, _LOW[:, None, None], _HIGH[:, None, None])
    return np.asarray(_MIDDLE[:, None, None] * (1 - np.abs(share)) + ends * np.abs(share))
