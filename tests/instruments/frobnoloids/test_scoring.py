"""The same code on texts, and on a fitted dictionary of an image network's activations."""

from __future__ import annotations

import numpy as np
import pytest

import terrarium as tm
from terrarium.errors import InputError
from terrarium.instruments.frobnoloids.concepts import text_concepts
from terrarium.instruments.frobnoloids.decide import Thresholds
from terrarium.instruments.frobnoloids.scoring import Scoring
from terrarium.instruments.frobnoloids.students import Student
from terrarium.instruments.quantities import nats, squared_error
from terrarium.instruments.site_features import dictionary_features, units
from terrarium.organisms.autoencoder import Autoencoder
from terrarium.organisms.recipe import AutoencoderModel, TransformerModel
from terrarium.organisms.transformer import Transformer
from terrarium.readings.read import read
from terrarium.worlds.base import Batch

QUICK = Scoring(points=400, draws=5, student=Student(hidden=24))


def test_texts_go_the_same_way():
    rng = np.random.default_rng(0)
    n, t = 60, 6
    tokens = rng.integers(0, 8, (n, t))
    says = tokens[:, 2] > 3
    batch = Batch(
        tokens, tokens, {"says": says}, {"answer": np.tile([5, 6], (n, 1))}, np.full(n, t)
    )
    model = TransformerModel(layers=1, width=16, heads=2, mlp=24, vocabulary=8, context=t)
    fleet = Transformer(model, [("text", seed) for seed in range(5)])
    states = np.asarray(read(fleet, batch, "resid.post[0]", ("prompt_end",)).at("resid.post[0]"))
    at = np.full((n, 1), 4)
    # a feature that is the world's own label, one that is the token, and the network's own units
    features = [np.c_[says, tokens[:, 4] == 3, run[:, :6]].astype(float) for run in states]
    concepts = text_concepts(batch, at)
    effects = tm.exact_effects(
        fleet.select([0]),
        tokens,
        "resid.post[0]",
        units(16, range(8)),
        nats(tokens[:, 5], np.full(n, 4)),
        randoms=8,
        positions=at,
    )
    one_hot = np.eye(8)[tokens].reshape(n, -1)
    scores = QUICK.score(features[0], one_hot, concepts, {"network": features[1:]}, effects)
    frame = tm.frobnoloids(scores, Thresholds(0.1, 0.0, 0.5))
    assert list(frame["concept"][:2]) == ["says", "token"]
    assert frame["nameability"][:2].min() > 0.95
    assert not frame["frobnoloid"][:2].any()
    assert frame["matched network"][:2].min() > 0.95
    assert "predictable" not in frame
    assert len(frame) == 8


def test_features_of_a_dictionary():
    rng = np.random.default_rng(1)
    images = rng.uniform(size=(16, 1, 8, 8)).astype(np.float32)
    network = Autoencoder(AutoencoderModel(side=8, width=10, latent=4, channels=1), [("d",)])
    found = read(network, Batch(images, images, {}), "encoder.out", None)
    rows = np.asarray(found.activations["encoder.out"]).reshape(-1, 10)
    fitted = tm.dictionaries.get("pca")(4).fit(rows)
    features = dictionary_features(fitted)
    effects = tm.exact_effects(
        network, images, "encoder.out", features, squared_error(images), how="mean", randoms=4
    )
    assert effects.change.shape[:2] == (1, 4)
    coded = np.asarray(fitted.encode(rows), np.float64)
    size = np.linalg.norm(fitted.directions, axis=1)
    moved = np.abs(coded - coded.mean(0)).reshape(16, -1, 4)
    assert np.allclose(effects.displacement[0].T, np.sqrt((moved**2).sum(1)) * size, rtol=1e-3)


def test_bad_input_is_one_sentence():
    with pytest.raises(InputError, match="at least one"):
        QUICK.score(np.ones((8, 2)), np.ones((8, 2)), {}, {}, None)  # type: ignore[arg-type]
