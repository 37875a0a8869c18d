"""Structure: what other seeds show is matched, what pixels tell is taught, scrambles are not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from terrarium.errors import InputError
from terrarium.instruments.frobnoloids.arrays import shuffled, some_rows
from terrarium.instruments.frobnoloids.filters import filtered
from terrarium.instruments.frobnoloids.scores import Score
from terrarium.instruments.frobnoloids.structure import (
    Structure,
    matched,
    predictable,
    teachable,
)
from terrarium.instruments.frobnoloids.students import Student, patches

RNG = np.random.default_rng(2)


def test_matching_undoes_permutation_and_sign_and_knows_what_is_not_there():
    true = RNG.normal(size=(300, 6))
    own = RNG.normal(size=(300, 3))
    features = np.concatenate([true, own], 1)
    runs = []
    for _ in range(4):
        other = np.concatenate(
            [true + 0.2 * RNG.normal(size=true.shape), RNG.normal(size=(300, 3))], 1
        )
        runs.append(other[:, RNG.permutation(9)] * RNG.choice([-1, 1], 9))
    found = matched(features, runs, draws=20)
    assert found.value[:6].min() > 0.95
    # held-out: pairs chosen on the other half do not flatter what has no partner
    assert np.abs(found.value[6:]).max() < 0.15
    assert found.p[:6].max() < 0.02
    assert found.p[6:].min() > 0.02


def test_matched_maps_and_runs_of_other_sizes():
    true = RNG.normal(size=(8, 12, 12, 3))
    runs = [true[..., [2, 1]] for _ in range(4)]
    found = matched(true, runs, draws=6)
    assert found.value[0] == pytest.approx(0, abs=0.1)
    assert np.allclose(found.value[1:], 1)
    with pytest.raises(InputError, match="at least 5"):
        matched(true, runs[:3])
    with pytest.raises(InputError, match="same inputs"):
        matched(true, [run[:, :5] for run in runs])


def test_teachable_is_what_pixels_tell():
    images = RNG.normal(size=(24, 2, 16, 16))
    local = np.maximum(filtered(images[:, 0], np.ones((3, 3)) / 3), 0)
    kept = np.broadcast_to(np.linspace(0, 1, 16) ** 2, (24, 16, 16))
    noise = RNG.normal(size=(24, 16, 16))
    features = np.stack([local, kept, noise, 0 * noise], -1)
    found = teachable(features, images, points=4000, student=Student(hidden=128))
    assert found.value[0] > 0.6
    assert found.value[1] > 0.95
    assert abs(found.value[2]) < 0.05
    assert np.isnan(found.value[3])
    assert found.p[:2].max() < 0.1 < found.p[2]


def test_teachable_vectors():
    x = RNG.normal(size=(900, 3))
    features = np.stack([np.sin(x[:, 0]) * x[:, 1], RNG.normal(size=900)], 1)
    found = teachable(features, x, student=Student(hidden=128))
    assert found.value[0] > 0.6
    assert found.value[1] < 0.05
    with pytest.raises(InputError, match="as many rows"):
        teachable(features, x[:5])


def test_predictable_beyond_the_spectrum():
    y, x = np.mgrid[:20, :20]
    squares = []
    for _ in range(30):
        size, at = RNG.integers(5, 9), RNG.integers(0, 12, 2)
        squares.append((np.abs(y - at[0] - 4) < size / 2) & (np.abs(x - at[1] - 4) < size / 2))
    smooth = filtered(RNG.normal(size=(30, 20, 20)), np.ones((5, 5)) / 5)
    features = np.stack([np.array(squares, float), smooth], -1)
    found = predictable(features, points=3000)
    assert found.excess[0] > 0.05
    assert found.p[0] < 0.1
    # a linear Gaussian process is its spectrum, predictable as it is
    assert found.value[1] > 0.1
    assert found.p[1] > 0.05
    with pytest.raises(InputError, match="neither"):
        predictable(features[:, :, 0])


def test_smooth_noise_that_is_cut_off_is_not_predictable_beyond_its_spectrum():
    # a scrambled map goes on at its other border and these do not; scrambles alone call all of them
    drawn = np.random.default_rng(7).normal(size=(40, 48, 48, 10))
    wide = gaussian_filter(drawn, (0, 2, 2, 0))[:, 16:32, 16:32]
    noisy = wide + 0.05 * wide.std() * np.random.default_rng(8).normal(size=wide.shape)
    assert np.mean(predictable(noisy, points=1500, draws=8).p <= 0.05) <= 0.2


def test_what_is_worse_than_the_mean_has_no_structure():
    def bad(value, null):
        return Score(np.array(value), np.zeros(2), 5, np.full((5, 2), null))

    found = Structure({"network": bad([0.0, 0.6], 0.0)}, {"teachable": bad([-6.0, 0.6], -16.0)})
    assert found.value == pytest.approx([0.0, 0.6])


@pytest.mark.parametrize("words", [25, 24])
def test_words_keep_their_places_where_rows_are_few(words):
    texts = np.repeat(np.arange(120), words)
    place = np.tile(np.arange(words), 120)
    rows = some_rows(texts, 1500, None, np.random.default_rng(0))
    kept = place[rows].reshape(120, -1)
    assert kept.shape == (120, 1500 // 120)
    assert (kept == kept[0]).all()
    # a feature that is its place alone stays itself when texts change places
    moved = shuffled(place[rows, None].astype(float), texts[rows], np.random.default_rng(1))
    assert np.array_equal(moved[:, 0], place[rows])


def test_rows_that_are_their_own_groups_are_drawn_and_texts_may_differ_in_length():
    rng = np.random.default_rng(0)
    assert len(some_rows(np.arange(5000), 300, None, rng)) == 300
    lengths = rng.integers(3, 30, 200)
    texts = np.repeat(np.arange(200), lengths)
    kept = some_rows(texts, 1000, None, rng)
    assert 500 < len(kept) <= 1000
    assert len(np.unique(texts[kept])) > 150
    assert np.array_equal(some_rows(texts, 10**6, None, rng), np.arange(len(texts)))


def test_patches_are_centred_and_scaled():
    images = np.zeros((1, 1, 8, 8))
    images[0, 0, 4, 5] = 9.0
    where = np.array([4 * 8 + 5, 0])
    place, near, far = patches(images, (8, 8), where, radius=1, scales=2)
    assert near.shape == far.shape == (2, 9)
    assert near[0, 4] == near[0].sum() == 9
    assert far[0, 4] == pytest.approx(1)  # the mean of nine
    assert np.allclose(place[0], [4 / 7, 5 / 7])
    half = patches(images, (4, 4), np.array([2 * 4 + 2]), radius=0, scales=1)
    assert half[1][0, 0] == pytest.approx(9 / 4)


def _score(value, p_high):
    null = np.tile(np.linspace(-1, 1, 9)[:, None], (1, len(value)))
    return Score(np.array(value), np.full(len(value), 0.1), 5, null if p_high else null * 0.01)


def test_all_matches_must_hold_and_one_way_to_learn():
    strong, weak = _score([0.9, 0.9], False), _score([0.0, 0.9], False)
    nothing = _score([0.0, 0.0], True)
    one = Structure({"dictionary": strong}, {"predictable": nothing, "teachable": weak})
    assert one.p[1] < 0.2 < one.p[0]
    assert np.allclose(one.value, [0.45, 0.9])
    both = Structure({"dictionary": strong, "network": nothing}, {"teachable": strong})
    assert both.p.min() > 0.2
    with pytest.raises(InputError, match="at least one"):
        Structure({}, {"teachable": strong})
