"""Training a classifier: cross-entropy of a fact of the world."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from terrarium.errors import InputError, did_you_mean
from terrarium.organisms.objectives import Step
from terrarium.organisms.recipe_objectives import Classification


def classification_loss(objective: Classification, network: Any, step: Step) -> Tensor:
    """Return each member's mean cross-entropy (nats) of the fact that the objective names.

    The share of the batch that is right goes into the history as ``accuracy``.
    Raises ``InputError`` for facts that the world lacks and that are no class numbers.
    """
    logits = network(step.inputs)
    classes = logits.shape[-1]
    labels = torch.from_numpy(
        np.stack([_labels(b, objective.label, classes) for b in step.batches])
    )
    labels = labels.to(logits.device)
    each = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
    if step.notes is not None:
        right = (logits.detach().argmax(-1) == labels).float().mean(dim=1)
        step.notes["accuracy"] = [float(value) for value in right]
    loss: Tensor = each.view(labels.shape).mean(dim=1)
    return loss


def _labels(batch: Any, name: str, classes: int) -> Any:
    if name not in batch.facts:
        raise InputError(
            f"The world has no fact '{name}' to classify by{did_you_mean(name, batch.facts)}"
        )
    labels = np.asarray(batch.facts[name])
    if labels.dtype.kind not in "biu":
        raise InputError(
            f"The fact '{name}' is {labels.dtype} and no class number; name a fact of integers."
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise InputError(
            f"The fact '{name}' reaches from {labels.min()} to {labels.max()} and the model tells "
            f"{classes} classes apart; set its classes."
        )
    return labels.astype(np.int64)
