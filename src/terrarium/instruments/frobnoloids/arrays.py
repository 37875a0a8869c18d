"""Features as plain arrays: maps of images or rows of vectors go through the same code.

Features are ``(n, k)`` (tokens, points) or ``(n, rows, columns, k)`` (maps of images); groups
``(n,)`` name what belongs together (an image, a scene, a text): folds, permutations and intervals
go by group, never by pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrarium.errors import InputError
from terrarium.randomness import generator

Float = NDArray[np.float64]
Integers = NDArray[np.int64]


def checked(features: Any, groups: Any | None, what: str) -> tuple[Float, Integers]:
    """Return features as float64 and groups as codes from 0; each row its own group for None.

    Raises ``InputError`` for wrong shapes, NaN, and fewer than 4 groups.
    """
    array = np.asarray(features, np.float64)
    if array.ndim not in (2, 4) or 0 in array.shape:
        raise InputError(
            f"{what}: features of shape {array.shape} are neither (n, k) nor (n, rows, columns, k)."
        )
    if not np.isfinite(array).all():
        raise InputError(f"{what}: the features hold NaN or infinity; leave those rows out.")
    names = np.arange(len(array)) if groups is None else np.asarray(groups)
    if names.shape != (len(array),):
        raise InputError(
            f"{what}: {len(array)} rows of features and groups of shape {names.shape}; give one "
            "group for each row."
        )
    codes = np.unique(names, return_inverse=True)[1].reshape(-1).astype(np.int64)
    if codes.max() < 3:
        raise InputError(
            f"{what}: there are {codes.max() + 1} groups and 4 at least are needed; give more "
            "images, scenes or texts."
        )
    return array, codes


def constant(features: Float) -> NDArray[np.bool_]:
    """Return ``(k,)``: features that never change (dead ones), about which nothing can be said."""
    axes = tuple(range(features.ndim - 1))
    low, high = features.min(axes), features.max(axes)
    return np.asarray(high - low <= 1e-9 * np.maximum(np.abs(low), np.abs(high)))


def places(shape: tuple[int, ...], points: int, rng: np.random.Generator) -> Integers | None:
    """Return flat places of a map, the same in every image, so that all have ``points`` in sum.

    None for rows of vectors, which have no places.
    """
    if len(shape) == 2:
        return None
    area = shape[1] * shape[2]
    return np.sort(rng.permutation(area)[: max(1, min(area, points // shape[0]))])


def at_places(maps: Float, where: Integers | None) -> Float:
    """Return ``(n * places, k)`` values, image by image."""
    if where is None:
        return maps
    flat = maps.reshape(len(maps), -1, maps.shape[-1])
    return np.ascontiguousarray(flat[:, where].reshape(-1, maps.shape[-1]))


def some_rows(
    groups: Integers, points: int, where: Integers | None, rng: np.random.Generator
) -> Integers:
    """Return which of the first axis are used: all for maps, at most ``points`` rows else.

    The same places of every group, so that groups of one size (texts of as many words) keep one
    size and places stay aligned where groups change places; whole groups only where even one
    place of each is too many.
    """
    n = len(groups)
    if where is not None or n <= points:
        return np.arange(n)
    order = np.argsort(groups, kind="stable")
    sizes = np.bincount(groups)
    place = np.empty(n, np.int64)
    place[order] = np.arange(n) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    sequence = rng.permutation(int(sizes.max()))
    rows = np.cumsum(np.bincount(place)[sequence])
    taken = max(1, int(np.searchsorted(rows, points, side="right")))
    kept = np.isin(place, sequence[:taken])
    if int(rows[taken - 1]) > points:
        some = rng.permutation(len(sizes))
        within = np.cumsum(np.bincount(groups[kept], minlength=len(sizes))[some]) <= points
        kept &= np.isin(groups, some[within])
    return np.flatnonzero(kept)


def shuffled(features: Float, groups: Integers, rng: np.random.Generator) -> Float:
    """Return features whose groups have changed places, maps rolled by one random shift, too.

    What holds within a group stays (autocorrelation, spectrum); what ties the features to their
    own group and place goes.  The roll is the toroidal shift of Lotwick & Silverman 1982.
    """
    order = np.argsort(groups, kind="stable")
    sequence = rng.permutation(int(groups.max()) + 1)
    taken = np.concatenate([np.flatnonzero(groups == g) for g in sequence])
    new = np.empty_like(features)
    new[order] = features[taken]
    if features.ndim == 4:
        shift = [int(rng.integers(side)) for side in features.shape[1:3]]
        new = np.roll(new, shift, axis=(1, 2))
    return new


def phase_scrambled(maps: Float, rng: np.random.Generator) -> Float:
    """Return maps ``(n, rows, columns, k)`` with the same power spectra and random phases.

    Each map keeps its mean, its variance and its (circular) autocorrelation, and nothing else
    (Theiler et al. 1992, *Testing for nonlinearity in time series: the method of surrogate data*,
    Physica D 58, sec. 2.4.1; in two dimensions).
    """
    new = np.empty_like(maps)
    rows, columns = maps.shape[1:3]
    step = max(1, 2**22 // (maps.shape[0] * rows * columns))
    for start in range(0, maps.shape[-1], step):
        part = maps[..., start : start + step]
        spectrum = np.fft.rfft2(part, axes=(1, 2))
        noise = np.fft.rfft2(rng.standard_normal(part.shape), axes=(1, 2))
        size = np.abs(noise)
        turned = np.abs(spectrum) * noise / np.where(size > 0, size, 1.0)
        turned[:, 0, 0] = spectrum[:, 0, 0]  # the mean keeps its sign
        new[..., start : start + step] = np.fft.irfft2(turned, s=(rows, columns), axes=(1, 2))
    return new


def folds_of(groups: Integers, folds: int, rng: np.random.Generator) -> Integers:
    """Return the fold of each row; whole groups, as many groups in each fold as can be."""
    size = int(groups.max()) + 1
    return np.asarray((rng.permutation(size) % min(folds, size))[groups], np.int64)


def keyed(what: str, key: Sequence[str | int]) -> np.random.Generator:
    """Return the generator of one score."""
    return generator("frobnoloids", what, *key)
