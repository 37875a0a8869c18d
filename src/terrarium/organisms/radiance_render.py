"""Volume rendering in full: every sample of every ray (Max 1995; Mildenhall et al. 2020, eq. 3).

A ray is ``o + t d`` for t from ``near`` to ``far``, in lengths of ``d``, which need not be 1: with
directions of depth 1 (cameras of the Blender data) t is depth, with unit directions it is distance.
Densities count per unit of length whatever ``d`` is, and the network is told the unit direction.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from terrarium.errors import InputError
from terrarium.organisms.kernels import fast_float32, kept_memory
from terrarium.organisms.radiance import Net, RadianceField
from terrarium.progress import Progress, Silent

POINTS_AT_ONCE = 1 << 15
"""Points that run through a network together: their hidden units stay in a processor's cache."""

BEYOND = 1e10
"""Length of the published sampling's last interval: what lies at ``far`` goes on without end."""


class RayCamera(Protocol):
    """What is needed of a camera, such as `terrarium.worlds.scenes.camera.Camera`."""

    def rays(self, unit: bool = True) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return origins and directions, ``(rows, columns, 3)`` each.

        With ``unit=False`` directions are 1 long along the axis of view, so that near and far are
        depths along it, as for published networks.
        """


@dataclass(frozen=True)
class Uniform:
    """The full quadrature: the midpoints of ``samples`` equal intervals from near to far."""

    samples: int = 1024


@dataclass(frozen=True)
class Hierarchical:
    """The published sampling: ``coarse`` even samples, and ``fine`` more where these have weight.

    The fine net is asked at both.  Nothing is drawn at random (Mildenhall et al. 2020, section
    5.2, with stratification off, as published networks are evaluated).
    """

    coarse: int = 64
    fine: int = 128


Sampling = Uniform | Hierarchical


@dataclass(frozen=True)
class Rays:
    """Rays of a fleet: ``origins`` and ``directions`` ``(member, n, 3)``; ``units`` have length 1.

    ``lengths`` ``(member, n)`` are those of the directions.
    """

    origins: Tensor
    directions: Tensor
    units: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, rays: Tensor) -> Rays:
        """Take ``(member, n, 6)`` apart; raises ``InputError`` for other shapes and bad rays."""
        if rays.dim() != 3 or rays.shape[-1] != 6:
            raise InputError(
                f"Rays are (member, n, 6), origin and direction; got {tuple(rays.shape)}."
            )
        origins, directions = rays[..., :3].float(), rays[..., 3:].float()
        lengths = torch.linalg.vector_norm(directions, dim=-1)
        if not bool(
            torch.isfinite(origins).all() & torch.isfinite(lengths).all() & (lengths > 0).all()
        ):
            raise InputError(
                "A ray is not finite or has no direction; give two finite vectors each."
            )
        return cls(origins, directions, directions / lengths[..., None], lengths)

    def points(self, at: Tensor) -> Tensor:
        """Return the points ``(member, n, s, 3)`` at ``at`` ``(member, n, s)``."""
        return self.origins[..., None, :] + at[..., None] * self.directions[..., None, :]


@dataclass(frozen=True)
class Rendered:
    """What rays see, ``(member, n, ...)``.

    ``colour`` ``(..., 3)`` with the background behind; ``opacity`` is 1 - transmittance;
    ``depth`` the mean of t under the weights (near where there are none); ``weights`` and ``at``
    ``(..., s)`` say how much each sample contributes.
    """

    colour: Tensor
    opacity: Tensor
    depth: Tensor
    weights: Tensor
    at: Tensor


@dataclass(frozen=True)
class RadiancePicture:
    """A rendered picture: ``colour`` ``(rows, columns, 3)`` float32 in ``[0, 1]``.

    ``opacity`` and ``depth`` (t along the camera's directions) are ``(rows, columns)``;
    ``asked`` says at how many points the density and the colour were computed.
    """

    colour: NDArray[np.float32]
    opacity: NDArray[np.float32]
    depth: NDArray[np.float32]
    asked: tuple[int, int]

    def __repr__(self) -> str:
        rows, columns, _ = self.colour.shape
        density, colour = self.asked
        asked = f"density at {density:,} points, colour at {colour:,}"
        return f"RadiancePicture({rows}x{columns}; {asked})"


def weights_of(density: Tensor, lengths: Tensor) -> Tensor:
    """Return how much each sample contributes: ``T_i (1 - exp(-density_i length_i))``.

    ``density`` and ``lengths`` are ``(..., s)``, the samples in the order in which the ray meets
    them; ``T_i`` is what the samples before i let through.  Weights sum to 1 - transmittance.
    """
    depth = density * lengths
    # not cumsum(depth) - depth: where one sample is dense, nothing would be left of the others
    before = F.pad(torch.cumsum(depth[..., :-1], dim=-1), (1, 0))
    # 1 - exp(-x) loses all digits of a thin sample; expm1 does not
    return torch.exp(-before) * -torch.expm1(-depth)


def composite(
    density: Tensor, colour: Tensor, lengths: Tensor, at: Tensor, background: Tensor
) -> Rendered:
    """Put samples ``(..., s)`` with their colours ``(..., s, 3)`` together (eq. 3)."""
    weights = weights_of(density, lengths)
    opacity = weights.sum(dim=-1)
    seen = (weights[..., None] * colour).sum(dim=-2) + (1 - opacity)[..., None] * background
    near = at[..., 0]
    depth = (weights * (at - near[..., None])).sum(dim=-1) / opacity.clamp_min(1e-10) + near
    return Rendered(seen, opacity, depth, weights, at)


def march(field: RadianceField, net: Net, rays: Rays, at: Tensor, lengths: Tensor) -> Rendered:
    """Ask the net at all samples ``(member, n, s)`` and put them together; differentiable."""
    members, n, samples = at.shape
    points = rays.points(at).view(members, -1, 3)
    units = rays.units[:, :, None].expand(-1, -1, samples, -1).reshape(members, -1, 3)
    density, colour = net(points, units)
    shape = (members, n, samples)
    background = colour.new_tensor(field.spec.background)
    return composite(density.view(shape), colour.view(*shape, 3), lengths, at, background)


def midpoints(rays: Rays, near: float, far: float, samples: int) -> tuple[Tensor, Tensor]:
    """Return the midpoints of equal intervals and their lengths, ``(member, n, samples)``."""
    step = (far - near) / samples
    at = near + step * (torch.arange(samples, device=rays.lengths.device) + 0.5)
    lengths = (step * rays.lengths)[..., None].expand(-1, -1, samples)
    return at.to(rays.lengths.dtype).expand_as(lengths), lengths


def intervals(rays: Rays, at: Tensor) -> Tensor:
    """Return the published lengths: to the next sample, and without end after the last."""
    gaps = at[..., 1:] - at[..., :-1]
    last = torch.full_like(gaps[..., :1], BEYOND)
    return torch.cat([gaps, last], dim=-1) * rays.lengths[..., None]


def importance(at: Tensor, weights: Tensor, uniforms: Tensor) -> Tensor:
    """Return samples ``(..., k)`` of the piecewise-constant law of the weights (section 5.2).

    Bins lie between the midpoints of ``at`` ``(..., s)``; the weights of the first and last
    sample do not count.  ``uniforms`` ``(..., k)`` in ``[0, 1]`` go through the inverse of the
    cumulated law.
    """
    bins = (at[..., 1:] + at[..., :-1]) / 2
    mass = weights[..., 1:-1] + 1e-5  # as published: a ray through nothing is sampled evenly
    law = torch.cumsum(mass / mass.sum(dim=-1, keepdim=True), dim=-1)
    law = torch.cat([torch.zeros_like(law[..., :1]), law], dim=-1)
    uniforms = uniforms.expand(*law.shape[:-1], -1).contiguous()
    above = torch.searchsorted(law, uniforms, right=True).clamp_max(law.shape[-1] - 1)
    below = (above - 1).clamp_min(0)
    low, high = law.gather(-1, below), law.gather(-1, above)
    span = torch.where(high - low < 1e-5, torch.ones_like(low), high - low)
    start, stop = bins.gather(-1, below), bins.gather(-1, above)
    return start + (uniforms - low) / span * (stop - start)


def march_hierarchical(field: RadianceField, rays: Rays, sampling: Hierarchical) -> Rendered:
    """Render as published: the coarse net says where the fine one is asked in addition."""
    spec = field.spec
    if not spec.coarse:
        raise InputError("The field has no coarse net; render it with Uniform sampling.")
    at = torch.linspace(spec.near, spec.far, sampling.coarse, device=rays.lengths.device)
    at = at.expand(*rays.lengths.shape, -1)
    first = march(field, field.net("coarse"), rays, at, intervals(rays, at))
    even = torch.linspace(0, 1, sampling.fine, device=at.device)
    more = importance(at, first.weights.detach(), even)
    both = torch.cat([at, more], dim=-1).sort(dim=-1).values
    return march(field, field.net("fine"), rays, both, intervals(rays, both))


def render_rays(
    field: RadianceField, rays: Tensor, sampling: Sampling | None = None, net: str | None = None
) -> Rendered:
    """Render rays ``(member, n, 6)`` all at once; differentiable, and memory grows with n.

    ``net`` is asked for `Uniform` sampling, by default the finest.
    """
    given = Rays.of(rays)
    chosen = sampling or Uniform()
    if isinstance(chosen, Hierarchical):
        return march_hierarchical(field, given, chosen)
    at, lengths = midpoints(given, field.spec.near, field.spec.far, chosen.samples)
    return march(field, field.net(net), given, at, lengths)


@torch.no_grad()
def render_radiance(
    field: RadianceField,
    camera: RayCamera,
    sampling: Sampling | None = None,
    *,
    net: str | None = None,
    progress: Progress | None = None,
) -> RadiancePicture:
    """Render a camera's picture in full; what `terrarium.organisms.radiance_fast` must agree with.

    By default 1,024 samples of the finest net per ray, none of them skipped.  Raises
    ``InputError`` for a fleet of more than one.
    """
    flat, shape = camera_rays(field, camera)
    chosen = sampling or Uniform()
    colour, opacity, depth = render_many(field, flat, chosen, net=net, progress=progress)
    points = flat.shape[1] * _samples(chosen)
    return picture_of(colour, opacity, depth, shape, (points, points))


@torch.no_grad()
def render_many(
    field: RadianceField,
    rays: Tensor,
    sampling: Sampling,
    *,
    net: str | None = None,
    progress: Progress | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return colours ``(n, 3)``, opacities and depths ``(n,)`` of rays ``(1, n, 6)``.

    What `render_rays` gives of a fleet of one, a few rays at once and without gradients.
    """
    shown = progress or Silent()
    shown.start("render", rays.shape[1], "rays")
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    with fast_float32(), kept_memory():
        for part in torch.split(rays, max(1, POINTS_AT_ONCE // _samples(sampling)), dim=1):
            seen = render_rays(field, part, sampling, net)
            found.append((seen.colour[0], seen.opacity[0], seen.depth[0]))
            shown.advance("render", part.shape[1])
    shown.finish("render")
    colour, opacity, depth = (torch.cat(part) for part in zip(*found, strict=True))
    return colour, opacity, depth


def _samples(sampling: Sampling) -> int:
    """Return how many samples a ray has."""
    if isinstance(sampling, Uniform):
        return sampling.samples
    return sampling.coarse + sampling.fine


def camera_rays(field: RadianceField, camera: RayCamera) -> tuple[Tensor, tuple[int, int]]:
    """Return a camera's rays ``(1, rows * columns, 6)`` and its shape; one member only."""
    if field.members != 1:
        raise InputError(
            f"A picture is of one field and this fleet has {field.members}; select one."
        )
    origins, directions = (np.asarray(part, np.float32) for part in camera.rays(unit=False))
    rows, columns = directions.shape[:2]
    both = np.concatenate([np.broadcast_to(origins, directions.shape), directions], axis=-1)
    return torch.from_numpy(both.reshape(1, -1, 6)).to(field.device), (rows, columns)


def picture_of(
    colour: Tensor, opacity: Tensor, depth: Tensor, shape: tuple[int, int], asked: tuple[int, int]
) -> RadiancePicture:
    """Return flat results ``(n, ...)`` as a picture of ``shape``."""
    parts = [part.cpu().numpy() for part in (colour, opacity, depth)]
    return RadiancePicture(
        parts[0].clip(0, 1).reshape(*shape, 3),
        parts[1].reshape(shape),
        parts[2].reshape(shape),
        asked,
    )


def psnr(one: Any, other: Any) -> float:
    """Return the peak signal-to-noise ratio of values in ``[0, 1]``, dB; infinite where equal."""
    a, b = (torch.as_tensor(part).double() for part in (one, other))
    error = float((a - b).square().mean())
    return -10 * math.log10(error) if error else math.inf
