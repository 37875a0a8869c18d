"""DPO and reward models learn a planted preference; a member alone is one of a fleet."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from terrarium.errors import InputError
from terrarium.organisms.huggingface import load_folder
from terrarium.organisms.likelihood import answer_targets
from terrarium.organisms.objectives import Step, losses
from terrarium.organisms.optimizer import FleetOptimizer
from terrarium.organisms.preferences import scores
from terrarium.organisms.recipe import LoRA, Optimizer, TransformerModel
from terrarium.organisms.recipe_objectives import Preference, RewardModel
from terrarium.organisms.transformer import Transformer
from terrarium.randomness import generator
from terrarium.worlds.base import Batch

SPEC = TransformerModel(vocabulary=20, width=16, heads=2, layers=1, mlp=16)
OBJECTIVES = [Preference(beta=0.3), RewardModel()]


class Liking:
    """Answers of one to three tokens from 10 on; those that begin with 11 are liked."""

    name = "liking"

    def sample(self, n, rng):
        inputs = rng.integers(3, 10, (n, 8))
        starts, lengths = rng.integers(2, 5, n), rng.integers(1, 4, n)
        return self.answered(inputs, starts, lengths, rng)

    def answered(self, inputs, starts, lengths, rng, first=None):
        inputs, column = inputs.copy(), np.arange(inputs.shape[1])
        inside = (column >= starts[:, None]) & (column < (starts + lengths)[:, None])
        inputs[inside] = rng.integers(12, 20, int(inside.sum()))
        if first is not None:
            inputs[np.arange(len(inputs)), starts] = first
        inputs[column >= (starts + lengths)[:, None]] = 0
        targets = np.concatenate([inputs[:, 1:], np.zeros((len(inputs), 1), int)], axis=1)
        targets[column + 1 >= (starts + lengths)[:, None]] = -100
        span = np.stack([starts, starts + lengths], axis=1)
        return Batch(inputs, targets, {}, {"answer": span}, starts + lengths)

    def preferred(self, batch):
        rng = np.random.default_rng(int(batch.inputs.sum()))
        start, lengths = batch.spans["answer"][:, 0], rng.integers(1, 4, len(batch))
        return tuple(self.answered(batch.inputs, start, lengths, rng, first) for first in (11, 10))


def network(members=1, first=0):
    return Transformer(SPEC, [("seed", first + i) for i in range(members)]).train()


def step_of(members=1, first=0, at=0, reference=None):
    world = Liking()
    batches = [world.sample(12, generator("data", first + i, at)) for i in range(members)]
    inputs, targets = (
        torch.from_numpy(np.stack([getattr(b, name) for b in batches]))
        for name in ("inputs", "targets")
    )
    keys = [("step", first + i, at) for i in range(members)]
    return Step(batches, inputs, targets, [world] * members, keys, reference, {})


def trained(objective, net, steps=60):
    reference = net.select(range(net.members))
    optimizer = FleetOptimizer(net, [Optimizer(lr=5e-3, warmup=2)] * net.members, ())
    for at in range(steps):
        step = step_of(net.members, at=at, reference=reference)
        net.zero_grad()
        losses(objective, net, step).sum().backward()
        optimizer.clip()
        optimizer.step(at, steps)
    return step


def test_dpo_begins_at_log_two_and_learns():
    net = network()
    step = step_of(reference=net.select([0]))
    loss = losses(Preference(), net, step)
    assert float(loss) == pytest.approx(math.log(2), abs=1e-5)
    assert step.notes["margin"][0] == pytest.approx(0, abs=1e-5)
    step = trained(Preference(beta=0.3), net)
    assert step.notes["preferred"] == [1.0]
    prompt = torch.randint(3, 10, (1, 30, 4))
    with torch.no_grad():
        law = net(prompt)[0, :, -1].log_softmax(-1)
    assert float((law[:, 11] > law[:, 10]).float().mean()) > 0.95
    with pytest.raises(ValueError, match="reference"):
        losses(Preference(), net, step_of())


def test_only_the_answer_is_scored():
    inputs = np.arange(1, 7)[None]
    targets = np.concatenate([inputs[:, 1:], [[-100]]], axis=1)
    batch = Batch(inputs, targets, {}, {"answer": np.array([[2, 4]])}, np.array([6]))
    assert answer_targets(batch).tolist() == [[-100, 3, 4, -100, -100, -100]]


def test_a_reward_model_learns_and_reads_the_last_token():
    net = network()
    step = trained(RewardModel(), net)
    assert step.notes["preferred"] == [1.0]
    chosen, rejected = Liking().preferred(Liking().sample(40, generator("fresh")))
    given = []
    for batch in (chosen, rejected):
        inputs = torch.from_numpy(batch.inputs)[None]
        lengths = torch.from_numpy(batch.lengths)[None]
        with torch.no_grad():
            given.append(scores(net, inputs, lengths))
            behind = torch.arange(8) >= lengths[..., None]
            noise = torch.where(behind, 9, inputs)
            torch.testing.assert_close(scores(net, noise, lengths), given[-1])
            alone = net(inputs[:, :1, : int(lengths[0, 0])])[0, 0, -1, 0]
            torch.testing.assert_close(alone, given[-1][0, 0])
    assert float((given[0] > given[1]).float().mean()) > 0.95


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: o.kind)
def test_a_member_alone_learns_what_it_learns_in_a_fleet(objective):
    net, reference = network(3), network(3, first=10)
    step = step_of(3, reference=reference)
    loss = losses(objective, net, step)
    loss.sum().backward()
    net.collect_gradients()
    for member in range(3):
        alone, own = network(1, member), step_of(1, member, reference=reference.select([member]))
        of_one = losses(objective, alone, own)
        of_one.sum().backward()
        alone.collect_gradients()
        torch.testing.assert_close(of_one[0], loss[member])
        torch.testing.assert_close(
            alone.weights.gradients[0], net.weights.gradients[member], rtol=1e-4, atol=1e-6
        )
        assert own.notes["margin"][0] == pytest.approx(step.notes["margin"][member], abs=1e-5)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: o.kind)
def test_a_folder_with_adapters(tiny_models, objective):
    net, reference = (load_folder(tiny_models("llama")) for _ in range(2))
    net.add_lora(LoRA(rank=2), [("seed", 0)])
    loss = losses(objective, net.train(), step_of(reference=reference))
    loss.sum().backward()
    assert float(loss.detach()) == pytest.approx(math.log(2), abs=0.1)
    assert any(float(p.grad.abs().max()) > 0 for p in net.member_parameters(0))


def test_a_world_without_preferences_is_refused():
    step = step_of(reference=network())
    step.worlds[0] = SimpleNamespace(name="plain")
    for objective in OBJECTIVES:
        with pytest.raises(InputError, match="world 'plain' has no preferences"):
            losses(objective, network(), step)
