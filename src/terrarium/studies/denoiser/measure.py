"""What each cell of `denoiser` grows and measures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from terrarium.evidence.rows import Row, measured
from terrarium.organisms.build import build
from terrarium.organisms.diffusion_sampling import draw, network_denoiser, noise_levels
from terrarium.organisms.grow import Organism, grow
from terrarium.organisms.recipe import Recipe
from terrarium.progress import Progress
from terrarium.randomness import generator
from terrarium.store import Store
from terrarium.studies.denoiser.features import effect_rows, feature_rows
from terrarium.studies.denoiser.laws import (
    EXACT,
    GAUSSIANS,
    HIGHEST,
    LEVELS,
    LINEAR,
    LOWEST,
    NEAREST,
    SMALL,
    STANDARD,
    UNTRAINED,
    Float64,
    noisy_images,
)
from terrarium.studies.denoiser.pictures import DIFFERENCE, address
from terrarium.studies.site_dictionaries import Fit
from terrarium.worlds.images.judging import (
    chi_square,
    energy_distance,
    expected_total_variation,
    total_variation,
)
from terrarium.worlds.images.law import ImageLaw

Denoise = Callable[[Float64, float], Float64]

MEMORISED = 1 / 3
"""A sample is memorised if its nearest image is nearer than this share of the second nearest's."""

SHOWN = 6
"""Images in a line of a gallery."""

UNSEEN = (0.1, 0.2, 0.4)
"""Levels at which images that were not trained on are denoised."""


def measure_cell(spec: Mapping[str, Any], store_home: str, progress: Progress) -> list[Row]:
    """Grow a law's networks and measure them beside the baselines; pure in ``spec``."""
    store, seed, law_name = Store(store_home), int(spec["seed"]), str(spec["law"])
    recipes = {name: Recipe.model_validate(told) for name, told in spec["recipes"].items()}
    grown = {name: grow([(recipe, seed)], store, progress)[0] for name, recipe in recipes.items()}
    lost = [o for o in grown.values() if o.status != "grown"]
    if lost:
        return [_lost(organism).with_factors(law=law_name, seed=seed) for organism in lost]
    first = grown[STANDARD]
    law: ImageLaw = first.world.law("train")
    denoisers: dict[str, Denoise] = {
        name: network_denoiser(organism.network()) for name, organism in grown.items()
    }
    denoisers |= {
        UNTRAINED: network_denoiser(build(first.model, [("organism", seed)])),
        LINEAR: law.linear_denoiser,
        NEAREST: law.nearest_denoiser,
    }
    key = (law_name, seed)
    rows = [_card(name, organism) for name, organism in grown.items()]
    rows += regret_rows(denoisers, law, int(spec["rows"]), *key)
    drawn = draws(denoisers, first.world, law_name, int(spec["samples"]), *key)
    rows += sample_rows(drawn, law, *key)
    if spec["pictures"]:
        rows += _sample_pictures(drawn, law)
    if law_name != GAUSSIANS:
        rows += unseen_rows(denoisers[STANDARD], first.world, int(spec["rows"]), *key)
    if law_name == GAUSSIANS:
        n, network = int(spec["effect_rows"]), first.network().eval()
        rows += effect_rows(network, law, n, *key)
        rows += feature_rows(network, law, Fit.of(spec), n, bool(spec["pictures"]), *key)
    if spec["pictures"]:
        rows += _pictures(denoisers, law, *key)
    return [row.with_factors(law=law_name, seed=seed) for row in rows]


def _lost(organism: Organism) -> Row:
    why = f"{organism.recipe.name} {organism.status}: {organism.reason}"
    return Row("", "", "cell", "", None, {}, None, 1, "failed", why)


def _card(name: str, organism: Organism) -> Row:
    network = organism.network()
    return measured(
        "parameters", network.parameters_per_member, unit="parameters", n=1, denoiser=name
    )


def regret_rows(
    denoisers: Mapping[str, Denoise], law: ImageLaw, n: int, *key: str | int
) -> list[Row]:
    """Return each denoiser's regret to the exact one at each level, and over all levels in nats.

    ``regret``: mean squared difference per pixel.  ``regret_nats``: the regret of a whole image
    over sigma squared, integrated over ln(sigma) by trapezoids: how far the law that a denoiser
    would be exact for lies from the true one in these levels (Verdu 2010, theorem 1).
    ``least_error`` is the exact denoiser's own mean squared error, and ``undecided`` the share
    of ln(components) that its posterior's entropy has.
    """
    rows: list[Row] = []
    found: dict[str, list[float]] = {name: [] for name in denoisers}
    for sigma in LEVELS:
        clean, noisy = noisy_images(law, sigma, n, *key)
        exact = law.exact_denoiser(noisy, sigma)
        for name, denoise in denoisers.items():
            regret = float(np.square(denoise(noisy, sigma) - exact).mean())
            found[name].append(regret)
            told: dict[str, Any] = {"denoiser": name, "level": sigma}
            rows.append(measured("regret", regret, unit="squared intensity", n=n, **told))
        least = float(np.square(exact - clean).mean())
        rows.append(measured("least_error", least, unit="squared intensity", n=n, level=sigma))
        posterior = law.responsibilities(noisy, sigma)
        entropy = -(posterior * np.log(np.maximum(posterior, 1e-300))).sum(axis=1).mean()
        several = len(law.weights) > 1
        share = float(entropy / np.log(len(law.weights))) if several else 0.0
        rows.append(measured("undecided", share, unit="proportion", n=n, level=sigma))
    for name, regrets in found.items():
        total = in_nats(regrets, law.size)
        rows.append(measured("regret_nats", total, unit="nats", n=n, denoiser=name))
    linear = found[LINEAR]
    for name, regrets in found.items():
        for sigma, regret, bar in zip(LEVELS, regrets, linear, strict=True):
            ratio = float(np.log10(regret / bar)) if regret > 0 and bar > 0 else None
            told = {"denoiser": name, "level": sigma}
            rows.append(measured("regret_to_linear", ratio, unit="log10 of the ratio", n=n, **told))
    return rows


def in_nats(regrets: list[float], size: int) -> float:
    """Return regrets per pixel at `LEVELS`, of images of ``size`` numbers, integrated."""
    rate = size * np.array(regrets) / np.square(LEVELS)
    return float(np.trapezoid(rate, np.log(LEVELS)))


def draws(
    denoisers: Mapping[str, Denoise], world: Any, law_name: str, n: int, *key: str | int
) -> dict[str, Float64]:
    """Return samples drawn by networks, the linear filter and the exact denoiser; and true ones.

    All start from the same noise.  Finite sets also get the images of another set.
    """
    law: ImageLaw = world.law("train")
    levels = noise_levels(18, LOWEST, HIGHEST)
    again, _, _ = law.sample(n, generator("more true samples", *key))
    centre = float(law.mean.mean())
    drawn = {"true": again.reshape(-1, *law.shape)}
    names = [name for name in denoisers if name in (STANDARD, SMALL, LINEAR)]
    for name in names:
        drawn[name] = draw(denoisers[name], n, law.shape, key, levels, centre)
    drawn[EXACT] = draw(law.exact_denoiser, n, law.shape, key, levels, centre)
    if law_name != GAUSSIANS:
        unseen, _, _ = world.law("test").sample(n, generator("unseen", *key))
        drawn["unseen images"] = unseen.reshape(-1, *law.shape)
    return drawn


def sample_rows(drawn: Mapping[str, Float64], law: ImageLaw, *key: str | int) -> list[Row]:
    """Return what the law says of samples, by who drew them.

    ``memorised``: see `memorised`.  ``frequency_error``: total variation between the frequencies of
    the nearest components and the law's weights, less what chance gives.  ``frequency_p``:
    Pearson's test of the same.  ``energy_distance`` to true samples.  ``log_likelihood_gap``:
    mean log-density less that of true samples.
    """
    n = len(drawn["true"])
    true, _, _ = law.sample(n, generator("true samples", *key))
    rows = []
    chance = expected_total_variation(n, law.weights)
    for name, images in drawn.items():
        index = law.nearest(images)[0]
        told = {"sampler": name}
        values = {
            "memorised": (memorised(images, law), "proportion"),
            "frequency_error": (total_variation(index, law.weights) - chance, "proportion"),
            "energy_distance": (energy_distance(images, true), "intensity"),
        }
        if n >= 5 * len(law.weights):
            values["frequency_p"] = (chi_square(index, law.weights), "probability")
        if law.floor:
            expected = law.log_density(drawn["true"], 0.0).mean()
            gap = float(law.log_density(images, 0.0).mean() - expected) / law.size
            values["log_likelihood_gap"] = (gap, "nats per pixel")
        rows += [
            measured(metric, value, unit=unit, n=n, **told)
            for metric, (value, unit) in values.items()
        ]
    return rows


def memorised(images: Float64, law: ImageLaw) -> float:
    """Return the share of images whose nearest mean is much nearer than the second nearest.

    Yoon et al. 2023, "Diffusion probabilistic models generalize when they fail to memorize".
    """
    flat = np.asarray(images, np.float64).reshape(len(images), -1)
    far = np.stack([np.linalg.norm(flat - mean, axis=1) for mean in law.means], axis=1)
    two = np.partition(far, 1, axis=1)[:, :2]
    return float((two[:, 0] < MEMORISED * two[:, 1]).mean())


def unseen_rows(denoise: Denoise, world: Any, n: int, *key: str | int) -> list[Row]:
    """Return how images of the family that were not trained on are denoised.

    ``unseen_error``: mean squared error per pixel to the clean image, of the network, of the exact
    denoiser of the training set (which can only give mixtures of it), and of the exact
    denoiser of the unseen images' own set, which nothing can beat.
    """
    seen, own = world.law("train"), world.law("test")
    rows = []
    for sigma in UNSEEN:
        clean, noisy = noisy_images(own, sigma, n, "unseen", *key)
        given = {
            STANDARD: denoise(noisy, sigma),
            "exact for the training set": seen.exact_denoiser(noisy, sigma),
            "exact for the unseen set": own.exact_denoiser(noisy, sigma),
        }
        rows += [
            measured(
                "unseen_error", float(np.square(out - clean).mean()), unit="squared intensity",
                n=n, denoiser=name, level=sigma,
            )
            for name, out in given.items()
        ]  # fmt: skip
    return rows


def _pictures(denoisers: Mapping[str, Denoise], law: ImageLaw, *key: str | int) -> list[Row]:
    """Return noisy images beside what is best, what the network says, and the difference."""
    rows = []
    for sigma in (0.1, 0.2, 0.4, 0.8):
        clean, noisy = noisy_images(law, sigma, 1, "pictures", *key)
        exact = law.exact_denoiser(noisy, sigma)
        said = denoisers[STANDARD](noisy, sigma)
        shown = {
            "clean": clean,
            "noisy": noisy,
            EXACT: exact,
            STANDARD: said,
            DIFFERENCE: said - exact,
            LINEAR: denoisers[LINEAR](noisy, sigma),
        }
        rows += [
            measured(
                "picture", sigma, unit="intensity", n=1, gallery="denoised",
                line=f"sigma {sigma:g}", column=name,
                image=address(image[0], law, name == DIFFERENCE),
            )
            for name, image in shown.items()
        ]  # fmt: skip
    return rows


def _sample_pictures(drawn: Mapping[str, Float64], law: ImageLaw) -> list[Row]:
    """Return samples, each above its nearest image (a Gaussian's: the nearest mean)."""
    rows = []
    for name in (STANDARD, LINEAR, EXACT):
        images = drawn[name][:SHOWN]
        index, far = law.nearest(images)
        nearest = law.means[index].reshape(images.shape)
        for line, shown in ((f"drawn by {name}", images), ("nearest to it", nearest)):
            label = line if line != "nearest to it" else f"nearest to each ({name})"
            rows += [
                measured(
                    "picture", float(far[place]), unit="intensity", n=1, gallery="samples",
                    line=label, column=str(place + 1), image=address(image, law),
                )
                for place, image in enumerate(shown)
            ]  # fmt: skip
    return rows
