"""Maps of a field: symmetric scales, errors by subtraction, and specs that Vega-Lite takes."""

from __future__ import annotations

import re
from typing import Any

import altair
import numpy as np
import pytest

from terrarium.errors import InputError
from terrarium.figures.draw import svg
from terrarium.figures.field_map import MOST_CELLS, field_map, field_rows, shade_of
from terrarium.figures.theme import colour

WORDS: dict[str, Any] = {"title": "A finding", "caption": "What was drawn.", "unit": "half sides"}
X, Y = np.linspace(-1, 1, 9), np.linspace(0, 1, 5)
TRUTH = np.hypot(*np.meshgrid(X, Y)) - 0.5


def rows(off: Any = 0.01) -> list[dict[str, Any]]:
    return field_rows(X.tolist(), Y.tolist(), TRUTH.tolist(), (TRUTH + off).tolist())


def test_rows_are_a_grid_of_truth_output_and_error() -> None:
    off = np.where(TRUTH > 0.3, 0.02, -0.01)
    found = {(r["panel"], r["x"], r["y"]): r["value"] for r in rows(off)}
    assert len(found) == 3 * 9 * 5
    for i, y in enumerate(Y):
        for j, x in enumerate(X):
            assert found["truth", x, y] == TRUTH[i, j]
            assert found["error", x, y] == pytest.approx(off[i, j], abs=1e-12)


def test_truth_and_output_share_a_limit_and_the_error_has_its_own() -> None:
    figure = field_map("m", rows(-0.03), **WORDS)
    headings = list(dict.fromkeys(row["heading"] for row in figure.data))
    most = np.abs(TRUTH).max()
    assert headings == [
        f"truth (±{most:.3g} half sides)",
        f"output (±{most:.3g} half sides)",
        "error (±0.03 half sides)",
    ]
    assert {r["shade"] for r in figure.data if r["panel"] == "error"} == {0}
    one = {(r["x"], r["y"]): r["shade"] for r in figure.data if r["panel"] == "truth"}
    for (x, y), shade in one.items():
        share = (np.hypot(x, y) - 0.5) / most
        assert shade == np.clip(np.floor((share + 1) / 2 * 9), 0, 8)
    fixed = field_map("m", rows(-0.03), **WORDS, limits={"error": 0.3})
    assert {r["shade"] for r in fixed.data if r["panel"] == "error"} == {4}


def test_colours_are_symmetric_about_nothing() -> None:
    assert shade_of(0.0, 1.0) == 4
    assert shade_of(0.0, 0.0) == 4
    for number in (0.12, 0.34, 0.56, 0.78, 1.0, 2.0):
        assert shade_of(number, 1.0) + shade_of(-number, 1.0) == 8
    assert shade_of(2.0, 1.0) == 8


def test_cells_meet_and_fill_the_slice() -> None:
    figure = field_map("m", rows(), **WORDS)
    cells = [r for r in figure.data if r["panel"] == "truth"]
    area = sum((r["x_to"] - r["x_from"]) * (r["y_to"] - r["y_from"]) for r in cells)
    assert area == pytest.approx((2 + 0.25) * (1 + 0.25))
    assert min(r["x_from"] for r in cells) == pytest.approx(-1.125)


def test_undefined_values_are_told_and_not_drawn() -> None:
    off = np.zeros(TRUTH.shape)
    off[2, 3] = np.nan
    figure = field_map("m", rows(off), **WORDS)
    assert len(figure.data) == 3 * 45 - 2
    assert figure.caption.endswith("2 undefined values are not drawn.")


@pytest.mark.parametrize("theme", ["light", "dark", "page"])
def test_maps_draw_in_every_theme(theme: Any) -> None:
    figure = field_map("m", rows(np.where(TRUTH > 0, 0.1, -0.1)), **WORDS)
    spec = {key: value for key, value in figure.spec.items() if key != "$schema"}
    altair.Chart.from_dict(spec).to_dict()
    wide = svg(figure.spec, theme=theme, width=900)
    assert "NaN" not in wide
    for ramp in ("r1", "r9"):
        assert colour(ramp, theme) in wide
    assert len(re.findall(r"half sides\)", wide)) >= 3
    assert "x (half sides of the box)" in wide
    assert svg(figure.spec, theme=theme, width=300) != wide


def test_what_is_no_grid_is_told() -> None:
    with pytest.raises(InputError, match="no rows"):
        field_map("m", [], **WORDS)
    with pytest.raises(InputError, match="no column 'value'"):
        field_map("m", [{"panel": "truth", "x": 0.0, "y": 0.0}], **WORDS)
    uneven = field_rows([0.0, 1.0, 3.0], [0.0, 1.0], [[1.0] * 3] * 2, [[1.0] * 3] * 2)
    with pytest.raises(InputError, match="along 'x' are not evenly spaced"):
        field_map("m", uneven, **WORDS)
    many = [{"panel": "truth", "x": 0.0, "y": 0.0, "value": 1.0}] * (MOST_CELLS + 1)
    with pytest.raises(InputError, match="coarser grid"):
        field_map("m", many, **WORDS)
    nothing = [{**row, "value": None} for row in rows()]
    with pytest.raises(InputError, match="no value is defined"):
        field_map("m", nothing, **WORDS)
