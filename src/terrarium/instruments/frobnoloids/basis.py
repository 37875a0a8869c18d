"""Concepts as blocks of columns: a smooth function of a number, one column for each category."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrarium.errors import InputError

Float = NDArray[np.float64]
_CATEGORIES = 24


@dataclass(frozen=True, eq=False)
class Design:
    """Concepts at the sampled points, as standardised columns in blocks.

    Attributes
    ----------
    names:
        The ``b`` concepts that vary.
    x:
        ``(n, p)`` columns of mean 0 and variance 1.
    block:
        ``(p,)`` which concept each column belongs to, ascending.
    """

    names: tuple[str, ...]
    x: Float = field(repr=False)
    block: NDArray[np.int64] = field(repr=False)


def design(concepts: Mapping[str, NDArray[Any]], knots: int) -> Design:
    """Return the design of ``concepts``, ``(n,)`` or ``(n, columns)`` each.

    Numbers become a linear spline with ``knots`` knots at quantiles, so that any smooth function
    of one concept counts as that concept; booleans, integers and strings are categories, of which
    the most frequent 24 get a column each.  Constant columns are left out.
    """
    names: list[str] = []
    columns, blocks = [], []
    for name, values in concepts.items():
        array = np.asarray(values)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise InputError(f"The concept '{name}' holds NaN or infinity; mask or leave it out.")
        wide = array[:, None] if array.ndim == 1 else array
        found = _spline(wide, knots) if array.dtype.kind == "f" else _categories(wide)
        spread = found.std(0)
        live = spread > 1e-9 * np.maximum(1e-9, np.abs(found).max(0, initial=0.0))
        if not live.any():
            continue
        kept = found[:, live]
        columns.append((kept - kept.mean(0)) / spread[live])
        blocks.append(np.full(kept.shape[1], len(names)))
        names.append(name)
    if not names:
        raise InputError("The vocabulary holds no concept that varies here; give at least one.")
    return Design(tuple(names), np.concatenate(columns, 1), np.concatenate(blocks))


def _spline(values: Float, knots: int) -> Float:
    parts = []
    for column in values.astype(np.float64).T:
        at = np.quantile(column, np.arange(1, knots + 1) / (knots + 1)) if knots else []
        parts += [column, *(np.maximum(column - q, 0.0) for q in np.unique(at))]
    return np.stack(parts, 1)


def _categories(values: NDArray[Any]) -> Float:
    parts = []
    for column in values.T:
        if column.dtype.kind == "b":
            parts.append(column.astype(np.float64))
            continue
        found, counts = np.unique(column, return_counts=True)
        common = found[np.argsort(-counts, kind="stable")[:_CATEGORIES]]
        parts += [(column == value).astype(np.float64) for value in common]
    return np.stack(parts, 1)
