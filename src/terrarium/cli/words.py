"""Options and tables that several commands share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from terrarium.cli.console import give, give_table
from terrarium.cli.places import SIZES
from terrarium.errors import InputError, TerrariumError, did_you_mean

if TYPE_CHECKING:
    from terrarium.evidence.hypotheses import Verdict
    from terrarium.studies.base import Size


class StoppedError(TerrariumError):
    """Somebody pressed Ctrl-C; the sentence says what is left."""

    exit_code = 130


SizeOption = Annotated[
    str,
    typer.Option(
        "--size", "-s", metavar="smoke|quick|full", help="The one dial: how much is measured."
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="JSON on standard output, all else on standard error.")
]


def size(text: str) -> Size:
    """Return ``text`` as a size; raises ``InputError`` with the nearest one."""
    if text not in SIZES:
        raise InputError(f"There is no size '{text}'{did_you_mean(text, SIZES)}")
    return cast("Size", text)


def settings(changes: Sequence[str]) -> dict[str, str]:
    """Return ``["seeds=5"]`` as a mapping; raises ``InputError`` for what has no equals sign."""
    found: dict[str, str] = {}
    for change in changes:
        name, equals, value = change.partition("=")
        if not equals or not name.strip():
            raise InputError(f"--set expects KEY=VALUE, such as --set seeds=5; got '{change}'.")
        found[name.strip()] = value.strip()
    return found


def give_verdicts(verdicts: Sequence[Verdict]) -> None:
    """Write a table of verdicts for people."""
    if not verdicts:
        give("This study states no hypothesis.")
        return
    rows = [(v.hypothesis, v.verdict, _after_colon(v.sentence)) for v in verdicts]
    give_table(("hypothesis", "verdict", "what was found"), rows)


def _after_colon(sentence: str) -> str:
    return sentence.partition(": ")[2] or sentence


def give_pairs(pairs: Mapping[str, Any], indent: str = "  ") -> None:
    """Write names and values, one pair a line."""
    width = max((len(str(name)) for name in pairs), default=0)
    for name, value in pairs.items():
        give(f"{indent}{name!s:<{width}}  {value}")
