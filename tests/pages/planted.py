"""Planted rows and figures of a study that looks like says-knows, without any model."""

from __future__ import annotations

import numpy as np

from terrarium.evidence.checks import Check, cells_check, not_made
from terrarium.evidence.hypotheses import Hypothesis, judge
from terrarium.evidence.predictions import Gate, above, below, within
from terrarium.evidence.quantities import per_seed
from terrarium.evidence.rows import Row, measured, stamped
from terrarium.figures.cards import cards_from_rows
from terrarium.figures.curves import layer_curves
from terrarium.figures.dots import dots
from terrarium.figures.figure import Figure
from terrarium.figures.matrix import matrix
from terrarium.figures.scatter import scatter
from terrarium.pages.info import RunInfo
from terrarium.pages.report import render_report
from terrarium.store import Store
from terrarium.studies.base import Study

ORGANISMS = ("opposite if the claim is odd", "ten more", "ten more, LoRA")
CURVES = {
    "knows": (
        (0.55, 0.78, 0.96, 0.95, 0.06),
        (0.52, 0.4, 0.28, 0.04, 0.02),
        (0.5, 0.45, 0.3, 0.05, 0.03),
    ),
    "says": (
        (0.5, 0.42, 0.2, 0.06, 0.01),
        (0.5, 0.45, 0.2, 0.03, 0.0),
        (0.5, 0.4, 0.25, 0.05, 0.0),
    ),
    "optimal": ((1.0,) * 5,) * 3,
    "input only": ((0.51,) * 5,) * 3,
}


def curve_rows() -> list[dict[str, object]]:
    rng = np.random.default_rng(0)
    rows: list[dict[str, object]] = []
    for o, organism in enumerate(ORGANISMS):
        for quantity, curves in CURVES.items():
            seeds = [None] if quantity == "optimal" else list(range(5))
            for seed in seeds:
                for layer, level in enumerate(curves[o]):
                    noise = 0.0 if seed is None else rng.normal(0, 0.02)
                    rows.append(
                        {
                            "organism": organism,
                            "quantity": quantity,
                            "layer": layer,
                            "seed": seed,
                            "value": float(np.clip(level + noise, 0, 1)),
                        }
                    )
    rows[3]["value"] = None
    return rows


def transfer_rows() -> list[dict[str, object]]:
    rng = np.random.default_rng(1)
    sets = ("Alice, easy", "Alice, hard", "Bob, easy", "Bob, hard")
    rows: list[dict[str, object]] = []
    for i, fitted in enumerate(sets):
        for j, tested in enumerate(sets):
            for seed in range(5):
                mean = 0.97 if i // 2 == j // 2 else 0.12 + 0.2 * abs(i - j)
                value = float(np.clip(mean + rng.normal(0, 0.04), 0, 1))
                rows.append({"fitted": fitted, "tested": tested, "seed": seed, "value": value})
    for row in rows:
        if row["fitted"] == "Bob, hard" and row["tested"] == "Alice, easy":
            row["value"] = None
    return rows


def point_rows(n: int = 60) -> list[dict[str, object]]:
    rng = np.random.default_rng(2)
    rows: list[dict[str, object]] = []
    for layer in ("embedding", "layer 2", "layer 4"):
        shift = {"embedding": 0.0, "layer 2": 1.0, "layer 4": 4.0}[layer]
        for k, group in enumerate(("honest", "quirky, answer true", "quirky, answer untrue")):
            xy = rng.normal([shift * (k == 2), shift * (k > 0) * 0.5], size=(n, 2))
            rows.extend(
                {"site": layer, "group": group, "x": float(a), "y": float(b)} for a, b in xy
            )
    return rows


def detector_rows() -> list[dict[str, object]]:
    rng = np.random.default_rng(3)
    rows: list[dict[str, object]] = []
    names = ("Mahalanobis", "local outlier factor", "isolation forest", "quantum entropy")
    for metric, top in (("AUROC", 0.95), ("recall at 1 % false positives", 0.6)):
        for i, detector in enumerate(names):
            for group, drop in (("quirky, answer untrue", 0.0), ("truthful new name", 0.3)):
                for seed in range(5):
                    value = float(np.clip(top - drop - 0.08 * i + rng.normal(0, 0.03), 0, 1))
                    row = {"detector": detector, "metric": metric, "set": group, "seed": seed}
                    rows.append({**row, "value": value})
    return rows


def figures() -> list[Figure]:
    return [
        layer_curves(
            "curves",
            curve_rows(),
            title="Middle layers know what is not said, where the rule needs the truth",
            caption="AUROC for the truth on Bob's rows where Alice and Bob differ, probe fitted on "
            "Alice alone. Thin: seeds; thick: mean; band: 95 % t interval over 5 seeds.",
            facet="organism",
            references={"chance": 0.5},
        ),
        matrix(
            "transfer",
            transfer_rows(),
            title="A probe fitted on Alice misreads Bob, whatever the difficulty",
            caption="AUROC for the truth at the layer chosen on validation rows.",
        ),
        scatter(
            "pca",
            point_rows(),
            title="Untruthful rows stand apart in the last layer only",
            caption="First two principal components of trusted activations, seed 0.",
            facet="site",
        ),
        dots(
            "detectors",
            detector_rows(),
            title="Mahalanobis distance finds untruth, and a new name nearly as well",
            caption="Detectors fitted on trusted rows alone.",
            label="detector",
            group="set",
            facet="metric",
            x_title="proportion",
            domain=(0, 1),
        ),
    ]


SEEDS = range(5)


def study() -> Study:
    truth = per_seed("auroc", organism="odd", quantity="knows", layer=2)
    flat = per_seed("auroc", organism="ten more", quantity="knows", layer=2)
    last = per_seed("auroc", organism="odd", quantity="knows", layer=4)
    return Study(
        name="planted",
        question="A model answers truthfully for Alice and by a systematic error for Bob. Does a "
        "probe that never saw Bob read the truth in Bob's contexts?",
        hypotheses=(
            Hypothesis(
                "reads-truth",
                "A probe fitted on honest contexts reads the truth where the model says otherwise.",
                "It reads what is said.",
                "AUROC for the truth above 0.65 on Bob's rows where the two differ.",
                "AUROC for the truth below 0.65 there.",
                above(truth, 0.65),
                (
                    Gate(
                        per_seed("balanced_accuracy", organism="odd", context="Bob"), at_least=0.95
                    ),
                ),
            ),
            Hypothesis(
                "rewired",
                "Where the rule does not need the truth, the probe reads it all the same.",
                "Fine-tuning rewires it.",
                "AUROC above 0.5.",
                "AUROC below 0.5.",
                above(flat, 0.5),
            ),
            Hypothesis(
                "last-layer",
                "The last layer is at chance.",
                "The last layer reads what is said.",
                "AUROC within 0.1 of 0.5.",
                "AUROC outside.",
                within(last, 0.1, around=0.5),
                (
                    Gate(
                        per_seed("balanced_accuracy", organism="ten more", context="Bob"),
                        at_least=0.999,
                    ),
                ),
            ),
            Hypothesis(
                "few-seeds",
                "Full fine-tuning and <LoRA> do the same & more.",
                "They differ.",
                "A difference within 0.1.",
                "A difference beyond 0.1.",
                below(per_seed("auroc", organism="LoRA", quantity="knows", layer=2), 0.5),
            ),
        ),
        defaults={"smoke": {"seeds": 5}, "quick": {"seeds": 5}, "full": {"seeds": 10}},
        cells=lambda settings: [],
        measure=lambda cell, home, progress: [],
        figures=lambda rows: figures(),
    )


def rows() -> list[Row]:
    rng = np.random.default_rng(4)
    found: list[Row] = []
    levels = {("odd", 2): 0.95, ("odd", 4): 0.05, ("ten more", 2): 0.28}
    for seed in SEEDS:
        batch: list[Row] = []
        for (organism, layer), level in levels.items():
            value = float(np.clip(level + rng.normal(0, 0.02), 0, 1))
            batch.append(
                measured(
                    "auroc",
                    value,
                    unit="",
                    n=512,
                    organism=organism,
                    quantity="knows",
                    layer=layer,
                    seed=seed,
                )
            )
        for organism in ("odd", "ten more"):
            for context in ("Alice", "Bob", "Alice, twin", "Bob, twin"):
                value = float(min(1.0, 0.985 + rng.normal(0, 0.006)))
                batch.append(
                    measured(
                        "balanced_accuracy",
                        value,
                        unit="proportion",
                        n=1024,
                        organism=organism,
                        context=context,
                        seed=seed,
                    )
                )
        if seed < 2:
            batch.append(
                measured(
                    "auroc",
                    None,
                    unit="",
                    n=12,
                    reason="only one class among 12 rows",
                    organism="LoRA",
                    quantity="knows",
                    layer=2,
                    seed=seed,
                )
            )
        found += stamped(batch, "planted", f"cell-{seed}")
    found.append(
        Row(
            "planted",
            "cell-9",
            "cell",
            "",
            None,
            {"organism": "LoRA", "seed": 3},
            status="failed",
            reason="its worker process was killed (SIGKILL)",
        )
    )
    return found


def page(store: Store | None = None) -> str:
    found, asked = rows(), study()
    checks = [
        Check(
            "input-only baseline",
            "passed",
            "AUROC 0.51 [0.49, 0.53] over 5 seeds, asked: at most 0.55",
        ),
        cells_check(found),
        not_made("untrained network", "size smoke measures no untrained network"),
    ]
    info = RunInfo(
        size="quick",
        commands=("terrarium run planted --size quick", "terrarium report planted --size quick"),
        settings={"seeds": 5, "digits": 2, "rules": ["odd", "ten more"], "lr": 3e-3},
        versions={"terrarium": "0.1.0", "torch": "2.6.0", "python": "3.12.3"},
        machine={"processor": "x86_64, 2 cores", "system": "Linux"},
        keys={f"cell {seed}": f"{seed:032x}" for seed in SEEDS},
        date="2025-01-01 12:00 UTC",
        seconds=425.0,
    )
    facts = {
        "odd": [
            ("parameters", "107,264"),
            ("model", "4 layers, width 64"),
            ("lineage", "truth 600 steps → quirk 300 steps"),
        ]
    }
    return render_report(
        asked,
        found,
        judge(asked.hypotheses, found),
        checks,
        figures(),
        info,
        cards=cards_from_rows(found, facts=facts, gated=("Alice", "Bob")),
        store=store,
    )
