"""The kinds of sparse autoencoders: TopK, BatchTopK, Matryoshka, JumpReLU, gated, ReLU with L1."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from terrarium.errors import InputError
from terrarium.instruments.dictionaries.dense import DenseSelecting
from terrarium.instruments.dictionaries.penalised import (
    Penalised,
    gated_loss,
    jump_relu_loss,
    relu_loss,
)
from terrarium.instruments.dictionaries.rows import batches
from terrarium.instruments.dictionaries.selecting import Selecting
from terrarium.instruments.dictionaries.sparse import (
    Problem,
    SparseAutoencoder,
    positive,
    whole,
)
from terrarium.instruments.dictionaries.weights import Weights

THRESHOLD_BATCHES = 20
"""Batches over which BatchTopK's threshold is averaged after training."""


@dataclass(frozen=True)
class TopK(SparseAutoencoder):
    """The ``active`` largest pre-activations of each row, and a loss that revives dead latents.

    Parameters
    ----------
    active:
        The k of TopK: latents that may be active per row.
    auxiliary:
        Weight of AuxK, the loss by which dead latents reconstruct the residual; 0 for none.
    auxiliary_latents:
        How many of them may do so per row; None stands for half the channels.

    Source: Gao et al. 2024, arXiv 2406.04093, sec. 2.3 and appendix A.
    """

    active: int = 16
    auxiliary: float = 1 / 32
    auxiliary_latents: int | None = None
    name: ClassVar[str] = "topk"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_selecting(self)

    def _objective(self, problem: Problem, rng: np.random.Generator) -> Selecting | DenseSelecting:
        return _selecting(self, problem, rng, False, (self.features,))

    def _extra(
        self, objective: Any, problem: Problem, unit: Tensor, rng: np.random.Generator
    ) -> dict[str, Any]:
        return {"architecture": "topk", "active": self.active}


@dataclass(frozen=True)
class BatchTopK(SparseAutoencoder):
    """The largest pre-activations of a whole batch, ``active`` per row on average.

    Once trained, a latent is active where it exceeds one threshold, the mean over batches of the
    least value that was active; the dictionary is a ``jumprelu`` then.

    Parameters
    ----------
    active, auxiliary, auxiliary_latents:
        As in `TopK`.

    Source: Bussmann et al. 2024, arXiv 2412.06410, sec. 3.
    """

    active: int = 16
    auxiliary: float = 1 / 32
    auxiliary_latents: int | None = None
    name: ClassVar[str] = "batch_topk"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_selecting(self)

    def _objective(self, problem: Problem, rng: np.random.Generator) -> Selecting | DenseSelecting:
        return _selecting(self, problem, rng, True, (self.features,))

    def _extra(
        self, objective: Any, problem: Problem, unit: Tensor, rng: np.random.Generator
    ) -> dict[str, Any]:
        return _threshold(self, objective, problem, unit, rng)


@dataclass(frozen=True)
class Matryoshka(SparseAutoencoder):
    """BatchTopK whose first latents are dictionaries by themselves, so that they stay general.

    Parameters
    ----------
    nested:
        Sizes of the nested dictionaries, ascending; ``features`` is added where it is missing.
        None stands for an eighth, a quarter, a half and all of the features.
    active, auxiliary, auxiliary_latents:
        As in `TopK`; the auxiliary loss is of the whole dictionary.

    Source: Bussmann et al. 2025, arXiv 2503.17547, sec. 3.
    """

    nested: tuple[int, ...] | None = None
    active: int = 16
    auxiliary: float = 1 / 32
    auxiliary_latents: int | None = None
    name: ClassVar[str] = "matryoshka"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_selecting(self)
        sizes = self.prefixes
        if sizes[0] < 1 or any(a >= b for a, b in pairwise(sizes)):
            raise InputError(
                f"Matryoshka: nested is {self.nested}; give rising sizes up to {self.features}."
            )

    @property
    def prefixes(self) -> tuple[int, ...]:
        """Sizes of the nested dictionaries, the last the whole one."""
        m = self.features
        if self.nested is None:
            return tuple(sorted({max(1, m // part) for part in (8, 4, 2, 1)}))
        whole_too = () if self.nested and self.nested[-1] == m else (m,)
        return (*self.nested, *whole_too)

    def _objective(self, problem: Problem, rng: np.random.Generator) -> Selecting | DenseSelecting:
        return _selecting(self, problem, rng, True, self.prefixes)

    def _extra(
        self, objective: Any, problem: Problem, unit: Tensor, rng: np.random.Generator
    ) -> dict[str, Any]:
        return _threshold(self, objective, problem, unit, rng)


@dataclass(frozen=True)
class JumpReLU(SparseAutoencoder):
    """A learned threshold for each latent; the number of active latents is penalised.

    Parameters
    ----------
    l0:
        Weight of the penalty, where the rows' mean norm is 1.
    target:
        Mean number of active latents to come to: the penalty is then
        ``l0 (mean active / target - 1)^2``.  None penalises the number itself.
    bandwidth, threshold:
        Width of the kernel and first threshold, where the rows' mean norm is 1.  The paper has
        0.001 for both, at some billions of rows; with few rows a wider kernel learns more.

    Source: Rajamanoharan et al. 2024b, arXiv 2407.14435, sec. 3.
    """

    l0: float = 0.1
    target: float | None = 16.0
    bandwidth: float = 0.2
    threshold: float = 0.2
    name: ClassVar[str] = "jump_relu"
    resample: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        positive("JumpReLU", "l0", self.l0, zero=True)
        for label in ("bandwidth", "threshold"):
            positive("JumpReLU", label, getattr(self, label))
        if self.target is not None:
            positive("JumpReLU", "target", self.target)

    def _objective(self, problem: Problem, rng: np.random.Generator) -> Penalised:
        first = torch.full((self.features,), self.threshold)
        weights = Weights.drawn(
            self.features, problem.x.shape[1], rng, problem.mean_square, threshold=first
        )
        return Penalised(weights, jump_relu_loss(self.l0, self.bandwidth, self.target))

    def _extra(
        self, objective: Any, problem: Problem, unit: Tensor, rng: np.random.Generator
    ) -> dict[str, Any]:
        threshold = objective.weights.extra["threshold"].cpu().clamp_min(0.0) * unit
        return {"architecture": "jumprelu", "threshold": threshold.numpy()}


@dataclass(frozen=True)
class Gated(SparseAutoencoder):
    """One path decides which latents are active, a second how much: L1 shrinks the first alone.

    Parameters
    ----------
    l1:
        Weight of the penalty on the gate, where the rows' mean norm is 1.

    Source: Rajamanoharan et al. 2024a, arXiv 2404.16014, sec. 3.
    """

    l1: float = 0.1
    name: ClassVar[str] = "gated"
    resample: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        positive("Gated", "l1", self.l1, zero=True)

    def _objective(self, problem: Problem, rng: np.random.Generator) -> Penalised:
        nothing = torch.zeros(self.features)
        weights = Weights.drawn(
            self.features,
            problem.x.shape[1],
            rng,
            problem.mean_square,
            r_mag=nothing,
            b_mag=nothing.clone(),
        )
        return Penalised(weights, gated_loss(self.l1))

    def _extra(
        self, objective: Any, problem: Problem, unit: Tensor, rng: np.random.Generator
    ) -> dict[str, Any]:
        extra = objective.weights.extra
        return {
            "architecture": "gated",
            "r_mag": extra["r_mag"].cpu().numpy(),
            "b_mag": (extra["b_mag"].cpu() * unit).numpy(),
        }


@dataclass(frozen=True)
class ReLU(SparseAutoencoder):
    """The plain sparse autoencoder: ReLU, and an L1 penalty on the features.

    Parameters
    ----------
    l1:
        Weight of the penalty, where the rows' mean norm is 1.  (Anthropic's updates scale rows to
        norm ``sqrt(d)``: their 5 is ``5 / sqrt(d)`` here.)
    directions:
        ``"unit"``: norms are held at 1 and dead latents drawn anew (Bricken et al. 2023);
        ``"free"``: the penalty is times the norm (Conerly et al. 2024, *Update on how we train
        SAEs*, Anthropic, April 2024).
    """

    l1: float = 0.1
    directions: Literal["unit", "free"] = "unit"
    name: ClassVar[str] = "relu"
    resample: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        positive("ReLU", "l1", self.l1, zero=True)
        if self.directions not in ("unit", "free"):
            raise InputError(f"ReLU: directions is {self.directions!r}; give 'unit' or 'free'.")

    @property
    def _keeps_unit(self) -> bool:
        return self.directions == "unit"

    def _objective(self, problem: Problem, rng: np.random.Generator) -> Penalised:
        weights = Weights.drawn(self.features, problem.x.shape[1], rng, problem.mean_square)
        return Penalised(weights, relu_loss(self.l1, self.directions == "free"))

    def _extra(
        self, objective: Any, problem: Problem, unit: Tensor, rng: np.random.Generator
    ) -> dict[str, Any]:
        return {"architecture": "standard"}


Selects = TopK | BatchTopK | Matryoshka


def _check_selecting(spec: Selects) -> None:
    what = type(spec).__name__
    whole(what, "active", spec.active, 1, spec.features)
    positive(what, "auxiliary", spec.auxiliary, zero=True)
    if spec.auxiliary_latents is not None:
        whole(what, "auxiliary_latents", spec.auxiliary_latents, 1)


def _selecting(
    spec: Selects,
    problem: Problem,
    rng: np.random.Generator,
    by_batch: bool,
    prefixes: tuple[int, ...],
) -> Selecting | DenseSelecting:
    d = problem.x.shape[1]
    revived = max(1, d // 2) if spec.auxiliary_latents is None else spec.auxiliary_latents
    weights = Weights.drawn(spec.features, d, rng, problem.mean_square)
    chosen = Selecting if spec.training.device == "cpu" else DenseSelecting
    return chosen(weights, spec.active, by_batch, prefixes, spec.auxiliary, revived)


def _threshold(
    spec: Selects,
    objective: Selecting | DenseSelecting,
    problem: Problem,
    unit: Tensor,
    rng: np.random.Generator,
) -> dict[str, Any]:
    training = spec.training
    centre = torch.from_numpy(problem.centre.astype(np.float32)).to(training.device)
    shown = (
        (rows - centre) / problem.size
        for rows in batches(problem.x, training.batch, THRESHOLD_BATCHES, rng, training.device)
    )
    threshold = objective.threshold(shown) * unit
    return {"architecture": "jumprelu", "threshold": threshold.numpy()}
