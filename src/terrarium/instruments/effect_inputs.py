"""What enters a network whose effects are measured: precision, and faults told in one sentence."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from terrarium.errors import InputError


def like_weights(value: Any, like: Tensor) -> Tensor:
    """Return what enters a network; whole numbers, as tokens are, stay whole."""
    held = torch.as_tensor(value)
    return held.to(like) if held.is_floating_point() else held.to(like.device)


def check_images(network: Any, inputs: Tensor) -> None:
    """Raise ``InputError`` for images of bytes, and for those that the network cannot take."""
    if inputs.dim() > 2 and not inputs.is_floating_point():
        raise InputError(
            f"Effects: the inputs are {inputs.dtype} of shape {tuple(inputs.shape)}; give images "
            "as real numbers in [0, 1] (bytes divided by 255)."
        )
    spec: Any = getattr(network, "spec", None)
    side = getattr(spec, "side", None)
    if side is not None and inputs.shape[1:] != (wanted := (spec.channels, side, side)):
        raise InputError(
            f"Effects: the inputs have shape {tuple(inputs.shape)} and the network takes images "
            f"(n, {', '.join(map(str, wanted))}); give them with an axis of channels."
        )
