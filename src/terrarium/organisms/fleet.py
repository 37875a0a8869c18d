"""What every network of our own shares: members in one buffer, adapters, selection, devices."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from terrarium.errors import InputError
from terrarium.organisms.parameters import FleetParameters
from terrarium.organisms.recipe import LoRA
from terrarium.randomness import generator

Key = tuple[str | int, ...]
"""What decides a member's random numbers."""


class Fleet(nn.Module):
    """A fleet of networks of one architecture; architectures add ``forward`` and ``sites``.

    Parameters
    ----------
    spec:
        The architecture, a model spec of a recipe.
    shapes:
        Name to shape of a member's tensors; the two-dimensional ones can be adapted by LoRA.
    initial:
        ``initial(key)`` draws a member's first tensors.
    keys:
        One key per member, which alone decides its first weights.
    """

    def __init__(
        self,
        spec: Any,
        shapes: Mapping[str, tuple[int, ...]],
        initial: Callable[[Key], Mapping[str, Tensor]],
        keys: Sequence[Key],
    ) -> None:
        super().__init__()
        self.spec = spec
        self.weights = FleetParameters(shapes, len(keys))
        self.adapters: FleetParameters | None = None
        self.adapter_scale = 0.0
        for member, key in enumerate(keys):
            self.weights.load(member, initial(key))

    @property
    def members(self) -> int:
        """Number of members."""
        return self.weights.members

    @property
    def parameters_per_member(self) -> int:
        """Number of parameters of one member, adapters not counted."""
        return self.weights.size

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.weights.values.device

    def matrix(self, name: str) -> Tensor:
        """Return ``(member, in, out)``, the adapter's low-rank change included."""
        weight = self.weights[name]
        if self.adapters is None or f"{name}.a" not in self.adapters.slots:
            return weight
        a, b = self.adapters[f"{name}.a"], self.adapters[f"{name}.b"]
        return torch.baddbmm(weight, a, b, alpha=self.adapter_scale)

    def add_lora(self, spec: LoRA, keys: Sequence[Key]) -> None:
        """Add low-rank adapters (Hu et al. 2021, section 4.1): a is drawn by key, b is zero.

        ``spec.targets`` are last parts of tensor names (``"qkv"``, ``"down"``); empty means the
        matrices of all blocks.  Raises ``InputError`` where they name no matrix.
        """
        shapes: dict[str, tuple[int, ...]] = {}
        matrices = {n: s.shape for n, s in self.weights.slots.items() if len(s.shape) == 2}
        for name, shape in matrices.items():
            if name.rsplit(".", 1)[-1] in (spec.targets or _block_parts(matrices)):
                shapes[f"{name}.a"] = (shape[0], spec.rank)
                shapes[f"{name}.b"] = (spec.rank, shape[1])
        if not shapes:
            known = sorted({n.rsplit(".", 1)[-1] for n in matrices})
            raise InputError(f"LoRA targets {spec.targets} name no matrix; known are {known}.")
        self.adapters = FleetParameters(shapes, self.members)
        self.adapters.to_device(self.device)
        self.adapter_scale = spec.alpha / spec.rank
        self.weights.learn(False)
        for member, key in enumerate(keys):
            self.adapters.load(member, _initial_adapters(shapes, key))

    @torch.no_grad()
    def merge_lora(self) -> None:
        """Fold the adapters into the weights and drop them."""
        if self.adapters is None:
            return
        for name in {n.rsplit(".", 1)[0] for n in self.adapters.slots}:
            self.weights[name].copy_(self.matrix(name))
        self.adapters = None
        self.weights.learn(True)

    def member_parameters(self, member: int, frozen: Sequence[str] = ()) -> list[nn.Parameter]:
        """Return the member's trainable leaves: the adapters where there are any."""
        owner = self.weights if self.adapters is None else self.adapters
        return owner.trainable(member, frozen)

    def zero_grad(self, set_to_none: bool = False) -> None:
        """Forget all gradients."""
        self.weights.zero_gradients()
        if self.adapters is not None:
            self.adapters.zero_gradients()

    def collect_gradients(self, frozen: Sequence[str] = ()) -> list[Tensor]:
        """Bring the gradients to where the leaves of `member_parameters` have theirs.

        Returns them as ``(member, p_i)``, in the order of those leaves.
        """
        owner = self.weights if self.adapters is None else self.adapters
        owner.collect_gradients()
        return [owner.gradients[:, start:stop] for start, stop in owner.ranges(frozen)]

    def member_state(self, member: int) -> dict[str, Tensor]:
        """Return copies of one member's tensors; adapters are prefixed ``lora:``."""
        state = self.weights.state(member)
        if self.adapters is not None:
            state |= {f"lora:{n}": t for n, t in self.adapters.state(member).items()}
        return state

    def load_member_state(self, member: int, state: Mapping[str, Tensor]) -> None:
        """Put back what `member_state` returned."""
        self.weights.load(member, state)
        if self.adapters is not None:
            adapters = {n[5:]: t for n, t in state.items() if n.startswith("lora:")}
            self.adapters.load(member, adapters)

    def keep(self, members: Sequence[int]) -> None:
        """Keep only the chosen members, in that order, in place."""
        self.weights.rebind(self.weights.select(members))
        if self.adapters is not None:
            self.adapters.rebind(self.adapters.select(members))

    def select(self, members: Sequence[int]) -> Self:
        """Return a new fleet of copies of the chosen members, adapters included."""
        chosen = type(self)(self.spec, [("select", 0)])  # type: ignore[call-arg,arg-type]
        chosen.weights.rebind(self.weights.select(members))
        if self.adapters is not None:
            shapes = {n: s.shape for n, s in self.adapters.slots.items()}
            chosen.adapters = FleetParameters(shapes, 1)
            chosen.adapters.rebind(self.adapters.select(members))
            chosen.adapter_scale = self.adapter_scale
            chosen.weights.learn(False)
        return chosen.train(self.training)

    def to_device(self, device: torch.device | str) -> Self:
        """Move all weights; returns itself."""
        self.weights.to_device(device)
        if self.adapters is not None:
            self.adapters.to_device(device)
        return self


def multiply(x: Tensor, matrix: Tensor) -> Tensor:
    """Return ``x @ matrix`` member by member: ``(member, ..., in)`` by ``(member, in, out)``."""
    members, *middle, inner = x.shape
    flat = torch.bmm(x.reshape(members, -1, inner), matrix)
    return flat.view(members, *middle, matrix.shape[-1])


def per_member(values: Tensor, like: Tensor) -> Tensor:
    """Return ``(member, d)`` shaped to broadcast against ``like`` ``(member, ..., d)``."""
    return values.view(values.shape[0], *(1,) * (like.dim() - 2), values.shape[1])


def normal(key: Key, name: str, shape: tuple[int, ...], scale: float) -> Tensor:
    """Draw a float32 tensor from a normal law of standard deviation ``scale``, by key and name."""
    drawn = generator("init", *key, name).standard_normal(shape, dtype="float32")
    return torch.from_numpy(drawn) * scale


def _block_parts(matrices: Mapping[str, tuple[int, ...]]) -> set[str]:
    inner = {n.rsplit(".", 1)[-1] for n in matrices if n.startswith("blocks.")}
    return inner or {n.rsplit(".", 1)[-1] for n in matrices}


def _initial_adapters(shapes: Mapping[str, tuple[int, ...]], key: Key) -> dict[str, Tensor]:
    return {
        name: normal(("lora", *key), name, shape, 1 / math.sqrt(shape[0]))
        if name.endswith(".a")
        else torch.zeros(shape)
        for name, shape in shapes.items()
    }
