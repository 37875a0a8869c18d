"""Predictions about a quantity's mean over seeds, and gates, as data that also reads as text.

A prediction is an open region: above a bar, below one, or between two (an equivalence).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from terrarium.errors import InputError
from terrarium.evidence.quantities import Missing, Quantity
from terrarium.evidence.rows import Row


@dataclass(frozen=True)
class Prediction:
    """The mean over seeds of ``quantity`` lies strictly between ``low`` and ``high``.

    None is no bound; both given make it an equivalence, tested by two one-sided tests.  Make it
    with `above`, `below` or `within`.
    """

    quantity: Quantity
    low: float | None
    high: float | None
    predicted: str

    def __post_init__(self) -> None:
        bounds = self.bounds
        if not bounds or not all(math.isfinite(bound) for bound in bounds):
            raise InputError(f"{self.quantity.text}: a prediction needs a finite bound.")
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise InputError(
                f"{self.quantity.text}: nothing lies between {self.low} and {self.high}; "
                "the margin must be positive."
            )

    @property
    def bounds(self) -> tuple[float, ...]:
        """The one or two bars."""
        return tuple(bound for bound in (self.low, self.high) if bound is not None)

    @property
    def text(self) -> str:
        """The prediction in words: ``mean over seeds of auroc (rows=disagree) > 0.65``."""
        return f"mean over seeds of {self.quantity.text} {self.predicted}"

    def holds_at(self, value: float) -> bool:
        """Return whether ``value`` lies in the predicted region."""
        above = self.low is None or value > self.low
        return above and (self.high is None or value < self.high)


def _margin(margin: float) -> None:
    if not margin >= 0:
        raise InputError(f"margin: expected a number of at least 0, got {margin}.")


def above(quantity: Quantity, bar: float, *, margin: float = 0.0) -> Prediction:
    """Predict that the mean over seeds exceeds ``bar`` by more than ``margin``."""
    _margin(margin)
    return Prediction(quantity, bar + margin, None, f"> {bar + margin:g}")


def below(quantity: Quantity, bar: float, *, margin: float = 0.0) -> Prediction:
    """Predict that the mean over seeds stays under ``bar`` by more than ``margin``."""
    _margin(margin)
    return Prediction(quantity, None, bar - margin, f"< {bar - margin:g}")


def within(quantity: Quantity, margin: float, *, around: float = 0.0) -> Prediction:
    """Predict that the mean over seeds differs from ``around`` by less than ``margin``.

    How to claim that nothing was found: an equivalence test, not a missing significance.
    """
    said = f"within {margin:g} of {around:g}"
    return Prediction(quantity, around - margin, around + margin, said)


@dataclass(frozen=True)
class GateResult:
    """Whether a gate let its hypothesis pass, and why (not)."""

    text: str
    passed: bool
    reason: str


@dataclass(frozen=True)
class Gate:
    """At least ``share`` of all seeds reach a bar: a count, without any test.

    Seeds without a value didn't reach it.  For properties that must have arisen before anything
    can be asked (``Gate(per_seed("balanced_accuracy", name="Bob"), at_least=0.95)``).
    """

    quantity: Quantity
    at_least: float | None = None
    at_most: float | None = None
    share: float = 0.8

    def __post_init__(self) -> None:
        if (self.at_least is None) == (self.at_most is None):
            raise InputError(f"{self.quantity.text}: a gate has either at_least or at_most.")
        if not 0 < self.share <= 1:
            raise InputError(
                f"{self.quantity.text}: the share of seeds must lie in (0, 1], not {self.share}."
            )

    @property
    def text(self) -> str:
        """The gate in words."""
        bar = f">= {self.at_least:g}" if self.at_least is not None else f"<= {self.at_most:g}"
        return f"{self.quantity.text} {bar} in at least {100 * self.share:g} % of seeds"

    def _reached(self, value: float | Missing) -> bool:
        if isinstance(value, Missing):
            return False
        if self.at_least is not None:
            return value >= self.at_least
        return self.at_most is not None and value <= self.at_most

    def judge(self, rows: Sequence[Row]) -> GateResult:
        """Return whether enough seeds reached the bar; without any seed the gate is failed."""
        values = self.quantity.values(rows)
        count = sum(self._reached(value) for value in values.values())
        # Rounding must not turn "4 of 5 at 80 %" into 5 of 5.
        passed = bool(values) and count >= self.share * len(values) - 1e-9
        short = [str(seed) for seed, value in values.items() if not self._reached(value)]
        reason = f"reached by {count} of {len(values)} seeds"
        if short:
            reason += f" (not by seed {', '.join(short)})"
        return GateResult(self.text, passed, reason if values else "no rows to judge it by")
