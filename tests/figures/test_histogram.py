"""Histograms: shares per bin against independent sums, and specs that Vega-Lite takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import altair
import pytest

from terrarium.errors import InputError
from terrarium.figures.draw import svg
from terrarium.figures.figure import Figure
from terrarium.figures.histogram import histogram

WORDS = {"title": "A finding", "caption": "What was drawn."}


def binned(shares: list[float | None], **more: Any) -> list[dict[str, Any]]:
    return [
        {"low": float(i), "high": i + 1.0, "value": share, "seed": 0, "group": "a", **more}
        for i, share in enumerate(shares)
    ]


def bins(figure: Figure) -> list[Mapping[str, Any]]:
    return [row for row in figure.data if row["kind"] == "bin"]


def test_shares_are_means_over_seeds() -> None:
    rows = [*binned([0.2, 0.8]), *binned([0.4, 0.6], seed=1)]
    figure = histogram("h", rows, **WORDS)
    assert [row["value"] for row in bins(figure)] == pytest.approx([0.3, 0.7])
    assert {row["seeds"] for row in bins(figure)} == {2}


def test_a_bin_that_a_group_lacks_is_empty_there() -> None:
    rows = [*binned([0.5, 0.5]), {**binned([1.0])[0], "group": "b"}]
    figure = histogram("h", rows, **WORDS)
    assert [r["value"] for r in bins(figure) if r["group"] == "b"] == [1.0, 0.0]


def test_undefined_shares_are_told_and_not_drawn() -> None:
    figure = histogram("h", binned([0.5, None]), **WORDS)
    assert figure.caption.endswith("1 undefined value is not drawn.")
    assert len(bins(figure)) == 1


def test_groups_stand_in_the_order_asked_for() -> None:
    rows = [*binned([1.0]), *binned([1.0], group="b"), *binned([1.0], group="c")]
    figure = histogram("h", rows, **WORDS, groups=("c", "a"))
    assert [row["group"] for row in bins(figure)] == ["c", "a", "b"]


def test_panels_have_their_own_bins() -> None:
    rows = [*binned([1.0], panel="x"), *binned([0.5, 0.5], panel="y")]
    figure = histogram("h", rows, **WORDS, facet="panel")
    assert [(r["panel"], r["low"]) for r in bins(figure)] == [("x", 0.0), ("y", 0.0), ("y", 1.0)]


@pytest.mark.parametrize("facet", [None, "panel"])
def test_specs_are_valid_and_draw(facet: str | None) -> None:
    rows = [*binned([0.2, 0.8], panel="x"), *binned([0.6, 0.4], group="b", panel="y")]
    figure = histogram("h", rows, **WORDS, facet=facet, references={"chance": 0.5})
    altair.Chart.from_dict(dict(figure.spec))
    drawn = svg(figure.spec, title=figure.title)
    assert drawn.startswith("<svg")
    assert "chance" in drawn


def test_missing_columns_and_no_rows_are_told() -> None:
    with pytest.raises(InputError, match="no rows to draw"):
        histogram("h", [], **WORDS)
    with pytest.raises(InputError, match="no column 'group'"):
        histogram("h", [{"low": 0, "high": 1, "value": 1.0, "seed": 0}], **WORDS)


def test_the_outline_ends_behind_the_last_bin() -> None:
    figure = histogram("h", [*binned([0.4, 0.6]), *binned([1.0], group="b")], **WORDS)
    ends = [row for row in figure.data if row["kind"] == "end"]
    assert [(row["group"], row["low"], row["value"]) for row in ends] == [
        ("a", 2.0, 0.6),
        ("b", 2.0, 0.0),
    ]
