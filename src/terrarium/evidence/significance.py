"""p-values, and what many of them together allow: t, sign-flip and sign tests, TOST, Holm.

Sources: Student (1908); Fisher (1935), *The Design of Experiments*, sec. 21 (sign flips of paired
differences); Phipson and Smyth (2010) for the +1 of a drawn permutation test; Schuirmann (1987),
two one-sided tests; Holm (1979), Scandinavian Journal of Statistics 6, p. 65.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from terrarium.errors import InputError
from terrarium.evidence.intervals import Floats, finite_vector, mean_interval, standard_error
from terrarium.evidence.laws import binomial_tail, t_tail
from terrarium.evidence.rows import Interval
from terrarium.randomness import generator

Alternative = Literal["two-sided", "greater", "less"]
EXACT_FLIPS = 16
"""Up to this many non-zero differences every pattern of signs is enumerated (65,536)."""


def _sides(greater: float, less: float, alternative: Alternative) -> float:
    if alternative == "greater":
        return greater
    if alternative == "less":
        return less
    if alternative == "two-sided":
        return min(1.0, 2.0 * min(greater, less))
    raise InputError(f"alternative: '{alternative}' is none; use 'two-sided', 'greater' or 'less'.")


def t_test(
    values: ArrayLike, null: float = 0.0, *, alternative: Alternative = "two-sided"
) -> float:
    """Return the one-sample t test's p-value of mean(``values``) against ``null``, n >= 2.

    For pairs hand in the differences.  Values without spread decide for certain: p is 0 on the
    side where they lie, 1 where they equal ``null``; the interval then has no width and says so.
    Raises ``InputError`` for fewer than two values or NaN.
    """
    array = finite_vector(values, "t test", 2)
    error = standard_error(array)
    if error == 0.0:
        gap = float(array[0]) - null
        return _sides(float(gap <= 0), float(gap >= 0), alternative)
    t = (float(array.mean()) - null) / error
    df = len(array) - 1
    return _sides(t_tail(t, df), t_tail(-t, df), alternative)


def sign_flip_test(
    differences: ArrayLike,
    *,
    alternative: Alternative = "two-sided",
    flips: int = 20_000,
    key: Sequence[str | int] = (),
) -> float:
    """Return the permutation p-value of paired differences ``(n,)``: their signs are flipped.

    Exact for up to 16 non-zero differences; for more, ``flips`` patterns are drawn from a
    generator keyed by ``key`` and the observed one is counted among them.  The statistic is the
    mean.  With n pairs no p-value lies below ``2 ** -n`` (one-sided), 1/32 for five seeds.
    """
    array = finite_vector(differences, "sign-flip test")
    # A zero has no sign: leaving it out changes no sum and no share.
    array = array[array != 0.0]
    n = len(array)
    if n == 0:
        return 1.0
    exact = n <= EXACT_FLIPS
    if exact:
        signs = 1 - 2 * (np.arange(2**n)[:, None] >> np.arange(n)[None, :] & 1)
    else:
        signs = generator("sign-flip", *key).choice([-1, 1], (flips, n))
    sums: Floats = signs @ array
    slack = 1e-12 * float(np.abs(array).sum())
    observed = float(array.sum())
    extra, count = (0, len(sums)) if exact else (1, len(sums) + 1)
    greater = (int((sums >= observed - slack).sum()) + extra) / count
    less = (int((sums <= observed + slack).sum()) + extra) / count
    return _sides(greater, less, alternative)


def sign_test(differences: ArrayLike, *, alternative: Alternative = "two-sided") -> float:
    """Return the exact sign test's p-value of ``(n,)`` paired differences; zeros are left out."""
    array = finite_vector(differences, "sign test")
    up, down = int((array > 0).sum()), int((array < 0).sum())
    n = up + down
    return _sides(binomial_tail(up, n, 0.5), binomial_tail(down, n, 0.5), alternative)


@dataclass(frozen=True)
class Equivalence:
    """Result of two one-sided tests.

    ``p`` is the larger of the two; ``interval`` has level ``1 - 2 alpha`` and lies within the
    margins exactly where ``equivalent``.
    """

    estimate: float
    interval: Interval
    p: float
    equivalent: bool


def equivalence_test(
    values: ArrayLike, low: float, high: float, *, alpha: float = 0.05, over: str = "seeds"
) -> Equivalence:
    """Test whether mean(``values``) lies within ``(low, high)`` (TOST): "found nothing" as a claim.

    For pairs hand in the differences.  Raises ``InputError`` where ``low >= high``, for fewer than
    two values and for NaN.
    """
    if not low < high:
        raise InputError(f"equivalence test: the margins {low} and {high} are in the wrong order.")
    array = finite_vector(values, "equivalence test", 2)
    p = max(t_test(array, low, alternative="greater"), t_test(array, high, alternative="less"))
    interval = mean_interval(array, level=1 - 2 * alpha, over=over)
    return Equivalence(float(array.mean()), interval, p, p <= alpha)


def holm(p_values: ArrayLike) -> Floats:
    """Return Holm's step-down adjusted p-values ``(m,)``, in the order given.

    Rejecting where the adjusted value is at most alpha keeps the chance of any false rejection
    among the ``m`` at most alpha, whatever their dependence.  Raises ``InputError`` for a p-value
    outside [0, 1].
    """
    p: Floats = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not bool(((p >= 0) & (p <= 1)).all()):
        raise InputError("Holm: expected a list of p-values between 0 and 1.")
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def holm_alphas(p_values: ArrayLike, alpha: float = 0.05) -> Floats:
    """Return for each p-value the alpha at which Holm's procedure tested it, ``(m,)``.

    A ``1 - alpha`` interval at that alpha excludes the null exactly where Holm rejects: rejected
    ones get ``alpha / (m - rank)``, all others the alpha of the first that was not rejected.
    """
    p: Floats = np.asarray(p_values, dtype=np.float64)
    rejected = holm(p) <= alpha
    m, count = len(p), int(rejected.sum())
    order = np.argsort(p, kind="stable")
    steps = np.minimum(np.arange(m), count)
    alphas = np.empty_like(p)
    alphas[order] = alpha / (m - np.minimum(steps, m - 1))
    return alphas
