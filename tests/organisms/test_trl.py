"""Advantages, losses and gradients equal those of trl's own trainers on the same numbers."""

from __future__ import annotations

import copy
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from terrarium.organisms.huggingface import load_folder
from terrarium.organisms.likelihood import log_probabilities
from terrarium.organisms.objectives import Step, losses
from terrarium.organisms.policy import _Rollout, leave_one_out, surrogate, within_group
from terrarium.organisms.recipe_objectives import PolicyGradient, Preference, RewardModel
from terrarium.worlds.base import Batch

trl = pytest.importorskip("trl", reason="trl is the judge here (pip install -e .[dev])")

STOP, SAMPLES, PROMPTS, TOKENS = 7, 4, 3, 6
VOCABULARY = 100


@pytest.fixture
def networks(tiny_models):
    """A policy, and the reference that it came from."""
    policy, reference = (load_folder(tiny_models("llama")) for _ in range(2))
    drawn = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in policy.member_parameters(0):
            parameter.add_(torch.randn(parameter.shape, generator=drawn), alpha=0.05)
    return policy.train(), reference


def trainer(kind, policy, folder, rewards=(), **options):
    """Return a trl trainer of a copy of the policy; its reference is the policy's folder."""
    import datasets

    tokenizer = copy.deepcopy(policy.tokenizer)
    names = {"rloo": "RLOO", "grpo": "GRPO", "dpo": "DPO"}
    config, make = (getattr(trl, names[kind] + part) for part in ("Config", "Trainer"))
    row = {"prompt": "a", "chosen": "b", "rejected": "c"} if kind == "dpo" else {"prompt": "a"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        args = config(
            output_dir=str(folder),
            report_to="none",
            use_cpu=True,
            bf16=False,
            disable_tqdm=True,
            gradient_accumulation_steps=1,
            gradient_checkpointing=False,
            **options,
        )
        more = {} if kind == "dpo" else {"reward_funcs": lambda completions, **_: list(rewards)}
        return make(
            model=copy.deepcopy(policy.model),
            args=args,
            train_dataset=datasets.Dataset.from_list([row] * 2),
            processing_class=tokenizer,
            **more,
        )


def continued():
    """Return prompts, their lengths, continuations that end sooner or later, and rewards."""
    rng = np.random.default_rng(0)
    prompts = torch.from_numpy(rng.integers(8, VOCABULARY, (1, PROMPTS, 5)))
    starts = torch.from_numpy(rng.integers(2, 6, (1, PROMPTS)))
    drawn = rng.integers(8, VOCABULARY, (1, PROMPTS * SAMPLES, TOKENS))
    for row, length in enumerate(rng.integers(1, TOKENS + 3, PROMPTS * SAMPLES)):
        if length <= TOKENS:
            drawn[0, row, length - 1] = STOP
            drawn[0, row, length:] = 0
    rewards = torch.from_numpy(rng.random((1, PROMPTS * SAMPLES)).astype(np.float32))
    return prompts, starts, torch.from_numpy(drawn), rewards


def lists(prompts, starts, drawn):
    """Return the same as lists of tokens, one per continuation."""
    before = [
        row[:n].tolist()
        for row, n in zip(prompts[0], starts[0].tolist(), strict=True)
        for _ in range(SAMPLES)
    ]
    after = []
    for row in drawn[0].tolist():
        after.append(row[: row.index(STOP) + 1] if STOP in row else row)
    return before, after


@pytest.mark.parametrize("kind", ["rloo", "grpo"])
@pytest.mark.parametrize("kl", [0.0, 0.3])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_policy_gradients(networks, tmp_path, kind, kl, temperature):
    policy, reference = networks
    prompts, starts, drawn, rewards = continued()
    objective = PolicyGradient(
        advantage=kind,
        samples=SAMPLES,
        temperature=temperature,
        kl=kl,
        kl_kind={"rloo": "reward", "grpo": "loss"}[kind],
    )
    rollout = _Rollout(prompts, starts, drawn, STOP, SAMPLES)
    scored = (rollout.inputs, rollout.targets, temperature)
    logp, mask = log_probabilities(policy, *scored)
    with torch.no_grad():
        before, _ = log_probabilities(reference, *scored)
    loss = surrogate(objective, rewards, logp, mask, before if kl else None)
    loss.sum().backward()

    options = {"loss_type": "grpo"} if kind == "grpo" else {}
    judge = trainer(
        *(kind, policy, tmp_path, rewards[0].tolist()),
        beta=kl,
        temperature=temperature,
        num_generations=SAMPLES,
        per_device_train_batch_size=PROMPTS * SAMPLES,
        **options,
    )
    before_ids, after_ids = lists(prompts, starts, drawn)
    said = [""] * len(after_ids)
    made = (before_ids, after_ids, said)
    if kind == "grpo":
        made = (before_ids, after_ids, None, said, None, {}, None, None)
    judge._generate = lambda _: made
    judge.model.train()
    judge.current_gradient_accumulation_steps = 1
    inputs = judge._generate_and_score_completions([{"prompt": "a"}] * len(said))
    theirs = judge._compute_loss(judge.model, inputs)
    theirs.backward()

    reward = rewards
    if kl and kind == "rloo":
        reward = rewards - kl * (logp.detach() - before).sum(dim=2)
    advantage = {"rloo": leave_one_out, "grpo": within_group}[kind](reward.view(-1, SAMPLES))
    torch.testing.assert_close(advantage.flatten(), inputs["advantages"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(loss[0], theirs, rtol=1e-4, atol=1e-5)
    same_gradients(policy, judge.model)


def same_gradients(policy, model):
    mine = dict(policy.named_parameters())
    largest = max(float(p.grad.abs().max()) for p in mine.values())
    assert largest > 1e-3
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(
            mine[name].grad, parameter.grad, rtol=1e-3, atol=1e-5 * largest, msg=name
        )


class Pairs:
    """A world whose preferences are random rows."""

    name = "pairs"

    def __init__(self, n=5):
        rng = np.random.default_rng(1)
        starts = rng.integers(1, 4, n)
        self.chosen, self.rejected = (rows(rng, starts) for _ in range(2))

    def preferred(self, batch):
        return self.chosen, self.rejected


def rows(rng, starts):
    n = len(starts)
    inputs = rng.integers(8, VOCABULARY, (n, 9))
    stops = starts + rng.integers(1, 6, n)
    targets = np.concatenate([inputs[:, 1:], np.full((n, 1), -100)], axis=1)
    return Batch(inputs, targets, {}, {"answer": np.stack([starts, stops], axis=1)}, stops)


def step_of(world, reference=None):
    """Return a step in which everything is in the preferences."""
    batch = world.chosen
    inputs, targets = (torch.from_numpy(x)[None] for x in (batch.inputs, batch.targets))
    return Step([batch], inputs, targets, [world], [("step", 0)], reference, {})


def test_dpo(networks, tmp_path):
    policy, reference = networks
    world = Pairs()
    step = step_of(world, reference)
    loss = losses(Preference(beta=0.4), policy, step)
    loss.sum().backward()

    judge = trainer("dpo", policy, tmp_path, beta=0.4)
    both = [world.chosen, world.rejected]
    ids = torch.from_numpy(np.concatenate([b.inputs for b in both]))
    ends = torch.from_numpy(np.concatenate([b.spans["answer"][:, 1:] for b in both]))
    starts = torch.from_numpy(np.concatenate([b.spans["answer"][:, :1] for b in both]))
    place = torch.arange(ids.shape[1])
    inputs = {
        "input_ids": ids,
        "attention_mask": (place < ends).long(),
        "completion_mask": ((place >= starts) & (place < ends)).long(),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = judge._compute_loss(judge.model.train(), inputs, return_outputs=False)
    theirs.backward()
    torch.testing.assert_close(loss[0], theirs, rtol=1e-4, atol=1e-6)
    same_gradients(policy, judge.model)
    assert step.notes["margin"][0] == pytest.approx(
        judge._metrics["train"]["rewards/margins"][0], rel=1e-3
    )
    assert step.notes["preferred"][0] == judge._metrics["train"]["rewards/accuracies"][0]


def test_reward_model(networks):
    """trl reads a head of its own at the last token: it is handed our scores."""
    policy, _ = networks
    world = Pairs()
    step = step_of(world)
    loss = losses(RewardModel(), policy, step)
    scores = []
    for batch in (world.chosen, world.rejected):
        for row, (_, stop) in zip(batch.inputs, batch.spans["answer"], strict=True):
            scores.append(policy(torch.from_numpy(row[:stop])[None, None])[0, 0, -1, 0])
    judge = SimpleNamespace(
        model=policy,
        accelerator=SimpleNamespace(gather=lambda x: x, gather_for_metrics=lambda x: x),
        _total_train_tokens=0,
        _tp_size=1,
        _metrics={"train": {k: [] for k in KEPT}},
        args=SimpleNamespace(center_rewards_coefficient=None),
    )
    given = SimpleNamespace(logits=torch.stack(scores)[:, None])
    theirs = trl.RewardTrainer.compute_loss(
        judge, lambda **_: given, {"attention_mask": torch.ones(1)}
    )
    torch.testing.assert_close(loss[0], theirs, rtol=1e-4, atol=1e-6)
    assert step.notes["preferred"][0] == judge._metrics["train"]["accuracy"][0]


KEPT = ("min_reward", "mean_reward", "max_reward", "accuracy", "margin")
