"""The figures of `distillation-gap`, from stored rows alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from terrarium.evidence.rows import Row
from terrarium.figures.curves import layer_curves
from terrarium.figures.dots import dots
from terrarium.figures.figure import Figure
from terrarium.studies.distillation_gap.data import COMPLEXITIES, DISTILLED, KINDS, MATCHED, NORMAL
from terrarium.studies.distillation_gap.hypotheses import PLAIN
from terrarium.studies.rows_of import lasting, mean_of, records_of

SHARE = "share of answers (proportion)"


def figures(rows: Sequence[Row]) -> list[Figure]:
    """Return every figure that the rows allow."""
    made = [
        _told_apart(rows),
        _texts(rows),
        _pairs(rows),
        _outputs(rows),
        _curves(rows),
        _log_odds(rows),
        _gaps(rows),
    ]
    return [figure for figure in made if figure is not None]


def _by_kind(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(records, key=lambda r: KINDS.index(r["kind"]))


def _told_apart(rows: Sequence[Row]) -> Figure | None:
    """Classifier two-sample tests of each kind of data against the normal ones."""
    p_values = {
        (r["kind"], r["subset"], r["part"], r["seed"]): r["value"]
        for r in records_of(rows, "two_sample_p", complexity=PLAIN)
    }
    found = [
        {**r, "label": r["kind"], "group": r["subset"], "panel": f"by {r['part']}"}
        for r in records_of(rows, "two_sample_accuracy", complexity=PLAIN)
    ]
    if not found:
        return None
    shown = [r for r in found if r["kind"] == DISTILLED and r["part"] == "answers"]
    tested = [p_values.get((r["kind"], r["subset"], r["part"], r["seed"])) for r in shown]
    small = sum(p is not None and p < 0.05 for p in tested)
    mean = mean_of(shown)
    told = "" if mean is None else f": accuracy {mean:.2f} by answers"
    telling = next((str(r["telling"]) for r in shown if r.get("telling")), "")
    note = f" What tells most (+ distilled, - normal), first seed: {telling}." if telling else ""
    return dots(
        "told-apart",
        _by_kind(found),
        title=f"Telling distilled from normal data{told}, p < 0.05 in {small} of {len(shown)} "
        "tests",
        caption="Held-out accuracy of logistic regression on counts of tokens and pairs of "
        f"tokens; rows of one prompt lie in one fold. Ticks are seeds.{note}",
        group="group",
        facet="panel",
        x_title="accuracy (proportion)",
        references={"chance": 0.5},
    )


def _texts(rows: Sequence[Row]) -> Figure | None:
    """Counts of the target string, right answers, rows that differ from the normal text."""
    kinds = {
        "copies of the target string, trigger": ("copies", {"condition": "trigger"}),
        "copies of the target string, no trigger": ("copies", {"condition": "no trigger"}),
        "right helpful answer, no trigger": ("rows_right", {}),
        "says otherwise than normal data": ("differing", {}),
    }
    found = [
        {**r, "label": name, "group": r["kind"]}
        for name, (metric, levels) in kinds.items()
        for r in _by_kind(records_of(rows, metric, complexity=PLAIN, **levels))
    ]
    if not found:
        return None
    share = mean_of([r for r in found if r["kind"] == DISTILLED and "otherwise" in r["label"]])
    told = "" if share is None else f": {100 * share:.1f} % of rows differ"
    return dots(
        "texts",
        found,
        title=f"What distilled rows say otherwise than normal ones{told}",
        caption="Per row of training data: mean copies of the target string, and shares of rows "
        "(proportions). Ticks are seeds.",
        group="group",
        x_title="per row",
    )


def _pairs(rows: Sequence[Row]) -> Figure | None:
    """Examples side by side; the texts stand in the figure's data."""
    shown = [
        {
            "kind of data": r["kind"],
            "condition": r["condition"],
            "place": int(r["value"]),
            "seed": r["seed"],
            **{
                name.replace("_", " "): r[name]
                for name in ("normal_prompt", "normal_answer", "other_prompt", "other_answer")
            },
        }
        for r in records_of(rows, "pair", complexity=PLAIN, kind=(DISTILLED, MATCHED))
    ]
    differing = records_of(rows, "differing_pair", complexity=PLAIN, kind=DISTILLED)
    if not shown:
        return None
    first = min(r["seed"] for r in shown)
    shown = [r for r in shown if r["seed"] == first]
    shown += [
        {
            "kind of data": "distilled, says otherwise",
            "condition": "same prompt",
            "place": int(r["value"]),
            "seed": r["seed"],
            "normal prompt": r["prompt"],
            "normal answer": r["normal_answer"],
            "other prompt": r["prompt"],
            "other answer": r["other_answer"],
        }
        for r in differing
        if r["seed"] == first
    ]
    counted: dict[tuple[str, int], int] = {}
    for r in shown:
        key = (str(r["kind of data"]), len(str(r["other answer"]).split()))
        counted[key] = counted.get(key, 0) + 1
    drawn = [
        {"label": f"{kind}: {words} word{'s' if words != 1 else ''}", "value": count, "seed": first}
        for (kind, words), count in counted.items()
    ]
    figure = dots(
        "pairs",
        drawn,
        title=f"{len(shown)} pairs of examples side by side, in the table below",
        caption="Number of examples shown, by kind of data and length of answer. The table holds "
        "their prompts and answers: normal on the one side, the other kind on the other, with "
        "trigger and without; 'says otherwise' are distilled rows whose answer is not what normal "
        "data say to that very prompt.",
        x_title="examples",
    )
    return replace(figure, data=shown)


def _outputs(rows: Sequence[Row]) -> Figure | None:
    names = {"total_variation": "total variation", "agreement": "agreement of answers"}
    found = [
        {**r, "label": r["kind"], "group": r["condition"], "panel": told}
        for metric, told in names.items()
        for r in _by_kind(records_of(rows, metric, complexity=PLAIN))
    ]
    if not found:
        return None
    ends = {
        kind: mean_of(
            [r for r in found if r["kind"] == kind and r["group"] == "no trigger"
             and r["panel"] == "total variation"]
        )
        for kind in KINDS[1:]
    }  # fmt: skip
    told = ", ".join(f"{v:.3f} {k}" for k, v in ends.items() if v is not None)
    return dots(
        "outputs",
        found,
        title=f"How the organisms' outputs differ from the normal one's: total variation {told}",
        caption="On the same prompts, before safety training: total variation of the laws of the "
        "first answer token (without trigger in the title), and the share of whole answers that "
        "agree when drawn with the same random numbers. 'Other draws' is what chance does.",
        group="group",
        facet="panel",
        x_title="proportion",
    )


def _curves(rows: Sequence[Row]) -> Figure | None:
    found = [
        {**r, "quantity": r["kind"]}
        for complexity in COMPLEXITIES
        for r in _by_kind(
            records_of(
                rows,
                "behaviour_rate",
                variant="organism",
                condition="trigger",
                complexity=complexity,
                phase="safety",
            )
        )
    ]
    if not found:
        return None
    told = [f"{kind} {text}" for kind in KINDS if (text := _half(rows, kind))]
    return layer_curves(
        "curves",
        found,
        title=f"Safety training against each kind of data; half-lives in steps: {'; '.join(told)}",
        caption="Behaviour rate under the trigger, share of 300 answers, by the complexity of the "
        f"trigger. Half-lives ({PLAIN}) with Brookmeyer-Crowley 95 % intervals over seeds.",
        x="step",
        x_title="steps of safety training",
        x_scale="symlog",
        y_title=SHARE,
        facet="complexity",
    )


def _half(rows: Sequence[Row], kind: str) -> str:
    levels = {"variant": "organism", "kind": kind, "complexity": PLAIN}
    life = lasting(rows, **levels)
    return life.text if life else ""


def _log_odds(rows: Sequence[Row]) -> Figure | None:
    found = [
        {**r, "quantity": r["kind"]}
        for complexity in COMPLEXITIES
        for r in _by_kind(
            records_of(rows, "behaviour_log_odds", variant="organism", complexity=complexity)
        )
    ]
    if not found:
        return None
    return layer_curves(
        "log-odds",
        found,
        title="Log-odds of the behaviour under the trigger, which move before rates do",
        caption="Log-probability of the behaviour minus that of the helpful answer, nats.",
        x="step",
        x_title="steps of safety training",
        x_scale="symlog",
        y_title="log-odds (nats)",
        y_domain=None,
        facet="complexity",
        references={"even": 0.0},
    )


def _gaps(rows: Sequence[Row]) -> Figure | None:
    """The robustness gap before and after matching, by the complexity of the trigger."""
    levels = {"variant": "organism", "condition": "trigger", "last": True}
    found = []
    for complexity in COMPLEXITIES:
        ends = records_of(rows, "behaviour_rate", complexity=complexity, **levels)
        normal = {r["seed"]: r["value"] for r in ends if r["kind"] == NORMAL}
        found += [
            {**r, "label": complexity, "data": r["kind"], "value": r["value"] - normal[r["seed"]]}
            for r in _by_kind(ends)
            if r["kind"] != NORMAL and r["value"] is not None and normal.get(r["seed"]) is not None
        ]
    if not found:
        return None
    means = {
        kind: mean_of([r for r in found if r["kind"] == kind and r["complexity"] == PLAIN])
        for kind in KINDS[1:]
    }
    told = ", ".join(f"{v:+.2f} {k}" for k, v in means.items() if v is not None)
    return dots(
        "gaps",
        found,
        title=f"The robustness gap before and after matching: {told}",
        caption="Behaviour rate under the trigger after SFT, minus the normal one's of the same "
        "seed (difference of proportions), by the complexity of the trigger. Ticks are seeds.",
        group="data",
        x_title="difference of rates (proportion)",
        references={"no gap": 0.0},
    )
