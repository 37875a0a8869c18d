"""TopK, BatchTopK and Matryoshka by dense products: for a GPU, where these cost next to nothing.

The loss and gradients are those of `selecting`, which is for processors; ties aside they agree up
to rounding (tests/instruments/test_dictionaries_training.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from terrarium.instruments.dictionaries.active import Int
from terrarium.instruments.dictionaries.selection import Selection
from terrarium.instruments.dictionaries.weights import Step


class DenseSelecting(Selection):
    """The objective for any device; parameters are those of `Selection`."""

    def step(self, x: Tensor, dead: Int, sparsity: float = 1.0) -> Step:
        """Set gradients for the batch ``x`` ``(n, d)``; ``dead`` are indices of dead latents.

        ``sparsity`` scales penalties, of which there are none here.
        """
        w = self.weights
        w.zero_gradients()
        n = len(x)
        centred = x - w.b_dec
        features = self._features(centred)
        on = features > 0
        errors = list(self._errors(features, centred))
        total = torch.stack([error.square().sum() for error in errors])
        after = torch.zeros_like(centred)
        groups = list(zip(pairwise((0, *self.prefixes)), errors, strict=True))
        for (first, last), error in reversed(groups):
            slope = error * (2 / (n * len(errors)))
            w.grad("b_dec").add_(slope.sum(0))
            after += slope
            inner = (after @ w.w_dec[first:last].T) * on[:, first:last]
            w.grad("w_dec")[first:last].addmm_(features[:, first:last].T, after)
            w.grad("w_enc")[first:last].addmm_(inner.T, centred)
            w.grad("b_enc")[first:last].add_(inner.sum(0))
        extra = self._revive(centred, -errors[-1], dead) if self.auxiliary and len(dead) else 0.0
        w.grad("b_dec").sub_(w.grad("b_enc") @ w.w_enc)
        squared = total.tolist()
        fired = on.sum(0).cpu().numpy()
        return Step(
            sum(squared) / (n * len(squared)) + extra,
            squared[-1] / n,
            float(fired.sum()) / n,
            fired,
        )

    def reconstruct(self, x: Tensor) -> Tensor:
        """Return what is reconstructed of ``x`` ``(n, d)``."""
        w = self.weights
        return torch.addmm(w.b_dec, self._features(x - w.b_dec), w.w_dec)

    def threshold(self, batches: Iterable[Tensor]) -> float:
        """Return the mean over batches of the least value that is active.

        Source: Bussmann et al. 2024, arXiv 2412.06410, eq. 6.
        """
        found = []
        for x in batches:
            features = self._features(x - self.weights.b_dec)
            least = torch.where(features > 0, features, torch.inf).min()
            found.append(float(least) if torch.isfinite(least) else 0.0)
        return float(np.mean(found))

    def _features(self, centred: Tensor) -> Tensor:
        """Return ``(n, m)``: the pre-activations that are kept, the others 0."""
        w = self.weights
        return _kept(torch.addmm(w.b_enc, centred, w.w_enc.T), self.active, self.by_batch)

    def _errors(self, features: Tensor, centred: Tensor) -> Iterator[Tensor]:
        """Yield ``(n, d)`` for each prefix: what its latents reconstruct, less the rows."""
        error = -centred
        for first, last in pairwise((0, *self.prefixes)):
            error = torch.addmm(error, features[:, first:last], self.weights.w_dec[first:last])
            yield error

    def _revive(self, centred: Tensor, residual: Tensor, dead: Int) -> float:
        """Add the gradients of the auxiliary loss; return what it adds to the loss."""
        w = self.weights
        size = float(residual.square().sum())
        if size == 0:
            return 0.0
        where = torch.from_numpy(dead).to(centred.device)
        encoder, directions = w.w_enc[where], w.w_dec[where]
        pre = torch.addmm(w.b_enc[where], centred, encoder.T)
        features = _kept(pre, min(self.auxiliary_latents, len(dead)), False)
        weight = self.auxiliary * w.mean_square / size
        error = torch.addmm(-residual, features, directions)
        slope = error * (2 * weight)
        inner = (slope @ directions.T) * (features > 0)
        w.grad("w_dec").index_add_(0, where, features.T @ slope)
        w.grad("w_enc").index_add_(0, where, inner.T @ centred)
        w.grad("b_enc").index_add_(0, where, inner.sum(0))
        return weight * float(error.square().sum())


def _kept(pre: Tensor, k: int, by_batch: bool) -> Tensor:
    """Return ``pre`` ``(n, m)`` where it is positive and among the largest, else 0.

    The largest are ``k`` of each row, or ``k n`` of all.
    """
    positive = pre.clamp_min(0.0)
    flat = positive.flatten() if by_batch else positive
    count = min(k * len(pre) if by_batch else k, flat.shape[-1])
    values, where = flat.topk(count, sorted=False)
    return torch.zeros_like(flat).scatter_(-1, where, values).view_as(pre)
