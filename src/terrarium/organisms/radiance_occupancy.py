"""Where a radiance field is empty: a grid of its density, made where rays pass and kept."""

from __future__ import annotations

import torch
from torch import Tensor

from terrarium.organisms.radiance import Net

CELLS = 128
"""Cells along a ray from near to far: the resolution at which emptiness is known."""

BLOCK = 4
"""Cells along the side of a block; whole blocks are looked up, and asked about, first."""

NEGLECTED = 1e-3
"""Largest optical depth of a ray all in cells that are called empty: a quarter of 1 / 255."""

PROBES = 2048
"""Points at which the density is asked again before a grid is trusted once more."""

POINTS_AT_ONCE = 1 << 15


class Occupancy:
    """Cells of a box, each empty or not, filled in where rays pass.

    A cell is occupied where the density at its middle, or at that of one of its 26 neighbours, is
    above ``threshold``.  This is a measurement and no proof: a speck smaller than a cell and alone
    can be missed.  `terrarium.organisms.radiance_fast.FastRenderer.agreement` measures what that
    comes to.

    Parameters
    ----------
    net:
        Whose density counts (a fleet of one).
    low, high:
        Corners of the box ``(3,)`` that holds everything that will be asked about.
    cell:
        Side of a cell, in the field's units of length.
    threshold:
        The density from which on a cell counts, per unit of length.
    """

    def __init__(self, net: Net, low: Tensor, high: Tensor, cell: float, threshold: float) -> None:
        self.net, self.cell, self.threshold = net, cell, threshold
        self.low, self.high = low, high
        side = cell * BLOCK
        # one block more on each side, so that neighbours are always inside
        self.origin = low - side
        counts = ((high - low) / side).ceil().long() + 2
        self.blocks = (int(counts[0]), int(counts[1]), int(counts[2]))
        cells = tuple(n * BLOCK for n in self.blocks)
        self.known = torch.zeros(self.blocks, dtype=torch.bool, device=low.device)
        self._dense = torch.zeros(cells, dtype=torch.bool, device=low.device)
        self.cells, self.near = self._dense, self.known
        self.asked = 0
        self._probes = (low.new_zeros(0, 3), low.new_zeros(0))

    def covers(self, low: Tensor, high: Tensor) -> bool:
        """Whether the box holds another one."""
        return bool((low >= self.low).all() and (high <= self.high).all())

    def block_of(self, points: Tensor) -> Tensor:
        """Return the flat index of the block of each point ``(..., 3)``."""
        return _flat(points, self.origin, self.cell * BLOCK, self.blocks)

    def cell_of(self, points: Tensor) -> Tensor:
        """Return the flat index of the cell of each point ``(..., 3)``."""
        return _flat(points, self.origin, self.cell, self.cells.shape)

    def cover_blocks(self, passed: Tensor) -> None:
        """Ask the density in the blocks around those passed, a bool per block, where unknown."""
        new = spread(passed.view(self.blocks)) & ~self.known
        if not bool(new.any()):
            return
        self.known = self.known | new
        # a first look at 8 points a block: where it and its neighbours have nothing, that is all
        first = self._asked(new, 2)
        seen = torch.zeros_like(self.known)
        seen[new] = (first > self.threshold).any(dim=1)
        seen |= self._blocks_of(self._dense)
        closer = spread(seen) & new
        within = self._asked(closer, BLOCK)
        index = closer.nonzero()[:, :, None] * BLOCK + _inside(BLOCK, index=True).to(new.device)
        where = index.transpose(1, 2).reshape(-1, 3).unbind(1)
        self._dense[where] = (within > self.threshold).reshape(-1)
        self.cells = spread(self._dense)
        self.near = spread(self._blocks_of(self.cells))
        self._take_probes()

    def holds(self) -> bool:
        """Whether the density at the grid's probes is what it was (weights and edits change it)."""
        points, before = self._probes
        if not len(points):
            return False
        now = self.density(points)
        return torch.allclose(now, before, rtol=1e-3, atol=self.threshold)

    def density(self, points: Tensor) -> Tensor:
        """Return densities ``(n,)`` at points ``(n, 3)``."""
        parts = [self.net.density(part[None])[0][0] for part in torch.split(points, POINTS_AT_ONCE)]
        self.asked += len(points)
        return torch.cat(parts)

    def _asked(self, blocks: Tensor, per_side: int) -> Tensor:
        """Return densities ``(k, per_side ** 3)`` at even points in the k chosen blocks."""
        side = self.cell * BLOCK
        within = (_inside(per_side).to(self.origin) + 0.5) * (side / per_side)
        corners = blocks.nonzero().to(self.origin) * side + self.origin
        points = (corners[:, :, None] + within).transpose(1, 2)
        if not len(points):
            return points.new_zeros(0, per_side**3)
        return self.density(points.reshape(-1, 3)).view(-1, per_side**3)

    def _blocks_of(self, cells: Tensor) -> Tensor:
        """Return whether each block holds a chosen cell."""
        x, y, z = self.blocks
        return cells.view(x, BLOCK, y, BLOCK, z, BLOCK).any(dim=5).any(dim=3).any(dim=1)

    def _take_probes(self) -> None:
        """Keep densities at the middles of some cells: half full ones, half anywhere known."""
        drawn = torch.Generator().manual_seed(0)
        points = []
        for pool, side in ((self._dense, self.cell), (self.known, self.cell * BLOCK)):
            found = pool.nonzero()
            if len(found):
                chosen = found[torch.randint(len(found), (PROBES // 2,), generator=drawn)]
                points.append(self.origin + (chosen + 0.5) * side)
        probes = torch.cat(points)
        self._probes = (probes, self.density(probes))


def spread(chosen: Tensor) -> Tensor:
    """Return the chosen cells of a grid ``(x, y, z)`` and their 26 neighbours."""
    for axis in range(3):
        wider = chosen.clone()
        n = chosen.shape[axis]
        wider.narrow(axis, 1, n - 1).logical_or_(chosen.narrow(axis, 0, n - 1))
        wider.narrow(axis, 0, n - 1).logical_or_(chosen.narrow(axis, 1, n - 1))
        chosen = wider
    return chosen


def _inside(per_side: int, index: bool = False) -> Tensor:
    """Return the ``(3, per_side ** 3)`` indices inside a block, as integers if ``index``."""
    steps = torch.arange(per_side)
    grid = torch.stack(torch.meshgrid(steps, steps, steps, indexing="ij")).view(3, -1)
    return grid if index else grid.float()


def _flat(points: Tensor, origin: Tensor, side: float, shape: tuple[int, ...]) -> Tensor:
    x, y, z = ((points - origin) * (1 / side)).to(torch.int32).unbind(-1)
    return (x * shape[1] + y) * shape[2] + z
