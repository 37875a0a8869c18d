"""Classifiers of images: the autoencoder's trunk, cross-entropy of a fact."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from terrarium.errors import InputError
from terrarium.organisms.autoencoder import Autoencoder
from terrarium.organisms.build import build, load
from terrarium.organisms.classifier import Classifier
from terrarium.organisms.grow import grow
from terrarium.organisms.objectives import Step, losses
from terrarium.organisms.recipe import (
    AutoencoderModel,
    Classification,
    ClassifierModel,
    Optimizer,
    Phase,
    Recipe,
    Source,
)
from terrarium.readings.read import read
from terrarium.store import Store
from terrarium.worlds.patches import Patches

SPEC = ClassifierModel(side=8, width=4, stages=2, blocks=1, latent=6, classes=2)


def recipe(label="bright", steps=150, **model):
    phase = Phase(
        name="fit",
        sources=(Source(world="patches", options={}),),
        objective=Classification(label=label),
        steps=steps,
        batch=64,
        optimizer=Optimizer(lr=1e-2, warmup=10),
    )
    return Recipe(name="classify", model=SPEC.model_copy(update=model), phases=(phase,))


def test_the_trunk_is_the_autoencoders_to_the_last_bit():
    both = {"side": 8, "width": 4, "stages": 2, "blocks": 1, "latent": 6}
    one = Classifier(ClassifierModel(**both), [("k", 3)]).member_state(0)
    other = Autoencoder(AutoencoderModel(**both), [("k", 3)]).member_state(0)
    shared = [name for name in one if name.startswith(("encoder", "latent"))]
    assert len(shared) > 8
    for name in shared:
        assert torch.equal(one[name], other[name]), name
    classifier, autoencoder = (
        Classifier(SPEC, [("k", 3)]),
        Autoencoder(AutoencoderModel(**both), [("k", 3)]),
    )
    batch = Patches().sample(5, np.random.default_rng(0), "test")
    a, b = (read(x, batch, ["encoder.out", "latent"], None) for x in (classifier, autoencoder))
    for site in a.sites:
        np.testing.assert_array_equal(a.activations[site], b.activations[site])


def test_the_loss_is_the_cross_entropy_member_by_member():
    network = build(SPEC, [("a", 0), ("a", 1)])
    world = Patches()
    batches = [world.sample(7, np.random.default_rng(i), "train") for i in range(2)]
    inputs = torch.from_numpy(np.stack([b.inputs for b in batches]))
    notes = {}
    step = Step(batches, inputs, inputs, [world] * 2, [("k",)] * 2, None, notes)
    found = losses(Classification(label="bright"), network, step)
    logits = network(inputs).detach().double().numpy()
    for member, batch in enumerate(batches):
        x = logits[member]
        label = batch.facts["bright"].astype(int)
        nats = np.log(np.exp(x).sum(axis=1)) - x[np.arange(7), label]
        assert found[member].item() == pytest.approx(nats.mean(), rel=1e-5)
        assert notes["accuracy"][member] == pytest.approx((x.argmax(1) == label).mean())


def test_it_learns_the_fact_and_comes_back_from_the_store(tmp_path):
    (organism,) = grow([(recipe(), 0)], Store(tmp_path))
    batch = Patches().sample(400, np.random.default_rng(1), "test")

    def accuracy(network):
        with torch.no_grad():
            said = network(torch.from_numpy(batch.inputs)[None])[0].argmax(-1).numpy()
        return (said == batch.facts["bright"]).mean()

    assert accuracy(organism.network()) > 0.95
    assert accuracy(load(SPEC, [organism.folder])) == accuracy(organism.network())
    assert organism.history()[-1]["accuracy"] > 0.9
    (null,) = grow([(recipe(steps=0), 0)], Store(tmp_path))
    assert 0.2 < accuracy(null.network()) < 0.8


@pytest.mark.parametrize(
    ("label", "told"),
    [
        ("brigth", "did you mean 'bright'"),
        ("strength", "no class number"),
    ],
)
def test_facts_that_are_no_classes_get_one_sentence(tmp_path, label, told):
    with pytest.raises(InputError, match=told) as error:
        grow([(recipe(label, 1), 0)], Store(tmp_path))
    assert "\n" not in str(error.value)


def test_more_classes_than_the_model_has(tmp_path):
    many = recipe("label", 1).model_dump(mode="json")
    many["model"] |= {"side": 16, "channels": 3}
    many["phases"][0]["sources"][0] |= {"world": "images", "options": {"side": 16}}
    with pytest.raises(InputError, match="tells 2 classes apart; set its classes"):
        grow([(Recipe.model_validate(many), 0)], Store(tmp_path))
