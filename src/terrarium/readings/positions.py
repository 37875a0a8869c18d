"""The grammar of positions: names such as ``"prompt_end"`` to one token index for each example.

===================  ==========================================================================
``prompt_end``       the token before the answer: from here the model's answer is predicted
``answer``           the answer's last token
``first:<span>``     the span's first token
``last:<span>``      the span's last token
``before:<span>``    the token before the span
``last``             the last real token (padding does not count)
``all``              every position, as columns ``"0"``, ``"1"``, ...
===================  ==========================================================================
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from terrarium.errors import InputError, did_you_mean
from terrarium.worlds.base import Batch

MISSING = -1
"""Stands where an example has no such position."""

_SHORT = {"prompt_end": "before:answer", "answer": "last:answer"}
_SIDES = ("first", "last", "before")


def resolve(
    batch: Batch, names: Sequence[str], allow_missing: bool = False
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Return the names (``"all"`` spelled out) and the token index of each, ``(n, p)`` int64.

    Examples that lack a position raise ``InputError``, or hold `MISSING` with ``allow_missing``
    (for ``"all"``, beyond an example's length, always).  Unknown names and spans raise
    ``InputError`` with a did-you-mean.
    """
    if isinstance(names, str):
        names = (names,)
    if not names:
        raise InputError("No position is named; name at least one, such as 'prompt_end'.")
    lengths = token_lengths(batch)
    labels: list[str] = []
    columns: list[NDArray[np.int64]] = []
    for name in names:
        if name == "all":
            at = np.arange(int(lengths.max(initial=0)))
            labels += [str(i) for i in at]
            columns += [np.where(i < lengths, i, MISSING) for i in at]
        else:
            labels.append(name)
            columns.append(_column(batch, name, lengths, allow_missing))
    if len(set(labels)) != len(labels):
        raise InputError(f"Positions must differ, got {', '.join(names)}; name each once.")
    return tuple(labels), np.stack(columns, axis=1).astype(np.int64)


def token_lengths(batch: Batch) -> NDArray[np.int64]:
    """Return ``(n,)`` numbers of real tokens; raises ``InputError`` if there are no sequences."""
    if not is_sequence(batch):
        raise InputError(
            f"Positions are for token sequences and the inputs are {batch.inputs.dtype} of shape "
            f"{batch.inputs.shape}; read with positions=None."
        )
    if batch.lengths is None:
        return np.full(len(batch), batch.inputs.shape[1], np.int64)
    return batch.lengths


def is_sequence(batch: Batch) -> bool:
    """Return whether the inputs are tokens ``(n, t)``."""
    return batch.inputs.ndim == 2 and np.issubdtype(batch.inputs.dtype, np.integer)


def _column(
    batch: Batch, name: str, lengths: NDArray[np.int64], allow_missing: bool
) -> NDArray[np.int64]:
    if name == "last":
        at = lengths - 1
        why = "no tokens"
    else:
        side, _, span = _SHORT.get(name, name).partition(":")
        if not span or side not in _SIDES:
            options = ["prompt_end", "answer", "last", "all"]
            options += [f"{side}:{span}" for side in _SIDES for span in batch.spans]
            raise InputError(f"There is no position '{name}'{did_you_mean(name, options)}")
        if span not in batch.spans:
            known = did_you_mean(span, batch.spans) if batch.spans else "; the data has no spans."
            raise InputError(f"The position '{name}' needs the span '{span}'{known}")
        start, stop = batch.spans[span][:, 0], batch.spans[span][:, 1]
        at = {"first": start, "last": stop - 1, "before": start - 1}[side]
        at = np.where(stop > start, at, MISSING)
        why = f"no token there (no span '{span}'" + (
            ", or nothing before it)" if side == "before" else ")"
        )
    lacking = np.flatnonzero(at < 0)
    if len(lacking) and not allow_missing:
        raise InputError(
            f"Position '{name}': {len(lacking)} of {len(batch)} examples have {why}, "
            f"the first is row {lacking[0]}; leave them out or name another position."
        )
    beyond = np.flatnonzero(at >= lengths)
    if len(beyond):
        raise InputError(
            f"Position '{name}' of row {beyond[0]} is token {at[beyond[0]]}, but the example has "
            f"{lengths[beyond[0]]} tokens; its spans do not fit its length."
        )
    return np.where(at < 0, MISSING, at).astype(np.int64)
