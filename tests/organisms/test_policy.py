"""Policy gradients: unbiased by enumeration, only of what was written, and a member's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from terrarium.errors import InputError
from terrarium.organisms import policy
from terrarium.organisms.huggingface import load_folder
from terrarium.organisms.objectives import Step, losses
from terrarium.organisms.optimizer import FleetOptimizer
from terrarium.organisms.policy import _Rollout, k3, leave_one_out, within_group
from terrarium.organisms.recipe import LoRA, Optimizer, TransformerModel
from terrarium.organisms.recipe_objectives import AnswerOnly, PolicyGradient
from terrarium.organisms.retokenise import retokenised
from terrarium.organisms.transformer import Transformer
from terrarium.randomness import generator
from terrarium.worlds.bandit import Bandit
from terrarium.worlds.tokens import END

WORLD = Bandit(letters=2, arms=3)
VOCABULARY = len(WORLD._vocabulary)
SPEC = TransformerModel(vocabulary=VOCABULARY, width=16, heads=2, layers=1, mlp=16)


def network(members=1, first=0):
    return Transformer(SPEC, [("seed", first + i) for i in range(members)]).train()


def step_of(members=1, first=0, n=8, at=0, world=WORLD, **more):
    """Return a step whose members have rows and keys of their own."""
    batches = [world.sample(n, generator("data", first + i, at)) for i in range(members)]
    inputs = torch.from_numpy(np.stack([b.inputs for b in batches]))
    targets = torch.from_numpy(np.stack([b.targets for b in batches]))
    keys = [("step", first + i, at) for i in range(members)]
    return Step(batches, inputs, targets, [world] * members, keys, notes={}, **more)


def gradient(net, loss):
    net.zero_grad()
    loss.sum().backward()
    net.collect_gradients()
    return net.weights.gradients.clone()


def cosine(a, b):
    return float(torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0))


# --- what is estimated --------------------------------------------------------------------------


def exact_law(net, batch):
    """Return the log-probabilities of every next token after each prompt, ``(n, vocabulary)``."""
    return net(torch.from_numpy(batch.inputs[None, :, :5]))[0, :, -1].log_softmax(-1)


def test_rloo_is_the_gradient_of_the_expected_reward():
    net = network()
    objective = PolicyGradient(samples=3000, tokens=1)
    step = step_of(n=4)
    estimate = gradient(net, losses(objective, net, step))
    batch = step.batches[0]
    right = torch.from_numpy(batch.inputs[:, 5])
    expected = exact_law(net, batch).exp().gather(1, right[:, None]).mean()
    exact = gradient(net, -expected)
    assert step.notes["reward"][0] == pytest.approx(float(expected.detach()), abs=0.01)
    assert cosine(estimate, exact) > 0.98
    assert float(estimate.norm() / exact.norm()) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("kind", ["reward", "loss"])
def test_both_penalties_are_the_gradient_of_the_divergence(kind):
    net, reference = network(), network(first=7)
    objective = PolicyGradient(samples=3000, tokens=1, kl=1.0, kl_kind=kind, reward="valid")
    zero = step_of(n=4, reference=reference)
    zero.worlds[0] = Never()
    estimate = gradient(net, losses(objective, net, zero))
    with torch.no_grad():
        before = exact_law(reference, zero.batches[0])
    law = exact_law(net, zero.batches[0])
    divergence = (law.exp() * (law - before)).sum(-1).mean()
    exact = gradient(net, divergence)
    assert zero.notes["kl_nats"][0] == pytest.approx(float(divergence.detach()), rel=0.05)
    assert cosine(estimate, exact) > 0.98
    assert float(estimate.norm() / exact.norm()) == pytest.approx(1, abs=0.1)


class Never:
    """A world whose judge calls nothing valid, and counts what it is asked."""

    name = "never"

    def __init__(self):
        self.asked = []

    def tokenizer_json(self):
        return WORLD.tokenizer_json()

    def judge(self, batch, texts):
        self.asked += list(zip(batch.facts["filler"].tolist(), texts, strict=True))
        return {"valid": np.zeros(len(batch), bool), "right": np.zeros(len(batch), bool)}


class Easy:
    """The bandit, with a verdict that many texts get."""

    name = "easy"

    def sample(self, n, rng):
        return WORLD.sample(n, rng)

    def tokenizer_json(self):
        return WORLD.tokenizer_json()

    def judge(self, batch, texts):
        return {"easy": np.array([text[:1] in "abcdefgh" for text in texts])}


def test_advantages_by_hand():
    rewards = torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 4.0]])
    expected = torch.tensor([[2, -2, -2, 2], [-4, -4, -4, 12]]) / 3
    torch.testing.assert_close(leave_one_out(rewards), expected)
    alike = within_group(torch.ones(1, 4))
    assert alike.abs().max() == 0
    spread = within_group(rewards)
    assert spread.mean(dim=1).abs().max() < 1e-6
    torch.testing.assert_close(spread.std(dim=1), torch.ones(2), atol=1e-3, rtol=0)
    assert k3(torch.tensor([-1.0, 0.0, 3.0]), torch.zeros(3)).min() == 0


def test_only_what_was_written_is_scored():
    prompts = torch.tensor([[[5, 6, 7], [8, 9, 0]]])
    starts = torch.tensor([[3, 2]])
    drawn = torch.tensor([[[4, 2, 0], [2, 0, 0], [3, 3, 3], [3, 2, 0]]])
    rollout = _Rollout(prompts, starts, drawn, 2, 2)
    assert rollout.inputs.tolist() == [
        [[5, 6, 7, 4, 2], [5, 6, 7, 2, 0], [8, 9, 3, 3, 3], [8, 9, 3, 2, 0]]
    ]
    assert rollout.targets.tolist() == [
        [
            [-100, -100, 4, 2, -100],
            [-100, -100, 2, -100, -100],
            [-100, 3, 3, 3, -100],
            [-100, 3, 2, -100, -100],
        ]
    ]
    assert rollout.lengths.tolist() == [[5, 4, 5, 4]]
    inputs, lengths = rollout.closed()
    assert inputs[0, :, :5].tolist() == rollout.inputs[0].tolist()
    assert inputs[0, :, 5].tolist() == [0, 0, 2, 0], "what was cut off is closed for a model"
    assert lengths.tolist() == [[5, 4, 6, 4]]


# --- fleets, determinism, lengths ---------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"advantage": "grpo", "kl_kind": "loss"}])
def test_a_member_alone_learns_what_it_learns_in_a_fleet(options):
    objective = PolicyGradient(kl=0.1, samples=16, tokens=2, reward="easy", **options)
    net, reference = network(3), network(3, first=10)
    step = step_of(3, world=Easy(), reference=reference)
    loss = losses(objective, net, step)
    together = gradient(net, loss)
    assert min(step.notes["reward"]) > 0
    for member in range(3):
        alone, before = network(1, member), reference.select([member])
        own = step_of(1, member, world=Easy(), reference=before)
        of_one = losses(objective, alone, own)
        torch.testing.assert_close(of_one[0], loss[member], rtol=0, atol=1e-6)
        torch.testing.assert_close(gradient(alone, of_one)[0], together[member], atol=1e-6, rtol=0)
        for name in ("reward", "length", "kl_nats"):
            assert own.notes[name][0] == pytest.approx(step.notes[name][member], abs=1e-6)


def test_a_run_repeats_to_the_bit():
    objective = PolicyGradient(samples=16)
    found = []
    for at in (0, 0, 1):
        net = network()
        found.append(gradient(net, losses(objective, net, step_of(at=at))))
    assert float(found[0].abs().max()) > 0
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_lengths_and_stopping(monkeypatch):
    net = network()
    step = step_of()
    losses(PolicyGradient(), net, step)
    assert step.notes["length"] == [1.0], "by default as long as the longest answer"
    assert "kl_nats" not in step.notes, "there is no reference to diverge from"
    losses(PolicyGradient(tokens=30), net, step)
    assert 1 < step.notes["length"][0] < 30
    monkeypatch.setattr(policy, "end_token", lambda world: None)
    losses(PolicyGradient(tokens=5), net, step)
    assert step.notes["length"] == [5.0]
    assert WORLD._vocabulary.ids[END] == 2


# --- rewards ------------------------------------------------------------------------------------


def test_each_text_is_judged_once_per_prompt():
    batch = WORLD.sample(2, np.random.default_rng(0))
    arm = WORLD._vocabulary.ids["A"]
    rows = np.array([[arm, 2], [arm, 2], [arm + 1, 2], [arm, 2], [arm, 2], [arm, 2]])
    world = Never()
    policy.judged(batch, world, rows, "right", 3, 2)
    assert sorted(text for _, text in world.asked) == ["A", "A", "B"]
    given = policy.judged(batch, WORLD, rows, "right", 3, 2)
    texts = [row for row in ("A", "A", "B", "A", "A", "A")]
    expected = WORLD.judge(batch.take(np.repeat([0, 1], 3)), texts)["right"]
    assert given.tolist() == expected.astype(float).tolist()


def test_the_reward_is_any_verdict_or_a_models_score():
    net = network()
    step = step_of(n=64)
    losses(PolicyGradient(reward="valid"), net, step)
    valid = step.notes["reward"][0]
    losses(PolicyGradient(), net, step)
    assert step.notes["reward"][0] < valid
    with pytest.raises(InputError, match="no verdict 'rigth' to reward; did you mean 'right'"):
        losses(PolicyGradient(reward="rigth"), net, step)
    with pytest.raises(InputError, match="'teacher'"):
        losses(PolicyGradient(reward="model"), net, step)
    teacher = network(first=5)
    scored = step_of(n=64, teachers=[teacher])
    loss = losses(PolicyGradient(reward="model"), net, scored)
    assert loss.requires_grad
    assert not any(p.grad is not None for p in teacher.parameters())
    assert np.isfinite(scored.notes["reward"][0])
    with torch.no_grad():  # a model that likes everything ten times as much
        teacher.weights["unembed"].mul_(10)
    losses(PolicyGradient(reward="model"), net, scored_again := step_of(n=64, teachers=[teacher]))
    assert scored_again.notes["reward"][0] == pytest.approx(10 * scored.notes["reward"][0], 1e-3)


# --- it learns ----------------------------------------------------------------------------------


@pytest.mark.parametrize("advantage", ["rloo", "grpo"])
def test_the_reward_rises(advantage):
    world = Bandit(letters=2, arms=3, length=2)
    net, reference = network(), None
    taught = [AnswerOnly()] * 12  # a reward that nobody meets teaches nothing
    rewarded = [PolicyGradient(advantage=advantage, samples=8, kl=0.01)] * 80
    optimizer = FleetOptimizer(net, [Optimizer(lr=1e-2, warmup=2)], ())
    rewards = []
    for at, objective in enumerate([*taught, *rewarded]):
        if objective is rewarded[0] and not rewards:
            reference = net.select([0])
        step = step_of(n=16, at=at, world=world, reference=reference)
        net.zero_grad()
        losses(objective, net, step).sum().backward()
        optimizer.clip()
        optimizer.step(at, 92)
        rewards += step.notes.get("reward", [])
    assert np.mean(rewards[:5]) < 0.6
    assert np.mean(rewards[-5:]) > 0.9
    assert step.notes["kl_nats"][0] > 0


def test_a_folder_with_adapters(tiny_models):
    folder = tiny_models("llama")
    net = load_folder(folder)
    reference = load_folder(folder)
    world = retokenised(WORLD, folder)
    net.add_lora(LoRA(rank=2), [("seed", 0)])
    net.train()
    step = step_of(n=4, world=world, reference=reference)
    loss = losses(PolicyGradient(kl=0.1, tokens=3, reward="valid"), net, step)
    loss.sum().backward()
    assert loss.shape == (1,)
    assert step.notes["kl_nats"][0] == pytest.approx(0, abs=1e-4)
    assert 1 <= step.notes["length"][0] <= 3
    assert all(p.grad is not None for p in net.member_parameters(0))
