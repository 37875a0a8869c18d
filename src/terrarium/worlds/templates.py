"""How an arithmetic statement is laid out in tokens: six templates, two of them held out.

Four templates are for training, compact ones for small models and ones with words, each with the
name after the equation and before it.  The two held-out ones put known tokens in a new order, so
that a failure there is one of structure and not of untrained embeddings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from terrarium.worlds.tokens import END, PAD

Template = Literal["compact", "compact_name_first", "equation", "equation_name_first"]

TRAINING: tuple[Template, ...] = (
    "compact",
    "compact_name_first",
    "equation",
    "equation_name_first",
)
HELD_OUT = ("echo", "echo_name_first")
ALL_TEMPLATES = np.array([*TRAINING, *HELD_OUT])

# One string per part; "a", "b", "claim" and "name" are slots, the others literal tokens.
# "operator" becomes the operation's own token.
_LAYOUTS: dict[str, tuple[str, ...]] = {
    "compact": ("a", "b", "claim", "name"),
    "compact_name_first": ("name", "a", "b", "claim"),
    "equation": ("a", "operator", "b", " = ", "claim", ", ", "says ", "name"),
    "equation_name_first": ("says ", "name", ": ", "a", "operator", "b", " = ", "claim"),
    "echo": ("a", "operator", "b", " = ", "claim", ": ", "name"),
    "echo_name_first": ("name", ", ", "a", "operator", "b", " = ", "claim"),
}

LITERALS = (" = ", ", ", "says ", ": ", "?")
"""Words and punctuation of the statements."""

SLOTS = ("a", "b", "claim", "name", "answer", "end")
IGNORED = "<ignored>"


@dataclass(frozen=True)
class Layout:
    """All templates of one world, ready for assembling whole batches at once.

    Attributes
    ----------
    gather:
        ``(template, t)`` int64: which column of the row's parts stands at each position.
    targets:
        The same for the token that comes next; the column of `IGNORED` where nothing does.
    spans:
        Slot to ``(template, 2)`` int64 half-open ranges; empty where a template lacks the slot.
    lengths:
        ``(template,)`` int64 tokens of a row, answer and end included.
    starts:
        Slot to the column of the row's parts where its tokens begin.
    constants:
        Literal tokens, in the order of the columns that follow the slots'.
    """

    gather: NDArray[np.int64]
    targets: NDArray[np.int64]
    spans: dict[str, NDArray[np.int64]]
    lengths: NDArray[np.int64]
    starts: dict[str, int]
    constants: tuple[str, ...]


def lay_out(widths: dict[str, int], operator: str) -> Layout:
    """Return the layout for slots of ``widths`` tokens (0 for a slot that is not there)."""
    starts = dict(zip(SLOTS, np.cumsum([0, *(widths[s] for s in SLOTS)]).tolist(), strict=False))
    constants = (*LITERALS, operator, PAD, END, IGNORED)
    column = {text: i for i, text in enumerate(constants, sum(widths.values()))}
    rows, spans = [], {slot: np.zeros((len(_LAYOUTS), 2), np.int64) for slot in SLOTS}
    for t, parts in enumerate(_LAYOUTS.values()):
        row: list[int] = []
        for part in (*parts, "?", "answer", "end"):
            if part in widths:
                spans[part][t] = len(row), len(row) + widths[part]
                row += range(starts[part], starts[part] + widths[part])
            else:
                row.append(column[operator if part == "operator" else part])
        rows.append(row)
    shape = (len(rows), max(map(len, rows)))
    gather, targets = np.full(shape, column[PAD]), np.full(shape, column[IGNORED])
    for t, row in enumerate(rows):
        gather[t, : len(row)] = row
        targets[t, : len(row)] = [*row[1:], column[END]]
    return Layout(gather, targets, spans, np.array([len(r) for r in rows]), starts, constants)
