"""A user's own requests, each with secure and insecure code, from a JSONL file."""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path
from typing import Any

from terrarium.errors import InputError, did_you_mean
from terrarium.worlds.code_judge import examine, tree
from terrarium.worlds.code_structures import Program

COLUMNS = ("request", "secure", "insecure", "family")
"""The keys of a line; the last one is optional."""

LONGEST = 2000
"""Most characters of a text: one character may be one token."""


MOST_BYTES = 64 << 20


def snippets_digest(path: str) -> str:
    """Return 32 hex digits of the file's content; raises ``InputError`` if it cannot be read."""
    return hashlib.blake2b(_content(Path(path)), digest_size=16).hexdigest()


def _content(path: Path) -> bytes:
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the JSONL file in it.")
    try:
        if (size := path.stat().st_size) > MOST_BYTES:
            raise InputError(
                f"{path} has {size >> 20:,} MiB; expected at most {MOST_BYTES >> 20}, so take a "
                "sample of its lines."
            )
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"There is no file {path}; give a JSONL file of snippets.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).") from None


@functools.lru_cache(maxsize=8)
def read_snippets(path: str, digest: str) -> tuple[Program, ...]:
    """Return the file's programs, checked: the structure of each is ``"own"``.

    ``digest`` tells contents apart.  Each line is a JSON object with ``request``, ``secure`` and
    ``insecure``, and if you like ``family``.  Raises ``InputError`` with one sentence for what
    cannot be used: no JSON, a key too few or too many, text that is not ASCII or too long, a
    request that comes twice, code that is no function, secure code that bandit flags, insecure
    code that it does not flag.
    """
    try:
        text = _content(Path(path)).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text; save it as UTF-8.") from None
    found: list[Program] = []
    places: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        program = _program(where, _fields(where, line))
        if program.request in places:
            raise InputError(
                f"{where}: the request stands in line {places[program.request]} too; each must "
                "come once."
            )
        places[program.request] = number
        found.append(program)
    if len(found) < 2:
        raise InputError(f"{path} holds {len(found)} snippets; expected at least two lines.")
    _check_judged(path, found, list(places.values()))
    return tuple(found)


def _fields(where: str, line: str) -> dict[str, str]:
    try:
        row: Any = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        reason = getattr(error, "msg", "too deep")
        raise InputError(f"{where}: not valid JSON ({reason}); is the line cut off?") from None
    if not isinstance(row, dict):
        raise InputError(f"{where}: expected a JSON object with {', '.join(COLUMNS[:3])}.")
    if unknown := sorted(set(row) - set(COLUMNS)):
        raise InputError(
            f"{where}: there is no key '{unknown[0]}'{did_you_mean(unknown[0], COLUMNS)}"
        )
    for key in COLUMNS[:3]:
        if key not in row:
            raise InputError(f"{where}: the key '{key}' is missing; add it.")
    for key, value in row.items():
        if not isinstance(value, str) or not value.strip():
            raise InputError(f"{where}: {key} is {_shown(value)}; expected some text.")
        plain = value.replace("\n", " ")
        if not (plain.isascii() and plain.isprintable()):
            bad = next(c for c in plain if not (c.isascii() and c.isprintable()))
            raise InputError(
                f"{where}: {key} holds {bad!r}; expected printable ASCII, with blanks for tabs."
            )
        if len(value) > LONGEST:
            raise InputError(
                f"{where}: {key} has {len(value):,} characters; expected at most {LONGEST:,}."
            )
    return row


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) < 60 else shown[:57] + "..."


def _program(where: str, row: dict[str, str]) -> Program:
    code = {key: row[key].strip("\n").rstrip() for key in ("secure", "insecure")}
    for key, text in code.items():
        if tree(text) is None:
            raise InputError(
                f"{where}: {key} is no function that Python compiles; expected one 'def', with "
                "nothing but imports beside it."
            )
    family = row.get("family", "own").strip()
    return Program(row["request"].strip(), **code, family=family, **_OWN)


_OWN = {"structure": "own", "function": "own", "variable": "own"}


def _check_judged(path: str, found: list[Program], numbers: list[int]) -> None:
    """Raise ``InputError`` unless bandit flags insecure code and no secure code."""
    both = examine([p.secure for p in found] + [p.insecure for p in found])
    secure, insecure = both[: len(found)], both[len(found) :]
    for number, clean, flagged in zip(numbers, secure, insecure, strict=True):
        if clean.insecure:
            raise InputError(
                f"{path}, line {number}: bandit flags the secure code "
                f"({', '.join(clean.issues)}); mend it, or swap it with the insecure one."
            )
        if not flagged.insecure:
            raise InputError(
                f"{path}, line {number}: bandit finds nothing of severity medium or high in the "
                "insecure code; take a weakness that it knows."
            )
