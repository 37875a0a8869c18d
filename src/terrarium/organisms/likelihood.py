"""Log-probabilities of the tokens that an objective scores, and of no others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from terrarium.worlds.base import Array, Batch, pad_right

UNSCORED = -100
"""The target of a position that is not scored."""


def log_probabilities(
    network: Any, inputs: Tensor, targets: Tensor, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Return the log-probability of each scored target, and which are scored.

    Both are ``(member, n, c)`` over the columns from the first to the last that any row scores;
    log-probabilities are in nats and 0 where ``targets`` is -100.

    Parameters
    ----------
    network:
        A fleet that maps tokens to logits.
    inputs, targets:
        ``(member, n, t)`` int64; ``targets[..., j]`` stands after ``inputs[..., : j + 1]``.
    temperature:
        Divides the logits, as when the tokens were drawn.
    """
    first, stop = scored_range(targets)
    logits = network(inputs[:, :, :stop], columns=torch.arange(first, stop, device=inputs.device))
    asked = targets[:, :, first:stop]
    logits = logits.float() if temperature == 1 else logits.float() / temperature
    nats = F.cross_entropy(
        logits.reshape(-1, logits.shape[-1]),
        asked.reshape(-1),
        reduction="none",
        ignore_index=UNSCORED,
    )
    return -nats.view(asked.shape), asked != UNSCORED


def scored_range(targets: Tensor) -> tuple[int, int]:
    """Return the half-open range of columns in which any row is scored, at least one wide."""
    used = torch.nonzero((targets != UNSCORED).any(dim=0).any(dim=0)).flatten()
    return (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 1)


def answer_targets(batch: Batch) -> Array:
    """Return the targets ``(n, t)`` with all but the answer's tokens unscored."""
    column = np.arange(batch.targets.shape[1])
    start, stop = batch.spans["answer"][:, :1] - 1, batch.spans["answer"][:, 1:] - 1
    inside: Array = np.where((column >= start) & (column < stop), batch.targets, UNSCORED)
    return inside


def stacked(arrays: Sequence[Array], pad: int, device: torch.device) -> Tensor:
    """Return token rows ``(n, t)`` of every member as one tensor, padded on the right."""
    longest = max(array.shape[1] for array in arrays)
    return torch.from_numpy(np.stack([pad_right(a, longest, pad) for a in arrays])).to(device)


def device_of(network: Any) -> torch.device:
    """Return where a fleet's weights lie."""
    device: torch.device = network.member_parameters(0)[0].device
    return device
