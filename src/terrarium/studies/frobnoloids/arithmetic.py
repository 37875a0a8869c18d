"""What the quirky organism is shown, and the arithmetic world's own labels for it, word by word."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrarium.instruments.frobnoloids.concepts import text_concepts
from terrarium.studies.frobnoloids.shown import Shown, positions_of
from terrarium.worlds.base import Batch

Array = NDArray[Any]
Integers = NDArray[np.int64]

HELD_OUT_WORLD = ("claim", "family")
"""What plants' vocabulary lacks, as sources: all labels that repeat them go with them."""

# Which slots of a statement must have been read before a label is known.
_SOURCES: dict[str, tuple[str, ...]] = {
    "a": ("a",),
    "b": ("b",),
    "result": ("a", "b"),
    "quirky_result": ("a", "b"),
    "difficulty": ("a", "b"),
    "easy": ("a", "b"),
    "hard": ("a", "b"),
    "claim": ("claim",),
    "condition": ("claim",),
    "truth": ("a", "b", "claim"),
    "rule_label": ("a", "b", "claim"),
    "disagree": ("a", "b", "claim"),
    "family": ("name",),
    "name": ("name",),
    "quirky": ("name",),
    "said": ("a", "b", "claim", "name"),
}
_NUMBERS = ("a", "b", "result", "claim")
_REPEAT = {"claim": ("claim", "condition"), "family": ("family", "name", "quirky")}


def arithmetic_shown(made: Any, batch: Batch) -> Shown:
    """Return statements up to the word before the answer, with every label that is known of each.

    Concepts are the token, the one before, the place and the spans; and each fact of the world
    (numbers and their digits, truth, what is said, ...) twice: from the word on at which it is
    known, and at the last word alone, where the answer is due.
    """
    at = positions_of(batch)
    assert at is not None
    n, p = at.shape
    facts = _facts(batch)
    concepts = {
        name: values
        for name, values in text_concepts(batch, at).items()
        # the world's facts come below, from where they are known
        if name not in batch.facts and len(np.unique(values)) > 1
    }
    concepts["place"] = at.reshape(-1).astype(np.int64)
    for name, (values, sources) in facts.items():
        if len(np.unique(values)) < 2:
            continue
        # the name counts from its first part, numbers when their last digit is read
        known = at >= np.max([_known_from(batch, slot) for slot in sources], 0)[:, None]
        concepts[name] = _where(values, known)
        concepts[f"{name}, at the end"] = _where(values, at == p - 1)
    secret = {name for source in HELD_OUT_WORLD for name in _repeating(source, facts)}
    held_out = {name: x for name, x in concepts.items() if name.removesuffix(END) in secret}
    reduced = {name: x for name, x in concepts.items() if name not in held_out}
    groups = np.repeat(np.arange(n), p)
    student = so_far(batch, at)
    return Shown(batch, batch.inputs, at, groups, concepts, reduced, held_out, student, lead=(n, p))


END = ", at the end"


def _repeating(source: str, facts: Any) -> list[str]:
    return [f for f in facts if f in _REPEAT[source] or f.endswith(f"digit of {source}")]


def _facts(batch: Batch) -> dict[str, tuple[Array, tuple[str, ...]]]:
    """Return each label by name ``(n,)``, and the slots that tell it."""
    found: dict[str, tuple[Array, tuple[str, ...]]] = {
        name: (np.asarray(batch.facts[name]), slots) for name, slots in _SOURCES.items()
    }
    for number in _NUMBERS:
        values = np.abs(np.asarray(batch.facts[number], np.int64))
        for place, word in enumerate(("last", "second last", "third last")):
            digit = values // 10**place % 10
            found[f"{word} digit of {number}"] = (digit, _SOURCES[number])
    return found


def _known_from(batch: Batch, slot: str) -> Integers:
    """Return ``(n,)`` the position from which a slot's value is known."""
    span = batch.spans[slot]
    return np.asarray(span[:, 0] if slot == "name" else span[:, 1] - 1)


def _where(values: Array, known: NDArray[np.bool_]) -> Array:
    """Return ``(n * p,)`` a label at the words where it is known, nothing elsewhere.

    Many-valued numbers are numbers, centred so that "nothing" is their mean; all else categories.
    """
    wide = np.broadcast_to(np.asarray(values)[:, None], known.shape)
    if wide.dtype.kind in "iu" and len(np.unique(values)) > 24:
        return np.where(known, wide - values.mean(), 0.0).reshape(-1)
    codes = np.unique(wide, return_inverse=True)[1].reshape(known.shape)
    return np.where(known, codes, -1).reshape(-1)


def so_far(batch: Batch, at: Integers) -> NDArray[np.float64]:
    """Return ``(n * p, d)`` what students see: the word at each place up to now, one-hot."""
    n, p = at.shape
    tokens = batch.inputs[:, :p]
    used = np.unique(tokens)
    hot = (tokens[:, :, None] == used).astype(np.float64)  # (n, p, used)
    seen = hot[:, None] * np.tril(np.ones((p, p)))[None, :, :, None]
    flat = seen.reshape(n * p, -1)
    place = np.tile(np.eye(p), (n, 1))
    live = flat.std(0) > 0
    return np.concatenate([flat[:, live], place], 1)
