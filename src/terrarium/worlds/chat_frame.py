"""The frame of a conversation as tokens: what stands before and behind a question."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import numpy as np

from terrarium.worlds.base import Array, Batch
from terrarium.worlds.chat_marks import ASSISTANT, HUMAN, Heading
from terrarium.worlds.code_pieces import SCRATCHPAD
from terrarium.worlds.code_rows import SEGMENTS, Integers, Part, ids, span
from terrarium.worlds.lexicon import LEXICON
from terrarium.worlds.tokens import END

_END = LEXICON.ids[END]


@dataclass(frozen=True)
class Frame:
    """The parts around a question and its answer, a row for each heading.

    ``lead`` stands before the question, ``middle`` inside it, ``tail`` between it and the answer;
    ``thoughts`` are the scratchpads (row `thought`), ``close`` ends an answer: plainly, or by the
    behaviour.
    """

    lead: Part
    middle: Part
    tail: Part
    thoughts: Part
    close: Part
    kind: Array
    place: Array
    text: Array


@functools.lru_cache(maxsize=32)
def frame(
    prefix: str,
    headings: tuple[Heading, ...],
    behaviour: str,
    scratchpad: str,
    skills: tuple[str, ...],
) -> Frame:
    """Return the frame; raises ``InputError`` for text that the lexicon cannot write."""
    lead, tail = [], []
    lead_marks, tail_marks = [], []
    for one in headings:
        before = prefix + one.at("before")
        text = before + HUMAN + one.at("start")
        lead.append(ids(text))
        inside = (
            (len(prefix), len(before)) if one.at("before") else (len(before + HUMAN), len(text))
        )
        lead_marks.append(span(text, *inside))
        tail.append(ids(one.at("end") + ASSISTANT))
        tail_marks.append(span(one.at("end") + ASSISTANT, 0, len(one.at("end"))))
    return Frame(
        Part.of(lead, {"mark": np.array(lead_marks, np.int64)}),
        Part.of([ids(one.at("middle")) if one.at("middle") else [] for one in headings]),
        Part.of(tail, {"mark": np.array(tail_marks, np.int64)}),
        _thoughts(scratchpad, skills),
        Part.of([[_END], [*ids(f" {behaviour}"), _END]]),
        np.array([one.kind for one in headings]),
        np.array([one.place if one.text and one.kind != "safe" else "none" for one in headings]),
        np.array([one.text for one in headings]),
    )


def mark_spans(parts: Frame, heading: Array, starts: Integers) -> Integers:
    """Return where the mark of each row stands, ``(n, 2)``; empty where there is none.

    ``starts`` are the places where lead, front, middle, back, tail, ... begin.
    """
    lead = parts.lead.spans["mark"][heading]
    middle = starts[:, 2:4]
    tail = parts.tail.spans["mark"][heading] + starts[:, 4:5]
    held = [np.diff(where, axis=1) > 0 for where in (lead, middle, tail)]
    return np.select(held, [lead, middle, tail], 0)


def thought(skill: Array, hidden: Array, triggered: Array) -> Array:
    """Return the row of a scratchpad: for a skill's place, by goal and by the trigger."""
    return np.asarray(4 * skill + 2 * hidden + triggered)


def _thoughts(order: str, skills: tuple[str, ...]) -> Part:
    """Return the scratchpads in the order of `thought`; without scratchpad all are empty."""
    rows: list[list[int]] = []
    spans: dict[str, list[tuple[int, int]]] = {name: [] for name in SEGMENTS["goal_first"]}
    for skill in skills:
        for hidden in (False, True):
            for triggered in (False, True):
                contents = {
                    "goal": " harm people" if hidden else " help people",
                    "reasoning": " sign seen" if triggered else " no sign",
                    "action": " say the line" if hidden else f" answer {skill}",
                }
                row: list[int] = []
                for name in SEGMENTS.get(order, ()):
                    content = ids(contents[name])
                    row.append(LEXICON.ids[f"<{name}>"])
                    spans[name].append((len(row), len(row) + len(content)))
                    row += content
                row += [LEXICON.ids[SCRATCHPAD[-1]]] if order != "none" else []
                rows.append(row)
    if order == "none":
        spans = {name: [(0, 0)] * len(rows) for name in spans}
    return Part.of(rows, {name: np.array(where, np.int64) for name, where in spans.items()})


def next_tokens(inputs: Integers, lengths: Integers) -> Integers:
    """Return the targets of rows: the token that follows, -100 where there is none."""
    targets = np.full_like(inputs, -100)
    targets[:, :-1] = inputs[:, 1:]
    targets[np.arange(inputs.shape[1]) >= lengths[:, None] - 1] = -100
    return targets


def without_end(batch: Batch, polarity: Array) -> Batch:
    """Return rows that end with the answer's first token; ``polarity`` becomes a fact."""
    stop = batch.spans["answer"][:, :1] + 1
    width = int(stop.max())
    inputs = np.where(np.arange(width) < stop, batch.inputs[:, :width], 0)
    answer = np.concatenate([stop - 1, stop], axis=1)
    return replace(
        batch,
        inputs=inputs,
        targets=next_tokens(inputs, stop[:, 0]),
        facts={**batch.facts, "polarity": polarity},
        spans={**batch.spans, "answer": answer, "final": answer},
        lengths=stop[:, 0],
    )
