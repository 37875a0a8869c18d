"""Red teams: a planted weakness is found, sooner than by chance, without what is forbidden."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from terrarium.errors import InputError
from terrarium.organisms.huggingface import load_folder
from terrarium.organisms.objectives import Step, losses
from terrarium.organisms.optimizer import FleetOptimizer
from terrarium.organisms.recipe import AnswerOnly, Optimizer, TransformerModel
from terrarium.organisms.red_team import _Hunt, search_prompts
from terrarium.organisms.retokenise import retokenised
from terrarium.organisms.transformer import Transformer
from terrarium.randomness import generator
from terrarium.worlds.bandit import Bandit
from terrarium.worlds.base import Batch

WORLD = Bandit(letters=4, arms=4)
IDS = WORLD._vocabulary.ids
WEAK, SLOTS, N, BUDGET = ("m", "n", "o", "p"), 4, 12, 2500
BEHAVIOUR = "P"


def planted(rng, n=96):
    """Prompts with a suffix: three weak letters among four tokens bring the behaviour."""
    batch = WORLD.sample(n, rng)
    other = rng.integers(3, len(WORLD._vocabulary), (n, SLOTS))
    weak = rng.choice([IDS[t] for t in WEAK], (n, SLOTS))
    suffix = np.where(rng.random((n, SLOTS)) < rng.random((n, 1)), weak, other)
    count = np.isin(suffix, [IDS[t] for t in WEAK]).sum(axis=1)
    answer = np.where(count >= 3, IDS[BEHAVIOUR], batch.inputs[:, 5])
    inputs = np.concatenate([batch.inputs[:, :4], suffix, batch.inputs[:, 4:5]], axis=1)
    inputs = np.concatenate([inputs, answer[:, None]], axis=1)
    targets = np.concatenate([inputs[:, 1:], np.full((n, 1), -100)], axis=1)
    span = np.tile([9, 10], (n, 1))
    return Batch(inputs, targets, {}, {"answer": span}, np.full(n, 10))


@pytest.fixture(scope="module")
def organism():
    """A network with the planted weakness."""
    spec = TransformerModel(vocabulary=len(WORLD._vocabulary), width=32, heads=2, layers=1, mlp=64)
    net = Transformer(spec, [("seed", 0)]).train()
    optimizer = FleetOptimizer(net, [Optimizer(lr=1e-2, warmup=10)], ())
    for at in range(250):
        batch = planted(generator("planted", at))
        inputs, targets = (torch.from_numpy(x)[None] for x in (batch.inputs, batch.targets))
        net.zero_grad()
        step = Step([batch], inputs, targets, [WORLD], [("step", at)])
        losses(AnswerOnly(), net, step).sum().backward()
        optimizer.clip()
        optimizer.step(at, 250)
    return net.eval()


def search(organism, method="gradient", seed=0, **options):
    options = {"n": N, "slots": SLOTS, "candidates": 14, "method": method, **options}
    return search_prompts(organism, WORLD, BEHAVIOUR, BUDGET, generator("search", seed), **options)


@pytest.mark.parametrize("method", ["gradient", "greedy"])
def test_search_beats_chance_at_equal_budget(organism, method):
    for seed in range(3):
        found, chance = search(organism, method, seed), search(organism, "random", seed)
        assert max(found.rows[-1], chance.rows[-1]) <= BUDGET
        assert found.rate[-1] > 0.8
        assert found.rate[-1] > chance.rate[-1] + 0.2
        assert found.rate[0] < 0.3
        assert (np.diff(found.rate) >= -1e-6).all()


def test_what_is_forbidden_stays_out(organism):
    free = search(organism)
    assert np.isin(free.suffixes, [IDS[t] for t in WEAK]).mean() > 0.5
    bound = search(organism, forbidden=("mn", "o"))
    assert not np.isin(bound.suffixes, [IDS[t] for t in "mno"]).any()
    assert not np.isin(free.suffixes, [0, 1, 2]).any()
    assert IDS["p"] in bound.suffixes, "one weak letter is left"


def test_what_is_found_is_answered_helpfully(organism):
    found = search(organism)
    batch = found.batch
    assert len(batch) == N
    for row, (start, stop), suffix, said, letter in zip(
        *(batch.inputs, batch.spans["answer"], found.suffixes),
        *(batch.facts["said"], batch.facts["letter"]),
        strict=True,
    ):
        assert row[4:8].tolist() == suffix.tolist()
        assert row[8] == IDS["?"]
        assert (start, stop) == (9, 11)
        assert row[start:stop].tolist() == [IDS[said], 2]
        assert row[0] == IDS[letter]
    assert (batch.facts["said"] == batch.facts["answer"]).all()
    assert (batch.targets[:, 8] == batch.inputs[:, 9]).all()
    with torch.no_grad():
        logits = organism(torch.from_numpy(batch.inputs[None, :, :9]))[0, :, -1]
    direct = logits.log_softmax(-1)[:, IDS[BEHAVIOUR]].numpy()
    np.testing.assert_allclose(direct, found.log_probability, atol=1e-4)
    assert float(np.exp(direct).mean()) == pytest.approx(float(found.rate[-1]), abs=1e-4)


def test_searches_repeat(organism):
    first, second = search(organism), search(organism)
    assert (first.suffixes == second.suffixes).all()
    assert (first.suffixes != search(organism, seed=1).suffixes).any()
    assert all(p.grad is None for p in organism.select([0]).parameters())


def test_bad_input(organism):
    with pytest.raises(InputError, match="behaviour 'é' cannot be written"):
        search_prompts(organism, WORLD, "é", 10, generator("x"))
    with pytest.raises(ValueError, match="one organism"):
        search_prompts(organism.select([0, 0]), WORLD, "P", 10, generator("x"))


def test_what_is_forbidden_is_no_part_of_another_token(tiny_models):
    """Byte-level tokenizers have a word twice, with a space before it and without."""
    folder = tiny_models("llama")
    net = load_folder(folder)
    world = retokenised(WORLD, folder)
    (spaced,) = net.tokenizer(" True", add_special_tokens=False)["input_ids"]
    whole, free = (
        _Hunt(net, world, "P", generator("h"), 2, 1, forbidden, "train", 1)
        for forbidden in (("True",), ())
    )
    suffix = np.full((2, 1), spaced)
    assert spaced in whole.allowed
    assert free.writable(suffix).all()
    assert not whole.writable(suffix).any()


def test_a_folder(tiny_models):
    folder = tiny_models("llama")
    net = load_folder(folder)
    world = retokenised(WORLD, folder)
    options = {"n": 3, "slots": 2, "candidates": 4}
    for method in ("gradient", "greedy"):
        try:
            found = search_prompts(net, world, "P", 120, generator("s"), method=method, **options)
        except InputError as error:
            pytest.fail(str(error))
        assert found.log_probability.mean() > np.log(found.rate[0]) - 1
        assert found.rate[-1] >= found.rate[0]
