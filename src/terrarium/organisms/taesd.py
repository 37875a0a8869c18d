"""Image autoencoders in the numbered layout of TAESD, built from their state dicts alone.

Layout and layers: github.com/madebyollin/taesd (``taesd.py``, MIT).  Encoder and decoder are
sequences whose keys begin with a layer's number; what has no weights (clamp, ReLU, upsampling)
leaves a gap in the numbers, and where gaps may stand says which of them it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from terrarium.errors import ModelError

Part = Literal["encoder", "decoder"]
_CONV = {f"conv.{i}.{kind}" for i in (0, 2, 4) for kind in ("weight", "bias")}
_POOL = {"pool.0.weight", "pool.1.weight", "pool.1.bias", "pool.3.weight"}
_GROUPS = 4
"""Groups of the normalisation in a block's widening branch."""


class Clamp(nn.Module):
    """Soft limit of the latents: ``tanh(x / 3) * 3``."""

    def forward(self, x: Tensor) -> Tensor:
        """Return values in (-3, 3), shaped as ``x``."""
        return torch.tanh(x / 3) * 3


class Block(nn.Module):
    """Three 3x3 convolutions with ReLU between, a skip, and ReLU after the sum.

    With ``wide`` channels the input first gets a branch added to it: 1x1 convolution to ``wide``,
    `GroupNorm` of 4, ReLU, 1x1 convolution back.  ``(n, inputs, rows, columns)`` to
    ``(n, outputs, rows, columns)``.
    """

    def __init__(self, inputs: int, outputs: int, wide: int | None, skip: bool) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1),
        )
        self.skip = nn.Conv2d(inputs, outputs, 1, bias=False) if skip else nn.Identity()
        self.pool = None if wide is None else _branch(inputs, wide)

    def forward(self, x: Tensor) -> Tensor:
        """Return what leaves the block."""
        if self.pool is not None:
            x = x + self.pool(x)
        return torch.relu(self.conv(x) + self.skip(x))


def _branch(inputs: int, wide: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, wide, 1, bias=False),
        nn.GroupNorm(_GROUPS, wide),
        nn.ReLU(),
        nn.Conv2d(wide, inputs, 1, bias=False),
    )


def build_part(state: Mapping[str, Tensor], part: Part, where: str) -> nn.Sequential:
    """Return an encoder or decoder with the weights of ``state``, float32.

    Parameters
    ----------
    state:
        Tensors named ``"<number>.weight"``, ``"<number>.conv.0.weight"``, ...
    part:
        In an encoder a convolution without bias halves the sides; in a decoder the sides are
        doubled (nearest neighbour) before one.
    where:
        What to call the state dict in errors.

    Layers keep their numbers as names, so that keys and modules can be compared.
    Raises ``ModelError`` for missing, unknown, non-finite or ill-shaped tensors.
    """
    layers = _by_number(state, where)
    last = max(layers)
    sequence = nn.Sequential()
    width: int | None = None
    for number in range(last + 1):
        if number not in layers:
            sequence.add_module(str(number), _gap(layers, number, part, where))
            continue
        ends = number in (min(layers), last)
        layer, inputs, outputs = _layer(layers[number], number, part, ends, where)
        if width is not None and inputs != width:
            raise ModelError(
                f"{where}: layer {number} takes {inputs} channels and layer {number - 1} gives "
                f"{width}; use a state dict whose layers belong together."
            )
        sequence.add_module(str(number), layer)
        width = outputs
    _fill(sequence, state, where)
    return sequence.eval()


def stride(part: nn.Sequential) -> int:
    """Return by how much a part shrinks (an encoder) or enlarges (a decoder) each side."""
    halvings = sum(isinstance(x, nn.Conv2d) and x.stride == (2, 2) for x in part)
    doublings = sum(isinstance(x, nn.Upsample) for x in part)
    return int(2 ** (halvings + doublings))


def _by_number(state: Mapping[str, Tensor], where: str) -> dict[int, dict[str, Tensor]]:
    layers: dict[int, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        head, _, rest = name.partition(".")
        if not rest or not head.isdecimal() or head != str(int(head)):
            raise ModelError(
                f"{where}: the key '{name}' does not begin with a layer's number, so this is no "
                "TAESD-style part; give its encoder and decoder state dicts."
            )
        if not bool(torch.isfinite(tensor).all()):
            raise ModelError(
                f"{where}: '{name}' holds NaN or infinity, so nothing can be measured; use an "
                "undamaged checkpoint."
            )
        layers.setdefault(int(head), {})[rest] = tensor
    if not layers:
        raise ModelError(f"{where} holds no tensors; give a TAESD-style state dict.")
    if max(layers) > 10 * len(layers):
        raise ModelError(
            f"{where}: layers are numbered up to {max(layers)} and only {len(layers)} are there; "
            "use a complete state dict."
        )
    return layers


def _gap(
    layers: Mapping[int, Mapping[str, Tensor]], number: int, part: Part, where: str
) -> nn.Module:
    """Return the layer without weights that must stand at a number that no key has."""
    following = layers.get(number + 1, {})
    if part == "decoder" and number == 0 and "weight" in following:
        return Clamp()
    if part == "decoder" and number == 2 and 0 not in layers and "weight" in layers.get(1, {}):
        return nn.ReLU()
    if part == "decoder" and set(following) == {"weight"} and number - 1 in layers:
        return nn.Upsample(scale_factor=2, mode="nearest")
    raise ModelError(
        f"{where} lacks the keys of layer {number} ('{number}.weight' or '{number}.conv.0.weight' "
        "and so on); use a complete state dict."
    )


def _layer(
    tensors: Mapping[str, Tensor], number: int, part: Part, ends: bool, where: str
) -> tuple[nn.Module, int, int]:
    """Return one layer, not yet filled, and its numbers of input and output channels."""
    names = set(tensors)
    if not any(name.startswith(("conv.", "pool.", "skip.")) for name in names):
        wanted = {"weight", "bias"} if ends else {"weight"}
        _complete(names, wanted, {"weight", "bias"}, number, where)
        outputs, inputs = _kernel(tensors["weight"], 3, f"{number}.weight", where)
        shrinks = part == "encoder" and "bias" not in names
        conv = nn.Conv2d(
            inputs, outputs, 3, stride=2 if shrinks else 1, padding=1, bias="bias" in names
        )
        return conv, inputs, outputs
    pooled = any(name.startswith("pool.") for name in names)
    wanted = _CONV | (_POOL if pooled else set())
    _complete(names, wanted, wanted | {"skip.weight"}, number, where)
    outputs, inputs = _kernel(tensors["conv.0.weight"], 3, f"{number}.conv.0.weight", where)
    wide = None
    if pooled:
        wide, _ = _kernel(tensors["pool.0.weight"], 1, f"{number}.pool.0.weight", where)
        if wide % _GROUPS:
            raise ModelError(
                f"{where}: '{number}.pool.0.weight' widens to {wide} channels, which {_GROUPS} "
                "groups cannot share; use an undamaged state dict."
            )
    skip = "skip.weight" in names
    if inputs != outputs and not skip:
        raise ModelError(
            f"{where} lacks the key '{number}.skip.weight', which a block from {inputs} to "
            f"{outputs} channels needs; use a complete state dict."
        )
    return Block(inputs, outputs, wide, skip), inputs, outputs


def _complete(
    names: set[str], wanted: set[str], allowed: set[str], number: int, where: str
) -> None:
    if missing := sorted(wanted - names):
        raise ModelError(
            f"{where} lacks the key '{number}.{missing[0]}'; use a complete state dict."
        )
    if unknown := sorted(names - allowed):
        raise ModelError(
            f"{where} holds the key '{number}.{unknown[0]}', which no TAESD-style layer has; give "
            "the state dict of such an autoencoder."
        )


def _kernel(weight: Tensor, side: int, name: str, where: str) -> tuple[int, int]:
    """Return the output and input channels of a convolution's kernel."""
    if weight.dim() != 4 or tuple(weight.shape[2:]) != (side, side):
        raise ModelError(
            f"{where}: '{name}' is {tuple(weight.shape)} and a kernel (outputs, inputs, {side}, "
            f"{side}) was expected; use an undamaged state dict."
        )
    return int(weight.shape[0]), int(weight.shape[1])


def _fill(sequence: nn.Sequential, state: Mapping[str, Tensor], where: str) -> None:
    for name, own in sequence.state_dict().items():
        if own.shape != state[name].shape:
            raise ModelError(
                f"{where}: '{name}' is {tuple(state[name].shape)} and its neighbours ask for "
                f"{tuple(own.shape)}; use an undamaged state dict."
            )
    sequence.load_state_dict({name: tensor.float() for name, tensor in state.items()})
