"""TopK, BatchTopK and Matryoshka: loss and gradients in closed form.

Gradients run through active latents alone.  What is computed is what autograd gives for the dense
formulas, up to rounding (tests/instruments/test_dictionaries_training.py).  Large batches run in
blocks, so that memory stays small.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from terrarium.instruments.dictionaries.active import (
    Active,
    Float32,
    Int,
    top_of_batch,
    top_of_rows,
)
from terrarium.instruments.dictionaries.selection import Selection
from terrarium.instruments.dictionaries.weights import Step

BLOCK = 1 << 22
"""Pre-activations that are held together: 16 MB.  Smaller blocks cost more in bookkeeping."""

LOOSER = 0.8
"""Candidates of BatchTopK are what exceeds this share of the last batch's threshold."""


@dataclass
class Selecting(Selection):
    """The objective for processors; parameters are those of `Selection`."""

    _guess: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self._group = np.repeat(
            np.arange(len(self.prefixes)), np.diff(self.prefixes, prepend=0)
        ).astype(np.int64)

    def step(self, x: Tensor, dead: Int, sparsity: float = 1.0) -> Step:
        """Set gradients for the batch ``x`` ``(n, d)``; ``dead`` are indices of dead latents.

        ``sparsity`` scales penalties, of which there are none here.
        """
        w = self.weights
        w.zero_gradients()
        n, m = len(x), w.latents
        centred = x - w.b_dec
        error = torch.empty_like(centred)
        fired = np.zeros(m, np.int64)
        bias = np.zeros(m, np.float32)
        total = 0.0
        for start, stop, pre, flat in self._selected(centred):
            chunk = centred[start:stop]
            active = Active.of(pre, flat)
            bags = active.bags(self._group, len(self.prefixes))
            reached = bags.decoded(w.w_dec).view(stop - start, len(self.prefixes), -1).cumsum(1)
            errors = reached - chunk[:, None]
            error[start:stop] = errors[:, -1]
            total += float(errors.square().sum()) / len(self.prefixes)
            slope = errors.mul_(2 / (n * len(self.prefixes)))
            w.grad("b_dec").add_(slope.sum((0, 1)))
            slope = slope.flip(1).cumsum(1).flip(1).flatten(0, 1)
            inner = bags.products(slope, w.w_dec)
            w.grad("w_dec").add_(torch.from_numpy(bags.gathered(bags.values, slope.numpy())))
            w.grad("w_enc").add_(torch.from_numpy(active.gathered(inner, chunk.numpy())))
            bias += np.bincount(active.columns, inner, m).astype(np.float32)
            fired += np.bincount(active.columns, minlength=m)
        w.grad("b_enc").add_(torch.from_numpy(bias))
        extra = self._revive(centred, -error, dead) if self.auxiliary and len(dead) else 0.0
        w.grad("b_dec").sub_(w.grad("b_enc") @ w.w_enc)
        return Step(
            total / n + extra, float(error.square().sum()) / n, float(fired.sum()) / n, fired
        )

    def reconstruct(self, x: Tensor) -> Tensor:
        """Return what is reconstructed of ``x`` ``(n, d)``."""
        w = self.weights
        reached = torch.empty_like(x)
        for start, stop, pre, flat in self._selected(x - w.b_dec):
            reached[start:stop] = Active.of(pre, flat).decoded(w.w_dec) + w.b_dec
        return reached

    def threshold(self, batches: Iterable[Tensor]) -> float:
        """Return the mean over batches of the least value that is active.

        Source: Bussmann et al. 2024, arXiv 2412.06410, eq. 6: what BatchTopK becomes when it is
        used on single rows.
        """
        found = []
        for x in batches:
            for *_, pre, flat in self._selected(x - self.weights.b_dec):
                del pre, flat
            found.append(self._guess)
        return float(np.mean(found))

    def _selected(self, centred: Tensor) -> Iterator[tuple[int, int, Float32, Int]]:
        """Yield blocks of rows: first, last, pre-activations, flat indices of what is active."""
        w = self.weights
        n, m = len(centred), w.latents
        rows = max(1, BLOCK // m)
        starts = range(0, n, rows)
        kept = torch.empty(n if self.by_batch else min(n, rows), m)
        if not self.by_batch:
            for start in starts:
                pre = w.pre(centred[start : start + rows], kept).numpy()
                yield start, start + len(pre), pre, top_of_rows(pre, self.active)
            return
        for start in starts:
            w.pre(centred[start : start + rows], kept[start : start + rows])
        whole = kept.numpy()
        flat, least = top_of_batch(whole, n * self.active, LOOSER * self._guess)
        self._guess = least
        ends = np.searchsorted(flat, [min(n, s + rows) * m for s in starts])
        for start, end, before in zip(starts, ends, [0, *ends[:-1]], strict=True):
            block = whole[start : start + rows]
            yield start, start + len(block), block, flat[before:end] - start * m

    def _revive(self, centred: Tensor, residual: Tensor, dead: Int) -> float:
        """Add the gradients of the auxiliary loss; return what it adds to the loss."""
        w = self.weights
        where = torch.from_numpy(dead)
        encoder, directions = w.w_enc[where], w.w_dec[where]
        pre = torch.addmm(w.b_enc[where], centred, encoder.T)
        flat = top_of_rows(pre.numpy(), min(self.auxiliary_latents, len(dead)))
        active = Active.of(pre.numpy(), flat)
        size = float(residual.square().sum())
        if size == 0:
            return 0.0
        weight = self.auxiliary * w.mean_square / size
        error = active.decoded(directions) - residual
        slope = error * (2 * weight)
        inner = active.products(slope, directions)
        into = torch.from_numpy(active.gathered(active.values, slope.numpy()))
        w.grad("w_dec").index_add_(0, where, into)
        into = torch.from_numpy(active.gathered(inner, centred.numpy()))
        w.grad("w_enc").index_add_(0, where, into)
        into = torch.from_numpy(np.bincount(active.columns, inner, len(dead)).astype(np.float32))
        w.grad("b_enc").index_add_(0, where, into)
        return weight * float(error.square().sum())
