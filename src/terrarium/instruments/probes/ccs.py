"""Contrast-consistent search: a direction whose answers to a statement and its negation fit."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from scipy.special import expit

from terrarium.errors import InputError
from terrarium.instruments.base import ContrastPairs
from terrarium.instruments.probes.linear import (
    Float,
    LinearPairProbe,
    freeze,
    over,
    pair_rows,
    project,
)
from terrarium.instruments.probes.minimise import lbfgs
from terrarium.randomness import generator


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class FittedCCS(LinearPairProbe):
    """A fitted CCS probe.  The score is half the difference of the two sides' log-odds.

    Attributes
    ----------
    offset:
        ``(..., 2)``: what makes ``x @ (2 on_positive) + offset`` the log-odds of each side by
        itself, for the positive and the negative side (their training means differ).
    loss:
        ``(...,)`` consistency plus confidence loss of the best restart, without the penalty.
    """

    offset: Float
    loss: Float

    def __post_init__(self) -> None:
        super().__post_init__()
        freeze(self, "offset", "loss")

    def credence(self, pairs: ContrastPairs) -> Float:
        """Return ``(..., n)`` the published answer, ``(p(positive) + 1 - p(negative)) / 2``.

        It ties where probabilities saturate; `score` does not.
        """
        positive, negative = pair_rows(pairs, width=self.on_positive.shape[-1])
        weights = 2 * self.on_positive
        p = expit(project(positive, weights) + self.offset[..., :1])
        q = expit(project(negative, weights) + self.offset[..., 1:])
        answer: Float = (p + 1 - q) / 2
        return answer

    def turned(self, flip: Float) -> FittedCCS:
        """As `LinearPairProbe.turned`."""
        half = flip[..., None]
        return replace(
            self,
            on_positive=self.on_positive * half,
            on_negative=self.on_negative * half,
            bias=self.bias * flip,
            sign="labels",
            offset=self.offset * half,
        )


@dataclass(frozen=True)
class CCS:
    """The linear probe p(x) = sigmoid(w x + b) with the least sum of two mean losses.

    Consistency ``(p(positive) + p(negative) - 1)^2`` and confidence
    ``min(p(positive), p(negative))^2``, after each side's mean is subtracted and both are divided
    by one number, the root mean variance of their channels.  Unsupervised; the sign means nothing
    until labels resolve it.  Training means are kept for later rows.

    Parameters
    ----------
    restarts:
        Random starts on the unit sphere; the least loss wins.
    l2:
        Weighs ``|w|^2 / 2``, in standardised units (the weight decay of the published fit).
    steps:
        Most steps of full-batch L-BFGS.
    seed:
        Of the starts, the same for every leading index.

    Source: Burns et al. 2022 (arXiv 2212.03827), sec. 2.2 (which divides each channel by
    its own deviation); 10 restarts and weight decay 0.01 as in their code, L-BFGS as in
    EleutherAI's elk.
    """

    restarts: int = 10
    l2: float = 0.01
    steps: int = 300
    seed: int = 0
    supervised: ClassVar[bool] = False
    on_pairs: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.restarts < 1 or self.steps < 1 or not 0 <= self.l2 < math.inf:
            raise InputError(
                f"CCS: restarts {self.restarts}, steps {self.steps} and l2 {self.l2} must be at "
                "least 1, 1 and 0."
            )

    def fit(self, pairs: ContrastPairs, y: Any = None) -> FittedCCS:
        """Fit on pairs ``(..., n, d)``; ``y``, where given, chooses the sign alone.

        Raises ``InputError`` for NaN, fewer than two pairs, or pairs that do not vary.
        """
        positive, negative = pair_rows(pairs, least=2)
        lead, d = positive.shape[:-2], positive.shape[-1]
        start = generator("ccs", self.seed).standard_normal((self.restarts, d + 1))
        start /= np.linalg.norm(start, axis=-1, keepdims=True)
        weights, offset, loss = np.empty((*lead, d)), np.empty((*lead, 2)), np.empty(lead)
        for (index, one), (_, other) in zip(
            over(lead, positive), over(lead, negative), strict=True
        ):
            centres = np.stack([one.mean(0), other.mean(0)])
            sides = np.stack([one, other]) - centres[:, None]
            unit = math.sqrt(np.square(sides).mean())
            if unit == 0:
                raise InputError("CCS: the pairs do not vary; give others.")
            best, loss[index] = self._search(sides / unit, start)
            weights[index] = best[:-1] / unit
            offset[index] = best[-1] - centres @ weights[index]
        bias = (offset[..., 0] - offset[..., 1]) / 2
        probe = FittedCCS(
            on_positive=weights / 2,
            on_negative=-weights / 2,
            bias=bias,
            sign="unresolved",
            offset=offset,
            loss=loss,
        )
        if y is None:
            return probe
        return probe.turned(probe.signs(pairs, y))

    def _search(self, sides: Float, start: Float) -> tuple[Float, float]:
        """Return the best weights ``(d + 1,)``, b last, and their loss; restarts side by side."""
        one, other = sides
        n = len(one)

        def losses(points: Float) -> tuple[Float, Float]:
            w, b = points[:, :-1], points[:, -1]
            p, q = expit(one @ w.T + b), expit(other @ w.T + b)
            gap, first = p + q - 1, p < q
            value = (gap**2 + np.where(first, p, q) ** 2).mean(0)
            by_p = 2 * (gap + p * first) * p * (1 - p) / n
            by_q = 2 * (gap + q * ~first) * q * (1 - q) / n
            slope = np.empty_like(points)
            slope[:, :-1] = by_p.T @ one + by_q.T @ other + self.l2 * w
            slope[:, -1] = by_p.sum(0) + by_q.sum(0)
            return value + 0.5 * self.l2 * np.square(w).sum(-1), slope

        points, values = lbfgs(losses, start, steps=self.steps)
        plain = values - 0.5 * self.l2 * np.square(points[:, :-1]).sum(-1)
        winner = int(plain.argmin())
        return points[winner], float(plain[winner])
