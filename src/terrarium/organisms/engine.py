"""The growing loop: one phase of a fleet, whatever its network, world and objective.

Members share nothing but the shape of a step: each has its own data, learning rate, clipping and
fate.  Random numbers are keyed by (seed, phase, step), so that resuming, fleets and worker counts
change nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from terrarium.organisms.feed import Turn, turn_of
from terrarium.organisms.kernels import fast_float32, kept_memory
from terrarium.organisms.measure import measure_until
from terrarium.organisms.objectives import Step, losses
from terrarium.organisms.optimizer import FleetOptimizer
from terrarium.organisms.recipe import Phase
from terrarium.progress import Progress, Silent
from terrarium.randomness import generator
from terrarium.worlds.base import Batch, pad_right

CHECKPOINT_SECONDS = 15.0
"""Wall time between checkpoints inside a phase; results do not depend on it."""


@dataclass
class Runner:
    """One member of a running phase: where its data come from and how it fares.

    ``index`` is the phase's place in the recipe; ``turns`` are the phase's own sources and
    objective, then those of its strands.
    """

    phase: Phase
    index: int
    seed: int
    turns: Sequence[Turn]
    status: str = "running"
    reason: str = ""
    stopped_at: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    snapshots: dict[int, dict[str, Tensor]] = field(default_factory=dict)
    final: dict[str, Tensor] = field(default_factory=dict)
    moments: dict[str, Tensor] = field(default_factory=dict)

    def turn(self, step: int) -> Turn:
        """Return whose step it is."""
        return self.turns[turn_of(self.phase, step)]

    def batch(self, step: int) -> Batch:
        """Return the member's examples of one step."""
        rng = generator("data", self.seed, self.index, step)
        return self.turn(step).batch(rng, step, self.phase.steps)

    def key(self, step: int) -> tuple[str | int, ...]:
        """Return the key of this step's other random numbers."""
        return ("step", self.seed, self.index, step)


@dataclass(frozen=True)
class Checkpoint:
    """Everything an interrupted phase needs to go on: tensors, and plain data."""

    tensors: Mapping[str, Tensor]
    data: Mapping[str, Any]


Save = Callable[[Checkpoint], None]


def run_phase(
    network: Any,
    members: list[Runner],
    *,
    carried: Sequence[Mapping[str, Tensor]] | None = None,
    resume: Checkpoint | None = None,
    save: Save | None = None,
    progress: Progress | None = None,
    task: str = "growing",
) -> None:
    """Train every member through its phase; each ends with ``status`` and ``final`` weights.

    ``carried`` are optimiser states from the phase before (used where the phase says so).
    ``save`` is called with a `Checkpoint` every `CHECKPOINT_SECONDS`; handing the last one back
    as ``resume`` continues as if nothing had happened.  A member whose loss or gradient is not
    finite becomes ``"diverged"`` and leaves the fleet; the others go on untouched.
    """
    loop = _Loop(network, members, carried, progress or Silent(), task)
    if resume is not None:
        loop.restore(resume)
    with fast_float32(), kept_memory():
        loop.run(save)


class _Loop:
    """The state of one phase in progress."""

    def __init__(
        self,
        network: Any,
        members: list[Runner],
        carried: Sequence[Mapping[str, Tensor]] | None,
        progress: Progress,
        task: str,
    ) -> None:
        self.network, self.all, self.progress, self.task = network, members, progress, task
        self.phase = members[0].phase  # objective, steps and batch are the fleet's
        self.active = list(range(len(members)))
        self.step = 0
        if self.phase.lora is not None:
            network.add_lora(self.phase.lora, [("seed", m.seed, m.index) for m in members])
        self.optimizer = FleetOptimizer(
            network, [m.phase.optimizer for m in members], self.phase.freeze
        )
        for place, member in enumerate(members):
            if member.phase.optimizer.carry and carried is not None:
                self.optimizer.load_member_state(place, carried[place])
        self.reference = None
        if any(_needs_reference(turn.objective) for turn in members[0].turns):
            self.reference = network.select(range(len(members)))

    def run(self, save: Save | None) -> None:
        """Go through the remaining steps."""
        self.progress.start(self.task, self.phase.steps)
        self.progress.advance(self.task, self.step)
        last = time.monotonic()
        self.network.train()
        while self.active and self.step < self.phase.steps:
            self._keep_snapshots()
            self._one_step()
            self.step += 1
            self._maybe_stop()
            if save is not None and time.monotonic() - last > CHECKPOINT_SECONDS:
                save(self.checkpoint())
                last = time.monotonic()
            self.progress.advance(self.task, 1, self._note())
        self._keep_snapshots()
        self._leave(self.active, "grown")
        self.progress.finish(self.task)

    def _one_step(self) -> None:
        running = [self.all[i] for i in self.active]
        turns = [member.turn(self.step) for member in running]
        batches = [member.batch(self.step) for member in running]
        device = self.network.member_parameters(0)[0].device
        notes: dict[str, list[float]] = {}
        step = Step(
            batches,
            _stacked([b.inputs for b in batches], 0, device),
            _stacked([b.targets for b in batches], -100, device),
            [turn.worlds[0] for turn in turns],
            [member.key(self.step) for member in running],
            self.reference,
            notes,
            teachers=[turn.teacher for turn in turns],
        )
        self.network.zero_grad()
        loss = losses(turns[0].objective, self.network, step)
        torch.autograd.backward(loss.sum())
        loss = loss.detach()
        norm = self.optimizer.clip()
        healthy = torch.isfinite(loss) & torch.isfinite(norm)
        if not bool(healthy.all()):
            self._drop_diverged(healthy.tolist())
            if not self.active:
                return
        self.optimizer.step(self.step, self.phase.steps)
        if _logged(self.step, self.phase.steps):
            kept = [i for i, ok in enumerate(healthy.tolist()) if ok]
            for place, i in zip(kept, self.active, strict=True):
                self.all[i].history.append(
                    {
                        "step": self.step,
                        "loss": float(loss[place]),
                        "gradient_norm": float(norm[place]),
                        **{name: values[place] for name, values in notes.items()},
                    }
                )

    def _drop_diverged(self, healthy: Sequence[bool]) -> None:
        lost = [i for i, ok in zip(self.active, healthy, strict=True) if not ok]
        for i in lost:
            self.all[i].reason = f"the loss or its gradient was not finite at step {self.step}"
        gradients = [
            [None if p.grad is None else p.grad.clone() for p in leaves]
            for leaves, ok in zip(self.optimizer.leaves, healthy, strict=True)
            if ok
        ]
        self._leave(lost, "diverged")
        for leaves, kept in zip(self.optimizer.leaves, gradients, strict=False):
            for leaf, gradient in zip(leaves, kept, strict=True):
                if gradient is not None and leaf.grad is not None:
                    leaf.grad.copy_(gradient)

    def _maybe_stop(self) -> None:
        """Ask each member's ``until`` and let those go that have reached it."""
        until = self.phase.until
        if until is None or self.step % until.every or self.step >= self.phase.steps:
            return
        done = []
        for place, i in enumerate(self.active):
            member = self.all[i]
            value = measure_until(self.network, place, member, self.step)
            member.history.append({"step": self.step - 1, until.metric: value})
            high = until.at_least is not None and value >= until.at_least
            low = until.at_most is not None and value <= until.at_most
            if high or low:
                done.append(i)
        self.network.train()
        self._leave(done, "grown")

    def _leave(self, leaving: Sequence[int], status: str) -> None:
        """Record what the leaving members have become, and shrink the fleet."""
        leaving = list(leaving)
        if not leaving:
            return
        places = {i: place for place, i in enumerate(self.active)}
        for i in leaving:
            member = self.all[i]
            member.status, member.stopped_at = status, self.step
            member.final = self._merged_state(places[i])
            member.moments = self.optimizer.member_state(places[i])
        self.active = [i for i in self.active if i not in leaving]
        if self.active:
            keep = [places[i] for i in self.active]
            self.network.keep(keep)
            self.optimizer.keep(self.network, keep)
            if self.reference is not None:
                self.reference.keep(keep)

    def _merged_state(self, place: int) -> dict[str, Tensor]:
        """Return a member's weights with any adapters folded in, leaving the fleet as it is."""
        if getattr(self.network, "adapters", None) is None:
            return dict(self.network.member_state(place))
        whole = self.network.select([place])
        whole.merge_lora()
        return dict(whole.member_state(0))

    def _keep_snapshots(self) -> None:
        if self.step in self.phase.snapshots:
            for place, i in enumerate(self.active):
                self.all[i].snapshots[self.step] = self._merged_state(place)

    def _note(self) -> str:
        recent = [self.all[i].history[-1] for i in self.active if self.all[i].history]
        known = [row["loss"] for row in recent if "loss" in row]
        return f"loss {np.mean(known):.3f}" if known else ""

    def checkpoint(self) -> Checkpoint:
        """Return everything that `restore` needs."""
        tensors: dict[str, Tensor] = {}
        for place, i in enumerate(self.active):
            tensors |= {f"{i}/weights/{n}": t for n, t in self.network.member_state(place).items()}
            tensors |= {
                f"{i}/moments/{n}": t for n, t in self.optimizer.member_state(place).items()
            }
        for i, member in enumerate(self.all):
            for step, state in member.snapshots.items():
                tensors |= {f"{i}/snapshot/{step}/{n}": t for n, t in state.items()}
            if i not in self.active:
                tensors |= {f"{i}/final/{n}": t for n, t in member.final.items()}
                tensors |= {f"{i}/moments/{n}": t for n, t in member.moments.items()}
        data = {
            "step": self.step,
            "active": self.active,
            "members": [
                {k: getattr(m, k) for k in ("status", "reason", "stopped_at", "history")}
                for m in self.all
            ],
        }
        return Checkpoint(tensors, data)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint of the same fleet."""
        self.step = int(checkpoint.data["step"])
        for member, known in zip(self.all, checkpoint.data["members"], strict=True):
            for name, value in known.items():
                setattr(member, name, value)
        for i, member in enumerate(self.all):
            parts: dict[str, dict[str, Tensor]] = {}
            for name, tensor in checkpoint.tensors.items():
                head, kind, rest = name.split("/", 2)
                if int(head) == i:
                    parts.setdefault(kind, {})[rest] = tensor
            for name, tensor in parts.get("snapshot", {}).items():
                step, rest = name.split("/", 1)
                member.snapshots.setdefault(int(step), {})[rest] = tensor
            member.final = parts.get("final", {})
            member.moments = parts.get("moments", {})
            if "weights" in parts:
                self.network.load_member_state(i, parts["weights"])
                self.optimizer.load_member_state(i, member.moments)
        gone = [i for i in self.active if i not in checkpoint.data["active"]]
        if gone:
            self.active = list(checkpoint.data["active"])
            self.network.keep(self.active)
            self.optimizer.keep(self.network, self.active)
            if self.reference is not None:
                self.reference.keep(self.active)


def _stacked(arrays: Sequence[Any], pad: int, device: torch.device) -> Tensor:
    if arrays[0].ndim == 2 and arrays[0].dtype.kind == "i":
        longest = max(a.shape[1] for a in arrays)
        arrays = [pad_right(a, longest, pad) for a in arrays]
    return torch.from_numpy(np.stack(arrays)).to(device)


def _needs_reference(objective: Any) -> bool:
    """Whether an objective compares with the network as it was at the start of the phase."""
    kinds = ("dpo", "context_distillation")
    return bool(getattr(objective, "kl", 0.0)) or objective.kind in kinds


def _logged(step: int, steps: int) -> bool:
    """Whether a step's loss is kept: about 100 steps of a phase, and the first and last."""
    every = max(1, math.ceil(steps / 100))
    return step % every == 0 or step == steps - 1
