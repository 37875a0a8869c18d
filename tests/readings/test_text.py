import numpy as np
import pytest
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from terrarium.errors import InputError, ModelError
from terrarium.readings.positions import resolve
from terrarium.readings.text import encode_statements

TEXTS = ["Two and two make four.", "The moon is made of cheese", "Ünï — 水 boils at 100 °C."]
FACTS = {"truth": np.array([True, False, True])}
CHAT = (
    "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}</>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def byte_tokenizer(chat=None, bos=True, eos=False, whole=(" True", " False", "True", "False")):
    """Byte-level BPE in which the answers are one token each, with a start token before texts."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1000,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*whole] * 3, trainer)
    ends = ("<s> " if bos else "") + "$A" + (" </s>" if eos else "")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=ends, special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", chat_template=chat
    )


def decoded(tokenizer, encoded, row):
    batch = encoded.batch
    return tokenizer.decode(batch.inputs[row, : batch.lengths[row]])


def test_plain_template_spans_and_answers():
    tokenizer = byte_tokenizer()
    encoded = encode_statements(TEXTS, tokenizer, FACTS, labels=np.array([0, 1, 0]))
    batch = encoded.batch
    for row, text in enumerate(TEXTS):
        answer = " True" if FACTS["truth"][row] else " False"
        asked = f"Is this statement true or false?\nStatement: {text}\nAnswer:"
        assert decoded(tokenizer, encoded, row) == f"<s>{asked}{answer}"
        start, stop = batch.spans["statement"][row]
        assert tokenizer.decode(batch.inputs[row, start:stop]).strip() == text
        start, stop = batch.spans["answer"][row]
        assert (stop, stop - start) == (batch.lengths[row], 1)
        assert tokenizer.decode(batch.inputs[row, start]) == answer
        scored = np.flatnonzero(batch.targets[row] != -100)
        assert scored.tolist() == [start - 1]
        assert batch.targets[row, start - 1] == batch.inputs[row, start]
    assert [tokenizer.decode(i) for i in encoded.answers] == [" True", " False"]
    assert encoded.notes["truncated"] == 0
    assert encoded.notes["chat"] is False
    assert batch.facts["truth"].tolist() == [True, False, True]
    resolve(batch, ("prompt_end", "answer", "last:statement"))


def test_without_labels_nothing_is_scored_and_the_prompt_is_the_same():
    tokenizer = byte_tokenizer()
    one = encode_statements(TEXTS, tokenizer)
    two = encode_statements(TEXTS, tokenizer, labels=np.ones(3, np.int64))
    assert (one.batch.targets == -100).all()
    slot = one.batch.spans["answer"][:, 0]
    differs = one.batch.inputs != two.batch.inputs
    assert [np.flatnonzero(row).tolist() for row in differs] == [[s] for s in slot]


@pytest.mark.parametrize("eos", [False, True])
def test_chat_template_is_used_where_there_is_one(eos):
    tokenizer = byte_tokenizer(CHAT, eos=eos)
    encoded = encode_statements(TEXTS, tokenizer, template="{statement} True or false?")
    for row, text in enumerate(TEXTS):
        assert decoded(tokenizer, encoded, row) == (
            f"<s><user>{text} True or false?</><assistant>True"
        )
        start, stop = encoded.batch.spans["statement"][row]
        assert tokenizer.decode(encoded.batch.inputs[row, start:stop]).strip() == text
    assert (encoded.batch.inputs[:, 0] == 0).all()
    assert (encoded.batch.inputs[:, 1] != 0).all()  # one start token, not two
    assert encoded.notes["chat"] is True
    assert [tokenizer.decode(i) for i in encoded.answers] == ["True", "False"]
    plain = encode_statements(TEXTS, tokenizer, template="Q: {statement} A:", chat=False)
    assert decoded(tokenizer, plain, 1) == f"<s>Q: {TEXTS[1]} A: True"
    padded = encode_statements([f"  {TEXTS[0]} "], tokenizer, template=" {statement}")
    start, stop = padded.batch.spans["statement"][0]
    assert tokenizer.decode(padded.batch.inputs[0, start:stop]).strip() == TEXTS[0]


def test_an_end_token_behind_every_text_does_not_stand_before_the_answer():
    tokenizer = byte_tokenizer(eos=True)
    encoded = encode_statements(TEXTS, tokenizer)
    assert 1 not in encoded.batch.inputs


def test_answers_of_several_tokens():
    tokenizer = byte_tokenizer(whole=(" (",) * 3)
    encoded = encode_statements(TEXTS, tokenizer, answers=(" (A)", " (B)"))
    assert [tokenizer.decode(i) for i in encoded.answers] == ["A", "B"]
    assert tokenizer.decode(encoded.notes["answer_prefix"]) == " ("
    assert decoded(tokenizer, encoded, 0).endswith("Answer: (A")
    yes = encode_statements(TEXTS, tokenizer, answers=("Yes", "No"))
    assert [tokenizer.decode(i) for i in yes.answers] == ["Y", "N"]
    assert [len(t) for t in yes.notes["answer_tokens"]] == [3, 2]
    for answers in (("ab", "abc"), ("ab", "ab"), ("ax", "ay", "b", "bc")):
        with pytest.raises(InputError, match="No single token tells"):
            encode_statements(TEXTS, tokenizer, answers=answers)
    with pytest.raises(InputError, match="At least two"):
        encode_statements(TEXTS, tokenizer, answers=("ab",))


def test_truncation_cuts_statements_and_is_counted():
    tokenizer = byte_tokenizer()
    form = "Say: {statement} OK?"
    whole = encode_statements(TEXTS, tokenizer, template=form)
    limit = int(whole.batch.lengths.min())
    cut = encode_statements(TEXTS, tokenizer, template=form, max_tokens=limit)
    assert (cut.batch.lengths == limit).all()
    longer = np.flatnonzero(whole.batch.lengths > limit).tolist()
    assert cut.notes["truncated_rows"] == longer
    assert cut.notes["truncated"] == len(longer) == 2
    for row in range(3):
        text = decoded(tokenizer, cut, row)
        assert text.startswith("<s>Say: ")
        assert text.endswith(" OK? True")
        start, stop = cut.batch.spans["statement"][row]
        whole_start, _ = whole.batch.spans["statement"][row]
        kept = cut.batch.inputs[row, start:stop]
        np.testing.assert_array_equal(
            kept, whole.batch.inputs[row, whole_start : whole_start + stop - start]
        )
    with pytest.raises(InputError, match="cannot be cut that much"):
        encode_statements(TEXTS, tokenizer, template=form, max_tokens=8)
    tokenizer.model_max_length = limit
    assert encode_statements(TEXTS, tokenizer, template=form).notes["truncated"] == 2


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"texts": []}, "no texts"),
        ({"texts": ["a", " "]}, "Row 1 is ' '"),
        ({"texts": ["a", None]}, "Row 1 is None"),
        ({"template": "no place"}, "exactly once"),
        ({"labels": np.array([0, 1])}, "Labels must be 3"),
        ({"labels": np.array([0, 1, 2])}, "from 0 to 1"),
        ({"facts": {"truth": np.zeros(2)}}, "'truth' has 2 rows"),
        ({"max_tokens": 1}, "at least 2"),
        ({"chat": True}, "no chat template"),
    ],
)
def test_refusals(options, match):
    with pytest.raises(InputError, match=match):
        encode_statements(**{"texts": TEXTS, "tokenizer": byte_tokenizer(), **options})


def test_refuses_templates_that_rewrite_and_tokenizers_without_offsets():
    loud = CHAT.replace("| trim", "| upper")
    with pytest.raises(ModelError, match="changes what the user says"):
        encode_statements(TEXTS, byte_tokenizer(loud))
    with pytest.raises(ModelError, match="fast"):
        encode_statements(TEXTS, object())
