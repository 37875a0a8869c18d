"""What the report of ``terrarium detect`` shows: figures from stored rows alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from terrarium.evidence.rows import Row
from terrarium.figures.curves import layer_curves
from terrarium.figures.dots import dots
from terrarium.figures.figure import Figure
from terrarium.studies.own_figures import CHANCE, INPUT, Record, records, told, varied

UNTRAINED = "mahalanobis, untrained network"
SERIES = ("mahalanobis", "local_outlier_factor", "isolation_forest", UNTRAINED, INPUT)
"""The detectors drawn over layers."""


def detect_figures(rows: Sequence[Row]) -> list[Figure]:
    """Return the figures of ``terrarium detect``, each if its rows are there."""
    found = (_layers(rows), _detectors(rows), _recall(rows))
    return [figure for figure in found if figure is not None]


def _layers(rows: Sequence[Row]) -> Figure | None:
    found = records(rows, "detector_auroc")
    layers = sorted({r["layer"] for r in found if r["layer"] is not None})
    drawn = []
    for series in SERIES:
        for r in found:
            if r["detector"] == series:
                at = layers if r["layer"] is None else [r["layer"]]
                drawn += [{**r, "quantity": series, "layer": layer} for layer in at]
    if not layers or not any(r["value"] is not None for r in drawn):
        return None
    last = _named(found, "mahalanobis", layer=layers[-1])
    words = _named(found, INPUT)
    several = len({r["suspect"] for r in found}) > 1
    return layer_curves(
        "layers",
        drawn,
        title=f"Suspect rows look odd at AUROC {told(last)} (Mahalanobis, last layer); "
        f"their words alone at {told(words)}",
        caption="AUROC of the rows against trusted rows that no detector was fitted on. Layers are "
        f"numbered by the blocks before the site; bands are 95 % intervals {varied(rows)}. Only "
        "what exceeds the input alone"
        + (" and the harmless control" if several else "")
        + " speaks of the model.",
        facet="suspect" if several else None,
        references=CHANCE,
    )


def _named(found: Sequence[Record], detector: str, **factors: Any) -> Record | None:
    factors = {"suspect": "suspect", "detector": detector, **factors}
    return next((r for r in found if all(r[k] == v for k, v in factors.items())), None)


def _last(rows: Sequence[Row], metric: str) -> list[Record]:
    """Return the last layer's records, and those that have no layer."""
    found = records(rows, metric)
    layers = [r["layer"] for r in found if r["layer"] is not None]
    return [
        {**r, "label": str(r["detector"])}
        for r in found
        if r["layer"] is None or r["layer"] == max(layers)
    ]


def _detectors(rows: Sequence[Row]) -> Figure | None:
    drawn = _last(rows, "detector_auroc")
    known = [r for r in drawn if r["value"] is not None and r["suspect"] == "suspect"]
    if not known:
        return None
    real = [r for r in known if r["detector"] not in (INPUT, UNTRAINED)]
    low, high = (end((r["value"] for r in real), default=None) for end in (min, max))
    finding = "" if low is None else f": AUROC {low:.2f} to {high:.2f}"
    return dots(
        "detectors",
        drawn,
        title=f"Every detector at the last layer{finding}; the words alone "
        f"{told(_named(known, INPUT))}",
        caption="AUROC of the rows against held-out trusted rows. The layer is set beforehand: "
        "no suspect row chose it. The log-odds detector sees all layers together; quantum entropy "
        "and spectral signature judge each row beside all others that they score. Rules are 95 % "
        f"intervals {varied(rows)}.",
        group="suspect" if len({r["suspect"] for r in drawn}) > 1 else None,
        references=CHANCE,
        domain=(0.0, 1.0),
    )


def _recall(rows: Sequence[Row]) -> Figure | None:
    drawn = _last(rows, "recall_at_1_percent_fpr")
    known = [r for r in drawn if r["value"] is not None and r["suspect"] == "suspect"]
    if not known:
        return None
    real = [r for r in known if r["detector"] not in (INPUT, UNTRAINED)]
    best = max(real, key=lambda r: r["value"], default=None)
    named = "no detector has a value" if best is None else best["label"].replace("_", " ")
    return dots(
        "recall",
        drawn,
        title=f"At 1 % false positives the best detector finds {told(best)} of the suspect rows "
        f"({named}); the words alone {told(_named(known, INPUT))}",
        caption="Recall (proportion) at the threshold that at most 1 % of held-out trusted rows "
        "exceed, last layer. Rules are 95 % intervals over suspect rows, each taken by itself and "
        "the threshold as given (Clopper-Pearson).",
        group="suspect" if len({r["suspect"] for r in drawn}) > 1 else None,
        x_title="recall at 1 % false positives (proportion)",
        domain=(0.0, 1.0),
    )
