"""Small students in closed form: random hidden units and ridge regression.

Nonlinear, and so cheap that every feature and every draw of a null is taught (Rahimi & Recht 2008,
*Random features for large-scale kernel machines*).  Judged on groups that they have not seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from terrarium.instruments.frobnoloids.scores import Float, GroupedR2, by_group

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Student:
    """One hidden layer of random ReLU units beside the inputs, for ever more of the inputs.

    The inputs come as views (the place; what lies around it; what lies farther off).  Students of
    the first view, the first two, and so on, with each penalty, and the one that says the mean, are
    compared on validation groups, for each feature by itself: so what cannot be learnt scores near
    0, and what needs little is not lost among many inputs.

    Parameters
    ----------
    hidden:
        Random units for each view.
    penalties:
        Of ridge, relative to the number of rows, for columns of variance 1.
    """

    hidden: int = 128
    penalties: tuple[float, ...] = (1e-3, 3e-2, 1.0)

    def taught(
        self,
        views: Sequence[Float],
        y: Float,
        groups: Integers,
        fold: Integers,
        rng: np.random.Generator,
    ) -> GroupedR2:
        """Return held-out errors of ``y`` ``(n, k)`` by group, from ``views``, each ``(n, d)``.

        A fold's students are validated on the next fold and fitted on the rest, 3 folds at least.
        """
        lifted = [_lifted(view, self.hidden, rng) for view in views]
        designs = list(accumulate(lifted, lambda a, b: np.concatenate([a, b], 1)))
        folds = int(fold.max()) + 1
        errors, totals = np.empty_like(y), np.empty_like(y)
        for test in range(folds):
            held, check = fold == test, fold == (test + 1) % folds
            train = ~held & ~check
            mean = y[train].mean(0)
            least = ((y[check] - mean) ** 2).mean(0)
            best = np.zeros((int(held.sum()), y.shape[1]))
            parts = [np.flatnonzero(part) for part in (train, check, held)]
            for columns in designs:
                now, guess = self._fitted(columns, y - mean, parts)
                better = now < least
                best[:, better] = guess[:, better]
                least = np.minimum(now, least)
            errors[held] = (y[held] - mean - best) ** 2
            totals[held] = (y[held] - mean) ** 2
        size = int(groups.max()) + 1
        return GroupedR2(by_group(errors, groups, size), by_group(totals, groups, size))

    def _fitted(self, columns: Float, y: Float, parts: Sequence[Integers]) -> tuple[Float, Float]:
        """Return validation errors ``(k,)`` and predictions of the test rows, best penalties."""
        train, check, held = parts
        known = columns[train]
        mean = known.mean(0)
        known = known - mean
        values, vectors = np.linalg.eigh(known.T @ known / len(known))
        target = vectors.T @ (known.T @ y[train]) / len(known)
        seen = (columns[check] - mean) @ vectors
        least = np.full(y.shape[1], np.inf)
        chosen = np.empty_like(target)
        for penalty in self.penalties:
            weights = target / (np.maximum(values, 0.0) + penalty)[:, None]
            now = ((y[check] - seen @ weights) ** 2).mean(0)
            better = now < least
            chosen[:, better] = weights[:, better]
            least = np.minimum(now, least)
        return least, (columns[held] - mean) @ (vectors @ chosen)


def _lifted(x: Float, hidden: int, rng: np.random.Generator) -> Float:
    """Return ``(n, d + hidden)`` standardised columns of inputs ``(n, d)``."""
    scaled = _standard(x)
    weights = rng.standard_normal((x.shape[1], hidden)) / np.sqrt(x.shape[1])
    units = np.maximum(scaled @ weights + rng.uniform(-1.0, 1.0, hidden), 0.0)
    return np.concatenate([scaled, _standard(units)], 1)


@dataclass(frozen=True)
class QuickStudent:
    """One hidden layer of random ReLU units and one penalty.

    For where each feature has inputs of its own.  ``ridge`` is relative to the number of rows, for
    columns of variance 1.
    """

    hidden: int = 64
    ridge: float = 1e-5

    def taught(
        self, x: Float, y: Float, groups: Integers, fold: Integers, rng: np.random.Generator
    ) -> GroupedR2:
        """Return held-out errors of ``y`` ``(n, 1)`` from ``x`` ``(n, d)`` by group."""
        columns = _lifted(x, self.hidden, rng)
        errors, totals = np.empty_like(y), np.empty_like(y)
        for held in (fold == f for f in range(int(fold.max()) + 1)):
            known, target = columns[~held], y[~held]
            mean, centre = known.mean(0), target.mean(0)
            known = known - mean
            gram = known.T @ known
            gram[np.diag_indices(len(gram))] += self.ridge * len(known)
            solved = np.linalg.solve(gram, known.T @ (target - centre))
            errors[held] = (y[held] - centre - (columns[held] - mean) @ solved) ** 2
            totals[held] = (y[held] - centre) ** 2
        size = int(groups.max()) + 1
        return GroupedR2(by_group(errors, groups, size), by_group(totals, groups, size))


def _standard(x: Float) -> Float:
    spread = x.std(0)
    return np.asarray((x - x.mean(0)) / np.where(spread > 1e-12, spread, 1.0))


def patches(
    images: Float, shape: tuple[int, int], where: Integers, radius: int = 2, scales: int = 3
) -> list[Float]:
    """Return views of what lies around each place of a feature map, ``(n * places, inputs)`` each.

    Images ``(n, channels, rows, columns)`` are brought to the map's ``shape`` by averaging.
    The views are the place itself, then the ``(2 radius + 1)²`` values of each channel around it,
    then those of ever more blurred copies at ever wider steps (1, 3, 9 ...).
    """
    small = _resized(images, shape)
    rows, columns = shape
    y, x = np.divmod(where, columns)
    steps = np.arange(-radius, radius + 1)
    place = np.stack([y / max(1, rows - 1), x / max(1, columns - 1)], 1)
    views = [np.tile(place, (len(images), 1))]
    for scale in range(scales):
        width = 3**scale
        blurred = _blurred(small, width)
        # beyond the border the nearest pixel, as the eye would continue
        at_y = np.clip(y[:, None] + width * steps, 0, rows - 1)
        at_x = np.clip(x[:, None] + width * steps, 0, columns - 1)
        found = blurred[:, :, at_y[:, :, None], at_x[:, None, :]]
        views.append(found.transpose(0, 2, 1, 3, 4).reshape(len(images) * len(where), -1))
    return views


def _resized(images: Float, shape: tuple[int, int]) -> Float:
    n, channels, rows, columns = images.shape
    if (rows, columns) == shape:
        return images
    if rows % shape[0] == 0 and columns % shape[1] == 0:
        split = images.reshape(
            n, channels, shape[0], rows // shape[0], shape[1], columns // shape[1]
        )
        return np.asarray(split.mean((3, 5)))
    y = np.minimum(((np.arange(shape[0]) + 0.5) * rows / shape[0]).astype(int), rows - 1)
    x = np.minimum(((np.arange(shape[1]) + 0.5) * columns / shape[1]).astype(int), columns - 1)
    return images[:, :, y[:, None], x]


def _blurred(images: Float, width: int) -> Float:
    if width == 1:
        return images
    from scipy.ndimage import uniform_filter

    return np.asarray(uniform_filter(images, (0, 0, width, width), mode="nearest"))
