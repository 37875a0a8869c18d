"""Planted features: unnamed ones are ranked as frobnoloids, named ones and noise are not.

Random networks, whose features are regular and nameless, yield none beyond the stated rate.
"""

from __future__ import annotations

import numpy as np
import pytest

from terrarium.errors import InputError
from terrarium.instruments.effects import exact_effects
from terrarium.instruments.frobnoloids.concepts import image_vocabulary
from terrarium.instruments.frobnoloids.decide import (
    Scores,
    Thresholds,
    calibrate,
    decision_p,
    frobnoloids,
    strength,
)
from terrarium.instruments.frobnoloids.importance import importance
from terrarium.instruments.frobnoloids.nameability import Nameability
from terrarium.instruments.frobnoloids.plants import SITE, plant, shapes
from terrarium.instruments.frobnoloids.scores import Score, benjamini_hochberg
from terrarium.instruments.frobnoloids.scoring import Scoring
from terrarium.instruments.frobnoloids.structure import Structure
from terrarium.instruments.frobnoloids.students import QuickStudent, Student
from terrarium.instruments.metrics import auroc, optional
from terrarium.instruments.quantities import squared_error
from terrarium.instruments.site_features import units
from terrarium.organisms.autoencoder import Autoencoder
from terrarium.organisms.recipe import AutoencoderModel
from terrarium.readings.read import read
from terrarium.worlds.base import Batch

SMALL = Scoring(points=1500, draws=5, student=Student(hidden=32), neighbour=QuickStudent(16))


def _planted(seed, role, n, side, count, scoring, held="curvature"):
    """Plants of a role of their own, on images of their own, and their scores."""
    images, known = shapes(n, side, key=(seed, role))
    vocabulary = image_vocabulary(frequencies=[(1.0, 0.0), (0.0, 2.0)])
    held_out = vocabulary.only(held).maps(images, known)
    concepts = vocabulary.without(held).maps(images, known)
    plants = plant(
        images, concepts, held_out, named=count, unnamed=count, noise=count, key=(seed, role)
    )
    return plants, scoring.of_plants(plants, images, concepts)


def _ranked(seed, n, side, count, scoring):
    """AUROC of planted frobnoloids against all else, and the frame, with thresholds of others."""
    own, scores = _planted(seed, "set", n, side, count, scoring)
    thresholds = calibrate(scores, own.kind != "noise", own.important, own.kind == "named")
    plants, tested = _planted(seed, "test", n, side, count, scoring)
    frame = frobnoloids(tested, thresholds, level=0.1)
    frame["kind"], frame["important"] = plants.kind, plants.important
    truth = (plants.kind == "unnamed") & plants.important
    return optional(auroc(frame["strength"].to_numpy(), truth)), frame, truth


def test_planted_unnamed_patterns_rank_as_frobnoloids_and_named_ones_do_not():
    area, frame, truth = _ranked(0, 16, 24, 8, SMALL)
    assert area >= 0.9
    named = frame[frame["kind"] == "named"]
    assert not named["frobnoloid"].any()
    assert named["nameability"].median() > 0.9
    assert (named["strength"] < 0).mean() >= 0.8
    assert frame["strength"][truth].median() > 0
    again = frame[frame["kind"] != "noise"]["matched dictionary"]
    assert again.min() > 0.8
    noise = frame[frame["kind"] == "noise"]
    assert noise["structure_p"].min() > 0.01
    for name in ("structure", "importance", "nameability"):
        assert (frame[f"{name}_low"] <= frame[name]).all()
        assert (frame[name] <= frame[f"{name}_high"]).all()


@pytest.mark.science
@pytest.mark.parametrize("seed", [10, 11, 12])
def test_planted_patterns_at_full_size(seed):
    area, frame, truth = _ranked(seed, 48, 32, 24, Scoring(points=8_000))
    assert area >= 0.9
    named = frame["kind"] == "named"
    assert optional(auroc(frame["strength"][named | truth].to_numpy(), truth[named | truth])) >= 0.9
    assert not frame["frobnoloid"][named].any()
    wrong = frame["frobnoloid"] & ~truth
    assert wrong.sum() <= 0.1 * max(1, frame["frobnoloid"].sum()) + 1
    assert frame["frobnoloid"][truth].mean() >= 0.3


IMAGES = shapes(12, 8, key=("random networks",))[0].astype(np.float32)


def _random_network(seed, width, randoms, how="zero"):
    """p-values of importance of a random network's units; their feature maps in 5 networks."""
    model = AutoencoderModel(side=8, width=width, latent=16, channels=3)
    fleet = Autoencoder(model, [("random", seed, member) for member in range(5)])
    one = fleet.select([0])
    effects = exact_effects(
        one,
        IMAGES,
        "encoder.out",
        units(width),
        squared_error(IMAGES),
        how=how,
        randoms=randoms,
        key=(seed,),
    )
    return fleet, importance(effects)


def test_units_of_a_random_network_matter_as_random_directions_do():
    p = np.concatenate([_random_network(seed, 48, 10)[1].p for seed in range(3)])
    for level in (0.05, 0.2, 0.5):
        assert np.mean(p <= level) <= level + 0.1
    discoveries = [(benjamini_hochberg(part) <= 0.1).any() for part in np.split(p, 3)]
    assert sum(discoveries) <= 1


def test_a_random_network_has_no_frobnoloids():
    # its maps of 4 by 4 have no neighbourhood, so that students and matches tell of structure
    fleet, weight = _random_network(0, 48, 10)
    batch = Batch(IMAGES, IMAGES, {})
    maps = read(fleet, batch, "encoder.out", None).activations["encoder.out"]
    maps = np.asarray(maps, np.float64)  # channels last
    small = IMAGES.reshape(12, 3, 4, 2, 4, 2).mean((3, 5))
    concepts = image_vocabulary(strides=(2,)).maps(small)
    model = AutoencoderModel(side=8, width=48, latent=16, channels=3)
    one = Autoencoder(model, [("random", 0, 0)])
    effects = exact_effects(
        one, IMAGES, "encoder.out", units(48), squared_error(IMAGES), randoms=10, key=(0,)
    )
    scores = SMALL.score(maps[0], IMAGES, concepts, {"network": list(maps[1:])}, effects)
    assert np.allclose(scores.importance.p, weight.p)
    # whatever the thresholds: these let through all that tests alone let through
    frame = frobnoloids(scores, Thresholds(0.0, 0.0, 0.9), level=0.1)
    assert not frame["frobnoloid"].any()
    live = frame["status"] == "scored"
    assert live.sum() > 20
    # random features are found in other random networks: what they lack is importance
    assert frame["matched network"][live].mean() > 0.3


@pytest.mark.science
def test_false_discoveries_in_random_networks_stay_under_the_level():
    level, repeats = 0.1, 60
    found = 0
    for seed in range(100, 100 + repeats):
        _, weight = _random_network(seed, 200, 16)
        found += bool((benjamini_hochberg(weight.p) <= level).any())
    # importance alone, before structure and names can only lower it; three standard errors
    assert found / repeats <= level + 3 * np.sqrt(level * (1 - level) / repeats)


def _scores(structure, weight, name, errors=0.02):
    k = len(structure)
    null = np.tile(np.linspace(-0.02, 0.02, 9)[:, None], (1, k))

    def score(values, degrees=20):
        return Score(np.array(values, float), np.full(k, errors), degrees, null)

    naming = Nameability(score(name), np.array(name, float), ("c",) * k, (("c",),) * k)
    return Scores(
        Structure({"network": score(structure)}, {"teachable": score(structure)}),
        score(weight),
        naming,
    )


def test_all_three_must_hold():
    scores = _scores([0.9, 0.0, 0.9, 0.9, np.nan], [1, 1, 0.0, 1, 1], [0.1, 0.1, 0.1, 0.9, 0.1])
    frame = frobnoloids(scores, Thresholds(0.3, 5.0, 0.5), level=0.2)
    assert list(frame["frobnoloid"]) == [True, False, False, False, False]
    assert list(frame["status"]) == ["scored"] * 4 + ["constant"]
    assert frame["p"].iloc[-1] == 1.0
    assert np.isneginf(frame["strength"].iloc[-1])
    assert (frame["strength"].iloc[:4] > 0).tolist() == [True, False, False, False]
    # not certainly below the threshold is not below it
    unsure = _scores([0.9], [1], [0.45], errors=0.2)
    assert decision_p(unsure, Thresholds(0.3, 5.0, 0.5))[0] > 0.3


def test_thresholds_separate_the_plants():
    scores = _scores([0.9, 0.8, 0.1, 0.0], [3, 0, 2, 1], [0.9, 0.3, 0.5, 0.5])
    regular = np.array([True, True, False, False])
    important = np.array([True, False, True, False])
    found = calibrate(scores, regular, important, np.array([True, False, False, False]))
    assert found.structure == pytest.approx((0.8 + 0.1) / 2)
    assert found.nameability == pytest.approx(0.6)
    assert found.accuracy == (1.0, 1.0, 1.0)
    assert strength(scores, found)[1] < 0
    with pytest.raises(InputError, match="plants that are named"):
        calibrate(scores, regular, important, regular)
    with pytest.raises(InputError, match="no higher"):
        calibrate(scores, ~regular, important, regular)


def test_plants_are_what_they_say():
    images, known = shapes(6, 16, key=("says",))
    vocabulary = image_vocabulary()
    concepts = vocabulary.without("curvature").maps(images, known)
    held_out = vocabulary.only("curvature").maps(images, known)
    plants = plant(images, concepts, held_out, named=5, unnamed=4, noise=3)
    same = plant(images, concepts, held_out, named=5, unnamed=4, noise=3)
    other = plant(images, concepts, held_out, named=5, unnamed=4, noise=3, key=(1,))
    assert (plants.features == same.features).all()
    assert not np.allclose(plants.features, other.features)
    assert plants.features.shape == (6, 16, 16, 12)
    assert np.allclose(plants.features.std((0, 1, 2)), 1, atol=1e-6)
    network, x = plants.network(), plants.inputs()
    assert np.allclose(network(torch_of(x)).detach().numpy()[0], plants.outputs(), atol=1e-4)
    # removing a plant costs exactly its weight's square times its own
    effects = exact_effects(network, x, SITE, units(76, range(12)), squared_error(plants.outputs()))
    weight = (plants.readout[:, :12] ** 2).mean(0)
    assert np.allclose(effects.mean[0], weight * (x[:, :12] ** 2).mean((0, 2, 3)), rtol=1e-3)
    assert np.allclose(
        np.linalg.norm(plants.readout[:, :12], axis=0), np.where(plants.important, 1, 0.05)
    )
    correlation = np.corrcoef(plants.runs[0].reshape(-1, 12).T, plants.features.reshape(-1, 12).T)
    best = np.abs(correlation[12:, :12]).max(1)
    assert best[:9].min() > 0.9
    assert best[9:].max() < 0.5
    with pytest.raises(InputError, match="vocabulary"):
        plant(images, {}, held_out)


def torch_of(x):
    import torch

    return torch.from_numpy(x)[None]
