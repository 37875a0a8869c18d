"""Quantiles and tails of the standard laws that intervals and tests need.

Thin, typed names over `scipy.special`, imported on first use.  Student's law, the only one that
verdicts and figures need, is worked out here: a report is to open in half a second, and importing
`scipy.special` takes an eighth.  All take and return plain floats.

Source of the continued fraction: DLMF, https://dlmf.nist.gov/8.17.E22, by Lentz's method.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any


def _special() -> Any:
    from scipy import special

    return special


def normal_quantile(p: float) -> float:
    """Return z with P(Z <= z) = ``p`` for a standard normal Z."""
    return float(_special().ndtri(p))


def normal_tail(z: float) -> float:
    """Return P(Z > ``z``) for a standard normal Z."""
    return float(_special().ndtr(-z))


def t_quantile(p: float, df: float) -> float:
    """Return t with P(T <= t) = ``p`` for Student's T with ``df`` degrees of freedom."""
    if not 0.0 < p < 1.0 or not df > 0:
        return math.nan if not 0.0 <= p <= 1.0 or not df > 0 else math.copysign(math.inf, p - 0.5)
    if p == 0.5:
        return 0.0
    tail = min(p, 1.0 - p)
    low, high = 0.0, 1.0 + 2.0 * abs(NormalDist().inv_cdf(tail))
    while t_tail(high, df) > tail:
        low, high = high, 2.0 * high
    t = high
    for _ in range(200):
        off = t_tail(t, df) - tail
        low, high = (t, high) if off > 0 else (low, t)
        step = t + off / _t_density(t, df)
        # Newton's step where it stays inside the bracket, else its middle.
        new = step if low < step < high else (low + high) / 2
        if abs(new - t) <= 4e-16 * new:
            break
        t = new
    return math.copysign(t, p - 0.5)


def t_tail(t: float, df: float) -> float:
    """Return P(T > ``t``) for Student's T with ``df`` degrees of freedom."""
    if math.isnan(t) or not df > 0:
        return math.nan
    if math.isinf(t):
        return 0.0 if t > 0 else 1.0
    x, y = df / (df + t * t), t * t / (df + t * t)
    # The fraction converges fast on the side of its mean.
    if x < (df / 2 + 1) / (df / 2 + 2.5):
        outside = _incomplete_beta(x, y, df / 2, 0.5)
    else:
        outside = 1.0 - _incomplete_beta(y, x, 0.5, df / 2)
    return outside / 2 if t > 0 else 1.0 - outside / 2


def _t_density(t: float, df: float) -> float:
    scale = math.lgamma((df + 1) / 2) - math.lgamma(df / 2) - 0.5 * math.log(df * math.pi)
    return math.exp(scale - (df + 1) / 2 * math.log1p(t * t / df))


def _incomplete_beta(x: float, y: float, a: float, b: float) -> float:
    """Return the regularised incomplete beta function I_x(a, b), given ``y`` = 1 - ``x``."""
    if x <= 0.0:
        return 0.0
    front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    front += a * math.log(x) + b * math.log(y)
    c, d = 1.0, 1.0 / (1.0 - (a + b) * x / (a + 1))
    fraction = d
    for m in range(1, 10_000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        before = fraction
        for term in (even, odd):
            d = 1.0 / (1.0 + term * d)
            c = 1.0 + term / c
            fraction *= c * d
        if abs(fraction - before) <= 1e-16 * abs(fraction):
            break
    return math.exp(front) * fraction / a


def beta_quantile(p: float, a: float, b: float) -> float:
    """Return x with P(X <= x) = ``p`` for X ~ Beta(``a``, ``b``)."""
    return float(_special().betaincinv(a, b, p))


def chi2_tail(x: float, df: float) -> float:
    """Return P(X > ``x``) for chi-square with ``df`` degrees of freedom."""
    return float(_special().chdtrc(df, x))


def binomial_tail(k: int, n: int, p: float) -> float:
    """Return P(X >= ``k``) for X ~ Binomial(``n``, ``p``)."""
    return 1.0 if k <= 0 else float(_special().betainc(k, n - k + 1, p))
