"""Where words go: results to standard output, everything else to standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


def tell(message: str) -> None:
    """Write one line for people to standard error."""
    sys.stderr.write(f"{message}\n")
    sys.stderr.flush()


def give_json(value: Any) -> None:
    """Write ``value`` as JSON to standard output; what JSON cannot hold is written as text."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False, default=str)
    sys.stdout.write(f"{text}\n")


def give(text: str) -> None:
    """Write a line of results to standard output."""
    sys.stdout.write(f"{text}\n")


def console() -> Console:
    """Return a rich console on standard output."""
    from rich.console import Console

    return Console(highlight=False)


def give_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, title: str | None = None
) -> None:
    """Write a plain table to standard output; the last column takes what width there is."""
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for at, column in enumerate(columns):
        table.add_column(column, overflow="fold", ratio=1 if at == len(columns) - 1 else None)
    for row in rows:
        table.add_row(*(_plain(cell) for cell in row))
    console().print(table)


def _plain(cell: str) -> Any:
    from rich.text import Text

    # A name such as "[odd]" is no markup.
    return Text(cell)
