"""AdamW and SGD for a fleet: members of different specifications have each their own rate."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from terrarium.organisms.fleet import Fleet
from terrarium.organisms.recipe import Optimizer


def learning_rate(spec: Optimizer, step: int, steps: int) -> float:
    """Return the rate of ``step`` (from 0) of ``steps``: warm-up, then the schedule."""
    warm = min(1.0, (step + 1) / spec.warmup) if spec.warmup else 1.0
    if spec.schedule == "constant":
        return spec.lr * warm
    share = min(1.0, max(0.0, (step - spec.warmup) / max(1, steps - spec.warmup)))
    fall = share if spec.schedule == "linear" else (1 - math.cos(math.pi * share)) / 2
    return spec.lr * warm * (1 - (1 - spec.final) * fall)


class FleetOptimizer:
    """AdamW (Loshchilov & Hutter 2019), or SGD with momentum, over the members of a network.

    Every member has its own specification, gradient clipping and moments; what happens to one
    changes nothing for another.
    """

    def __init__(self, network: Any, specs: Sequence[Optimizer], frozen: Sequence[str]) -> None:
        self.specs = list(specs)
        self._frozen = tuple(frozen)
        self._attach(network)

    def _attach(self, network: Any) -> None:
        self.leaves: list[list[nn.Parameter]] = [
            network.member_parameters(member, self._frozen) for member in range(len(self.specs))
        ]
        self._network = network if isinstance(network, Fleet) else None
        grouped: dict[Optimizer, list[nn.Parameter]] = {}
        for leaves, spec in zip(self.leaves, self.specs, strict=True):
            grouped.setdefault(spec, []).extend(leaves)
        self._steppers = [(spec, _stepper(spec, leaves)) for spec, leaves in grouped.items()]
        self._owner = {
            leaf: stepper
            for (_, leaves), (_, stepper) in zip(grouped.items(), self._steppers, strict=True)
            for leaf in leaves
        }

    def clip(self) -> Tensor:
        """Clip each member's gradient to its own norm; return the norms before, ``(member,)``.

        Comes between the backward pass and `step`: a fleet's gradients are collected here.
        """
        if self._network is not None:
            return self._clip_rows(self._network)
        norms = []
        for leaves, spec in zip(self.leaves, self.specs, strict=True):
            gradients = [leaf.grad for leaf in leaves if leaf.grad is not None]
            norm = torch.nn.utils.get_total_norm(gradients)
            if spec.clip is not None:
                torch.nn.utils.clip_grads_with_norm_(leaves, spec.clip, norm)
            norms.append(norm)
        return torch.stack(norms)

    def _clip_rows(self, network: Fleet) -> Tensor:
        """Do the same for all members at once, as `torch.nn.utils.clip_grads_with_norm_` does."""
        rows = network.collect_gradients(self._frozen)
        each = [torch.linalg.vector_norm(row, dim=1) for row in rows]
        norms = torch.stack(each).square().sum(dim=0).sqrt() if len(each) > 1 else each[0]
        largest = [math.inf if spec.clip is None else spec.clip for spec in self.specs]
        share = (norms.new_tensor(largest) / (norms + 1e-6)).clamp_(max=1).unsqueeze(1)
        for row in rows:
            row.mul_(share)
        return norms

    def step(self, step: int, steps: int) -> None:
        """Take one step, each member at its own rate."""
        for spec, stepper in self._steppers:
            stepper.param_groups[0]["lr"] = learning_rate(spec, step, steps)
            stepper.step()

    def member_state(self, member: int) -> dict[str, Tensor]:
        """Return copies of a member's moments and step count; empty before the first step."""
        state = {}
        for i, leaf in enumerate(self.leaves[member]):
            for name, value in self._owner[leaf].state.get(leaf, {}).items():
                if value is None:  # SGD's momentum before its first step
                    continue
                state[f"{i}.{name}"] = value.detach().clone()
        return state

    def load_member_state(self, member: int, state: Mapping[str, Tensor]) -> None:
        """Put back what `member_state` returned."""
        for i, leaf in enumerate(self.leaves[member]):
            own = {n.split(".", 1)[1]: v for n, v in state.items() if n.startswith(f"{i}.")}
            if own:
                # fused steppers want the count of steps where the weights are, too
                self._owner[leaf].state[leaf] = {
                    name: value.clone().to(leaf.device) for name, value in own.items()
                }

    def keep(self, network: Any, members: Sequence[int]) -> None:
        """Follow ``network.keep(members)``: attach to the new leaves with the old moments."""
        states = [self.member_state(m) for m in members]
        self.specs = [self.specs[m] for m in members]
        self._attach(network)
        for member, state in enumerate(states):
            self.load_member_state(member, state)


def _stepper(spec: Optimizer, leaves: list[nn.Parameter]) -> torch.optim.Optimizer:
    """Return PyTorch's optimiser of one specification."""
    if spec.kind == "sgd":
        return torch.optim.SGD(
            leaves, lr=spec.lr, momentum=spec.betas[0], weight_decay=spec.weight_decay, fused=True
        )
    return torch.optim.AdamW(
        leaves, lr=spec.lr, betas=spec.betas, weight_decay=spec.weight_decay, fused=True
    )
