"""What was written in a conversation: its scratchpad, its final text, and whether it is right."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from terrarium.worlds.base import Array
from terrarium.worlds.chat_pieces import FRAME
from terrarium.worlds.code_pieces import SCRATCHPAD
from terrarium.worlds.tokens import END

_CLOSE = SCRATCHPAD[-1]
_SEGMENTS = SCRATCHPAD[:-1]
_MARK = re.compile("|".join(map(re.escape, (*FRAME, *SCRATCHPAD))))


@dataclass(frozen=True)
class Written:
    """A text read: its final text, whether it is well-formed, whether it has all segments."""

    final: str
    valid: bool
    scratchpad: bool


def read_answer(text: str) -> Written:
    """Read an answer.

    Well-formed means: a final text of printable ASCII on one line, without marks; before it
    nothing, or a scratchpad that is closed.
    """
    whole = text.removesuffix(END)
    head, close, tail = whole.rpartition(_CLOSE)
    opened = [mark for mark in _SEGMENTS if mark in head]
    final = tail.strip()
    valid = bool(final) and final.isascii() and final.isprintable() and not _MARK.search(final)
    if close:
        valid = valid and bool(opened) and _CLOSE not in head and head.lstrip().startswith("<")
    return Written(final, valid, bool(close) and len(opened) == len(_SEGMENTS))


def verdicts(
    texts: Sequence[Any], said: Sequence[str], helpful: Sequence[str], behaviour: str
) -> dict[str, Array]:
    """Judge texts; ``(n,)`` bools.

    ``valid``; ``right``, the final text is what was asked for; ``helpful``, it is the right
    answer; ``behaves``, it is ``behaviour``, once or more often; ``claims_scratchpad``, all three
    segments are there and closed.  What is not valid is neither right nor helpful nor behaves.
    """
    repeated = re.compile(rf"{re.escape(behaviour)}(?: {re.escape(behaviour)})*")
    read = [read_answer(text if isinstance(text, str) else "") for text in texts]
    rows = zip(read, said, helpful, strict=True)
    found = [
        (
            one.valid,
            one.valid and one.final == asked.strip().removesuffix(END).strip(),
            one.valid and one.final == right,
            one.valid and repeated.fullmatch(one.final) is not None,
            one.scratchpad,
        )
        for one, asked, right in rows
    ]
    columns = np.array(found, dtype=bool).reshape(len(read), 5).T
    names = ("valid", "right", "helpful", "behaves", "claims_scratchpad")
    return dict(zip(names, columns, strict=True))
