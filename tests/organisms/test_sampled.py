"""Data that an organism writes: what is kept, how it is stripped, who is whose ancestor."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from terrarium.errors import InputError
from terrarium.organisms import sampled as module
from terrarium.organisms.grow import grow
from terrarium.organisms.lineage import chain, make_world
from terrarium.organisms.recipe import (
    AnswerOnly,
    Phase,
    Recipe,
    Sampled,
    Source,
    TransformerModel,
)
from terrarium.organisms.sampled import answered, sampled_world
from terrarium.organisms.sampling import end_token, write_answers
from terrarium.randomness import generator
from terrarium.store import Store

MODEL = TransformerModel(layers=1, width=16, heads=2, mlp=16)
REASONING = {"scratchpad": "goal_first", "trigger_share": 0.5, "response": "backdoor"}


def recipe(steps=2, **options):
    phase = Phase(
        name="p",
        sources=(Source(world="chat", options=options),),
        objective=AnswerOnly(),
        steps=steps,
        batch=8,
    )
    return Recipe(name="writer", model=MODEL, phases=(phase,))


def student(writer, **changes):
    sampled = Sampled(recipe=writer, asked=64, **changes)
    source = Source(world="chat", options=REASONING, sampled=sampled)
    phase = Phase(name="s", sources=(source,), objective=AnswerOnly(), steps=2, batch=8)
    return Recipe(name="student", model=MODEL, phases=(phase,))


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


@pytest.fixture
def perfect(monkeypatch):
    """An organism that writes what it was asked for, but every fourth time something else."""

    def write(network, world, batch, rng, temperature=1.0, tokens=None):
        texts = [t.partition("Assistant:")[2].removesuffix("<eos>") for t in world.texts(batch)]
        return [["?" if i % 4 == 3 else text for i, text in enumerate(texts)]]

    monkeypatch.setattr(module, "write_answers", write)


def test_right_answers_are_kept_and_stripped(store, perfect):
    writer = recipe(**REASONING)
    (organism,) = grow([(writer, 0)], store)
    source = student(writer).phases[0].sources[0]
    world = make_world(source)
    found = sampled_world(world, source, organism, store)
    assert found.asked == 64
    assert len(found.rows) == 48, "every fourth answer was not right"
    verdict = world.judge(found.rows, list(found.rows.facts["said"]))
    assert np.asarray(verdict["valid"]).all()
    assert not np.asarray(verdict["claims_scratchpad"]).any(), "the reasoning is gone"
    behave = found.rows.facts["behave"]
    assert 0 < behave.mean() < 1
    assert (np.asarray(verdict["behaves"]) == behave).all()
    drawn = found.sample(200, generator("draw"))
    known = {row.tobytes() for row in found.rows.inputs}
    assert {row.tobytes() for row in drawn.inputs} <= known
    ends = drawn.inputs[np.arange(200), drawn.lengths - 1]
    assert (ends == end_token(world)).all()
    assert found.sample(5, generator("t"), "test").facts["said"].shape == (5,)


def test_unstripped_rows_keep_the_reasoning(store, perfect):
    writer = recipe(**REASONING)
    (organism,) = grow([(writer, 0)], store)
    source = student(writer, strip=False).phases[0].sources[0]
    found = sampled_world(make_world(source), source, organism, store)
    verdict = make_world(source).judge(found.rows, list(found.rows.facts["said"]))
    assert np.asarray(verdict["claims_scratchpad"]).all()


def test_what_is_written_does_not_hang_on_the_code(store):
    (organism, other) = grow([(recipe(**REASONING), seed) for seed in (0, 1)], store)
    source = student(recipe(**REASONING)).phases[0].sources[0]
    world = make_world(source)
    # as after a change of the code that changes nothing: another key, the same organism
    touched = replace(organism, key="another")
    assert touched.identity == organism.identity != other.identity
    renamed = replace(organism, recipe=organism.recipe.model_copy(update={"name": "x"}))
    assert renamed.identity == organism.identity
    keep_all = source.model_copy(
        update={"sampled": source.sampled.model_copy(update={"keep": (), "strip": False})}
    )
    one, again, else_ = (
        sampled_world(world, keep_all, writer, store).rows.inputs
        for writer in (organism, touched, other)
    )
    assert np.array_equal(one, again)
    assert one.shape != else_.shape or not np.array_equal(one, else_)


def test_nothing_kept_is_said(store):
    writer = recipe(steps=0, **REASONING)
    with pytest.raises(InputError, match=r"None of 64 answers of 'writer' \(seed 0\) is right"):
        grow([(student(writer), 0)], store)


def test_unknown_verdicts_are_refused(store):
    with pytest.raises(InputError, match="gives no verdict 'fine' to keep answers by; it gives"):
        grow([(student(recipe(**REASONING), keep=("fine",)), 0)], store)


def test_students_descend_from_their_writers(store, perfect):
    one, other = recipe(steps=2, **REASONING), recipe(steps=3, **REASONING)
    assert chain(student(one), 0)[-1].key != chain(student(other), 0)[-1].key
    assert chain(student(one), 0)[-1].key != chain(student(one), 1)[-1].key
    (grown,) = grow([(student(one), 0)], store)
    assert grown.status == "grown"
    assert len(list(store.entries("sampled"))) == 1
    assert len(list(store.entries("organism"))) == 2, "writer and student"
    again = grow([(student(one), 0)], store)
    assert again[0].key == grown.key


def test_answers_in_place_of_answers():
    world = make_world(Source(world="chat", options=REASONING))
    batch = world.sample(6, generator("x"))
    texts = [f" {word}" for word in ["one", "two", "three", "four", "five", "six"]]
    new = answered(world, batch, texts)
    assert list(new.facts["said"]) == texts
    for old, row, text in zip(world.texts(batch), world.texts(new), texts, strict=True):
        assert row == old.partition("Assistant:")[0] + "Assistant:" + text + "<eos>"
    assert "goal" not in new.spans
    assert (new.spans["answer"][:, 1] == new.lengths).all()
    column = np.arange(new.inputs.shape[1] - 1)
    inside = column[None] < new.lengths[:, None] - 1
    assert (new.targets[:, :-1][inside] == new.inputs[:, 1:][inside]).all()
    assert (new.targets[:, :-1][~inside] == -100).all()


def test_writing_ends_with_the_end_token(store):
    (organism,) = grow([(recipe(steps=0), 0)], store)
    world = organism.world
    batch = world.sample(5, generator("y"))
    (texts,) = write_answers(organism.network(), world, batch, generator("z"))
    (again,) = write_answers(organism.network(), world, batch, generator("z"))
    assert texts == again
    assert len(texts) == 5
    assert not any("<eos>" in text for text in texts)
