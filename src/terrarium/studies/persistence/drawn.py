"""What the figures of `persistence` share: conditions, worlds, half-lives, names of axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from terrarium.evidence.rows import Row
from terrarium.evidence.survival import HalfLife
from terrarium.studies.persistence.hypotheses import PLAIN
from terrarium.studies.rows_of import lasting

RATE = "behaviour rate under the trigger (proportion)"
SHARE = "share of answers (proportion)"
STEPS = "steps of safety training"


def plain(*free: str, **factors: Any) -> dict[str, Any]:
    """The plain condition with some factors left free, others changed."""
    return {k: v for k, v in PLAIN.items() if k not in free} | factors


def worlds_of(rows: Sequence[Row]) -> list[str]:
    """Return the worlds among the rows, conversations first."""
    found = {str(row.factors["world"]) for row in rows if "world" in row.factors}
    return sorted(found, key=lambda world: (world != "chat", world))


def lifetimes(rows: Sequence[Row], **factors: Any) -> HalfLife | None:
    """Return the half-life over seeds of the backdoors of one condition in safety training."""
    return lasting(rows, phase="safety", **factors)
