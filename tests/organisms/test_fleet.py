"""Fleets: a member's numbers are its own, to the bit; gradients end up where they belong."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from terrarium.organisms import engine
from terrarium.organisms.engine import Runner, run_phase
from terrarium.organisms.feed import own_turn
from terrarium.organisms.recipe import (
    EarlyExit,
    LoRA,
    NextToken,
    Optimizer,
    Phase,
    Source,
    TransformerModel,
)
from terrarium.organisms.transformer import Transformer
from terrarium.worlds.base import Batch

# Below about 4,096 multiplications PyTorch chooses a matrix kernel by the size of the whole
# fleet, so these are as small as members can be whose bits do not depend on it.
SHAPES = {
    "16 x 16": (16, 16, TransformerModel(layers=2, width=64, mlp=176, vocabulary=64)),
    "odd numbers": (5, 9, TransformerModel(layers=2, width=64, mlp=84, vocabulary=41)),
    "narrow": (33, 11, TransformerModel(layers=1, width=32, heads=2, mlp=40, vocabulary=23)),
}
STEPS = 20


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Noise:
    """A world of random rows; every other one has its first half unscored."""

    def __init__(self, t, vocabulary):
        self.t, self.vocabulary = t, vocabulary

    def sample(self, n, rng, split="train"):
        inputs = rng.integers(0, self.vocabulary, (n, self.t))
        targets = np.full_like(inputs, -100)
        targets[:, :-1] = inputs[:, 1:]
        targets[::2, : self.t // 2] = -100
        return Batch(inputs, targets, {}, {}, np.full(n, self.t))


RATES = {0: 3e-3, 1: 1e-2, 2: 1e-3}


def member(seed, rows, world, rates, lora, early_exit):
    phase = Phase(
        name="noise",
        sources=(Source(world="noise"),),
        objective=NextToken(early_exit=early_exit),
        steps=STEPS,
        batch=rows,
        optimizer=Optimizer(lr=rates[seed], warmup=3),
        lora=lora,
    )
    return Runner(phase, 0, seed, [own_turn(phase, [world])])


def grown(shape, seeds, lora=None, rates=RATES, resume=None, save=None, early_exit=None):
    n, t, model = SHAPES[shape]
    members = [
        member(seed, n, Noise(t, model.vocabulary), rates, lora, early_exit) for seed in seeds
    ]
    network = Transformer(model, [("seed", seed) for seed in seeds])
    run_phase(network, members, resume=resume, save=save)
    return dict(zip(seeds, members, strict=True))


def same(a, b):
    return set(a) == set(b) and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    ("shape", "lora"),
    [
        *((shape, None) for shape in SHAPES),
        ("16 x 16", LoRA(rank=4)),
        ("odd numbers", LoRA(rank=8)),
    ],
)
def test_a_member_of_a_fleet_is_a_fleet_of_one_to_the_bit(shape, lora):
    together = grown(shape, [0, 1, 2], lora)
    for seed, member in together.items():
        alone = grown(shape, [seed], lora)[seed]
        assert same(alone.final, member.final)
        assert same(alone.moments, member.moments)
        assert alone.history == member.history


def test_not_a_number_in_one_leaves_the_others_alone_to_the_bit():
    shape = "odd numbers"
    together = grown(shape, [0, 1, 2], rates=RATES | {1: 1e30})
    assert [m.status for m in together.values()] == ["grown", "diverged", "grown"]
    assert together[1].stopped_at < STEPS
    for seed in (0, 2):
        assert same(grown(shape, [seed])[seed].final, together[seed].final)


@pytest.mark.parametrize("lora", [None, LoRA(rank=4)], ids=["all weights", "lora"])
def test_resuming_is_exact(monkeypatch, lora):
    monkeypatch.setattr(engine, "CHECKPOINT_SECONDS", 0.0)
    kept = []
    whole = grown("odd numbers", [0, 1], lora, save=kept.append)
    assert len(kept) == STEPS
    resumed = grown("odd numbers", [0, 1], lora, resume=kept[6])
    for seed in whole:
        assert same(whole[seed].final, resumed[seed].final)
        assert whole[seed].history == resumed[seed].history


def test_no_warning_about_the_layout_of_gradients():
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            grown("odd numbers", [0, 1])
    finally:
        torch.set_warn_always(False)


def network(members=2):
    model = TransformerModel(layers=1, width=16, heads=2, mlp=24, vocabulary=7)
    return Transformer(model, [("seed", i) for i in range(members)])


def backward(net):
    tokens = torch.arange(12).remainder(7).view(1, 2, 6).expand(net.members, -1, -1)
    net(tokens).sin().sum().backward()


@pytest.mark.filterwarnings("ignore:grad and param do not obey the gradient layout")
def test_gradients_are_collected_by_member_and_name():
    net = network()
    net.zero_grad()
    backward(net)
    expected = {name: net.weights[name].grad.clone() for name in net.weights.slots}
    (row,) = net.collect_gradients()
    for name, slot in net.weights.slots.items():
        here = row[:, slot.start : slot.stop].view(expected[name].shape)
        assert torch.equal(here, expected[name])
        assert torch.equal(net.weights[name].grad, expected[name])
    for member in range(2):
        (leaf,) = net.member_parameters(member)
        assert torch.equal(leaf.grad, row[member])
    before = row.clone()
    net.collect_gradients()
    assert torch.equal(row, before), "collecting twice changes nothing"
    backward(net)
    net.collect_gradients()
    torch.testing.assert_close(row, 2 * before)
    net.zero_grad()
    net.collect_gradients()
    assert not row.any(), "no gradient counts as zero"


def test_frozen_names_are_left_out():
    net = network()
    backward(net)
    rows = net.collect_gradients(("embed", "blocks.0.out"))
    leaves = net.member_parameters(1, ("embed", "blocks.0.out"))
    assert [r.shape[1] for r in rows] == [leaf.numel() for leaf in leaves]
    assert sum(r.shape[1] for r in rows) == net.parameters_per_member - 7 * 16 - 16 * 16
    assert all(torch.equal(r[1], leaf.grad) for r, leaf in zip(rows, leaves, strict=True))


@pytest.mark.parametrize("training", [False, True])
def test_only_adapters_learn_until_they_are_merged(training):
    net = network().train(training)
    net.add_lora(LoRA(rank=2), [("lora", 0), ("lora", 1)])
    for fleet in (net, net.select([1])):
        fleet.zero_grad()
        backward(fleet)
        assert all(p.grad is None for p in fleet.weights.parameters())
        assert all(p.grad is not None for p in fleet.adapters.parameters())
    net.keep([1])
    net.zero_grad()
    backward(net)
    assert all(p.grad is None for p in net.weights.parameters())
    net.merge_lora()
    backward(net)
    assert all(p.grad is not None for p in net.weights.parameters())


def test_a_selection_is_a_copy_in_the_same_mode():
    net = network(3).train()
    chosen = net.select([2, 0])
    assert chosen.training
    assert torch.equal(chosen.weights.values, net.weights.values[[2, 0]])
    with torch.no_grad():
        chosen.weights.values.zero_()
    assert net.weights.values.abs().sum() > 0
    assert not net.eval().select([0]).training


def test_an_early_exit_trains_like_any_other_loss():
    # the exit's targets need a fact of the world; without one the engine says so
    from terrarium.errors import InputError

    with pytest.raises(InputError, match="truth"):
        grown("odd numbers", [0], early_exit=EarlyExit(layer=1))
