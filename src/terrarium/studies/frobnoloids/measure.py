"""What each cell of `frobnoloids` grows and measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from terrarium.evidence.intervals import clopper_pearson
from terrarium.evidence.rows import Row, measured
from terrarium.instruments.effects import exact_effects
from terrarium.instruments.frobnoloids.decide import Scores, Thresholds, frobnoloids
from terrarium.instruments.frobnoloids.nameability import nameability
from terrarium.instruments.frobnoloids.scoring import Scoring
from terrarium.instruments.frobnoloids.students import Student
from terrarium.organisms.grow import grow
from terrarium.organisms.recipe import Recipe
from terrarium.progress import Progress
from terrarium.randomness import generator
from terrarium.store import Store
from terrarium.studies.across_modalities.performance import outputs, share_rows
from terrarium.studies.frobnoloids.circuits import circuit_rows
from terrarium.studies.frobnoloids.controls import bar_rows, bars, control_rows
from terrarium.studies.frobnoloids.guests import guest_rows
from terrarium.studies.frobnoloids.networks import examples, quantity, untrained
from terrarium.studies.frobnoloids.organisms import (
    DENOISE,
    NOISE,
    POINTS,
    QUIRKY,
    RANDOM,
    TRAINED,
)
from terrarium.studies.frobnoloids.pictures import picture_rows
from terrarium.studies.frobnoloids.points import waves
from terrarium.studies.frobnoloids.subjects import Subject, named_for, seen_by, subject_of

LEARNT = "share_of_oracle"
NAMING_DRAWS = 4
"""Draws of the null of names, of all features together; see `Scoring`."""

TOLD = 2
"""Features of an organism whose circuit is looked for, the strongest."""


def measure_cell(spec: Mapping[str, Any], store_home: str, progress: Progress) -> Sequence[Row]:
    """Return the rows of one cell: organisms of a kind, or the features of one of them."""
    measuring = {"grow": _grown, "score": _scored}[spec["stage"]]
    factors = {name: spec[name] for name in ("modality", "objective")}
    return [row.with_factors(**factors) for row in measuring(spec, Store(store_home), progress)]


def _organisms(spec: Mapping[str, Any], store: Store, progress: Progress) -> list[Any]:
    recipe = Recipe.model_validate(spec["recipe"])
    return grow([(recipe, int(seed)) for seed in spec["seeds"]], store, progress)


def _grown(spec: Mapping[str, Any], store: Store, progress: Progress) -> list[Row]:
    kind = (spec["modality"], spec["objective"])
    rows = []
    for organism in _organisms(spec, store, progress):
        if organism.status != "grown":
            rows.append(_lost(organism))
        elif organism.seed in spec["scored"]:
            rows += [r.with_factors(seed=organism.seed) for r in _performance(kind, organism)]
    return rows


def _lost(organism: Any) -> Row:
    why = f"the organism {organism.status}: {organism.reason}"
    return Row("", "", "cell", "", None, {"seed": organism.seed}, None, 1, "failed", why)


def _performance(kind: tuple[str, str], organism: Any) -> list[Row]:
    """Return the share of the blind loss that the organism removes (denoisers: of the noise)."""
    world, seed = organism.world, organism.seed
    if kind == QUIRKY or kind[0] == POINTS:
        return guest_rows(kind, organism)
    batches = {
        split: world.sample(256, generator("frobnoloids", "performance", split, seed), split)
        for split in ("train", "test")
    }
    network = organism.network().eval()
    if kind[1] != DENOISE:
        return share_rows(network, world, batches, kind)
    test = batches["test"]
    made = outputs(network, examples(kind, test, "performance", seed).inputs)
    loss = float(np.square(made - test.inputs).mean())
    share = 1 - loss / NOISE**2
    return [
        measured("loss", loss, unit="squared error per number", n=len(test)),
        measured(LEARNT, share, unit="proportion", n=len(test)),
    ]


def _scored(spec: Mapping[str, Any], store: Store, progress: Progress) -> list[Row]:
    """Return controls, and every feature's scores in the organism and in a random network."""
    kind, seed = (spec["modality"], spec["objective"]), int(spec["seed"])
    found = _organisms(spec, store, progress)
    lost = [_lost(organism) for organism in found if organism.status != "grown"]
    if lost:
        return [replace(row, factors={"seed": seed}) for row in lost[:1]]
    scoring = Scoring(
        points=int(spec["points"]),
        draws=int(spec["draws"]),
        knots=3,
        student=Student(hidden=int(spec["hidden"])),
        key=("frobnoloids", seed),
        naming_draws=NAMING_DRAWS,
    )
    own = next(place for place, organism in enumerate(found) if organism.seed == seed)
    ordered = [found[own], *found[:own], *found[own + 1 :]]
    seen = seen_by(spec, kind, seed)
    plants, level = int(spec["plants"]), float(spec["level"])
    # plants are held against the trained network's names; the random one is judged by those bars
    named = named_for(seen, kind, ordered[0].network())
    thresholds = bars(named, scoring, plants, seed)
    rows = bar_rows(thresholds)
    rows += control_rows(named, scoring, thresholds, plants, level, seed)
    for variant in (TRAINED, RANDOM):
        networks = [o.network().eval() if variant == TRAINED else untrained(o) for o in ordered]
        subject = subject_of(spec, kind, networks, seen)
        made = _variant(spec, subject, scoring, thresholds, variant)
        rows += [row.with_factors(variant=variant) for row in made]
    return [row.with_factors(seed=seed) for row in rows]


def _variant(
    spec: Mapping[str, Any],
    subject: Subject,
    scoring: Scoring,
    thresholds: Thresholds,
    variant: str,
) -> list[Row]:
    live = subject.live
    head = measured("live", float(len(live)), unit="features", n=subject.count)
    if not len(live):
        why = "no feature is active on enough examples"
        nothing: dict[str, Any] = {"unit": "proportion", "n": 0, "reason": why}
        shares = [measured("share", None, score=score, **nothing) for score in SCORES]
        return [head, *shares, measured("any", None, **nothing)]
    scores = _scores(subject, scoring, int(spec["effect_examples"]))
    frame = frobnoloids(scores, thresholds, level=float(spec["level"]), names=subject.target.names)
    made = [head, *share_of_rows(frame, thresholds), *feature_rows(frame)]
    made += gain_rows(subject, scores, scoring)
    if variant == TRAINED:
        order = np.argsort(-frame["strength"].to_numpy(), kind="stable")
        called = frame["frobnoloid"].to_numpy()
        made += circuit_rows(subject, order[:TOLD].tolist(), called)
        if spec["pictures"]:
            made += picture_rows(subject, order, frame)
    return made


def _scores(subject: Subject, scoring: Scoring, count: int) -> Scores:
    """Return the three scores; effects are measured on ``count`` examples or blocks of space."""
    seen = subject.shown
    rows = np.arange(count)
    groups: Any = None
    if subject.kind[0] == POINTS:
        # all points of blocks all over the box
        spread = np.linspace(0, int(seen.groups.max()), count).astype(int)
        rows = np.flatnonzero(np.isin(seen.groups, spread))
        groups = seen.groups[rows]
    some = subject.given.some(rows)
    effects = exact_effects(
        subject.network,
        some.inputs,
        subject.site,
        subject.target,
        quantity(subject.kind, seen.batch.take(rows)),
        how=subject.how,
        randoms=max(12, scoring.draws),
        varying=max(12, scoring.draws),
        positions=some.positions,
        key=scoring.key,
    )
    return scoring.score(
        subject.features,
        seen.student,
        seen.concepts,
        subject.runs,
        effects,
        seen.groups,
        effect_groups=groups,
    )


def gain_rows(subject: Subject, scores: Scores, scoring: Scoring) -> list[Row]:
    """Return how much of units a coordinate network's own frequencies name beside the scene.

    ``named``: mean held-out R² of live units, by the whole vocabulary and without the network's
    waves; ``named_gain`` their difference.  Nothing for other kinds.
    """
    if subject.kind[0] != POINTS:
        return []
    own = set(waves(subject.network, np.zeros((1, 3))))
    bare = {name: x for name, x in subject.shown.concepts.items() if name not in own}
    without = nameability(
        subject.features,
        bare,
        subject.shown.groups,
        terms=scoring.terms,
        permutations=NAMING_DRAWS,
        points=scoring.points,
        knots=scoring.knots,
        key=scoring.key,
    )
    n = len(subject.live)
    means = [float(np.nanmean(x.score.value)) for x in (scores.nameability, without)]
    named = [
        measured("named", value, unit="R²", n=n, vocabulary=which)
        for value, which in zip(means, ("whole", "without waves"), strict=True)
    ]
    return [*named, measured("named_gain", means[0] - means[1], unit="R²", n=n)]


ALPHA = 0.05
BEYOND = "frobnoloid, beyond varying"
SCORES = (
    *("structure", "importance", "nameless", "important by p alone", "frobnoloid", "half"),
    BEYOND,
)


def share_of_rows(frame: Any, thresholds: Thresholds) -> list[Row]:
    """Return which share of the live features has each score, and which is a frobnoloid.

    ``half``: frobnoloids of which names explain less than half, whatever the bar; `BEYOND`: those
    that also do more than directions in which the site varies.
    """
    called = frame["frobnoloid"].to_numpy()
    high = {
        "structure": (frame["structure"] >= thresholds.structure) & (frame["structure_p"] <= ALPHA),
        "importance": (frame["importance_sd"] >= thresholds.importance)
        & (frame["importance_p"] <= ALPHA),
        "nameless": frame["nameless_p"] <= ALPHA,
        "important by p alone": frame["importance_p"] <= ALPHA,
        "frobnoloid": called,
        "half": called & (frame["nameability"] < 0.5),
    }
    if "beyond_varying_p" in frame:
        high[BEYOND] = called & (frame["beyond_varying_p"] <= ALPHA)
    rows = []
    for name, flags in high.items():
        count, n = int(np.sum(flags)), len(frame)
        row = measured("share", count / n, unit="proportion", n=n, score=name)
        rows.append(replace(row, interval=clopper_pearson(count, n, over="features")))
    rows.append(measured("any", float(called.any()), unit="proportion", n=len(frame)))
    return rows


def feature_rows(frame: Any) -> list[Row]:
    """Return one row for each feature: its place in the plane, and the decision."""
    rows = []
    for told in frame.to_dict("records"):
        factors: dict[str, Any] = {
            name: round(float(told[name]), 4)
            for name in (
                *("importance", "nameability", "structure", "matched dictionary"),
                *("matched network", "teachable", "q", "strength"),
            )
            if name in told and np.isfinite(told[name])
        }
        named = {name: str(told[name]) for name in ("feature", "concept", "combination")}
        rows.append(
            measured(
                "feature",
                float(told["importance_sd"]),
                unit="standard deviations of random directions",
                n=1,
                frobnoloid=bool(told["frobnoloid"]),
                **named,
                **factors,
            )
        )
    return rows
