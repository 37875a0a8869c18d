"""Drawing claims about results, exactly by their law and vectorised over the batch.

A row is drawn in two stages.  First its *cell*: whether the claim is the true result, Bob's
answer, or false by both, and whether the rule's condition holds.  Then operands and claim by
their own laws, redrawn until they lie in that cell and in the split.  The cells' probabilities
are therefore exact in every split, whatever the hash did; the operands' law is conditioned on
the split and, for rules with a condition, on the cell.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from terrarium.errors import InputError
from terrarium.worlds import splits
from terrarium.worlds.arithmetic_rules import (
    NegateIfLargeClaim,
    NegateIfOddTens,
    Offset,
    condition,
    leading_place,
    quirky_result,
)
from terrarium.worlds.operands import Integers, Operands, smallest

Operation = Literal["addition", "subtraction", "multiplication", "modular_addition", "squaring"]
ClaimLaw = Literal["published_table", "balanced"]

_ROUNDS = 2000

TRUE, BOBS, NEAR_TRUE, NEAR_BOBS, OTHER = range(5)
"""Kinds of claim: the result, Bob's answer, near misses of either, any other residue."""


@dataclass(frozen=True)
class Equations:
    """Drawn equations, ``(n,)`` int64 each: operands, true result, Bob's own answer, claim."""

    a: Integers
    b: Integers
    result: Integers
    own: Integers
    claim: Integers

    def columns(self) -> tuple[Integers, ...]:
        """Return the fields in order."""
        return self.a, self.b, self.result, self.own, self.claim


@dataclass(frozen=True)
class Claims:
    """The law of operands and claims.

    ``eighths`` are the kinds of claim, each with probability 1/8.
    """

    operation: Operation
    operands: Operands
    modulus: int | None
    rule: Any
    eighths: tuple[int, ...]

    @cached_property
    def largest_result(self) -> int:
        """The largest true result, 0 or above."""
        top = np.array(self.operands.highest)
        if self.operation == "subtraction":
            return int(top) - self.operands.lowest
        if self.operation == "modular_addition":
            return int(self.modulus or 0) - 1
        return int(self.result(top, top))

    @cached_property
    def digits(self) -> int:
        """Digits of a claim, sign apart.

        Room for the leading-digit rule whatever the rule is, so that the width of a row depends
        on the operation and its size alone.
        """
        top = self.largest_result
        raised = 0 if self.modulus is not None else int(leading_place(np.array(top)))
        return len(str(top + raised))

    @cached_property
    def threshold(self) -> int:
        """The smallest large claim; 0 where the rule asks for no such thing."""
        if not isinstance(self.rule, NegateIfLargeClaim):
            return 0
        if self.rule.threshold is not None:
            return self.rule.threshold
        return self._median() if self.modulus is None else self.modulus // 2

    def fault(self) -> str | None:
        """Return what is wrong with the rule in a world of this size, if anything."""
        top, rule = self.largest_result, self.rule
        if isinstance(rule, Offset):
            if self.modulus is not None:
                zero = rule.k % self.modulus == 0
                return "the offset k must not be a multiple of the modulus" if zero else None
            room = 10**self.digits - 1 - top
            fits = 1 <= rule.k <= room
            return None if fits else f"the offset k must lie in 1 ... {room}, got {rule.k}"
        if isinstance(rule, NegateIfOddTens) and top < 19:
            return "rule 'negate_if_odd_tens' needs results of 19 or more"
        if isinstance(rule, NegateIfLargeClaim) and not 1 <= self.threshold <= top:
            return f"the threshold of a large claim must lie in 1 ... {top}, got {self.threshold}"
        return None

    def cells(self) -> dict[tuple[bool, bool, bool], float]:
        """Return the exact law of (truth, rule_label, condition)."""
        if self.rule.conditional:
            return {(t, t != c, c): 0.25 for t in (True, False) for c in (True, False)}
        share = {kind: self.eighths.count(kind) / 8 for kind in range(5)}
        if self.rule.needs_truth:
            return {(True, False, True): share[TRUE], (False, True, True): 1 - share[TRUE]}
        return {
            (True, False, True): share[TRUE],
            (False, True, True): share[BOBS],
            (False, False, True): share[NEAR_TRUE] + share[NEAR_BOBS],
        }

    def _median(self) -> int:
        """Return the smallest t >= 1 with P(result < t) >= 1/2 under the operands' law."""
        if self.operation == "subtraction":
            return 1  # the law of a - b is symmetric about 0
        law = self.operands
        if self.operation == "squaring":
            return smallest(law, 0.5, of=1) ** 2 + 1
        x = np.arange(law.lowest, law.highest + 1)
        weight = np.diff(law.cdf(x), prepend=0.0)
        low, high = 1, self.largest_result
        while low < high:
            t = (low + high) // 2
            if float(weight @ law.cdf(self._second(x, t))) >= 0.5 - 1e-12:
                high = t
            else:
                low = t + 1
        return low

    def _second(self, x: Integers, t: int) -> Integers:
        """Return the largest second operand whose result with the first one is below ``t``."""
        if self.operation == "addition":
            return t - 1 - x
        below = (t - 1) // np.maximum(x, 1)
        return np.where(x == 0, self.operands.highest, below)

    def result(self, a: Integers, b: Integers) -> Integers:
        """Return the true result of each pair."""
        if self.operation == "addition":
            return a + b
        if self.operation == "subtraction":
            return a - b
        if self.operation == "modular_addition":
            return (a + b) % int(self.modulus or 1)
        return a * b  # squaring has b = a

    def own(self, result: Integers) -> Integers:
        """Return Bob's own answer, or -1."""
        return quirky_result(self.rule, result, self.modulus)

    def holds(self, claim: Integers) -> NDArray[np.bool_]:
        """Return where the rule's condition holds."""
        return condition(self.rule, claim, self.threshold)

    def in_split(self, a: Integers, b: Integers, split: str) -> NDArray[np.bool_]:
        """Return which operand pairs belong to ``split``.

        The hash is of the unordered pair and not of (a, b, claim).  With the latter a pair whose
        true claim was trained on has only false claims left for the test, and a pair never seen
        true has nearly all of its truth there: a network that merely remembers pairs would know
        the test labels without adding.  Unordered, because b + a gives a + b away.
        """
        return splits.owned(a, b, split)

    def draw(
        self, n: int, rng: np.random.Generator, split: str, kinds: tuple[int, ...] | None = None
    ) -> Equations:
        """Draw ``n`` statements whose pairs belong to ``split``.

        ``kinds`` replaces `eighths`.  Raises ``InputError`` where a cell seems to be empty.
        """
        table = np.array(kinds or self.eighths)
        kind = table[(rng.random(n) * len(table)).astype(np.int64)]
        if self.rule.conditional:
            return self._draw_jointly(kind, rng.random(n) < 0.5, rng, split)
        return self._draw_in_turn(kind, rng, split)

    def turned(
        self, drawn: Equations, rng: np.random.Generator
    ) -> tuple[NDArray[np.bool_], Integers]:
        """Find other false claims for which the rule's condition is the other way round.

        Returns which of ``drawn`` have one (among 64 tries) and, for these, the claims.
        """
        result, own, claim = (column[:, None] for column in drawn.columns()[2:])
        kind = np.full(len(claim), self.eighths[-1])[:, None]
        tries = self._claim(kind, result, own, rng.random((2, len(claim), 64)))
        other = (self.holds(tries) != self.holds(claim)) & self._fits(kind, tries, result, own)
        found, pick = _first(other)
        return found, tries[found, pick]

    def _draw_in_turn(self, kind: Integers, rng: np.random.Generator, split: str) -> Equations:
        """Draw operands, then claims for them: the cell does not touch the operands' law."""
        a, b = np.zeros_like(kind), np.zeros_like(kind)
        block = _block(split, 1.0)
        pending = np.arange(len(kind))
        for _ in range(_ROUNDS):
            first, second = self._pairs(rng, len(pending), block)
            found, pick = _first(self.in_split(first, second, split))
            a[pending[found]], b[pending[found]] = first[found, pick], second[found, pick]
            pending = pending[~found]
            if not len(pending):
                break
        else:
            raise self._empty(split)
        result = self.result(a, b)
        own = self.own(result)
        claim = np.zeros_like(kind)
        pending = np.arange(len(kind))
        while len(pending):
            u = rng.random((2, len(pending)))
            drawn = self._claim(kind[pending], result[pending], own[pending], u)
            claim[pending] = drawn
            pending = pending[~self._fits(kind[pending], drawn, result[pending], own[pending])]
        return Equations(a, b, result, own, claim)

    def _draw_jointly(
        self, kind: Integers, want: NDArray[np.bool_], rng: np.random.Generator, split: str
    ) -> Equations:
        """Draw operands and claim together until the rule's condition is as wanted."""
        rows = np.zeros((5, len(kind)), np.int64)
        block = _block(split, 0.5)
        pending = np.arange(len(kind))
        for _ in range(_ROUNDS):
            a, b = self._pairs(rng, len(pending), block)
            result = self.result(a, b)
            own = self.own(result)
            which = kind[pending, None]
            claim = self._claim(which, result, own, rng.random((2, *a.shape)))
            good = self.in_split(a, b, split) & (self.holds(claim) == want[pending, None])
            found, pick = _first(good & self._fits(which, claim, result, own))
            for row, drawn in zip(rows, (a, b, result, own, claim), strict=True):
                row[pending[found]] = drawn[found, pick]
            pending = pending[~found]
            if not len(pending):
                return Equations(*rows)
        raise self._empty(split)

    def _pairs(
        self, rng: np.random.Generator, rows: int, columns: int
    ) -> tuple[Integers, Integers]:
        if self.operation == "squaring":
            a = self.operands.draw(rng.random((rows, columns)))
            return a, a
        a, b = self.operands.draw(rng.random((2, rows, columns)))
        return a, b

    def _claim(
        self, kind: Integers, result: Integers, own: Integers, u: NDArray[np.float64]
    ) -> Integers:
        """Return one draw of each claim; near misses may have to be drawn again."""
        if OTHER in self.eighths and self.modulus is not None:
            shift = 1 + (u[0] * (self.modulus - 1)).astype(np.int64)
            return np.where(kind == TRUE, result, (result + shift) % self.modulus)
        anchor = np.where((kind == BOBS) | (kind == NEAR_BOBS), own, result)
        near = near_miss(anchor, u)
        if self.modulus is not None:
            near %= self.modulus  # a claim beyond the modulus would be false at first sight
        return np.where(kind >= NEAR_TRUE, near, anchor)

    def _fits(
        self, kind: Integers, claim: Integers, result: Integers, own: Integers
    ) -> NDArray[np.bool_]:
        """Return which claims are what their kind says: a near miss may be right after all."""
        miss = claim != result
        if not self.rule.needs_truth:
            miss &= claim != own
        return np.asarray((kind < NEAR_TRUE) | miss)

    def _empty(self, split: str) -> InputError:
        return InputError(
            f"arithmetic: no {self.operation} rows were found for split '{split}' and rule "
            f"'{self.rule.kind}'; make the world larger (digits or modulus)."
        )


def claims_law(
    operation: Operation, operands: Operands, modulus: int | None, rule: Any, claims: ClaimLaw
) -> Claims:
    """Return the law of claims that ``claims`` names, for ``rule``."""
    if rule.needs_truth:
        false = NEAR_TRUE if modulus is None else OTHER
        return Claims(operation, operands, modulus, rule, (*(TRUE,) * 4, *(false,) * 4))
    near = (NEAR_TRUE, NEAR_BOBS)
    if claims == "published_table":
        eighths = (TRUE, TRUE, BOBS, BOBS, *near, *near)
    else:
        eighths = (*(TRUE,) * 4, BOBS, BOBS, *near)
    return Claims(operation, operands, modulus, rule, eighths)


def near_miss(anchor: Integers, u: NDArray[np.float64]) -> Integers:
    """Return ``anchor`` with one of its digits, chosen evenly, replaced by another one.

    ``u`` ``(2, ...)`` is uniform in [0, 1).  The published distractor (Mallen et al. 2023), which
    now and then keeps its digit and is then drawn again; the law is the same.
    """
    size = np.abs(anchor)
    top = leading_place(size)
    digits = np.log10(top).round().astype(np.int64) + 1
    place = np.asarray(10 ** (u[0] * digits).astype(np.int64))
    digit = size // place % 10
    other = (digit + 1 + (u[1] * 9).astype(np.int64)) % 10
    missed = size + (other - digit) * place
    return np.asarray(np.where(anchor < 0, -missed, missed))


def _block(split: str, share: float) -> int:
    """Return how many candidates to draw at once for each row, from the chance of acceptance."""
    start, stop = splits.bounds(splits.SHARES, split)
    return int(np.ceil(3.0 / (share * (stop - start))))


def _first(good: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], Integers]:
    """Return which rows ``(n, k)`` have a good candidate, and the first one of each such row."""
    pick = good.argmax(axis=1)
    found = good[np.arange(len(good)), pick]
    return found, pick[found]
