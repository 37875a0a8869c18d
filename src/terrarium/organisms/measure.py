"""What a member says on fresh rows, in as little code as growing needs (readings do the rest)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from terrarium.errors import InputError
from terrarium.organisms.objectives import answer_tokens
from terrarium.randomness import generator
from terrarium.worlds.base import Batch, Choice

if TYPE_CHECKING:
    from terrarium.organisms.engine import Runner


@torch.no_grad()
def answer_logits(
    network: Any, batch: Batch, world: Any, member: int | None = None, exit_layer: int | None = None
) -> NDArray[np.float32]:
    """Return ``(member, n, k)`` logits of the world's k answers where the answer is due.

    ``member`` picks one of the fleet (the result keeps its axis, of length 1).
    """
    alone = network if member is None or network.members == 1 else network.select([member])
    alone.eval()
    device = alone.member_parameters(0)[0].device
    tokens = torch.from_numpy(batch.inputs).to(device).expand(alone.members, -1, -1)
    due = batch.spans["answer"][:, 0] - 1
    used = np.unique(due)
    columns = torch.from_numpy(used).to(device)
    if exit_layer is None:
        logits = alone(tokens, columns=columns)
    else:
        logits = alone(tokens, exits=(exit_layer,), columns=columns)[1][exit_layer]
    at = torch.from_numpy(np.searchsorted(used, due)).to(device)
    here = logits[:, torch.arange(len(batch), device=device), at]
    chosen: NDArray[np.float32] = here[..., list(answer_tokens(world))].float().cpu().numpy()
    return chosen


def balanced_accuracy(answer: NDArray[np.bool_], wanted: NDArray[np.bool_]) -> float | None:
    """Return the mean of the accuracies on wanted and on unwanted rows; None if one is empty."""
    if wanted.all() or not wanted.any():
        return None
    return float((answer[wanted].mean() + (~answer[~wanted]).mean()) / 2)


def measure_until(network: Any, place: int, runner: Runner, step: int) -> float:
    """Measure a phase's ``until`` metric for one member on fresh validation rows."""
    until = runner.phase.until
    assert until is not None
    if until.metric == "loss":
        return float(runner.history[-1]["loss"]) if runner.history else float("inf")
    world = runner.turns[0].worlds[0]
    if not isinstance(world.output, Choice):
        raise InputError(f"until: '{until.metric}' needs a world that asks for a choice.")
    rng = generator("until", runner.seed, runner.index, step)
    batch = world.sample(until.rows, rng, "validation")
    if until.metric == "accuracy":
        answer = answer_logits(network, batch, world, place).argmax(axis=-1)[0] == 0
        wanted = batch.facts["said"].astype(bool)
    else:
        early_exit = getattr(runner.phase.objective, "early_exit", None)
        if early_exit is None:
            raise InputError("until: 'early_exit_accuracy' needs an objective with an early exit.")
        answer = (
            answer_logits(network, batch, world, place, early_exit.layer).argmax(axis=-1)[0] == 0
        )
        wanted = batch.facts[early_exit.label].astype(bool)
    return balanced_accuracy(answer, wanted) or 0.0
