"""The figures of `says-knows`, from stored rows alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from terrarium.evidence.rows import Row
from terrarium.figures.curves import layer_curves
from terrarium.figures.dots import dots
from terrarium.figures.figure import Figure
from terrarium.figures.matrix import matrix
from terrarium.figures.scatter import scatter
from terrarium.studies.quirky import NEEDS_TRUTH
from terrarium.studies.rows_of import mean_of, records_of
from terrarium.studies.says_knows.hypotheses import MIDDLE

CHANCE = {"chance": 0.5}


def figures(rows: Sequence[Row]) -> list[Figure]:
    """Return every figure that the rows allow."""
    made = [
        _layers(rows),
        _probes(rows),
        _transfer(rows),
        _picture(rows),
        _detectors(rows),
        _recall(rows),
        _causal(rows),
        _before(rows),
    ]
    return [figure for figure in made if figure is not None]


def _layers(rows: Sequence[Row]) -> Figure | None:
    """Layer curves: what the honest probe reads on Bob's rows, beside the controls."""
    shared = {"split": "test", "scored_on": "quirky", "rows": "disagree"}
    honest = {"probe": "logistic_regression", "trained_on": "honest"}
    kinds = {
        "knows: the truth": {"variant": "organism", **honest, "against": "truth"},
        "knows: what is said": {"variant": "organism", **honest, "against": "said"},
        "the twin": {"variant": "twin", **honest, "against": "truth"},
        "untrained network": {"variant": "untrained", **honest, "against": "truth"},
    }
    records = [
        {**r, "quantity": name}
        for name, kind in kinds.items()
        for r in records_of(rows, "auroc", **shared, **kind)
    ]
    if not records:
        return None
    organisms = sorted({r["organism"] for r in records})
    layerless = {
        "says (output)": {"variant": "organism", "probe": "none: what is said"},
        "input alone": {"variant": "input only", "trained_on": "honest"},
    }
    flat = [
        {**r, "layer": layer, "quantity": name}
        for name, kind in layerless.items()
        for r in records_of(rows, "auroc", **shared, **kind, against="truth")
        for layer in sorted({x["layer"] for x in records if x["organism"] == r["organism"]})
    ]
    told = "; ".join(
        f"{organism}: {value:.2f}"
        for organism in organisms
        if (value := _middle(records, organism)) is not None
    )
    return layer_curves(
        "layers",
        [*records, *flat],
        title=f"The honest probe where Bob says otherwise, AUROC at layer {MIDDLE}: {told}",
        caption="AUROC for the truth on the rows of quirky names where truth and rule differ, of "
        "a logistic regression fitted on honest names alone. 1 reads the truth (optimal), 0 reads "
        "what is said. Thin lines are seeds, thick lines their mean with its 95 % interval.",
        facet="organism",
        references={"chance": 0.5, "optimal": 1.0},
    )


def _middle(records: Sequence[Mapping[str, Any]], organism: str) -> float | None:
    """Return the mean AUROC for the truth at the layer of the early exit."""
    return mean_of(
        [
            r
            for r in records
            if r["organism"] == organism
            and r["layer"] == MIDDLE
            and r["quantity"] == "knows: the truth"
        ]
    )


def _probes(rows: Sequence[Row]) -> Figure | None:
    """Every probe and null on Bob's rows, each at its earliest informative layer."""
    shared = {"variant": "organism", "trained_on": "honest", "organism": NEEDS_TRUTH}
    test = records_of(
        rows, "auroc", split="test", scored_on="quirky", rows="disagree", against="truth", **shared
    )
    validation = records_of(
        rows, "auroc", split="validation", scored_on="honest", rows="all", against="truth", **shared
    )
    chosen = _earliest_layers(validation)
    records = []
    for r in test:
        # A null without validation rows takes its best layer.
        layer = chosen.get((r["probe"], r["seed"])) or _best_of(test, r["probe"], r["seed"])
        if r["layer"] == layer:
            records.append({**r, "label": r["probe"]})
    if not records:
        return None
    records += _controls(rows)
    value = mean_of([r for r in records if r["probe"] == "logistic_regression"])
    told = "" if value is None else f": logistic regression {value:.2f}"
    return dots(
        "probes",
        records,
        title=f"Every probe on the rows where Bob says otherwise{told}",
        caption="AUROC for the truth, fitted on honest names, at each seed's earliest informative "
        f"layer by honest validation rows ({NEEDS_TRUTH}); nulls and the untrained network take "
        "their best layer. Ticks are seeds.",
        references=CHANCE,
        domain=(0.0, 1.0),
    )


def _controls(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The input alone, and the same probe on the untrained network at its best layer."""
    shared = {
        "organism": NEEDS_TRUTH,
        "trained_on": "honest",
        "scored_on": "quirky",
        "rows": "disagree",
        "against": "truth",
    }
    found = [
        {**r, "label": "logistic regression on the input alone"}
        for r in records_of(rows, "auroc", variant="input only", **shared)
    ]
    fresh = records_of(
        rows, "auroc", variant="untrained", probe="logistic_regression", split="test", **shared
    )
    for r in fresh:
        if r["layer"] == _best_of(fresh, r["probe"], r["seed"]):
            found.append({**r, "label": "logistic_regression, untrained network"})
    return found


def _earliest_layers(validation: Sequence[Mapping[str, Any]]) -> dict[tuple[Any, Any], int]:
    """Return each probe and seed's first layer with 95 % of the greatest gain over chance."""
    curves: dict[tuple[Any, Any], dict[int, float]] = {}
    for r in validation:
        if r["value"] is not None:
            curves.setdefault((r["probe"], r["seed"]), {})[r["layer"]] = r["value"]
    found = {}
    for key, curve in curves.items():
        top = max(curve.values())
        bar = top if top <= 0.5 else 0.5 + 0.95 * (top - 0.5)
        found[key] = min(layer for layer, value in curve.items() if value >= bar)
    return found


def _best_of(test: Sequence[Mapping[str, Any]], probe: Any, seed: Any) -> Any:
    own = [r for r in test if r["probe"] == probe and r["seed"] == seed and r["value"] is not None]
    return max(own, key=lambda r: r["value"], default={"layer": None})["layer"]


def _transfer(rows: Sequence[Row]) -> Figure | None:
    """The transfer matrix at the middle layer."""
    records = records_of(
        rows,
        "auroc",
        variant="organism",
        probe="logistic_regression",
        split="test",
        rows="all",
        against="truth",
        layer=MIDDLE,
    )
    if not records:
        return None
    hard = [
        r
        for r in records
        if r["trained_on"] == "honest easy"
        and r["scored_on"] == "quirky hard"
        and r["organism"] == NEEDS_TRUTH
    ]
    value = mean_of(hard)
    found = "" if value is None else f": {value:.2f} from Alice's easy to Bob's hard rows"
    return matrix(
        "transfer",
        records,
        title=f"Where a truth probe carries over to{found} ({NEEDS_TRUTH})",
        caption=f"AUROC for the truth of a logistic regression at layer {MIDDLE}, fitted on rows "
        "named at the left (all labels are the truth, but for 'said') and scored on those below. "
        "Means over seeds with 95 % intervals.",
        x="scored_on",
        y="trained_on",
        facet="organism",
    )


def _picture(rows: Sequence[Row]) -> Figure | None:
    """Principal components of honest and quirky activations."""
    points: dict[tuple[Any, ...], dict[str, Any]] = {}
    for r in records_of(rows, "principal_component"):
        key = (r["organism"], r["point"])
        kept = {k: r[k] for k in ("organism", "kind", "truth", "layer")}
        points.setdefault(key, kept)["x" if r["component"] == 1 else "y"] = r["value"]
    records = [p for p in points.values() if "x" in p and "y" in p]
    if not records:
        return None
    return scatter(
        "picture",
        records,
        title="Honest and quirky rows in the plane of their largest variance",
        caption="First two principal components of the residual stream at the last prompt token, "
        "middle layer, of the first seed, fitted on the rows shown without any label.",
        group="kind",
        facet="organism",
        detail=("truth",),
    )


def _detector_records(rows: Sequence[Row], metric: str) -> list[dict[str, Any]]:
    """The last layer of each organism, and the detector over all layers at once."""
    found = records_of(rows, metric, variant="organism")
    found += [
        {**r, "suspect": "quirky, untruthful (untrained network)"}
        for r in records_of(rows, metric, variant="untrained", suspect="quirky, untruthful")
    ]
    last: dict[Any, int] = {}
    for r in found:
        last[r["organism"]] = max(last.get(r["organism"], 0), int(r["layer"]))
    return [r for r in found if r["layer"] == last[r["organism"]] or r["site"] == "all"]


def _detectors(rows: Sequence[Row]) -> Figure | None:
    records = [r for r in _detector_records(rows, "detector_auroc") if r["organism"] == NEEDS_TRUTH]
    if not records:
        return None
    lies = mean_of([r for r in records if r["suspect"] == "quirky, untruthful"])
    names = mean_of([r for r in records if r["suspect"] == "truthful third name"])
    told = (
        ""
        if lies is None or names is None
        else f": mean AUROC {lies:.2f} against {names:.2f} for a truthful third name"
    )
    return dots(
        "detectors",
        records,
        title=f"Detectors that saw honest rows alone, on suspects of several kinds{told}",
        caption=f"AUROC against trusted rows at the last layer ({NEEDS_TRUTH}). Only the excess "
        "of untruthful rows over the controls means anything. Ticks are seeds.",
        label="detector",
        group="suspect",
        references=CHANCE,
        domain=(0.0, 1.0),
    )


def _recall(rows: Sequence[Row]) -> Figure | None:
    records = [
        r
        for r in _detector_records(rows, "recall_at_1_percent_fpr")
        if r["organism"] == NEEDS_TRUTH
    ]
    if not records:
        return None
    best = mean_of([r for r in records if r["suspect"] == "quirky, untruthful"])
    told = "" if best is None else f": {best:.2f} of untruthful rows on average"
    return dots(
        "recall",
        records,
        title=f"What detectors find at 1 % false positives{told}",
        caption="Recall (proportion) at the threshold that 1 % of trusted test rows exceed, last "
        f"layer ({NEEDS_TRUTH}). Ticks are seeds.",
        label="detector",
        group="suspect",
        x_title="recall at 1 % false positives (proportion)",
        domain=(0.0, 1.0),
    )


def _causal(rows: Sequence[Row]) -> Figure | None:
    records = [
        {**r, "label": f"{r['edit']} at layer {r['layer']}"}
        for r in records_of(rows, "answers_flipped", organism=NEEDS_TRUTH, context="quirky")
    ]
    if not records:
        return None
    truth = mean_of([r for r in records if r["direction"] == "truth" and r["edit"] == "reflect"])
    random = mean_of([r for r in records if r["direction"] == "random" and r["edit"] == "reflect"])
    told = (
        ""
        if truth is None or random is None
        else f": reflecting it flips {truth:.2f} of Bob's, a random one {random:.2f}"
    )
    return dots(
        "causal",
        records,
        title=f"What editing the truth direction does to the answers{told}",
        caption=f"Share of answers that flip when the last prompt token is edited ({NEEDS_TRUTH}, "
        "quirky names); the random direction has the activations' covariance and moves each row "
        "as far. Ticks are seeds; "
        "the title averages over layers.",
        group="direction",
        x_title="answers flipped (proportion)",
        domain=(0.0, 1.0),
    )


def _before(rows: Sequence[Row]) -> Figure | None:
    """What was legible before the quirk came."""
    records = [
        {**r, "quantity": r["scored_on"]}
        for r in records_of(
            rows,
            "auroc",
            variant="before the quirk",
            probe="logistic_regression",
            trained_on="honest",
            split="test",
            rows="all",
            against="truth",
            scored_on=("honest", "quirky"),
        )
    ]
    if not records:
        return None
    return layer_curves(
        "before",
        records,
        title="Where the truth is legible before the quirk comes",
        caption="AUROC for the truth of the honest probe after the truthful phase alone.",
        facet="organism",
        references=CHANCE,
    )
