"""Is a feature regular?  Found again by other seeds, predictable, teachable; each has its null."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from terrarium.errors import InputError
from terrarium.instruments.frobnoloids.arrays import (
    at_places,
    checked,
    constant,
    folds_of,
    keyed,
    phase_scrambled,
    places,
    shuffled,
    some_rows,
)
from terrarium.instruments.frobnoloids.scores import Float, GroupedR2, Score
from terrarium.instruments.frobnoloids.students import QuickStudent, Student, patches

Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Structure:
    """How regular each feature is.

    Attributes
    ----------
    found_again:
        `matched` scores by what was initialised anew (``"dictionary"``, ``"network"``): all must
        hold.
    learnable:
        ``"predictable"`` and ``"teachable"``: one must hold.  A smooth map cannot be more
        predictable than its spectrum makes it, and a small student cannot learn everything that is
        regular; see `docs/decisions/019-frobnoloids.md`.
    """

    found_again: Mapping[str, Score] = field(repr=False)
    learnable: Mapping[str, Score] = field(repr=False)

    def __post_init__(self) -> None:
        if not self.found_again or not self.learnable:
            raise InputError(
                "Structure needs features found again in other initialisations, and at least one "
                "of predictable and teachable."
            )

    @property
    def parts(self) -> dict[str, Score]:
        """All scores by name."""
        again = {f"matched {name}": score for name, score in self.found_again.items()}
        return {**again, **self.learnable}

    @property
    def value(self) -> Float:
        """``(k,)`` mean excess over the nulls, 0 to 1: of all matches and the best way to learn."""
        learnt = np.max([_share(part) for part in self.learnable.values()], 0)
        again = [_share(part) for part in self.found_again.values()]
        return np.asarray(np.mean([*again, learnt], 0))

    @property
    def error(self) -> Float:
        """``(k,)`` standard error of the value, the parts' errors taken as independent."""
        excess = np.array([_share(part) for part in self.learnable.values()])
        errors = np.array([part.error for part in self.learnable.values()])
        best = np.nan_to_num(excess, nan=-1.0).argmax(0)
        learnt = np.take_along_axis(errors, best[None], 0)
        squares = [*(part.error**2 for part in self.found_again.values()), learnt[0] ** 2]
        return np.asarray(np.sqrt(np.sum(squares, 0)) / len(squares))

    @property
    def p(self) -> Float:
        """``(k,)`` p-value of "not found again somewhere, or in no way learnable".

        The largest of the matches' (intersection-union test: Berger 1982, Technometrics 24, p. 295)
        and of the smallest of the learnable ones' times their number (Bonferroni).
        """
        again = np.max([part.p for part in self.found_again.values()], 0)
        learnt = np.min([part.p for part in self.learnable.values()], 0) * len(self.learnable)
        return np.asarray(np.maximum(again, np.minimum(learnt, 1.0)))


def _share(part: Score) -> Float:
    """Return the excess over the null, 0 to 1; what is worse than saying the mean counts as it."""
    null = np.maximum(part.null.mean(0), 0.0)
    return np.asarray(np.clip(np.maximum(part.value, 0.0) - null, 0.0, 1.0))


def matched(
    features: NDArray[Any],
    runs: Sequence[NDArray[Any]],
    groups: NDArray[Any] | None = None,
    *,
    draws: int = 10,
    points: int = 10_000,
    least: int = 5,
    key: Sequence[str | int] = (),
) -> Score:
    """Return how well each feature is found again in independent initialisations.

    Features are paired one to one by absolute correlation over one half of the groups (Hungarian
    method; Li et al. 2016, *Convergent learning*, arXiv 1511.07543, sec. 3), and what counts is
    the pair's correlation over the other half, both ways round; the mean over the runs.  The error
    is over runs.  Under the null the features are phase-scrambled within each image (maps) or
    their groups change places (vectors).

    Parameters
    ----------
    features:
        ``(n, k)`` or ``(n, rows, columns, k)``: the features in question, of the first run.
    runs, least:
        The same inputs' features in the other initialisations (of the dictionary, or of the
        network and its dictionary), ``(..., k_r)``; with the first ``least`` at least.
    groups:
        ``(n,)`` image, scene or text of each row.
    draws, points, key:
        Of the null; rows used, the same places in each image; decides both and the halves.

    Raises ``InputError`` for too few runs, and shapes that do not match.
    """
    array, codes = checked(features, groups, "matched")
    if len(runs) + 1 < least:
        raise InputError(
            f"matched: {len(runs) + 1} initialisations (the features' own and {len(runs)} runs) "
            f"are given; at least {least} are needed."
        )
    rng = keyed("matched", key)
    where = places(array.shape, points, rng)
    used = some_rows(codes, points, where, rng)
    others = []
    for run in runs:
        other, _ = checked(run, groups, "matched")
        if other.shape[:-1] != array.shape[:-1]:
            raise InputError(
                f"matched: a run's features are {other.shape} and the first ones {array.shape}; "
                "read them on the same inputs."
            )
        others.append(at_places(other[used], where))
    array, codes = array[used], codes[used]
    half = np.repeat(folds_of(codes, 2, rng), 1 if where is None else len(where))
    halves = [np.flatnonzero(half == side) for side in (0, 1)]
    prepared = [[_unit(other[rows]) for rows in halves] for other in others]
    found = _agreement(at_places(array, where), halves, prepared)
    dead = constant(array)
    null = np.empty((draws, array.shape[-1]))
    for draw in range(draws):
        fake = phase_scrambled(array, rng) if array.ndim == 4 else shuffled(array, codes, rng)
        null[draw] = _agreement(at_places(fake, where), halves, prepared).mean(0)
    error = found.std(0, ddof=1) / np.sqrt(len(found))
    return Score(
        np.where(dead, np.nan, found.mean(0)), error, len(found) - 1, np.where(dead, np.nan, null)
    )


def _unit(rows: Float) -> Float:
    centred = rows - rows.mean(0)
    length = np.linalg.norm(centred, axis=0)
    return np.asarray(centred / np.where(length > 1e-12, length, np.inf))


def _agreement(rows: Float, halves: list[Integers], others: list[list[Float]]) -> Float:
    """Return ``(run, k)`` held-out correlations of the pairs, 0 where a feature has no partner."""
    own = [_unit(rows[half]) for half in halves]
    found = np.zeros((len(others), rows.shape[1]))
    for place, other in enumerate(others):
        correlations = [mine.T @ theirs for mine, theirs in zip(own, other, strict=True)]
        for choose, judge in ((0, 1), (1, 0)):
            first, second = linear_sum_assignment(-np.abs(correlations[choose]))
            side = np.sign(correlations[choose][first, second])
            found[place, first] += 0.5 * side * correlations[judge][first, second]
    return found


def teachable(
    features: NDArray[Any],
    inputs: NDArray[Any],
    groups: NDArray[Any] | None = None,
    *,
    student: Student | None = None,
    draws: int = 8,
    folds: int = 3,
    points: int = 6_000,
    key: Sequence[str | int] = (),
) -> Score:
    """Return the held-out R² of a small student that sees only the network's inputs.

    Parameters
    ----------
    features:
        ``(n, k)`` or ``(n, rows, columns, k)``.
    inputs:
        Images ``(n, channels, rows, columns)`` for maps: the student sees patches at three scales
        and the place; else ``(n, d)`` (coordinates, embeddings, one-hot tokens).
    groups:
        ``(n,)`` image, scene or text of each row.
    student, draws, folds, points, key:
        The student; draws of the null (phase-scrambled maps; groups that change places); folds by
        group; most rows used; decides all that is random.

    Raises ``InputError`` for shapes that do not match, and NaN.
    """
    array, codes = checked(features, groups, "teachable")
    seen = np.asarray(inputs, np.float64)
    if len(seen) != len(array) or seen.ndim != array.ndim or not np.isfinite(seen).all():
        raise InputError(
            f"teachable: features {array.shape} need inputs of as many rows without NaN, (n, "
            f"channels, rows, columns) for maps and (n, d) else; got {seen.shape}."
        )
    rng = keyed("teachable", key)
    where = places(array.shape, points, rng)
    used = some_rows(codes, points, where, rng)
    array, seen = array[used], seen[used]
    codes = np.unique(codes[used], return_inverse=True)[1].reshape(-1)
    fold = folds_of(codes, folds, rng)
    each = 1 if where is None else len(where)
    shape = (array.shape[1], array.shape[2]) if where is not None else (1, 1)
    views = [seen] if where is None else patches(seen, shape, where)
    targets = [at_places(array, where)]
    for _ in range(draws):
        fake = phase_scrambled(array, rng) if array.ndim == 4 else shuffled(array, codes, rng)
        targets.append(at_places(fake, where))
    y = np.concatenate(targets, 1)
    found = (student or Student()).taught(
        views, y, np.repeat(codes, each), np.repeat(fold, each), rng
    )
    k = array.shape[-1]
    own = GroupedR2(found.errors[:, :k], found.totals[:, :k])
    return _masked(own, found.value[k:].reshape(draws, k), constant(array))


def predictable(
    maps: NDArray[Any],
    groups: NDArray[Any] | None = None,
    *,
    student: QuickStudent | None = None,
    gap: int = 1,
    reach: int = 3,
    draws: int = 8,
    folds: int = 3,
    points: int = 3_000,
    key: Sequence[str | int] = (),
) -> Score:
    """Return the held-out R² of a feature's value from the same feature farther off.

    What a linear predictor can do follows from the spectrum alone; the excess over the null is
    regularity beyond it.  A draw of the null is the better of two: phase-scrambled maps, and the
    map's own linear prediction plus its residuals, whose sign is flipped image by image.  Maps do
    not go on at their other border, as a scrambled one does, so that those alone are too easy to
    beat: any smooth noise would pass.

    Parameters
    ----------
    maps:
        ``(n, rows, columns, k)``, sides of ``2 reach + 2`` at least.
    groups:
        ``(n,)`` image or scene of each map.
    gap, reach:
        Seen are the places more than ``gap`` and at most ``reach`` away.
    student, draws, folds, points, key:
        As in `teachable`; the student is one of `QuickStudent`, for each feature its own.

    Raises ``InputError`` for features that are no maps, or too small ones.
    """
    array, codes = checked(maps, groups, "predictable")
    if array.ndim != 4 or min(array.shape[1:3]) < 2 * reach + 2:
        raise InputError(
            f"predictable: needs maps of sides {2 * reach + 2} at least, got {array.shape}; "
            "leave this part out for vectors and tiny maps."
        )
    rng = keyed("predictable", key)
    inner = (len(array), array.shape[1] - 2 * reach, array.shape[2] - 2 * reach, 1)
    where = places(inner, points, rng)
    if where is None:
        raise AssertionError("maps have places")
    y, x = np.divmod(where, inner[2])
    steps = np.arange(-reach, reach + 1)
    far = np.maximum(np.abs(steps[:, None]), np.abs(steps)) > gap
    dy, dx = (offset[far] for offset in np.meshgrid(steps, steps, indexing="ij"))
    ring = (y[:, None] + reach + dy) * array.shape[2] + x[:, None] + reach + dx
    centre = (y + reach) * array.shape[2] + x + reach
    fold = np.repeat(folds_of(codes, folds, rng), len(where))
    teacher = student or QuickStudent()
    task = _Ring(ring, centre, np.repeat(codes, len(where)), fold, teacher, key)
    found = task.all(array)
    null = np.array(
        [
            np.fmax(task.all(phase_scrambled(array, rng)).value, task.all(array, rng).value)
            for _ in range(draws)
        ]
    )
    return _masked(found, null, constant(array))


@dataclass(frozen=True, eq=False)
class _Ring:
    """Predicts the centre from the ring, each feature from itself."""

    ring: Integers
    centre: Integers
    groups: Integers
    fold: Integers
    student: QuickStudent
    key: Sequence[str | int]

    def all(self, maps: Float, flips: np.random.Generator | None = None) -> GroupedR2:
        """Return the errors of every feature's own student (all with the same random units).

        With ``flips`` the residuals of the linear prediction get a random sign in each image.
        """
        sign = None
        if flips is not None:
            sign = flips.choice([-1.0, 1.0], int(self.groups.max()) + 1)[self.groups, None]
        parts = [self._one(maps[..., j], sign) for j in range(maps.shape[-1])]
        return GroupedR2(
            np.concatenate([part.errors for part in parts], 1),
            np.concatenate([part.totals for part in parts], 1),
        )

    def _one(self, maps: Float, sign: Float | None) -> GroupedR2:
        flat = maps.reshape(len(maps), -1)
        x = flat[:, self.ring].reshape(len(self.groups), -1)
        y = flat[:, self.centre].reshape(-1, 1)
        if sign is not None:
            known = np.concatenate([x, np.ones_like(y)], 1)
            linear = known @ np.linalg.lstsq(known, y, rcond=None)[0]
            y = linear + sign * (y - linear)
        return self.student.taught(x, y, self.groups, self.fold, keyed("ring", self.key))


def _masked(found: GroupedR2, null: Float, dead: NDArray[np.bool_]) -> Score:
    score = found.score(np.where(dead, np.nan, null))
    return replace(score, value=np.where(dead, np.nan, score.value))
