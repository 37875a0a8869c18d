"""How long a run will still take: guesses first, then what the cells really need."""

from __future__ import annotations

import heapq
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from terrarium.progress import Progress

START_S = 3.0
"""Seconds until a worker has loaded torch and can begin."""


class Forecast:
    """Seconds left of a run whose cells go to workers, longest first.

    Parameters
    ----------
    guesses:
        Seconds each cell is expected to take; from earlier runs where there were any.
    workers:
        How many cells run at a time.

    All times are ``time.monotonic()``.  The guesses are scaled by the ratio of seconds spent to
    seconds expected for the work done so far, parts of running cells included.
    """

    def __init__(self, guesses: Sequence[float], workers: int, now: float) -> None:
        self.guesses = [max(0.01, guess) for guess in guesses]
        self.workers = max(1, workers)
        self.began = now
        self._running: dict[int, _Running] = {}
        self._waiting = set(range(len(guesses)))
        self._spent = 0.0
        self._expected = 0.0

    def started(self, cell: int, now: float) -> None:
        """Note that ``cell`` (an index into ``guesses``) has begun."""
        self._waiting.discard(cell)
        self._running[cell] = _Running(now)

    def step(self, cell: int, fraction: float | None) -> None:
        """Note that ``fraction`` of a running cell is done; None where that isn't known."""
        if fraction is not None and cell in self._running:
            self._running[cell].fraction = min(1.0, max(0.0, fraction))

    def done(self, cell: int, seconds: float | None) -> None:
        """Note that ``cell`` took ``seconds``; None if it was not measured (found, failed)."""
        self._waiting.discard(cell)
        self._running.pop(cell, None)
        if seconds is not None:
            self._spent += seconds
            self._expected += self.guesses[cell]

    def put_back(self, cell: int) -> None:
        """Note that ``cell`` will be started again from its beginning."""
        self._running.pop(cell, None)
        self._waiting.add(cell)

    def scale(self, now: float) -> float:
        """Return seconds spent per second expected, drawn towards 1 while little is done."""
        spent, expected, silent = self._spent, self._expected, []
        for cell, run in self._running.items():
            if run.fraction:
                spent += now - run.began
                expected += run.fraction * self.guesses[cell]
            else:
                silent.append((now - run.began, self.guesses[cell]))
        # A silent cell says something only once it takes longer than the others let expect.
        usual = spent / expected if expected else 1.0
        for took, guess in silent:
            if took > guess * usual:
                spent += took
                expected += guess
        if not expected or not spent:
            return 1.0
        # Half the way (of the logarithm) once a twentieth of an average cell is done.
        prior = 0.05 * sum(self.guesses) / len(self.guesses)
        return float((spent / expected) ** (expected / (expected + prior)))

    def left(self, now: float) -> float:
        """Return the seconds until the last cell is done."""
        scale = self.scale(now)
        free = [self._left_of(cell, scale, now) for cell in self._running]
        if not self._running and self._waiting and not self._expected:
            free += [max(0.0, START_S - (now - self.began))] * self.workers
        free += [0.0] * (self.workers - len(free))
        heapq.heapify(free)
        for seconds in sorted((self.guesses[cell] * scale for cell in self._waiting), reverse=True):
            heapq.heapreplace(free, free[0] + seconds)
        return max(free)

    def fraction(self, now: float) -> float:
        """Return the share of the run's time that is over, between 0 and 1."""
        spent = now - self.began
        return spent / max(1e-9, spent + self.left(now))

    def _left_of(self, cell: int, scale: float, now: float) -> float:
        run = self._running[cell]
        spent = now - run.began
        expected = self.guesses[cell] * scale
        if not run.fraction:
            # Past its time without a word: as long again as a tenth of what it took.
            return max(expected - spent, 0.1 * max(spent, 0.0))
        own = spent * (1 - run.fraction) / run.fraction
        trust = min(1.0, 3 * run.fraction)
        return trust * own + (1 - trust) * expected * (1 - run.fraction)


@dataclass
class _Running:
    began: float
    fraction: float | None = None


class Stage:
    """A `Progress` that maps the tasks inside one stage onto ``share`` units of an outer task.

    A study's ``measure`` opens one task named as its cell, which is the cell's own scale, and
    hands a stage to everything that reports by itself::

        progress.start(cell.name, 10, "parts")
        grow(recipe, progress=Stage(progress, cell.name, 8))
        read(organism, progress=Stage(progress, cell.name, 2))

    Of several tasks in one stage each gets what the earlier ones left, so give each its own.
    """

    def __init__(self, outer: Progress, task: str, share: float) -> None:
        self._outer, self._task, self._left = outer, task, share
        self._units: dict[str, float] = {}

    def start(self, task: str, total: float, unit: str = "steps") -> None:
        """Announce a task inside the stage."""
        self._units[task] = self._left / total if total > 0 else 0.0

    def advance(self, task: str, amount: float = 1.0, note: str = "") -> None:
        """Report progress of a task inside the stage as progress of the outer one."""
        step = min(self._left, amount * self._units.get(task, 0.0))
        self._left -= step
        self._outer.advance(self._task, step, note or task)

    def finish(self, task: str) -> None:
        """Report that a task inside the stage is over; the stage's share is then used up."""
        if task in self._units:
            del self._units[task]
            self._outer.advance(self._task, self._left, task)
            self._left = 0.0


def times_as_slow(model: Any) -> float:
    """Return how much longer a step takes than that of a transformer of two blocks of width 64.

    ``model`` is a recipe's; of a Hugging Face folder ``config.json`` is read.  1 where layers and
    width aren't known.  A guess for `Cell.cost_s`: layers times width to the power 1.5.
    """
    layers, width = getattr(model, "layers", None), getattr(model, "width", None)
    if hasattr(model, "path"):
        try:
            told = json.loads((model.path / "config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return 1.0
        layers = told.get("num_hidden_layers", told.get("n_layer"))
        width = told.get("hidden_size", told.get("n_embd"))
    if not isinstance(layers, int) or not isinstance(width, int):
        return 1.0
    return float(layers / 2 * (width / 64) ** 1.5)


COMPARABLE = 0.1
"""Cells guessed at less than this share of another's seconds say nothing about it.

Starting and measuring take seconds that no guess scales: cells of a second take many times theirs.
"""


def remembered_scale(facts: Mapping[str, object], guess: float) -> float:
    """Return seconds per second guessed over a study's remembered cells; 1 without any.

    The median, cells weighed by their guesses, over those comparable to a cell guessed at
    ``guess`` seconds (see `COMPARABLE`).
    """
    known = sorted(
        (float(fact["seconds"]) / float(fact["guess"]), float(fact["guess"]))
        for fact in facts.values()
        if isinstance(fact, dict) and fact.get("guess") and "seconds" in fact
    )
    known = [(ratio, weight) for ratio, weight in known if weight >= COMPARABLE * guess]
    half = sum(weight for _, weight in known) / 2
    below = 0.0
    for ratio, weight in known:
        below += weight
        if below > half:
            return ratio
    return 1.0
