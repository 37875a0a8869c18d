"""ReLU with L1, JumpReLU and gated: dense losses, differentiated by autograd in blocks of rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import Function

from terrarium.instruments.dictionaries.active import Int
from terrarium.instruments.dictionaries.weights import Step, Usual, Weights

BLOCK = 1 << 19
"""Pre-activations that are looked at together: 2 MB, so that what is kept for the way back stays
in a processor's cache."""


class JumpReLUFunction(Function):
    """``z 1[z > theta]`` with the pseudo-derivative for ``theta`` of Rajamanoharan et al. 2024b.

    The kernel is the rectangle ``K(u) = 1[|u| < 1/2]`` (arXiv 2407.14435, eqs. 7 and 11):
    ``d/dtheta = -(theta / bandwidth) K((z - theta) / bandwidth)``, ``d/dz = 1[z > theta]``.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, theta: Tensor, bandwidth: float) -> Tensor:
        """Return the features; ``z`` is ``(n, m)``, ``theta`` ``(m,)``."""
        ctx.save_for_backward(z, theta)
        ctx.bandwidth = bandwidth
        return z * (z > theta)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, Tensor, None]:
        """Return the slopes of ``z`` and ``theta``."""
        z, theta = ctx.saved_tensors
        (slope,) = slopes
        near = (z - theta).abs_() < ctx.bandwidth / 2
        return slope * (z > theta), -(theta / ctx.bandwidth) * (slope * near).sum(0), None


class StepFunction(Function):
    """``1[z > theta]`` with the pseudo-derivative ``-(1 / bandwidth) K((z - theta) / bandwidth)``.

    Source: Rajamanoharan et al. 2024b, arXiv 2407.14435, eq. 12.  None flows to ``z``.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, theta: Tensor, bandwidth: float) -> Tensor:
        """Return 0 and 1; ``z`` is ``(n, m)``, ``theta`` ``(m,)``."""
        ctx.save_for_backward(z, theta)
        ctx.bandwidth = bandwidth
        return (z > theta).to(z.dtype)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[None, Tensor, None]:
        """Return the slope of ``theta``."""
        z, theta = ctx.saved_tensors
        (slope,) = slopes
        near = (z - theta).abs_() < ctx.bandwidth / 2
        return None, -(slope * near).sum(0) / ctx.bandwidth, None


Loss = Callable[[Weights, Tensor, float], tuple[Tensor, Tensor, Tensor]]
"""Takes weights, rows ``(n, d)`` and the share of the penalty; gives the mean loss, the features
``(n, m)`` and the reconstruction ``(n, d)``."""


@dataclass
class Penalised:
    """The objective of dictionaries that are sparse by a penalty."""

    weights: Weights
    loss: Loss

    @property
    def usual(self) -> Usual:
        """The rates where none is given."""
        return Usual(2e-3, hurry=2.0, most=5e-3)

    def step(self, x: Tensor, dead: Int, sparsity: float = 1.0) -> Step:
        """Set gradients for the batch ``x`` ``(n, d)``; ``sparsity`` scales the penalty.

        ``dead`` is for objectives that revive latents by their loss; these do not.
        """
        w = self.weights
        w.zero_gradients()
        n = len(x)
        rows = max(1, BLOCK // w.latents) if x.device.type == "cpu" else n
        total = squared = active = 0.0
        fired = np.zeros(w.latents, np.int64)
        for tensor in w.all().values():
            tensor.requires_grad_(True)
        for start in range(0, n, rows):
            block = x[start : start + rows]
            share = len(block) / n
            with torch.enable_grad():
                loss, features, reached = self.loss(w, block, sparsity)
                (loss * share).backward()  # type: ignore[no-untyped-call]
            with torch.no_grad():
                total += float(loss) * share
                squared += float((reached - block).square().sum()) / n
                counts = (features > 0).sum(0)
                active += float(counts.sum()) / n
                fired += counts.cpu().numpy()
        for tensor in w.all().values():
            tensor.requires_grad_(False)
        return Step(total, squared, active, fired)

    def reconstruct(self, x: Tensor) -> Tensor:
        """Return what is reconstructed of ``x`` ``(n, d)``."""
        with torch.no_grad():
            return self.loss(self.weights, x, 1.0)[2]


def relu_loss(l1: float, by_norm: bool) -> Loss:
    """Return ``|x - x_hat|^2 + l1 sum_i f_i`` (times ``|d_i|`` if ``by_norm``), a mean over rows.

    Source: Bricken et al. 2023 (unit directions); Conerly et al. 2024, *Update on how we train
    SAEs* (Anthropic, April 2024), for the penalty times the direction's norm.
    """

    def loss(w: Weights, x: Tensor, sparsity: float) -> tuple[Tensor, Tensor, Tensor]:
        features = torch.relu(torch.addmm(w.b_enc, x - w.b_dec, w.w_enc.T))
        reached = torch.addmm(w.b_dec, features, w.w_dec)
        error = (x - reached).square().sum(1).mean()
        if by_norm:
            penalty = (features.mean(0) * w.w_dec.norm(dim=1)).sum()
        else:
            penalty = features.sum(1).mean()
        return error + l1 * sparsity * penalty, features.detach(), reached.detach()

    return loss


def jump_relu_loss(l0: float, bandwidth: float, target: float | None) -> Loss:
    """Return ``|x - x_hat|^2 + l0 |f|_0``, a mean over rows, with straight-through thresholds.

    With ``target`` the penalty is ``l0 (|f|_0 / target - 1)^2`` of the mean number of active
    latents of the block.  The thresholds are ``extra["threshold"]``, held at 0 or above; the paper
    trains their logarithms, which few steps hardly move.

    Source: Rajamanoharan et al. 2024b, arXiv 2407.14435, eq. 9, and sec. 5 and appendix F for the
    target (as trained by dictionary_learning).
    """

    def loss(w: Weights, x: Tensor, sparsity: float) -> tuple[Tensor, Tensor, Tensor]:
        z = torch.relu(torch.addmm(w.b_enc, x - w.b_dec, w.w_enc.T))
        theta = w.extra["threshold"]
        with torch.no_grad():
            theta.clamp_(min=0.0)
        features: Tensor = JumpReLUFunction.apply(z, theta, bandwidth)  # type: ignore[no-untyped-call]
        reached = torch.addmm(w.b_dec, features, w.w_dec)
        error = (x - reached).square().sum(1).mean()
        on: Tensor = StepFunction.apply(z, theta, bandwidth)  # type: ignore[no-untyped-call]
        penalty = on.sum(1).mean()
        if target is not None:
            penalty = (penalty / target - 1).square()
        return error + l0 * sparsity * penalty, features.detach(), reached.detach()

    return loss


def gated_loss(l1: float) -> Loss:
    """Return ``|x - x_hat(f)|^2 + l1 |relu(gate)|_1 + |x - x_hat_frozen(relu(gate))|^2``.

    ``gate = w_enc (x - b_dec) + b_gate``, ``f = 1[gate > 0] relu(exp(r_mag) w_enc (x - b_dec) +
    b_mag)``; the last term uses copies of the decoder without gradient.  Here ``b_enc`` is
    ``b_gate``; ``extra`` holds ``r_mag`` and ``b_mag``.

    Source: Rajamanoharan et al. 2024a, arXiv 2404.16014, eqs. 6 to 8.
    """

    def loss(w: Weights, x: Tensor, sparsity: float) -> tuple[Tensor, Tensor, Tensor]:
        inner = (x - w.b_dec) @ w.w_enc.T
        gate = torch.relu(inner + w.b_enc)
        magnitude = torch.relu(inner * w.extra["r_mag"].exp() + w.extra["b_mag"])
        features = magnitude * (gate > 0)
        reached = torch.addmm(w.b_dec, features, w.w_dec)
        by_gate = torch.addmm(w.b_dec.detach(), gate, w.w_dec.detach())
        error = (x - reached).square().sum(1).mean()
        helper = (x - by_gate).square().sum(1).mean()
        penalty = gate.sum(1).mean()
        return error + helper + l1 * sparsity * penalty, features.detach(), reached.detach()

    return loss
