"""Exact denoisers against enumeration, sampling, scipy, Tweedie's formula and their limits."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import chisquare, multivariate_normal

from terrarium.errors import InputError
from terrarium.randomness import generator
from terrarium.worlds.check import check_world
from terrarium.worlds.images.judging import (
    chi_square,
    energy_distance,
    energy_p,
    expected_total_variation,
    total_variation,
)
from terrarium.worlds.images.law import ImageLaw
from terrarium.worlds.images.mixtures import ImageMixture

LEVELS = (0.05, 0.3, 1.0, 4.0)


def small(rank: int, floor: float, k: int = 3) -> ImageLaw:
    """A law on 1 x 2 x 3 images with uneven weights."""
    rng = np.random.default_rng(7)
    directions = np.zeros((k, 6, rank))
    for place in range(k if rank else 0):
        directions[place] = np.linalg.qr(rng.standard_normal((6, rank)))[0]
    weights = np.arange(1.0, k + 1)
    return ImageLaw(
        (1, 2, 3), weights / weights.sum(), rng.random((k, 6)), directions,
        rng.uniform(0.05, 0.6, (k, rank)), floor,
    )  # fmt: skip


LAWS = {
    "finite": small(0, 0.0),
    "gaussians": small(2, 0.04),
    "low rank": small(2, 0.0),
    "white": small(0, 0.04),
    "one": small(3, 0.01, 1),
}
each_law = pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)


def noisy(law: ImageLaw, sigma: float, n: int = 40) -> np.ndarray:
    rng = generator("noisy", str(sigma))
    clean, _, _ = law.sample(n, rng)
    return (clean + sigma * rng.standard_normal(clean.shape)).reshape(n, *law.shape)


def dense(law: ImageLaw) -> list[np.ndarray]:
    """Each component's covariance."""
    return [
        u @ np.diag(v) @ u.T + law.floor * np.eye(law.size)
        for u, v in zip(law.directions, law.variances, strict=True)
    ]


@each_law
@pytest.mark.parametrize("sigma", LEVELS)
def test_denoiser_and_density_are_those_of_dense_matrices(law, sigma):
    y = noisy(law, sigma)
    flat = y.reshape(len(y), -1)
    joint, means = [], []
    for weight, mean, cov in zip(law.weights, law.means, dense(law), strict=True):
        total = cov + sigma**2 * np.eye(law.size)
        joint.append(np.log(weight) + multivariate_normal(mean, total).logpdf(flat))
        means.append(mean + (flat - mean) @ np.linalg.solve(total, cov))
    evidence = logsumexp(joint, axis=0)
    posterior = np.exp(np.array(joint) - evidence)
    wanted = np.einsum("kn,knd->nd", posterior, np.array(means))
    found = law.exact_denoiser(y, sigma)
    assert found.dtype == np.float64
    assert found.reshape(len(y), -1) == pytest.approx(wanted, abs=1e-9)
    assert law.responsibilities(y, sigma) == pytest.approx(posterior.T, abs=1e-9)
    assert law.log_density(y, sigma) == pytest.approx(evidence, rel=1e-9, abs=1e-8)


@each_law
def test_denoiser_is_the_mean_of_clean_images_weighted_by_their_likelihood(law):
    clean, _, _ = law.sample(400_000, generator("prior"))
    y = noisy(law, 0.7, 4)
    for one, found in zip(y, law.exact_denoiser(y, 0.7), strict=True):
        weight = np.exp(-np.square(clean - one.ravel()).sum(axis=1) / (2 * 0.7**2))
        mean = weight @ clean / weight.sum()
        spread = np.sqrt(np.square(weight) @ np.square(clean - mean)) / weight.sum()
        assert (np.abs(mean - found.ravel()) < 5 * spread + 1e-12).all()


@each_law
@pytest.mark.parametrize("sigma", LEVELS)
def test_tweedies_formula_holds(law, sigma):
    """E[x | y] = y + sigma**2 * gradient of the log-density (Efron 2011), by differences."""
    y, step = noisy(law, sigma, 5), 1e-5 * sigma
    slope = np.zeros_like(y)
    for place in np.ndindex(*law.shape):
        moved = np.zeros(law.shape)
        moved[place] = step
        slope[(slice(None), *place)] = (
            law.log_density(y + moved, sigma) - law.log_density(y - moved, sigma)
        ) / (2 * step)
    assert law.exact_denoiser(y, sigma) == pytest.approx(y + sigma**2 * slope, abs=1e-5)


def test_without_noise_the_nearest_image_is_left_and_with_all_noise_the_mean():
    law = LAWS["finite"]
    y = noisy(law, 0.3)
    nearest = law.means[law.nearest(y)[0]].reshape(y.shape)
    for sigma in (0.0, 1e-200, 1e-12, 1e-3):
        assert (law.exact_denoiser(y, sigma) == nearest).all()
    mean = np.broadcast_to(law.mean.reshape(law.shape), y.shape)
    for sigma in (1e8, 1e150, np.inf):
        assert law.exact_denoiser(y, sigma) == pytest.approx(mean, abs=1e-7)
        assert law.linear_denoiser(y, sigma) == pytest.approx(mean, abs=1e-7)
    lost = np.full_like(y, np.inf)
    assert law.exact_denoiser(lost, np.inf) == pytest.approx(mean)


def test_without_noise_a_gaussian_keeps_what_it_is_given_and_a_plane_its_projection():
    y = noisy(LAWS["gaussians"], 0.3)
    assert LAWS["gaussians"].exact_denoiser(y, 0.0) == pytest.approx(y)
    law = LAWS["low rank"]
    found = law.exact_denoiser(y, 0.0)
    away = [
        (flat - m) - u @ (u.T @ (flat - m))
        for flat in y.reshape(len(y), -1)
        for m, u in zip(law.means, law.directions, strict=True)
    ]
    far = np.linalg.norm(away, axis=1).reshape(len(y), -1)
    moved = np.linalg.norm((found - y).reshape(len(y), -1), axis=1)
    assert moved == pytest.approx(far.min(axis=1))


def test_equal_distances_are_shared_as_the_prior():
    law = ImageLaw(
        (1, 1, 1), np.array([0.25, 0.75]), np.array([[-1.0], [1.0]]), np.zeros((2, 1, 0)),
        np.zeros((2, 0)),
    )  # fmt: skip
    y = np.zeros((1, 1, 1, 1))
    for sigma in (0.0, 0.1, 10.0, np.inf):
        assert law.exact_denoiser(y, sigma) == pytest.approx(np.full((1, 1, 1, 1), 0.5))


@each_law
def test_no_level_overflows(law):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for sigma in (0.0, 1e-300, 1e-20, 1e-6, 1.0, 1e6, 1e160, np.inf):
            y = noisy(law, min(sigma, 1e6), 4)
            for denoise in (law.exact_denoiser, law.linear_denoiser, law.nearest_denoiser):
                assert np.isfinite(denoise(y, sigma)).all()


@each_law
def test_nothing_denoises_better_and_a_level_a_row_is_each_rows_own(law):
    rng = generator("best")
    clean, _, _ = law.sample(4000, rng)
    levels = np.exp(rng.uniform(-3, 1, 4000))
    y = (clean + levels[:, None] * rng.standard_normal(clean.shape)).reshape(-1, *law.shape)
    exact = law.exact_denoiser(y, levels)
    assert exact[17:18] == pytest.approx(law.exact_denoiser(y[17:18], levels[17]))

    def squared(given: np.ndarray) -> np.ndarray:
        return np.square(given.reshape(4000, -1) - clean).sum(axis=1)

    others = {
        "linear": law.linear_denoiser(y, levels),
        "nearest": law.nearest_denoiser(y),
        "shifted": exact + 0.02,
        "shrunk": 0.98 * exact,
    }
    for name, other in others.items():
        worse = squared(other) - squared(exact)
        if name == "linear" and len(law.means) == 1:
            assert other == pytest.approx(exact)  # one Gaussian: the Wiener filter is exact
        else:
            assert worse.mean() > 2 * worse.std() / np.sqrt(4000), name


@each_law
def test_the_linear_filter_is_the_best_of_all_linear_ones(law):
    """The least-squares fit on very many draws comes to the same."""
    rng = generator("linear")
    clean, _, _ = law.sample(200_000, rng)
    y = clean + 0.4 * rng.standard_normal(clean.shape)
    design = np.concatenate([y, np.ones((len(y), 1))], axis=1)
    fitted, *_ = np.linalg.lstsq(design, clean, rcond=None)
    found = law.linear_denoiser(y[:50].reshape(-1, *law.shape), 0.4).reshape(50, -1)
    assert found == pytest.approx(design[:50] @ fitted, abs=0.02)


def test_products_and_differences_give_the_same_posterior(monkeypatch):
    """A large set, at levels on both sides of where matrix products take over."""
    law = ImageMixture(side=16, count=200).law("train")
    for sigma in (0.0101, 0.05, 1.0, 50.0):
        y = noisy(law, sigma, 20)
        fast = law.exact_denoiser(y, sigma), law.responsibilities(y, sigma)
        with monkeypatch.context() as changed:
            changed.setattr("terrarium.worlds.images.law._PRODUCTS", np.inf)
            slow = law.exact_denoiser(y, sigma), law.responsibilities(y, sigma)
        for one, two in zip(fast, slow, strict=True):
            assert one == pytest.approx(two, abs=1e-9)


def test_moments_are_those_of_samples():
    law = LAWS["gaussians"]
    drawn, component, coefficient = law.sample(200_000, generator("moments"))
    assert drawn.mean(axis=0) == pytest.approx(law.mean, abs=0.01)
    assert np.cov(drawn.T) == pytest.approx(law.covariance, abs=0.02)
    assert chi_square(component, law.weights) > 1e-3
    assert np.std(coefficient, axis=0) == pytest.approx([1, 1], abs=0.01)


def test_results_do_not_depend_on_how_rows_are_taken_together(monkeypatch):
    law = LAWS["gaussians"]
    y = noisy(law, 0.3)
    whole = law.exact_denoiser(y, 0.3)
    monkeypatch.setattr("terrarium.worlds.images.law._CHUNK_NUMBERS", 60)
    assert law.exact_denoiser(y, 0.3) == pytest.approx(whole, abs=1e-14)
    assert law.exact_denoiser(y[:0], 0.3).shape == (0, *law.shape)


def test_bad_input_is_refused_in_a_sentence():
    law = LAWS["finite"]
    y = noisy(law, 0.3)
    with pytest.raises(InputError, match="Images of shape"):
        law.exact_denoiser(y[0], 0.3)
    with pytest.raises(InputError, match="standard deviation"):
        law.exact_denoiser(y, -1.0)
    with pytest.raises(InputError, match="standard deviation"):
        law.exact_denoiser(y, np.nan)
    with pytest.raises(InputError, match="one per image"):
        law.exact_denoiser(y, np.ones(3))
    with pytest.raises(InputError, match="no density"):
        law.log_density(y, 0.0)


# The world

WORLDS = {
    "finite": ImageMixture(side=8, count=8),
    "uneven": ImageMixture(side=8, count=12, weights="zipf", channels=3),
    "gaussian": ImageMixture(kind="gaussian", side=8, count=4),
    "one low-rank": ImageMixture(kind="gaussian", side=8, count=1, floor=0.0, rank=3),
    "white": ImageMixture(kind="gaussian", side=8, count=3, rank=0),
}


@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
def test_the_contract_is_kept(world):
    assert check_world(world) == []


def test_images_of_a_set_are_its_images_and_sets_of_splits_are_apart():
    world = WORLDS["finite"]
    found = {}
    for split in ("train", "test"):
        batch = world.sample(200, generator("set"), split)
        index, far = world.law(split).nearest(batch.inputs)
        assert (index == batch.facts["component"]).all()
        assert far == pytest.approx(np.zeros(200))
        found[split] = {image.tobytes() for image in batch.inputs}
        assert len(found[split]) == 8
    assert not found["train"] & found["test"]
    other = ImageMixture(side=8, count=8, law_seed=1).law("train")
    assert (other.means != world.law("train").means).any()


def test_gaussian_images_are_made_from_their_facts():
    world = WORLDS["gaussian"]
    batch = world.sample(4000, generator("made"))
    law = world.law()
    names = [f"coefficient_{i}" for i in range(world.rank)]
    told = np.stack([batch.facts[name] for name in names], axis=1)
    smooth = law.compose(batch.facts["component"], told, np.zeros((4000, law.size)))
    left = batch.inputs.reshape(4000, -1) - smooth
    assert left.std() == pytest.approx(world.floor, rel=0.02)
    deviation = np.sqrt((np.square(law.directions) * law.variances[:, None]).sum(axis=2))
    assert deviation.max() == pytest.approx(world.spread)
    assert 0 < world.outside < 1e-4


def test_worlds_denoise_by_their_splits_law():
    world = WORLDS["finite"]
    batch = world.sample(20, generator("split"), "test")
    assert world.exact_denoiser(batch.inputs, 0.01, "test") == pytest.approx(batch.inputs)
    assert np.abs(world.exact_denoiser(batch.inputs, 0.01) - batch.inputs).max() > 0.1


def test_laws_that_leave_the_range_are_refused():
    with pytest.raises(InputError, match="would leave"):
        ImageMixture(kind="gaussian", spread=0.2)
    with pytest.raises(InputError, match="at least 2"):
        ImageMixture(count=1)
    with pytest.raises(InputError, match="above 0"):
        ImageMixture(kind="gaussian", rank=0, floor=0)


# Judging samples


def test_true_draws_pass_and_others_fail():
    law = WORLDS["gaussian"].law()
    one, a, _ = law.sample(300, generator("a"))
    two, b, _ = law.sample(300, generator("b"))
    assert chi_square(a, law.weights) > 0.001
    assert chi_square(np.where(b == 0, 1, b), law.weights) < 1e-6
    assert energy_p(one, two, "same") > 0.01
    assert energy_p(one, two + 0.02, "other") <= 0.01
    assert abs(energy_distance(one, two)) < energy_distance(one, two + 0.05) / 5


def test_pearsons_test_is_scipys():
    component, weights = np.array([0] * 9 + [1] * 20 + [2] * 31), np.array([0.2, 0.3, 0.5])
    wanted = chisquare([9, 20, 31], 60 * weights).pvalue
    assert chi_square(component, weights) == pytest.approx(wanted)


def test_energy_distance_is_its_definition():
    rng = np.random.default_rng(0)
    x, y = rng.random((5, 2)), rng.random((4, 2))

    def mean(a, b, same):
        far = [
            np.linalg.norm(p - q) for i, p in enumerate(a) for j, q in enumerate(b)
            if not (same and i == j)
        ]  # fmt: skip
        return np.mean(far)

    wanted = (2 * mean(x, y, False) - mean(x, x, True) - mean(y, y, True)) / np.sqrt(2)
    assert energy_distance(x, y) == pytest.approx(wanted)


def test_total_variation_of_chance():
    weights = np.full(8, 1 / 8)
    assert total_variation([0] * 10, weights) == pytest.approx(7 / 8)
    expected = expected_total_variation(400, weights)
    drawn = [
        total_variation(np.random.default_rng(i).integers(0, 8, 400), weights) for i in range(200)
    ]
    assert expected == pytest.approx(np.mean(drawn), rel=0.1)
