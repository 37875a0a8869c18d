"""What each step of a phase trains on: whose turn it is, and how many rows each source gives.

Order is plain data.  A source may be drawn in part of a phase only (poison at the start or at the
end), with a weight that moves (a curriculum), or for an exact number of rows (the same exposure in
every order); a strand gives some steps another objective (policy gradient among supervised steps).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrarium.errors import InputError
from terrarium.organisms.recipe import Phase, Source
from terrarium.worlds.base import Batch, concatenate


@dataclass(frozen=True)
class Turn:
    """The sources, objective and batch size of some steps of a phase: its own, or a strand's.

    ``worlds`` belong to ``sources``; ``teacher`` is the network that the turn's objective learns
    from, if any.
    """

    sources: Sequence[Source]
    worlds: Sequence[Any]
    objective: Any
    rows: int
    teacher: Any = None

    def batch(self, rng: np.random.Generator, step: int, steps: int) -> Batch:
        """Return the turn's examples at ``step`` (from 0) of a phase of ``steps``."""
        counts = source_rows(self.sources, self.rows, step, steps, rng)
        drawn = [
            _drawn(world, int(count), rng, source.split, step, steps)
            for source, world, count in zip(self.sources, self.worlds, counts, strict=True)
            if count
        ]
        return concatenate(drawn)


def own_turn(phase: Phase, worlds: Sequence[Any]) -> Turn:
    """Return the turn of a phase's own sources, whose worlds are ``worlds``."""
    return Turn(phase.sources, worlds, phase.objective, phase.batch)


def _drawn(
    world: Any, n: int, rng: np.random.Generator, split: str, step: int, steps: int
) -> Batch:
    """Draw from a world; worlds whose examples come at a time of their own are told the step."""
    if hasattr(world, "sample_at"):
        timed: Batch = world.sample_at(n, rng, split, step, steps)
        return timed
    drawn: Batch = world.sample(n, rng, split)
    return drawn


def turn_of(phase: Phase, step: int) -> int:
    """Return whose step it is: 0 for the phase's own objective, k for its k-th strand.

    A strand of ``every`` e takes the last of each e steps; where two want one step, the first has
    it.
    """
    for place, strand in enumerate(phase.strands, start=1):
        if (step + 1) % strand.every == 0:
            return place
    return 0


def source_rows(
    sources: Sequence[Source], rows: int, step: int, steps: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return how many of a step's ``rows`` each source gives, ``(sources,)``.

    Sources with an exact number of rows come first, and the others share the rest by their
    weights at that step.
    """
    exact = np.array([_exact(source, step, steps) for source in sources], np.int64)
    rest = rows - int(exact.sum())
    weight = np.array([_weight(source, step, steps) for source in sources])
    if rest and weight.sum() > 0:
        if np.count_nonzero(weight) == 1:
            return exact + rest * (weight > 0)
        exact = exact + rng.multinomial(rest, weight / weight.sum())
    return exact


def check_feed(sources: Sequence[Source], rows: int, steps: int, where: str) -> None:
    """Raise ``InputError`` where some step would hold more or fewer than ``rows`` examples."""
    edges = {0, max(0, steps - 1)}
    for source in sources:
        first, last = _window(source, steps)
        edges |= {first, first - 1, last, last - 1}
    for step in sorted(edge for edge in edges if 0 <= edge < steps):
        exact = sum(_most_exact(source, step, steps) for source in sources)
        open_weight = sum(_weight(source, step, steps) for source in sources)
        if exact > rows:
            raise InputError(
                f"{where}: sources with exact rows ask for {exact} of the {rows} rows of step "
                f"{step}; raise batch, or spread them over more steps."
            )
        if open_weight == 0 and sum(_exact(source, step, steps) for source in sources) < rows:
            raise InputError(
                f"{where}: no source with a weight fills step {step}; give one that is drawn "
                "from start 0 to stop 1."
            )


def _window(source: Source, steps: int) -> tuple[int, int]:
    """Return the half-open range of steps in which a source is drawn."""
    first = min(math.floor(source.start * steps + 1e-9), max(0, steps - 1))
    return first, max(first + 1, math.ceil(source.stop * steps - 1e-9))


def _inside(source: Source, step: int, steps: int) -> bool:
    first, last = _window(source, steps)
    return first <= step < last


def _exact(source: Source, step: int, steps: int) -> int:
    """Return a source's exact rows of one step: its total, spread evenly over its window."""
    if source.rows is None or not _inside(source, step, steps):
        return 0
    first, last = _window(source, steps)
    done, length = step - first, last - first
    return (done + 1) * source.rows // length - done * source.rows // length


def _most_exact(source: Source, step: int, steps: int) -> int:
    if source.rows is None or not _inside(source, step, steps):
        return 0
    first, last = _window(source, steps)
    return math.ceil(source.rows / (last - first))


def _weight(source: Source, step: int, steps: int) -> float:
    """Return a source's weight at a step: 0 outside its window and for exact rows."""
    if source.rows is not None or not _inside(source, step, steps):
        return 0.0
    if source.final_weight is None:
        return source.weight
    first, last = _window(source, steps)
    share = (step - first) / max(1, last - 1 - first)
    return source.weight + (source.final_weight - source.weight) * share
