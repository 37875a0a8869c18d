"""Looks of series: colours, shapes."""

from terrarium.figures.theme import SHAPES, shapes


def test_no_two_of_many_series_look_alike() -> None:
    looks = {(place % len(SHAPES), shape) for place, shape in enumerate(shapes(60))}
    assert len(looks) == 60
    assert shapes(8) == list(SHAPES)
