"""Exact effects against closed forms (linear readouts) and against one plain pass for each unit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from terrarium.errors import InputError
from terrarium.instruments.effects import exact_effects, what_it_adds
from terrarium.instruments.interventions import ablate
from terrarium.instruments.quantities import absolute_error, channel, decibels, nats, squared_error
from terrarium.instruments.site_features import along, dictionary_features, units
from terrarium.organisms.autoencoder import Autoencoder
from terrarium.organisms.coordinate import Coordinate
from terrarium.organisms.recipe import AutoencoderModel, CoordinateModel, TransformerModel
from terrarium.organisms.transformer import Transformer
from terrarium.readings.hooks import capture, edit

RNG = np.random.default_rng(0)
POINTS = RNG.uniform(-1, 1, (40, 2)).astype(np.float32)
LAST = "mlp.act[1]"


@pytest.fixture(scope="module")
def field():
    model = CoordinateModel(inputs=2, outputs=3, width=12, layers=2, frequencies=4, scale=1.0)
    return Coordinate(model, [("a",), ("b",)])


def state_of(network, site, inputs):
    x = torch.as_tensor(inputs)
    with torch.no_grad(), capture(network, site) as kept:
        out = network(x.expand(network.members, *x.shape))
    return kept[site].double().numpy(), out.double().numpy()


@pytest.mark.parametrize("how", ["zero", "mean", "add"])
def test_linear_readout_has_a_closed_form(field, how):
    a, y = state_of(field, LAST, POINTS)
    truth = RNG.normal(size=(40, 3))
    found = exact_effects(field, POINTS, LAST, units(12), squared_error(truth), how=how, amount=0.7)
    w = field.weights["head.weight"].detach().double().numpy()
    moved = {
        "zero": -a,
        "mean": a.mean(1, keepdims=True) - a,
        "add": 0.7 * a.std(1)[:, None] + 0 * a,
    }
    delta = moved[how]
    after = y[:, None] + np.einsum("mnk,mko->mkno", delta, w)
    expected = ((after - truth) ** 2).mean(-1) - ((y - truth) ** 2).mean(-1)[:, None]
    assert np.allclose(found.change, expected, atol=2e-5)
    assert np.allclose(found.displacement, np.abs(delta).transpose(0, 2, 1), atol=1e-5)
    assert np.allclose(found.before, ((y - truth) ** 2).mean(-1), atol=1e-5)


def test_random_directions_displace_as_much_and_the_same_way(field):
    a, y = state_of(field, LAST, POINTS)
    w = field.weights["head.weight"].detach().double().numpy()
    # against the network's own output only |W u|^2 c^2 is left, whose mean over u is known
    own = exact_effects(
        field, POINTS, LAST, units(12), lambda out: ((out - y[0]) ** 2).sum(1), randoms=600
    )
    mean = (w[0] ** 2).sum() / 12 * a[0] ** 2
    live = a[0].mean(0) > 0.05
    ratio = own.random[0].mean(1)[live] / mean.T[live].clip(1e-9)
    used = mean.T[live] > 1e-4
    assert np.abs(ratio[used] - 1).max() < 0.15
    # one draw moves all examples along one direction: the ratio to c^2 is the same everywhere
    draws = own.random[0, live][:, :5]
    share = draws / np.where(used, (a[0] ** 2).T[live], np.nan)[:, None]
    assert np.nanmax(np.nanstd(share, axis=-1) / np.nanmean(share, axis=-1)) < 1e-2


def test_random_removals_take_away_as_removals_do(field):
    # |a| falls on average, whichever way the direction was drawn
    seen = []
    a, _ = state_of(field, LAST, POINTS)

    def quantity(_out):
        return np.zeros(40)

    from terrarium.instruments.effects import _Runner

    runner = _Runner(field, POINTS, LAST, units(12), None, {}, 2**20)
    plain = runner.plain("zero", 1.0)
    vectors = units(12).with_random(plain.along, plain.rows, 10, 10, ())
    for j in np.flatnonzero(a[0].mean(0) > 0.05):
        for draw in range(1, 21):
            seen.append((-a[0][:, j] * (a[0] @ vectors[0, j, draw])).sum())
    assert len(seen) > 50
    assert max(seen) < 0
    assert exact_effects(field, POINTS, LAST, units(12), quantity).change.max() == 0


@pytest.mark.parametrize("site", ["encoder.out", "latent"])
def test_images_equal_one_pass_for_each_unit(site):
    network = Autoencoder(AutoencoderModel(side=8, width=6, latent=3, channels=3), [("x",)])
    images = RNG.uniform(size=(9, 3, 8, 8)).astype(np.float32)
    width = 6 if site == "encoder.out" else 3
    found = exact_effects(network, images, site, units(width), squared_error(images))
    few = exact_effects(network, images, site, units(width), squared_error(images), pass_values=500)
    assert np.allclose(found.change, few.change, atol=1e-6)
    assert found.maps.shape == (1, width, 8, 8)
    _, before = state_of(network, site, images)
    adds = what_it_adds(network, images, site, units(width))
    for unit in range(width):

        def off(x, unit=unit):
            x = x.clone()
            x[:, :, unit] = 0
            return x

        with edit(network, site, off):
            _, after = state_of(network, site, images)
        error = ((after[0] - images) ** 2).mean(1) - ((before[0] - images) ** 2).mean(1)
        assert np.allclose(found.change[0, unit], error.mean((1, 2)), atol=1e-6)
        assert np.allclose(found.maps[0, unit], error.mean(0), atol=1e-6)
        assert np.allclose(adds[0, unit], before[0] - after[0], atol=1e-6)
    assert np.abs(found.change).max() > 1e-4


def test_sequences_equal_the_intervention_at_the_position_and_nats_are_right():
    model = TransformerModel(layers=2, width=16, heads=2, mlp=24, vocabulary=11, context=9)
    network = Transformer(model, [("t",)])
    tokens = RNG.integers(0, 11, (7, 9))
    where = RNG.integers(2, 8, (7, 1))
    targets = RNG.integers(0, 11, 7)
    directions = RNG.normal(size=(4, 16))
    quantity = nats(targets, np.full(7, 8))
    found = exact_effects(
        network, tokens, "resid.post[0]", along(directions), quantity, positions=where
    )

    def loss(out):
        return torch.nn.functional.cross_entropy(
            out[0, :, 8], torch.from_numpy(targets), reduction="none"
        ).numpy()

    x = torch.from_numpy(tokens)[None]
    with torch.no_grad():
        before = loss(network(x))
    assert np.allclose(found.before[0], before, atol=1e-5)
    for i, direction in enumerate(directions):
        with (
            torch.no_grad(),
            edit(network, "resid.post[0]", lambda a, d=direction: ablate(a, d), where),
        ):
            after = loss(network(x))
        assert np.allclose(found.change[0, i], after - before, atol=1e-5)
    assert np.abs(found.change).max() > 1e-3


@dataclass
class Pair:
    directions: np.ndarray

    def encode(self, x):
        return np.maximum(x @ self.directions.T - 0.2, 0)


def test_dictionary_features_leave_the_rest_in(field):
    one = field.select([0])
    a, _ = state_of(one, LAST, POINTS)
    dictionary = Pair(RNG.normal(size=(5, 12)))
    w = one.weights["head.weight"].detach().double().numpy()[0]
    found = exact_effects(one, POINTS, LAST, dictionary_features(dictionary, [1, 4]), channel(2))
    f = dictionary.encode(a[0])[:, [1, 4]]
    expected = -f * (dictionary.directions[[1, 4]] @ w[:, 2])
    assert np.allclose(found.change[0].T, expected, atol=1e-5)
    assert found.names == ("feature 1", "feature 4")


def test_members_and_subsets_change_nothing(field):
    truth = np.zeros((40, 3))
    both = exact_effects(field, POINTS, LAST, units(12), absolute_error(truth), randoms=3)
    for member in (0, 1):
        one = exact_effects(
            field.select([member]),
            POINTS,
            LAST,
            units(12, [7, 2]),
            absolute_error(truth),
            randoms=3,
        )
        assert np.allclose(one.change[0], both.change[member][[7, 2]], atol=1e-6)
        assert np.allclose(one.random[0], both.random[member][[7, 2]], atol=1e-6)


def test_decibels():
    truth = RNG.uniform(size=(4, 3, 5, 5))
    output = truth + 0.1
    assert np.allclose(decibels(truth)(output), 20.0)
    assert np.allclose(decibels(truth)(truth), 120.0)


def test_bad_input_is_one_sentence(field):
    truth = np.zeros((40, 3))
    quantity = squared_error(truth)
    with pytest.raises(InputError, match="12"):
        exact_effects(field, POINTS, LAST, units(5), quantity)
    with pytest.raises(InputError, match="names 2"):
        exact_effects(field, POINTS, "mlp.act", units(12), quantity)
    with pytest.raises(InputError, match="for 40 examples"):
        exact_effects(field, POINTS, LAST, units(12), lambda out: out.sum())
    with pytest.raises(InputError, match="NaN"):
        exact_effects(field, POINTS, LAST, units(12), lambda out: out[:, 0] * np.nan)
    with pytest.raises(InputError, match="asked for"):
        units(4, [4])
    with pytest.raises(InputError, match="length 0"):
        along(np.zeros((2, 3)))
    with pytest.raises(InputError, match=r"must be \(k, d\)"):
        along(np.ones(6))
    with pytest.raises(InputError, match="did you mean 'mean'"):
        exact_effects(field, POINTS, LAST, units(12), quantity, how="men")
    for draws in ({"randoms": -1}, {"varying": -2}):
        with pytest.raises(InputError, match="give 0 or more"):
            exact_effects(field, POINTS, LAST, units(12), quantity, **draws)
    with pytest.raises(InputError, match="match them"):
        quantity(np.zeros((40, 2)))
    with pytest.raises(InputError, match="one row"):
        exact_effects(field, POINTS, LAST, units(12), quantity, extra={"t": np.zeros(3)})


def test_double_precision_is_taken_and_images_that_do_not_fit_are_told():
    network = Autoencoder(AutoencoderModel(side=8, width=6, latent=3, channels=1), [("x",)])
    images = RNG.uniform(size=(5, 1, 8, 8)).astype(np.float32)
    quantity = squared_error(images)
    found = exact_effects(network, images, "latent", units(3), quantity)
    double = exact_effects(network, images.astype(np.float64), "latent", units(3), quantity)
    assert np.array_equal(found.change, double.change)
    for wrong, told in (
        ((images * 255).astype(np.uint8), "divided by 255"),
        (images[:, 0], "axis of channels"),
        (images[..., :4], r"takes images \(n, 1, 8, 8\)"),
    ):
        with pytest.raises(InputError, match=told):
            exact_effects(network, wrong, "latent", units(3), quantity)
