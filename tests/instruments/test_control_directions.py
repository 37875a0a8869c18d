"""Random directions beside a removal: their lengths, covariance and signs."""

import numpy as np
import pytest

from terrarium.errors import InputError
from terrarium.instruments.control_directions import isotropic, taking, varying
from terrarium.instruments.effects import exact_effects
from terrarium.instruments.frobnoloids.importance import importance
from terrarium.instruments.site_features import units
from terrarium.organisms.build import build
from terrarium.organisms.recipe import AutoencoderModel


def rng(seed=0):
    return np.random.default_rng(seed)


def test_directions_have_length_one_and_the_covariance_asked_for():
    mixing = np.diag([3.0, 1.0, 0.0])
    rows = rng().standard_normal((3000, 3)) @ mixing + 5.0
    found = varying(20_000, rows, rng(1))
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1)
    assert np.abs(found[:, 2]).max() < 1e-9, "nothing varies there"
    # the angle of a normal with standard deviations 3 and 1
    drawn = rng(2).standard_normal((200_000, 2)) * [3.0, 1.0]
    wanted = np.mean(drawn[:, 0] ** 2 / (drawn**2).sum(1))
    assert np.mean(found[:, 0] ** 2) == pytest.approx(wanted, abs=0.02)
    everywhere = isotropic(20_000, 3, rng(3))
    np.testing.assert_allclose((everywhere**2).mean(0), 1 / 3, atol=0.01)
    # rows that are all alike have no covariance
    assert varying(4, np.ones((10, 3)), rng()).shape == (4, 3)
    assert varying(0, rows, rng()).shape == (0, 3)


def test_signs_take_what_the_removal_takes():
    units_, own = isotropic(50, 4, rng()), np.eye(4)[0]
    along = -np.array([2.0, 1.0, 0.0, -1.0])  # a removal goes against the activation
    signed = taking(units_, along, own)
    assert (signed @ along < 0).all()
    np.testing.assert_allclose(np.abs(signed), np.abs(units_))
    # what is put in, is put in
    assert (taking(units_, -along, own) @ -along > 0).all()


def test_effects_of_varying_directions_stay_where_the_site_varies():
    network = build(AutoencoderModel(side=8, width=6, latent=3, channels=3), [("x",)]).eval()
    images = rng().random((9, 3, 8, 8), np.float32)

    def size(output):
        return np.square(output).reshape(len(output), -1).mean(1)

    def effects(varied):
        site = ("encoder.out", units(6), size)
        return exact_effects(network, images, *site, randoms=5, varying=varied, key=("k",))

    found, bare = effects(8), effects(0)
    assert found.varying.shape == (1, 6, 8, 9)
    assert bare.varying.shape == (1, 6, 0, 9)
    np.testing.assert_allclose(found.random, bare.random, atol=1e-7)
    assert importance(found, against="varying").null.shape == (8, 6)
    with pytest.raises(InputError, match="varying=8"):
        importance(bare, against="varying")
