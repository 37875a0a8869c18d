"""The contract of what is grown: a network whose parameters carry a leading axis of members."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, Self

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Site:
    """Where a named activation is found: a submodule, and which side of it.

    ``index`` picks from a tuple output (or from the positional inputs).  ``layout`` says what the
    module's tensor looks like: ``"fleet"`` has the leading member axis, ``"single"`` is that of
    one ordinary network without it, ``"flat"`` is ``"single"`` with examples and positions
    flattened into one axis.  Whoever hooks restores the member axis.
    """

    module: nn.Module
    side: Literal["output", "input"] = "output"
    index: int = 0
    layout: Literal["fleet", "single", "flat"] = "fleet"


class Network(Protocol):
    """A fleet of ``members`` networks of one architecture that share nothing but their shape.

    An ordinary network is a fleet of one.  Inputs and outputs carry the member axis first:
    ``(member, n, ...)``.  Hooks at a site see ``(member, n, position, channel)`` (sequences),
    ``(member, n, channel)`` (coordinates) or ``(member, n, channel, row, column)`` (images).
    """

    members: int

    def __call__(self, inputs: Tensor, **options: Any) -> Any:
        """Return the outputs ``(member, n, ...)``: logits, field values, images."""

    def sites(self) -> Mapping[str, Site]:
        """Return the named sites in the order of the forward pass (``"resid.post[2]"``, ...).

        Grammar: ``<stream>.<side>[<layer>]`` with layers counted from 0; ``embed`` is what enters
        the first block; ``resid.post[i]`` what leaves block ``i``, before any final norm;
        ``attn.out[i]`` and ``mlp.out[i]`` what each part adds; ``mlp.act[i]`` the hidden units.
        """

    def member_parameters(self, member: int, frozen: Sequence[str] = ()) -> list[nn.Parameter]:
        """Return one member's trainable parameters, less those whose names start with ``frozen``.

        They share storage with the fleet's parameters.
        """

    def zero_grad(self, set_to_none: bool = ...) -> None:
        """Forget all gradients."""

    def member_state(self, member: int) -> dict[str, Tensor]:
        """Return copies of one member's tensors, without the member axis."""

    def load_member_state(self, member: int, state: Mapping[str, Tensor]) -> None:
        """Put back what `member_state` returned."""

    def save(self, member: int, folder: Path, tokenizer_json: str | None = None) -> None:
        """Write one member in Hugging Face layout (config, safetensors, tokenizer)."""

    def select(self, members: Sequence[int]) -> Self:
        """Return a new fleet of the chosen members (copies)."""

    def train(self, mode: bool = True) -> Any:
        """Switch between training and evaluation."""


def finite(network: nn.Module) -> list[str]:
    """Return the names of parameters that hold NaN or infinity."""
    return [name for name, p in network.named_parameters() if not bool(torch.isfinite(p).all())]
