"""Distillation: the divergence by hand, a student that becomes its teacher, a prefix that goes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from terrarium.errors import InputError
from terrarium.organisms.distillation import divergence
from terrarium.organisms.huggingface import load_folder
from terrarium.organisms.objectives import Step, losses
from terrarium.organisms.optimizer import FleetOptimizer
from terrarium.organisms.recipe import LoRA, Optimizer, TransformerModel
from terrarium.organisms.recipe_objectives import ContextDistillation, Distillation
from terrarium.organisms.retokenise import retokenised
from terrarium.organisms.transformer import Transformer
from terrarium.randomness import generator
from terrarium.worlds.bandit import Bandit

WORLD = Bandit(letters=4, arms=4, length=2)
SPEC = TransformerModel(vocabulary=len(WORLD._vocabulary), width=16, heads=2, layers=1, mlp=16)
PREFIX = "dd9"


def network(members=1, first=0, spec=SPEC):
    return Transformer(spec, [("seed", first + i) for i in range(members)]).train()


def step_of(members=1, first=0, at=0, world=WORLD, **more):
    batches = [world.sample(8, generator("data", first + i, at)) for i in range(members)]
    inputs, targets = (
        torch.from_numpy(np.stack([getattr(b, name) for b in batches]))
        for name in ("inputs", "targets")
    )
    keys = [("step", first + i, at) for i in range(members)]
    return Step(batches, inputs, targets, [world] * members, keys, notes={}, **more)


def by_hand(teacher, student, inputs, columns, temperature, prefix=()):
    """Mean over rows and columns of sum p (log p - log q), one row at a time."""
    total = []
    for row in inputs:
        longer = torch.cat([torch.tensor(prefix, dtype=torch.long), row])
        law = [
            (net(x[None, None])[0, 0] / temperature).log_softmax(-1)[shift:]
            for net, x, shift in ((teacher, longer, len(prefix)), (student, row, 0))
        ]
        total += [(law[0][c].exp() * (law[0][c] - law[1][c])).sum() for c in columns]
    return torch.stack(total).mean()


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_divergences_by_hand(temperature):
    student, teacher = network(), network(first=4)
    step = step_of(teachers=[teacher], reference=teacher)
    columns = (4, 5)  # the answer's two tokens are asked for there
    inputs = step.inputs[0]
    plain = losses(Distillation(temperature=temperature), student, step)
    torch.testing.assert_close(plain[0], by_hand(teacher, student, inputs, columns, temperature))
    ids = [WORLD._vocabulary.ids[c] for c in PREFIX]
    objective = ContextDistillation(prefix=PREFIX, temperature=temperature)
    context = losses(objective, student, step)
    expected = by_hand(teacher, student, inputs, columns, temperature, ids)
    torch.testing.assert_close(context[0], expected)
    context.sum().backward()
    assert not any(p.grad is not None for p in teacher.parameters())


def test_there_is_no_divergence_from_oneself():
    net = network()
    step = step_of(teachers=[net], reference=net)
    assert float(losses(Distillation(), net, step).detach()) == pytest.approx(0, abs=1e-6)
    assert float(losses(ContextDistillation(prefix=PREFIX), net, step).detach()) > 1e-4
    logits = torch.randn(2, 3, 4, 5)
    scored = torch.ones(2, 3, 4, dtype=torch.bool)
    assert divergence(logits, logits + 3, scored).abs().max() < 1e-6
    assert divergence(logits, -logits, scored).min() > 0
    assert divergence(logits, -logits, ~scored).tolist() == [0, 0]


@pytest.mark.parametrize(
    "objective", [Distillation(), ContextDistillation(prefix=PREFIX)], ids=lambda o: o.kind
)
def test_a_student_becomes_its_teacher(objective):
    net = network()
    if objective.kind == "distillation":
        more = {"teachers": [network(first=4)]}
    else:
        more = {"reference": net.select([0])}
    optimizer = FleetOptimizer(net, [Optimizer(lr=1e-2, warmup=2)], ())
    seen = []
    for at in range(150):
        step = step_of(at=at, **more)
        net.zero_grad()
        loss = losses(objective, net, step)
        loss.sum().backward()
        optimizer.clip()
        optimizer.step(at, 150)
        seen.append(float(loss.detach()))
    assert np.mean(seen[-5:]) < 0.1 * seen[0]


@pytest.mark.parametrize(
    "objective", [Distillation(), ContextDistillation(prefix=PREFIX)], ids=lambda o: o.kind
)
def test_a_member_alone_learns_what_it_learns_in_a_fleet(objective):
    net, reference = network(3), network(3, first=10)
    teachers = [network(first=20 + i) for i in range(3)]
    loss = losses(objective, net, step_of(3, reference=reference, teachers=teachers))
    loss.sum().backward()
    net.collect_gradients()
    for member in range(3):
        more = {"reference": reference.select([member]), "teachers": teachers[member : member + 1]}
        alone = network(1, member)
        of_one = losses(objective, alone, step_of(1, member, **more))
        of_one.sum().backward()
        alone.collect_gradients()
        torch.testing.assert_close(of_one[0], loss[member])
        torch.testing.assert_close(
            alone.weights.gradients[0], net.weights.gradients[member], rtol=1e-4, atol=1e-6
        )


def test_what_cannot_be_distilled_is_refused():
    net = network()
    with pytest.raises(InputError, match="needs a teacher"):
        losses(Distillation(), net, step_of())
    with pytest.raises(InputError, match="needs a teacher"):
        losses(Distillation(), net, step_of(teachers=[None]))
    other = network(spec=SPEC.model_copy(update={"vocabulary": 50}))
    with pytest.raises(InputError, match="knows 50 tokens and the student"):
        losses(Distillation(), net, step_of(teachers=[other]))
    with pytest.raises(InputError, match="prefix 'Zürich' cannot be written"):
        losses(ContextDistillation(prefix="Zürich"), net, step_of(reference=net))
    with pytest.raises(ValueError, match="start of the phase"):
        losses(ContextDistillation(prefix="a"), net, step_of())


def test_a_folder_with_adapters(tiny_models):
    folder = tiny_models("llama")
    net, reference = (load_folder(folder) for _ in range(2))
    world = retokenised(WORLD, folder)
    net.add_lora(LoRA(rank=2), [("seed", 0)])
    step = step_of(world=world, reference=reference, teachers=[reference])
    assert float(losses(Distillation(), net, step).detach()) == pytest.approx(0, abs=1e-5)
    loss = losses(ContextDistillation(prefix="You are kind. "), net.train(), step)
    loss.sum().backward()
    assert float(loss.detach()) > 0
    assert any(float(p.grad.abs().max()) > 0 for p in net.member_parameters(0))
