"""Multiresolution hash grids (Müller et al. 2022, "Instant neural graphics primitives", section 3).

Every level is a grid over the unit cube whose vertices hold trainable features; a point gets the
linear interpolation of the features at its cell's corners, of all levels side by side.  A level
whose vertices fit into the table has an entry for each (dense), a finer one shares entries by the
paper's spatial hash.

What decides the speed on a CPU is the gradient of the table: a sum of many small rows at random
places.  Pairs of features are kept as complex numbers, so that gathering and scattering move one
number per corner.  For 8,192 points, 8 levels, 4 corners and 2 features on one core of a Zen 5,
forward and backward: 1.1 ms; ``embedding_bag`` 68 ms (it sorts), ``index_add_`` of rows 5 ms.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from terrarium.organisms.recipe_models import HashGrid

PRIMES = (1, 2654435761, 805459861, 3674653429, 2097192037, 1434869437, 2165219737)
"""Multipliers of the spatial hash: the paper's equation 4, and its authors' code beyond three."""


@dataclass(frozen=True)
class Levels:
    """Where each level's entries lie: cells a side, first entry and number of entries.

    The first ``dense`` levels have an entry for every vertex; ``entries`` is the sum.
    """

    cells: tuple[int, ...]
    starts: tuple[int, ...]
    sizes: tuple[int, ...]
    dense: int
    entries: int


@functools.cache
def levels_of(grid: HashGrid, inputs: int) -> Levels:
    """Return the levels of a grid over ``inputs`` coordinates, coarsest first."""
    growth = (grid.finest / grid.coarsest) ** (1 / max(1, grid.levels - 1))
    # the tolerance keeps rounding from making the last level one cell short
    cells = tuple(math.floor(grid.coarsest * growth**i + 1e-6) for i in range(grid.levels))
    sizes = tuple(min((side + 1) ** inputs, grid.table) for side in cells)
    starts = tuple(sum(sizes[:i]) for i in range(len(sizes)))
    dense = sum((side + 1) ** inputs <= grid.table for side in cells)
    return Levels(cells, starts, sizes, dense, sum(sizes))


def table_shape(grid: HashGrid, inputs: int) -> tuple[int, ...]:
    """Return the table's shape: ``(features / 2, entries, 2)``, or ``(1, entries, 1)``."""
    together = 1 if grid.features == 1 else 2
    return (grid.features // together, levels_of(grid, inputs).entries, together)


@torch.no_grad()
def corner_entries(cell: Tensor, levels: Levels) -> Tensor:
    """Return the entries of the corners ``(member, corner, level, n)`` of cells, int64.

    ``cell`` ``(d, member, level, n)`` int64 holds the lower corners.  Bit k of a corner's number,
    counted from the highest, says whether it is the upper one along coordinate k.
    """
    d, members, count, n = cell.shape
    found = cell.new_empty((members, 2**d, count, n))
    dense, hashed = slice(0, levels.dense), slice(levels.dense, count)
    if levels.dense:
        side = cell.new_tensor(levels.cells[dense]) + 1
        first = cell.new_tensor(levels.starts[dense])[:, None].expand(members, -1, n)
        jump = cell.new_zeros((1, levels.dense))
        stride = torch.ones_like(side)
        for k in range(d):
            first = first + cell[k, :, dense] * stride[:, None]
            jump = torch.stack([jump, jump + stride], dim=1).flatten(0, 1)
            stride = stride * side
        torch.add(first[:, None], jump[:, :, None], out=found[:, :, dense])
    if levels.dense < count:
        mixed = cell.new_zeros((members, 1, count - levels.dense, n))
        for k in range(d):
            low = cell[k, :, hashed] * PRIMES[k]
            both = torch.stack([low, low + PRIMES[k]], dim=1)
            mixed = (mixed[:, :, None] ^ both[:, None]).flatten(1, 2)
        mixed &= levels.sizes[-1] - 1
        start = cell.new_tensor(levels.starts[hashed])
        torch.add(mixed, start[:, None], out=found[:, :, hashed])
    return found


def corners(points: Tensor, levels: Levels) -> tuple[Tensor, Tensor]:
    """Return entries and weights ``(member, corner, level, n)`` of points in the unit cube.

    ``points`` is ``(member, n, d)``; what lies outside is moved to the nearest face.  Weights are
    those of linear interpolation and carry the gradient to the points.
    """
    along = points.movedim(-1, 0).contiguous().clamp(0, 1).unsqueeze(2)
    side = points.new_tensor(levels.cells)[:, None]
    scaled = along * side
    lower = torch.minimum(scaled.detach().floor(), side - 1)
    upward = scaled - lower
    weight = torch.ones_like(upward[0]).unsqueeze(1)
    for share in upward:
        both = torch.stack([1 - share, share], dim=1)
        weight = (weight[:, :, None] * both[:, None]).flatten(1, 2)
    return corner_entries(lower.to(torch.int64), levels), weight


class Interpolate(torch.autograd.Function):
    """Weighted sums of table entries over corners, with a gradient that gathers no rows."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, entries: Tensor, weights: Tensor) -> Tensor:
        """Return ``(member, n, level * features)``.

        ``table`` is ``(member, planes, entries, together)``; the others come from `corners`.
        """
        ctx.save_for_backward(table, entries, weights)
        summed = [
            torch.stack([(_gathered(plane, entry) * weight).sum(dim=0) for plane in _planes(own)])
            for own, entry, weight in zip(table, entries, weights, strict=True)
        ]
        out = torch.stack(summed).permute(0, 3, 2, 1)  # member, n, level, plane
        return _real(out.contiguous()).flatten(2)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, Tensor | None]:
        """Scatter the gradient into a table, and read off the weights' own."""
        table, entries, weights = ctx.saved_tensors
        members, planes, _, together = table.shape
        n, levels = entries.shape[3], entries.shape[2]
        above = gradients[0].reshape(members, n, levels, planes, together).contiguous()
        arrived = _complex(above).permute(0, 3, 2, 1).contiguous()  # member, plane, level, n
        into = torch.zeros_like(table, memory_format=torch.contiguous_format)
        if ctx.needs_input_grad[0]:
            for own, entry, weight, share in zip(into, entries, weights, arrived, strict=True):
                for plane, part in zip(_planes(own), share, strict=True):
                    add_at(plane, entry.reshape(-1), (weight * part).reshape(-1))
        of_weights = None
        if ctx.needs_input_grad[2]:
            of_weights = torch.stack(
                [
                    torch.stack(
                        [
                            _dot(_gathered(plane, entry), part)
                            for plane, part in zip(_planes(own), share, strict=True)
                        ]
                    ).sum(dim=0)
                    for own, entry, share in zip(table, entries, arrived, strict=True)
                ]
            )
        return (into if ctx.needs_input_grad[0] else None), None, of_weights


def add_at(plane: Tensor, entries: Tensor, values: Tensor, pairs: bool | None = None) -> None:
    """Add values ``(k,)`` to ``plane`` at ``entries``, in place; entries may repeat.

    ``pairs`` says whether as complex numbers, which is the fastest on a CPU; elsewhere, where
    PyTorch may not do so, as rows of two real ones.
    """
    if plane.device.type == "cpu" if pairs is None else pairs:
        plane.scatter_add_(0, entries, values)
    else:
        _real(plane).index_add_(0, entries, _real(values))


def _planes(table: Tensor) -> Sequence[Tensor]:
    """Return one member's table ``(planes, entries, together)`` as vectors, complex for pairs."""
    if table.shape[-1] == 2 and (table.storage_offset() % 2 or not table.is_contiguous()):
        table = table.clone(memory_format=torch.contiguous_format)  # pairs must lie on even places
    return list(_complex(table))


def _complex(pairs: Tensor) -> Tensor:
    return torch.view_as_complex(pairs) if pairs.shape[-1] == 2 else pairs.squeeze(-1)


def _real(values: Tensor) -> Tensor:
    return torch.view_as_real(values) if values.is_complex() else values.unsqueeze(-1)


def _gathered(plane: Tensor, entries: Tensor) -> Tensor:
    return plane.index_select(0, entries.reshape(-1)).view(entries.shape)


def _dot(one: Tensor, two: Tensor) -> Tensor:
    """Return the sum of products of the features, level by level and corner by corner."""
    return (one * two.conj()).real if one.is_complex() else one * two


def interpolate(table: Tensor, points: Tensor, grid: HashGrid) -> Tensor:
    """Return the encoding ``(member, n, level * features)`` of points in the unit cube.

    ``table`` is ``(member, *table_shape(grid, d))``, ``points`` ``(member, n, d)``; a channel is
    ``level * features + feature``.
    """
    entries, weights = corners(points, levels_of(grid, points.shape[-1]))
    encoded: Tensor = Interpolate.apply(table, entries, weights)  # type: ignore[no-untyped-call]
    return encoded
