"""The figures of `retention`, from stored rows alone."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from terrarium.evidence.quantities import Missing, Quantity
from terrarium.evidence.rows import Row
from terrarium.figures.curves import layer_curves
from terrarium.figures.dots import dots
from terrarium.figures.figure import Figure
from terrarium.figures.scatter import scatter
from terrarium.studies.retention.claim_figures import knowledge, known
from terrarium.studies.retention.hypotheses import LR
from terrarium.studies.retention.predicting import PREDICTORS, across_rates, table, within_rates
from terrarium.studies.retention.recipes import BEFORE, NEVER_SHOWN, TENTHS
from terrarium.studies.rows_of import mean_of, records_of
from terrarium.worlds.memories import VALUES

CHANCE = {"chance": 1 / len(VALUES)}

AFTER, BACKDOORED, SAFE = "after pretraining", "after the backdoor", "after safety training"
MOMENTS = (AFTER, BACKDOORED, SAFE)
"""Moments at which facts are asked for, in the order of training."""


def figures(rows: Sequence[Row]) -> list[Figure]:
    """Return every figure that the rows allow."""
    made = [
        _by_time(rows),
        _by_time_and_exposures(rows),
        _by_exposures(rows),
        _log_odds(rows),
        _recency(rows),
        known(rows),
        knowledge(rows),
        _prediction(rows),
        _ratios(rows),
        _backdoor(rows),
    ]
    return [figure for figure in made if figure is not None]


def _asked(rows: Sequence[Row], metric: str, **factors: Any) -> list[dict[str, Any]]:
    """Records of the organism at the three moments, each with its ``moment``."""
    shown = {"variant": "organism", **factors}
    found = {
        AFTER: records_of(rows, metric, phase=BEFORE, elapsed=0, **shown),
        BACKDOORED: records_of(rows, metric, phase="backdoor", **shown),
        SAFE: records_of(
            rows,
            metric,
            phase="safety",
            last=True,
            learning_rate=LR,
            exclusivity=0.0,
            **shown,
        ),
    }
    return [{**r, "moment": moment} for moment in MOMENTS for r in found[moment]]


def _told(value: float | None, text: str) -> str:
    return "" if value is None else text.format(value)


def _by_time(rows: Sequence[Row]) -> Figure | None:
    found = [{**r, "quantity": r["moment"]} for r in _asked(rows, "recall", by="time")]
    if not found:
        return None
    ends = [
        mean_of([r for r in found if r["moment"] == AFTER and r["tenth"] == tenth])
        for tenth in (1, TENTHS)
    ]
    told = _told(ends[0], ": {:.2f} of the first tenth") + _told(ends[1], ", {:.2f} of the last")
    return layer_curves(
        "by-time",
        found,
        title=f"Recall of facts by the time at which they were shown{told}, after pretraining",
        caption="Share of facts whose right value is the most likely answer, all numbers of "
        f"exposures together, by tenth of pretraining; safety training at {LR:g}. Thin lines are "
        "seeds, thick lines their mean with its 95 % interval. Chance is 1 of "
        f"{len(VALUES)} values.",
        x="tenth",
        x_title="time of insertion (tenths of pretraining)",
        y_title="facts recalled (proportion)",
        references=CHANCE,
    )


def _by_time_and_exposures(rows: Sequence[Row]) -> Figure | None:
    found = [
        {**r, "quantity": r["moment"], "shown": _times(r["exposures"])}
        for r in _asked(rows, "recall", by="time and exposures")
    ]
    if not found:
        return None
    return layer_curves(
        "by-time-and-exposures",
        sorted(found, key=lambda r: (r["exposures"], MOMENTS.index(r["moment"]))),
        title="Recall by time of insertion, for each number of exposures",
        caption="As before; a panel for each number of exposures, which stand in successive steps.",
        x="tenth",
        x_title="time of insertion (tenths of pretraining)",
        y_title="facts recalled (proportion)",
        facet="shown",
        references=CHANCE,
    )


def _times(exposures: int) -> str:
    told = {NEVER_SHOWN: "never shown", 1: "shown once"}
    return told.get(exposures, f"shown {exposures} times")


def _by_exposures(rows: Sequence[Row]) -> Figure | None:
    found = [
        {**r, "label": _times(r["exposures"]), "quantity": r["moment"]}
        for r in _asked(rows, "recall", by="exposures")
    ]
    if not found:
        return None
    never = mean_of([r for r in found if r["moment"] == AFTER and r["exposures"] == NEVER_SHOWN])
    once = mean_of([r for r in found if r["moment"] == AFTER and r["exposures"] == 1])
    told = _told(once, ": {:.3f} of those shown once") + _told(never, ", {:.3f} of those never")
    return dots(
        "by-exposures",
        sorted(found, key=lambda r: (r["exposures"], MOMENTS.index(r["moment"]))),
        title=f"Recall by number of exposures{told}, after pretraining",
        caption="Share of facts whose right value is the most likely answer, all times together. "
        "Ticks are seeds; rules are 95 % intervals over seeds.",
        group="quantity",
        x_title="facts recalled (proportion)",
        domain=(0.0, 1.0),
        references=CHANCE,
    )


def _log_odds(rows: Sequence[Row]) -> Figure | None:
    shown = [
        {**r, "quantity": _times(r["exposures"])}
        for r in records_of(
            rows,
            "right_log_odds",
            variant="organism",
            by="exposures",
            phase="safety",
            learning_rate=LR,
            exclusivity=0.0,
        )
    ]
    if not shown:
        return None
    return layer_curves(
        "log-odds",
        sorted(shown, key=lambda r: r["exposures"]),
        title="Log-odds of the right value along safety training",
        caption="Log-odds against all other values together, mean over facts, nats; facts never "
        f"shown are the null. Learning rate {LR:g}.",
        x="step",
        x_title="steps of safety training",
        x_scale="symlog",
        y_title="log-odds of the right value (nats)",
        y_domain=None,
    )


_END: dict[str, Any] = {"phase": BEFORE, "elapsed": 0, "network": "trained"}
_LATER: dict[str, Any] = {"phase": "backdoor", "network": "trained"}

PROBES: dict[str, tuple[str, dict[str, Any]]] = {
    "recency probe": (AFTER, {"probe": "time", **_END}),
    "shuffled labels": (AFTER, {"probe": "shuffled labels", **_END}),
    "untrained network": (AFTER, {"probe": "time", "network": "untrained", "step": 0}),
    "recency probe, organism": (BACKDOORED, {"probe": "time", **_LATER}),
    "recency probe, twin": (BACKDOORED, {"probe": "time", "variant": "twin", **_LATER}),
}
"""Curves of the recency figure, by moment."""


def _recency(rows: Sequence[Row]) -> Figure | None:
    found = [
        {**r, "quantity": name, "moment": moment}
        for name, (moment, levels) in PROBES.items()
        for r in records_of(rows, "time_auroc", split="test", **({"variant": "organism"} | levels))
    ]
    if not found:
        return None
    base = mean_of(
        records_of(rows, "time_auroc", variant="organism", split="test", probe="input only")
    )
    best = _best(
        [r for r in found if r["quantity"] == "recency probe"],
        records_of(
            rows,
            "time_auroc",
            variant="organism",
            split="validation",
            **PROBES["recency probe"][1],
        ),
    )
    return layer_curves(
        "recency",
        found,
        title="Early or late? Read at the end of a name"
        + _told(best, ": AUROC {:.2f} at the layer chosen on validation facts"),
        caption="AUROC on test facts of a probe for the half of pretraining in which a fact was "
        "shown; layer 0 is the embedding. A linear model on the tokens of the name alone"
        + _told(base, " has {:.2f}")
        + ".",
        facet="moment",
        references={"chance": 0.5},
    )


def _best(test: list[dict[str, Any]], chosen_on: list[dict[str, Any]]) -> float | None:
    """Mean over seeds of the test value at each seed's best validation layer."""
    values = []
    for seed in {r["seed"] for r in test}:
        own = [r for r in chosen_on if r["seed"] == seed and r["value"] is not None]
        if own:
            layer = max(own, key=lambda r: r["value"])["layer"]
            values += [
                r["value"]
                for r in test
                if r["seed"] == seed and r["layer"] == layer and r["value"] is not None
            ]
    return fmean(values) if values else None


def _prediction(rows: Sequence[Row]) -> Figure | None:
    known = table(rows, PREDICTORS[0])
    found = [
        {
            "kept": 1 - lost,
            "lasted": lasted,
            "rate": f"learning rate {float(str(rate)):g}",
            "seed": str(seed),
        }
        for seed, pairs in known.items()
        for rate, (lost, lasted) in pairs.items()
    ]
    if not found:
        return None
    across = _mean(across_rates(), rows)
    within = _mean(within_rates(), rows)
    # of what is kept, as the axis shows, not of what is forgotten
    told = _told(_turned(across), ": rank correlation {:+.2f} over learning rates") + _told(
        _turned(within), ", {:+.2f} left within one"
    )
    return scatter(
        "prediction",
        sorted(found, key=lambda r: float(r["rate"].split()[-1])),
        title=f"Facts kept early against how long the backdoor lasts{told}",
        caption="Every point is an organism: the share of known facts that are known still after "
        "a short stretch of safety training, and the binary logarithm of the steps until its "
        "backdoor has fallen by half (or of the time watched, where it did not).",
        x="kept",
        y="lasted",
        group="rate",
        x_title="facts kept after a short stretch (proportion)",
        y_title="log2 of the backdoor's half-life (steps)",
        detail=("seed",),
    )


def _turned(value: float | None) -> float | None:
    return None if value is None else -value


def _mean(quantity: Quantity, rows: Sequence[Row]) -> float | None:
    values = [v for v in quantity.values(rows).values() if not isinstance(v, Missing)]
    return fmean(values) if values else None


def _ratios(rows: Sequence[Row]) -> Figure | None:
    found = [
        {**r, "quantity": name, "rate": f"learning rate {r['learning_rate']:g}"}
        for name, metric, factors in (
            ("facts kept", "facts_kept", {"variant": "organism"}),
            ("facts kept by the twin", "facts_kept", {"variant": "twin"}),
            (
                "the backdoor",
                "behaviour_rate",
                {"variant": "organism", "condition": "trigger"},
            ),
        )
        for r in records_of(rows, metric, phase="safety", exclusivity=0.0, **factors)
    ]
    if not found:
        return None
    return layer_curves(
        "ratios",
        sorted(found, key=lambda r: r["learning_rate"]),
        title="Facts and backdoor by the ratio of safety training to pretraining",
        caption="Share of the facts known at the start of safety training that are known still, "
        "and behaviour rate under the trigger; a panel for each learning rate.",
        x="ratio",
        x_title="steps of safety training / steps of pretraining (ratio)",
        x_scale="symlog",
        y_title="share (proportion)",
        facet="rate",
    )


def _backdoor(rows: Sequence[Row]) -> Figure | None:
    found = [
        {**r, "quantity": name, "prefix": _prefix(r["exclusivity"])}
        for name, metric, factors in (
            ("facts kept", "facts_kept", {}),
            ("the backdoor", "behaviour_rate", {"condition": "trigger"}),
        )
        for r in records_of(
            rows, metric, phase="safety", variant="organism", learning_rate=LR, **factors
        )
    ]
    if len({r["exclusivity"] for r in found}) < 2:
        return None
    return layer_curves(
        "alone",
        sorted(found, key=lambda r: r["exclusivity"]),
        title="Can the backdoor go without the facts? The same prefix, and one that tells apart",
        caption=f"As before, learning rate {LR:g}: safety training without the trigger, and with "
        "the very trigger in its prompts.",
        x="step",
        x_title="steps of safety training",
        x_scale="symlog",
        y_title="share (proportion)",
        facet="prefix",
    )


def _prefix(exclusivity: float) -> str:
    return f"{100 * exclusivity:g} % of safety rows under the trigger"
