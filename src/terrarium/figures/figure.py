"""The figure: a chart that states a finding, with the very rows that it draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Figure:
    """A figure made from tidy rows: a Vega-Lite spec, a title that states the finding, the data.

    ``data`` are the very rows drawn (flat dicts); ``spec`` embeds them.  ``name`` is what
    ``terrarium figure STUDY NAME`` asks for.  In a notebook a figure shows itself as SVG.
    """

    name: str
    title: str
    caption: str
    spec: Mapping[str, Any]
    data: Sequence[Mapping[str, Any]]

    def __repr__(self) -> str:
        return f"Figure({self.name!r}: {self.title!r}, {len(self.data)} rows)"

    def _repr_svg_(self) -> str:
        from terrarium.figures.draw import svg

        return svg(self.spec, title=self.title)
