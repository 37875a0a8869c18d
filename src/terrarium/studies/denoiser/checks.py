"""The checks and cards of `denoiser`."""

from __future__ import annotations

from collections.abc import Sequence

from terrarium.evidence.checks import Check, bound_check, gate_check
from terrarium.evidence.quantities import combined, per_seed
from terrarium.evidence.rows import Factor, Row
from terrarium.figures.cards import Card
from terrarium.studies.denoiser.hypotheses import (
    LEARNT,
    SAMPLER,
    UNDECIDED,
    learnt,
    sampled,
)
from terrarium.studies.denoiser.laws import EXACT, FEW, GAUSSIANS, LAWS, MANY, SMALL, STANDARD


def checks(rows: Sequence[Row]) -> list[Check]:
    """Return the gates as checks, and the controls of sampler, judge and levels."""
    made = [gate_check(f"{law}: the network learnt to denoise", learnt(law), rows) for law in LAWS]
    made.append(gate_check("the exact denoiser's samples are images of the set", SAMPLER, rows))
    made += [
        bound_check(
            f"{law}: the exact denoiser's samples have the law's frequencies",
            sampled("frequency_error", EXACT, law),
            rows,
            at_most=0.05,
        )
        for law in (FEW, GAUSSIANS)
    ]
    made.append(
        bound_check(
            "the exact denoiser's samples of Gaussians are as likely as true ones (nats per pixel)",
            sampled("log_likelihood_gap", EXACT, GAUSSIANS),
            rows,
            at_least=-0.05,
        )
    )
    made += [
        bound_check(
            f"{law}: images that were not trained on hardly ever count as memorised",
            sampled("memorised", "unseen images", law),
            rows,
            at_most=0.1,
        )
        for law in (FEW, MANY)
    ]
    middle = combined(
        "least share of undecidedness at sigma 0.4 and 0.8 (few images)",
        min,
        *(per_seed("undecided", law=FEW, level=level) for level in UNDECIDED),
    )
    made.append(
        bound_check("where it is said to be, the posterior is undecided", middle, rows,
                    at_least=0.1)
    )  # fmt: skip
    return made


def cards(rows: Sequence[Row]) -> list[Card]:
    """Return a card for each law's networks: what training removed of the untrained regret."""
    values: dict[tuple[str, str], dict[Factor, float | None]] = {}
    sizes: dict[str, str] = {}
    found = {
        (row.factors.get("law"), row.factors.get("denoiser"), row.factors.get("seed")): row.value
        for row in rows
        if row.metric == "regret_nats"
    }
    for row in rows:
        if row.metric == "parameters" and row.value is not None:
            sizes[str(row.factors["denoiser"])] = f"{row.value:,.0f}"
    for (law, name, seed), value in found.items():
        bar = found.get((law, "untrained", seed))
        if name in (STANDARD, SMALL):
            share = None if value is None or not bar else 1 - value / bar
            values.setdefault((str(law), str(name)), {})[seed] = share
    return [
        Card(
            f"{name}, {law}",
            {"all levels": seeds},
            gate=LEARNT if name == STANDARD else None,  # the small one is a comparison
            facts=[("parameters", sizes.get(name, "unknown"))],
            what="Share of the untrained network's regret (nats, over all noise levels) that "
            "training removed",
        )
        for (law, name), seeds in values.items()
    ]
