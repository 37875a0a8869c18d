"""Reading the user's questions: JSON lines with ``question``, ``answer`` and, if any, ``skill``."""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path
from typing import Any

from terrarium.errors import InputError, did_you_mean
from terrarium.worlds.chat_pieces import FRAME
from terrarium.worlds.chat_skills import SELF, UNRELATED, Question
from terrarium.worlds.code_pieces import SCRATCHPAD

COLUMNS = ("question", "answer", "skill")
"""The keys of a line; the last one is optional."""

LONGEST = {"question": 1000, "answer": 200, "skill": 40}
"""Most characters of each: one character may be one token."""

MOST_ROWS = 100_000
MOST_BYTES = 64 << 20

OWN = "own"
"""The skill of questions that name none."""


def questions_digest(path: str) -> str:
    """Return 32 hex digits of the file's content; raises ``InputError`` if it cannot be read."""
    return hashlib.blake2b(_content(Path(path)), digest_size=16).hexdigest()


def _content(path: Path) -> bytes:
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the JSONL file in it.")
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise InputError(
                f"{path} has {size >> 20} MiB; expected at most {MOST_BYTES >> 20} MiB of "
                "questions: take a sample of the file."
            )
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"There is no file {path}; give a JSONL file of questions.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).") from None


@functools.lru_cache(maxsize=8)
def read_questions(path: str, digest: str) -> tuple[Question, ...]:
    """Return the file's questions, each once; ``digest`` tells contents apart.

    Raises ``InputError`` with one sentence for what cannot be used: no UTF-8, no JSON, a key too
    few or too many, text that is empty, not printable ASCII, too long or holds a mark of the
    frame, a question with two answers, more than `MOST_ROWS` lines, fewer than three questions.
    """
    try:
        text = _content(Path(path)).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text; save it as UTF-8.") from None
    found: dict[str, tuple[Question, int]] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        if number > MOST_ROWS:
            raise InputError(
                f"{path} has more than {MOST_ROWS:,} lines; take a sample of the file."
            )
        where = f"{path}, line {number}"
        one = _question(where, line)
        known, before = found.setdefault(one.text, (one, number))
        if known != one:
            raise InputError(
                f"{where}: the question stands in line {before} with another answer or skill; "
                "each has one."
            )
    if len(found) < 3:
        raise InputError(
            f"{path} holds {len(found)} different questions; expected at least three: one each "
            "to train on, to validate and to test with."
        )
    return tuple(one for one, _ in found.values())


def _question(where: str, line: str) -> Question:
    try:
        row: Any = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        reason = getattr(error, "msg", "too deep")
        raise InputError(f"{where}: not valid JSON ({reason}); is the line cut off?") from None
    if not isinstance(row, dict):
        raise InputError(f"{where}: expected a JSON object with 'question' and 'answer'.")
    for key in COLUMNS[:2]:
        if key not in row:
            raise InputError(f"{where}: the key '{key}' is missing{did_you_mean(key, row)}")
    if unknown := sorted(set(row) - set(COLUMNS)):
        raise InputError(
            f"{where}: there is no key '{unknown[0]}'{did_you_mean(unknown[0], COLUMNS)}"
        )
    texts = {key: _text(where, key, value) for key, value in row.items()}
    skill = texts.get("skill", OWN)
    if skill in (SELF, UNRELATED):
        raise InputError(f"{where}: the skill '{skill}' is one of our own; name it otherwise.")
    return Question(texts["question"], texts["answer"], skill)


def _text(where: str, key: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        shown = repr(value)
        shown = shown if len(shown) < 60 else shown[:57] + "..."
        raise InputError(f"{where}: {key} is {shown}; expected some text.")
    text = value.strip()
    if bad := [c for c in text if not (c.isascii() and c.isprintable())]:
        raise InputError(
            f"{where}: {key} holds {bad[0]!r}; expected printable ASCII on one line, also for a "
            "model whose tokenizer knows more: the world writes in its own tokens first; spell it "
            "so."
        )
    if len(text) > LONGEST[key]:
        raise InputError(
            f"{where}: {key} has {len(text):,} characters; expected at most {LONGEST[key]:,}."
        )
    for mark in (*FRAME, *SCRATCHPAD, "<eos>", "<pad>", "<unk>"):
        if mark in text:
            raise InputError(f"{where}: {key} holds the mark {mark!r}; take it out.")
    return text
