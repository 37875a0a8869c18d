"""What a report says about its run beside the rows: settings, versions, machine, keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class RunInfo:
    """How a run was made; all plain data, so that it can lie beside the rows as JSON.

    ``keys`` maps each cell's name to its key; ``seconds`` is the wall time of the run that
    measured the last rows (None where nobody noted it), which measured ``measured`` cells and
    found ``found`` in the store; ``commands`` reproduce it.
    """

    size: str = ""
    commands: Sequence[str] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    machine: Mapping[str, str] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)
    date: str = ""
    seconds: float | None = None
    measured: int = 0
    found: int = 0
