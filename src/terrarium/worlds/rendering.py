"""From numbers, names and templates to rows of tokens, whole batches at once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from terrarium.worlds import names, templates
from terrarium.worlds.choice import TRUE_FALSE
from terrarium.worlds.tokens import ClosedVocabulary

Integers = NDArray[np.int64]

OPERATORS = {
    "addition": " + ",
    "subtraction": " - ",
    "multiplication": " * ",
    "modular_addition": " +mod ",
    "squaring": "^2",
}

VOCABULARY = ClosedVocabulary(
    (
        *TRUE_FALSE,
        *"0123456789+-.",
        *templates.LITERALS,
        *OPERATORS.values(),
        *names.pieces(),
    )
)
"""One vocabulary for all arithmetic worlds, so that weights carry from any to any other."""

_ZERO, _PLUS, _MINUS, _STOP = (VOCABULARY.ids[token] for token in "0+-.")
ANSWER_TOKENS = tuple(VOCABULARY.ids[answer] for answer in TRUE_FALSE)
_NAME_TOKENS = np.array(
    [[VOCABULARY.ids[n[0]], VOCABULARY.ids[n[1:]]] for n in map(str, names.ALL_NAMES)]
)


@dataclass(frozen=True)
class Renderer:
    """Writes rows of one world.

    ``operand`` and ``claim`` are digits, each zero-padded to that width; subtraction's claims
    have a sign besides, at their most significant end.  ``most_significant_last`` writes digits
    in the order in which they are carried.
    """

    operation: str
    operand: int
    claim: int
    most_significant_last: bool

    @cached_property
    def layout(self) -> templates.Layout:
        """Where everything stands."""
        widths = {
            "a": self.operand,
            "b": 0 if self.operation == "squaring" else self.operand,
            "claim": self.claim + (self.operation == "subtraction"),
            "name": 2,
            "answer": 1,
            "end": 1,
        }
        return templates.lay_out(widths, OPERATORS[self.operation])

    @cached_property
    def _constants(self) -> Integers:
        ids = {**VOCABULARY.ids, templates.IGNORED: -100}
        return np.array([_STOP, *(ids[text] for text in self.layout.constants)])

    def tokens(
        self,
        numbers: dict[str, Integers],
        name: Integers,
        template: Integers,
        said: NDArray[np.bool_],
    ) -> tuple[Integers, Integers]:
        """Return inputs and targets, both ``(n, t)``.

        ``numbers`` are ``a``, ``b`` and ``claim``; ``name`` and ``template`` index
        ``names.ALL_NAMES`` and ``templates.ALL_TEMPLATES``.
        """
        layout = self.layout
        answer = layout.starts["answer"]
        parts = np.empty((len(name), answer + 1 + len(self._constants)), np.int64)
        for slot, value in numbers.items():
            start, first = layout.starts[slot], layout.spans[slot][0]
            self._write(parts[:, start : start + first[1] - first[0]], value, slot)
        parts[:, answer - 2 : answer] = _NAME_TOKENS[name]
        parts[:, answer] = np.where(said, *ANSWER_TOKENS)
        parts[:, answer + 1 :] = self._constants
        width = int(layout.lengths[template].max(initial=0))
        if (template == template[:1]).all():  # one template for all rows: plain column picking
            one = template[:1]
            columns = layout.gather[one, :width].ravel(), layout.targets[one, :width].ravel()
            return parts[:, columns[0]], parts[:, columns[1]]
        row = np.arange(len(template))[:, None]
        inputs = parts[row, layout.gather[template, :width]]
        return inputs, parts[row, layout.targets[template, :width]]

    def _write(self, columns: Integers, value: Integers, slot: str) -> None:
        """Write ``value`` into ``columns`` ``(n, w)`` digit by digit."""
        order = list(range(columns.shape[1]))
        if not self.most_significant_last:
            order.reverse()
        rest = value
        if slot == "claim" and self.operation == "subtraction":
            columns[:, order.pop()] = np.where(value < 0, _MINUS, _PLUS)
            rest = np.abs(value)
        for column in order:
            upper = rest // 10
            columns[:, column] = rest - 10 * upper + _ZERO
            rest = upper
