"""VINC-S: variance, invariance, negative covariance and supervision, as one eigenproblem."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from terrarium.errors import InputError
from terrarium.instruments.base import ContrastPairs
from terrarium.instruments.probes.eigen import leading_eigenvector
from terrarium.instruments.probes.linear import (
    Bool,
    Float,
    LinearPairProbe,
    labels,
    over,
    pair_rows,
    unsigned_pair_probe,
)


@dataclass(frozen=True)
class VINC:
    """The direction w, |w| = 1, with the largest w^T A w, where A is a weighted sum.

    Clusters are the paraphrases of one statement; centroids are their means.

    Parameters
    ----------
    variance:
        Weighs the covariances of the centroids, positive plus negative sides.
    invariance:
        Weighs, negatively, the mean covariance within clusters.  Without ``clusters`` every row
        is a cluster of its own and the term is 0.
    negative_covariance:
        Weighs, negatively, the covariances between the sides' centroids.
    supervision:
        Weighs the covariance of the two means, of true and of false statements; needs labels.

    With 1, 0, 1, 0 it is `CRC`; with 0, 0, 0, 1 the difference in means.  Covariances divide by
    the number of centroids less one, and by a cluster's size less one.  The defaults are those of
    EleutherAI's elk (``EigenReporterConfig``).

    Source: Belrose, Mallen et al. 2024, *VINC-S* (blog.eleuther.ai/vincs), eq. 5 to 8.
    """

    variance: float = 1.0
    invariance: float = 5.0
    negative_covariance: float = 5.0
    supervision: float = 0.0
    supervised: ClassVar[bool] = False
    on_pairs: ClassVar[bool] = True
    rotation_equivariant: ClassVar[bool] = True

    def __post_init__(self) -> None:
        weights = (self.variance, self.invariance, self.negative_covariance, self.supervision)
        if not all(0 <= weight < math.inf for weight in weights) or not any(weights):
            raise InputError(
                f"VINC: the weights are {weights}; give numbers of at least 0, not all 0."
            )

    def fit(self, pairs: ContrastPairs, y: Any = None, clusters: Any = None) -> LinearPairProbe:
        """Fit on pairs ``(..., n, d)``; ``clusters`` ``(n,)`` names each row's statement.

        Without supervision ``y`` ``(n,)`` or ``(..., n)``, where given, chooses the sign alone.
        Raises ``InputError`` for NaN, fewer than two clusters, pairs that do not vary, and for
        missing labels with ``supervision``.
        """
        positive, negative = pair_rows(pairs, least=2)
        lead = positive.shape[:-2]
        truth: Bool | None = None
        if self.supervision or y is not None:
            lead, truth = labels(y, positive, "VINC")
        names = _clusters(clusters, positive.shape[-2])
        direction = np.empty((*lead, positive.shape[-1]))
        for (index, one), (_, other) in zip(
            over(lead, positive), over(lead, negative), strict=True
        ):
            matrix = self._matrix(one, other, names, None if truth is None else truth[index])
            direction[index] = leading_eigenvector(matrix, "VINC")
        probe = unsigned_pair_probe(direction, (positive, negative), lead)
        return probe if y is None else probe.resolve_sign(pairs, y)

    def _matrix(self, one: Float, other: Float, names: NDArray[Any], y: Bool | None) -> Float:
        count = int(names.max()) + 1
        sizes = np.bincount(names, minlength=count)[:, None]
        means = [_sums(side, names, count) / sizes for side in (one, other)]
        centred = [mean - mean.mean(0) for mean in means]
        between = sum((c.T @ c for c in centred), np.zeros(())) / (count - 1)
        cross = centred[0].T @ centred[1] / (count - 1)
        matrix: Float = self.variance * between - self.negative_covariance * (cross + cross.T)
        repeated = sizes[:, 0] > 1
        if self.invariance and bool(repeated.any()):
            spare = np.where(repeated, sizes[:, 0] - 1, 1)[names, None]
            for side, mean in zip((one, other), means, strict=True):
                apart = (side - mean[names]) / np.sqrt(spare)
                matrix -= self.invariance * (apart.T @ apart) / count
        if self.supervision and y is not None:
            true = np.concatenate([one[y], other[~y]]).mean(0)
            false = np.concatenate([one[~y], other[y]]).mean(0)
            matrix += self.supervision * np.outer(true - false, true - false) / 2
        return matrix


def _sums(side: Float, names: NDArray[Any], count: int) -> Float:
    total = np.zeros((count, side.shape[1]))
    np.add.at(total, names, side)
    return total


def _clusters(clusters: Any, n: int) -> NDArray[Any]:
    if clusters is None:
        return np.arange(n)
    names = np.asarray(clusters)
    if names.shape != (n,):
        raise InputError(f"VINC: clusters have shape {names.shape}; give one name per row ({n},).")
    numbers = np.unique(names, return_inverse=True)[1]
    if numbers.max() == 0:
        raise InputError("VINC: all rows are in one cluster; at least two are needed.")
    return numbers
