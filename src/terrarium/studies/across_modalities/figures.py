"""The figures of `across-modalities`, from stored rows alone."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from terrarium.evidence.rows import Row
from terrarium.figures.curves import layer_curves
from terrarium.figures.dots import dots
from terrarium.figures.figure import Figure
from terrarium.figures.scatter import scatter
from terrarium.studies.across_modalities.instruments import (
    FAMILIES,
    INPUT,
    READ,
    SHUFFLED,
)
from terrarium.studies.across_modalities.performance import SHARE
from terrarium.studies.across_modalities.tasks import BASE, IMAGES, OBJECTIVES, TEXT
from terrarium.studies.rows_of import mean_of, records_of


def figures(rows: Sequence[Row]) -> list[Figure]:
    """Return every figure that the rows allow."""
    made = [_performance(rows), _instruments(rows), _agreement(rows), _facts(rows)]
    return [figure for figure in made if figure is not None]


def _performance(rows: Sequence[Row]) -> Figure | None:
    """Share of the oracle against parameters: text and images on one plot."""
    counts = {
        (r["modality"], r["objective"], r["size"], r["seed"]): r["value"]
        for r in records_of(rows, "parameters", variant="trained")
    }
    found = [
        {
            **r,
            "quantity": f"{r['objective']} {r['modality']}",
            "parameters": counts[r["modality"], r["objective"], r["size"], r["seed"]],
        }
        for r in records_of(rows, SHARE, variant="trained")
    ]
    if not found:
        return None
    at = {
        modality: mean_of(
            [r for r in found if r["quantity"] == f"autoencode {modality}" and r["size"] == BASE]
        )
        for modality in (IMAGES, TEXT)
    }
    told = ", ".join(f"{m} {v:.2f}" for m, v in at.items() if v is not None)
    return layer_curves(
        "performance",
        found,
        title=f"Share of the oracle's performance by parameters: autoencoders of {told} at size "
        f"{BASE}",
        caption="1 is the oracle; 0 the best output that is the same for every example. Held-out "
        "examples; the same facts, told or shown. Thin lines are seeds.",
        x="parameters",
        x_title="parameters",
        x_scale="symlog",
        y_title="share of the oracle (proportion)",
        y_domain=None,
        references={"oracle": 1.0, "blind": 0.0},
    )


def _instruments(rows: Sequence[Row]) -> Figure | None:
    """Each instrument's mean AUROC on images against that on text."""
    found: dict[tuple[Any, ...], dict[str, float]] = {}
    for r in records_of(rows, "instrument_auroc", variant="trained"):
        if r["value"] is not None and r["family"] in FAMILIES:
            key = (r["objective"], r["family"], r["instrument"], r["seed"])
            found.setdefault(key, {})[r["modality"]] = r["value"]
    drawn = [
        {
            "objective": key[0],
            "group": key[1],
            "instrument": key[2],
            "seed": key[3],
            "x": pair[IMAGES],
            "y": pair[TEXT],
        }
        for key, pair in found.items()
        if len(pair) == 2
    ]
    if not drawn:
        return None
    rho = [
        r["value"]
        for r in records_of(rows, "rank_agreement", variant="trained")
        if r["value"] is not None
    ]
    told = f", mean rank agreement within families {fmean(rho):.2f}" if rho else ""
    return scatter(
        "instruments",
        drawn,
        title=f"How well each instrument finds facts in images and in text{told}",
        caption="A point is one instrument on one pair of organisms (one seed): mean AUROC over "
        "the ten facts. A dictionary is as good as its best single feature, chosen on other rows.",
        facet="objective",
        x_title="images: mean AUROC (proportion)",
        y_title="text: mean AUROC (proportion)",
        groups=tuple(FAMILIES),
        detail=("instrument", "seed"),
    )


def _agreement(rows: Sequence[Row]) -> Figure | None:
    """Rank agreement by family, objective, trained or not."""
    found = [
        {**r, "label": f"{r['family']}, {r['objective']}", "group": r["variant"]}
        for r in records_of(rows, "rank_agreement")
    ]
    found.sort(key=lambda r: (r["family"], OBJECTIVES.index(r["objective"])))
    if not any(r["value"] is not None for r in found):
        return None
    parts = {
        variant: mean_of([r for r in found if r["group"] == variant])
        for variant in ("trained", "untrained")
    }
    told = ", ".join(f"{v:.2f} {name}" for name, v in parts.items() if v is not None)
    return dots(
        "agreement",
        found,
        title=f"Does the order of instruments carry over from images to text? Mean rho {told}",
        caption="Spearman's rank correlation over the instruments of a family, of their mean "
        "AUROC on images and on text. Ticks are seeds.",
        group="group",
        x_title="rank agreement (Spearman's rho)",
        domain=(-1.0, 1.0),
        references={"no agreement": 0.0},
    )


def _facts(rows: Sequence[Row]) -> Figure | None:
    """Each instrument's mean over facts, by modality, with the baselines."""
    order = [name for members in FAMILIES.values() for name in members] + [INPUT, SHUFFLED]
    found = [
        {
            **r,
            "label": r["instrument"].replace("_", " "),
            "group": r["modality"],
            "panel": r["objective"],
        }
        for r in records_of(rows, "instrument_auroc", variant="trained")
    ]
    found.sort(key=lambda r: (OBJECTIVES.index(r["objective"]), order.index(r["instrument"])))
    if not found:
        return None
    shown = [r for r in found if r["instrument"] == READ and r["objective"] == OBJECTIVES[-1]]
    parts = {m: mean_of([r for r in shown if r["modality"] == m]) for m in (IMAGES, TEXT)}
    told = ", ".join(f"{v:.2f} in {name}" for name, v in parts.items() if v is not None)
    return dots(
        "facts",
        found,
        title=f"Mean AUROC over ten facts: a supervised probe of autoencoders reads {told}",
        caption="Probes are told the fact; detectors are fitted on rows where it does not hold; "
        "of dictionaries the best single feature counts, chosen on other rows. Ticks are seeds.",
        group="group",
        facet="panel",
        x_title="mean AUROC (proportion)",
        references={"chance": 0.5},
    )
