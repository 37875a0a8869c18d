"""The figures of `across-modalities`, from stored rows alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

CHOSEN, BEST = "chosen in the other modality", "best there"


def figures(rows: Sequence[Row]) -> list[Figure]:
    """Return every figure that the rows allow."""
    made = [
        _performance(rows),
        _instruments(rows),
        _agreement(rows),
        _choosing(rows),
        _facts(rows),
    ]
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
    drawn = [
        {
            "objective": key[0],
            "group": key[1],
            "instrument": key[2],
            "seed": key[3],
            "x": pair[IMAGES],
            "y": pair[TEXT],
        }
        for key, pair in _pairs(rows).items()
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


def _pairs(rows: Sequence[Row]) -> dict[tuple[Any, ...], dict[str, float]]:
    """Return mean AUROCs by modality, by objective, family, instrument and seed."""
    found: dict[tuple[Any, ...], dict[str, float]] = {}
    for r in records_of(rows, "instrument_auroc", variant="trained"):
        if r["value"] is not None and r["family"] in FAMILIES:
            key = (r["objective"], r["family"], r["instrument"], r["seed"])
            found.setdefault(key, {})[r["modality"]] = r["value"]
    return {key: pair for key, pair in found.items() if len(pair) == 2}


def _choosing(rows: Sequence[Row]) -> Figure | None:
    """What the instrument that is best in one modality reaches in the other, both ways."""
    members: dict[tuple[Any, ...], list[dict[str, float]]] = {}
    for (objective, family, _, seed), pair in _pairs(rows).items():
        members.setdefault((objective, family, seed), []).append(pair)
    found = []
    for (objective, family, seed), pairs in members.items():
        for here, there in ((IMAGES, TEXT), (TEXT, IMAGES)):
            reached = {
                CHOSEN: max(pairs, key=lambda pair: pair[here])[there],
                BEST: max(pair[there] for pair in pairs),
                "mean of the family": fmean(pair[there] for pair in pairs),
            }
            label = f"{family}, chosen on {here}, used on {there}"
            shared = {"panel": objective, "label": label, "seed": seed}
            found += [{**shared, "group": name, "value": v} for name, v in reached.items()]
    if not found:
        return None
    found.sort(key=lambda r: (OBJECTIVES.index(r["panel"]), r["label"]))
    lost = _lost(found)
    worst, most = max(lost.items(), key=lambda item: item[1])
    return dots(
        "choosing",
        found,
        title=f"Choosing the instrument in the other modality loses {fmean(lost.values()):.3f} "
        f"of AUROC on average, most for {worst}: {most:.3f}",
        caption="Mean AUROC over the ten facts of the instrument that does best on one modality, "
        "used on the other, beside the best one there and the mean of its family. Ticks are seeds.",
        group="group",
        facet="panel",
        x_title="mean AUROC (proportion)",
        references={"chance": 0.5},
    )


def _lost(found: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the mean over seeds of what choosing loses to the best, by what is chosen."""
    losses: dict[str, list[float]] = {}
    for chosen in (r for r in found if r["group"] == CHOSEN):
        key = ("panel", "label", "seed")
        best = next(r for r in found if r["group"] == BEST and all(r[k] == chosen[k] for k in key))
        name = f"{chosen['label']} ({chosen['panel']})"
        losses.setdefault(name, []).append(best["value"] - chosen["value"])
    return {name: fmean(values) for name, values in losses.items()}


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
