"""Training by volume rendering: the loss itself, and a field that learns a blob from its views."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import erf

from terrarium.errors import InputError
from terrarium.organisms.build import build
from terrarium.organisms.engine import Runner, run_phase
from terrarium.organisms.feed import own_turn
from terrarium.organisms.grow import grow
from terrarium.organisms.objectives import Step, losses
from terrarium.organisms.radiance_render import (
    Hierarchical,
    Rays,
    Uniform,
    march,
    psnr,
    render_rays,
)
from terrarium.organisms.recipe import (
    Optimizer,
    Phase,
    RadianceModel,
    Recipe,
    Rendering,
    Source,
)
from terrarium.organisms.rendering import refined, stratified
from terrarium.randomness import generator
from terrarium.store import Store
from terrarium.worlds.base import Batch
from terrarium.worlds.scenes.camera import Camera, on_sphere

SPREAD, DENSITY, COLOUR = 0.5, 2.0, np.array([0.1, 0.6, 0.8])
SMALL = RadianceModel(
    position={"frequencies": 3}, direction=None, widths=(32,), feature=None, direction_widths=()
)


class BlobViews:
    """Views of one Gaussian blob of one colour before white: what a ray sees has a closed form."""

    def sample(self, n, rng, split="train"):
        even = split == "test"  # cameras at elevations that training never sees
        elevation = rng.uniform(0.3, 0.5, n) if even else rng.choice([0.0, 0.8, 1.2], n)
        eyes = [
            on_sphere(4.0, a, e) for a, e in zip(rng.uniform(0, 6.28, n), elevation, strict=True)
        ]
        row, column = rng.integers(0, 16, n), rng.integers(0, 16, n)
        view = Camera(16, 16, 0.6911, np.eye(4))
        _, local = view.through(row, column)
        poses = np.stack(eyes)
        directions = np.einsum("nij,nj->ni", poses[:, :3, :3], local)
        rays = np.concatenate([poses[:, :3, 3], directions], axis=1)
        return Batch(rays.astype(np.float32), self.seen(rays).astype(np.float32), {})

    def seen(self, rays):
        o, d = rays[:, :3], rays[:, 3:]
        middle = -(o * d).sum(axis=1)
        squared = (o * o).sum(axis=1) - middle**2
        s = SPREAD * math.sqrt(2)
        along = SPREAD * math.sqrt(math.pi / 2) * (erf((6 - middle) / s) - erf((2 - middle) / s))
        through = np.exp(-DENSITY * np.exp(-squared / s**2) * along)[:, None]
        return through + (1 - through) * COLOUR


def phase(objective, steps=100, batch=128, **optimizer):
    source = Source(world="scenes", options={"quantity": "view"})
    return Phase(
        name="fit",
        sources=(source,),
        objective=objective,
        steps=steps,
        batch=batch,
        optimizer=Optimizer(**optimizer),
    )


def step_of(*batches, keys=None):
    inputs = torch.from_numpy(np.stack([b.inputs for b in batches]))
    targets = torch.from_numpy(np.stack([b.targets for b in batches]))
    return Step(batches, inputs, targets, [], keys or [("k", i) for i in range(len(batches))])


def drawn(n, *key):
    return BlobViews().sample(n, generator("blob", *key))


# ------------------------------------------------------------------ the loss


def test_the_loss_is_the_squared_error_of_the_picture():
    network = build(SMALL, [("seed", 0), ("seed", 1)])
    step = step_of(drawn(20, 0), drawn(20, 1))
    loss = losses(Rendering(samples=16, stratified=False), network, step)
    for member in (0, 1):
        alone = network.select([member])
        seen = render_rays(alone, step.inputs[member : member + 1], Uniform(16)).colour
        expected = (seen[0] - step.targets[member]).square().mean()
        torch.testing.assert_close(loss[member], expected, atol=1e-6, rtol=1e-5)


def test_the_losses_of_both_nets_add_up_and_the_fine_one_looks_where_the_coarse_finds():
    spec = SMALL.model_copy(update={"coarse": True})
    network = build(spec, [("seed", 0)])
    step = step_of(drawn(20, 0))
    even = losses(Rendering(samples=16, stratified=False), network, step)
    parts = [
        (render_rays(network, step.inputs, Uniform(16), net).colour - step.targets).square().mean()
        for net in ("coarse", "fine")
    ]
    torch.testing.assert_close(even[0], sum(parts), atol=1e-6, rtol=1e-5)
    objective = Rendering(samples=16, importance=64)
    rays = Rays.of(step.inputs)
    first = march(network, network.net("coarse"), rays, *stratified(network, rays, objective, step))
    at, lengths = refined(network, rays, objective, first, step)
    assert at.shape == (1, 20, 80)
    assert bool((torch.diff(at, dim=-1) >= 0).all())
    torch.testing.assert_close(lengths.sum(dim=-1), torch.full((1, 20), 4.0))
    # where the coarse net finds most, most of the fine samples are
    most = first.at.gather(-1, first.weights[..., 1:-1].argmax(dim=-1, keepdim=True) + 1)
    assert float(((at - most).abs() < 0.25).float().mean()) > 2 * 0.125
    more = losses(objective, network, step)
    fine = march(network, network.net("fine"), rays, at, lengths).colour
    expected = sum((seen - step.targets).square().mean() for seen in (first.colour, fine))
    torch.testing.assert_close(more[0], expected, atol=1e-6, rtol=1e-5)
    more.sum().backward()
    for net in ("coarse", "fine"):
        gradient = network.weights[f"{net}.trunk.0.weight"].grad
        assert gradient is not None
        assert float(gradient.abs().max()) > 0


def test_gradients_of_the_loss_are_those_of_differences():
    network = build(SMALL, [("seed", 2)])
    step = step_of(drawn(30, 2))
    objective = Rendering(samples=24)
    losses(objective, network, step).sum().backward()
    network.weights.collect_gradients()
    gradient = network.weights.gradients[0].clone()
    direction = torch.nn.functional.normalize(gradient, dim=0)
    values = network.weights.values
    with torch.no_grad():
        values += 1e-2 * direction
        above = float(losses(objective, network, step))
        values -= 2e-2 * direction
        below = float(losses(objective, network, step))
    assert (above - below) / 2e-2 == pytest.approx(float(gradient.norm()), rel=0.02)


def test_places_are_drawn_one_in_each_interval_by_each_members_key():
    network = build(SMALL, [("seed", 0), ("seed", 1)])
    step = step_of(drawn(9, 0), drawn(9, 0), keys=[("a", 1), ("b", 2)])
    rays = Rays.of(step.inputs)
    objective = Rendering(samples=8)
    at, lengths = stratified(network, rays, objective, step)
    edges = 2 + 0.5 * torch.arange(9)
    assert bool(((at >= edges[:-1]) & (at <= edges[1:])).all())
    assert not torch.equal(at[0], at[1])
    swapped = step_of(drawn(9, 0), drawn(9, 0), keys=[("b", 2), ("a", 1)])
    assert torch.equal(stratified(network, rays, objective, swapped)[0].flip(0), at)
    torch.testing.assert_close(lengths, torch.full_like(lengths, 0.5))


def test_drawn_places_measure_the_optical_depth_without_bias():
    network = build(SMALL, [("seed", 0)])
    ray = Batch(np.float32([[0, 0, 4, 0, 0, -1]] * 4000), np.zeros((4000, 3), np.float32), {})
    step = step_of(ray)
    at, lengths = stratified(network, Rays.of(step.inputs), Rendering(samples=6), step)
    density = DENSITY * torch.exp(-(4 - at).square() / (2 * SPREAD**2))
    depth = (density * lengths).sum(dim=-1)[0].double()
    s = SPREAD * math.sqrt(2)
    exact = DENSITY * SPREAD * math.sqrt(2 * math.pi) * erf(2 / s)
    error = float(depth.mean()) - exact
    assert abs(error) < 4 * float(depth.std()) / math.sqrt(4000)


def test_what_cannot_be_learnt_gets_one_sentence():
    network = build(SMALL, [("seed", 0)])
    with pytest.raises(InputError, match="need a coarse net"):
        losses(Rendering(importance=8), network, step_of(drawn(4, 0)))
    points = Batch(np.zeros((4, 3), np.float32), np.zeros((4, 1), np.float32), {})
    with pytest.raises(InputError, match="ask it for views"):
        losses(Rendering(), network, step_of(points))
    from terrarium.organisms.recipe import CoordinateModel

    other = build(CoordinateModel(inputs=6, outputs=3), [("seed", 0)])
    with pytest.raises(InputError, match="model of kind 'radiance'"):
        losses(Rendering(), other, step_of(drawn(4, 0)))


# ------------------------------------------------------------------ growing


def test_a_blob_is_learnt_from_its_views():
    network = build(SMALL, [("seed", 0)])
    fit = phase(Rendering(samples=24), 400, 128, lr=1e-2, warmup=5, schedule="cosine", final=0.02)
    world = BlobViews()
    test = world.sample(1000, generator("held out"), "test")
    rays = torch.from_numpy(test.inputs)[None]

    def decibels():
        with torch.no_grad():
            return psnr(render_rays(network, rays, Uniform(96)).colour[0].clip(0, 1), test.targets)

    before = decibels()
    runner = Runner(fit, 0, 0, [own_turn(fit, [world])])
    run_phase(network, [runner])
    assert runner.status == "grown"
    assert before < 15
    assert decibels() > 30
    # it has found the density and not pictures alone: tomography of what light passes through
    axis = torch.tensor([[[0.0, 0, 0], [0, 1.4, 0], [0, 0, 1.5]]])
    with torch.no_grad():
        middle, *rim = network.net().density(axis)[0][0].tolist()
    assert middle == pytest.approx(DENSITY, rel=0.35)
    assert max(rim) < 0.3


def test_a_fleet_of_one_equals_a_member_of_a_larger_one(tmp_path):
    model = SMALL.model_copy(update={"coarse": True})
    fit = phase(Rendering(samples=8, importance=8), 4, 16)
    recipe = Recipe(name="views", model=model, phases=(fit,))
    together = grow([(recipe, 0), (recipe, 1)], Store(tmp_path / "two"))
    for seed, member in enumerate(together):
        (alone,) = grow([(recipe, seed)], Store(tmp_path / f"one{seed}"))
        a, b = member.network().member_state(0), alone.network().member_state(0)
        first = build(model, [("organism", seed)]).member_state(0)
        for name in a:
            torch.testing.assert_close(a[name], b[name], rtol=1e-4, atol=1e-6)
        assert any(not torch.equal(a[name], first[name]) for name in a)
    rays = torch.from_numpy(drawn(5, 0).inputs)[None]
    with torch.no_grad():
        seen = render_rays(together[0].network(), rays, Hierarchical(8, 8))
    assert bool(torch.isfinite(seen.colour).all())
