"""Circuits: greedy search against all subsets, closed forms, and networks edited by hand."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch

from terrarium.errors import InputError
from terrarium.instruments.frobnoloids.circuit import (
    find_circuit,
    linear_kept,
    linear_shares,
    network_kept,
)
from terrarium.instruments.site_features import units
from terrarium.organisms.autoencoder import Autoencoder
from terrarium.organisms.coordinate import Coordinate
from terrarium.organisms.recipe import AutoencoderModel, CoordinateModel
from terrarium.readings.hooks import capture, edit

RNG = np.random.default_rng(3)


def test_independent_upstream_is_taken_in_order_of_variance():
    a = RNG.normal(size=(4000, 8))
    w = np.array([0.1, 3.0, 0.0, -2.0, 1.0, 0.05, 0.0, 0.0])
    found = find_circuit(linear_kept(w, a), 8, enough=0.99)
    assert found.members == (1, 3, 4)
    share = w**2 / (w**2).sum()
    assert np.allclose(found.faithfulness, np.cumsum(share[[1, 3, 4]]), atol=0.04)
    assert np.allclose(found.effect, share, atol=0.04)
    assert np.allclose(linear_shares(w, a), share, atol=0.05)
    assert linear_shares(w, a).sum() == pytest.approx(1)
    # of the 10 sets of three among the five that do anything, one is as good
    assert 0.04 < (found.random >= found.faithfulness[-1]).mean() < 0.2


def test_greedy_is_the_best_pair_and_random_circuits_are_worse():
    mixed = RNG.normal(size=(500, 10)) @ RNG.normal(size=(10, 10))
    w = RNG.normal(size=10) * np.array([4, 4, *[0.3] * 8])
    kept = linear_kept(w, mixed)
    full = kept(np.ones((1, 10), bool))[0]
    scores = {}
    for pair in combinations(range(10), 2):
        mask = np.zeros((1, 10), bool)
        mask[0, list(pair)] = True
        scores[pair] = 1 - ((kept(mask)[0] - full) ** 2).mean() / full.var()
    found = find_circuit(kept, 10, most=2, enough=1.0)
    assert tuple(sorted(found.members)) == max(scores, key=lambda pair: scores[pair])
    assert found.faithfulness[-1] == pytest.approx(max(scores.values()))
    assert set(np.round(found.random, 9)) <= set(np.round(list(scores.values()), 9))


def test_a_network_with_all_others_at_their_means():
    model = CoordinateModel(inputs=2, outputs=1, width=9, layers=2, frequencies=3, scale=1.0)
    network = Coordinate(model, [("a",), ("b",)])
    points = RNG.uniform(-1, 1, (30, 2)).astype(np.float32)
    sites = ("mlp.act[0]", units(9)), ("mlp.act[1]", units(9))
    kept = network_kept(network, points, *sites, index=4, member=1)
    mask = RNG.random((3, 9)) < 0.5
    x = torch.from_numpy(points).expand(2, 30, 2)
    with torch.no_grad(), capture(network, "mlp.act[0]") as seen:
        network(x)
    mean = seen["mlp.act[0]"].mean(1, keepdim=True)
    for row, values in zip(mask, kept(mask), strict=True):

        def change(a, row=row):
            return torch.where(torch.from_numpy(row), a, mean)

        with (
            torch.no_grad(),
            edit(network, "mlp.act[0]", change),
            capture(network, "mlp.act[1]") as later,
        ):
            network(x)
        assert np.allclose(values, later["mlp.act[1]"][1, :, 4].numpy(), atol=1e-5)


def test_images_and_a_planted_circuit():
    network = Autoencoder(AutoencoderModel(side=8, width=8, latent=4, channels=1), [("c",)])
    with torch.no_grad():
        weight = network.weights["latent.weight"]
        weight.view(1, 8, 16, 4)[:, :, :, 2] *= torch.tensor([0, 1, 0, 0, 0, 1.0, 0.01, 0.01]).view(
            1, 8, 1
        )
    images = RNG.uniform(size=(25, 1, 8, 8)).astype(np.float32)
    kept = network_kept(network, images, ("encoder.out", units(8)), ("latent", units(4)), index=2)
    found = find_circuit(kept, 8, enough=0.95)
    assert set(found.members) <= {1, 5}
    assert found.faithfulness[-1] > 0.95
    assert found.effect[[0, 2, 3, 4]].max() < 1e-6


def test_bad_input_is_one_sentence():
    with pytest.raises(InputError, match="does not vary"):
        find_circuit(linear_kept(np.zeros(3), RNG.normal(size=(9, 3))), 3)
    with pytest.raises(InputError, match="does not vary"):
        linear_shares(np.zeros(3), RNG.normal(size=(9, 3)))
    with pytest.raises(InputError, match="linear circuit"):
        linear_kept(np.zeros(3), np.zeros((9, 4)))
