"""The contract of a study: a question, hypotheses written before the run, cells, rows, figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from terrarium.evidence.hypotheses import Hypothesis
from terrarium.evidence.rows import Row
from terrarium.progress import Progress
from terrarium.registry import Registry

Size = Literal["smoke", "quick", "full"]


@dataclass(frozen=True)
class Cell:
    """One independent piece of a study: a pure function of ``spec``.

    ``name`` is for people; ``cost_s`` is a guess of the seconds one core needs.
    """

    name: str
    spec: Mapping[str, Any]
    cost_s: float = 1.0


@dataclass(frozen=True)
class Figure:
    """A figure made from tidy rows: a Vega-Lite spec, a title that states the finding, the data.

    ``data`` are the very rows drawn (flat dicts); ``spec`` embeds them.
    """

    name: str
    title: str
    caption: str
    spec: Mapping[str, Any]
    data: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Study:
    """A question and everything needed to answer it with one command.

    Attributes
    ----------
    cells:
        ``cells(settings) -> [Cell]``; settings are ``defaults[size]`` with the user's changes.
    measure:
        ``measure(cell, store_home, progress) -> [Row]``, pure in ``cell.spec``; runs in a worker.
    figures:
        ``figures(rows) -> [Figure]`` from stored rows alone.
    code:
        Modules whose code decides the rows (for the cells' keys).
    """

    name: str
    question: str
    hypotheses: Sequence[Hypothesis]
    defaults: Mapping[Size, Mapping[str, Any]]
    cells: Callable[[Mapping[str, Any]], Sequence[Cell]]
    measure: Callable[[Cell, str, Progress], Sequence[Row]]
    figures: Callable[[Sequence[Row]], Sequence[Figure]]
    code: Sequence[str] = field(default_factory=tuple)


studies: Registry[Study] = Registry("studies", {"says-knows": "terrarium.studies.says_knows:STUDY"})
"""All studies by name."""
