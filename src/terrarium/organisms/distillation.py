"""Distillation: a student learns a teacher's law over the answer's tokens.

Hinton et al. 2015 (arXiv 1503.02531), section 2; context distillation: Askell et al. 2021
(arXiv 2112.00861), section 2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from terrarium.errors import InputError
from terrarium.organisms.likelihood import (
    UNSCORED,
    answer_targets,
    device_of,
    scored_range,
    stacked,
)
from terrarium.organisms.recipe_objectives import ContextDistillation, Distillation
from terrarium.worlds.tokenise import encoder, tokenizer
from terrarium.worlds.tokens import UNKNOWN

if TYPE_CHECKING:
    from terrarium.organisms.objectives import Step


def distillation_loss(objective: Distillation, network: Any, step: Step) -> Tensor:
    """Return ``(member,)`` divergences from each member's own teacher, nats per answer token.

    Raises ``InputError`` where a member has no teacher, or one with other tokens.
    """
    if not step.teachers or any(teacher is None for teacher in step.teachers):
        raise InputError("Distillation needs a teacher; name its recipe as the phase's 'teacher'.")
    inputs, targets = _rows(network, step)
    first, stop = scored_range(targets)
    columns = torch.arange(first, stop, device=inputs.device)
    student = network(inputs[:, :, :stop], columns=columns)
    with torch.no_grad():
        asked = [
            teacher(inputs[i : i + 1, :, :stop], columns=columns)
            for i, teacher in enumerate(step.teachers)
        ]
    teacher = torch.cat([logits.to(student.device) for logits in asked])
    if teacher.shape != student.shape:
        raise InputError(
            f"The teacher knows {teacher.shape[-1]} tokens and the student {student.shape[-1]}; "
            "take a teacher with the same tokens."
        )
    scored = targets[:, :, first:stop] != UNSCORED
    return divergence(teacher, student, scored, objective.temperature)


def context_distillation_loss(objective: ContextDistillation, network: Any, step: Step) -> Tensor:
    """Return ``(member,)`` divergences from the network at the phase's start reading the prefix.

    Nats per answer token.  Raises ``InputError`` for a prefix that the world's tokens cannot
    write.
    """
    if step.reference is None:
        raise ValueError("context distillation needs the network at the start of the phase")
    inputs, targets = _rows(network, step)
    first, stop = scored_range(targets)
    columns = torch.arange(first, stop, device=inputs.device)
    prefix = torch.tensor(prefix_tokens(step.worlds[0], objective.prefix), device=inputs.device)
    members, n, _ = inputs.shape
    longer = torch.cat([prefix.expand(members, n, -1), inputs[:, :, :stop]], dim=2)
    with torch.no_grad():
        teacher = step.reference(longer, columns=columns + len(prefix))
    student = network(inputs[:, :, :stop], columns=columns)
    scored = targets[:, :, first:stop] != UNSCORED
    return divergence(teacher, student, scored, objective.temperature)


def divergence(
    teacher: Tensor, student: Tensor, scored: Tensor, temperature: float = 1.0
) -> Tensor:
    """Return ``(member,)`` mean KL(teacher || student) over the scored positions, nats.

    Logits are ``(member, n, c, vocabulary)``, ``scored`` is ``(member, n, c)`` bool.
    """
    law = F.log_softmax(student.float() / temperature, dim=-1)
    wanted = F.log_softmax(teacher.float() / temperature, dim=-1)
    each = F.kl_div(law, wanted, reduction="none", log_target=True).sum(dim=-1)
    total = (each * scored).flatten(1).sum(dim=1)
    return total / scored.flatten(1).sum(dim=1).clamp(min=1)


def prefix_tokens(world: Any, prefix: str) -> list[int]:
    """Return the tokens of a prefix; raises ``InputError`` if it cannot be written."""
    tokens = encoder(world.tokenizer_json())(prefix)
    unknown = tokenizer(world.tokenizer_json()).token_to_id(UNKNOWN)
    if not tokens or unknown in tokens:
        raise InputError(
            f"The prefix {prefix!r} cannot be written in the tokens of the world '{world.name}'; "
            "use words and characters that it knows."
        )
    return tokens


def _rows(network: Any, step: Step) -> tuple[Tensor, Tensor]:
    """Return inputs and the answers' targets of all members, ``(member, n, t)`` each."""
    device = device_of(network)
    inputs = stacked([b.inputs for b in step.batches], 0, device)
    targets = stacked([answer_targets(b) for b in step.batches], UNSCORED, device)
    return inputs, targets
