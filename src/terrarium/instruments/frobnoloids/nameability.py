"""How well known concepts explain a feature: cross-validated by group, never by pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from terrarium.errors import InputError
from terrarium.instruments.frobnoloids.arrays import (
    at_places,
    checked,
    constant,
    folds_of,
    keyed,
    places,
    shuffled,
    some_rows,
)
from terrarium.instruments.frobnoloids.basis import Design, design
from terrarium.instruments.frobnoloids.pursuit import Columns, Moments, pursue
from terrarium.instruments.frobnoloids.ranking import grouped_auroc
from terrarium.instruments.frobnoloids.scores import Float, GroupedR2, Score, by_group

Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Nameability:
    """How well each feature is explained by names.

    Attributes
    ----------
    score:
        The better of the best single concept and the best sparse combination, held out.
    single:
        ``(k,)`` the best single concept alone.
    concept:
        Its name, for each feature, fitted on all rows.
    combination:
        Up to three names for each feature, in the order in which they help.
    metric:
        ``"r2"`` or ``"auroc"``.
    """

    score: Score
    single: Float = field(repr=False)
    concept: tuple[str, ...] = field(repr=False)
    combination: tuple[tuple[str, ...], ...] = field(repr=False)
    metric: str = "r2"


def nameability(
    features: NDArray[Any],
    concepts: Mapping[str, NDArray[Any]],
    groups: NDArray[Any] | None = None,
    *,
    terms: int = 3,
    metric: Literal["r2", "auroc"] = "r2",
    folds: int = 5,
    permutations: int = 10,
    points: int = 20_000,
    knots: int = 4,
    penalty: float = 1e-3,
    key: Sequence[str | int] = (),
) -> Nameability:
    """Return the cross-validated R² (or AUROC) of names for each feature.

    Parameters
    ----------
    features:
        ``(n, k)`` or ``(n, rows, columns, k)``.
    concepts:
        Name to ``(n,)`` or ``(n, rows, columns)``, or the same with one axis more for concepts of
        several numbers (normals).  Floats are numbers, all else categories; see
        `terrarium.instruments.frobnoloids.basis.design`.
    groups:
        ``(n,)`` scene or image of each row; folds and permutations go by it.
    terms:
        Most concepts in a combination; they are chosen and weighed on training folds.
    metric:
        ``"r2"``, or ``"auroc"`` of where the feature is above 0.
    folds, permutations, points:
        Folds; draws of the null, in which groups change places (maps are rolled, too); most rows
        used, the same places in each image.
    knots, penalty:
        Of the splines of one concept; ridge relative to the number of rows.
    key:
        Decides places, folds and permutations.

    Raises ``InputError`` for shapes that do not match, NaN, and fewer than 4 groups.
    """
    array, codes = checked(features, groups, "nameability")
    if metric not in ("r2", "auroc"):
        raise InputError(f"nameability: there is no metric '{metric}'; choose r2 or auroc.")
    rng = keyed("nameability", key)
    where = places(array.shape, points, rng)
    used = some_rows(codes, points, where, rng)
    array, codes = array[used], np.unique(codes[used], return_inverse=True)[1].reshape(-1)
    table = design(_sampled(concepts, array.shape, used, where, len(np.asarray(features))), knots)
    fold = folds_of(codes, folds, rng)
    each = len(table.x) // len(array)
    frame = _Frame(table, np.repeat(codes, each), np.repeat(fold, each), terms, penalty, metric)
    dead = constant(array)
    single, best = frame.scores(at_places(array, where))
    draws = [
        frame.scores(at_places(shuffled(array, codes, rng), where))[1].value
        for _ in range(permutations)
    ]
    value = np.where(dead, np.nan, best.value)
    null = np.where(dead, np.nan, np.array(draws))
    named = frame.names(at_places(array, where))
    return Nameability(
        Score(value, best.error, int(codes.max()), null, share=metric == "r2"),
        np.where(dead, np.nan, single),
        tuple(names[0] if names else "" for names in named),
        named,
        metric,
    )


def _sampled(
    concepts: Mapping[str, NDArray[Any]],
    shape: tuple[int, ...],
    used: Integers,
    where: Integers | None,
    n: int,
) -> dict[str, NDArray[Any]]:
    lead = (n, *shape[1:-1])
    found = {}
    for name, values in concepts.items():
        array = np.asarray(values)
        if array.shape[: len(lead)] != lead or array.ndim > len(lead) + 1:
            raise InputError(
                f"The concept '{name}' has shape {array.shape} and the features {lead} in front; "
                "give one value, or one row of values, for each."
            )
        array = array[used]
        if where is not None:
            rest = array.shape[3:]
            array = array.reshape(len(array), -1, *rest)[:, where]
            array = array.reshape(-1, *rest)
        found[name] = array
    return found


@dataclass(eq=False)
class _Frame:
    """The design in its folds; scores any features on it."""

    table: Design
    groups: Integers
    fold: Integers
    terms: int
    penalty: float
    metric: str

    def __post_init__(self) -> None:
        self.size = int(self.groups.max()) + 1
        self.tests = [np.flatnonzero(self.fold == f) for f in range(int(self.fold.max()) + 1)]
        x = self.table.x
        self.grams = [x[rows].T @ x[rows] for rows in self.tests]
        nothing = np.empty((len(x), 0))
        parts = self._moments(nothing)
        self.whole = reduce(Moments.plus, parts)
        self.train = [self._columns(self.whole.plus(part, -1)) for part in parts]

    def _columns(self, moments: Moments) -> Columns:
        return Columns.of(moments, self.table.block, self.penalty)

    def _moments(self, y: Float) -> list[Moments]:
        x = self.table.x
        return [
            Moments.of(x[rows], y[rows], gram)
            for rows, gram in zip(self.tests, self.grams, strict=True)
        ]

    def _wanted(self, features: Float) -> Float:
        return (features > 0).astype(np.float64) if self.metric == "auroc" else features

    def scores(self, features: Float) -> tuple[Float, Score]:
        """Return the single concepts' ``(k,)`` and the better of single and combination."""
        y = self._wanted(features)
        scale = y.std(0)
        y = (y - y.mean(0)) / np.where(scale > 0, scale, 1.0)
        parts = self._moments(y)
        whole = reduce(Moments.plus, parts)
        single, combined = np.empty_like(y), np.empty_like(y)
        centre = np.empty_like(y)
        for rows, part, columns in zip(self.tests, parts, self.train, strict=True):
            train = whole.plus(part, -1)
            fits = pursue(columns, train, self.terms)
            x = self.table.x[rows]
            single[rows] = x @ fits.weights[0] + fits.offset[0]
            combined[rows] = x @ fits.weights[-1] + fits.offset[-1]
            centre[rows] = train.y / train.count
        one, several = (self._judged(guess, y, centre) for guess in (single, combined))
        better = np.nan_to_num(several.value, nan=-np.inf) >= np.nan_to_num(one.value, nan=-np.inf)
        value = np.where(better, several.value, one.value)
        error = np.where(better, several.error, one.error)
        return one.value, Score(value, error, self.size - 1, np.empty((0, len(value))))

    def _judged(self, guess: Float, y: Float, centre: Float) -> Score:
        nothing = np.empty((0, y.shape[1]))
        if self.metric == "auroc":
            value, error = grouped_auroc(guess, y > y.mean(0), self.groups)
            return Score(value, error, self.size - 1, nothing)
        errors = by_group((y - guess) ** 2, self.groups, self.size)
        totals = by_group((y - centre) ** 2, self.groups, self.size)
        return GroupedR2(errors, totals).score(nothing)

    def names(self, features: Float) -> tuple[tuple[str, ...], ...]:
        """Return the names of each feature, fitted on all rows."""
        whole = reduce(Moments.plus, self._moments(self._wanted(features)))
        fits = pursue(self._columns(self.whole), whole, self.terms)
        return tuple(
            tuple(self.table.names[b] for b in column if b >= 0) for column in fits.blocks.T
        )
