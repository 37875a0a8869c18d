"""The optimiser of a fleet against PyTorch's own, member by member."""

from __future__ import annotations

import math

import pytest
import torch

from terrarium.organisms.optimizer import FleetOptimizer, learning_rate
from terrarium.organisms.recipe import Optimizer, TransformerModel
from terrarium.organisms.transformer import Transformer

SPECS = (
    Optimizer(lr=1e-2, warmup=2, clip=0.5),
    Optimizer(lr=3e-3, betas=(0.8, 0.95), weight_decay=0.1, schedule="cosine", warmup=0, clip=None),
    Optimizer(lr=1e-2, warmup=2, clip=0.5),
    Optimizer(lr=1e-3, schedule="linear", clip=50.0),
)


def network(members):
    model = TransformerModel(layers=1, width=8, heads=2, mlp=8, vocabulary=5)
    return Transformer(model, [("seed", i) for i in range(members)])


def fill(net, step):
    """Give every parameter a gradient of its own, different for every member and step."""
    drawn = torch.Generator().manual_seed(step)
    net.zero_grad()
    for name in net.weights.slots:
        view = net.weights[name]
        view.grad = torch.randn(view.shape, generator=drawn)


@pytest.mark.parametrize("frozen", [(), ("embed",), ("blocks.0.out", "norm")])
def test_each_member_takes_the_steps_of_adamw(frozen):
    net = network(len(SPECS))
    optimizer = FleetOptimizer(net, SPECS, frozen)
    twins = [net.select([m]) for m in range(len(SPECS))]
    judges = [
        torch.optim.AdamW(
            [twin.weights[n] for n in twin.weights.slots if not n.startswith(frozen)],
            betas=spec.betas,
            weight_decay=spec.weight_decay,
        )
        for twin, spec in zip(twins, SPECS, strict=True)
    ]
    for step in range(5):
        fill(net, step)
        grads = {n: net.weights[n].grad.clone() for n in net.weights.slots}
        norms = optimizer.clip()
        optimizer.step(step, 10)
        for m, (twin, judge, spec) in enumerate(zip(twins, judges, SPECS, strict=True)):
            trained = judge.param_groups[0]["params"]
            twin.zero_grad()
            for name, grad in grads.items():
                twin.weights[name].grad = grad[m : m + 1].clone()
            norm = torch.nn.utils.clip_grad_norm_(trained, spec.clip or math.inf)
            torch.testing.assert_close(norms[m], norm)
            judge.param_groups[0]["lr"] = learning_rate(spec, step, 10)
            judge.step()
    for m, twin in enumerate(twins):
        torch.testing.assert_close(net.weights.values[m], twin.weights.values[0])
        for name in net.weights.slots:
            kept = torch.equal(net.weights[name][m], network(m + 1).weights[name][m])
            assert kept == name.startswith(frozen or ("-",))


def test_clipping_leaves_small_gradients_and_other_members_alone():
    net = network(2)
    optimizer = FleetOptimizer(net, [Optimizer(clip=1.0)] * 2, ())
    fill(net, 0)
    net.weights["embed"].grad[1] = torch.nan
    for name in net.weights.slots:
        net.weights[name].grad[0] *= 1e-3
    before = net.weights["embed"].grad[0].clone()
    norms = optimizer.clip()
    assert norms[0] < 1
    assert torch.isnan(norms[1])
    assert torch.equal(net.weights["embed"].grad[0], before)


def test_the_rate_warms_up_then_follows_the_schedule():
    constant = Optimizer(lr=2.0, warmup=4)
    assert [learning_rate(constant, s, 10) for s in (0, 1, 3, 4, 9)] == [0.5, 1.0, 2.0, 2.0, 2.0]
    linear = Optimizer(lr=2.0, warmup=0, schedule="linear", final=0.5)
    assert [learning_rate(linear, s, 10) for s in (0, 5, 10, 11)] == [2.0, 1.5, 1.0, 1.0]
    cosine = Optimizer(lr=2.0, warmup=2, schedule="cosine", final=0.0)
    assert learning_rate(cosine, 6, 10) == pytest.approx(1.0)
    assert learning_rate(cosine, 10, 10) == pytest.approx(0.0)


def test_members_that_stay_keep_their_moments():
    specs = [SPECS[0], SPECS[1], SPECS[0]]
    net = network(3)
    optimizer = FleetOptimizer(net, specs, ())
    for step in range(3):
        fill(net, step)
        optimizer.clip()
        optimizer.step(step, 10)
    states = [optimizer.member_state(m) for m in range(3)]
    assert all(set(s) == {"0.step", "0.exp_avg", "0.exp_avg_sq"} for s in states)
    net.keep([2, 1])
    optimizer.keep(net, [2, 1])
    for place, old in enumerate((2, 1)):
        now = optimizer.member_state(place)
        assert all(torch.equal(now[name], states[old][name]) for name in now)
    assert optimizer.specs == [specs[2], specs[1]]
