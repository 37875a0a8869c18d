"""Learning from pairs of answers of which one is preferred: DPO, and models of preferences.

DPO: Rafailov et al. 2023 (arXiv 2305.18290), equation 7.  Reward models: Bradley & Terry 1952;
Ouyang et al. 2022 (arXiv 2203.02155), equation 1 with two answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from terrarium.errors import InputError
from terrarium.organisms.likelihood import (
    UNSCORED,
    answer_targets,
    device_of,
    log_probabilities,
    stacked,
)
from terrarium.organisms.recipe_objectives import Preference, RewardModel
from terrarium.worlds.base import Batch, concatenate

if TYPE_CHECKING:
    from terrarium.organisms.objectives import Step

READ_OUT = 0
"""The token whose logit is a reward model's score."""


def preference_loss(objective: Preference, network: Any, step: Step) -> Tensor:
    """Return ``(member,)`` DPO losses; the reference is the policy at the start of the phase.

    Notes: ``preferred`` (share of pairs whose chosen answer has gained more) and ``margin`` (mean
    difference of the implicit rewards, nats times beta).
    """
    if step.reference is None:
        raise ValueError("DPO needs the policy at the start of the phase as the step's reference")
    pairs = preferred_pairs(step.batches, step.worlds)
    device = device_of(network)
    inputs = stacked([b.inputs for b in pairs], 0, device)
    targets = stacked([answer_targets(b) for b in pairs], UNSCORED, device)
    logp = log_probabilities(network, inputs, targets)[0].sum(dim=2)
    with torch.no_grad():
        before = log_probabilities(step.reference, inputs, targets)[0].sum(dim=2)
    chosen, rejected = (objective.beta * (logp - before)).chunk(2, dim=1)
    return bradley_terry(chosen, rejected, step.notes)


def reward_model_loss(objective: RewardModel, network: Any, step: Step) -> Tensor:
    """Return ``(member,)`` Bradley-Terry losses of the `scores`.

    Notes: ``preferred`` (share of pairs whose chosen answer scores higher), ``margin`` (mean
    difference of the scores).
    """
    pairs = preferred_pairs(step.batches, step.worlds)
    device = device_of(network)
    inputs = stacked([b.inputs for b in pairs], 0, device)
    ends = np.stack([b.spans["answer"][:, 1] for b in pairs])
    given = scores(network, inputs, torch.from_numpy(ends).to(device))
    chosen, rejected = given.chunk(2, dim=1)
    return bradley_terry(chosen, rejected, step.notes)


def bradley_terry(
    chosen: Tensor, rejected: Tensor, notes: dict[str, list[float]] | None = None
) -> Tensor:
    """Return ``(member,)`` mean -log sigmoid(chosen - rejected) of rewards ``(member, n)``."""
    margin = chosen - rejected
    if notes is not None:
        notes["preferred"] = (margin > 0).float().mean(dim=1).tolist()
        notes["margin"] = margin.detach().mean(dim=1).tolist()
    return -F.logsigmoid(margin).mean(dim=1)


def scores(network: Any, inputs: Tensor, lengths: Tensor) -> Tensor:
    """Return how a model of preferences rates each text, ``(member, n)``.

    The score is the logit of token 0 after the last token of the text.  It is a linear read-out
    of the last residual, as a head of its own would be, but any causal language model has it: a
    reward model needs no other architecture, and lies in a folder as every organism does.  In our
    vocabularies token 0 is the padding, which is never a target, so that language modelling gives
    its logit nothing to say about the text.

    Parameters
    ----------
    network:
        A fleet of reward models.
    inputs:
        Prompts with their answers, ``(member, n, t)`` int64, padded on the right.
    lengths:
        ``(member, n)`` int64, how many tokens are real.
    """
    first, stop = int(lengths.min()) - 1, int(lengths.max())
    columns = torch.arange(first, stop, device=inputs.device)
    logits = network(inputs[:, :, :stop], columns=columns)[..., READ_OUT]
    at = (lengths - 1 - first)[..., None].to(logits.device)
    score: Tensor = logits.float().gather(2, at).squeeze(2)
    return score


def preferred_pairs(batches: Sequence[Batch], worlds: Sequence[Any]) -> list[Batch]:
    """Return for each member its chosen answers and then, in the same order, the rejected ones.

    Raises ``InputError`` for a world that has no preferences.
    """
    pairs = []
    for batch, world in zip(batches, worlds, strict=True):
        if not hasattr(world, "preferred"):
            raise InputError(
                f"The world '{world.name}' has no preferences; take one with a 'preferred' method."
            )
        chosen, rejected = world.preferred(batch)
        if len(chosen) != len(rejected):
            raise ValueError(f"{len(chosen)} chosen and {len(rejected)} rejected answers")
        pairs.append(concatenate([chosen, rejected]))
    return pairs
