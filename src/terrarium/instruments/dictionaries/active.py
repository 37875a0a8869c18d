"""Which latents are active, exactly and fast, and the sparse products over them.

Of a thousand latents some dozens are active, so that after the encoder's dense product all
arithmetic is sparse.  What is active is kept in compressed rows: ``starts`` ``(bags + 1,)``,
``columns`` and ``values`` ``(a,)``; a *bag* is a row, or a row's latents within one group of
columns (`Active.bags`).
"""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
import torch
from numpy.typing import NDArray
from torch import Tensor

Float32 = NDArray[np.float32]
Int = NDArray[np.int64]


@dataclass(frozen=True)
class Active:
    """Active latents of ``n`` rows, sorted by row, then by column.

    ``starts`` ``(bags + 1,)`` int64, ``columns`` ``(a,)`` int64, ``values`` ``(a,)`` float32,
    ``latents`` the number of columns.
    """

    starts: Int
    columns: Int
    values: Float32
    latents: int

    @classmethod
    def of(cls, pre: Float32, flat: Int) -> Active:
        """Return the entries of ``pre`` ``(n, m)`` at sorted ``flat`` indices."""
        n, m = pre.shape
        rows = flat // m
        return cls(_starts(rows, n), flat - rows * m, pre.reshape(-1)[flat], m)

    def bags(self, group: Int, groups: int) -> Active:
        """Split each row by the group of its columns, ``group`` ``(m,)`` non-decreasing."""
        if groups == 1:
            return self
        n = len(self.starts) - 1
        rows = np.repeat(np.arange(n), np.diff(self.starts))
        bags = rows * groups + group[self.columns]
        return Active(_starts(bags, n * groups), self.columns, self.values, self.latents)

    def decoded(self, directions: Tensor) -> Tensor:
        """Return ``(bags, d)``: the values times ``directions`` ``(m, d)``, summed by bag."""
        return torch.nn.functional.embedding_bag(
            torch.from_numpy(self.columns),
            directions,
            torch.from_numpy(self.starts),
            mode="sum",
            per_sample_weights=torch.from_numpy(self.values),
            include_last_offset=True,
        )

    def products(self, left: Tensor, right: Tensor) -> Float32:
        """Return ``(a,)``: at each active entry ``left[bag] @ right[column]``.

        ``left`` is ``(bags, d)``, ``right`` ``(m, d)``.
        """
        if not torch.backends.mkl.is_available():  # type: ignore[no-untyped-call]
            bags = np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))
            dense = left @ right.T
            return dense.numpy()[bags, self.columns]
        _say_nothing_of_beta()
        where = torch.sparse_csr_tensor(
            torch.from_numpy(self.starts),
            torch.from_numpy(self.columns),
            torch.zeros(len(self.columns)),
            (len(self.starts) - 1, self.latents),
            check_invariants=False,
        )
        found: Float32 = torch.sparse.sampled_addmm(where, left, right.T, beta=0.0).values().numpy()
        return found

    def gathered(self, values: Float32, rows: Float32) -> Float32:
        """Return ``(m, d)``: for each latent the sum of ``values`` ``(a,)`` times its bags' rows.

        ``rows`` is ``(bags, d)``.
        """
        shape = (len(self.starts) - 1, self.latents)
        matrix = scipy.sparse.csr_matrix((values, self.columns, self.starts), shape, copy=False)
        product: Float32 = matrix.T @ rows
        return product


@functools.cache
def _say_nothing_of_beta() -> None:
    """Make PyTorch's one warning that its compressed rows are in beta here, unheard."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        none = torch.zeros(1, dtype=torch.int64)
        torch.sparse_csr_tensor(none.repeat(2), none[:0], torch.zeros(0), (1, 1))


def _starts(bags: Int, n: int) -> Int:
    starts = np.zeros(n + 1, np.int64)
    np.cumsum(np.bincount(bags, minlength=n), out=starts[1:])
    return starts


def top_of_rows(pre: Float32, k: int) -> Int:
    """Return sorted flat indices of the ``k`` largest positive entries of each row of ``pre``.

    Rows with fewer positive entries give fewer.  Ties go to the lower column.  The same as
    ``torch.topk`` followed by ReLU, at about a quarter of its time: the k-th largest of the maxima
    of groups of columns bounds the row's k-th largest entry from below, so that few candidates
    are left to be ordered.
    """
    n, m = pre.shape
    if k >= m:
        return np.flatnonzero(pre > 0)
    least = _lower_bound(pre, k)
    np.maximum(least, np.finfo(np.float32).tiny, out=least)
    flat = np.flatnonzero(pre >= least[:, None])
    rows = flat // m
    counts = np.bincount(rows, minlength=n)
    most = int(counts.max(initial=0))
    if most <= k:
        return flat
    values = pre.reshape(-1)[flat]
    offsets = np.arange(n) * most - (np.cumsum(counts) - counts)
    padded = np.zeros((n, most), np.float32)
    padded.reshape(-1)[np.arange(len(flat)) + offsets[rows]] = values
    padded.partition(most - k, axis=-1)
    threshold = padded[:, most - k]
    kept = flat[values >= threshold[rows]]
    return kept if len(kept) <= n * k and _most(kept // m, n) <= k else _without_ties(pre, kept, k)


def _lower_bound(pre: Float32, k: int) -> Float32:
    """Return ``(n,)``: a number that at least ``k`` entries of each row reach."""
    n, m = pre.shape
    size = max(1, m // (2 * k))
    groups = m // size
    if size == 1:
        return np.partition(pre, m - k, axis=-1)[:, m - k]
    grouped = torch.from_numpy(pre)[:, : size * groups].view(n, size, groups)
    largest: Float32 = grouped.amax(1).numpy()
    largest.partition(groups - k, axis=-1)
    return largest[:, groups - k].copy()


def _most(rows: Int, n: int) -> int:
    return int(np.bincount(rows, minlength=n).max(initial=0))


def _without_ties(pre: Float32, flat: Int, k: int) -> Int:
    """Drop the highest columns among entries that tie for a row's last place."""
    m = pre.shape[1]
    order = np.lexsort((flat, -pre.reshape(-1)[flat], flat // m))
    rows = flat[order] // m
    first = np.searchsorted(rows, rows)
    return np.sort(flat[order][np.arange(len(rows)) - first < k])


def top_of_batch(pre: Float32, count: int, guess: float) -> tuple[Int, float]:
    """Return sorted flat indices of the ``count`` largest positive entries of the whole ``pre``.

    Also returns the least value among them (0 where there are none).  ``guess`` is a value that
    hopefully a few more than ``count`` entries exceed; a bad one costs time only.
    """
    values = pre.reshape(-1)
    flat = np.flatnonzero(values > max(guess, 0.0))
    if len(flat) < count and guess > 0:
        flat = np.flatnonzero(values > 0)
    found = values[flat]
    if len(flat) > count:
        least = np.partition(found, len(found) - count)[len(found) - count]
        above = found > least
        ties = np.flatnonzero(found == least)
        above[ties[: count - int(np.count_nonzero(above))]] = True
        flat, found = flat[above], found[above]
    return flat, float(found.min()) if len(found) else 0.0


def dense(active: Active, n: int) -> Any:
    """Return the features ``(n, m)`` float32."""
    shape = (n, active.latents)
    return scipy.sparse.csr_matrix((active.values, active.columns, active.starts), shape).toarray()
