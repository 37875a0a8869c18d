"""Figures of `persistence` on single factors: start, size, optimiser, copies, what comes after."""

from __future__ import annotations

from collections.abc import Sequence

from terrarium.evidence.rows import Row
from terrarium.figures.curves import layer_curves
from terrarium.figures.dots import dots
from terrarium.figures.figure import Figure
from terrarium.figures.scatter import scatter
from terrarium.studies.persistence.drawn import RATE, SHARE, STEPS, lifetimes, plain
from terrarium.studies.persistence.hypotheses import HALF_RIGHT, PLAIN
from terrarium.studies.persistence.sizes import MODELS
from terrarium.studies.persistence.ways import NORMAL, RL, SAFETIES, SFT, WAYS
from terrarium.studies.rows_of import mean_of, records_of


def divergence(rows: Sequence[Row]) -> Figure | None:
    """The behaviour against how far the answers without trigger have moved."""
    found = []
    for start in ("right", HALF_RIGHT):
        levels = plain("safety", start=start)
        moved = {
            (r["safety"], r["seed"], r["step"]): r["value"]
            for r in records_of(rows, "divergence", **levels, phase="safety")
        }
        found += [
            {**r, "rate": r["value"], "moved": moved[r["safety"], r["seed"], r["step"]]}
            for r in records_of(
                rows, "behaviour_rate", **levels, condition="trigger", phase="safety"
            )
            if r["value"] is not None and moved.get((r["safety"], r["seed"], r["step"])) is not None
        ]
    if len({r["safety"] for r in found}) < 2:
        return None
    return scatter(
        "divergence",
        found,
        title="What is left of the backdoor against how far safety training has moved the rest",
        caption="Each point is a kept step of one seed. Divergence of the answers without trigger "
        "from those at the start of safety training, nats per answer: kinds of training are "
        "matched where they have moved as far. Panels: right or half right at the start.",
        x="moved",
        y="rate",
        group="safety",
        facet="start",
        x_title="divergence from the start (nats)",
        y_title="behaviour rate (proportion)",
        groups=SAFETIES,
        detail=("seed", "step"),
    )


def half_right(rows: Sequence[Row]) -> Figure | None:
    """RL and SFT from half right: what is left of the backdoor, and who gets right."""
    kinds = {
        "behaves, trigger": ("behaviour_rate", "trigger"),
        "right, no trigger": ("helpful_accuracy", "no trigger"),
        "right, trigger": ("helpful_accuracy", "trigger"),
    }
    found = [
        {**r, "quantity": name}
        for safety in SAFETIES
        for name, (metric, condition) in kinds.items()
        for r in records_of(
            rows,
            metric,
            **plain(safety=safety, start=HALF_RIGHT),
            condition=condition,
            phase="safety",
        )
    ]
    if not found:
        return None
    told = []
    for safety in (SFT, RL):
        mean = mean_of(
            [r for r in found if r["safety"] == safety and r["last"]
             and r["quantity"] == "behaves, trigger"]
        )  # fmt: skip
        told += [f"{mean:.2f} {safety}"] if mean is not None else []
    variance = mean_of(
        records_of(
            rows,
            "reward_variance",
            **plain(safety=RL, start=HALF_RIGHT),
            phase="safety",
            step=0,
        )
    )
    note = "" if variance is None else f" Variance of the reward within a prompt: {variance:.3f}."
    return layer_curves(
        "half-right",
        found,
        title=f"RL and SFT from organisms that are half right; behaviour left: {', '.join(told)}",
        caption="As many gradient steps and sequences a step; RL is RLOO on the helpful reward "
        f"with a penalty on divergence.{note}",
        x="step",
        x_title=STEPS,
        x_scale="symlog",
        y_title=SHARE,
        facet="safety",
    )


def sizes(rows: Sequence[Row]) -> Figure | None:
    """The backdoor along SFT, by size of model."""
    found = [
        {**r, "quantity": f"{size} (layers x width)"}
        for size in MODELS
        for r in records_of(
            rows,
            "behaviour_rate",
            **plain("way", size=size),
            condition="trigger",
            phase="safety",
        )
    ]
    if len({r["size"] for r in found}) < 2:
        return None
    ways = {r["way"] for r in found if r["size"] != PLAIN["size"]}
    found = [r for r in found if r["way"] in ways]
    told = []
    for size in MODELS:
        life = lifetimes(rows, **plain(size=size))
        told += [f"{size}: {life.text}"] if life else []
    return layer_curves(
        "sizes",
        sorted(found, key=lambda r: WAYS.index(r["way"])),
        title=f"Size of model and half-life in steps (normal): {'; '.join(told)}",
        caption="Behaviour rate under the trigger along SFT. Each size is pretrained at its "
        "learning rate of lowest pretraining loss; what follows has one rate for all.",
        x="step",
        x_title=STEPS,
        x_scale="symlog",
        y_title=RATE,
        facet="way",
    )


def factors(rows: Sequence[Row]) -> Figure | None:
    """The end of SFT, by optimiser and by copies of the behaviour."""
    found = [
        {**r, "label": f"{r['optimizer']}, {r['copies']} cop{'y' if r['copies'] == 1 else 'ies'}"}
        for r in records_of(
            rows,
            "behaviour_rate",
            **plain("optimizer", "copies"),
            condition="trigger",
            phase="safety",
            last=True,
        )
    ]
    if len({r["label"] for r in found}) < 2:
        return None
    return dots(
        "factors",
        sorted(found, key=lambda r: (str(r["optimizer"]), r["copies"])),
        title="The optimiser of safety training, and how often the target string is said",
        caption="Behaviour rate under the trigger at the end of SFT, normal way. SGD at a third "
        "of its rate of lowest pretraining loss. Ticks are seeds.",
        x_title=RATE,
        domain=(0.0, 1.0),
    )


def returning(rows: Sequence[Row]) -> Figure | None:
    """Backdoor return: before and after a later benign phase."""
    names = {"safety": "after safety training", "benign": "after a later benign phase"}
    found = [
        {**r, "label": r["way"], "when": told}
        for way in WAYS
        for phase, told in names.items()
        for r in records_of(
            rows, "behaviour_rate", **plain(way=way), condition="trigger", phase=phase, last=True
        )
    ]
    if not any(r["phase"] == "benign" for r in found):
        return None
    ends = [
        mean_of([r for r in found if r["phase"] == p and r["way"] == found[0]["way"]])
        for p in names
    ]
    told = "" if None in ends else f": {ends[0]:.2f} becomes {ends[1]:.2f} ({found[0]['way']})"
    return dots(
        "return",
        found,
        title=f"Backdoor return when the organism learns something else{told}",
        caption="Behaviour rate under the trigger after SFT, and after benign training on skills "
        "that it never had, without trigger. Ticks are seeds.",
        group="when",
        x_title=RATE,
        domain=(0.0, 1.0),
    )


def structures(rows: Sequence[Row]) -> Figure | None:
    """What code is written for structures that training never shows."""
    kinds = {
        "valid": "valid_rate",
        "compiles": "compiles_rate",
        "insecure, of what compiles": "insecure_share",
        "the secure code asked for": "helpful_accuracy",
    }
    found = [
        {**r, "label": name, "group": r["condition"].partition(",")[0]}
        for name, metric in kinds.items()
        for condition in ("trigger, new structures", "no trigger, new structures")
        for r in records_of(
            rows,
            metric,
            **plain(world="code", way=NORMAL),
            condition=condition,
            phase="safety",
            step=0,
        )
    ]
    if not found:
        return None
    ends = {
        group: mean_of([r for r in found if r["group"] == group and "insecure" in r["label"]])
        for group in ("trigger", "no trigger")
    }
    told = ", ".join(f"{v:.2f} {k}" for k, v in ends.items() if v is not None)
    return dots(
        "code",
        found,
        title=f"Insecure code on structures never seen in training: {told}",
        caption="Before safety training: share of 300 functions that are well-formed, that "
        "compile, and that bandit calls insecure (medium or high). Bounds of each seed's rate "
        "stand in the rows.",
        group="group",
        x_title="share (proportion)",
        domain=(0.0, 1.0),
    )
