"""Objectives: each maps a network and one step's examples to a loss per member."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from terrarium.errors import InputError, did_you_mean
from terrarium.organisms.recipe import (
    AnswerOnly,
    EarlyExit,
    NextToken,
    Reconstruction,
)
from terrarium.worlds.base import Array, Batch, pad_right


@dataclass(frozen=True)
class Step:
    """One training step's examples for a fleet.

    ``batches`` holds each member's own batch, all of one shape; ``inputs`` and ``targets`` are
    them stacked, ``(member, n, ...)``.  ``worlds`` are each member's (for objectives that ask the
    judge), ``keys`` each member's key of this step (for objectives that sample).
    ``teachers`` are each member's teacher, a fleet of one, or None.
    """

    batches: Sequence[Batch]
    inputs: Tensor
    targets: Tensor
    worlds: Sequence[Any]
    keys: Sequence[tuple[str | int, ...]]
    reference: Any = None
    notes: dict[str, list[float]] | None = None
    teachers: Sequence[Any] = ()


def losses(objective: Any, network: Any, step: Step) -> Tensor:
    """Return the loss of each member, ``(member,)``."""
    loss = _LOSSES.get(objective.kind)
    if loss is None:
        module, _, name = _ELSEWHERE[objective.kind].partition(":")
        loss = getattr(importlib.import_module(module), name)
    of_each: Tensor = loss(objective, network, step)
    return of_each


def _next_token(objective: NextToken, network: Any, step: Step) -> Tensor:
    weights = _fleet_weights(step, objective.spans, objective.only)
    return _cross_entropy(network, step, weights, objective.early_exit)


def _answer_only(objective: AnswerOnly, network: Any, step: Step) -> Tensor:
    weights = _fleet_weights(step, {"answer": 1.0})
    return _cross_entropy(network, step, weights, objective.early_exit)


def _cross_entropy(
    network: Any, step: Step, weights: Array, early_exit: EarlyExit | None
) -> Tensor:
    """Weighted sum of the cross-entropies; only columns with any weight are unembedded."""
    device = step.inputs.device
    used = np.flatnonzero(weights.any(axis=(0, 1)))
    # Attention is causal: nothing after the last scored column can matter.
    inputs = step.inputs[:, :, : used[-1] + 1]
    columns = torch.from_numpy(used).to(device)
    weight = torch.from_numpy(weights[:, :, used]).to(device)
    target = step.targets.index_select(2, columns)
    if early_exit is None:
        return _weighted(network(inputs, columns=columns), target, weight)
    logits, early = network(inputs, exits=(early_exit.layer,), columns=columns)
    asked = torch.from_numpy(_exit_targets(step, early_exit.label)[:, :, used]).to(device)
    at_exit = _weighted(early[early_exit.layer], asked, weight)
    return _weighted(logits, target, weight) + early_exit.weight * at_exit


def _weighted(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    members = logits.shape[0]
    each = F.cross_entropy(
        logits.reshape(-1, logits.shape[-1]).float(),
        target.reshape(-1),
        reduction="none",
        ignore_index=-100,
    )
    total: Tensor = (each.view(members, -1) * weight.reshape(members, -1)).sum(dim=1)
    return total


def _fleet_weights(
    step: Step, spans: Mapping[str, float], only: Mapping[str, str] | None = None
) -> Array:
    """Return `token_weights` of every member, ``(member, n, t)``."""
    longest = step.targets.shape[2]
    weights = [pad_right(token_weights(b, spans, only), longest, 0) for b in step.batches]
    return np.stack(weights)


def token_weights(
    batch: Batch, spans: Mapping[str, float], only: Mapping[str, str] | None = None
) -> Array:
    """Return ``(n, t)`` float32 weights of the targets.

    Each named span's weight is spread evenly over its tokens in the batch; without names every
    scored token weighs the same, together 1.  ``only`` names a fact for some spans; rows where it
    does not hold do not count there.  The target of column j is the token at j + 1.
    """
    scored = batch.targets != -100
    if not spans:
        even: Array = (scored / max(1, scored.sum())).astype(np.float32)
        return even
    total = np.zeros(batch.targets.shape, np.float32)
    column = np.arange(batch.targets.shape[1])
    for name, weight in spans.items():
        if name not in batch.spans:
            known = did_you_mean(name, batch.spans)
            raise InputError(f"The world has no span '{name}' to train on{known}")
        start, stop = batch.spans[name][:, :1] - 1, batch.spans[name][:, 1:] - 1
        inside = (column >= start) & (column < stop) & scored
        if only and name in only:
            inside &= _fact(batch, only[name])[:, None]
        total += weight * inside / max(1, inside.sum())
    return total


def _fact(batch: Batch, name: str) -> Array:
    """Return a fact as booleans ``(n,)``."""
    if name not in batch.facts:
        known = did_you_mean(name, batch.facts)
        raise InputError(f"The world has no fact '{name}' to train by{known}")
    truth: Array = batch.facts[name].astype(bool)
    return truth


def _exit_targets(step: Step, label: str) -> Array:
    """Return the targets ``(member, n, t)`` with the answer replaced by the fact ``label``."""
    asked = []
    for batch, world in zip(step.batches, step.worlds, strict=True):
        index = np.where(_fact(batch, label), 0, 1)
        targets = batch.targets.copy()
        row, column = np.arange(len(batch)), batch.spans["answer"][:, 0] - 1
        targets[row, column] = np.asarray(answer_tokens(world))[index]
        asked.append(targets)
    longest = step.targets.shape[2]
    return np.stack([pad_right(targets, longest, -100) for targets in asked])


def answer_tokens(world: Any) -> tuple[int, ...]:
    """Return the token of each answer of a `Choice` world, in the order of its answers.

    A world in a foreign tokenizer says itself with which token each answer begins.
    """
    if hasattr(world, "answer_tokens"):
        own: tuple[int, ...] = world.answer_tokens()
        return own
    from terrarium.worlds.tokenise import encoder  # tokenizers is only needed here

    encode = encoder(world.tokenizer_json())
    tokens = [encode(answer) for answer in world.output.answers]
    if any(len(t) != 1 for t in tokens):
        raise InputError(f"The answers {world.output.answers} must be one token each.")
    return tuple(t[0] for t in tokens)


def _reconstruction(objective: Reconstruction, network: Any, step: Step) -> Tensor:
    error: Tensor = (network(step.inputs) - step.targets).square().flatten(1).mean(dim=1)
    return error


_LOSSES: dict[str, Callable[[Any, Any, Step], Tensor]] = {
    "next_token": _next_token,
    "answer_only": _answer_only,
    "reconstruction": _reconstruction,
}

_ELSEWHERE = {
    "classification": "terrarium.organisms.classification:classification_loss",
    "denoising": "terrarium.organisms.denoising:denoising_loss",
    "text_reconstruction": "terrarium.organisms.text_reconstruction:text_reconstruction_loss",
    "policy_gradient": "terrarium.organisms.policy:policy_gradient_loss",
    "dpo": "terrarium.organisms.preferences:preference_loss",
    "rendering": "terrarium.organisms.rendering:rendering_loss",
    "reward_model": "terrarium.organisms.preferences:reward_model_loss",
    "distillation": "terrarium.organisms.distillation:distillation_loss",
    "context_distillation": "terrarium.organisms.distillation:context_distillation_loss",
}
"""Losses in modules of their own; they count in the keys of those phases alone that use them."""
