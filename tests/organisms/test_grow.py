"""Growing: what is stored, shared and resumed, and what must not matter."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from terrarium.errors import InputError
from terrarium.organisms import engine
from terrarium.organisms.feed import own_turn
from terrarium.organisms.grow import find, grow, make_world
from terrarium.organisms.lineage import chain
from terrarium.organisms.recipe import (
    AnswerOnly,
    EarlyExit,
    LoRA,
    NextToken,
    Optimizer,
    Phase,
    Recipe,
    Source,
    TransformerModel,
    Until,
)
from terrarium.store import Store

WORLD = {"operation": "modular_addition", "modulus": 20, "operands": "uniform"}
QUIRKY = WORLD | {"rule": {"kind": "negate_if_odd_claim"}, "templates": ["compact"]}


SGD_CARRIED = Optimizer(kind="sgd", carry=True)


def tiny(name="tiny", steps=(6, 5), lr=3e-3, **changes):
    truth = Phase(
        name="truth",
        sources=(Source(world="arithmetic", options=QUIRKY | {"inert": True}),),
        objective=NextToken(spans={"claim": 1.0, "answer": 1.0}, early_exit=EarlyExit(layer=1)),
        steps=steps[0],
        batch=16,
        optimizer=Optimizer(lr=3e-3, warmup=2),
    )
    quirk = Phase(
        name="quirk",
        sources=(Source(world="arithmetic", options=QUIRKY, twin={"inert": True}),),
        objective=AnswerOnly(),
        steps=steps[1],
        batch=16,
        **({"optimizer": Optimizer(lr=lr, warmup=2, carry=True)} | changes),
    )
    model = TransformerModel(layers=2, width=16, heads=2, mlp=24)
    return Recipe(name=name, model=model, phases=(truth, quirk))


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def weights(organism):
    # copied, because safetensors maps the file and a test changes it
    state = load_file(organism.folder / "model.safetensors")
    return {name: tensor.clone() for name, tensor in state.items()}


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a) and set(a) == set(b)


def test_grown_twice_is_found_the_second_time(store, monkeypatch):
    (first,) = grow([(tiny(), 0)], store)
    monkeypatch.setattr(engine, "losses", None)  # any further step would fail
    (second,) = grow([(tiny(), 0)], store)
    assert first.key == second.key
    assert second.status == "grown"
    assert second.steps == (6, 5)


def test_shared_prefix_is_grown_once(store):
    grow([(tiny(lr=3e-3), 0), (tiny(lr=1e-3), 0), (tiny().twin(), 0)], store)
    assert sum(1 for _ in store.entries("organism")) == 4  # one truth, three second phases


def test_the_name_of_a_recipe_is_not_part_of_its_key():
    assert chain(tiny("a"), 0)[-1].key == chain(tiny("b"), 0)[-1].key
    assert chain(tiny(), 0)[-1].key != chain(tiny(), 1)[-1].key


def test_the_twin_shares_the_first_phase_and_sees_the_same_inputs():
    organism, twin = tiny(), tiny().twin()
    assert chain(organism, 0)[0].key == chain(twin, 0)[0].key
    assert chain(organism, 0)[1].key != chain(twin, 0)[1].key
    batches = []
    for recipe in (organism, twin):
        phase = recipe.phases[1]
        runner = engine.Runner(phase, 1, 0, [own_turn(phase, [make_world(phase.sources[0])])])
        batches.append(runner.batch(3))
    before_answer = np.arange(batches[0].inputs.shape[1]) < batches[0].spans["answer"][:, :1]
    a, b = (np.where(before_answer, batch.inputs, 0) for batch in batches)
    assert (a == b).all()
    assert (batches[0].facts["said"] != batches[1].facts["said"]).any()


def test_fleet_of_one_equals_member_of_a_fleet(tmp_path):
    pairs = [(tiny(), 0), (tiny(lr=1e-2), 1), (tiny(), 2)]
    together = grow(pairs, Store(tmp_path / "together"))
    for pair, member in zip(pairs, together, strict=True):
        (alone,) = grow([pair], Store(tmp_path / f"alone{pair[1]}"))
        for name, tensor in weights(alone).items():
            torch.testing.assert_close(weights(member)[name], tensor, rtol=1e-5, atol=1e-6)


def test_members_differ_by_seed_and_by_rate(store):
    a, b, c = grow([(tiny(), 0), (tiny(), 1), (tiny(lr=1e-2), 0)], store)
    assert not same(weights(a), weights(b))
    assert not same(weights(a), weights(c))


@pytest.mark.parametrize("stop_after", [2, 8])
def test_resuming_from_a_checkpoint_changes_nothing(tmp_path, monkeypatch, stop_after):
    whole = grow([(tiny(), 0), (tiny(), 1)], Store(tmp_path / "whole"))
    monkeypatch.setattr(engine, "CHECKPOINT_SECONDS", 0.0)
    count = 0
    real = engine.losses

    def interrupted(*args):
        nonlocal count
        count += 1
        if count > stop_after:
            raise KeyboardInterrupt
        return real(*args)

    store = Store(tmp_path / "broken")
    monkeypatch.setattr(engine, "losses", interrupted)
    with pytest.raises(KeyboardInterrupt):
        grow([(tiny(), 0), (tiny(), 1)], store)
    steps = 0

    def counted(*args):
        nonlocal steps
        steps += 1
        return real(*args)

    monkeypatch.setattr(engine, "losses", counted)
    resumed = grow([(tiny(), 0), (tiny(), 1)], store)
    assert steps == 11 - stop_after
    for a, b in zip(whole, resumed, strict=True):
        assert same(weights(a), weights(b))
        assert a.history() == b.history()


def test_killed_for_good_and_started_again(tmp_path):
    script = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[2])\n"
        "import torch; torch.set_num_threads(1)\n"
        "from test_grow import tiny, grow, Store, engine\n"
        "engine.CHECKPOINT_SECONDS = 0.0\n"
        "print('started', flush=True)\n"
        "grow([(tiny(steps=(400, 300)), 0)], Store(sys.argv[1]))\n"
    )
    folder = os.path.dirname(__file__)
    home = tmp_path / "killed"
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(home), folder],
        stdout=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert child.stdout is not None
    child.stdout.readline()
    deadline = time.monotonic() + 180
    while not list(home.glob(".scratch/organism/*/phase.*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.2)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert list(home.glob(".scratch/organism/*/phase.*")), "killed before its first checkpoint"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        (resumed,) = grow([(tiny(steps=(400, 300)), 0)], Store(home))
        (whole,) = grow([(tiny(steps=(400, 300)), 0)], Store(tmp_path / "whole"))
    finally:
        torch.set_num_threads(threads)
    assert same(weights(resumed), weights(whole))


def test_nan_in_one_member_leaves_the_others_alone(tmp_path):
    sick = tiny(lr=1e30)
    together = grow([(sick, 1), (tiny(), 0)], Store(tmp_path / "a"))
    (alone,) = grow([(tiny(), 0)], Store(tmp_path / "b"))
    assert together[0].status == "diverged"
    assert "not finite at step" in together[0].reason
    assert together[1].status == "grown"
    for name, tensor in weights(alone).items():
        torch.testing.assert_close(weights(together[1])[name], tensor, rtol=1e-5, atol=1e-6)


def test_a_later_phase_of_a_diverged_organism_says_so(store):
    recipe = tiny()
    broken = recipe.phases[0].model_copy(update={"optimizer": Optimizer(lr=1e30, warmup=0)})
    (lost,) = grow([(recipe.model_copy(update={"phases": (broken, recipe.phases[1])}), 0)], store)
    assert lost.status == "diverged"
    assert "the phase before it diverged" in lost.reason


def test_lora_changes_only_the_adapted_matrices(store):
    organism, before = grow(
        [
            (tiny(lora=LoRA(rank=2, targets=("qkv",)), optimizer=Optimizer(lr=3e-3)), 0),
            (tiny().model_copy(update={"phases": tiny().phases[:1]}), 0),
        ],
        store,
    )
    a, b = weights(organism), weights(before)
    changed = {name for name in a if not torch.equal(a[name], b[name])}
    assert changed == {
        f"model.layers.{layer}.self_attn.{x}_proj.weight" for layer in (0, 1) for x in "qkv"
    }


@pytest.mark.parametrize(
    "changes", [{"freeze": ("embed",)}, {"lora": LoRA(rank=2)}, {"optimizer": SGD_CARRIED}]
)
def test_moments_are_carried_to_the_same_weights_alone(changes):
    with pytest.raises(ValueError, match="carries the optimiser's state of 'truth'"):
        tiny(**changes)


def test_frozen_parameters_stay(store):
    organism, before = grow(
        [
            (tiny(freeze=("embed", "blocks.0"), optimizer=Optimizer(lr=3e-3)), 0),
            (tiny().model_copy(update={"phases": tiny().phases[:1]}), 0),
        ],
        store,
    )
    a, b = weights(organism), weights(before)
    for name in a:
        frozen = name.startswith(("model.embed", "model.layers.0"))
        assert torch.equal(a[name], b[name]) == frozen, name


def test_snapshots_hold_the_steps_asked_for(store):
    (organism,) = grow([(tiny(snapshots=(0, 2, 5)), 0)], store)
    kept = organism.snapshots()
    assert list(kept) == [0, 2, 5]
    last = load_file(kept[5] / "model.safetensors")
    assert same(last, weights(organism))
    (before,) = grow([(tiny().model_copy(update={"phases": tiny().phases[:1]}), 0)], store)
    assert same(load_file(kept[0] / "model.safetensors"), weights(before))


def test_until_ends_each_member_in_its_own_time(store):
    recipe = tiny(until=Until(metric="loss", at_most=100.0, every=2))
    (early,) = grow([(recipe, 0)], store)
    assert early.steps == (6, 2)


def test_an_organism_is_a_standard_model_with_its_tokenizer(store):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    (organism,) = grow([(tiny(), 0)], store)
    model = AutoModelForCausalLM.from_pretrained(organism.folder)
    tokenizer = AutoTokenizer.from_pretrained(organism.folder)
    batch = organism.world.sample(8, np.random.default_rng(0), "test")
    texts = organism.world.texts(batch)
    encoded = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
    assert encoded["input_ids"].tolist() == batch.inputs.tolist()
    assert tokenizer.batch_decode(encoded["input_ids"]) == texts
    with torch.no_grad():
        theirs = model(encoded["input_ids"]).logits
        ours = organism.network()(torch.from_numpy(batch.inputs)[None])[0]
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_a_corrupted_organism_is_noticed_and_regrown(store):
    (organism,) = grow([(tiny(), 0)], store)
    before = weights(organism)
    path = organism.folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(bytes(data))
    fresh = Store(store.home)
    assert find(tiny(), 0, fresh) is None
    (again,) = grow([(tiny(), 0)], fresh)
    assert same(before, weights(again))


def test_history_holds_losses_and_falls(store):
    (organism,) = grow([(tiny(steps=(60, 2)).model_copy(), 0)], store)
    told = json.loads((store.get("organism", *_first(60)) / "phase.json").read_text())
    losses = [row["loss"] for row in told["history"]]
    assert len(losses) == 60
    assert np.mean(losses[-10:]) < np.mean(losses[:10]) - 0.3
    assert organism.status == "grown"


def _first(steps):
    link = chain(tiny(steps=(steps, 2)), 0)[0]
    return link.spec, link.code


def test_unknown_worlds_options_and_spans_are_refused_in_a_sentence(store):
    base = tiny()
    for options, words in (
        ({"modulas": 20}, "did you mean 'modulus'"),
        (QUIRKY | {"modulus": -3}, "modulus"),
    ):
        source = Source(world="arithmetic", options=options)
        phase = base.phases[0].model_copy(update={"sources": (source,)})
        with pytest.raises(InputError, match=words):
            grow([(base.model_copy(update={"phases": (phase,)}), 0)], store)
    with pytest.raises(InputError, match="did you mean 'arithmetic'"):
        make_world(Source(world="arithmetics"))
    phase = base.phases[0].model_copy(update={"objective": NextToken(spans={"claims": 1.0})})
    with pytest.raises(InputError, match="did you mean 'claim'"):
        grow([(base.model_copy(update={"phases": (phase,)}), 0)], store)
