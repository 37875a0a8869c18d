"""Policy gradient with a leave-one-out baseline (RLOO), the reward from a world's judge.

Kool, van Hoof & Welling 2019, "Buy 4 REINFORCE samples, get a baseline for free"; Ahmadian et
al. 2024 (arXiv 2402.14740), section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from terrarium.organisms.recipe import PolicyGradient
from terrarium.randomness import generator
from terrarium.worlds.base import Batch
from terrarium.worlds.tokenise import decoder


@torch.no_grad()
def sample(
    network: Any,
    prompts: Tensor,
    lengths: Tensor,
    tokens: int,
    uniforms: Tensor,
    temperature: float = 1.0,
) -> Tensor:
    """Return ``tokens`` sampled tokens after each prompt, ``(member, n, tokens)`` int64.

    ``prompts`` ``(member, n, t)`` are padded on the right, ``lengths`` ``(member, n)`` says how
    much is real; ``uniforms`` ``(member, n, tokens)`` in [0, 1) decide every draw, so that a
    member's samples do not depend on its fleet.  Temperature 0 takes the likeliest token.
    """
    members, n, t = prompts.shape
    sequence = torch.cat([prompts, prompts.new_zeros(members, n, tokens)], dim=2)
    drawn = prompts.new_zeros(members, n, tokens)
    for k in range(tokens):
        at = lengths + k
        logits = network(sequence[:, :, : t + k])
        here = logits.gather(
            2, (at - 1)[..., None, None].expand(-1, -1, 1, logits.shape[-1])
        ).squeeze(2)
        if temperature == 0:
            token = here.argmax(dim=-1)
        else:
            law = (here.double() / temperature).softmax(dim=-1).cumsum(dim=-1)
            token = (law < uniforms[..., k : k + 1] * law[..., -1:]).sum(dim=-1)
        drawn[..., k] = token
        sequence.scatter_(2, at[..., None], token[..., None])
    return drawn


def leave_one_out(rewards: Tensor) -> Tensor:
    """Return advantages of ``rewards`` ``(..., k)``: each minus the mean of the other k - 1."""
    k = rewards.shape[-1]
    return (rewards - rewards.mean(dim=-1, keepdim=True)) * k / (k - 1)


def policy_gradient_loss(
    objective: PolicyGradient,
    network: Any,
    batches: Sequence[Batch],
    worlds: Sequence[Any],
    keys: Sequence[tuple[str | int, ...]],
    reference: Any,
    notes: dict[str, list[float]] | None,
) -> Tensor:
    """Return ``(member,)`` losses whose gradient is the RLOO estimate.

    Each prompt (what precedes the answer) is continued ``objective.samples`` times by as many
    tokens as its answer has.  ``reference`` is the policy at the start of the phase; its KL
    penalty, estimated per sequence as the difference of log-probabilities, is taken off the reward.
    """
    parameters = network.member_parameters(0)
    device = parameters[0].device
    k = objective.samples
    prompts, lengths, tokens = _prompts(batches, k)
    uniforms = np.stack(
        [generator("sample", *key).random((prompts.shape[1], tokens)) for key in keys]
    )
    prompt, length = torch.from_numpy(prompts).to(device), torch.from_numpy(lengths).to(device)
    drawn = sample(
        network,
        prompt,
        length,
        tokens,
        torch.from_numpy(uniforms).to(device),
        objective.temperature,
    )
    rewards = torch.from_numpy(_rewards(batches, worlds, drawn, k)).to(device)
    logp = _log_probabilities(network, prompt, length, drawn)
    with torch.no_grad():
        divergence = torch.zeros_like(logp)
        if objective.kl and reference is not None:
            divergence = logp.detach() - _log_probabilities(reference, prompt, length, drawn)
        scored = rewards - objective.kl * divergence
        advantage = leave_one_out(scored.view(len(batches), -1, k)).view_as(logp)
    if notes is not None:
        notes["reward"] = rewards.mean(dim=1).tolist()
        notes["kl_nats"] = divergence.mean(dim=1).tolist()
    return -(advantage * logp).mean(dim=1)


def _prompts(batches: Sequence[Batch], k: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Return prompts ``(member, n * k, t)``, their lengths, and the longest answer in tokens."""
    stops = [b.spans["answer"][:, 0] for b in batches]
    tokens = max(int((b.spans["answer"][:, 1] - b.spans["answer"][:, 0]).max()) for b in batches)
    longest = max(int(s.max()) for s in stops)
    prompts, lengths = [], []
    for batch, stop in zip(batches, stops, strict=True):
        rows = batch.inputs[:, :longest].copy()
        rows[np.arange(longest) >= stop[:, None]] = 0
        prompts.append(np.repeat(rows, k, axis=0))
        lengths.append(np.repeat(stop, k))
    return np.stack(prompts), np.stack(lengths).astype(np.int64), tokens


def _rewards(batches: Sequence[Batch], worlds: Sequence[Any], drawn: Tensor, k: int) -> np.ndarray:
    rewards = []
    for batch, world, rows in zip(batches, worlds, drawn.tolist(), strict=True):
        decode = decoder(world.tokenizer_json())
        verdict = world.judge(
            batch.take(np.repeat(np.arange(len(batch)), k)), [decode(row) for row in rows]
        )
        rewards.append(np.asarray(verdict["right"], np.float32))
    return np.stack(rewards)


def _log_probabilities(network: Any, prompt: Tensor, length: Tensor, drawn: Tensor) -> Tensor:
    """Return ``(member, n)`` log-probability of the drawn tokens, nats per sequence."""
    tokens = drawn.shape[2]
    sequence = torch.cat([prompt, torch.zeros_like(drawn)], dim=2)
    at = length[..., None] + torch.arange(tokens, device=prompt.device)
    sequence.scatter_(2, at, drawn)
    logits = network(sequence)
    index = (at - 1)[..., None].expand(-1, -1, -1, logits.shape[-1])
    law = F.log_softmax(logits.gather(2, index).float(), dim=-1)
    return law.gather(3, drawn[..., None]).squeeze(3).sum(dim=2)
