"""The figures of `frobnoloids`, from stored rows alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from terrarium.evidence.rows import Row
from terrarium.figures.dots import dots
from terrarium.figures.figure import Figure
from terrarium.figures.gallery import gallery
from terrarium.figures.scatter import scatter
from terrarium.studies.frobnoloids.circuit_figures import members, names
from terrarium.studies.frobnoloids.hypotheses import kinds_of
from terrarium.studies.frobnoloids.organisms import ALL_KINDS, POINTS, RANDOM, TRAINED
from terrarium.studies.rows_of import mean_of, records_of

CALLED, OTHER, NETWORK = "frobnoloid", "another feature", "random network"


def figures(rows: Sequence[Row]) -> list[Figure]:
    """Return every figure that the rows allow."""
    made = [
        _plane(rows),
        _fractions(rows),
        _scores(rows),
        *(_gallery(rows, *kind) for kind in ALL_KINDS),
        _circuits(rows),
        members(rows),
        names(rows),
        _controls(rows),
    ]
    return [figure for figure in made if figure is not None]


def _task(record: dict[str, Any]) -> str:
    return f"{record['objective']} {record['modality']}"


def _by_kind(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(records, key=lambda r: ALL_KINDS.index((r["modality"], r["objective"])))


def _log(value: float) -> float:
    return math.copysign(math.log10(1 + abs(value)), value)


def _told_fraction(rows: Sequence[Row], variant: str, kind: tuple[str, str]) -> float | None:
    return mean_of(
        records_of(
            rows, "share", score=CALLED, variant=variant, modality=kind[0], objective=kind[1]
        )
    )


def _plane(rows: Sequence[Row]) -> Figure | None:
    found = [
        {
            "panel": _task(r),
            "group": NETWORK if r["variant"] == RANDOM else (CALLED if r["frobnoloid"] else OTHER),
            "x": r["nameability"],
            "y": _log(r["value"]),
            "seed": r["seed"],
            "feature": r["feature"],
            "best name": r["concept"],
            "structure": r.get("structure"),
        }
        for r in _by_kind(records_of(rows, "feature"))
        if r["value"] is not None and r.get("nameability") is not None
    ]
    if not found:
        return None
    lost = len(records_of(rows, "feature")) - len(found)
    left = f" {lost} without one of the two are not drawn." if lost else ""
    count = sum(r["group"] == CALLED for r in found)
    trained = sum(r["group"] != NETWORK for r in found)
    wrong = sum(
        r["frobnoloid"]
        for r in records_of(rows, "feature", variant=RANDOM)
        if r["value"] is not None
    )
    bar = mean_of(records_of(rows, "bar", score="nameability"))
    told = "" if bar is None else f" Bars come from plants; nameless is below {bar:.2f} on average."
    return scatter(
        "plane",
        found,
        title=f"{count} of {trained} features are nameless but useful, {wrong} in random networks",
        caption="A point is a feature of a dictionary, or a unit of a coordinate network. "
        "Importance: how much worse the output gets without it, in standard deviations of random "
        "directions of the same displacement, as sign × log10(1 + size). Nameability: held-out R² "
        f"of the best names.{told}{left}",
        facet="panel",
        x_title="nameability (held-out R²)",
        y_title="importance (signed log10 of SD)",
        groups=(NETWORK, OTHER, CALLED),
        detail=("feature", "seed", "best name", "structure"),
        height=200,
    )


def _fractions(rows: Sequence[Row]) -> Figure | None:
    found = [
        {**r, "label": _task(r), "group": r["variant"]}
        for r in _by_kind(records_of(rows, "share", score=CALLED))
    ]
    if not found:
        return None
    told = []
    for kind in kinds_of(rows):
        value = _told_fraction(rows, TRAINED, kind)
        if value is not None:
            told.append(f"{value:.0%} {kind[1]} {kind[0]}")
    return dots(
        "fractions",
        found,
        title=f"Nameless but useful features: {', '.join(told)}",
        caption="Share of a dictionary's live features that are frobnoloids (false discoveries "
        "held at 10 % within a network), beside networks of the same shape as they were drawn. "
        "Ticks are seeds.",
        group="group",
        x_title="share of features (proportion)",
        references={"none": 0.0},
    )


_WORDS = {
    "structure": "regular",
    "importance": "important",
    "nameless": "nameless",
    CALLED: "all three",
    "half": "all three, R² < 0.5",
    "frobnoloid, beyond varying": "all three, above the site's own variation",
}


def _scores(rows: Sequence[Row]) -> Figure | None:
    found = [
        {**r, "label": words, "panel": _task(r), "group": r["variant"]}
        for r in _by_kind(records_of(rows, "share"))
        for score, words in _WORDS.items()
        if r["score"] == score
    ]
    if not found:
        return None
    parts = []
    for score in ("structure", "importance", "nameless"):
        value = mean_of(records_of(rows, "share", score=score, variant=TRAINED))
        other = mean_of(records_of(rows, "share", score=score, variant=RANDOM))
        if value is not None and other is not None:
            parts.append(f"{value:.0%} {_WORDS[score]} (random: {other:.0%})")
    return dots(
        "scores",
        found,
        title=f"Of all features {', '.join(parts)}",
        caption="Share of live features above (for names: below) the bar that plants set, with p "
        "of at most 0.05 each; 'all three' by the one p-value of the decision. Ticks are seeds.",
        group="group",
        facet="panel",
        x_title="share of features (proportion)",
        domain=(0.0, 1.0),
    )


def _gallery(rows: Sequence[Row], modality: str, objective: str) -> Figure | None:
    found = records_of(rows, "picture", modality=modality, objective=objective)
    if not found:
        return None
    called = len({r["feature"] for r in found if r["frobnoloid"]})
    shown = [
        {
            "line": f"{r['feature']}{' (frobnoloid)' if r['frobnoloid'] else ''}: "
            f"{r['nameability']:.2f}",
            "column": r["column"],
            "image": r["image"],
            "best name": r["concept"],
            "frobnoloid": r["frobnoloid"],
        }
        for r in sorted(found, key=lambda r: r["rank"])
    ]
    told = (
        f"{called} frobnoloid{'s' * (called > 1)} of 3"
        if called
        else "no frobnoloid, the nearest candidates"
    )
    what = "" if objective == "classify" else (
        " 'Adds': the output less the output without the feature, enlarged three times, grey where "
        "nothing is added."
    )  # fmt: skip
    caption = (
        "First seed: the three features with the greatest strength, on the images where each is "
        "most active: the image as the network is given it, the patch that the most active place "
        f"sees, the feature's map (white: its largest value).{what} Behind the "
        "name the R² of the best names."
    )
    if modality == POINTS:
        caption = (
            "First seed: the three units with the greatest strength, on a slice through the "
            "middle of the scene: the exact distance (grey on the surface, darker inside), the "
            "unit (white: its largest value), and what the unit adds to the distance that the "
            "network says (grey where nothing), each on a scale of its own. Behind "
            "the name the R² of the best names."
        )
    return gallery(
        f"gallery-{objective}".replace(" ", "-"),
        shown,
        title=f"What the strongest {'units' if modality == POINTS else 'features'} of {objective} "
        f"respond to: {told}",
        caption=caption,
        row="line",
        column="column",
        size=44,
    )


def _circuits(rows: Sequence[Row]) -> Figure | None:
    words = {"circuit": "its circuit", "random": "random circuits"}
    found = [
        {
            "label": f"{_task(r)}, {'frobnoloids' if r['of'] == 'frobnoloids' else 'candidates'}",
            "group": words[r["circuit"]],
            "value": r["value"],
            "seed": r["seed"],
        }
        for r in _by_kind(records_of(rows, "mean_faithfulness", variant=TRAINED))
        if r["of"] in ("frobnoloids", "candidates")
    ]
    if not any(r["value"] is not None for r in found):
        return None
    parts = {group: mean_of([r for r in found if r["group"] == group]) for group in words.values()}
    own, other = parts[words["circuit"]], parts[words["random"]]
    told = "" if own is None or other is None else f": {own:.2f} against {other:.2f}"
    sizes = [r["size"] for r in records_of(rows, "faithfulness", circuit="circuit") if "size" in r]
    mean = f" of {sum(sizes) / len(sizes):.1f} units on average" if sizes else ""
    return dots(
        "circuits",
        found,
        title=f"Circuits keep more of a feature than random circuits of their size{told}"
        if own is not None and other is not None and own > other
        else f"Circuits keep no more of a feature than random circuits{told}",
        caption=f"Share of the feature's variance kept when all upstream units but a circuit{mean} "
        "are at their means, on examples that did not choose it (at least -1); the two strongest "
        "features of each organism. Candidates are those not called frobnoloids. Ticks are seeds.",
        group="group",
        x_title="share of variance kept",
        domain=(-1.0, 1.0),
        references={"the mean": 0.0, "all": 1.0},
    )


def _controls(rows: Sequence[Row]) -> Figure | None:
    order = ("unnamed and important", "named", "noise")
    found = [
        {**r, "label": f"{r['plant']} plants", "group": _task(r)}
        for plant in order
        for r in _by_kind(records_of(rows, "plants_called", plant=plant))
    ]
    if not found:
        return None
    area = mean_of(records_of(rows, "plant_auroc"))
    shares = [(plant, mean_of(records_of(rows, "plants_called", plant=plant))) for plant in order]
    told = ", ".join(
        f"{100 * share:.0f} % of {plant}" for plant, share in shares if share is not None
    )
    ranked = "" if area is None else f"; AUROC {area:.2f}"
    return dots(
        "controls",
        found,
        title=f"Plants that are called frobnoloids: {told}{ranked}",
        caption="Share of plants that are called frobnoloids; other plants than those that set the "
        "bars. AUROC: unnamed plants that matter against all others, by strength. Ticks are seeds.",
        group="group",
        x_title="share called frobnoloids (proportion)",
        domain=(0.0, 1.0),
    )
