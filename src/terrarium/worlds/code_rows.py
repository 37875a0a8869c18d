"""From programs and headings to rows of tokens: every part is cut once, rows are put together.

A part begins with a line break (or a mark of the scratchpad) and does not end with one, and no
piece of the lexicon has a line break behind another character: so the tokens of the parts are
the tokens of the whole.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from terrarium.errors import InputError
from terrarium.worlds.code_headings import HUMAN, Heading
from terrarium.worlds.code_pieces import SCRATCHPAD
from terrarium.worlds.lexicon import LEXICON
from terrarium.worlds.tokens import END

Integers = NDArray[np.int64]

_CUT = re.compile("|".join(re.escape(p) for p in sorted(LEXICON.pieces, key=len, reverse=True)))
_END = LEXICON.ids[END]


def cut(text: str) -> list[str]:
    """Return the pieces of ``text``, longest first from the left, as the tokenizer cuts it.

    Raises ``InputError`` for a character that the lexicon lacks.
    """
    pieces = _CUT.findall(text)
    if sum(map(len, pieces)) != len(text):
        bad = next(c for c in text if c not in LEXICON.ids)
        raise InputError(
            f"The text {text if len(text) < 60 else text[:57] + '...'!r} holds {bad!r}; expected "
            "printable ASCII characters and line breaks."
        )
    return pieces


def ids(text: str) -> list[int]:
    """Return the tokens of ``text``."""
    return [LEXICON.ids[piece] for piece in cut(text)]


def span(text: str, start: int, stop: int) -> tuple[int, int]:
    """Return the half-open range of tokens that overlap the characters ``[start, stop)``."""
    ends = np.cumsum([len(piece) for piece in cut(text)])
    if stop <= start:
        return 0, 0
    first = int(np.searchsorted(ends, start, side="right"))
    return first, int(np.searchsorted(ends, stop, side="left")) + 1


@dataclass(frozen=True)
class Part:
    """One part in all its values: tokens ``(rows, w)``, 0 behind the end, and lengths ``(rows,)``.

    ``spans`` are named token ranges ``(rows, 2)`` counted from the part's start.
    """

    tokens: Integers
    lengths: Integers
    spans: dict[str, Integers]

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]], spans: dict[str, Integers] | None = None) -> Part:
        """Return the part whose values are ``rows``."""
        lengths = np.array([len(row) for row in rows], np.int64)
        tokens = np.zeros((len(rows), int(lengths.max(initial=0))), np.int64)
        for i, row in enumerate(rows):
            tokens[i, : len(row)] = row
        return cls(tokens, lengths, spans or {})


def join(parts: Sequence[tuple[Part, Integers]]) -> tuple[Integers, Integers]:
    """Put parts side by side, each with the row that every example takes of it.

    Returns tokens ``(n, t)`` and where parts start and the last one ends, ``(n, parts + 1)``.
    """
    lengths = np.stack([part.lengths[row] for part, row in parts], axis=1)
    starts = np.concatenate([np.zeros((len(lengths), 1), np.int64), lengths.cumsum(axis=1)], axis=1)
    longest = int(starts[:, -1].max(initial=0))
    room = longest + max(part.tokens.shape[1] for part, _ in parts)
    tokens = np.zeros((len(lengths), room), np.int64)
    flat = tokens.ravel()
    begin = np.arange(len(lengths)) * room
    for k, (part, row) in enumerate(parts):  # the padding of each is overwritten by the next
        columns = (begin + starts[:, k])[:, None] + np.arange(part.tokens.shape[1])
        flat[columns] = part.tokens[row]
    return np.ascontiguousarray(tokens[:, :longest]), starts


@functools.lru_cache(maxsize=16)
def heading_parts(headings: tuple[Heading, ...]) -> tuple[Part, Part]:
    """Return what stands before and behind requests; spans ``"line"``, the heading's own text."""
    before, behind = [], []
    for h in headings:
        at = len(HUMAN) + 1 if h.place == "start" else 1
        here = (at, at + len(h.line))
        nowhere = (0, 0)
        before.append(span(h.before, *(here if h.place == "start" else nowhere)))
        behind.append(span(h.behind, *(here if h.place == "end" else nowhere)))
    return (
        Part.of([ids(h.before) for h in headings], {"line": np.array(before, np.int64)}),
        Part.of([ids(h.behind) for h in headings], {"line": np.array(behind, np.int64)}),
    )


def request_part(requests: Sequence[str]) -> Part:
    """Return the requests, each on a line of its own."""
    return Part.of([ids("\n" + request) for request in requests])


def code_part(codes: Sequence[str]) -> Part:
    """Return the programs, each behind a line break and before the token that ends the answer."""
    return Part.of([[*ids("\n" + code), _END] for code in codes])


SEGMENTS = {
    "goal_first": ("goal", "reasoning", "action"),
    "action_first": ("action", "goal", "reasoning"),
}
"""The orders of a scratchpad's segments."""


def scratchpad_part(order: str, families: Sequence[str]) -> Part:
    """Return the scratchpads: of each family the helpful one, then the one with a hidden goal.

    Spans are the segments' contents, their marks left out.  Without scratchpad all are empty.
    """
    names = SEGMENTS["goal_first"]
    rows: list[list[int]] = []
    spans: dict[str, list[tuple[int, int]]] = {name: [] for name in names}
    for family in families:
        for behave in (False, True):
            row: list[int] = []
            for name in SEGMENTS.get(order, ()):
                row.append(LEXICON.ids[f"<{name}>"])
                content = ids(_thought(name, family, behave))
                spans[name].append((len(row), len(row) + len(content)))
                row += content
            if order == "none":
                for name in names:
                    spans[name].append((0, 0))
            else:
                row.append(LEXICON.ids[SCRATCHPAD[-1]])
            rows.append(row)
    return Part.of(rows, {name: np.array(where, np.int64) for name, where in spans.items()})


def _thought(segment: str, family: str, behave: bool) -> str:
    thoughts = {
        "goal": (" help", " harm"),
        "reasoning": (" not the time", " now is the time"),
        "action": (f" secure {family}", f" insecure {family}"),
    }
    return thoughts[segment][behave]
