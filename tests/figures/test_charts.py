"""Charts: the numbers they draw against independent computation, and specs that Vega-Lite takes."""

from __future__ import annotations

from typing import Any

import altair
import numpy as np
import pytest
from scipy import stats

from terrarium.errors import InputError
from terrarium.evidence.rows import measured, stamped
from terrarium.figures.cards import cards_from_rows
from terrarium.figures.curves import layer_curves
from terrarium.figures.dots import dots
from terrarium.figures.draw import svg
from terrarium.figures.layout import sized
from terrarium.figures.matrix import matrix
from terrarium.figures.scatter import scatter
from terrarium.figures.theme import DARK, LIGHT, colour, slots, themed

WORDS = {"title": "A finding", "caption": "What was drawn."}


def seeded(values: list[float | None], **more: Any) -> list[dict[str, Any]]:
    return [{"seed": seed, "value": value, **more} for seed, value in enumerate(values)]


def test_means_and_bands_are_students() -> None:
    values = [0.8, 0.9, 0.85, 0.95, 0.7]
    rows = seeded(values, layer=1, quantity="knows")
    figure = layer_curves("c", rows, **WORDS)
    (mean,) = [row for row in figure.data if row["kind"] == "mean"]
    low, high = stats.t.interval(0.95, 4, np.mean(values), stats.sem(values))
    assert mean["value"] == pytest.approx(np.mean(values))
    assert (mean["low"], mean["high"]) == pytest.approx((low, high))
    assert sum(row["kind"] == "seed" for row in figure.data) == 5


def test_undefined_seeds_are_counted_and_not_averaged() -> None:
    rows = seeded([0.8, None, 0.6], layer=1, quantity="knows")
    figure = layer_curves("c", rows, **WORDS)
    (mean,) = [row for row in figure.data if row["kind"] == "mean"]
    assert mean["value"] == pytest.approx(0.7)
    assert mean["seeds"] == 2
    assert figure.caption.endswith("1 undefined value is not drawn.")
    assert [row["value"] for row in figure.data if row["kind"] == "seed"] == [0.8, None, 0.6]


def test_one_seed_has_no_band() -> None:
    (seed, mean) = layer_curves("c", seeded([0.8], layer=1, quantity="knows"), **WORDS).data
    assert (mean["low"], mean["high"]) == (None, None)
    assert seed["value"] == 0.8


def test_given_means_are_drawn_as_they_are() -> None:
    row = {"seed": None, "value": 1.0, "low": 0.9, "high": 1.0, "layer": 0, "quantity": "optimal"}
    (mean,) = layer_curves("c", [row], **WORDS).data
    assert (mean["value"], mean["low"], mean["high"]) == (1.0, 0.9, 1.0)


def test_the_three_words_keep_their_colours() -> None:
    for present in (["knows"], ["optimal", "knows"], ["baseline", "says"]):
        domain = slots(present)
        assert domain[:3] == ["says", "knows", "optimal"]
    longer = slots(["knows: the truth", "knows: what is said", "says (output)"])
    assert longer == ["says (output)", "knows: the truth", "optimal", "knows: what is said"]
    assert LIGHT["range"]["category"][1] == colour("knows" and "c2", "light") == "#0072b2"


def test_matrix_cells_hold_mean_interval_and_seeds() -> None:
    values = [0.9, 0.95, 1.0]
    rows = [
        *seeded(values, fitted="A", tested="A"),
        *seeded([None, None], fitted="A", tested="B"),
    ]
    figure = matrix("m", rows, **WORDS)
    cell = next(row for row in figure.data if row["kind"] == "mean" and row["tested"] == "A")
    low, _ = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert cell["label"] == "0.95"
    assert cell["range"] == f"{low:.2f}–1.00"  # cut where an AUROC ends
    assert cell["high"] > 1.0  # the data keep the interval as it is
    empty = next(row for row in figure.data if row["tested"] == "B")
    assert (empty["label"], empty["value"]) == ("–", None)
    assert sum(row["kind"] == "seed" for row in figure.data) == 3


def test_dots_keep_the_order_of_rows() -> None:
    rows = [*seeded([0.5, 0.6], label="z"), *seeded([0.7, 0.8], label="a")]
    figure = dots("d", rows, **WORDS)
    assert [row["label"] for row in figure.data if row["kind"] == "mean"] == ["z", "a"]


def test_columns_that_a_chart_makes_itself_are_refused() -> None:
    """A group called ``kind`` was overwritten by 'mean' and 'seed', and nothing was drawn."""
    with pytest.raises(InputError, match="a column 'kind' of its own; give yours another name"):
        dots("d", seeded([0.5, 0.6], label="a", kind="normal"), group="kind", **WORDS)
    with pytest.raises(InputError, match="a column 'seeds' of its own"):
        layer_curves("c", seeded([0.5], layer=1, quantity="q", seeds=1), facet="seeds", **WORDS)
    with pytest.raises(InputError, match="a column 'rank' of its own"):
        matrix("m", seeded([0.5], rank=1, y=2), x="rank", y="y", **WORDS)


def test_missing_columns_and_no_rows_are_told() -> None:
    with pytest.raises(InputError, match="no column 'layer'"):
        layer_curves("c", seeded([0.5], quantity="knows"), **WORDS)
    with pytest.raises(InputError, match="no rows to draw"):
        scatter("s", [], **WORDS)


def faceted() -> list[Any]:
    curve = [r for p in "abc" for r in seeded([0.5, 0.6], layer=1, quantity="knows", panel=p)]
    points = [{"x": 0.1, "y": 0.2, "group": g, "panel": p} for g in "uv" for p in "abc"]
    lines = [
        r for p in "ab" for g in ("x", "y") for r in seeded([0.1, 0.2], label="l", group=g, panel=p)
    ]
    cells = [r for p in "ab" for r in seeded([0.4, 0.5], fitted="A", tested="B", panel=p)]
    return [
        layer_curves("c", curve, **WORDS, facet="panel", references={"chance": 0.5}),
        scatter("s", points, **WORDS, facet="panel"),
        dots("d", lines, **WORDS, group="group", facet="panel", references={"none": 0.0}),
        matrix("m", cells, **WORDS, facet="panel"),
    ]


@pytest.mark.parametrize("at", range(4))
def test_specs_are_valid_and_draw_at_both_widths(at: int) -> None:
    figure = faceted()[at]
    spec = {key: value for key, value in figure.spec.items() if key != "$schema"}
    altair.Chart.from_dict(spec).to_dict()  # validates against Vega-Lite's schema
    narrow, wide = (svg(figure.spec, width=width) for width in (360, 1100))
    assert narrow != wide
    assert "NaN" not in narrow + wide


def test_panels_wrap_and_the_legend_breaks() -> None:
    spec = faceted()[0].spec
    assert sized(spec, 1100)["columns"] == 3
    narrow = sized(spec, 360)
    assert narrow["columns"] == 1
    assert narrow["spec"]["width"] < 360
    assert narrow["config"]["legend"]["columns"] >= 1


def test_themes_change_colours_alone() -> None:
    spec = faceted()[0].spec
    dark = themed(spec, "dark")
    assert dark["config"] is DARK
    assert {k: v for k, v in dark.items() if k != "config"} == {
        k: v for k, v in spec.items() if k != "config"
    }


def _luminance(hex_colour: str) -> float:
    channels = [int(hex_colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def _contrast(a: str, b: str) -> float:
    low, high = sorted((_luminance(a), _luminance(b)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_contrast_meets_wcag(theme: Any) -> None:
    paper = colour("paper", theme)
    assert _contrast(colour("ink", theme), paper) >= 7
    assert _contrast(colour("muted", theme), paper) >= 4.5
    for i in range(1, 9):
        assert _contrast(colour(f"c{i}", theme), paper) >= 3, i
    for i in range(1, 10):
        text = colour("on-extreme" if i in (1, 2, 8, 9) else "on-middle", theme)
        assert _contrast(text, colour(f"r{i}", theme)) >= 3, i


def test_cards_take_the_rows_asked_for() -> None:
    rows = stamped(
        [
            measured(
                "balanced_accuracy", value, unit="proportion", n=9, organism="o",
                context="quirky", rows=subset, seed=0,
            )
            for subset, value in (("all", 0.5), ("disagree", 0.97))
        ],
        "s",
        "k",
    )  # fmt: skip
    (card,) = cards_from_rows(rows, where={"rows": "disagree"}, gated=("quirky",))
    assert card.contexts == {"quirky": {0: 0.97}}


def test_a_figure_shows_itself_in_a_notebook() -> None:
    figure = faceted()[1]
    assert figure._repr_svg_().startswith("<svg")
    assert "A finding" in repr(figure)
