"""What each cell of `autoencoder` grows or loads, and measures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from terrarium.evidence.rows import Row, measured
from terrarium.instruments.effects import Effects, How, exact_effects
from terrarium.instruments.quantities import decibels
from terrarium.instruments.site_features import SiteFeatures, dictionary_features, units
from terrarium.organisms.build import build
from terrarium.organisms.grow import grow
from terrarium.organisms.recipe import Recipe
from terrarium.organisms.vision_folder import load_image_autoencoder
from terrarium.progress import Progress
from terrarium.randomness import generator
from terrarium.readings.hooks import capture
from terrarium.readings.read import read
from terrarium.store import Store
from terrarium.studies.autoencoder.alignment import (
    alignment,
    explained,
    random_directions,
    total_shares,
)
from terrarium.studies.autoencoder.arms import (
    ANY,
    AUTOENCODER,
    FEATURES,
    GROWN,
    LATENT,
    LOADED,
    MEAN,
    PCA,
    SINGLE,
    UNITS,
    UNTRAINED,
    VARYING,
)
from terrarium.studies.autoencoder.baselines import decibel, fit_patch_pca
from terrarium.studies.autoencoder.features import feature_pictures, last_maps, some
from terrarium.studies.autoencoder.pictures import added_pictures, kept_pictures
from terrarium.studies.site_dictionaries import Fit, activations, live
from terrarium.worlds.base import Batch
from terrarium.worlds.images.photographs import Photographs

DIRECTIONS = 200
"""Random directions of a code that alignment is compared with."""

FITTED = 2000
"""Training images that PCA is fitted to; of patches fewer are needed."""


DRAWS = 4
"""Directions in which maps vary, for each unit or feature; at most ``randoms``."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A network beside what it is compared with, and images that nobody was trained on."""

    network: Any
    untrained: Any
    world: Any
    latents: int
    patch: int
    parameters: int
    train: Batch = field(repr=False)
    test: Batch = field(repr=False)


def measure_cell(spec: Mapping[str, Any], store_home: str, progress: Progress) -> list[Row]:
    """Grow or load a network and measure it; pure in ``spec``."""
    arm, seed = str(spec["arm"]), int(spec["seed"])
    found = _loaded(spec) if arm == LOADED else _grown(spec, Store(store_home), progress)
    if isinstance(found, Row):
        return [found.with_factors(arm=arm, seed=seed)]
    key = (arm, seed)
    made = reconstructions(found)
    rows = [measured("parameters", found.parameters, unit="parameters", n=1)]
    rows += kept_rows(found.test.inputs, made)
    if arm in GROWN:
        rows += region_rows(found.world, found.test, made[AUTOENCODER])
        rows += factor_rows(found, int(spec["rows"]), *key)
    for site in spec["sites"]:
        rows += site_rows(found, spec, site, *key)
    if spec["pictures"]:
        rows += kept_pictures(found.test.inputs, made, AUTOENCODER)
    return [row.with_factors(arm=arm, seed=seed) for row in rows]


def site_rows(
    subject: Subject, spec: Mapping[str, Any], site: str, arm: str, seed: int
) -> list[Row]:
    """Return what single units of a site do, and features of the maps before the code."""
    network, shown = subject.network, subject.test.take(np.arange(int(spec["effect_rows"])))
    at = last_maps(network, shown.inputs) if (arm, site) == (LOADED, UNITS) else site
    if at is None:
        why = "no block of the encoder is wider than what leaves it"
        return [
            _ratio_row(None, 0, why, site=site, part=part, against=against)
            for part in (SINGLE, FEATURES)
            for against in (ANY, VARYING)
        ]
    if site == UNITS:
        rows = map_rows(subject, spec, at, shown.inputs, arm, seed)
        return [row.with_factors(at=at) if row.metric == "loss" else row for row in rows]
    effects = effects_at(network, shown.inputs, at, int(spec["randoms"]), arm, seed)
    rows = effect_rows(effects, site)
    if arm in GROWN:
        rows += effect_alignment_rows(effects, factors_of(subject.world, shown))
    if spec["pictures"]:
        rows += added_pictures(network, shown.inputs, site, -effects.mean[0])
    return rows


def map_rows(
    subject: Subject,
    spec: Mapping[str, Any],
    at: str,
    images: NDArray[np.float32],
    arm: str,
    seed: int,
) -> list[Row]:
    """Return what units and dictionary features of the maps at ``at`` do, and pictures of it."""
    network, most = subject.network, int(spec["most"])
    maps = activations(network, subject.train.inputs, at)
    fitted = Fit.of(spec).dictionary(maps, seed)
    seen = activations(network, images, at)
    active = live(fitted, seen) if fitted is not None else np.zeros(0, np.int64)
    rows = [measured("live", float(len(active)), unit="features", n=int(spec["features"]))]
    width, key = maps.shape[-1], (arm, seed)
    taken: dict[str, tuple[SiteFeatures, How]] = {
        SINGLE: (units(width, some(np.arange(width), most, "units", *key)), "mean")
    }
    if len(active):
        chosen = some(active, most, "features", *key)
        taken[FEATURES] = (dictionary_features(fitted, chosen), "zero")
    else:
        told = {"site": UNITS, "part": FEATURES}
        rows += [_ratio_row(None, 0, "no feature is active", against=against, **told)
                 for against in (ANY, VARYING)]  # fmt: skip
    for part, (features, how) in taken.items():
        randoms = int(spec["randoms"])
        effects = exact_effects(
            network,
            images,
            at,
            features,
            decibels(images),
            how=how,
            randoms=randoms,
            varying=min(randoms, DRAWS),
            key=key,
        )
        rows += effect_rows(effects, UNITS, part)
        if part == FEATURES and spec["pictures"]:
            rows += feature_pictures(network, at, fitted, effects, subject.test.inputs)
    return rows


def _grown(spec: Mapping[str, Any], store: Store, progress: Progress) -> Subject | Row:
    seed = int(spec["seed"])
    recipe = Recipe.model_validate(spec["recipe"])
    (organism,) = grow([(recipe, seed)], store, progress)
    if organism.status != "grown":
        why = f"{recipe.name} {organism.status}: {organism.reason}"
        return Row("", "", "cell", "", None, {}, None, 1, "failed", why)
    network, world = organism.network(), organism.world
    return Subject(
        network.eval(),
        build(organism.model, [("organism", seed)]).eval(),
        world,
        organism.model.latent,
        world.side,
        network.parameters_per_member,
        world.sample(FITTED, generator("pca", seed), "train"),
        world.sample(int(spec["rows"]), generator("reconstruct", seed), "test"),
    )


def _loaded(spec: Mapping[str, Any]) -> Subject:
    seed, rows = int(spec["seed"]), int(spec["rows"])
    network = load_image_autoencoder(spec["model"])
    world = Photographs.model_validate({**spec["world"], "channels": network.channels})
    return Subject(
        network,
        network.untrained(seed),
        world,
        network.latent_channels,
        network.stride,
        sum(p.numel() for p in network.parameters()),
        world.sample(2 * rows, generator("pca", seed), "train"),
        world.sample(rows, generator("reconstruct", seed), "test"),
    )


def reconstructions(subject: Subject) -> dict[str, NDArray[np.floating]]:
    """Return what each coder makes of the test images, ``(n, channels, rows, columns)``."""
    images, train = subject.test.inputs, subject.train.inputs
    pca = fit_patch_pca(train, subject.latents, subject.patch)
    return {
        AUTOENCODER: _run(subject.network, images),
        PCA: pca(images),
        MEAN: np.broadcast_to(train.mean(axis=0, dtype=np.float64), images.shape),
        UNTRAINED: _run(subject.untrained, images),
    }


@torch.no_grad()
def _run(network: Any, images: NDArray[np.float32]) -> NDArray[np.float32]:
    parts = [
        network(torch.from_numpy(images[at : at + 16])[None])[0].numpy()
        for at in range(0, len(images), 16)
    ]
    return np.concatenate(parts)


def kept_rows(images: NDArray[np.floating], made: Mapping[str, NDArray[np.floating]]) -> list[Row]:
    """Return each coder's mean squared error, the same in dB, and the network's shares.

    ``removed``: the share of a baseline's error that the autoencoder does not make.
    """
    n = len(images)
    error = {name: float(np.square(x - images).mean()) for name, x in made.items()}
    rows = []
    for name, value in error.items():
        rows.append(measured("error", value, unit="squared intensity", n=n, coder=name))
        rows.append(measured("reconstruction", decibel(value), unit="dB", n=n, coder=name))
        if name != AUTOENCODER:
            share = 1 - error[AUTOENCODER] / value if value > 0 else None
            why = "the baseline makes no error"
            rows.append(measured("removed", share, unit="proportion", n=n, reason=why, of=name))
    return rows


def region_rows(world: Any, batch: Batch, made: NDArray[np.floating]) -> list[Row]:
    """Return the mean squared error at outlines, inside shapes and on the ground.

    ``outline_ratio``: log10 of the error at outlines over that inside shapes (the ground is flat).
    """
    error = np.square(made - batch.inputs).mean(axis=1)
    maps = world.maps(batch)
    outline = np.asarray(maps["edge"], bool)
    inside = (np.asarray(maps["mask"]) > 0.5) & ~outline
    regions = {"outline": outline, "shape": inside, "ground": ~(outline | inside)}
    rows = []
    for name, mask in regions.items():
        value = float(error[mask].mean()) if mask.any() else None
        rows.append(
            measured("region_error", value, unit="squared intensity", n=len(batch), region=name)
        )
    at, within = (float(error[mask].mean()) for mask in (outline, inside))
    ratio = float(np.log10(at / within)) if min(at, within) > 0 else None
    rows.append(measured("outline_ratio", ratio, unit="log10 of the ratio", n=len(batch)))
    return rows


def factors_of(world: Any, batch: Batch) -> dict[str, NDArray[np.float64]]:
    """Return the factors that vary, as numbers."""
    return {name: np.asarray(batch.facts[name], np.float64) for name in world.varying}


def factor_rows(subject: Subject, n: int, *key: str | int) -> list[Row]:
    """Return how each latent, and random directions of the code, follow the known factors."""
    pairs = subject.world.counterfactuals(n, generator("counterfactuals", *key))
    codes = {pair.name: _codes(subject.network, pair.after) for pair in pairs}
    before = _codes(subject.network, pairs[0].before)
    shares = total_shares(before, codes)
    rows = [
        measured(
            "factor_share", float(shares[j, f]), unit="proportion", n=n,
            feature=f"latent {j}", factor=name,
        )
        for j in range(shares.shape[0])
        for f, name in enumerate(codes)
    ]  # fmt: skip
    vectors = random_directions({"before": before}, DIRECTIONS, generator("directions", *key))
    turned = total_shares(before @ vectors.T, {f: x @ vectors.T for f, x in codes.items()})
    for kind, found in (("latent", alignment(shares)), ("random", alignment(turned))):
        part = float(found.mean())
        rows.append(measured("alignment", part, unit="proportion", n=n, kind=kind))
    return rows


def _codes(network: Any, batch: Batch) -> NDArray[np.float64]:
    reading = read(network, batch, LATENT, None)
    return np.asarray(reading.activations[LATENT][0], np.float64)


def effects_at(
    network: Any, images: NDArray[np.float32], site: str, randoms: int, *key: str | int
) -> Effects:
    """Return what setting each unit of a site to its mean does to the PSNR, dB."""
    with torch.no_grad(), capture(network, site) as kept:
        network(torch.from_numpy(images[:1])[None])
    width = kept[site].shape[2]
    return exact_effects(
        network, images, site, units(width), decibels(images), how="mean", randoms=randoms, key=key
    )


def effect_rows(effects: Effects, site: str, part: str = SINGLE) -> list[Row]:
    """Return the dB that are lost without each unit (or feature), and in matched directions.

    ``effect_ratio``: log10 of the units' mean loss over the directions'.
    """
    n = effects.change.shape[2]
    own = -effects.mean[0]
    found = {ANY: -effects.random_mean[0].mean(axis=1)}
    if effects.varying.shape[2]:
        found[VARYING] = -effects.varying[0].mean(axis=(1, 2))
    told: dict[str, Any] = {"site": site, "part": part}
    rows = [
        measured("loss", float(value), unit="dB", n=n, feature=name, kind=kind, **told)
        for kind, values in (("unit" if part == SINGLE else "feature", own), *found.items())
        for name, value in zip(effects.names, values, strict=True)
    ]
    for against, values in found.items():
        means = float(own.mean()), float(values.mean())
        ratio = float(np.log10(means[0] / means[1])) if min(means) > 0 else None
        why = "a mean loss is not above 0"
        rows.append(_ratio_row(ratio, n, why, against=against, **told))
    return rows


def _ratio_row(value: float | None, n: int, why: str, **factors: Any) -> Row:
    unit = "log10 of the ratio"
    return measured("effect_ratio", value, unit=unit, n=n, reason=why, **factors)


def effect_alignment_rows(
    effects: Effects, factors: Mapping[str, NDArray[np.float64]]
) -> list[Row]:
    """Return how well one known factor predicts on which images a latent's removal hurts."""
    n = effects.change.shape[2]
    own = [explained(change, factors) for change in effects.change[0]]
    random = [explained(x, factors) for draws in effects.random[0] for x in draws]
    return [
        measured("effect_explained", float(np.mean(found)), unit="R²", n=n, kind=kind)
        for kind, found in (("latent", own), ("random", random))
    ]
