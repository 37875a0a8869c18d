"""Metrics against counting by hand, loss recovered against a network that is edited by hand."""

from itertools import permutations

import numpy as np
import pytest
import scipy.sparse
import torch

from terrarium.errors import InputError
from terrarium.instruments.check_dictionary import planted_features
from terrarium.instruments.dictionaries.decomposed import PCA
from terrarium.instruments.dictionaries.kinds import TopK
from terrarium.instruments.dictionaries.metrics import (
    chance_cosine,
    dead_share,
    density,
    density_histogram,
    evaluate,
    fvu,
    l0,
    matched_cosine,
)
from terrarium.instruments.dictionaries.recovered import loss_recovered
from terrarium.instruments.dictionaries.train import Training
from terrarium.organisms.build import build
from terrarium.organisms.recipe import AutoencoderModel, CoordinateModel, TransformerModel
from terrarium.worlds.base import Batch

FEATURES = np.array([[0, 2.0, 0, -1], [0, 0, 0, 3], [0, 0, 0, 1]])


def test_counts_by_hand():
    for features in (FEATURES, FEATURES.reshape(3, 1, 4), scipy.sparse.csr_matrix(FEATURES)):
        assert l0(features) == pytest.approx(4 / 3)
        assert np.allclose(density(features), [0, 1 / 3, 0, 1])
        assert dead_share(features) == 0.5
    with pytest.raises(InputError):
        l0(FEATURES[:0])


def test_density_histogram_counts_each_feature_once():
    found = density_histogram(np.array([0, 1, 0.1, 0.11, 1e-9]), bins=6)
    assert found.dead == 1
    assert found.counts.sum() == 4
    assert np.allclose(found.edges, np.arange(-6, 1))
    assert found.counts.tolist() == [1, 0, 0, 0, 0, 3]  # 0.1 is the last bin's left edge
    with pytest.raises(InputError):
        density_histogram(np.array([1.2]))


def test_fvu_is_one_for_the_mean_and_undefined_where_nothing_varies():
    x = np.random.default_rng(0).normal(size=(50, 3)) * [1, 5, 0.1]
    assert fvu(x, np.broadcast_to(x.mean(0), x.shape)) == pytest.approx(1.0)
    assert fvu(x, x) == 0
    assert fvu(np.ones((4, 2)), np.zeros((4, 2))) is None
    assert fvu(x, x + 1) == pytest.approx(150 / np.square(x - x.mean(0)).sum())
    with pytest.raises(InputError):
        fvu(x, x[:1])


def test_evaluate_is_the_metrics_in_blocks():
    x = planted_features()
    fitted = TopK(16, Training(samples=4000, batch=100), active=3).fit(x)
    scores, features = evaluate(fitted, x), fitted.encode(x)
    assert scores.l0 == pytest.approx(l0(features))
    assert scores.fvu == pytest.approx(fvu(x, fitted.decode(features)), rel=1e-5)
    assert scores.dead == dead_share(features)
    assert np.allclose(scores.density, density(features))
    assert scores.n == len(x)
    whole = PCA().fit(x)
    assert evaluate(whole, x.reshape(10, 15, 10, 8)).fvu == pytest.approx(0, abs=1e-6)


def test_matching_by_hand_and_by_brute_force():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(4, 3)), rng.normal(size=(6, 3))
    cosines = (a @ b.T) / np.linalg.norm(a, axis=1)[:, None] / np.linalg.norm(b, axis=1)
    found = matched_cosine(a, b)
    assert np.allclose(found.best, cosines.max(1), atol=1e-6)
    assert np.array_equal(found.nearest, cosines.argmax(1))
    best = max(sum(cosines[i, p] for i, p in enumerate(pick)) for pick in permutations(range(6), 4))
    assert found.paired.sum() == pytest.approx(best, abs=1e-6)
    assert len(set(found.pairs[:, 1])) == 4
    signless = matched_cosine(a, -b, absolute=True)
    assert signless.mean_max == pytest.approx(np.abs(cosines).max(1).mean(), abs=1e-6)
    permuted = matched_cosine(a, 3 * a[[2, 0, 3, 1]])
    assert permuted.mean_paired == pytest.approx(1)
    assert permuted.pairs[:, 1].tolist() == [1, 3, 0, 2]
    with pytest.raises(InputError):
        matched_cosine(a, b[:, :2])


def test_chance_grows_with_the_number_of_directions():
    truth = np.random.default_rng(0).normal(size=(20, 16))
    few, many = (chance_cosine(truth, m, np.random.default_rng(1), 5).mean() for m in (16, 512))
    assert 0.3 < few < many < 0.8


# --- loss recovered -----------------------------------------------------------------------------


class Fixed:
    """A dictionary that reconstructs by a given function."""

    def __init__(self, change):
        self.encode, self.decode = (lambda x: x), change


def half_sum(output, batch):
    return output.reshape(len(batch), -1).sum(1) / 2


@pytest.mark.parametrize(
    ("model", "inputs", "site"),
    [
        (CoordinateModel(inputs=2, outputs=1, width=8), (30, 2), "mlp.act[1]"),
        (AutoencoderModel(side=8, width=4, latent=4), (6, 1, 8, 8), "encoder.out"),
    ],
    ids=["coordinates", "images"],
)
def test_loss_recovered_of_any_network(model, inputs, site):
    network = build(model, [("a", 0), ("a", 1)])
    x = np.random.default_rng(0).normal(size=inputs).astype(np.float32)
    batch = Batch(x, x, {})

    def score(change, member=1):
        return loss_recovered(network, batch, site, Fixed(change), half_sum, member=member, rows=4)

    with torch.no_grad():
        output = network(torch.from_numpy(x)[None].expand(2, *inputs))
    kept = score(lambda x: x)
    assert np.allclose(kept.clean, half_sum(output[1], batch).numpy(), atol=1e-5)
    assert np.allclose(kept.spliced, kept.clean)
    nothing = score(lambda x: 0 * x)
    assert np.allclose(nothing.spliced, nothing.zero)
    assert not np.allclose(nothing.zero, nothing.clean)
    assert not np.allclose(kept.clean, score(lambda x: x, member=0).clean)


def test_shares_recovered():
    network = build(CoordinateModel(inputs=2, outputs=1, width=8), [("a", 0)])
    x = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
    with torch.no_grad():
        target = network(torch.from_numpy(x)[None])[0]
    batch = Batch(x, target.numpy(), {})

    def squared(output, part):
        return (output - torch.from_numpy(part.targets)).square().sum(1)

    site = "mlp.act[1]"
    whole = loss_recovered(network, batch, site, Fixed(lambda a: a), squared)
    assert (whole.over_zero, whole.over_mean) == (1.0, 1.0)
    none = loss_recovered(network, batch, site, Fixed(lambda a: 0 * a), squared)
    assert none.over_zero == pytest.approx(0, abs=1e-6)
    middle = loss_recovered(
        network, batch, site, Fixed(lambda a: np.broadcast_to(a.mean(0), a.shape)), squared
    )
    assert middle.over_mean == pytest.approx(0, abs=1e-4)
    flat = loss_recovered(network, batch, site, Fixed(lambda a: a), lambda o, b: o[:, 0] * 0)
    assert flat.over_zero is None
    with pytest.raises(InputError, match="one for each"):
        loss_recovered(network, batch, site, Fixed(lambda a: a), lambda o, b: o)


def test_loss_recovered_at_one_position_of_sequences():
    network = build(
        TransformerModel(layers=2, width=16, heads=2, mlp=16, vocabulary=12), [("a", 0)]
    )
    tokens = np.random.default_rng(0).integers(0, 12, (7, 6))
    lengths = np.array([6, 6, 5, 6, 4, 6, 6])
    answers = np.stack([lengths - 1, lengths], 1)
    batch = Batch(tokens, tokens, {}, {"answer": answers}, lengths)

    def nats(output, part):
        at = torch.from_numpy(part.spans["answer"][:, 0] - 1)
        rows = torch.arange(len(part))
        token = torch.from_numpy(part.inputs)[rows, at + 1]
        return -output[rows, at].log_softmax(-1)[rows, token]

    same = loss_recovered(network, batch, "resid.post[0]", Fixed(lambda a: a), nats)
    assert np.allclose(same.spliced, same.clean, atol=1e-5)
    zero = Fixed(lambda a: 0 * a)
    everywhere = loss_recovered(network, batch, "resid.post[0]", zero, nats)
    only = loss_recovered(network, batch, "resid.post[0]", zero, nats, positions="prompt_end")
    assert np.allclose(only.spliced, only.zero)
    assert not np.allclose(everywhere.zero, only.zero)
    with pytest.raises(InputError, match="site"):
        loss_recovered(network, batch, "resid.post", zero, nats)
