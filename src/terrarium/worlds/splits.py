"""Keyed splits: which rows may be trained on is a hash of the row, the same in every process."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from terrarium.errors import InputError, did_you_mean

SPLITS = ("train", "validation", "test")

SHARES = (0.7, 0.15, 0.15)
"""Shares of the rows that train, validation and test own in the worlds that make their rows."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX2 = np.uint64(0x94D049BB133111EB)


def pair_hash(a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return a well-mixed 64-bit hash of each *unordered* pair of integers below 2 ** 32.

    The finaliser of SplitMix64 (Steele, Lea & Flood 2014, OOPSLA, section 5), applied to the
    pair packed into one word.
    """
    low, high = np.minimum(a, b), np.maximum(a, b)
    z = ((high << 32) | low).astype(np.uint64) * _GOLDEN + _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * _MIX1
    z = (z ^ (z >> np.uint64(27))) * _MIX2
    return np.asarray(z ^ (z >> np.uint64(31)))


def text_hash(text: str) -> float:
    """Return a number in [0, 1) that depends on ``text`` alone."""
    digest = hashlib.blake2b(text.encode(), digest_size=8, key=b"terrarium split").digest()
    return int.from_bytes(digest, "little") / 2.0**64


def bounds(shares: tuple[float, float, float], split: str) -> tuple[float, float]:
    """Return the half-open range of hashes in [0, 1) that ``split`` owns."""
    start = {"train": 0.0, "validation": shares[0], "test": shares[0] + shares[1]}[split]
    return start, (1.0 if split == "test" else start + shares[SPLITS.index(split)])


def owned(
    a: NDArray[np.int64],
    b: NDArray[np.int64],
    split: str,
    shares: tuple[float, float, float] = SHARES,
) -> NDArray[np.bool_]:
    """Return which unordered pairs of integers belong to ``split``."""
    start, stop = bounds(shares, split)
    share = pair_hash(a, b) * 2.0**-64
    return np.asarray((share >= start) & (share < stop))


def check_split(split: str, known: tuple[str, ...], world: str) -> None:
    """Raise ``InputError`` if ``split`` is none of the ``known`` ones."""
    if split not in known:
        raise InputError(f"The world '{world}' has no split '{split}'{did_you_mean(split, known)}")
