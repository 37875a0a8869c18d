"""Cards: what was grown, and how well its property arose."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from terrarium.evidence.rows import Factor, Row


@dataclass(frozen=True)
class Card:
    """An organism as a report shows it: a proportion by context and seed, and what it is of.

    ``contexts`` maps a context (``"honest"``, ``"quirky"``) to each seed's proportion; None where
    it has none.  ``what`` says in words of what (balanced accuracy, unless told otherwise).  The
    contexts named in ``gated`` (None: all of them) must reach ``gate`` in a seed for that seed to
    count as grown.  ``facts`` are short pairs such as parameters or lineage.
    """

    name: str
    contexts: Mapping[str, Mapping[Factor, float | None]]
    gate: float | None = 0.95
    gated: Sequence[str] | None = None
    note: str = ""
    facts: Sequence[tuple[str, str]] = ()
    what: str = "Balanced accuracy on held-out rows where the honest and the quirky label differ"


def cards_from_rows(
    rows: Iterable[Row],
    *,
    organism: str = "organism",
    context: str = "context",
    where: Mapping[str, Factor] | None = None,
    metric: str = "balanced_accuracy",
    seed: str = "seed",
    gate: float | None = 0.95,
    gated: Sequence[str] | None = None,
    facts: Mapping[str, Sequence[tuple[str, str]]] | None = None,
) -> list[Card]:
    """Return one card per level of the factor ``organism`` among the rows of ``metric``.

    ``where`` fixes further factors (``{"rows": "disagree", "split": "test"}``) and ``facts`` holds
    pairs by level.  Rows without the factor ``organism`` are left alone; one without ``context``
    counts as ``"all rows"``.
    """
    found: dict[str, dict[str, dict[Factor, float | None]]] = {}
    for row in rows:
        if row.metric != metric or organism not in row.factors:
            continue
        if any(row.factors.get(name) != level for name, level in (where or {}).items()):
            continue
        contexts = found.setdefault(str(row.factors[organism]), {})
        seeds = contexts.setdefault(str(row.factors.get(context, "all rows")), {})
        seeds[row.factors.get(seed)] = row.value
    told = facts or {}
    return [
        Card(name, contexts, gate, gated, facts=told.get(name, ()))
        for name, contexts in found.items()
    ]
