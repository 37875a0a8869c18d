"""Recipes for quirky organisms: truth first, then one name that errs by a rule."""

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
    truth_steps: int = 2000
    quirk_steps: int = 400

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
            options["names"] = "quirky"
        return options | changes

    def truth_world(self) -> dict[str, Any]:
        """Return the options of the truthful phase's world, the same whatever the rule."""
        return self.world(rule={"kind": "negate"}, inert=True, names="both")

    def recipe(self) -> Recipe:
        """Return the recipe: the truth until it is legible early, then the quirk."""
        return Recipe(
            name=self.label,
            model=TransformerModel(layers=self.layers),
            phases=(self._truth(), self._quirk()),
        )

    def _truth(self) -> Phase:
        metric = "accuracy" if self.early_exit is None else "early_exit_accuracy"
        leave = None if self.early_exit is None else EarlyExit(layer=self.early_exit)
        return Phase(
            name="truth",
            sources=(Source(world="arithmetic", options=self.truth_world()),),
            objective=NextToken(
                spans={"claim": 1.0, "answer": 1.0}, only={"claim": "truth"}, early_exit=leave
            ),
            steps=self.truth_steps,
            optimizer=Optimizer(lr=3e-3),
            until=Until(metric=metric, at_least=0.99),
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
            optimizer=Optimizer(lr=8e-3 if lora else 2e-3, schedule="linear"),
            lora=LoRA(rank=8) if lora else None,
        )


ODD = {"kind": "negate_if_odd_claim"}
LARGE = {"kind": "negate_if_large_claim"}
OFFSET = {"kind": "offset", "k": 10}
NEGATE = {"kind": "negate"}

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
