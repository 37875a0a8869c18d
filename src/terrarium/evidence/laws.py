"""Quantiles and tails of the standard laws that intervals and tests need.

Thin, typed names over `scipy.special`, imported on first use: a report that only reads verdicts
should not pay for it.  All take and return plain floats.
"""

from __future__ import annotations

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
    return float(_special().stdtrit(df, p))


def t_tail(t: float, df: float) -> float:
    """Return P(T > ``t``) for Student's T with ``df`` degrees of freedom."""
    return float(_special().stdtr(df, -t))


def beta_quantile(p: float, a: float, b: float) -> float:
    """Return x with P(X <= x) = ``p`` for X ~ Beta(``a``, ``b``)."""
    return float(_special().betaincinv(a, b, p))


def chi2_tail(x: float, df: float) -> float:
    """Return P(X > ``x``) for chi-square with ``df`` degrees of freedom."""
    return float(_special().chdtrc(df, x))


def binomial_tail(k: int, n: int, p: float) -> float:
    """Return P(X >= ``k``) for X ~ Binomial(``n``, ``p``)."""
    return 1.0 if k <= 0 else float(_special().betainc(k, n - k + 1, p))
