"""Progress with time left, as data: those who work report, those who show decide how."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Protocol


class Progress(Protocol):
    """What long work reports to.  Implementations must be cheap: they are called every step."""

    def start(self, task: str, total: float, unit: str = "steps") -> None:
        """Announce ``task`` with ``total`` units of work."""

    def advance(self, task: str, amount: float = 1.0, note: str = "") -> None:
        """Report ``amount`` more units done; ``note`` is a few words about the present state."""

    def finish(self, task: str) -> None:
        """Report that ``task`` is done, early or not."""


class Silent:
    """A `Progress` that shows nothing."""

    def start(self, task: str, total: float, unit: str = "steps") -> None:
        """Ignore."""

    def advance(self, task: str, amount: float = 1.0, note: str = "") -> None:
        """Ignore."""

    def finish(self, task: str) -> None:
        """Ignore."""


@dataclass
class Pace:
    """Estimates the time left from the work done so far.

    ``seconds_left`` is None until something has been done.
    """

    total: float
    done: float = 0.0
    started: float = field(default_factory=time.monotonic)

    def advance(self, amount: float = 1.0) -> None:
        """Count ``amount`` units as done."""
        self.done += amount

    @property
    def seconds_left(self) -> float | None:
        """Seconds left at the pace so far, or None before anything is done."""
        if self.done <= 0:
            return None
        spent = time.monotonic() - self.started
        return max(0.0, spent * (self.total - self.done) / self.done)
