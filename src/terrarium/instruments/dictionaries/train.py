"""How a sparse autoencoder is trained: one loop for all architectures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from terrarium.errors import InputError
from terrarium.instruments.dictionaries.rows import batches
from terrarium.instruments.dictionaries.weights import Step, Usual, Weights
from terrarium.organisms.device import check_device
from terrarium.organisms.kernels import fast_float32, kept_memory
from terrarium.progress import Progress, Silent

Int = NDArray[np.int64]

REPORTS = 50
"""Points of the history that training keeps."""

RESAMPLE_AT = (0.125, 0.25, 0.375, 0.5)
"""Shares of training after which dead latents are drawn anew (Bricken et al. 2023)."""


@dataclass(frozen=True)
class Training:
    """How long and how fast a dictionary is trained.

    Attributes
    ----------
    samples:
        Rows that are shown in all; the data are repeated in a new order as often as needed.
    batch:
        Rows per step.
    lr:
        Learning rate of Adam; None stands for the objective's own at 1,024 latents times
        ``sqrt(1024 / features)`` (Gao et al. 2024, sec. A.3, scale it with the inverse root of
        the number of latents), more where there are fewer than 800 steps (``Usual``).  Larger
        rates reach a lower error in few steps and leave more latents dead.
    warmup, decay:
        Shares of the steps over which the rate rises from 0, and falls to 0 at the end, linearly.
    sparsity_warmup:
        Share of the steps over which penalties rise from 0 (Conerly et al. 2024: 5 %).
    dead_after:
        A latent that was not active in so many rows is dead; never more than an eighth of
        ``samples``.
    centre:
        What the decoder's bias starts from: ``"mean"`` or ``"geometric_median"``.
    device:
        Where it is trained: ``cpu``, ``cuda`` or ``cuda:N``.  A GPU pays for wide sites and large
        dictionaries; what is fitted is the same up to rounding, and lies on the CPU afterwards.
    """

    samples: int = 2_000_000
    batch: int = 1024
    lr: float | None = None
    warmup: float = 0.02
    decay: float = 0.2
    sparsity_warmup: float = 0.05
    dead_after: int = 100_000
    centre: Literal["mean", "geometric_median"] = "mean"
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name in ("samples", "batch", "dead_after"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise InputError(f"Training: {name} is {value!r}; give a positive whole number.")
        if self.lr is not None and not 0 < self.lr < math.inf:
            raise InputError(f"Training: lr is {self.lr!r}; give a positive number, or None.")
        for name in ("warmup", "decay", "sparsity_warmup"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"Training: {name} is {getattr(self, name)!r}; give a share.")
        if self.centre not in ("mean", "geometric_median"):
            raise InputError(
                f"Training: centre is {self.centre!r}; give 'mean' or 'geometric_median'."
            )
        check_device(self.device, "Training: device")

    @property
    def steps(self) -> int:
        """Number of steps."""
        return -(-self.samples // self.batch)

    def rate(self, step: int, features: int, usual: Usual) -> float:
        """Return the learning rate of the given step, counted from 0."""
        hurry = min(usual.hurry, max(1.0, math.sqrt(800 / self.steps)))
        own = min(usual.most, usual.rate * math.sqrt(1024 / features) * hurry)
        peak = own if self.lr is None else self.lr
        rise = (step + 1) / max(1.0, self.warmup * self.steps)
        fall = (self.steps - step) / max(1.0, self.decay * self.steps)
        return peak * min(1.0, rise, fall)

    def sparsity(self, step: int) -> float:
        """Return the share of the penalty at the given step."""
        return min(1.0, (step + 1) / max(1.0, self.sparsity_warmup * self.steps))


class Objective(Protocol):
    """What is trained: weights, and a step that sets their gradients."""

    weights: Weights

    @property
    def usual(self) -> Usual:
        """The rates at which it trains where the user gives none."""

    def step(self, x: Tensor, dead: Int, sparsity: float = 1.0) -> Step:
        """Set the gradients of a batch ``(n, d)``."""

    def reconstruct(self, x: Tensor) -> Tensor:
        """Return what is reconstructed of ``x`` ``(n, d)``; sets no gradients."""


@dataclass
class Alive:
    """Which latents are dead: not active in the last ``after`` rows."""

    latents: int
    after: int
    since: Int = field(init=False)

    def __post_init__(self) -> None:
        self.since = np.zeros(self.latents, np.int64)

    def see(self, fired: Int, rows: int) -> None:
        """Count a batch of ``rows`` in which latents were active ``fired`` times."""
        self.since += rows
        self.since[fired > 0] = 0

    @property
    def dead(self) -> Int:
        """Indices of the dead latents."""
        return np.flatnonzero(self.since > self.after)


@dataclass
class Adam:
    """Adam (Kingma & Ba 2015, algorithm 1) over named tensors, some at a share of the rate.

    ``torch.optim`` imports a compiler at its first step, which takes longer than many a
    dictionary.  The second beta is short because a latent's gradients come in bursts: in a
    dictionary of 1,024 latents, 0.95 instead of 0.999 takes a quarter off the error (decision 018).
    """

    tensors: Mapping[str, Tensor]
    shares: Mapping[str, float] = field(default_factory=dict)
    betas: tuple[float, float] = (0.9, 0.95)
    epsilon: float = 1e-9

    def __post_init__(self) -> None:
        self.first = {name: torch.zeros_like(t) for name, t in self.tensors.items()}
        self.second = {name: torch.zeros_like(t) for name, t in self.tensors.items()}
        self.steps = 0

    def step(self, rate: float) -> None:
        """Move all tensors against their gradients."""
        self.steps += 1
        one, two = self.betas
        size = rate / (1 - one**self.steps)
        root = math.sqrt(1 - two**self.steps)
        for name, tensor in self.tensors.items():
            slope = tensor.grad
            assert slope is not None
            self.first[name].lerp_(slope, 1 - one)
            self.second[name].mul_(two).addcmul_(slope, slope, value=1 - two)
            spread = self.second[name].sqrt().div_(root).add_(self.epsilon)
            tensor.addcdiv_(self.first[name], spread, value=-size * self.shares.get(name, 1.0))

    def forget(self, latents: Tensor, names: Iterable[str]) -> None:
        """Set the moments of some latents to 0."""
        for name in names:
            self.first[name][latents] = 0.0
            self.second[name][latents] = 0.0


def train(
    objective: Objective,
    x: NDArray[Any],
    training: Training,
    rng: np.random.Generator,
    *,
    centre: NDArray[np.float64],
    size: float,
    unit: bool,
    resample: bool,
    progress: Progress | None = None,
    name: str = "dictionary",
) -> tuple[dict[str, float], ...]:
    """Train in place; return the history.

    Parameters
    ----------
    objective, x, training, rng:
        What is trained on which rows ``(n, d)``, how, and in which order.
    centre, size:
        Rows are shown as ``(x - centre) / size``.
    unit:
        Keep the directions at norm 1.
    resample:
        Draw dead latents anew at `RESAMPLE_AT`.
    progress, name:
        What to report to, and what to call the work.

    Raises ``InputError`` where the loss stops being a number.
    """
    weights, shown, usual = objective.weights, progress or Silent(), objective.usual
    adam = Adam(weights.all(), dict.fromkeys(("b_enc", "b_dec"), usual.biases))
    alive = Alive(weights.latents, min(training.dead_after, max(1, training.samples // 8)))
    moments = {int(share * training.steps) for share in RESAMPLE_AT} if resample else set()
    every = max(1, training.steps // REPORTS)
    offset, scale = torch.from_numpy(centre.astype(np.float32)).to(training.device), 1 / size
    history: list[dict[str, float]] = []
    shown.start(name, training.steps * training.batch, "rows")
    with fast_float32(), kept_memory():
        drawn = batches(x, training.batch, training.steps, rng, training.device)
        for step, rows in enumerate(drawn):
            batch = (rows - offset).mul_(scale)
            if step in moments and len(alive.dead):
                _resample(weights, adam, batch, objective, alive, rng)
            found = objective.step(batch, alive.dead, training.sparsity(step))
            if not math.isfinite(found.loss):
                raise InputError(f"{name}: the loss is {found.loss}; give a lower learning rate.")
            if unit:
                weights.keep_unit()
            adam.step(training.rate(step, weights.latents, usual))
            if unit:
                weights.make_unit()
            alive.see(found.fired, len(batch))
            fvu = found.squared_error / weights.mean_square
            if (step + 1) % every == 0 or step + 1 == training.steps:
                history.append(
                    {
                        "samples": float((step + 1) * training.batch),
                        "fvu": fvu,
                        "l0": found.l0,
                        "dead": len(alive.dead) / weights.latents,
                    }
                )
            shown.advance(name, training.batch, f"FVU {fvu:.3f}, L0 {found.l0:.1f}")
    shown.finish(name)
    return tuple(history)


def _resample(
    weights: Weights,
    adam: Adam,
    batch: Tensor,
    objective: Objective,
    alive: Alive,
    rng: np.random.Generator,
) -> None:
    """Point dead latents at rows that are reconstructed badly, and forget their moments.

    Rows are drawn with the square of their loss as weights; the new encoder rows have a fifth of
    the mean norm of those alive, and biases start at 0.

    Source: Bricken et al. 2023, *Towards Monosemanticity*, appendix on neuron resampling.
    """
    dead = alive.dead
    losses = _row_losses(objective, batch)
    total = float(losses.sum())
    if total == 0:
        return
    chosen = rng.choice(len(batch), len(dead), replace=True, p=losses / total)
    where = torch.from_numpy(dead).to(batch.device)
    towards = batch[torch.from_numpy(chosen)] - weights.b_dec
    towards = towards / towards.norm(dim=1, keepdim=True).clamp_min(1e-12)
    kept = np.setdiff1d(np.arange(weights.latents), dead)
    norms = weights.w_enc[torch.from_numpy(kept)].norm(dim=1)
    usual = float(norms.mean()) if len(kept) else 1.0
    weights.w_dec[where] = towards
    weights.w_enc[where] = towards * (0.2 * usual)
    weights.b_enc[where] = 0.0
    for tensor in weights.extra.values():
        tensor[where] = tensor[torch.from_numpy(kept)].median() if len(kept) else 0.0
    adam.forget(where, ("w_enc", "b_enc", "w_dec", *weights.extra))
    alive.since[dead] = 0


def _row_losses(objective: Objective, batch: Tensor) -> NDArray[np.float64]:
    """Return ``(n,)``: each row's squared error, squared."""
    reached = objective.reconstruct(batch)
    error = (batch - reached).square().sum(1).double().square()
    found: NDArray[np.float64] = error.cpu().numpy()
    return found
