"""Concepts against their closed forms: gradients, curvature of discs, waves, grids, labels."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from terrarium.errors import InputError
from terrarium.instruments.frobnoloids import filters
from terrarium.instruments.frobnoloids.concepts import (
    image_vocabulary,
    point_concepts,
    text_concepts,
)
from terrarium.worlds.base import Batch

RNG = np.random.default_rng(4)
IMAGES = RNG.uniform(size=(3, 3, 24, 20))
Y, X = np.mgrid[:24, :20].astype(float)
DISC = np.broadcast_to(np.hypot(Y - 11, X - 9) - 5, (3, 24, 20))


def test_all_concepts_have_one_value_or_row_for_each_pixel():
    vocabulary = image_vocabulary(frequencies=[(1, 0), (2, 3)], known=("depth",))
    maps = vocabulary.maps(IMAGES, {"distance": DISC, "depth": DISC * 2, "mask": DISC < 0})
    assert set(maps) == set(vocabulary.concepts)
    for name, values in maps.items():
        assert values.shape[:3] == (3, 24, 20), name
        assert np.isfinite(values).all(), name
    families = set(vocabulary.family.values())
    assert {
        "coordinates",
        "polynomial",
        "border",
        "grid",
        "colour",
        "opponent",
        "luminance",
        "edges",
        "gabor",
        "local",
        "harmonics",
        "beats",
        "distance",
        "normals",
        "curvature",
        "mask",
        "distance to mask",
        "depth",
    } == families
    assert "distance" not in vocabulary.maps(IMAGES)


def test_whole_concepts_are_held_out():
    vocabulary = image_vocabulary()
    less = vocabulary.without("curvature", "gabor", "x")
    assert not [c for c in less.concepts if c.startswith("gabor") or c in ("x", "curvature")]
    assert "y" in less.concepts
    assert set(vocabulary.only("curvature", "edges").family.values()) == {"curvature", "edges"}
    with pytest.raises(InputError, match="curvature"):
        vocabulary.without("curvatur")
    more = less.joined({"twice": lambda images, _: 2 * images[:, 0]}, "mine")
    assert np.allclose(more.maps(IMAGES)["twice"], 2 * IMAGES[:, 0])


def test_a_disc_has_radial_normals_and_the_curvature_of_its_circles():
    maps = image_vocabulary().maps(IMAGES, {"distance": DISC})
    radius = np.hypot(Y - 11, X - 9)
    ring = (radius > 4) & (radius < 8)
    assert np.allclose(maps["curvature"][0][ring], 1 / radius[ring], rtol=0.1)
    assert np.allclose(maps["normals"][0][ring][:, 0], (X - 9)[ring] / radius[ring], atol=0.05)
    mask = image_vocabulary().maps(IMAGES, {"mask": DISC < 0})["distance to mask"]
    assert np.abs(mask - DISC).max() < 1.5
    all_in = image_vocabulary().maps(IMAGES, {"mask": np.ones_like(DISC)})["distance to mask"]
    assert np.isfinite(all_in).all()


def test_edges_and_local_statistics_are_scipys():
    maps = image_vocabulary(scales=(1.0,)).maps(IMAGES)
    light = 0.2126 * IMAGES[:, 0] + 0.7152 * IMAGES[:, 1] + 0.0722 * IMAGES[:, 2]
    one = ndimage.gaussian_filter(light[1], 1.0, mode="nearest")
    assert np.allclose(maps["edge x at 1"][1], ndimage.sobel(one, 1, mode="nearest"))
    assert np.allclose(maps["local mean at 1"][1], one)
    square = ndimage.gaussian_filter(light[1] ** 2, 1.0, mode="nearest")
    assert np.allclose(maps["local variance at 1"][1], square - one**2)


def test_gabor_energy_is_largest_at_its_own_orientation_and_wavelength():
    angle = np.pi / 4
    wave = np.cos(2 * np.pi * (X * np.cos(angle) + Y * np.sin(angle)) / 6)
    images = np.broadcast_to(0.5 + 0.4 * wave, (1, 3, 24, 20))
    maps = image_vocabulary().maps(images)
    energy = {n: m[0, 8:16, 7:13].mean() for n, m in maps.items() if n.startswith("gabor energy")}
    assert max(energy, key=lambda name: energy[name]) == "gabor energy 6 px 45°"
    even, _ = filters.gabor_kernels(6.0, 0.3)
    assert even.sum() == pytest.approx(0, abs=1e-12)
    picture = RNG.normal(size=(1, 12, 12))
    kernel = RNG.normal(size=(3, 5))
    judge = ndimage.correlate(picture[0], kernel, mode="reflect")
    assert np.allclose(filters.filtered(picture, kernel)[0], judge)


def test_grids_borders_waves():
    maps = image_vocabulary(strides=(4,), frequencies=[(1.0, 0.0), (0.0, 2.0)]).maps(IMAGES)
    assert (maps["x mod 4"][0, 0] == np.arange(20) % 4).all()
    assert (maps["y mod 4"][0, :, 0] == np.arange(24) % 4).all()
    assert maps["distance to border"][0, 5, 2] == 2
    assert maps["padding 2"][0].sum() == 24 * 20 - 20 * 16
    u = np.linspace(-1, 1, 20)
    assert np.allclose(maps["harmonic 2 of (1, 0)"][0, 3, :, 0], np.sin(2 * np.pi * u))
    v = np.linspace(-1, 1, 24)[:, None]
    beat = maps["beat (0, 2) - (1, 0)"][0, ..., 1]
    assert np.allclose(beat, np.cos(np.pi * (2 * v - u)))


def test_points_and_texts():
    points = RNG.normal(size=(7, 3))
    waves = RNG.normal(size=(3, 2))
    found = point_concepts(points, {"normals": points, "part": np.arange(7)}, waves)
    assert np.allclose(found["axis 0 x axis 2"], points[:, 0] * points[:, 2])
    angle = 2 * np.pi * points @ (waves[:, 1] - waves[:, 0])
    assert np.allclose(found["beat 1 - 0"][:, 1], np.cos(angle))
    batch = Batch(
        inputs=np.array([[5, 6, 7], [8, 9, 0]]),
        targets=np.zeros((2, 3), int),
        facts={"truth": np.array([True, False]), "name": np.array(["a", "b"])},
        spans={"answer": np.array([[1, 2], [1, 2]])},
        lengths=np.array([3, 2]),
    )
    text = text_concepts(batch, np.array([[0, 1], [1, 1]]))
    assert list(text["token"]) == [5, 6, 9, 9]
    assert list(text["token before"]) == [-1, 5, 8, 8]
    assert list(text["to the end"]) == [3, 2, 1, 1]
    assert list(text["in answer"]) == [False, True, True, True]
    assert list(text["name"]) == ["a", "a", "b", "b"]
    with pytest.raises(InputError, match="outside"):
        text_concepts(batch, np.array([[0], [2]]))


def test_bad_images_are_one_sentence():
    with pytest.raises(InputError, match="needs images"):
        image_vocabulary().maps(IMAGES[0])
    with pytest.raises(InputError, match="depth"):
        image_vocabulary(known=("depth",)).maps(IMAGES, {"depth": DISC[:2]})
