"""Does a direction matter?  Change it at one position and measure what is said.

A probe that reads the truth shows that the truth is there, not that anything uses it.  Compare
the effect of the probe's direction with that of random ones
(`terrarium.instruments.interventions.random_like`): any large enough shove changes answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from terrarium.errors import InputError
from terrarium.instruments.covariance import Float
from terrarium.organisms.network import Network
from terrarium.progress import Progress, Silent
from terrarium.readings.hooks import choose_sites, edit
from terrarium.readings.positions import resolve
from terrarium.readings.read import read
from terrarium.worlds.base import Batch

Intervention = Callable[[Tensor], Tensor]
"""Takes and returns ``(member, n, channel)``; each row's result depends on that row alone."""


@dataclass(frozen=True, eq=False)
class CausalEffect:
    """What an intervention did to what is said.

    Attributes
    ----------
    before, after:
        ``(member, n, k)`` log-probabilities of the k answers (nats, renormalised over them).
    target:
        ``(n,)`` which answer the direction stands for, as an index into the answers.
    displacement:
        ``(member, n)`` Euclidean length of the change at the site and position, in units of the
        activations; what a random control should be compared at.
    """

    before: Float = field(repr=False)
    after: Float = field(repr=False)
    target: NDArray[np.int64] = field(repr=False)
    displacement: Float = field(repr=False)

    def __repr__(self) -> str:
        """Say each member's share of flipped answers and mean change of the log-odds."""
        members = zip(self.flipped, self.log_odds_change, strict=True)
        told = "; ".join(f"{flip:.1%} flipped, log-odds {odds:+.2f} nats" for flip, odds in members)
        return f"CausalEffect({self.before.shape[1]} rows: {told})"

    @property
    def flips(self) -> NDArray[np.bool_]:
        """``(member, n)`` whether the most probable answer is another one."""
        return np.asarray(self.before.argmax(-1) != self.after.argmax(-1))

    @property
    def flipped(self) -> Float:
        """``(member,)`` share of the rows whose answer flipped."""
        return np.asarray(self.flips.mean(-1), dtype=np.float64)

    @property
    def log_odds_changes(self) -> Float:
        """``(member, n)`` change in the log-odds of the target answer, in nats."""
        return _log_odds(self.after, self.target) - _log_odds(self.before, self.target)

    @property
    def log_odds_change(self) -> Float:
        """``(member,)`` mean change in the log-odds of the target answer, in nats.

        Reflecting moves rows both ways: give ``target`` per row (what the reflected probe reads),
        or the two ways cancel.
        """
        return np.asarray(self.log_odds_changes.mean(-1), dtype=np.float64)


def causal_effect(
    network: Network,
    batch: Batch,
    site: str,
    position: str,
    intervention: Intervention,
    *,
    answers: Sequence[int] | NDArray[np.int64],
    target: int | NDArray[np.int64],
    batch_tokens: int | None = None,
) -> CausalEffect:
    """Return what ``intervention`` at one site and position does to what ``network`` says.

    As `causal_effects`, for a single intervention.
    """
    effects = causal_effects(
        network,
        batch,
        site,
        position,
        {"": intervention},
        answers=answers,
        target=target,
        batch_tokens=batch_tokens,
    )
    return effects[""]


def causal_effects(
    network: Network,
    batch: Batch,
    site: str,
    position: str,
    interventions: Mapping[str, Intervention],
    *,
    answers: Sequence[int] | NDArray[np.int64],
    target: int | NDArray[np.int64],
    batch_tokens: int | None = None,
    progress: Progress | None = None,
) -> dict[str, CausalEffect]:
    """Return the effect of each named intervention; what is said without any is read once.

    Parameters
    ----------
    network:
        A fleet; an intervention sees all members at once, ``(member, n, channel)``.
    batch:
        Token sequences with the span ``"answer"``.
    site, position:
        One site (``"resid.post[2]"``) and one position (``"prompt_end"``, ``"last:claim"``); see
        `terrarium.readings`.  Nothing else is touched.
    interventions:
        Functions of the activations, such as
        ``lambda x: reflect(x, probe.direction, probe.bias)``; the controls beside them.
    answers:
        Token ids of the answers, ``(k,)`` or ``(n, k)``.
    target:
        Index into the answers of the one that the direction stands for, or ``(n,)`` of them.
    batch_tokens:
        Tokens per forward pass, all members together; smaller where memory is short.
    progress:
        Told of each reading.

    Raises ``InputError`` for unknown sites, positions or answers, and for networks without
    sequences.
    """
    (name,) = _single(choose_sites(network, site), site)
    ids = np.asarray(answers)
    choices = ids.shape[-1] if ids.ndim else 0
    wanted = _targets(target, len(batch), choices)
    shown = progress or Silent()
    shown.start("interventions", len(interventions) + 1, "readings")
    plan = list(_groups(batch, position, network.members, batch_tokens))

    def once(change: Intervention | None) -> tuple[Float, Float]:
        found = _read_all(network, batch, name, position, change, ids, plan)
        shown.advance("interventions")
        return found

    says, states = once(None)
    effects = {}
    for label, change in interventions.items():
        after, moved = once(change)
        length = np.linalg.norm(moved - states, axis=-1)
        effects[label] = CausalEffect(says, after, wanted, length)
    shown.finish("interventions")
    return effects


def _read_all(
    network: Network,
    batch: Batch,
    site: str,
    position: str,
    change: Intervention | None,
    answers: NDArray[Any],
    plan: list[tuple[NDArray[np.int64], int]],
) -> tuple[Float, Float]:
    """Return what is said ``(member, n, k)`` and the site's values ``(member, n, d)``."""
    says: Float | None = None
    states: Float | None = None
    for rows, at in plan:
        where = np.full((len(rows), 1), at)
        editing = nullcontext() if change is None else edit(network, site, change, where)
        ids = answers[rows] if answers.ndim == 2 else answers
        with editing:
            reading = read(
                network, batch.take(rows), site, position, answers=ids, batch_tokens=2**62
            )
        values = reading.at(site)
        if reading.says is None:
            raise InputError("Effects on answers need a network over tokens; read outputs instead.")
        if says is None or states is None:
            says = np.empty((len(values), len(batch), ids.shape[-1]))
            states = np.empty((len(values), len(batch), values.shape[-1]))
        says[:, rows], states[:, rows] = reading.says, values
    if says is None or states is None:
        raise InputError("The batch holds no examples; give at least one.")
    return says, states


def _groups(
    batch: Batch, position: str, members: int, batch_tokens: int | None
) -> Iterator[tuple[NDArray[np.int64], int]]:
    """Yield rows that share their length and the position to be edited, and that position.

    `read` runs each in one pass, and no order in which it takes the rows can bring an edit to
    another row's position.
    """
    _, where = resolve(batch, (position,))
    _, ends = resolve(batch, ("prompt_end",))
    keys, of = np.unique(np.hstack([where, ends]), axis=0, return_inverse=True)
    for number, (at, end) in enumerate(keys):
        rows = np.flatnonzero(of.reshape(-1) == number)
        each = (max(int(at), int(end)) + 1) * members
        size = max(1, (batch_tokens or 16384) // each)
        for start in range(0, len(rows), size):
            yield rows[start : start + size], int(at)


def _single(names: list[str], asked: str) -> list[str]:
    if len(names) != 1:
        raise InputError(f"An intervention is made at one site and '{asked}' names {len(names)}.")
    return names


def _targets(target: int | NDArray[np.int64], n: int, choices: int) -> NDArray[np.int64]:
    wanted = np.asarray(target)
    if wanted.dtype.kind not in "iu" or wanted.shape not in ((), (n,)):
        raise InputError(
            f"The target is {wanted.dtype} of shape {wanted.shape}; give the index of an answer, "
            f"or one for each of the {n} rows."
        )
    if wanted.size and not 0 <= int(wanted.min()) <= int(wanted.max()) < choices:
        raise InputError(f"The target must be an index into the {choices} answers, from 0.")
    return np.array(np.broadcast_to(wanted, (n,)), dtype=np.int64)


def _log_odds(says: Float, target: NDArray[np.int64]) -> Float:
    """Return ``(member, n)`` log p(target) - log p(any other answer)."""
    chosen = np.arange(says.shape[-1]) == target[:, None]
    inside = np.where(chosen, says, -np.inf).max(-1)
    odds: Float = inside - np.logaddexp.reduce(np.where(chosen, -np.inf, says), axis=-1)
    return odds
