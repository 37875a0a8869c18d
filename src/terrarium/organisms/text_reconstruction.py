"""Training and judging autoencoders of text: cross-entropy of a row's own tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from terrarium.errors import InputError
from terrarium.organisms.objectives import Step
from terrarium.organisms.recipe_objectives import TextReconstruction
from terrarium.organisms.text_autoencoder import row_lengths


def text_reconstruction_loss(objective: TextReconstruction, network: Any, step: Step) -> Tensor:
    """Return each member's mean cross-entropy, nats per token of the batch.

    The share of rows whose every token is right goes into the history as ``exact_match``.
    Raises ``InputError`` where the world's examples are no token rows.
    """
    if any(batch.lengths is None for batch in step.batches):
        raise InputError("Text reconstruction needs a world of token rows; choose a text world.")
    nats, right, real = _scored(network(step.inputs), step.inputs)
    if step.notes is not None:
        exact = (right | ~real).all(dim=-1).float().mean(dim=-1)
        step.notes["exact_match"] = [float(value) for value in exact]
    loss: Tensor = (nats * real).sum(dim=(1, 2)) / real.sum(dim=(1, 2))
    return loss


@dataclass(frozen=True, eq=False)
class TextErrors:
    """How well rows come back from their codes.

    Attributes
    ----------
    nats:
        ``(member, n)`` mean cross-entropy of a row's tokens.
    tokens_right:
        ``(member, n)`` share of a row's tokens that are the likeliest.
    exact:
        ``(member, n)`` whether all are.
    """

    nats: NDArray[np.float32]
    tokens_right: NDArray[np.float32]
    exact: NDArray[np.bool_]


@torch.no_grad()
def text_errors(network: Any, tokens: NDArray[np.int64], rows: int = 256) -> TextErrors:
    """Judge the reconstruction of token rows ``(n, t)``, padded on the right, by every member.

    ``rows`` run at a time.
    """
    device = network.member_parameters(0)[0].device
    found = []
    for start in range(0, len(tokens), rows):
        part = torch.from_numpy(tokens[start : start + rows]).to(device)
        part = part.expand(network.members, *part.shape)
        nats, right, real = _scored(network(part), part)
        count = real.sum(dim=-1)
        found.append(
            (
                ((nats * real).sum(dim=-1) / count).cpu().numpy(),
                ((right & real).sum(dim=-1) / count).cpu().numpy(),
                (right | ~real).all(dim=-1).cpu().numpy(),
            )
        )
    return TextErrors(*(np.concatenate(parts, axis=1) for parts in zip(*found, strict=True)))


def _scored(logits: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return each token's nats, whether it is the likeliest, and whether it is real."""
    each = F.cross_entropy(logits.flatten(0, 2), tokens.flatten(), reduction="none")
    place = torch.arange(tokens.shape[-1], device=tokens.device)
    real = place < row_lengths(tokens)[..., None]
    return each.view(tokens.shape), logits.argmax(-1) == tokens, real
