"""What differs between two specs, as a sentence for people."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from terrarium.keys import canonical_json

_ABSENT = object()


def difference(spec_a: Any, spec_b: Any, *, most: int = 5) -> str:
    """Return a readable sentence about what differs between two specs, ``""`` if nothing does.

    Both are compared as their canonical JSON (pydantic models in full), place by place:
    ``"phases[1].lr is 0.003 in the first and 0.001 in the second"``.  At most ``most`` places
    are named; the rest are counted.
    """
    places = list(_places(plain(spec_a), plain(spec_b), ""))
    if not places:
        return ""
    told = "; ".join(places[:most])
    more = len(places) - most
    return f"{told}; and {more} more" if more > 0 else told


def plain(spec: Any) -> Any:
    """Return ``spec`` as the JSON it is keyed by (tuples become lists, models become dicts)."""
    return json.loads(canonical_json(spec))


def _places(a: Any, b: Any, where: str) -> Iterator[str]:
    if isinstance(a, dict) and isinstance(b, dict):
        for name in sorted({*a, *b}):
            below = f"{where}.{name}" if where else name
            yield from _places(a.get(name, _ABSENT), b.get(name, _ABSENT), below)
    elif isinstance(a, list) and isinstance(b, list):
        for at in range(max(len(a), len(b))):
            left = a[at] if at < len(a) else _ABSENT
            right = b[at] if at < len(b) else _ABSENT
            yield from _places(left, right, f"{where}[{at}]")
    elif _json(a) != _json(b):
        yield _told(a, b, where or "the whole")


def _told(a: Any, b: Any, where: str) -> str:
    if a is _ABSENT:
        return f"{where} is only in the second ({_short(b)})"
    if b is _ABSENT:
        return f"{where} is only in the first ({_short(a)})"
    return f"{where} is {_short(a)} in the first and {_short(b)} in the second"


def _json(value: Any) -> str:
    # As text, because in Python 1 == True == 1.0, while in a key they differ.
    return "" if value is _ABSENT else json.dumps(value, sort_keys=True)


def _short(value: Any, most: int = 60) -> str:
    text = _json(value)
    return text if len(text) <= most else f"{text[: most - 1]}…"
