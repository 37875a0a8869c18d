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

    ``fleet[name]`` is an ``nn.Parameter`` view ``(member, *shape)``; its ``grad`` is a view into
    ``gradients`` ``(member, p)``, so that autograd accumulates into one buffer.
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
        self._views = nn.ParameterDict()
        self._names = {name: name.replace(".", "/") for name in self.slots}
        self._bind(torch.zeros(members, at))

    def _bind(self, values: Tensor) -> None:
        """Use ``values`` as the buffer and make all views anew."""
        self.values, self.gradients = values, torch.zeros_like(values)
        self.members = len(values)
        for name, slot in self.slots.items():
            shape = (self.members, *slot.shape)
            view = nn.Parameter(values[:, slot.start : slot.stop].view(shape))
            view.grad = self.gradients[:, slot.start : slot.stop].view(shape)
            self._views[self._names[name]] = view

    def __getitem__(self, name: str) -> nn.Parameter:
        view: nn.Parameter = self._views[self._names[name]]
        return view

    def to_device(self, device: torch.device | str) -> None:
        """Move the buffer; views and gradients are made anew."""
        self._bind(self.values.to(device))

    def zero_gradients(self) -> None:
        """Set all gradients to zero, keeping their storage."""
        self.gradients.zero_()

    def trainable(self, member: int, frozen: Sequence[str] = ()) -> list[nn.Parameter]:
        """Return the member's parameters as few flat ``(p_i,)`` leaves with their gradients.

        Names that start with any of ``frozen`` are left out; neighbours are joined.
        """
        ranges: list[list[int]] = []
        for name, slot in self.slots.items():
            if any(name.startswith(prefix) for prefix in frozen):
                continue
            if ranges and ranges[-1][1] == slot.start:
                ranges[-1][1] = slot.stop
            else:
                ranges.append([slot.start, slot.stop])
        leaves = []
        for start, stop in ranges:
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
