"""Supervised probes of contrast pairs: the same statement completed as true and as false."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from terrarium.errors import InputError
from terrarium.instruments.base import ContrastPairs
from terrarium.instruments.probes.linear import LinearPairProbe, LinearProbe, pair_rows
from terrarium.instruments.probes.logistic import LogisticRegression, Standardize
from terrarium.instruments.probes.means import DifferenceInMeans

Features = Literal["concatenated", "difference"]


@dataclass(frozen=True)
class ContrastLogisticRegression:
    """Logistic regression on contrast pairs; the label says whether the positive side is true.

    Parameters
    ----------
    C, standardize:
        As in `LogisticRegression`.
    features:
        ``"concatenated"``: both sides, 2 d features, as published; ``"difference"``: positive
        minus negative.  Centring each side changes nothing here, the intercept takes it up.

    Source: Mallen et al. 2023 (arXiv 2312.01037) (their best probe: 89 % of the gap
    between Alice and Bob recovered); the concatenation is that of their code.
    """

    C: float = 1.0
    standardize: Standardize = "global"
    features: Features = "concatenated"
    supervised: ClassVar[bool] = True
    on_pairs: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_features(self.features, "ContrastLogisticRegression")
        LogisticRegression(self.C, self.standardize)  # checks them

    @property
    def rotation_equivariant(self) -> bool:
        """Whether rotating both sides alike only rotates the directions."""
        return self.standardize != "feature"

    def fit(self, pairs: ContrastPairs, y: Any = None) -> LinearPairProbe:
        """Fit on pairs ``(..., n, d)`` and ``y`` ``(n,)`` or ``(..., n)``.

        Raises ``InputError`` for NaN, shapes that do not match, or a single class.
        """
        probe = LogisticRegression(self.C, self.standardize)
        return _split(probe.fit(_stack(pairs, self.features), y), self.features)


@dataclass(frozen=True)
class ContrastDifferenceInMeans:
    """Difference in means on contrast pairs; the label says whether the positive side is true.

    ``features`` as in `ContrastLogisticRegression`; centring each side changes nothing here, a
    shift of all rows cancels in the difference.

    Source: Mallen et al. 2023 (arXiv 2312.01037); MacDiarmid et al. 2024.
    """

    features: Features = "concatenated"
    supervised: ClassVar[bool] = True
    on_pairs: ClassVar[bool] = True
    rotation_equivariant: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_features(self.features, "ContrastDifferenceInMeans")

    def fit(self, pairs: ContrastPairs, y: Any = None) -> LinearPairProbe:
        """Fit on pairs ``(..., n, d)`` and ``y`` ``(n,)`` or ``(..., n)``.

        Raises ``InputError`` for NaN, shapes that do not match, or a single class.
        """
        return _split(DifferenceInMeans().fit(_stack(pairs, self.features), y), self.features)


def _check_features(features: str, what: str) -> None:
    if features not in get_args(Features):
        raise InputError(f"{what}: features is {features!r}; give 'concatenated' or 'difference'.")


def _stack(pairs: ContrastPairs, features: Features) -> NDArray[Any]:
    positive, negative = pair_rows(pairs)
    if features == "difference":
        difference: NDArray[Any] = positive - negative
        return difference
    return np.concatenate([positive, negative], axis=-1)


def _split(probe: LinearProbe, features: Features) -> LinearPairProbe:
    if features == "difference":
        return LinearPairProbe(probe.direction, -probe.direction, probe.bias)
    positive, negative = np.split(probe.direction, 2, axis=-1)
    return LinearPairProbe(positive, negative, probe.bias)
