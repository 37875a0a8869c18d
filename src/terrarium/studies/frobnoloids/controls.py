"""Plants on the very examples that networks are shown: they set the bars, others test them.

For images those of `terrarium.instruments.frobnoloids.plants`, brought to the places of the feature
maps; for text the same kinds, made of words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrarium.evidence.rows import Row, measured
from terrarium.instruments.effects import exact_effects
from terrarium.instruments.frobnoloids.decide import Scores, Thresholds, calibrate, frobnoloids
from terrarium.instruments.frobnoloids.plants import SITE, Plants, plant
from terrarium.instruments.frobnoloids.scoring import Scoring
from terrarium.instruments.metrics import auroc
from terrarium.instruments.quantities import squared_error
from terrarium.instruments.site_features import units
from terrarium.randomness import generator
from terrarium.studies.frobnoloids.shown import Shown, pooled

Float = NDArray[np.float64]
NAMED, UNNAMED, NOISE = "named", "unnamed", "noise"
RUNS = 4
SIGNAL = 4.0
"""Other initialisations of plants; feature to noise in them, in standard deviations."""

_OUTPUTS, _IDLE = 24, 64
_EXAMPLES = 40
"""Examples on which the importance of plants is measured."""


def planted(shown: Shown, count: int, key: Sequence[str | int]) -> Plants:
    """Return ``count`` plants of each kind; features ``(n, rows, columns, k)``, or ``(n, p, 1, k)``
    where the examples are texts or blocks of space.
    """
    if shown.lead is None:
        made = plant(
            np.clip(shown.inputs, 0.0, 1.0),
            *shown.fine,
            named=count,
            unnamed=count,
            noise=count,
            runs=RUNS,
            key=key,
        )
        coarse = _standard(pooled(made.features))
        return replace(made, features=coarse, runs=tuple(pooled(run) for run in made.runs))
    return _of_words(shown, count, key)


def scores_of(plants: Plants, shown: Shown, scoring: Scoring) -> Scores:
    """Return the three scores of plants, by the same settings as features of networks."""
    k = len(plants.kind)
    examples = min(_EXAMPLES, len(plants.features))
    effects = exact_effects(
        plants.network(),
        plants.inputs(examples, step=1),
        SITE,
        units(plants.readout.shape[1], range(k)),
        squared_error(plants.outputs(examples, step=1)),
        randoms=max(8, scoring.draws),
        key=scoring.key,
    )
    features, runs = plants.features, list(plants.runs)
    if shown.lead is not None:
        features, runs = features.reshape(-1, k), [run.reshape(-1, k) for run in runs]
    return scoring.score(
        features, shown.student, shown.reduced, {"dictionary": runs}, effects, shown.groups
    )


def bars(shown: Shown, scoring: Scoring, count: int, seed: int) -> Thresholds:
    """Return the thresholds that ``count`` plants of each kind set."""
    plants = planted(shown, count, ("set", seed))
    scores = scores_of(plants, shown, scoring)
    kind = plants.kind
    return calibrate(scores, kind != NOISE, plants.important, kind == NAMED)


def control_rows(
    shown: Shown, scoring: Scoring, thresholds: Thresholds, count: int, level: float, seed: int
) -> list[Row]:
    """Return how plants that did not set the bars fare.

    ``plant_auroc``: unnamed important plants against all others, by strength; ``plants_called``:
    which share of each kind is called a frobnoloid.
    """
    plants = planted(shown, count, ("test", seed))
    frame = frobnoloids(scores_of(plants, shown, scoring), thresholds, level=level)
    wanted = (plants.kind == UNNAMED) & plants.important
    strength = np.nan_to_num(frame["strength"].to_numpy(), neginf=-1e9)
    area = float(np.ma.filled(auroc(strength[None], wanted[None]), np.nan)[0])
    rows = [measured("plant_auroc", area, unit="proportion", n=len(wanted))]
    called = frame["frobnoloid"].to_numpy()
    kinds: Mapping[str, Any] = {
        "unnamed and important": wanted,
        NAMED: plants.kind == NAMED,
        NOISE: plants.kind == NOISE,
    }
    return rows + [
        measured("plants_called", float(called[of].mean()), unit="proportion", n=of.sum(), plant=p)
        for p, of in kinds.items()
    ]


def bar_rows(thresholds: Thresholds) -> list[Row]:
    """Return the bars themselves, and how well each parts the plants that set it."""
    names = ("structure", "importance", "nameability")
    rows = []
    for place, name in enumerate(names):
        rows.append(measured("bar", getattr(thresholds, name), unit="score", n=1, score=name))
        accuracy = thresholds.accuracy[place]
        rows.append(measured("bar_accuracy", accuracy, unit="proportion", n=1, score=name))
    return rows


def _of_words(shown: Shown, count: int, key: Sequence[str | int]) -> Plants:
    """Return plants of text, and of points in blocks of space.

    Named: random functions of one or two concepts.  Unnamed: functions of what is held out of the
    vocabulary, and hidden patterns: thresholded random weights of what the student sees (the word,
    the one before, all so far; low waves).  Noise: unnamed ones of other texts or blocks.
    """
    assert shown.lead is not None
    rng = generator("frobnoloids", "words", *key)
    shape = shown.lead
    made: list[Float] = []
    words: list[str] = []
    for number in range(2 * count):
        if number < count:
            values, told = _named(shown.reduced, rng)
        elif number % 2:
            name = str(rng.choice(list(shown.held_out)))
            values, told = _function(shown.held_out[name], rng), name
        else:
            values, told = _pattern(shown.student, rng), "hidden pattern"
        made.append(_standard(values[:, None])[:, 0])
        words.append(told)
    stack = np.stack(made, -1).reshape(*shape, 2 * count)
    sources = rng.choice(np.arange(count, 2 * count), count)
    fakes = [stack[rng.permutation(shape[0])][..., sources] for _ in range(RUNS + 1)]
    kind = np.repeat([NAMED, UNNAMED, NOISE], count)
    needed = np.zeros(len(kind), bool)
    for start in range(0, len(kind), count):
        needed[start + rng.permutation(count)[: count // 2]] = True
    readout = rng.standard_normal((_OUTPUTS, len(kind)))
    readout *= np.where(needed, 1.0, 0.05) / np.linalg.norm(readout, axis=0)
    runs = tuple(_as_run(np.concatenate([stack, fake], -1), rng) for fake in fakes[1:])
    return Plants(
        kind,
        needed,
        (*words, *(f"noise like {words[s]}" for s in sources)),
        np.concatenate([stack, fakes[0]], -1)[:, :, None],
        tuple(run[:, :, None] for run in runs),
        np.pad(readout, [(0, 0), (0, _IDLE)]),
    )


def _named(concepts: Mapping[str, Any], rng: np.random.Generator) -> tuple[Float, str]:
    chosen = rng.choice(sorted(concepts), int(rng.integers(1, 3)), replace=False)
    parts = [
        _function(concepts[name], rng) * rng.choice([-1.0, 1.0]) * rng.uniform(0.7, 1.4)
        for name in chosen
    ]
    return np.sum(parts, 0), " + ".join(chosen)


def _function(values: Any, rng: np.random.Generator) -> Float:
    """Return a smooth function of a number, or a random number for each category, of variance 1.

    Of several numbers (normals, a wave) a random combination of them.
    """
    array = np.asarray(values)
    if array.ndim == 2:
        array = array @ rng.standard_normal(array.shape[1])
    if array.dtype.kind != "f":
        found, place = np.unique(array, return_inverse=True)
        drawn = rng.standard_normal(len(found))[place.reshape(-1)]
    else:
        scaled = (array - array.mean()) / max(float(array.std()), 1e-9)
        shift = rng.uniform(-0.5, 0.7)
        drawn = (
            scaled,
            np.maximum(scaled - shift, 0.0),
            np.tanh(2 * (scaled - shift)),
            np.minimum(scaled, 3.0) ** 2,
        )[int(rng.integers(4))]
    return _standard(drawn[:, None])[:, 0]


def _pattern(seen: Float, rng: np.random.Generator) -> Float:
    live = seen.std(0) > 1e-9
    scaled = (seen[:, live] - seen[:, live].mean(0)) / seen[:, live].std(0)
    # a few words each, so that it is a pattern and not all words' sum
    weights = rng.standard_normal(scaled.shape[1]) * (rng.random(scaled.shape[1]) < 0.2)
    sums = _standard((scaled @ weights)[:, None])[:, 0]
    return np.asarray(np.maximum(sums - rng.uniform(0, 0.8), 0.0))


def _standard(values: Float) -> Float:
    axes = tuple(range(values.ndim - 1))
    return np.asarray((values - values.mean(axes)) / np.maximum(values.std(axes), 1e-9))


def _as_run(features: Float, rng: np.random.Generator) -> Float:
    k = features.shape[-1]
    noisy = features + rng.standard_normal(features.shape) / SIGNAL
    return np.asarray((noisy * rng.choice([-1.0, 1.0], k))[..., rng.permutation(k)])
