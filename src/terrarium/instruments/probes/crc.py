"""Contrastive representation clustering (CRC-TPC): the top component of the differences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from terrarium.instruments.base import ContrastPairs
from terrarium.instruments.probes.eigen import leading_eigenvector
from terrarium.instruments.probes.linear import (
    LinearPairProbe,
    over,
    pair_rows,
    unsigned_pair_probe,
)


@dataclass(frozen=True)
class CRC:
    """Top principal component of positive minus negative, each side's mean subtracted first.

    Unsupervised.  The score is half the difference of the centred sides along the component, so 0
    is the boundary, and its sign means nothing until labels resolve it: those given to ``fit``,
    or `LinearPairProbe.resolve_sign`.

    Source: Burns et al. 2022 (arXiv 2212.03827), where it is CRC (TPC); the code of Mallen et al.
    2023 also erases with LEACE which side a row is, which for centred sides is not done here.
    """

    supervised: ClassVar[bool] = False
    on_pairs: ClassVar[bool] = True
    rotation_equivariant: ClassVar[bool] = True

    def fit(self, pairs: ContrastPairs, y: Any = None) -> LinearPairProbe:
        """Fit on pairs ``(..., n, d)``; ``y``, where given, chooses the sign alone.

        Raises ``InputError`` for NaN, fewer than two pairs, or pairs that do not vary.
        """
        positive, negative = pair_rows(pairs, least=2)
        lead = positive.shape[:-2]
        direction = np.empty((*lead, positive.shape[-1]))
        for (index, one), (_, other) in zip(
            over(lead, positive), over(lead, negative), strict=True
        ):
            difference = one - other
            difference -= difference.mean(0)
            direction[index] = leading_eigenvector(difference.T @ difference, "CRC")
        probe = unsigned_pair_probe(direction, (positive, negative), lead)
        return probe if y is None else probe.resolve_sign(pairs, y)
