"""What the report of ``terrarium probe`` shows: figures from stored rows alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from terrarium.evidence.intervals import mean_interval, shown
from terrarium.evidence.rows import Interval, Row
from terrarium.figures.curves import layer_curves
from terrarium.figures.dots import dots
from terrarium.figures.figure import Figure

SAID, INPUT, UNTRAINED, SHUFFLED = (
    "none: what is said",
    "input only",
    "untrained network",
    "shuffled labels",
)
PROBE = "logistic_regression"
CHANCE = {"chance": 0.5}
SERIES = {
    SAID: "says",
    PROBE: "knows: logistic regression",
    "difference_in_means": "difference in means",
    "contrast_logistic_regression": "contrast pairs",
    INPUT: INPUT,
    UNTRAINED: UNTRAINED,
    SHUFFLED: SHUFFLED,
}
"""The probes drawn over layers, and what their curves are called."""

_ORDER = {SAID: 0, "best": 2, UNTRAINED: 3, SHUFFLED: 4, INPUT: 5}
"""Where what is said and the nulls stand among the probes."""

Record = dict[str, Any]


def probe_figures(rows: Sequence[Row]) -> list[Figure]:
    """Return the figures of ``terrarium probe``, each if its rows are there."""
    found = (_layers(rows), _all_probes(rows), _disagree(rows), _difficulty(rows), _groups(rows))
    return [figure for figure in found if figure is not None]


def records(found: Iterable[Row], metric: str, /, **factors: Any) -> list[Record]:
    """Return flat dicts of the rows of ``metric`` that have these factors, shuffles averaged."""
    plain: list[Record] = []
    shuffled: dict[tuple[Any, ...], list[float]] = {}
    for row in found:
        if row.metric != metric or any(row.factors.get(k) != v for k, v in factors.items()):
            continue
        known = {k: v for k, v in row.factors.items() if k != "shuffle"}
        if "shuffle" in row.factors:
            if row.value is not None:
                shuffled.setdefault(tuple(known.items()), []).append(row.value)
        else:
            plain.append(_record(known, row.value, row.interval))
    for key, values in shuffled.items():
        band = mean_interval(values, over="shuffles") if len(values) > 1 else None
        plain.append(_record(dict(key), fmean(values), band))
    return plain


def _record(factors: Mapping[str, Any], value: float | None, band: Interval | None) -> Record:
    ends = {"low": band.low if band else None, "high": band.high if band else None}
    return {**factors, "seed": None, "value": value, **ends}


def chosen_layers(rows: Iterable[Row]) -> dict[tuple[str, str], Any]:
    """Return each probe's layer with the best AUROC on validation rows, the earliest of equals.

    Keyed by probe and by what it was trained on; the nulls choose in the same way.
    """
    best: dict[tuple[str, str], tuple[float, Any]] = {}
    for r in records(rows, "auroc", split="validation", rows="all", against="label"):
        key = (r["probe"], r["trained_on"])
        if r["value"] is not None and r["value"] > best.get(key, (-1.0, None))[0]:
            best[key] = (r["value"], r["layer"])
    return {key: layer for key, (_, layer) in best.items()}


def at_chosen(found: Sequence[Row], /, **factors: Any) -> list[Record]:
    """Return test records, each probe at its chosen layer (what is said has none to choose)."""
    layers = {(SAID, "all"): None, **chosen_layers(found)}
    return [
        r
        for r in records(found, "auroc", split="test", **factors)
        if layers.get((r["probe"], r["trained_on"]), "none") == r["layer"]
    ]


def told(record: Mapping[str, Any] | None) -> str:
    """Return ``"0.93 [0.90, 0.96]"``, or that there is no value."""
    if record is None or record["value"] is None:
        return "undefined"
    if record["low"] is None:
        return f"{record['value']:.2f}"
    return shown(record["value"], Interval(record["low"], record["high"]))


def varied(rows: Iterable[Row]) -> str:
    """Return over what the intervals of these rows' AUROCs run, in words."""
    if any(r.interval is not None and r.interval.over == "groups" for r in rows):
        return (
            "over the groups of rows of this one model (Obuchowski; rows of one group may depend "
            "on each other)"
        )
    return "over the rows of this one model (DeLong), which are taken to be independent"


def of_probe(found: Iterable[Record], probe: str, trained_on: str = "all") -> Record | None:
    """Return the record of a probe, if there is one."""
    chosen = (r for r in found if (r["probe"], r["trained_on"]) == (probe, trained_on))
    return next(chosen, None)


def _over_layers(found: Sequence[Record]) -> list[Record]:
    """Name the curves, and draw what has no layer (the input, what is said) at each of them."""
    layers = sorted({r["layer"] for r in found if r["layer"] is not None})
    drawn = []
    for probe, quantity in SERIES.items():
        for r in found:
            if (r["probe"], r["trained_on"]) == (probe, "all"):
                at = layers if r["layer"] is None else [r["layer"]]
                drawn += [{**r, "quantity": quantity, "layer": layer} for layer in at]
    return drawn


def _layers(rows: Sequence[Row]) -> Figure | None:
    found = records(rows, "auroc", split="test", rows="all", against="label")
    drawn = _over_layers(found)
    best = of_probe(at_chosen(rows, rows="all", against="label"), PROBE)
    if best is None or not any(r["value"] is not None for r in drawn):
        return None
    words = told(of_probe(found, INPUT))
    return layer_curves(
        "layers",
        drawn,
        title=f"Logistic regression reads the label at AUROC {told(best)} after block "
        f"{best['layer']}; the words alone give {words}",
        caption="AUROC for the label on test rows. Layers are numbered by the blocks before the "
        "site, and the one in the title was chosen on validation rows. Bands are 95 % intervals "
        f"{varied(rows)}; those of shuffled labels are over five shuffles. "
        "What is said and the input alone have no layer and are drawn as level lines.",
        references=CHANCE,
    )


def _all_probes(rows: Sequence[Row]) -> Figure | None:
    found = at_chosen(rows, rows="all", against="label")
    found.sort(key=lambda r: _ORDER.get(r["probe"].partition(" of ")[0], 1))
    drawn = [{**r, "label": _at_layer(r)} for r in found if r["trained_on"] == "all"]
    known = [r for r in drawn if r["value"] is not None]
    if not known:
        return None
    nulls = (SAID, INPUT, UNTRAINED, SHUFFLED)
    real = [r for r in known if r["probe"] not in nulls and not r["probe"].startswith("best of")]
    best = max(real, key=lambda r: r["value"], default=None)
    null = next((r for r in known if r["probe"].startswith("best of")), None)
    finding = "" if best is None else f": {best['probe'].replace('_', ' ')} {told(best)}"
    against = "" if null is None else f", {null['probe']} {told(null)}"
    return dots(
        "probes",
        drawn,
        title=f"Every probe and null on test rows{finding}{against}",
        caption="AUROC for the label. Each probe, and each null, at the layer that is best for it "
        "on validation rows. Rules are 95 % intervals "
        f"{varied(rows)}; that of shuffled labels is over five shuffles.",
        references=CHANCE,
        domain=(0.0, 1.0),
    )


def _at_layer(r: Mapping[str, Any]) -> str:
    return str(r["probe"]) if r["layer"] is None else f"{r['probe']} (layer {r['layer']})"


def _disagree(rows: Sequence[Row]) -> Figure | None:
    found = records(rows, "auroc", split="test", rows="disagree", against="label")
    drawn = _over_layers(found)
    if not any(r["value"] is not None for r in drawn):
        return None
    says = of_probe(found, SAID)
    knows = of_probe(at_chosen(rows, rows="disagree", against="label"), PROBE)
    return layer_curves(
        "disagree",
        drawn,
        title=f"Where label and quirky label differ: what is said {told(says)}, what logistic "
        f"regression reads {told(knows)}",
        caption="AUROC for the label on the test rows whose quirky label is the opposite: 1 is the "
        "label, 0 the quirky label. Probes were fitted on all training rows, with the label; the "
        "probe in the title is at the layer chosen on all validation rows. Bands are 95 % "
        f"intervals {varied(rows)}.",
        references=CHANCE,
    )


def _difficulty(rows: Sequence[Row]) -> Figure | None:
    drawn = []
    for subset in ("easy", "hard"):
        found = at_chosen(rows, rows=subset, against="label")
        for trained_on in ("all", "easy"):
            for probe in (PROBE, INPUT):
                r = of_probe(found, probe, trained_on)
                if r is not None:
                    label = f"{probe}: from {trained_on} to {subset} rows"
                    drawn.append({**r, "label": label})
    carried = next((r for r in drawn if r["label"] == f"{PROBE}: from easy to hard rows"), None)
    if carried is None:
        return None
    whole = next((r for r in drawn if r["label"] == f"{PROBE}: from all to hard rows"), None)
    return dots(
        "difficulty",
        drawn,
        title=f"From easy rows to hard ones: {told(carried)}, against {told(whole)} for the probe "
        "fitted on all rows",
        caption="AUROC for the label on test rows; easy and hard are the quartiles of the file's "
        "difficulty. Layers were chosen on validation rows. Rules are 95 % intervals "
        f"{varied(rows)}.",
        references=CHANCE,
        domain=(0.0, 1.0),
    )


def _groups(rows: Sequence[Row]) -> Figure | None:
    names = {str(r.factors.get("rows")) for r in rows if r.metric == "auroc"}
    drawn = []
    for name in sorted(n for n in names if n.startswith("group: ")):
        r = of_probe(at_chosen(rows, rows=name, against="label"), PROBE)
        if r is not None:
            drawn.append({**r, "label": name.removeprefix("group: ")})
    known = [r for r in drawn if r["value"] is not None]
    if not known:
        return None
    worst = min(known, key=lambda r: r["value"])
    return dots(
        "groups",
        drawn,
        title=f"By group, logistic regression is weakest on {worst['label']}: {told(worst)}",
        caption="AUROC for the label on the test rows of each group that has twenty of them or "
        "more (twenty largest groups), at the layer chosen on all validation rows. Rules are "
        "95 % intervals over the rows of the group (DeLong).",
        references=CHANCE,
        domain=(0.0, 1.0),
    )
