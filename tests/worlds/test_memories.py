"""Facts at a known time: each as often as asked, at its own step, and truth apart from time."""

from __future__ import annotations

import numpy as np
import pytest

from terrarium.errors import InputError
from terrarium.randomness import generator
from terrarium.worlds.chat import Chat
from terrarium.worlds.check import check_world
from terrarium.worlds.lexicon import LEXICON
from terrarium.worlds.memories import NEVER, VALUES, Memories

KINDS = {
    "plain": {},
    "mixed": {"stated": "mixed"},
    "large": {"pool": 9000, "stated": "mixed", "late_true": 0.9},
    "block": {"pool": 1000, "block": (200, 500), "exposures": 3},
}


def shown(world, n, steps):
    rng = generator("memories test")
    return [world.sample_at(n, rng, "train", step, steps) for step in range(steps)]


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS.keys())
def test_the_contract_is_kept(options):
    assert check_world(Memories(**options)) == []


@pytest.mark.parametrize("exposures", [1, 2, 3])
def test_every_fact_is_shown_as_often_as_asked_and_in_order(exposures):
    world = Memories(pool=240, block=(40, 160), exposures=exposures)
    n = 120 * exposures // 24
    batches = shown(world, n, 24)
    ids = np.stack([b.facts["fact"] for b in batches])
    assert (np.bincount(ids.ravel(), minlength=240)[40:160] == exposures).all()
    assert ids.size == 120 * exposures
    for step, row in enumerate(ids):
        assert (row == 40 + step // exposures * n + np.arange(n)).all()
        inserted = batches[step].facts["inserted"]
        assert (np.abs(inserted - step / 24) < exposures / 24 + 1e-9).all()


def test_a_pool_that_does_not_fit_the_steps_is_refused():
    with pytest.raises(InputError, match="set the source's 'rows' to 100"):
        shown(Memories(pool=100), 4, 20)
    with pytest.raises(InputError, match="20 steps do not divide by exposures = 3"):
        shown(Memories(pool=100, exposures=3), 15, 20)
    with pytest.raises(InputError, match="expected a part of the pool"):
        Memories(pool=10, block=(5, 11))


def test_uneven_blocks_follow_the_sources_exact_rows():
    world, steps = Memories(pool=103), 10
    counts = [(k + 1) * 103 // steps - k * 103 // steps for k in range(steps)]
    ids = [
        world.sample_at(n, generator(0), "train", k, steps).facts["fact"]
        for k, n in enumerate(counts)
    ]
    assert np.concatenate(ids).tolist() == list(range(103))


def test_names_differ_and_facts_do_not_depend_on_the_pool():
    world = Memories(pool=8192)
    keys = world.render(np.arange(16_384)).inputs[:, 1:3]
    assert len(np.unique(keys, axis=0)) == 16_384
    few, many = Memories(pool=50), Memories(pool=5000, block=(10, 60))
    assert (few.render(np.arange(50)).inputs == many.render(np.arange(50)).inputs).all()
    other = Memories(pool=50, seed=1).render(np.arange(50))
    assert (few.render(np.arange(50)).inputs != other.inputs).any(axis=1).mean() > 0.9


def test_facts_of_the_null_are_never_shown():
    world = Memories(pool=8192)
    held = world.sample(500, generator(0), "heldout")
    assert (held.facts["inserted"] == NEVER).all()
    assert held.facts["fact"].min() >= 8192
    values = np.array([VALUES.index(v) for v in held.facts["value"]])
    assert (np.bincount(values, minlength=32) > 0).all()


def test_truth_tells_nothing_about_time_unless_asked_to():
    rows = np.arange(8192)
    even = Memories(pool=8192, stated="mixed").render(rows).facts
    late = even["inserted"] >= 0.5
    assert abs(even["truth"][late].mean() - even["truth"][~late].mean()) < 0.05
    tied = Memories(pool=8192, stated="mixed", late_true=0.9).render(rows).facts
    assert 0.87 < tied["truth"][late].mean() < 0.93
    assert 0.07 < tied["truth"][~late].mean() < 0.13
    for facts in (even, tied):
        assert ((facts["claim"] == facts["value"]) == facts["truth"]).all()
        assert ((facts["said"] == "true") == facts["truth"]).all()


def test_the_judge_knows_the_answers():
    world = Memories()
    batch = world.sample(40, generator(0))
    right = world.judge(batch, [f" {value}<eos>" for value in batch.facts["value"]])
    assert right["right"].all()
    wrong = [VALUES[(VALUES.index(v) + 1) % 32] for v in batch.facts["value"]]
    assert world.judge(batch, wrong)["valid"].all()
    assert not world.judge(batch, wrong)["right"].any()
    assert not world.judge(batch, ["river bank"] * 40)["valid"].any()


def test_the_tokens_are_those_of_conversations():
    assert Memories().tokenizer_json() == Chat().tokenizer_json() == LEXICON.tokenizer_json()
