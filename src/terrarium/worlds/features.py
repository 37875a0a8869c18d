"""What can be seen in the input without any model: features for the input-only baseline."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from terrarium.worlds.base import Batch

_HASHED = 2048
_BINS = np.uint64(_HASHED)


def input_features(batch: Batch, vocabulary: int, positions: int) -> NDArray[np.float32]:
    """Return ``(n, k)`` float32 one-hot tokens of each statement, the answer left out.

    Tokens are indicated by their position in the row and, inside a named span, by their place in
    the span as well, so that a linear model sees each digit of the claim in one column wherever a
    template puts it.  ``vocabulary`` and ``positions`` (longest row) fix the columns; those of a
    span depend on its length, which must be constant in the world.  For a vocabulary above 1,024,
    counts of tokens and of neighbouring pairs, each hashed into 2,048 columns, stand instead
    (Weinberger et al. 2009, "Feature hashing for large scale multitask learning").

    Raises ``ValueError`` for a batch without tokens or without the span ``"answer"``.
    """
    if batch.lengths is None or "answer" not in batch.spans:
        raise ValueError("input features need tokens and the span 'answer'")
    tokens = np.zeros((len(batch), positions), np.int64)
    tokens[:, : batch.inputs.shape[1]] = batch.inputs[:, :positions]
    seen = np.arange(positions) < batch.spans["answer"][:, :1]
    if vocabulary > 1024:
        return _hashed(tokens, seen)
    blocks = [_one_hot(tokens, seen, vocabulary)]
    for name in sorted(set(batch.spans) - {"answer", "end"}):
        start, stop = batch.spans[name].T
        width = int((stop - start).max(initial=0))
        place = np.arange(width)
        inside = place < (stop - start)[:, None]
        at = np.minimum(start[:, None] + place, positions - 1)
        blocks.append(_one_hot(np.take_along_axis(tokens, at, axis=1), inside, vocabulary))
    return np.concatenate(blocks, axis=1)


def _one_hot(
    tokens: NDArray[np.int64], seen: NDArray[np.bool_], vocabulary: int
) -> NDArray[np.float32]:
    """Return ``(n, t * vocabulary)`` indicators of the tokens that are ``seen``."""
    n, t = tokens.shape
    columns = np.zeros((n, t, vocabulary), np.float32)
    row, position = np.nonzero(seen)
    columns[row, position, tokens[row, position]] = 1.0
    return columns.reshape(n, t * vocabulary)


def _hashed(tokens: NDArray[np.int64], seen: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return ``(n, 2 * 2048)`` counts of hashed tokens and neighbouring pairs."""
    counts = np.zeros((len(tokens), 2 * _HASHED), np.float32)
    pairs = tokens[:, :-1] * 1_000_003 + tokens[:, 1:]
    for start, values, mask in ((0, tokens, seen), (_HASHED, pairs, seen[:, 1:])):
        mixed = values.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        column = start + ((mixed >> np.uint64(32)) % _BINS).astype(np.int64)
        row, position = np.nonzero(mask)
        np.add.at(counts, (row, column[row, position]), 1.0)
    return counts
