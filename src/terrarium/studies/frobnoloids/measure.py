"""What each cell of `frobnoloids` grows and measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrarium.evidence.intervals import clopper_pearson
from terrarium.evidence.rows import Row, measured
from terrarium.instruments.effects import exact_effects
from terrarium.instruments.frobnoloids.decide import Scores, Thresholds, frobnoloids
from terrarium.instruments.frobnoloids.scoring import Scoring
from terrarium.instruments.frobnoloids.students import Student
from terrarium.instruments.site_features import dictionary_features
from terrarium.organisms.grow import grow
from terrarium.organisms.recipe import Recipe
from terrarium.progress import Progress
from terrarium.randomness import generator
from terrarium.store import Store
from terrarium.studies.across_modalities.performance import outputs, share_rows
from terrarium.studies.frobnoloids.circuits import circuit_rows
from terrarium.studies.frobnoloids.controls import bar_rows, bars, control_rows
from terrarium.studies.frobnoloids.networks import (
    Examples,
    Fit,
    activations,
    encoded,
    examples,
    quantity,
    sites,
    untrained,
)
from terrarium.studies.frobnoloids.organisms import DENOISE, NOISE, RANDOM, TRAINED
from terrarium.studies.frobnoloids.pictures import picture_rows
from terrarium.studies.frobnoloids.shown import Shown, shown, world_of

LEARNT = "share_of_oracle"
LIVE_EXAMPLES = 6
"""A feature that is active on fewer examples is dead: folds would not see it."""

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


@dataclass(frozen=True, eq=False)
class Subject:
    """A network, what it is shown, and its dictionary's live features."""

    kind: tuple[str, str]
    network: Any = field(repr=False)
    fitted: Any = field(repr=False)
    shown: Shown = field(repr=False)
    given: Examples = field(repr=False)
    live: NDArray[np.int64] = field(repr=False)
    features: NDArray[np.float64] = field(repr=False)
    seed: int = 0


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
    )
    seen = shown(kind, int(spec["side"]), int(spec["examples"]), seed)
    plants, level = int(spec["plants"]), float(spec["level"])
    thresholds = bars(seen, scoring, plants, seed)
    rows = bar_rows(thresholds)
    rows += control_rows(seen, scoring, thresholds, plants, level, seed)
    own = next(place for place, organism in enumerate(found) if organism.seed == seed)
    ordered = [found[own], *found[:own], *found[own + 1 :]]
    for variant in (TRAINED, RANDOM):
        networks = [o.network().eval() if variant == TRAINED else untrained(o) for o in ordered]
        made = _variant(spec, kind, networks, seen, scoring, thresholds, variant)
        rows += [row.with_factors(variant=variant) for row in made]
    return [row.with_factors(seed=seed) for row in rows]


def _variant(
    spec: Mapping[str, Any],
    kind: tuple[str, str],
    networks: Sequence[Any],
    seen: Shown,
    scoring: Scoring,
    thresholds: Thresholds,
    variant: str,
) -> list[Row]:
    seed, site = int(spec["seed"]), sites(kind)[1]
    fit = Fit(int(spec["features"]), int(spec["active"]), int(spec["shown"]))
    world = world_of(kind[0], int(spec["side"]))
    rows = world.sample(int(spec["fitted"]), generator("frobnoloids", "fit", seed), "train")
    train, given = examples(kind, rows, "fit", seed), examples(kind, seen.batch, "shown", seed)
    own = [fit.dictionary(networks[0], train, site, place) for place in range(len(networks))]
    others = [fit.dictionary(network, train, site, 0) for network in networks[1:]]
    x = activations(networks[0], given, site)
    features = encoded(own[0], x)
    active = features.reshape(len(seen.batch), -1, fit.features).max(1) > 0
    live = np.flatnonzero(active.sum(0) >= LIVE_EXAMPLES)
    head = measured("live", float(len(live)), unit="features", n=fit.features)
    if not len(live):
        why = "no feature of the dictionary is active on enough examples"
        nothing: dict[str, Any] = {"unit": "proportion", "n": 0, "reason": why}
        shares = [measured("share", None, score=score, **nothing) for score in SCORES]
        return [head, *shares, measured("any", None, **nothing)]
    subject = Subject(kind, networks[0], own[0], seen, given, live, features[..., live], seed)
    runs = {
        "dictionary": [encoded(d, x) for d in own[1:]],
        "network": [
            encoded(d, activations(network, given, site))
            for d, network in zip(others, networks[1:], strict=True)
        ],
    }
    scores = _scores(subject, runs, scoring, int(spec["effect_examples"]))
    names = tuple(f"feature {j}" for j in live)
    frame = frobnoloids(scores, thresholds, level=float(spec["level"]), names=names)
    made = [head, *share_of_rows(frame, thresholds), *feature_rows(frame)]
    if variant == TRAINED:
        order = np.argsort(-frame["strength"].to_numpy(), kind="stable")
        called = frame["frobnoloid"].to_numpy()
        made += circuit_rows(subject, order[:TOLD].tolist(), called)
        if spec["pictures"]:
            made += picture_rows(subject, order, frame)
    return made


def _scores(
    subject: Subject, runs: Mapping[str, Sequence[Any]], scoring: Scoring, examples_: int
) -> Scores:
    some = subject.given.some(slice(0, examples_))
    effects = exact_effects(
        subject.network,
        some.inputs,
        sites(subject.kind)[1],
        dictionary_features(subject.fitted, subject.live.tolist()),
        quantity(subject.kind, subject.shown.batch.take(np.arange(examples_))),
        randoms=max(12, scoring.draws),
        positions=some.positions,
        key=scoring.key,
    )
    return scoring.score(
        subject.features,
        subject.shown.student,
        subject.shown.concepts,
        runs,
        effects,
        subject.shown.groups,
    )


ALPHA = 0.05
SCORES = ("structure", "importance", "nameless", "important by p alone", "frobnoloid", "half")


def share_of_rows(frame: Any, thresholds: Thresholds) -> list[Row]:
    """Return which share of the live features has each score, and which is a frobnoloid.

    ``half``: frobnoloids of which names explain less than half, whatever the bar.
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
    rows = []
    for name in SCORES:
        flags = high[name]
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
            if np.isfinite(told[name])
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
