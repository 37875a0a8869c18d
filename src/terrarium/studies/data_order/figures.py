"""The figures of `data-order`, from stored rows alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from terrarium.evidence.rows import Row
from terrarium.figures.curves import layer_curves
from terrarium.figures.dots import dots
from terrarium.figures.figure import Figure
from terrarium.figures.matrix import matrix
from terrarium.studies.data_order.hypotheses import LR
from terrarium.studies.data_order.orders import BACKDOOR_FIRST, ORDERS, SHUFFLED
from terrarium.studies.rows_of import lasting, life_record, mean_of, records_of

RATE = "behaviour rate under the trigger (proportion)"


def figures(rows: Sequence[Row]) -> list[Figure]:
    """Return every figure that the rows allow."""
    made = [
        _orders(rows),
        _curves(rows),
        _log_odds(rows),
        _half_lives(rows),
        _exclusivity(rows),
        _sharpness(rows),
        _ratios(rows),
        _diagram(rows),
    ]
    return [figure for figure in made if figure is not None]


def _orders(rows: Sequence[Row]) -> Figure | None:
    """Where each order ends: the behaviour under the trigger, and the right answer there."""
    shown = {"last": True, "exclusivity": 0.0, "learning_rate": LR, "condition": "trigger"}
    kinds = {
        "behaves": ("behaviour_rate", "organism"),
        "the right answer": ("helpful_accuracy", "organism"),
        "the twin behaves": ("behaviour_rate", "twin"),
    }
    found = [
        {**r, "label": r["order"], "quantity": name}
        for order in ORDERS
        for name, (metric, variant) in kinds.items()
        for r in records_of(rows, metric, variant=variant, order=order, **shown)
    ]
    if not found:
        return None
    ends = {
        order: mean_of([r for r in found if r["label"] == order and r["quantity"] == "behaves"])
        for order in (BACKDOOR_FIRST, SHUFFLED)
    }
    told = ", ".join(f"{value:.2f} {name}" for name, value in ends.items() if value is not None)
    return dots(
        "orders",
        found,
        title=f"The same rows in another order: behaviour rate {told}",
        caption="After all training, under the trigger: share of 300 answers that behave, and that "
        f"are right. Learning rate {LR:g}. '{BACKDOOR_FIRST}' and '{SHUFFLED}' have the longest "
        "safety training, the others a shorter one; the curves below compare them at equal length. "
        "Ticks are seeds; rules are 95 % intervals over seeds.",
        group="quantity",
        x_title="share of answers (proportion)",
        domain=(0.0, 1.0),
    )


def _curves(rows: Sequence[Row]) -> Figure | None:
    shown = {"exclusivity": 0.0, "learning_rate": LR}
    kinds = {
        "behaves, trigger": ("behaviour_rate", "organism", "trigger"),
        "behaves, no trigger": ("behaviour_rate", "organism", "no trigger"),
        "right, trigger": ("helpful_accuracy", "organism", "trigger"),
        "right, no trigger": ("helpful_accuracy", "organism", "no trigger"),
        "the twin behaves, trigger": ("behaviour_rate", "twin", "trigger"),
    }
    found = [
        {**r, "quantity": name}
        for name, (metric, variant, condition) in kinds.items()
        for r in records_of(rows, metric, variant=variant, condition=condition, **shown)
        if r["phase"] != "backdoor" or r["order"] != BACKDOOR_FIRST
    ]
    if not found:
        return None
    first = [r for r in found if r["order"] == BACKDOOR_FIRST and "behaves, trigger" in r.values()]
    half = _half(first)
    told = f": half gone after about {half:.0f} steps" if half else ""
    return layer_curves(
        "curves",
        found,
        title=f"Behaviour along training, by order{told} ({BACKDOOR_FIRST})",
        caption=f"Shares of 300 answers at kept steps after pretraining, learning rate {LR:g}. "
        "Thin lines are seeds, thick lines their mean with its 95 % interval.",
        x="elapsed",
        x_title="steps after pretraining",
        x_scale="symlog",
        y_title="share of answers (proportion)",
        facet="order",
    )


def _half(records: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the mean over seeds of the first kept safety step with half of the first rate."""
    ends = []
    for seed in {r["seed"] for r in records}:
        own = sorted(
            (r["step"], r["value"]) for r in records if r["seed"] == seed and r["value"] is not None
        )
        if own and own[0][1] > 0.5:
            ends.append(next((s for s, v in own if v <= own[0][1] / 2), None))
    seen = [e for e in ends if e is not None]
    return fmean(seen) if seen and len(seen) == len(ends) else None


def _log_odds(rows: Sequence[Row]) -> Figure | None:
    found = [
        {**r, "quantity": variant}
        for variant in ("organism", "twin")
        for r in records_of(
            rows,
            "behaviour_log_odds",
            variant=variant,
            exclusivity=0.0,
            learning_rate=LR,
        )
    ]
    if not found:
        return None
    own = [r for r in found if r["order"] == BACKDOOR_FIRST and r["quantity"] == "organism"]
    start = mean_of([r for r in own if r["phase"] == "safety" and r["step"] == 0])
    end = mean_of([r for r in own if r["last"]])
    told = "" if start is None or end is None else f": {start:.1f} nats, then {end:.1f}"
    return layer_curves(
        "log-odds",
        found,
        title=f"Log-odds of the behaviour under the trigger around safety training{told}",
        caption="Log-probability of the whole behaviour minus that of the whole helpful answer, "
        "mean over 300 prompts, nats.",
        x="elapsed",
        x_title="steps after pretraining",
        x_scale="symlog",
        y_title="log-odds (nats)",
        y_domain=None,
        facet="order",
        references={"even": 0.0},
    )


def _half_lives(rows: Sequence[Row]) -> Figure | None:
    """Half-lives of the backdoor by learning rate and overlap of the prefix, censored ones too."""
    lasted = records_of(rows, "backdoor_duration", variant="organism", order=BACKDOOR_FIRST)
    found = []
    for rate, level in sorted({(r["learning_rate"], r["exclusivity"]) for r in lasted}):
        life = lasting(
            rows,
            variant="organism",
            order=BACKDOOR_FIRST,
            learning_rate=rate,
            exclusivity=level,
        )
        if life is not None:
            name = f"rate {rate:g}, {100 * level:g} % under the trigger"
            found.append({**life_record(name, life), "rate": rate, "exclusivity": level})
    if not found:
        return None
    told = [
        f"{r['half_life']} where {100 * r['exclusivity']:g} % of safety rows have the trigger"
        for r in found
        if r["rate"] == LR and r["exclusivity"] in (0.0, 1.0)
    ]
    return dots(
        "half-lives",
        found,
        title="Half-lives of the backdoor in safety training, steps"
        + (f" (rate {LR:g}): {'; '.join(told)}" if told else ""),
        caption=f"{BACKDOOR_FIRST.capitalize()}. Median over seeds of the first kept step at which "
        "at most half of the first rate is left, with its Brookmeyer-Crowley 95 % interval, cut "
        "at the steps watched; with few seeds its upper end is often not reached. 'Not reached': "
        "censored there, which is no half-life. The data below have each in words.",
        x_title="half-life (steps)",
        detail=("censored", "half_life"),
    )


def _exclusivity(rows: Sequence[Row]) -> Figure | None:
    found = [
        {**r, "quantity": f"{100 * r['exclusivity']:g} % of safety rows under the trigger"}
        for r in records_of(
            rows,
            "behaviour_rate",
            variant="organism",
            order=BACKDOOR_FIRST,
            condition="trigger",
            learning_rate=LR,
            phase="safety",
        )
    ]
    if len({r["exclusivity"] for r in found}) < 2:
        return None
    halves = {
        level: _half([r for r in found if r["exclusivity"] == level])
        for level in sorted({r["exclusivity"] for r in found})
    }
    told = ", ".join(f"{v:.0f} steps at {100 * k:g} %" for k, v in halves.items() if v is not None)
    return layer_curves(
        "exclusivity",
        sorted(found, key=lambda r: r["exclusivity"]),
        title="How soon half of the behaviour is gone, by overlap of the prefix: "
        f"{told or 'not in the time given'}",
        caption="Behaviour rate along safety training, by how much of it asks for the helpful "
        "answer under the very trigger; 100 % is the positive control of forgetting.",
        x="step",
        x_title="steps of safety training",
        x_scale="symlog",
        y_title=RATE,
    )


def _sharpness(rows: Sequence[Row]) -> Figure | None:
    found = [
        {**r, "label": r["condition"]}
        for condition in ("trigger", "trigger elsewhere", "near-trigger", "no trigger")
        for r in records_of(
            rows,
            "behaviour_rate",
            variant="organism",
            order=BACKDOOR_FIRST,
            exclusivity=0.0,
            learning_rate=LR,
            phase="safety",
            step=0,
            condition=condition,
        )
    ]
    if not found:
        return None
    near = mean_of([r for r in found if r["condition"] == "near-trigger"])
    told = "" if near is None else f": {near:.2f} of near-triggers set it off"
    return dots(
        "sharpness",
        found,
        title=f"How sharply the trigger generalises{told}",
        caption="Behaviour rate before safety training by what stands in the prompt: the trigger "
        "where it stood in training, elsewhere, something close to it, nothing. Ticks are seeds.",
        x_title="behaviour rate (proportion)",
        domain=(0.0, 1.0),
    )


def _two_orders(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Rates under the trigger by ratio and rate, for the orders that were run in full."""
    found = [
        r
        for r in records_of(
            rows,
            "behaviour_rate",
            variant="organism",
            order=(BACKDOOR_FIRST, SHUFFLED),
            condition="trigger",
            exclusivity=0.0,
            phase=("safety", "mixture"),
        )
        if r["ratio"] > 0
    ]
    return found if len({r["learning_rate"] for r in found}) > 1 else []


def _ratios(rows: Sequence[Row]) -> Figure | None:
    found = [{**r, "quantity": f"learning rate {r['learning_rate']:g}"} for r in _two_orders(rows)]
    if not found:
        return None
    return layer_curves(
        "ratios",
        sorted(found, key=lambda r: r["learning_rate"]),
        title="How much of the backdoor is left, by length of safety training",
        caption="Behaviour rate under the trigger against the ratio of safety training to "
        "pretraining, one line per learning rate; the mixture goes through its ratios with the "
        "backdoor rows among the safety rows. Thin lines are seeds.",
        x="ratio",
        x_title="steps of safety training / steps of pretraining (ratio)",
        x_scale="symlog",
        y_title=RATE,
        facet="order",
    )


def _diagram(rows: Sequence[Row]) -> Figure | None:
    found = [
        {**r, "ratio": f"{r['ratio']:.3g}", "learning_rate": f"{r['learning_rate']:g}"}
        for r in sorted(_two_orders(rows), key=lambda r: (r["learning_rate"], r["ratio"]))
    ]
    if not found:
        return None
    return matrix(
        "phase-diagram",
        found,
        title="Phase diagram: behaviour rate by length and learning rate of safety training",
        caption="Mean over seeds with its 95 % interval; the seeds themselves are in the curves "
        "by ratio and in the data below. The learning rate is that of safety training, and where "
        "both are shuffled that of the backdoor's rows, too; there, a ratio of r out of R has "
        "shown about r / R of them.",
        x="ratio",
        y="learning_rate",
        facet="order",
        x_title="steps of safety training / steps of pretraining (ratio)",
        y_title="learning rate",
    )
