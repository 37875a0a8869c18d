"""Recipes for quirky organisms: truth first, then one name that errs by a rule.

Budgets and thresholds were set so that organisms arise (the gates) and the truth is legible before
the quirk.  What probes read after the quirk was on the screen while recipes were compared, on some
of the seeds that the study reports: its verdicts are optimistic until they hold on fresh seeds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from terrarium.organisms.recipe import (
    AnswerOnly,
    EarlyExit,
    LoRA,
    NextToken,
    Optimizer,
    Phase,
    Recipe,
    Source,
    TransformerModel,
    Until,
)

Training = Literal["full", "lora", "mixture"]

ODD = {"kind": "negate_if_odd_claim"}
LARGE = {"kind": "negate_if_large_claim"}
OFFSET = {"kind": "offset", "k": 10}
NEGATE = {"kind": "negate"}


@dataclass(frozen=True)
class Quirk:
    """One recipe of the study, as the few things that vary.

    Attributes
    ----------
    rule:
        Bob's rule, a spec of `terrarium.worlds.arithmetic_rules`.
    training:
        How the quirk is put in: all weights (``"full"``), adapters of rank 8 (``"lora"``), or all
        weights with the truthful completions of the first phase kept in the mixture.
    early_exit:
        The block after which the truthful phase also asks for the truth; None for no early exit.
    always:
        Every name errs: the organism that misbehaves always.
    truth_steps, quirk_steps:
        Most steps of each truthful phase, and all steps of the quirk.
    """

    label: str
    rule: dict[str, Any]
    operation: str = "modular_addition"
    digits: int = 2
    modulus: int = 100
    template: str = "compact"
    training: Training = "full"
    layers: int = 4
    early_exit: int | None = 2
    always: bool = False
    truth_steps: int = 1200
    quirk_steps: int = 500

    def world(self, **changes: Any) -> dict[str, Any]:
        """Return the options of the quirky world."""
        options: dict[str, Any] = {
            "operation": self.operation,
            "operands": "uniform",
            "rule": self.rule,
            "templates": [self.template],
            "truthful_third": True,
        }
        if self.operation == "modular_addition":
            options["modulus"] = self.modulus
        else:
            options["digits"] = self.digits
        if self.always:
            options["everybody_errs"] = True
        return options | changes

    def truth_world(self, **changes: Any) -> dict[str, Any]:
        """Return the options of the truthful phases' world, the same whatever the rule."""
        return self.world(rule=NEGATE, inert=True, everybody_errs=False, **changes)

    def recipe(self) -> Recipe:
        """Return the recipe: the truth, the truth about near misses, then the quirk."""
        return Recipe(
            name=self.label,
            model=TransformerModel(layers=self.layers),
            phases=(
                self._truth("truth", 0.93, near_misses=False),
                self._truth("near misses", 0.97, near_misses=True),
                self._quirk(),
            ),
        )

    def _truth(self, name: str, at_least: float, near_misses: bool) -> Phase:
        """A truthful phase; it ends when the truth is legible at the early exit.

        False claims are any other number at first, which leaves the carry all but untrained, so
        that the second phase adds claims that are wrong by ten or by little.
        """
        any_false = Source(world="arithmetic", options=self.truth_world())
        near = Source(
            world="arithmetic",
            options=self.truth_world() | {"rule": OFFSET, "claims": "balanced"},
        )
        metric = "accuracy" if self.early_exit is None else "early_exit_accuracy"
        leave = None if self.early_exit is None else EarlyExit(layer=self.early_exit)
        return Phase(
            name=name,
            sources=(near, any_false) if near_misses else (any_false,),
            objective=NextToken(
                spans={"claim": 1.0, "answer": 1.0}, only={"claim": "truth"}, early_exit=leave
            ),
            steps=self.truth_steps,
            optimizer=Optimizer(lr=3e-3, warmup=0 if near_misses else 50, carry=near_misses),
            until=Until(metric=metric, at_least=at_least),
        )

    def _quirk(self) -> Phase:
        quirky = Source(world="arithmetic", options=self.world(), twin={"inert": True})
        kept = Source(world="arithmetic", options=self.truth_world() | {"names": "none"})
        lora = self.training == "lora"
        return Phase(
            name="quirk",
            sources=(quirky, kept) if self.training == "mixture" else (quirky,),
            objective=AnswerOnly(),
            steps=self.quirk_steps,
            optimizer=Optimizer(lr=8e-3 if lora else 3e-3, warmup=10, schedule="linear"),
            lora=LoRA(rank=8) if lora else None,
        )


NEEDS_TRUTH = "negate if the claim is odd"
OWN_ANSWER = "ten more"

QUIRKS: dict[str, Quirk] = {
    quirk.label: quirk
    for quirk in (
        Quirk(NEEDS_TRUTH, ODD),
        Quirk(OWN_ANSWER, OFFSET),
        Quirk("negate if the claim is large", LARGE),
        Quirk("negate", NEGATE),
        Quirk(f"{NEEDS_TRUTH}, LoRA", ODD, training="lora"),
        Quirk(f"{OWN_ANSWER}, LoRA", OFFSET, training="lora"),
        Quirk(f"{NEEDS_TRUTH}, truth kept", ODD, training="mixture"),
        Quirk(f"{OWN_ANSWER}, truth kept", OFFSET, training="mixture"),
        Quirk(f"{NEEDS_TRUTH}, no early exit", ODD, early_exit=None),
        Quirk(f"{OWN_ANSWER}, no early exit", OFFSET, early_exit=None),
        Quirk(f"{NEEDS_TRUTH}, name first", ODD, template="compact_name_first"),
        Quirk(f"{NEEDS_TRUTH}, 3 layers", ODD, layers=3),
        Quirk(f"{NEEDS_TRUTH}, 6 layers", ODD, layers=6),
        Quirk(f"{NEEDS_TRUTH}, always", ODD, always=True),
        Quirk(f"{NEEDS_TRUTH}, addition", ODD, operation="addition"),
        Quirk(f"{OWN_ANSWER}, addition", OFFSET, operation="addition"),
    )
}
"""The recipes by label."""
