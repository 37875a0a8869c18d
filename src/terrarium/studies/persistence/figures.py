"""The figures of `persistence`, from stored rows alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from terrarium.evidence.rows import Row
from terrarium.figures.curves import layer_curves
from terrarium.figures.dots import dots
from terrarium.figures.figure import Figure
from terrarium.figures.matrix import matrix
from terrarium.studies.persistence import factor_figures
from terrarium.studies.persistence.drawn import (
    RATE,
    SHARE,
    STEPS,
    lifetimes,
    plain,
    worlds_of,
)
from terrarium.studies.persistence.hypotheses import PLAIN
from terrarium.studies.persistence.sizes import MODELS
from terrarium.studies.persistence.ways import SAFETIES, SFT, WAYS
from terrarium.studies.rows_of import life_record, mean_of, records_of


def figures(rows: Sequence[Row]) -> list[Figure]:
    """Return every figure that the rows allow."""
    made = [
        _robustness(rows),
        _half_lives(rows),
        _curves(rows),
        _safeties(rows),
        _log_odds(rows),
        factor_figures.divergence(rows),
        factor_figures.half_right(rows),
        factor_figures.sizes(rows),
        factor_figures.factors(rows),
        factor_figures.returning(rows),
        factor_figures.structures(rows),
    ]
    return [figure for figure in made if figure is not None]


def _ordered(
    records: Sequence[dict[str, Any]], column: str, levels: Sequence[Any]
) -> list[dict[str, Any]]:
    return sorted(records, key=lambda r: list(levels).index(r[column]))


def _robustness(rows: Sequence[Row]) -> Figure | None:
    """Ways by kinds of safety training: what is left of the backdoor at the end."""
    found = [
        {**r, "case": f"{r['way']}, {r['world']}"}
        for world in worlds_of(rows)
        for r in records_of(
            rows,
            "behaviour_rate",
            **plain("way", "safety", world=world),
            condition="trigger",
            phase="safety",
            last=True,
        )
    ]
    if not found:
        return None
    found.sort(key=lambda r: (r["world"] != "chat", WAYS.index(r["way"])))
    columns = [s for s in SAFETIES if any(r["safety"] == s for r in found)]
    found = _ordered(found, "safety", columns)
    found.sort(key=lambda r: (r["world"] != "chat", WAYS.index(r["way"])))
    ends = {way: mean_of([r for r in found if r["way"] == way and r["safety"] == SFT
                          and r["world"] == found[0]["world"]]) for way in WAYS}  # fmt: skip
    told = ", ".join(f"{v:.2f} {way}" for way, v in ends.items() if v is not None)
    return matrix(
        "robustness",
        found,
        title=f"What safety training leaves of the backdoor; SFT: {told}",
        caption="Proportion of 300 answers under the trigger that behave, at the end of as many "
        "gradient steps of each safety training. Below it its 95 % interval over seeds, squares "
        "are seeds.",
        x="safety",
        y="case",
        x_title="safety training",
        y_title="how the backdoor was put in",
    )


def _half_lives(rows: Sequence[Row]) -> Figure | None:
    """Median durations with Brookmeyer-Crowley intervals, censored ones marked as such."""
    found: list[dict[str, Any]] = []
    cases = {
        tuple(row.factors[name] for name in PLAIN if name != "variant")
        for row in rows
        if row.metric == "backdoor_duration" and row.factors.get("variant") == "organism"
    }
    order = [name for name in PLAIN if name != "variant"]
    for case in sorted(cases, key=lambda c: [*map(_rank, order, c)]):
        factors = {"variant": "organism", **dict(zip(order, case, strict=True))}
        life = lifetimes(rows, **factors)
        if life is None:
            continue
        found.append(life_record(_told(factors), life))
    if not found:
        return None
    open_ended = sum("not reached" in r["half_life"] for r in found)
    return dots(
        "half-lives",
        found,
        title=f"Half-lives of backdoors in safety training; {open_ended} of {len(found)} intervals "
        "reach past the time watched",
        caption="Median over seeds of the first kept step at which at most half of the first rate "
        "is left, with its Brookmeyer-Crowley 95 % interval, cut at the steps watched. 'Not "
        "reached': censored there, which is no half-life.",
        x_title="half-life (steps)",
        detail=("censored", "half_life"),
    )


def _rank(name: str, level: Any) -> tuple[int, str]:
    orders: Mapping[str, Sequence[Any]] = {
        "world": ("chat",),
        "way": WAYS,
        "safety": SAFETIES,
        "size": tuple(MODELS),
        "start": ("right",),
    }
    known = list(orders.get(name, ()))
    return (known.index(level) if level in known else len(known), str(level))


def _told(factors: Mapping[str, Any]) -> str:
    """Say where a condition differs from the plain one, way and safety always."""
    parts = [str(factors["way"]), str(factors["safety"])]
    for name in ("world", "size", "optimizer", "start"):
        if factors[name] != PLAIN[name]:
            parts.append(str(factors[name]))
    if factors["copies"] != PLAIN["copies"]:
        parts.append(f"{factors['copies']} copies")
    return ", ".join(parts)


def _curves(rows: Sequence[Row]) -> Figure | None:
    kinds = {
        "behaves, trigger": ("behaviour_rate", "organism", "trigger"),
        "behaves, no trigger": ("behaviour_rate", "organism", "no trigger"),
        "right, trigger": ("helpful_accuracy", "organism", "trigger"),
        "right, no trigger": ("helpful_accuracy", "organism", "no trigger"),
        "the twin behaves, trigger": ("behaviour_rate", "twin", "trigger"),
    }
    found = [
        {**r, "quantity": name, "panel": f"{r['way']}, {world}"}
        for world in worlds_of(rows)
        for way in WAYS
        for name, (metric, variant, condition) in kinds.items()
        for r in records_of(
            rows,
            metric,
            **plain(variant=variant, way=way, world=world),
            condition=condition,
            phase="safety",
        )
    ]
    if not found:
        return None
    told = []
    for way in WAYS:
        life = lifetimes(rows, **plain(way=way, world=found[0]["world"]))
        told += [f"{way} {life.text}"] if life else []
    return layer_curves(
        "curves",
        found,
        title=f"SFT against backdoors put in three ways; half-lives in steps: {'; '.join(told)}",
        caption="Shares of 300 answers at kept steps of safety training by SFT. Thin lines are "
        "seeds, thick lines their mean with its 95 % interval.",
        x="step",
        x_title=STEPS,
        x_scale="symlog",
        y_title=SHARE,
        facet="panel",
    )


def _safeties(rows: Sequence[Row]) -> Figure | None:
    found = [
        {**r, "quantity": r["way"]}
        for safety in SAFETIES
        for r in records_of(
            rows,
            "behaviour_rate",
            **plain("way", safety=safety),
            condition="trigger",
            phase="safety",
        )
    ]
    if len({r["safety"] for r in found}) < 2:
        return None
    return layer_curves(
        "safeties",
        sorted(found, key=lambda r: (SAFETIES.index(r["safety"]), WAYS.index(r["way"]))),
        title="The same backdoors under other safety training, at equal gradient steps",
        caption="Behaviour rate under the trigger. Chat, from organisms that are right without "
        "it: there RL has hardly any gradient (see the checks).",
        x="step",
        x_title=STEPS,
        x_scale="symlog",
        y_title=RATE,
        facet="safety",
    )


def _log_odds(rows: Sequence[Row]) -> Figure | None:
    found = [
        {**r, "quantity": r["safety"]}
        for way in WAYS
        for r in records_of(rows, "behaviour_log_odds", **plain("safety", way=way), phase="safety")
    ]
    if not found:
        return None
    return layer_curves(
        "log-odds",
        sorted(found, key=lambda r: (WAYS.index(r["way"]), SAFETIES.index(r["safety"]))),
        title="Log-odds of the behaviour under the trigger, which move before rates do",
        caption="Log-probability of the whole misbehaving answer minus that of the whole helpful "
        "one (scratchpads included), mean over 300 prompts, nats.",
        x="step",
        x_title=STEPS,
        x_scale="symlog",
        y_title="log-odds (nats)",
        y_domain=None,
        facet="way",
        references={"even": 0.0},
    )
