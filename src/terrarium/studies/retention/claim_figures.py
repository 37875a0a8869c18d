"""The figures of `retention` on claims: are they known, and what does a probe of truth read?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from terrarium.evidence.quantities import Missing
from terrarium.evidence.rows import Row
from terrarium.figures.curves import layer_curves
from terrarium.figures.dots import dots
from terrarium.figures.figure import Figure
from terrarium.studies.retention.hypotheses import KNOWN_AT, READABLE, claim_read, legible
from terrarium.studies.retention.recipes import BEFORE, CONFOUNDED, COUNTERBALANCED, FOR_TIME
from terrarium.studies.rows_of import mean_of, records_of

READ = "truth read by a probe (AUROC)"
SAID = "answered rightly (proportion)"
HALVES = ("early", "late")


def known(rows: Sequence[Row]) -> Figure | None:
    """Where claims begin to be known in both halves, by how often they are shown."""
    levels = sorted({r["claim_exposures"] for r in records_of(rows, "claims_right")})
    found = []
    for often in levels:
        for half in HALVES:
            said = records_of(
                rows, "claims_right", network="trained", half=half, claim_exposures=often
            )
            read = claim_read(f"truth_auroc_{half}", COUNTERBALANCED, often).values(rows)
            told = {"label": f"shown {often} times", "often": often, "half": f"shown {half}"}
            found += [{**r, **told, "facet": SAID} for r in said]
            found += [
                {**told, "facet": READ, "seed": seed, "value": value}
                for seed, value in read.items()
                if not isinstance(value, Missing)
            ]
    if not found:
        return None
    return dots(
        "claims",
        found,
        title=f"Are claims known in both halves of pretraining? {_begins(rows, found, levels)}",
        caption="Claims that the organism answers rightly, and AUROC for the truth of test claims "
        "of a probe that was fitted on other claims, as many true and false ones of either half "
        "(layer chosen on validation claims); by how many steps running each claim stands. Steps "
        "and rows are the same in all, so that fewer claims are shown more often. The gate asks "
        f"for {READABLE:g} in both halves, in 80 % of seeds. Ticks are seeds; rules are 95 % "
        "intervals over seeds.",
        group="half",
        facet="facet",
        x_title="proportion, AUROC",
        references={"chance": 0.5},
    )


def _begins(rows: Sequence[Row], found: Sequence[dict[str, Any]], levels: Sequence[int]) -> str:
    """Say at how many exposures the gates are first passed, and what is read there."""
    tried = f" (of {', '.join(map(str, levels))})" if len(levels) > 1 else ""
    for often in levels:
        if all(gate.judge(rows).passed for gate in legible(often)):
            read = [r for r in found if r["often"] == often and r["facet"] == READ]
            ends = (mean_of([r for r in read if r["half"] == f"shown {h}"]) for h in HALVES)
            told = " and ".join("undefined" if end is None else f"{end:.2f}" for end in ends)
            return f"{'First at' if tried else 'At'} {often} showings{tried}: AUROC {told}"
    return f"At none of {', '.join(map(str, levels))} showings" if tried else "No"


def knowledge(rows: Sequence[Row]) -> Figure | None:
    """What probes of truth read, by the claims that they were fitted on, and a probe for time."""
    found = [
        {**r, "quantity": r["trained_on"], "facet": told}
        for metric, told in (
            ("truth_auroc", "scored for truth"),
            ("time_auroc", "scored for late against early"),
        )
        for kind in (COUNTERBALANCED, *CONFOUNDED, FOR_TIME)
        for r in records_of(
            rows,
            metric,
            variant="organism",
            split="test",
            phase=BEFORE,
            elapsed=0,
            network="trained",
            probe="knowledge",
            trained_on=kind,
            claim_exposures=KNOWN_AT,
        )
    ]
    if not found:
        return None
    return layer_curves(
        "knowledge",
        found,
        title="Does a probe of truth read the time where both went together in its training?",
        caption="AUROC on test claims in which truth and time are independent, by the claims that "
        "the probe was fitted on: balanced, or only late true and early false ones, or only early "
        "true and late false ones; as many in each case. Beside them a probe fitted for the time.",
        facet="facet",
        references={"chance": 0.5},
    )
