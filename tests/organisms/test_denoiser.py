"""Denoisers: scaling, members, resumption, and sampling against laws whose flow is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import kstest, norm

from terrarium.errors import InputError
from terrarium.organisms.build import build
from terrarium.organisms.denoising import noise
from terrarium.organisms.diffusion_sampling import draw, heun, network_denoiser, noise_levels
from terrarium.organisms.engine import Runner, run_phase
from terrarium.organisms.feed import own_turn
from terrarium.organisms.grow import find, grow
from terrarium.organisms.recipe import (
    AutoencoderModel,
    DenoiserModel,
    Denoising,
    Optimizer,
    Phase,
    Recipe,
    Source,
)
from terrarium.randomness import generator
from terrarium.readings.hooks import edit
from terrarium.readings.read import read
from terrarium.store import Store
from terrarium.worlds.images.judging import chi_square
from terrarium.worlds.images.law import ImageLaw
from terrarium.worlds.images.mixtures import ImageMixture

WORLD = ImageMixture(side=8, count=4)
MODEL = DenoiserModel(side=8, width=4, hidden=16, code=8, centre=0.3, sigma_data=0.1)
SOURCE = Source(world="image_mixture", options=WORLD.model_dump())


def phase(steps: int = 6, batch: int = 8, **objective) -> Phase:
    return Phase(
        name="denoise",
        sources=(SOURCE,),
        objective=Denoising(low=0.02, high=2.0, **objective),
        steps=steps,
        batch=batch,
        optimizer=Optimizer(lr=5e-3, warmup=5),
    )


def recipe(**changes) -> Recipe:
    return Recipe(name="denoiser", model=MODEL, phases=(phase(**changes),))


def noisy(n: int, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    clean = WORLD.sample(n, generator("clean"), "train").inputs.astype(np.float64)
    return clean, clean + sigma * generator("white").standard_normal(clean.shape)


def stirred(members: int = 1):
    """A fleet whose weights are all drawn, those that begin at 0 too."""
    network = build(MODEL, [("m", i) for i in range(members)])
    for m in range(members):
        rng = generator("stir", m)
        state = {
            name: torch.from_numpy(0.2 * rng.standard_normal(tensor.shape, dtype="float32"))
            for name, tensor in network.member_state(m).items()
        }
        network.load_member_state(m, state)
    return network.eval()


# The network


def test_untrained_it_is_the_best_denoiser_of_white_images():
    denoise = network_denoiser(build(MODEL, [("m", 0)]))
    for sigma in (0.01, 0.1, 3.0):
        _, y = noisy(5, sigma)
        shrunk = 0.3 + 0.1**2 / (0.1**2 + sigma**2) * (y - 0.3)
        assert denoise(y, sigma) == pytest.approx(shrunk, abs=1e-5)


def test_what_it_computes_inside_is_scaled_to_unit_variance():
    """Input and target of the inner network have variance 1 at every level, for data that fit."""
    rng = generator("unit")
    clean = 0.3 + 0.1 * rng.standard_normal((400, 1, 8, 8))
    network = build(MODEL, [("m", 0)])
    for sigma in (0.01, 0.1, 2.0):
        y = clean + sigma * rng.standard_normal(clean.shape)
        seen = {}
        handle = network.stem.register_forward_pre_hook(
            lambda module, given, seen=seen: seen.update(x=given[0])
        )
        skipped = network_denoiser(network)(y, sigma)  # the head is 0
        handle.remove()
        assert float(seen["x"].var()) == pytest.approx(1, rel=0.05)
        out = sigma * 0.1 / np.sqrt(sigma**2 + 0.1**2)
        assert ((clean - skipped) / out).var() == pytest.approx(1, rel=0.05)


def test_members_are_their_own_and_a_level_an_image_is_its_own():
    pair = stirred(2)
    _, y = noisy(6, 0.2)
    images = torch.from_numpy(y.astype(np.float32))[None].expand(2, -1, -1, -1, -1)
    levels = torch.linspace(0.05, 1.0, 6)
    with torch.no_grad():
        both = pair(images, levels)
        assert (both[0] - both[1]).abs().max() > 1e-3
        for m in range(2):
            alone = pair.select([m])
            torch.testing.assert_close(alone(images[:1], levels)[0], both[m])
            for i in range(6):
                one = alone(images[:1, i : i + 1], float(levels[i]))
                torch.testing.assert_close(one[0, 0], both[m, i], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(pair(images), pair(images, MODEL.level))
        moved = (pair(images, 0.05) - pair(images, 0.06)).abs().max()
        assert moved > 1e-5, "the network is told the level"


def test_levels_that_are_none_are_refused():
    network, images = stirred(), torch.zeros(1, 3, 1, 8, 8)
    for sigma in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="above 0"):
            network(images, sigma)
    with pytest.raises(InputError, match="one per image"):
        network(images, torch.ones(2))


@pytest.mark.parametrize(
    ("site", "axes"),
    [
        ("resid.post[1]", ("member", "n", "row", "column", "channel")),
        ("act[2]", ("member", "n", "channel")),
        ("code", ("member", "n", "channel")),
    ],
)
def test_sites_are_read_and_edited(site, axes):
    network = stirred()
    batch = WORLD.sample(5, generator("sites"))
    reading = read(network, batch, [site], None)
    assert reading.axes == axes
    images = torch.from_numpy(batch.inputs)[None]
    with torch.no_grad():
        before = network(images)
        with edit(network, site, lambda x: x):
            assert (network(images) == before).all()
        with edit(network, site, lambda x: x + 1):
            assert (network(images) - before).abs().max() > 1e-4


# The objective


def test_noise_is_drawn_by_key_and_follows_its_law():
    even = Denoising(low=0.02, high=2.0)
    levels, white = noise(even, (4000, 1, 4, 4), ("step", 0))
    assert kstest(np.log(levels / 0.02) / np.log(100), "uniform").pvalue > 0.001
    assert white.std() == pytest.approx(1, abs=0.02)
    again, _ = noise(even, (4000, 1, 4, 4), ("step", 0))
    assert (levels == again).all()
    assert (levels != noise(even, (4000, 1, 4, 4), ("step", 1))[0]).any()
    normal = Denoising(levels="log_normal", mean=-1.0, deviation=0.3)
    assert kstest(np.log(noise(normal, (4000, 1), ("a",))[0]), norm(-1.0, 0.3).cdf).pvalue > 0.001


def test_the_loss_is_the_weighted_squared_error():
    from terrarium.organisms.denoising import denoising_loss
    from terrarium.organisms.objectives import Step

    network, batch = stirred(), WORLD.sample(7, generator("loss"))
    images = torch.from_numpy(batch.inputs)[None]
    objective, key = Denoising(low=0.02, high=2.0), ("step", 3)
    step = Step([batch], images, images, [WORLD], [key])
    with torch.no_grad():
        loss = float(denoising_loss(objective, network, step)[0])
    levels, white = noise(objective, batch.inputs.shape, key)
    denoise, total = network_denoiser(network), 0.0
    for i, sigma in enumerate(levels.astype(np.float64)):
        given = batch.inputs[i : i + 1] + sigma * white[i : i + 1].astype(np.float64)
        error = np.square(denoise(given, sigma) - batch.inputs[i : i + 1]).mean()
        total += (sigma**2 + 0.1**2) / (sigma * 0.1) ** 2 * error / 7
    assert loss == pytest.approx(total, rel=1e-4)


def test_it_asks_for_a_denoiser():
    other = Recipe(name="no", model=AutoencoderModel(side=8), phases=(phase(),))
    with pytest.raises(InputError, match="trains 'denoiser', and the model is 'autoencoder'"):
        grow([(other, 0)], Store())


def runner(seed: int, steps: int = 6) -> Runner:
    return Runner(phase(steps), 0, seed, [own_turn(phase(steps), [WORLD])])


def test_a_fleet_of_one_equals_its_member(tmp_path):
    together = grow([(recipe(), 0), (recipe(), 1)], Store(tmp_path / "two"))
    for seed, one in enumerate(together):
        (alone,) = grow([(recipe(), seed)], Store(tmp_path / f"one{seed}"))
        a, b = one.network().member_state(0), alone.network().member_state(0)
        for name in a:
            torch.testing.assert_close(a[name], b[name], rtol=1e-4, atol=1e-6)


def test_an_interrupted_phase_goes_on_to_the_bit(monkeypatch):
    from terrarium.organisms import engine

    monkeypatch.setattr(engine, "CHECKPOINT_SECONDS", -1.0)
    kept = []
    whole = [runner(0), runner(1)]
    network = build(MODEL, [("m", 0), ("m", 1)])
    run_phase(network, whole, save=kept.append)
    again = [runner(0), runner(1)]
    run_phase(build(MODEL, [("m", 0), ("m", 1)]), again, resume=kept[2])
    for one, other in zip(whole, again, strict=True):
        for name, tensor in one.final.items():
            assert (tensor == other.final[name]).all(), name


def test_training_brings_it_nearer_to_the_exact_denoiser(tmp_path):
    store = Store(tmp_path)
    (organism,) = grow([(recipe(steps=250, batch=64), 0)], store)
    assert find(recipe(steps=250, batch=64), 0, store) is not None
    trained = network_denoiser(organism.network())
    untrained = network_denoiser(build(MODEL, [("organism", 0)]))
    for sigma in (0.1, 0.5, 1.5):
        _, y = noisy(200, sigma)
        exact = WORLD.exact_denoiser(y, sigma)
        before, after = (np.square(f(y, sigma) - exact).mean() for f in (untrained, trained))
        assert after < 0.5 * before


# Sampling


def test_levels_are_those_of_the_paper():
    """Karras et al. 2022, equation 5, worked out by hand for rho 7."""
    levels = noise_levels(5, 0.002, 80.0)
    by_hand = [(80 ** (1 / 7) + i / 4 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7 for i in range(5)]
    assert levels == pytest.approx([*by_hand, 0.0])
    with pytest.raises(InputError, match="2 steps or more"):
        noise_levels(1)


def test_the_flow_of_a_gaussian_is_solved_to_second_order():
    """For N(0, s^2) the flow is x(0) = x(T) s / sqrt(s^2 + T^2): errors fall as steps^-2."""
    s, start = 0.5, np.full((1, 1, 1, 1), 3.0)

    def denoise(x, sigma):
        return x * s**2 / (s**2 + sigma**2)

    wanted = 3.0 * s / np.hypot(s, 10.0)
    errors = []
    for steps in (20, 40, 80):
        levels = np.append(np.linspace(10, 0.02, steps), 0.0)
        errors.append(abs(float(heun(denoise, start, levels).item()) - wanted))
    assert errors[0] > 3 * errors[1] > 9 * errors[2]
    fine = heun(denoise, start, noise_levels(80, 0.01, 10.0))
    assert float(fine.item()) == pytest.approx(wanted, rel=1e-3)


def test_the_exact_denoiser_draws_from_its_law():
    law = ImageLaw(
        (1, 1, 2), np.array([0.2, 0.3, 0.5]), np.array([[0.1, 0.2], [0.8, 0.3], [0.5, 0.9]]),
        np.zeros((3, 2, 0)), np.zeros((3, 0)),
    )  # fmt: skip
    drawn = draw(law.exact_denoiser, 2000, law.shape, ("test",), noise_levels(40))
    index, far = law.nearest(drawn)
    assert (far < 0.01).all()
    assert chi_square(index, law.weights) > 0.001
    assert chi_square(index, np.full(3, 1 / 3)) < 1e-6
    again = draw(law.exact_denoiser, 2000, law.shape, ("test",), noise_levels(40))
    assert (drawn == again).all()


def test_rows_do_not_depend_on_how_they_are_taken_together():
    network = stirred()
    _, y = noisy(9, 0.2)
    whole, parts = (network_denoiser(network, rows=r)(y, 0.2) for r in (512, 2))
    assert whole == pytest.approx(parts, abs=1e-6)
    assert whole.dtype == np.float64
