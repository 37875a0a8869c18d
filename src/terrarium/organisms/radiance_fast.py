"""Volume rendering that asks a radiance field only where it matters.

The sum is that of the full quadrature (`terrarium.organisms.radiance_render.Uniform`), less terms
that are known to be small: samples in empty cells, samples behind what is opaque, and the colours
of samples that hardly count.  Mueller et al. 2022 (arXiv 2201.05989, appendix E) skip the first
two likewise, at training time.
"""

from __future__ import annotations

import torch
from torch import Tensor

from terrarium.errors import InputError
from terrarium.organisms.kernels import fast_float32, kept_memory
from terrarium.organisms.radiance import RadianceField
from terrarium.organisms.radiance_occupancy import BLOCK, CELLS, NEGLECTED, Occupancy
from terrarium.organisms.radiance_render import (
    RadiancePicture,
    RayCamera,
    Rays,
    Uniform,
    camera_rays,
    picture_of,
    psnr,
    render_rays,
    weights_of,
)
from terrarium.progress import Progress, Silent

BINS = 64
"""Stretches of a ray that are looked up as a whole, in blocks of the grid."""

OPAQUE = 1e-3
"""A ray ends where less than this of what lies behind is seen."""

COLOURLESS = 1e-5
"""The colour of a sample that contributes less is not computed."""

RAYS_AT_ONCE = 4096
POINTS_AT_ONCE = 1 << 15
WIDTHS = (8, 32)
"""Fewest and most samples of a ray that are asked before it is seen whether it goes on."""


class FastRenderer:
    """Pictures of one radiance field, with a grid of where it is empty.

    The grid is made where the first picture's rays pass, kept for the next ones, and made anew
    where the density has changed since (training, edits at a site).

    Parameters
    ----------
    field:
        A fleet of one.
    samples:
        Even samples per ray, of which most are skipped; a multiple of 64.
    net:
        The net that is rendered, by default the finest.

    Raises ``InputError`` for what is no radiance field, and for samples or nets that do not fit.
    """

    def __init__(self, field: RadianceField, samples: int = 1024, net: str | None = None) -> None:
        if not isinstance(field, RadianceField):
            raise InputError(
                f"A fast picture is of a radiance field and this is a {type(field).__name__}; give "
                "what load_radiance returns, or a grown field's network."
            )
        if samples < BINS or samples % BINS:
            raise InputError(f"A fast picture needs a multiple of {BINS} samples; got {samples}.")
        self.field, self.samples, self.net = field, samples, field.net(net)
        self._background = torch.tensor(field.spec.background, device=field.device)
        self._grid: Occupancy | None = None

    @torch.no_grad()
    def render(self, camera: RayCamera, progress: Progress | None = None) -> RadiancePicture:
        """Return a camera's picture."""
        shown = progress or Silent()
        flat, shape = camera_rays(self.field, camera)
        asked = [0, 0]
        with fast_float32(), kept_memory():
            before = self._grid.asked if self._grid is not None else 0
            grid = self.grid(Rays.of(flat))
            asked[0] = grid.asked - (before if grid.asked >= before else 0)
            shown.start("render", flat.shape[1], "rays")
            found = []
            for part in torch.split(flat, RAYS_AT_ONCE, dim=1):
                found.append(self._march(grid, Rays.of(part), asked))
                shown.advance("render", part.shape[1])
            shown.finish("render")
        seen = torch.cat(found)
        return picture_of(seen[:, :3], seen[:, 3], seen[:, 4], shape, (asked[0], asked[1]))

    @torch.no_grad()
    def agreement(self, camera: RayCamera, rays: int = 512) -> float:
        """Return the agreement with the full quadrature on pixels drawn at random, PSNR in dB."""
        flat, _ = camera_rays(self.field, camera)
        drawn = torch.Generator().manual_seed(0)
        some = flat[:, torch.randperm(flat.shape[1], generator=drawn)[:rays].to(flat.device)]
        name = next(n for n in self.field.nets if self.field.net(n) is self.net)
        with fast_float32():
            grid = self.grid(Rays.of(flat))
            fast = self._march(grid, Rays.of(some), [0, 0])[:, :3]
            parts = torch.split(some, max(1, POINTS_AT_ONCE // self.samples), dim=1)
            full = [
                render_rays(self.field, p, Uniform(self.samples), name).colour[0] for p in parts
            ]
        return psnr(fast, torch.cat(full))

    def grid(self, rays: Rays) -> Occupancy:
        """Return the grid, made or extended so that it covers all of the rays."""
        spec = self.field.spec
        ends = torch.cat([rays.origins + t * rays.directions for t in (spec.near, spec.far)], dim=1)
        low, high = ends[0].amin(dim=0), ends[0].amax(dim=0)
        grid = self._grid
        if grid is None or not grid.covers(low, high) or not grid.holds():
            if grid is not None:
                low, high = torch.minimum(low, grid.low), torch.maximum(high, grid.high)
            reach = (spec.far - spec.near) * float(rays.lengths.mean())
            longest = (spec.far - spec.near) * float(rays.lengths.max())
            # half a stretch of any ray must not pass a whole block
            cell = max(reach / CELLS, longest / (2 * BINS * BLOCK))
            grid = Occupancy(self.net, low, high, cell, NEGLECTED / longest)
        passed = torch.zeros(grid.known.numel(), dtype=torch.bool, device=low.device)
        middle = torch.arange(BINS, device=low.device) * (self.samples // BINS)
        middle = middle + (self.samples // BINS - 1) / 2
        for part in torch.split(torch.arange(rays.lengths.shape[1]), RAYS_AT_ONCE):
            ray = part.to(low.device).repeat_interleave(BINS)
            points = self._points(rays, ray, middle.repeat(len(part)))
            passed[grid.block_of(points)] = True
        grid.cover_blocks(passed)
        self._grid = grid
        return grid

    def candidates(self, grid: Occupancy, rays: Rays) -> tuple[Tensor, Tensor]:
        """Return ray and sample indices of all samples in occupied cells, in the rays' order."""
        n, each = rays.lengths.shape[1], self.samples // BINS
        device = rays.lengths.device
        middle = torch.arange(BINS, device=device) * each + (each - 1) / 2
        every = torch.arange(n, device=device).repeat_interleave(BINS)
        bins = grid.near.view(-1)[grid.block_of(self._points(rays, every, middle.repeat(n)))]
        ray, place = bins.view(n, BINS).nonzero().unbind(1)
        sample = (place[:, None] * each + torch.arange(each, device=device)).view(-1)
        ray = ray.repeat_interleave(each)
        kept = grid.cells.view(-1)[grid.cell_of(self._points(rays, ray, sample))]
        return ray[kept], sample[kept]

    def _points(self, rays: Rays, ray: Tensor, sample: Tensor) -> Tensor:
        """Return the points ``(k, 3)`` of samples of rays, ``(k,)`` each."""
        return rays.origins[0, ray] + self._at(sample)[:, None] * rays.directions[0, ray]

    def _at(self, sample: Tensor) -> Tensor:
        return self.field.spec.near + (sample + 0.5) * self._step

    @property
    def _step(self) -> float:
        return (self.field.spec.far - self.field.spec.near) / self.samples

    def _march(self, grid: Occupancy, rays: Rays, asked: list[int]) -> Tensor:
        """Return what rays see, ``(n, 5)``: colour, opacity, depth.  Front to back, in rounds."""
        ray, sample = self.candidates(grid, rays)
        n = rays.lengths.shape[1]
        seen, through = rays.origins.new_zeros(n, 5), rays.origins.new_ones(n)
        stop = torch.bincount(ray, minlength=n).cumsum(0)
        start = torch.cat([stop.new_zeros(1), stop[:-1]])
        alive = (start < stop).nonzero()[:, 0]
        while len(alive):
            width = min(max(POINTS_AT_ONCE // len(alive), WIDTHS[0]), WIDTHS[1])
            place = start[alive, None] + torch.arange(width, device=ray.device)
            valid = place < stop[alive, None]
            new, passed = self._round(rays, alive, valid, sample[place[valid]], through, asked)
            seen[alive] += new
            through[alive] *= passed
            start[alive] += width
            alive = alive[(through[alive] > OPAQUE) & (start[alive] < stop[alive])]
        seen[:, :3] += (1 - seen[:, 3:4]) * self._background
        seen[:, 4] = seen[:, 4] / seen[:, 3].clamp_min(1e-10) + self._at(through.new_zeros(1))
        return seen

    def _round(
        self,
        rays: Rays,
        alive: Tensor,
        valid: Tensor,
        sample: Tensor,
        through: Tensor,
        asked: list[int],
    ) -> tuple[Tensor, Tensor]:
        """Return what the next samples of the living rays add ``(alive, 5)`` and let through.

        ``valid`` ``(alive, width)`` says which of the places hold one of the k ``sample``s.
        """
        ray = alive[:, None].expand_as(valid)[valid]
        density, hidden = self.net.density(self._points(rays, ray, sample)[None])
        depth = density.new_zeros(valid.shape)
        depth[valid] = density[0] * (self._step * rays.lengths[0, ray])
        weights = weights_of(depth, torch.ones_like(depth)) * through[alive, None]
        weight = weights[valid]
        counts = weight > COLOURLESS
        colour = density.new_zeros(len(weight), 3)
        colour[counts] = self.net.colour(hidden[:, counts], rays.units[:, ray[counts]])[0]
        asked[0] += len(sample)
        asked[1] += int(counts.sum())
        each = torch.cat([colour, torch.ones_like(weight)[:, None], self._from(sample)], dim=1)
        place = torch.arange(len(alive), device=ray.device)[:, None].expand_as(valid)[valid]
        added = density.new_zeros(len(alive), 5).index_add_(0, place, weight[:, None] * each)
        return added, torch.exp(-depth.sum(dim=1))

    def _from(self, sample: Tensor) -> Tensor:
        """Return how far samples lie beyond the first place, ``(k, 1)``."""
        return (sample * self._step)[:, None]
