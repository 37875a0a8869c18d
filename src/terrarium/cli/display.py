"""Progress on the screen: one line with the time left, or plain lines where there is no screen."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TextIO

from terrarium.progress import Pace

PLAIN_EVERY_S = 15.0
"""Seconds between two lines where standard error is no terminal."""
PLAIN_FIRST_S = 1.0
"""Seconds until the first of them."""
NOTE = 90
"""Characters of a note that are shown."""


def words_for(seconds: float | None) -> str:
    """Return ``"about 40 s left"``; without an estimate, that there is none yet."""
    if seconds is None:
        return "time left not known yet"
    whole = max(1, round(seconds))
    if whole < 60:
        return f"about {whole} s left"
    if whole < 3600:
        return f"about {whole // 60} min {whole % 60:02d} s left"
    return f"about {whole // 3600} h {whole % 3600 // 60:02d} min left"


def _cut(note: str) -> str:
    return note if len(note) <= NOTE else f"{note[: NOTE - 1]}…"


class Display:
    """A `terrarium.progress.Progress` that shows all tasks together, with the time left.

    Use it as a context manager.  Tasks count alike, whatever their units; the time left is that
    of all of them, extrapolated from what is done.  In a terminal it is one live line; elsewhere
    (a file, a pipe, continuous integration) a plain line now and then, the first after a second.

    Parameters
    ----------
    stream:
        Where to show it; standard error by default, so that results stay clean.
    clock:
        Seconds, monotonic; for tests.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        every_s: float = PLAIN_EVERY_S,
    ) -> None:
        self._stream = stream or sys.stderr
        self._clock, self._every = clock, every_s
        self._began = clock()
        self._tasks: dict[str, Pace] = {}
        self._note = ""
        self._title = ""
        self._next = self._began + PLAIN_FIRST_S
        self._live: Any = None
        self._line: Any = None

    def __enter__(self) -> Self:
        if self._stream.isatty():
            self._open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    # terrarium.progress.Progress

    def start(self, task: str, total: float, unit: str = "steps") -> None:
        """Announce a task; its time left is shown from the first second on."""
        self._title = task
        self._tasks[task] = Pace(max(total, 1e-9), started=self._clock())
        self._note = ""
        self._show()

    def advance(self, task: str, amount: float = 1.0, note: str = "") -> None:
        """Show that ``amount`` more of ``task`` is done."""
        if task in self._tasks:
            self._tasks[task].advance(amount)
        self._title, self._note = task, _cut(note) or self._note
        self._show()

    def finish(self, task: str) -> None:
        """Show that ``task`` is over."""
        if task in self._tasks:
            self._tasks[task].done = self._tasks[task].total
        self._show()

    # What it shows

    @property
    def fraction(self) -> float:
        """The share of all tasks announced so far that is done, between 0 and 1."""
        if not self._tasks:
            return 0.0
        done = sum(min(1.0, pace.done / pace.total) for pace in self._tasks.values())
        return done / len(self._tasks)

    @property
    def seconds_left(self) -> float | None:
        """Seconds until all tasks are done at the pace so far; None before anything is done."""
        if self.fraction <= 0:
            return None
        return (self._clock() - self._began) * (1 - self.fraction) / self.fraction

    def _show(self) -> None:
        if self._live is not None:
            self._live.update(
                self._line,
                completed=100 * self.fraction,
                description=self._title,
                left=words_for(self.seconds_left),
                note=self._note,
            )
            return
        now = self._clock()
        if now < self._next or self.fraction >= 1:
            return
        self._next = now + self._every
        note = f" ({self._note})" if self._note else ""
        left = words_for(self.seconds_left)
        self._stream.write(f"{self._title}: {100 * self.fraction:.0f} %, {left}{note}\n")
        self._stream.flush()

    def _open(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TextColumn("{task.fields[left]}"),
            TextColumn("{task.fields[note]}", style="dim", markup=False),
        )
        shown = Console(file=self._stream, highlight=False)
        self._live = Progress(*columns, console=shown, transient=True)
        self._line = self._live.add_task("", total=100.0, left="", note="")
        self._live.start()
