"""How activations come in: any array or site of a reading, flattened to rows, and maps back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from terrarium.errors import InputError
from terrarium.instruments.probes.linear import as_array

Float32 = NDArray[np.float32]

CHUNK = 1 << 15
"""Rows that are looked at together where a pass goes over all of them."""


def training_rows(x: Any, what: str, least: int = 2) -> NDArray[Any]:
    """Return ``x`` as rows ``(n, d)`` of real numbers, not copied where it is memory-mapped.

    ``x`` is ``(n, d)`` or image activations ``(n, rows, columns, d)`` (numpy, memory-mapped or
    torch).  Raises ``InputError`` for other shapes, for NaN or infinity, for fewer than ``least``
    rows, and where all rows are the same.
    """
    values = x if isinstance(x, np.memmap) else as_array(x, f"{what}: the activations")
    if values.ndim == 4:
        values = values.reshape(-1, values.shape[-1])
    if values.ndim != 2 or values.shape[1] == 0:
        raise InputError(
            f"{what}: the activations have shape {values.shape}; give rows (n, channels) or maps "
            "(n, rows, columns, channels) of one site of one member."
        )
    if len(values) < least:
        raise InputError(f"{what}: {len(values)} row(s) were given; at least {least} are needed.")
    varies = False
    for block in blocks(values):
        if not np.isfinite(block).all():
            raise InputError(f"{what}: the activations hold NaN or infinity; drop those rows.")
        varies = varies or bool((block != values[0]).any())
    if not varies:
        raise InputError(f"{what}: all rows are the same; there is nothing to take apart.")
    return values


def encoding_rows(x: Any, d: int) -> tuple[Float32, tuple[int, ...]]:
    """Return ``x`` ``(..., d)`` as float32 rows ``(n, d)``, and its leading axes.

    Raises ``InputError`` for another width and for NaN or infinity.
    """
    values = as_array(x, "the activations")
    if values.ndim < 1 or values.shape[-1] != d:
        raise InputError(
            f"the activations have shape {values.shape} and the dictionary was fitted on {d} "
            "channels; read the same site of the same model."
        )
    flat = np.ascontiguousarray(values.reshape(-1, d), np.float32)
    if not np.isfinite(flat).all():
        raise InputError("the activations hold NaN or infinity; drop or mend those rows.")
    return flat, values.shape[:-1]


def blocks(x: NDArray[Any], size: int = CHUNK) -> Iterator[NDArray[Any]]:
    """Yield ``x`` in blocks of rows, in order."""
    for start in range(0, len(x), size):
        yield np.asarray(x[start : start + size])


def site_rows(reading: Any, site: str, position: str | None = None, member: int = 0) -> Float32:
    """Return the rows ``(n, d)`` of one member at one site of a `terrarium.Reading`.

    Positions (all, unless one is named), image rows and columns become rows; positions that an
    example does not have (NaN) are left out.  For maps hand ``reading.activations[site][member]``
    ``(n, rows, columns, d)`` to ``encode``: its leading axes stay.
    """
    if position is not None:
        values = reading.at(site, position)
    else:
        if site not in reading.activations:
            reading.at(site)  # raises, with a did-you-mean
        values = reading.activations[site]
    if not 0 <= member < len(values):
        raise InputError(f"The reading has {len(values)} member(s); there is no member {member}.")
    rows = np.asarray(values[member]).reshape(-1, values.shape[-1])
    kept: Float32 = rows[~np.isnan(rows).all(1)]
    return kept


def centre_and_size(
    x: NDArray[Any], median: bool, steps: int = 100
) -> tuple[NDArray[np.float64], float, float]:
    """Return the centre ``(d,)``, the mean norm of ``x - centre``, and its mean square.

    The centre is the mean, or the geometric median by Weiszfeld's algorithm (1937; the decoder's
    bias of Bricken et al. 2023).
    """
    centre = sum(b.sum(0, dtype=np.float64) for b in blocks(x)) / len(x)
    for _ in range(steps if median else 0):
        total, weight = np.zeros_like(centre), 0.0
        for block in blocks(x):
            closeness = 1 / np.maximum(np.linalg.norm(block - centre, axis=1), 1e-12)
            total += closeness @ block
            weight += float(closeness.sum())
        moved = float(np.linalg.norm(total / weight - centre))
        centre = total / weight
        if moved <= 1e-6 * (1e-12 + float(np.linalg.norm(centre))):
            break
    norms = squares = 0.0
    for block in blocks(x):
        square = np.square(block - centre).sum(1)
        norms += float(np.sqrt(square).sum())
        squares += float(square.sum())
    return np.asarray(centre), norms / len(x), squares / len(x)


def batches(
    x: NDArray[Any], batch: int, steps: int, rng: np.random.Generator, device: str = "cpu"
) -> Iterator[torch.Tensor]:
    """Yield ``steps`` batches of float32 rows on a device: epoch after epoch in a new order.

    Memory-mapped rows are read in runs of 256 that lie side by side, 64 runs at a time in random
    order and shuffled among each other, so that a disk is not asked for single rows.
    """
    left = np.empty(0, np.int64)
    moved = _moved(x, device)
    for _ in range(steps):
        while len(left) < batch:
            left = np.concatenate([left, _order(x, rng)])
        taken, left = left[:batch], left[batch:]
        if isinstance(x, np.memmap):
            taken = np.sort(taken)
        if moved is not None:
            yield moved[torch.from_numpy(taken).to(device)]
        else:
            yield torch.from_numpy(np.asarray(x[taken], np.float32)).to(device)


def _moved(x: NDArray[Any], device: str) -> torch.Tensor | None:
    """Return all rows as float32 on a GPU where they take a quarter of what is free there."""
    if device == "cpu" or isinstance(x, np.memmap):
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return torch.from_numpy(np.asarray(x, np.float32)).to(device) if 16 * x.size <= free else None


def _order(x: NDArray[Any], rng: np.random.Generator) -> NDArray[np.int64]:
    n, run, together = len(x), 256, 64
    if not isinstance(x, np.memmap):
        return rng.permutation(n)
    runs = rng.permutation(-(-n // run))
    mixed = []
    for start in range(0, len(runs), together):
        chosen = runs[start : start + together, None] * run + np.arange(run)
        rows = chosen.ravel()
        mixed.append(rng.permutation(rows[rows < n]))
    return np.concatenate(mixed)
