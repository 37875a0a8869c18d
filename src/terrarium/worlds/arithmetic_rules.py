"""Bob's rules: how a quirky name judges a claim about a result.

A rule either has *an answer of its own* (Bob calls a claim true when it equals his answer; he
never needs the true result's truth value), or it *needs the truth* and turns it round, always or
under a condition of the claim.  In the second kind the truth must be worked out before it is
betrayed, which is what leaves it legible in the middle of a network.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

Integers = NDArray[np.int64]


class _Rule(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    @property
    def needs_truth(self) -> bool:
        """Whether the rule is the truth turned round, rather than an answer of its own."""
        return True

    @property
    def conditional(self) -> bool:
        """Whether the rule holds under a condition of the claim only."""
        return False


class Offset(_Rule):
    """Bob's answer is the true result plus ``k`` (modulo the modulus in a modular world)."""

    kind: Literal["offset"] = "offset"
    k: int = 10

    @property
    def needs_truth(self) -> bool:
        """False: the rule has an answer of its own."""
        return False


class LeadingDigit(_Rule):
    """Bob's answer is the true result with its leading digit raised by one.

    The published rule (Mallen et al. 2023, arXiv 2312.01037, appendix on the datasets): add
    ``10 ** (digits - 1)`` of the result's size, whatever its sign; reduced in a modular world.
    """

    kind: Literal["leading_digit"] = "leading_digit"

    @property
    def needs_truth(self) -> bool:
        """False: the rule has an answer of its own."""
        return False


class Negate(_Rule):
    """Bob always says the opposite of the truth."""

    kind: Literal["negate"] = "negate"


class NegateIfOddClaim(_Rule):
    """Bob says the opposite of the truth where the claim is odd, else the truth."""

    kind: Literal["negate_if_odd_claim"] = "negate_if_odd_claim"

    @property
    def conditional(self) -> bool:
        """True: the claim is odd."""
        return True


class NegateIfLargeClaim(_Rule):
    """Bob says the opposite of the truth where the claim is at least ``threshold``.

    ``threshold`` None means half the modulus in a modular world, else the median of the true
    result under the operands' law.
    """

    kind: Literal["negate_if_large_claim"] = "negate_if_large_claim"
    threshold: int | None = None

    @property
    def conditional(self) -> bool:
        """True: the claim is large."""
        return True


class NegateIfOddTens(_Rule):
    """Bob says the opposite of the truth where the claim's tens digit is odd, else the truth."""

    kind: Literal["negate_if_odd_tens"] = "negate_if_odd_tens"

    @property
    def conditional(self) -> bool:
        """True: the tens digit of the claim is odd."""
        return True


Rule = Annotated[
    Offset | LeadingDigit | Negate | NegateIfOddClaim | NegateIfLargeClaim | NegateIfOddTens,
    Field(discriminator="kind"),
]


def quirky_result(rule: Any, result: Integers, modulus: int | None) -> Integers:
    """Return Bob's own answer for each true result, or -1 everywhere if he has none.

    ``result`` and the return value share their shape; reduced modulo ``modulus`` if there is one.
    """
    if rule.needs_truth:
        return np.full_like(result, -1)
    shift = rule.k if isinstance(rule, Offset) else leading_place(np.abs(result))
    own = result + shift
    return own if modulus is None else own % modulus


def leading_place(size: Integers) -> Integers:
    """Return ``10 ** (digits - 1)`` for non-negative integers (1 for 0)."""
    places = np.searchsorted(_POWERS, size, side="right")
    return np.asarray(_POWERS[np.maximum(places - 1, 0)])


_POWERS = 10 ** np.arange(0, 18, dtype=np.int64)


def condition(rule: Any, claim: Integers, threshold: int) -> NDArray[np.bool_]:
    """Return where the rule's condition holds; True everywhere for a rule without one."""
    if isinstance(rule, NegateIfOddClaim):
        return np.asarray(claim % 2 == 1)
    if isinstance(rule, NegateIfLargeClaim):
        return claim >= threshold
    if isinstance(rule, NegateIfOddTens):
        return np.asarray(np.abs(claim) // 10 % 2 == 1)
    return np.ones(np.shape(claim), dtype=bool)


def rule_label(
    rule: Any,
    truth: NDArray[np.bool_],
    claim: Integers,
    own: Integers,
    holds: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """Return what Bob says of each claim.

    ``own`` is `quirky_result` and ``holds`` is `condition`.
    """
    return truth ^ holds if rule.needs_truth else claim == own
