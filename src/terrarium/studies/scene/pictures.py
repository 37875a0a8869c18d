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
    from terrarium.studies.scene.measure import Subject

STRONGEST = 4
"""Units of each layer in the atlas."""

ATLAS_SIDE = 32
"""Pixels of a side in the atlas."""

PLANES: Mapping[str, int] = {"y": 1, "x": 0, "z": 2}
"""Slices through the middle of the box: the axis across each."""

_LOW, _MIDDLE, _HIGH = (np.array(c) / 255 for c in ((213, 94, 0), (247, 247, 247), (0, 114, 178)))


def plane(box: Float, axis: int, side: int) -> tuple[NDArray[np.float32], Float, Float]:
    """Return the points ``(side * side, 3)`` of a slice across ``axis``, and its two axes.

    Rows run along the later of the other two axes, from its lower end; columns along the earlier.
    """
    across, up = (i for i in range(3) if i != axis)
    low, high = box
    middles = [low[i] + (np.arange(side) + 0.5) / side * (high[i] - low[i]) for i in (across, up)]
    points = np.empty((side, side, 3))
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
        for place, line in zip(y, values.reshape(side, side), strict=True):
            told: dict[str, Any] = {
                "panel": panel,
                "x_from": float(x[0]),
                "x_to": float(x[-1]),
                "values": " ".join(f"{value:.4g}" for value in line),
            }
            worst = float(np.abs(line).max())
            rows.append(measured("slice", worst, unit="%", n=side, y=float(place), **told))
    return rows


def atlas_rows(subject: Subject, rows: Sequence[Row]) -> list[Row]:
    """Return pictures of what the strongest units of each layer add on three slices.

    ``rows`` hold each unit's size and footprint.  Colours run from minus to plus the largest
    size on a line's three slices: vermillion takes away, blue adds.
    """
    slices = {f"{name} = middle": plane(subject.world.box, i, ATLAS_SIDE)[0]
              for name, i in PLANES.items()}  # fmt: skip
    points = np.concatenate(list(slices.values()))
    truth = subject.truth(points)[:, 0] * subject.scale
    given = says(subject.network, points)[:, 0] * subject.scale
    made = _line("truth", truth, list(slices)) + _line("error", given - truth, list(slices))
    for layer, site in enumerate(sites_of(subject.network), start=1):
        units = [r for r in rows if r.metric == "unit_cost" and r.factors["layer"] == layer]
        top = sorted(units, key=lambda r: -_number(r, "size"))[:STRONGEST]
        mean = site_mean(subject.network, subject.volume, site)
        chosen = [int(_number(r, "number")) for r in top]
        features = centred(np.eye(len(mean))[chosen], mean, [f"unit {j}" for j in chosen])
        removed, _ = changes(subject.network, points, site, features, subject.outputs, 0)
        for row, change in zip(top, removed[..., 0], strict=True):
            area = row.factors["footprint"]
            told = "" if area is None else f", {100 * float(area):.0f} % of volume"
            label = f"layer {layer}, unit {row.factors['number']}{told}"
            made += _line(label, -change * subject.scale, list(slices))
    return made


def _number(row: Row, name: str) -> float:
    return float(row.factors[name] or 0.0)


def _line(label: str, values: Float, columns: Sequence[str]) -> list[Row]:
    limit = float(np.abs(values).max())
    maps = values.reshape(len(columns), ATLAS_SIDE, ATLAS_SIDE)
    told: dict[str, Any] = {"line": f"{label} (±{limit:.2g} %)"}
    return [
        measured(
            "picture", limit, unit="%", n=1, **told, column=column,
            image=png_uri(diverging(image[::-1], limit), 2),
        )
        for column, image in zip(columns, maps, strict=True)
    ]  # fmt: skip


def diverging(values: Float, limit: float) -> Float:
    """Return ``(3, rows, columns)`` colours of values between -limit and limit."""
    share = np.clip(values / limit if limit > 0 else np.zeros_like(values), -1, 1)[None]
    ends = np.where(share < 0, _LOW[:, None, None], _HIGH[:, None, None])
    return np.asarray(_MIDDLE[:, None, None] * (1 - np.abs(share)) + ends * np.abs(share))
