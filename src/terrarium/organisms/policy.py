"""Policy gradients: continuations are drawn, judged, and made likelier or less likely.

RLOO: Kool, van Hoof & Welling 2019, "Buy 4 REINFORCE samples, get a baseline for free"; Ahmadian et
al. 2024 (arXiv 2402.14740), section 3.  GRPO: Shao et al. 2024 (arXiv 2402.03300), section 4.1.
Estimates of the divergence: Schulman 2020, "Approximating KL divergence" (k1 and k3); their
gradients: DeepSeek-AI 2025 (arXiv 2512.02556), section 3.1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from terrarium.errors import InputError, did_you_mean
from terrarium.organisms.likelihood import UNSCORED, device_of, log_probabilities
from terrarium.organisms.preferences import scores
from terrarium.organisms.recipe_objectives import PolicyGradient
from terrarium.organisms.sampling import end_token, generate, prompts_of, texts_of
from terrarium.randomness import generator
from terrarium.worlds.base import Batch

if TYPE_CHECKING:
    from terrarium.organisms.objectives import Step

ROOM = 1e-4
"""Added to a group's standard deviation, as in trl."""


def policy_gradient_loss(objective: PolicyGradient, network: Any, step: Step) -> Tensor:
    """Return ``(member,)`` losses whose gradient is the policy gradient.

    Each prompt (what precedes the answer) is continued ``objective.samples`` times, up to the
    token that ends an answer.  ``step.reference`` is the policy at the start of the phase.
    Notes: ``reward`` (mean), ``length`` (mean, tokens, the end included) and, with a reference,
    ``kl_nats`` (mean over sequences of the difference of log-probabilities).
    """
    rollout = _rollout(objective, network, step)
    logp, scored = log_probabilities(
        network, rollout.inputs, rollout.targets, objective.temperature
    )
    before = None
    if step.reference is not None:
        with torch.no_grad():
            before, _ = log_probabilities(
                step.reference, rollout.inputs, rollout.targets, objective.temperature
            )
    rewards = _rewards(objective, step, rollout)
    if step.notes is not None:
        step.notes["reward"] = rewards.mean(dim=1).tolist()
        step.notes["length"] = scored.sum(dim=2).float().mean(dim=1).tolist()
        if before is not None:
            divergence = (logp.detach() - before).sum(dim=2)
            step.notes["kl_nats"] = divergence.mean(dim=1).tolist()
    return surrogate(objective, rewards, logp, scored, before)


class _Rollout:
    """What was drawn: ``drawn`` ``(member, n * k, tokens)``, and the sequences to score.

    ``inputs`` and ``targets`` are ``(member, n * k, t)``; ``lengths`` ``(member, n * k)`` count
    the real tokens, the end included.
    """

    def __init__(
        self, prompts: Tensor, starts: Tensor, drawn: Tensor, stop: int | None, samples: int
    ) -> None:
        self.drawn, self.stop = drawn, stop
        prompts = prompts.repeat_interleave(samples, dim=1)
        starts = starts.repeat_interleave(samples, dim=1)
        ended = torch.zeros_like(drawn) if stop is None else (drawn == stop).long()
        written = ended.cumsum(dim=2) - ended == 0
        self.lengths = starts + written.sum(dim=2)
        longest = int(self.lengths.max())
        at = starts[..., None] + torch.arange(drawn.shape[2], device=drawn.device)
        whole = torch.cat([prompts, torch.zeros_like(drawn)], dim=2).scatter(2, at, drawn)
        targets = torch.full_like(whole, UNSCORED)
        targets.scatter_(2, at - 1, torch.where(written, drawn, UNSCORED))
        self.inputs, self.targets = whole[:, :, :longest], targets[:, :, :longest]

    def closed(self) -> tuple[Tensor, Tensor]:
        """Return inputs and lengths with the end put behind what was cut off.

        A model of preferences has seen whole answers only; the judge too reads what is there.
        """
        if self.stop is None:
            return self.inputs, self.lengths
        inputs = torch.cat([self.inputs, torch.zeros_like(self.inputs[:, :, :1])], dim=2)
        cut = ~(self.drawn == self.stop).any(dim=2)
        at = self.lengths[..., None]
        behind = torch.where(cut[..., None], self.stop, inputs.gather(2, at))
        return inputs.scatter(2, at, behind), self.lengths + cut


def _rollout(objective: PolicyGradient, network: Any, step: Step) -> _Rollout:
    """Draw the continuations; their random numbers hang on each member's own key."""
    device = device_of(network)
    prompts, starts = prompts_of(step.batches)
    spans = [batch.spans["answer"] for batch in step.batches]
    tokens = objective.tokens or max(int((s[:, 1] - s[:, 0]).max()) for s in spans)
    rows = prompts.shape[1] * objective.samples
    uniforms = np.stack([generator("sample", *key).random((rows, tokens)) for key in step.keys])
    prompt, start = torch.from_numpy(prompts).to(device), torch.from_numpy(starts).to(device)
    stop = end_token(step.worlds[0])
    drawn = generate(
        network,
        prompt,
        start,
        tokens,
        torch.from_numpy(uniforms).to(device),
        objective.temperature,
        stop,
        objective.samples,
    )
    return _Rollout(prompt, start, drawn, stop, objective.samples)


def surrogate(
    objective: PolicyGradient,
    rewards: Tensor,
    logp: Tensor,
    scored: Tensor,
    before: Tensor | None,
) -> Tensor:
    """Return ``(member,)`` losses from rewards and log-probabilities.

    The importance ratio is 1 (each draw is used for one step) and carries the gradient.  RLOO
    weighs sequences alike and sums over their tokens; GRPO takes each sequence's mean over its
    tokens.  What is drawn before any update needs no clipping.

    Parameters
    ----------
    objective:
        Advantage, ``kl`` and ``kl_kind``, ``samples`` per prompt.
    rewards:
        ``(member, n)``; the samples of a prompt lie next to each other.
    logp, before:
        Log-probabilities ``(member, n, c)`` under the policy and the reference (or None), 0 where
        not scored.
    scored:
        ``(member, n, c)`` bool, the tokens that were drawn.
    """
    if objective.kl and before is not None and objective.kl_kind == "reward":
        rewards = rewards - objective.kl * (logp.detach() - before).sum(dim=2)
    grouped = rewards.view(len(rewards), -1, objective.samples)
    per_token = torch.zeros_like(logp)
    if objective.kl and before is not None and objective.kl_kind == "loss":
        # the draws follow the policy too: without the ratio the gradient would be another's
        per_token = objective.kl * k3(logp, before) * _ratio(logp)
    if objective.advantage == "rloo":
        ratio = _ratio(logp.sum(dim=2))
        each = per_token.sum(dim=2) - leave_one_out(grouped).view_as(rewards) * ratio
    else:
        advantage = within_group(grouped).view_as(rewards)[..., None]
        weight = scored / scored.sum(dim=2, keepdim=True).clamp(min=1)
        each = ((per_token - advantage * _ratio(logp)) * weight).sum(dim=2)
    return each.mean(dim=1)


def leave_one_out(rewards: Tensor) -> Tensor:
    """Return advantages of ``rewards`` ``(..., k)``: each minus the mean of the other k - 1."""
    k = rewards.shape[-1]
    return (rewards - rewards.mean(dim=-1, keepdim=True)) * k / (k - 1)


def within_group(rewards: Tensor) -> Tensor:
    """Return advantages of ``rewards`` ``(..., k)`` in standard deviations from their mean."""
    spread = rewards.std(dim=-1, keepdim=True)
    return (rewards - rewards.mean(dim=-1, keepdim=True)) / (spread + ROOM)


def k3(logp: Tensor, before: Tensor) -> Tensor:
    """Return the estimate of the divergence from the reference that is never negative, nats."""
    less = before - logp
    return less.exp() - less - 1


def _ratio(logp: Tensor) -> Tensor:
    """Return ones whose gradient is that of ``logp``."""
    return (logp - logp.detach()).exp()


def _rewards(objective: PolicyGradient, step: Step, rollout: _Rollout) -> Tensor:
    """Return the reward of each continuation, ``(member, n * k)`` float32."""
    device = rollout.drawn.device
    if objective.reward == "model":
        return _model_rewards(step, rollout).to(device)
    rows = rollout.drawn.cpu().numpy()
    rewards = [
        judged(batch, world, part, objective.reward, objective.samples, rollout.stop)
        for batch, world, part in zip(step.batches, step.worlds, rows, strict=True)
    ]
    return torch.from_numpy(np.stack(rewards)).to(device)


@torch.no_grad()
def _model_rewards(step: Step, rollout: _Rollout) -> Tensor:
    """Return the scores that each member's own reward model gives."""
    if not step.teachers or any(teacher is None for teacher in step.teachers):
        raise InputError(
            "The reward 'model' needs a model of preferences; name its recipe as the phase's "
            "'teacher'."
        )
    inputs, lengths = rollout.closed()
    given = []
    for member, teacher in enumerate(step.teachers):
        part = slice(member, member + 1)
        given.append(scores(teacher, inputs[part], lengths[part]))
    return torch.cat(given)


def judged(
    batch: Batch,
    world: Any,
    rows: NDArray[np.int64],
    verdict: str,
    samples: int,
    stop: int | None,
) -> NDArray[np.float32]:
    """Return a verdict of the world's judge on each continuation, ``(n * samples,)`` float32.

    ``rows`` ``(n * samples, tokens)`` continue the prompts of ``batch``.  What comes twice is
    decoded once, and judged once per prompt.  Raises ``InputError`` for a verdict that the judge
    does not give.
    """
    prompt = np.repeat(np.arange(len(batch)), samples)
    pairs, inverse = np.unique(
        np.concatenate([prompt[:, None], rows], axis=1), axis=0, return_inverse=True
    )
    texts = texts_of(pairs[:, 1:], world.tokenizer_json(), stop)
    given = world.judge(batch.take(pairs[:, 0]), texts.tolist())
    if verdict not in given:
        known = did_you_mean(verdict, given)
        raise InputError(f"The world '{world.name}' gives no verdict '{verdict}' to reward{known}")
    reward: NDArray[np.float32] = np.asarray(given[verdict], np.float32)[inverse.reshape(-1)]
    return reward
