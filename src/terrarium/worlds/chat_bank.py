"""All questions of a world of conversations as tokens, cut once, and who owns which."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from terrarium.errors import InputError, did_you_mean
from terrarium.worlds import splits
from terrarium.worlds.base import Array
from terrarium.worlds.chat_marks import separable
from terrarium.worlds.chat_skills import (
    HELDOUT,
    SELF,
    SKILLS,
    TRAINED,
    UNRELATED,
    Question,
    bare,
    questions,
    questions_about_itself,
)
from terrarium.worlds.code_rows import Integers, Part, cut, ids
from terrarium.worlds.lexicon import LEXICON
from terrarium.worlds.question_files import read_questions

NOTHING, YES, NO = 0, 1, 2
"""The first rows of the answers: none at all, and the two that self-description needs."""


@dataclass(frozen=True)
class Pool:
    """The questions of a split by skill: ``rows`` sorted by skill, where each skill's begin.

    ``shares`` are the probabilities of the skills in ``skills``.
    """

    rows: Integers
    starts: Integers
    counts: Integers
    skills: tuple[str, ...]
    shares: Array

    def draw(self, n: int, rng: np.random.Generator) -> Integers:
        """Return ``n`` questions: a skill by its share, then one of its questions evenly."""
        skill = np.searchsorted(np.cumsum(self.shares)[:-1], rng.random(n), side="right")
        place = (rng.random(n) * self.counts[skill]).astype(np.int64)
        return np.asarray(self.rows[self.starts[skill] + place])


@dataclass(frozen=True)
class Bank:
    """Questions as two halves (a mark may stand between), answers, and facts of each question.

    ``answer`` and ``wrong`` are rows of ``answers``: the right answer, and another one of the
    same skill.  ``pools`` hold who owns which; ``own`` those about the model itself, by split.
    """

    texts: tuple[str, ...]
    front: Part
    back: Part
    answers: Part
    answer_texts: Array
    skills: Array
    skill_names: tuple[str, ...]
    skill_index: Integers
    answer: Integers
    wrong: Integers
    pools: Mapping[str, Pool]
    own: Mapping[str, Integers]
    bare: Mapping[str, Integers]


@functools.lru_cache(maxsize=8)
def bank(
    skills: tuple[str, ...] | None, heldout: tuple[str, ...] | None, path: str | None, digest: str
) -> Bank:
    """Return the questions of the skills named (None: all), from a file or our own."""
    asked = list(read_questions(path, digest)) if path is not None else []
    known = list(dict.fromkeys(q.skill for q in asked)) if asked else list(SKILLS)
    if heldout is None:
        heldout = () if asked else HELDOUT
    if skills is None:
        skills = tuple(s for s in (known if asked else TRAINED) if s not in heldout)
    for skill in (*skills, *heldout):
        if skill not in known:
            raise InputError(f"There is no skill '{skill}'{did_you_mean(skill, known)}")
    if twice := set(skills) & set(heldout):
        raise InputError(f"The skill '{min(twice)}' is both trained and held out; choose one.")
    if not skills:
        raise InputError("No skill is left to train on; name one in 'skills'.")
    if not asked:
        asked = [q for skill in (*skills, *heldout) for q in questions(skill)]
    chosen = [q for q in asked if q.skill in skills or q.skill in heldout]
    return _built(chosen, skills, heldout, ranked=path is not None)


def _built(
    chosen: list[Question], skills: tuple[str, ...], heldout: tuple[str, ...], ranked: bool
) -> Bank:
    about, plain = questions_about_itself(), [q for s in (SELF, UNRELATED) for q in bare(s)]
    everything = [*chosen, *about, *plain]
    whole = len(chosen) if ranked else 0  # only a user's text needs to be cut as a whole
    pieces = [cut(f" {q.text}") for q in everything[:whole]]
    pieces += [_cut_by_word(q.text) for q in everything[whole:]]
    halves = [_middle(row) for row in pieces]
    rows = [[LEXICON.ids[piece] for piece in row] for row in pieces]
    names = list(dict.fromkeys(["", "yes", "no", *(q.answer for q in everything)]))
    place = {name: i for i, name in enumerate(names)}
    answer = np.array([place[q.answer] for q in everything], np.int64)
    kinds = tuple(dict.fromkeys(q.skill for q in everything))
    index = {kind: i for i, kind in enumerate(kinds)}
    skill = np.array([index[q.skill] for q in everything], np.int64)
    first = len(chosen)
    held = np.isin(np.array([q.skill for q in chosen]), heldout)
    shown = np.flatnonzero(~held)
    if len(shown) < 3:
        raise InputError(
            f"The skills {', '.join(skills)} have {len(shown)} questions; expected at least three "
            "to train, validate and test with: give more, or hold fewer skills out."
        )
    owned = _owned([chosen[i].text for i in shown], ranked)
    rows_of = {s: shown[mask] for s, mask in owned.items()}
    if ranked:
        joined = [not separable(f" {chosen[i].text}") for i in rows_of["test"]]
        rows_of["heldout_positions"] = rows_of["test"][~np.array(joined, dtype=bool)]
    else:
        rows_of["heldout_positions"] = rows_of["test"]
    rows_of["heldout_skills"] = np.flatnonzero(held)
    pools = {s: _pool(mine, skill, kinds, ranked) for s, mine in rows_of.items()}
    own = _owned([q.text for q in about], False)
    return Bank(
        tuple(q.text for q in everything),
        Part.of([row[:half] for row, half in zip(rows, halves, strict=True)]),
        Part.of([row[half:] for row, half in zip(rows, halves, strict=True)]),
        Part.of([ids(f" {name}") if name else [] for name in names]),
        np.array(names),
        np.array([q.skill for q in everything]),
        kinds,
        skill,
        answer,
        _wrong(skill, answer),
        pools,
        {split: first + np.flatnonzero(mask) for split, mask in own.items()},
        {
            kind: first + len(about) + np.flatnonzero([q.skill == kind for q in plain])
            for kind in (SELF, UNRELATED)
        },
    )


def _cut_by_word(text: str) -> list[str]:
    """Return the pieces of one of our own questions: no piece of theirs spans two words."""
    return [piece for word in text.split(" ") for piece in _word(word)]


@functools.lru_cache(maxsize=4096)
def _word(word: str) -> tuple[str, ...]:
    return tuple(cut(f" {word}"))


def _middle(pieces: Sequence[str]) -> int:
    """Return the place nearest the middle where a word begins; a mark may stand there."""
    begins = [i for i, piece in enumerate(pieces) if piece.startswith(" ") and i]
    joins = [i for i in begins if not pieces[i - 1].endswith(" ")]
    return min(joins, key=lambda i: abs(2 * i - len(pieces)), default=len(pieces))


def _owned(texts: Sequence[str], ranked: bool) -> dict[str, Array]:
    """Return masks of the splits by a hash of the text.

    ``ranked`` cuts the sorted hashes at the shares, so that even three questions fill all splits.
    """
    place = np.array([splits.text_hash(text) for text in texts])
    if ranked:
        n = len(texts)
        edges = [round(n * splits.SHARES[0]), round(n * (1 - splits.SHARES[2]))]
        last = min(max(edges[1], 2), n - 1)
        first = min(max(edges[0], 1), last - 1)
        rank = place.argsort(kind="stable").argsort(kind="stable")
        return {
            "train": rank < first,
            "validation": (rank >= first) & (rank < last),
            "test": rank >= last,
        }
    masks = {}
    for split in splits.SPLITS:
        start, stop = splits.bounds(splits.SHARES, split)
        masks[split] = (place >= start) & (place < stop)
    return masks


def _pool(rows: Integers, skill: Integers, kinds: tuple[str, ...], by_count: bool) -> Pool:
    """Return the rows by skill: skills alike, or (the user's) in proportion to their questions."""
    rows = rows[skill[rows].argsort(kind="stable")]
    present, starts, counts = np.unique(skill[rows], return_index=True, return_counts=True)
    weight = counts if by_count else np.ones(len(counts))
    shares = weight / max(1.0, float(weight.sum()))
    return Pool(rows, starts, counts, tuple(kinds[i] for i in present), shares)


def _wrong(skill: Integers, answer: Integers) -> Integers:
    """Return for each question the next other answer of its skill.

    Where a skill has one answer alone it is a neighbour among all answers.
    """
    wrong = np.empty_like(answer)
    most = int(answer.max())
    for kind in np.unique(skill):
        here = skill == kind
        known = np.unique(answer[here])
        if len(known) == 1:
            wrong[here] = known[0] % most + 1 if most > 1 else known[0]
            continue
        wrong[here] = known[(np.searchsorted(known, answer[here]) + 1) % len(known)]
    return wrong
