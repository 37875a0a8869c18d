"""Autoencoders of images: written out by hand, member by member, and trained."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from terrarium.errors import InputError
from terrarium.instruments.effects import exact_effects
from terrarium.instruments.site_features import units
from terrarium.organisms.autoencoder import Autoencoder
from terrarium.organisms.build import load
from terrarium.organisms.grow import grow
from terrarium.organisms.recipe import (
    AutoencoderModel,
    Optimizer,
    Phase,
    Recipe,
    Reconstruction,
    Source,
    load_recipe,
)
from terrarium.readings.read import read
from terrarium.store import Store
from terrarium.worlds.base import Batch
from terrarium.worlds.patches import Patches

DEEP = AutoencoderModel(channels=3, side=16, width=4, stages=2, blocks=1, latent=5)
MAP = DEEP.model_copy(update={"code": "map"})


def fleet(spec, members=2):
    """A fleet whose every tensor is random, so that nothing is the identity."""
    network = Autoencoder(spec, [("k", i) for i in range(members)])
    drawn = torch.Generator().manual_seed(0)
    for i in range(members):
        state = network.member_state(i)
        network.load_member_state(
            i, {n: torch.randn(t.shape, generator=drawn) * 0.2 for n, t in state.items()}
        )
    return network


def by_hand(spec, w, images):
    """One member with functions alone, on ``(n, channels, side, side)``."""

    def conv(x, name, stride=1):
        return F.conv2d(x, w[f"{name}.kernel"], w[f"{name}.bias"], stride=stride, padding=1)

    def blocks(x, name):
        for i in range(spec.blocks):
            inner = conv(x, f"{name}.block{i}.first").relu()
            x = (x + conv(inner, f"{name}.block{i}.second")).relu()
        return x

    x = images
    for i in range(spec.stages):
        name = "encoder" if i == 0 else f"encoder.{i}"
        x = blocks(conv(x, name, stride=2).relu(), name)
    if spec.code == "vector":
        code = x.flatten(1) @ w["latent.weight"] + w["latent.bias"]
        x = (code @ w["wide.weight"] + w["wide.bias"]).relu().view(x.shape)
    else:
        code = conv(x, "latent")
        x = conv(code, "wide").relu()
    for i in reversed(range(spec.stages)):
        name = "decoder" if i == 0 else f"decoder.{i}"
        x = F.pixel_shuffle(conv(blocks(x, name), name), 2)
        x = x if i == 0 else x.relu()
    return code, x


@pytest.mark.parametrize("spec", [AutoencoderModel(), DEEP, MAP], ids=["default", "vector", "map"])
def test_each_member_is_the_network_written_by_hand(spec):
    network = fleet(spec)
    images = torch.rand(2, 3, spec.channels, spec.side, spec.side)
    for member in range(2):
        code, made = by_hand(spec, network.member_state(member), images[member])
        close = {"rtol": 1e-4, "atol": 5e-5}  # processors add up in another order
        torch.testing.assert_close(network.encode(images)[member], code, **close)
        torch.testing.assert_close(network(images)[member], made, **close)


def test_residual_blocks_change_nothing_at_first():
    plain, deep = (
        Autoencoder(DEEP.model_copy(update={"blocks": blocks}), [("k", 0)]) for blocks in (0, 2)
    )
    images = torch.rand(1, 2, 3, 16, 16)
    torch.testing.assert_close(plain(images), deep(images))
    assert deep.parameters_per_member > plain.parameters_per_member


@pytest.mark.parametrize("spec", [DEEP, MAP], ids=["vector", "map"])
def test_gradients_reach_every_tensor(spec):
    network = fleet(spec, 1)
    network.zero_grad()
    network(torch.rand(1, 4, 3, 16, 16)).square().sum().backward()
    network.weights.collect_gradients()
    for name, slot in network.weights.slots.items():
        assert network.weights.gradients[0, slot.start : slot.stop].abs().sum() > 0, name


@pytest.mark.parametrize(
    ("spec", "code"), [(DEEP, (1, 4, 5)), (MAP, (1, 4, 4, 4, 5))], ids=["vector", "map"]
)
def test_every_site_is_read(spec, code):
    network = fleet(spec, 1)
    images = np.random.default_rng(0).random((4, 3, 16, 16), dtype=np.float32)
    maps = ["encoder.stage", "encoder.out", "decoder.in", "decoder.stage"]
    shapes = {}
    for sites in (maps, "latent"):
        reading = read(network, Batch(images, images, {}), sites, None)
        shapes |= {site: values.shape for site, values in reading.activations.items()}
    assert set(shapes) == set(network.sites())
    assert shapes == {
        "encoder.stage[0]": (1, 4, 8, 8, 4),
        "encoder.out": (1, 4, 4, 4, 8),
        "latent": code,
        "decoder.in": (1, 4, 4, 4, 8),
        "decoder.stage[0]": (1, 4, 8, 8, 4),
    }


def test_a_dead_latent_has_no_effect_and_a_live_one_has():
    network = fleet(DEEP, 1)
    state = network.member_state(0)
    state["latent.weight"][:, 2] = 0
    state["latent.bias"][2] = 0
    network.load_member_state(0, state)
    images = np.random.default_rng(0).random((6, 3, 16, 16), dtype=np.float32)
    error = exact_effects(
        network, images, "latent", units(5), lambda out: ((out - images) ** 2).sum((1, 2, 3))
    )
    # up to rounding: the stacked pass multiplies in another order
    assert np.abs(error.change[0, 2]).max() < 1e-4 * np.abs(error.change[0]).max()
    assert np.abs(error.change[0, [0, 1, 3, 4]]).max(axis=1).min() > 1e-2 * error.before.mean()


def recipe(spec, steps):
    phase = Phase(
        name="fit",
        sources=(Source(world="patches", options={}),),
        objective=Reconstruction(),
        steps=steps,
        batch=32,
        optimizer=Optimizer(lr=1e-2, warmup=10, schedule="cosine"),
    )
    return Recipe(name="deep", model=spec, phases=(phase,))


@pytest.mark.parametrize("code", ["vector", "map"])
def test_deep_ones_learn_their_input_and_come_back_from_the_store(tmp_path, code):
    latent = 4 if code == "vector" else 1
    spec = AutoencoderModel(side=8, width=16, stages=2, blocks=1, latent=latent, code=code)
    store = Store(tmp_path)
    (organism,) = grow([(recipe(spec, 250), 0)], store)
    batch = Patches().sample(200, np.random.default_rng(0), "test")
    images = torch.from_numpy(batch.inputs)[None]

    def error(network):
        with torch.no_grad():
            return float((network(images) - images).square().mean())

    untrained = Autoencoder(spec, [("organism", 0)])
    flat = float(np.square(batch.inputs - batch.inputs.mean(axis=0)).mean())
    assert error(organism.network()) < flat / 3
    assert error(organism.network()) < error(untrained) / 20
    assert error(load(spec, [organism.folder])) == error(organism.network())


def test_sides_that_cannot_be_halved_are_refused(tmp_path):
    path = tmp_path / "odd.yaml"
    path.write_text(
        "name: odd\nmodel: {kind: autoencoder, side: 12, stages: 3}\nphases:\n"
        "  - {name: fit, sources: [{world: patches}], objective: {kind: reconstruction},\n"
        "     steps: 1}\n"
    )
    with pytest.raises(InputError, match="side 12 cannot be halved 3 times"):
        load_recipe(path)
