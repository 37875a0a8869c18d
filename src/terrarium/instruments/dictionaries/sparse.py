"""What sparse autoencoders share: parameters in the constructor, ``fit``, and units folded back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from terrarium.errors import InputError
from terrarium.instruments.dictionaries.fitted import SparseDictionary
from terrarium.instruments.dictionaries.rows import centre_and_size, training_rows
from terrarium.instruments.dictionaries.train import Objective, Training, train
from terrarium.progress import Progress
from terrarium.randomness import generator


@dataclass(frozen=True)
class Problem:
    """Rows ``x`` ``(n, d)`` and the units in which they are shown, ``(x - centre) / size``.

    ``mean_square`` is the mean squared norm of the rows in those units.
    """

    x: NDArray[Any]
    centre: NDArray[np.float64]
    size: float
    mean_square: float


@dataclass(frozen=True)
class SparseAutoencoder(Protocol):
    """What all sparse autoencoders share; use one of its kinds (`kinds`).

    Rows are shown centred and divided by their mean norm, so that penalties mean the same for
    activations of any size; all is folded back at the end.  A dictionary of ``a x + c`` has the
    same features, times ``a``.

    Parameters
    ----------
    features:
        Number of features (latents).
    training:
        How long and how fast; see `Training`.
    seed:
        What initialisation and the order of rows are drawn from.
    """

    features: int = 1024
    training: Training = field(default_factory=Training)
    seed: int = 0
    name: ClassVar[str] = ""
    unit: ClassVar[bool] = True
    resample: ClassVar[bool] = False

    def __post_init__(self) -> None:
        whole(type(self).__name__, "features", self.features, 1)

    def fit(self, x: Any, progress: Progress | None = None) -> SparseDictionary:
        """Fit on activations ``(n, d)``, or on maps ``(n, rows, columns, d)``, each pixel a row.

        ``x`` is numpy, memory-mapped, or torch; computed in float32.  The same ``x`` and
        parameters give the same dictionary, to the bit on the same processor with as many
        threads, to rounding on a GPU (``training.device``).  Raises ``InputError`` for NaN, for
        shapes that do not fit, and for rows that are all the same.
        """
        rows = training_rows(x, type(self).__name__)
        centre, size, square = centre_and_size(rows, self.training.centre == "geometric_median")
        problem = Problem(rows, centre, size, square / size**2)
        rng = generator("dictionary", self.name, self.seed)
        with torch.no_grad():
            objective = self._objective(problem, rng)
            objective.weights = objective.weights.on(self.training.device)
            history = train(
                objective,
                rows,
                self.training,
                rng,
                centre=centre,
                size=size,
                unit=self._keeps_unit,
                resample=self.resample,
                progress=progress,
                name=self.name,
            )
            return self._fold(objective, problem, rng, history)

    @property
    def _keeps_unit(self) -> bool:
        return self.unit

    def _objective(self, problem: Problem, rng: np.random.Generator) -> Objective:
        """Return what is trained."""

    def _extra(
        self, objective: Any, problem: Problem, unit: Tensor, rng: np.random.Generator
    ) -> dict[str, Any]:
        """Return the architecture and what it adds, in the activations' own units.

        ``unit`` ``(m,)`` is what pre-activations are to be multiplied by.
        """

    def _fold(
        self,
        objective: Objective,
        problem: Problem,
        rng: np.random.Generator,
        history: tuple[dict[str, float], ...],
    ) -> SparseDictionary:
        """Return the dictionary in the activations' own units, its directions of norm 1."""
        w = objective.weights.on("cpu")
        norms = w.w_dec.norm(dim=1).clamp_min(1e-12)
        unit = norms * problem.size
        return SparseDictionary(
            w_enc=(w.w_enc * norms[:, None]).numpy(),
            b_enc=(w.b_enc * unit).numpy(),
            w_dec=(w.w_dec / norms[:, None]).numpy(),
            b_dec=(problem.centre + problem.size * w.b_dec.double().numpy()).astype(np.float32),
            name=self.name,
            history=history,
            **self._extra(objective, problem, unit, rng),
        )


def whole(what: str, name: str, value: Any, least: int, most: int | None = None) -> None:
    """Raise ``InputError`` where ``value`` is no whole number from ``least`` to ``most``."""
    good = isinstance(value, int) and value >= least and (most is None or value <= most)
    if not good:
        bound = f"at least {least}" if most is None else f"from {least} to {most}"
        raise InputError(f"{what}: {name} is {value!r}; give a whole number {bound}.")


def positive(what: str, name: str, value: Any, zero: bool = False) -> None:
    """Raise ``InputError`` where ``value`` is no positive number (or 0 where that is allowed)."""
    if not (isinstance(value, (int, float)) and 0 <= value < np.inf and (zero or value > 0)):
        raise InputError(f"{what}: {name} is {value!r}; give a positive number.")
