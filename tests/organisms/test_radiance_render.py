"""Volume rendering against closed forms, a loop over one ray, and itself in full."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import erf

from terrarium.errors import InputError
from terrarium.organisms import radiance_fast
from terrarium.organisms.build import build
from terrarium.organisms.radiance import RadianceField
from terrarium.organisms.radiance_fast import FastRenderer
from terrarium.organisms.radiance_file import load_radiance
from terrarium.organisms.radiance_render import (
    Hierarchical,
    Rays,
    Uniform,
    composite,
    importance,
    psnr,
    render_radiance,
    render_rays,
    weights_of,
)
from terrarium.organisms.recipe import RadianceModel
from terrarium.readings.hooks import edit
from terrarium.worlds.scenes.camera import Camera, on_sphere

NEAR, FAR = 2.0, 6.0
SCENES = ("lego", "chair", "hotdog")


def camera(side: int = 20, azimuth: float = 0.7, radius: float = 4.0) -> Camera:
    return Camera(side, side, 0.6911, on_sphere(radius, azimuth, 0.5))


def rays_of(view: Camera, unit: bool = True) -> torch.Tensor:
    origins, directions = view.rays(unit=unit)
    both = np.concatenate([origins, directions], axis=-1).reshape(1, -1, 6)
    return torch.from_numpy(both.astype(np.float32))


class Analytic(RadianceField):
    """A field whose density and colour are formulas, in the place of its net's two functions."""

    def __init__(self, density, colour=lambda p, d: torch.full_like(p, 0.25), **changes):
        spec = RadianceModel(near=NEAR, far=FAR, background=(1.0, 0.5, 0.0))
        super().__init__(spec.model_copy(update=changes), [("seed", 0)])
        net = self.net()
        net.density = lambda points: (density(points), points)  # type: ignore[method-assign]
        net.colour = colour  # type: ignore[method-assign]


def slab(points: torch.Tensor) -> torch.Tensor:
    """Density 0.7 for -0.5 < z < 0.5."""
    return 0.7 * (points[..., 2].abs() < 0.5)


def blob(points: torch.Tensor) -> torch.Tensor:
    """A Gaussian of standard deviation 0.4 and density 3 at its middle."""
    return 3 * torch.exp(-points.square().sum(dim=-1) / (2 * 0.4**2))


def blob_transmittance(rays: torch.Tensor) -> np.ndarray:
    """The closed form: exp of minus the integral of the Gaussian from near to far."""
    o, d = rays[0, :, :3].double().numpy(), rays[0, :, 3:].double().numpy()
    length = np.linalg.norm(d, axis=1)
    d = d / length[:, None]
    middle = -(o * d).sum(axis=1)
    squared = (o * o).sum(axis=1) - middle**2
    a, b = NEAR * length, FAR * length
    s = 0.4 * math.sqrt(2)
    along = 0.4 * math.sqrt(math.pi / 2) * (erf((b - middle) / s) - erf((a - middle) / s))
    return np.exp(-3 * np.exp(-squared / s**2) * along)


# ------------------------------------------------------------------ closed forms


def test_a_slab_of_constant_density_lets_through_what_beer_and_lambert_say():
    down = torch.tensor([[[0.0, 0, 4, 0, 0, -1], [0, 0, 4, 0, 0, -2], [0, 0, 4, 0.6, 0, -0.8]]])
    field = Analytic(slab, near=0.0, far=8.0)
    seen = render_rays(field, down, Uniform(1024))
    through = torch.exp(-0.7 * torch.tensor([1.0, 1.0, 1 / 0.8]))
    torch.testing.assert_close(seen.opacity[0], 1 - through, atol=6e-3, rtol=0)
    background = torch.tensor([1.0, 0.5, 0.0])
    expected = 0.25 * (1 - through[:, None]) + through[:, None] * background
    torch.testing.assert_close(seen.colour[0], expected, atol=6e-3, rtol=0)
    # t counts in lengths of the direction: twice as long a one arrives in half of it
    torch.testing.assert_close(seen.depth[0, 0], 2 * seen.depth[0, 1], atol=0.01, rtol=0)
    # where an edge of a sample falls on the slab's faces the sum is exact
    exact = render_rays(field, down[:, :1], Uniform(16))
    torch.testing.assert_close(exact.opacity[0], 1 - through[:1], atol=1e-6, rtol=0)


@pytest.mark.parametrize("unit", [True, False])
def test_a_gaussian_blob_lets_through_its_closed_form(unit):
    rays = rays_of(camera(), unit)
    seen = render_rays(Analytic(blob), rays, Uniform(256))
    exact = blob_transmittance(rays)
    assert exact.min() < 0.1
    assert exact.max() > 0.999
    np.testing.assert_allclose(1 - seen.opacity[0].numpy(), exact, atol=2e-6)


def test_an_empty_field_shows_exactly_the_background():
    field = Analytic(lambda p: torch.zeros_like(p[..., 0]))
    background = np.broadcast_to(np.float32([1.0, 0.5, 0.0]), (8, 8, 3))
    for picture in (render_radiance(field, camera(8)), FastRenderer(field, 64).render(camera(8))):
        assert np.array_equal(picture.colour, background)
        assert not picture.opacity.any()


def test_weights_sum_to_what_is_not_let_through():
    drawn = torch.Generator().manual_seed(0)
    density = torch.rand(3, 5, 40, generator=drawn, dtype=torch.float64) * 4
    lengths = torch.rand(3, 5, 40, generator=drawn, dtype=torch.float64)
    weights = weights_of(density, lengths)
    through = torch.exp(-(density * lengths).sum(dim=-1))
    torch.testing.assert_close(weights.sum(dim=-1), 1 - through, atol=1e-12, rtol=0)
    assert bool((weights >= 0).all())


def test_thin_and_endless_samples_lose_no_digits():
    thin = weights_of(torch.full((1000,), 1e-9), torch.ones(1000))
    assert float(thin.double().sum()) == pytest.approx(1e-6, rel=1e-3)
    endless = weights_of(torch.tensor([0.5, 1.0, 0.2]), torch.tensor([0.1, 0.1, 1e10]))
    expected = [1 - math.exp(-0.05), math.exp(-0.05) * (1 - math.exp(-0.1)), math.exp(-0.15)]
    torch.testing.assert_close(endless, torch.tensor(expected), atol=1e-6, rtol=0)


def test_one_ray_equals_a_loop_written_from_the_paper():
    field = build(RadianceModel(widths=(16,), feature=8), [("seed", 4)])
    ray = torch.tensor([[[0.3, -0.2, 3.5, 0.1, 0.1, -1.2]]])
    with torch.no_grad():
        seen = render_rays(field, ray, Uniform(37))
    origin, direction = ray[0, 0, :3].double(), ray[0, 0, 3:].double()
    unit = direction / direction.norm()
    width = (FAR - NEAR) / 37
    through, colour, depth = 1.0, torch.zeros(3, dtype=torch.float64), 0.0
    for i in range(37):
        t = NEAR + (i + 0.5) * width
        point = (origin + t * direction).float()[None, None]
        with torch.no_grad():
            density, own = field.net()(point, unit.float()[None, None])
        alpha = 1 - math.exp(-float(density) * width * float(direction.norm()))
        colour += through * alpha * own[0, 0].double()
        depth += through * alpha * t
        through *= 1 - alpha
    colour += through * torch.tensor(field.spec.background, dtype=torch.float64)
    assert 0.01 < through < 0.999
    torch.testing.assert_close(seen.colour[0, 0].double(), colour, atol=1e-5, rtol=0)
    assert float(seen.opacity[0, 0]) == pytest.approx(1 - through, abs=1e-5)
    assert float(seen.depth[0, 0]) == pytest.approx(depth / (1 - through), abs=1e-4)


def test_gradients_of_the_sum_are_those_of_differences():
    drawn = torch.Generator().manual_seed(1)
    density = torch.rand(2, 6, generator=drawn, dtype=torch.float64).requires_grad_()
    colour = torch.rand(2, 6, 3, generator=drawn, dtype=torch.float64).requires_grad_()
    lengths = torch.rand(2, 6, generator=drawn, dtype=torch.float64)
    at = torch.cumsum(lengths, dim=-1) + 2
    background = torch.tensor([0.1, 0.9, 0.4], dtype=torch.float64)

    def seen(density, colour):
        out = composite(density, colour, lengths, at, background)
        return out.colour, out.opacity, out.depth

    assert torch.autograd.gradcheck(seen, (density, colour))


# ------------------------------------------------------------------ sampling


def test_uniform_samples_converge_at_second_order():
    rays = rays_of(camera(6))
    exact = blob_transmittance(rays)
    errors = [
        np.abs(1 - render_rays(Analytic(blob), rays, Uniform(n)).opacity[0].numpy() - exact).max()
        for n in (4, 8)
    ]
    assert errors[1] < errors[0] / 3


def test_importance_samples_follow_the_weights():
    at = torch.linspace(0, 1, 11)
    weights = torch.zeros(11)
    weights[4] = 3.0
    weights[7] = 1.0
    even = (torch.arange(4000) + 0.5) / 4000
    found = importance(at, weights, even)
    first = ((found > 0.35) & (found < 0.45)).float().mean()
    second = ((found > 0.65) & (found < 0.75)).float().mean()
    assert float(first) == pytest.approx(0.75, abs=0.01)
    assert float(second) == pytest.approx(0.25, abs=0.01)
    nothing = importance(at, torch.zeros(11), even)
    assert float(nothing.mean()) == pytest.approx(0.5, abs=0.01)
    assert bool((torch.diff(nothing) >= 0).all())


def test_the_published_sampling_finds_the_blob_too():
    field = Analytic(lambda p: blob(p) * (p.square().sum(dim=-1) < 1.8**2), coarse=True)
    field.nets["coarse"] = field.net("fine")
    rays = rays_of(camera(12))
    seen = render_rays(field, rays, Hierarchical(32, 64))
    assert seen.weights.shape == (1, 144, 96)
    assert bool((torch.diff(seen.at, dim=-1) >= 0).all())
    np.testing.assert_allclose(1 - seen.opacity[0].numpy(), blob_transmittance(rays), atol=0.03)


def test_what_cannot_be_rendered_gets_one_sentence():
    field = build(RadianceModel(), [("seed", 0), ("seed", 1)])
    with pytest.raises(InputError, match="this fleet has 2"):
        render_radiance(field, camera(4))
    alone = field.select([0])
    with pytest.raises(InputError, match="no coarse net"):
        render_radiance(alone, camera(4), Hierarchical())
    with pytest.raises(InputError, match=r"Rays are \(member, n, 6\)"):
        render_rays(alone, torch.zeros(1, 4, 3))
    with pytest.raises(InputError, match="has no direction"):
        Rays.of(torch.zeros(1, 4, 6))
    with pytest.raises(InputError, match="multiple of 64"):
        FastRenderer(alone, 100)
    with pytest.raises(InputError, match="no net 'coarse'"):
        FastRenderer(alone, 64, "coarse")
    with pytest.raises(InputError, match="of a radiance field and this is a Linear"):
        FastRenderer(torch.nn.Linear(2, 2))


# ------------------------------------------------------------------ fast


def ball(points: torch.Tensor) -> torch.Tensor:
    """Dense within 0.5 of the origin, and a thin haze within 0.2 of (0.8, 0, 0)."""
    haze = torch.tensor([0.8, 0.0, 0.0])
    near = (points - haze).square().sum(dim=-1) < 0.2**2
    return 60.0 * (points.square().sum(dim=-1) < 0.25) + 0.5 * near


def painted(points: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
    return (0.5 + 0.25 * points + 0.25 * directions).clamp(0, 1)


@pytest.mark.parametrize("density", [ball, blob], ids=["ball", "blob"])
def test_the_fast_picture_is_the_full_one(density):
    field = Analytic(density, painted)
    fast, full = FastRenderer(field, 256), None
    for view in (camera(40), camera(40, 2.5)):  # the second looks where the grid is not yet known
        picture = fast.render(view)
        full = render_radiance(field, view, Uniform(256))
        assert psnr(picture.colour, full.colour) > 50
        np.testing.assert_allclose(picture.opacity, full.opacity, atol=3e-3)
        hit = full.opacity > 0.5
        np.testing.assert_allclose(picture.depth[hit], full.depth[hit], atol=0.02)
        assert picture.asked[1] < full.asked[1] / (1 if density is blob else 20)
    assert fast.agreement(view) > 50


def test_batches_and_rounds_do_not_matter(monkeypatch):
    field = Analytic(ball, painted)
    one = FastRenderer(field, 128).render(camera(24))
    monkeypatch.setattr(radiance_fast, "RAYS_AT_ONCE", 97)
    monkeypatch.setattr(radiance_fast, "WIDTHS", (3, 5))
    two = FastRenderer(field, 128).render(camera(24))
    np.testing.assert_allclose(one.colour, two.colour, atol=2e-3)


def test_the_grid_is_kept_and_made_anew_where_the_field_has_changed():
    field = build(RadianceModel(widths=(16,)), [("seed", 1)])
    fast, view = FastRenderer(field, 64), replace(camera(12), fov_rad=0.1)
    first = fast.render(view)
    grid = fast._grid
    second = fast.render(view)
    assert fast._grid is grid
    assert np.array_equal(first.colour, second.colour)
    with edit(field, "fine.mlp.act[0]", lambda x: 1 - x):
        edited = fast.render(view)
        assert fast._grid is not grid
        assert psnr(edited.colour, render_radiance(field, view, Uniform(64)).colour) > 50
    assert psnr(edited.colour, first.colour) < 40
    again = fast.render(view)
    assert np.array_equal(again.colour, first.colour)


def test_cameras_far_apart_enlarge_the_grid():
    field = Analytic(ball, painted, far=12.0)
    fast = FastRenderer(field, 192)
    for view in (camera(24), camera(24, 4.0, 9.0)):
        assert (
            psnr(fast.render(view).colour, render_radiance(field, view, Uniform(192)).colour) > 50
        )


# ------------------------------------------------------------------ the published fields


@pytest.mark.parametrize("name", SCENES)
def test_published_fields_are_rendered_fast_as_in_full(shared_data, name):
    field = load_radiance(shared_data(f"nerf/{name}.ckpt"))
    view = replace(camera(12), fov_rad=0.3)
    fast = FastRenderer(field, 256)
    picture = fast.render(view)
    assert psnr(picture.colour, render_radiance(field, view, Uniform(256)).colour) > 45
    assert picture.opacity.mean() > 0.3
    assert picture.colour.std() > 0.1
    upside_down = replace(view, pose=view.pose @ np.diag([-1.0, -1.0, 1.0, 1.0]))
    turned = fast.render(upside_down).colour[::-1, ::-1]
    np.testing.assert_allclose(turned, picture.colour, atol=0.02)
