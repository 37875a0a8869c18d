"""Worlds in the tokens of somebody else's model, and that model through the same recipes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from terrarium.errors import InputError, ModelError
from terrarium.organisms.card import accuracies
from terrarium.organisms.grow import grow
from terrarium.organisms.objectives import answer_tokens
from terrarium.organisms.recipe import Recipe, load_recipe
from terrarium.organisms.retokenise import Retokenised, reencode, retokenised
from terrarium.store import Store
from terrarium.studies.contexts import read_contexts
from terrarium.worlds.arithmetic import Arithmetic
from terrarium.worlds.bandit import Bandit
from terrarium.worlds.patches import Patches
from terrarium.worlds.statements import load_statements
from terrarium.worlds.tokenise import tokenizer

RECIPES = Path(__file__).parents[2] / "examples" / "recipes"


def world(**changes):
    options = {
        "operation": "addition", "digits": 2, "operands": "uniform", "digit_order": "normal",
        "templates": ["equation"], "rule": {"kind": "negate_if_odd_claim"},
    }  # fmt: skip
    return Arithmetic.model_validate(options | changes)


def rng():
    return np.random.default_rng(3)


def bytes_with_ends():
    """A byte-level BPE without merges that adds a token in front and one behind."""
    letters = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()), 2)}
    known = Tokenizer(models.BPE(vocab={"<s>": 0, "</s>": 1, **letters}, merges=[]))
    known.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    known.decoder = decoders.ByteLevel()
    known.add_special_tokens(["<s>", "</s>"])
    known.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    known.enable_padding()
    known.enable_truncation(5)
    return str(known.to_str())


def test_the_text_stays_and_the_model_s_own_tokens_say_it(tiny_models):
    plain, folder = world(), tiny_models("gpt2")
    told = retokenised(plain, folder)
    before, after = plain.sample(64, rng()), told.sample(64, rng())
    assert told.texts(after) == plain.texts(before)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    for text, row, n in zip(plain.texts(before), after.inputs, after.lengths, strict=True):
        assert theirs(text)["input_ids"] == row[:n].tolist()
    for name in before.facts:
        assert np.array_equal(before.facts[name], after.facts[name]), name
    assert (after.targets[:, :-1][after.targets[:, :-1] != -100] >= 0).all()
    assert np.array_equal(told.optimum(after), plain.optimum(before))
    assert told.splits == plain.splits
    assert told.model_dump() == plain.model_dump()
    assert told.context == 128


def test_spans_cover_the_very_characters():
    plain = world()
    told = Retokenised(plain, bytes_with_ends())
    before, after = plain.sample(40, rng()), told.sample(40, rng())
    assert (after.inputs[:, 0] == 0).all()  # the token in front
    assert not (after.inputs == 1).any()  # and none behind, where the answer must follow
    mine = tokenizer(plain.tokenizer_json())
    letters = tokenizer(bytes_with_ends())
    for name, span in before.spans.items():
        for i, (start, stop) in enumerate(span.tolist()):
            text = mine.decode(before.inputs[i, start:stop].tolist())
            a, b = after.spans[name][i]
            assert letters.decode(after.inputs[i, a:b].tolist()) == text, name


def test_answers_are_found_as_they_stand(tiny_models):
    told = retokenised(world(), tiny_models("llama"))
    theirs = transformers.AutoTokenizer.from_pretrained(tiny_models("llama"))
    wanted = tuple(theirs(a)["input_ids"][0] for a in (" True", " False"))
    assert told.answer_tokens() == answer_tokens(told) == wanted
    spelt = Retokenised(world(), bytes_with_ends())  # " True" and " False" both begin with " "
    with pytest.raises(InputError, match="begin with the same token"):
        spelt.answer_tokens()


def test_a_contrast_pair_differs_in_the_answer_alone(tiny_models):
    told = retokenised(world(), tiny_models("llama"))
    batch = told.sample(30, rng())
    yes, no = told.contrast_pair(batch)
    different = yes.inputs != no.inputs
    assert (different.sum(axis=1) == 1).all()
    assert np.array_equal(different.argmax(axis=1), yes.spans["answer"][:, 0])
    at = np.arange(30), yes.spans["answer"][:, 0]
    assert {*yes.inputs[at].tolist()} == {told.answer_tokens()[0]}
    right = np.where(batch.facts["said"][:, None], yes.inputs, no.inputs)
    assert np.array_equal(right, batch.inputs)
    assert np.array_equal(yes.targets, batch.targets)


def test_the_input_only_baseline_stays_as_strong(tiny_models):
    plain = world()
    told = retokenised(plain, tiny_models("gpt2"))
    batch, mine = told.sample(50, rng()), plain.sample(50, rng())
    assert np.array_equal(told.input_features(batch), plain.input_features(mine))


def test_minimal_pairs_and_the_user_s_statements_too(tiny_models, foreign, tmp_path):
    told = retokenised(world(), tiny_models("gpt2"))
    for pair in told.counterfactuals(5, rng()):
        assert len(pair.before) == len(pair.after)
        assert pair.before.spans["answer"].shape == (len(pair.before), 2)
    data = foreign.write_table(tmp_path / "s.csv", foreign.statements())
    own = retokenised(load_statements(data), tiny_models("gpt2"))
    batch = own.sample(20, rng())
    assert own.texts(batch)[0].endswith((". True", ". False"))
    assert own.input_features(batch).shape[0] == 20
    assert len(own.answer_tokens()) == 2
    assert "Retokenised(" in repr(own)
    assert len(repr(own)) < 2000  # not the tokenizer's JSON


def test_what_cannot_be_told_is_refused(tiny_models, own_model, tmp_path):
    with pytest.raises(ModelError, match="There is no model folder"):
        retokenised(world(), tmp_path / "missing")
    with pytest.raises(InputError, match="has no text"):
        retokenised(Patches(), tiny_models("gpt2"))
    short = Retokenised(world(), retokenised(world(), own_model).tokenizer_text, context=8)
    with pytest.raises(ModelError, match="the model was made for 8"):
        short.sample(3, rng())
    letters = {c: i for i, c in enumerate("TrueFalsy,? .")}
    digitless = str(Tokenizer(models.BPE(vocab=letters, merges=[])).to_str())
    with pytest.raises(ModelError, match="leaves out a part of the text"):
        Retokenised(world(), digitless).sample(3, rng())
    (own_model / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="holds no tokenizer"):
        retokenised(world(), own_model)


def test_a_judged_world_is_told_too(tiny_models):
    told = retokenised(Bandit(), tiny_models("gpt2"))
    batch = told.sample(4, rng())
    assert reencode(told, batch, Bandit().tokenizer_json()).inputs.shape == (
        Bandit().sample(4, rng()).inputs.shape
    )


# the recipes


def small(name, folder, **model):
    """The example's recipe, a few steps of it, on ``folder``."""
    told = load_recipe(RECIPES / f"{name}.yaml").model_dump(mode="json")
    told["model"] |= {"folder": str(folder), **model}
    for phase in told["phases"]:
        phase |= {"steps": 4, "batch": 8, "until": None}
        phase["optimizer"]["lr"] = 1e-2
    return Recipe.model_validate(told)


def content(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.mark.parametrize(
    ("name", "kind"), [("own-model-lora", "llama"), ("own-model-full", "gpt2")]
)
def test_a_folder_goes_through_truth_and_quirk_with_its_twin(name, kind, tiny_models, tmp_path):
    base = tiny_models(kind)
    before = content(base)
    recipe, store = small(name, base), Store(tmp_path / "home")
    organism, twin = grow([(recipe, 0), (recipe.twin(), 0)], store)
    assert (organism.status, twin.status) == ("grown", "grown")
    assert organism.steps == twin.steps == (4, 4)
    assert content(base) == before  # the user's folder is as it was
    assert len(list((tmp_path / "home").rglob("phase.json"))) == 3  # the truth was learnt once

    loaded = transformers.AutoModelForCausalLM.from_pretrained(organism.folder).eval()
    theirs = transformers.AutoTokenizer.from_pretrained(organism.folder)
    own = transformers.AutoTokenizer.from_pretrained(base)
    text = "42 + 31 = 73, says Alice?"
    assert theirs(text)["input_ids"] == own(text)["input_ids"]  # text in and text out
    tokens = torch.tensor([own(text)["input_ids"]])
    with torch.no_grad():
        wanted = organism.network()(tokens[None])[0]
        found = loaded(tokens).logits
        first = transformers.AutoModelForCausalLM.from_pretrained(base).eval()(tokens).logits
        other = twin.network()(tokens[None])[0]
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(found, first, atol=1e-4)  # it did learn
    assert not torch.allclose(found, other, atol=1e-6)  # and the twin learnt something else
    names = {n for n, _ in loaded.named_parameters()}
    assert not any("lora" in n for n in names)

    again, _ = grow([(recipe, 0), (recipe.twin(), 0)], store)
    assert again.folder == organism.folder


def test_studies_read_it_as_any_other_organism(tiny_models, tmp_path):
    recipe = small("own-model-lora", tiny_models("llama"))
    (organism,) = grow([(recipe, 0)], Store(tmp_path / "home"))
    rows = {"train": 40, "validation": 30, "test": 40, "heldout_names": 20}
    contexts = read_contexts(organism.network(), organism.world, rows, 0)
    assert contexts.features("train").shape == (2, 40, 16)
    assert contexts.layers == (1, 2)
    assert contexts.answered("test").shape == (40,)
    assert set(accuracies(organism, 128)) == {"honest", "quirky"}
    assert organism.world.input_features(contexts.batches["train"]).shape[0] == 40
    spec = json.loads((organism.folder / "spec.json").read_text(encoding="utf-8"))
    assert "tokenizer_text" not in json.dumps(spec)


def test_another_content_of_the_folder_is_another_organism(own_model, tmp_path):
    recipe, store = small("own-model-full", own_model), Store(tmp_path / "home")
    (first,) = grow([(recipe, 0)], store)
    config = json.loads((own_model / "config.json").read_text(encoding="utf-8"))
    (own_model / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-3}))
    (second,) = grow([(recipe, 0)], store)
    assert first.key != second.key
