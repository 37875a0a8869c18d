"""A fleet's parameters in one buffer ``(member, parameters)``, seen through named views.

One buffer makes the optimiser, clipping, checkpoints and member selection a handful of large
operations instead of one per tensor, which is what small networks on a CPU are limited by.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Slot:
    """Where a named tensor lies in a member's row, and its shape without the member axis."""

    start: int
    stop: int
    shape: tuple[int, ...]


class FleetParameters(nn.Module):
    """Named tensors of all members, stored in ``values`` ``(member, p)`` float32.

    ``fleet[name]`` is an ``nn.Parameter`` view ``(member, *shape)``.  Autograd gives each its own
    ``grad``; `collect_gradients` brings them together in ``gradients`` ``(member, p)``, the
    storage of the gradients of `trainable`.  (Were ``grad`` a view of that buffer from the start,
    autograd would add to it: a pass more, and into rows with gaps, of which it warns.)
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], members: int) -> None:
        super().__init__()
        self.members = members
        self.slots: dict[str, Slot] = {}
        at = 0
        for name, shape in shapes.items():
            self.slots[name] = Slot(at, at + prod(shape), shape)
            at += prod(shape)
        self.size = at
        self._learning = True
        self._views = nn.ParameterDict()
        self._names = {name: name.replace(".", "/") for name in self.slots}
        self._bind(torch.zeros(members, at))

    def _bind(self, values: Tensor) -> None:
        """Use ``values`` as the buffer and make all views anew."""
        self.values, self.gradients = values, torch.zeros_like(values)
        self.members = len(values)
        for name, slot in self.slots.items():
            shape = (self.members, *slot.shape)
            view = nn.Parameter(values[:, slot.start : slot.stop].view(shape), self._learning)
            self._views[self._names[name]] = view
        self._pairs = [
            (self[name], self.gradients[:, slot.start : slot.stop].view(self[name].shape))
            for name, slot in self.slots.items()
        ]

    def __getitem__(self, name: str) -> nn.Parameter:
        view: nn.Parameter = self._views[self._names[name]]
        return view

    def to_device(self, device: torch.device | str) -> None:
        """Move the buffer; views and gradients are made anew."""
        self._bind(self.values.to(device))

    def zero_gradients(self) -> None:
        """Forget all gradients."""
        for view, _ in self._pairs:
            view.grad = None

    @torch.no_grad()
    def collect_gradients(self) -> None:
        """Copy what autograd left in each ``grad`` into ``gradients``; no ``grad`` counts as zero.

        Afterwards each ``grad`` is a view of the buffer; a second call changes nothing.
        """
        for view, collected in self._pairs:
            if view.grad is None:
                collected.zero_()
            elif view.grad is not collected:
                collected.copy_(view.grad)
            view.grad = collected

    def learn(self, on: bool) -> None:
        """Say whether autograd is to compute gradients of these parameters."""
        self._learning = on
        self._views.requires_grad_(on)

    def ranges(self, frozen: Sequence[str] = ()) -> list[tuple[int, int]]:
        """Return the stretches of a row that train: all names that start with none of ``frozen``.

        Neighbours are joined.
        """
        found: list[tuple[int, int]] = []
        for name, slot in self.slots.items():
            if name.startswith(tuple(frozen)):
                continue
            if found and found[-1][1] == slot.start:
                found[-1] = (found[-1][0], slot.stop)
            else:
                found.append((slot.start, slot.stop))
        return found

    def trainable(self, member: int, frozen: Sequence[str] = ()) -> list[nn.Parameter]:
        """Return the member's parameters as few flat ``(p_i,)`` leaves with their gradients.

        Names that start with any of ``frozen`` are left out.
        """
        leaves = []
        for start, stop in self.ranges(frozen):
            leaf = nn.Parameter(self.values[member, start:stop])
            leaf.grad = self.gradients[member, start:stop]
            leaves.append(leaf)
        return leaves

    def state(self, member: int) -> dict[str, Tensor]:
        """Return copies of one member's tensors by name."""
        row = self.values[member].detach()
        return {n: row[s.start : s.stop].view(s.shape).clone() for n, s in self.slots.items()}

    @torch.no_grad()
    def load(self, member: int, state: Mapping[str, Tensor]) -> None:
        """Copy ``state`` into one member; raises ``KeyError`` for a missing name."""
        for name, slot in self.slots.items():
            self.values[member, slot.start : slot.stop] = state[name].reshape(-1)

    def select(self, members: Sequence[int]) -> Tensor:
        """Return a copy of the chosen rows of the buffer."""
        return self.values[list(members)].detach().clone()

    def rebind(self, values: Tensor) -> None:
        """Replace the buffer by ``values`` ``(member, p)``; the number of members may change."""
        if values.shape[1] != self.size:
            raise ValueError(f"expected rows of {self.size} parameters, got {values.shape[1]}")
        self._bind(values)
