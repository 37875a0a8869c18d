import json

import numpy as np
import pandas as pd
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from terrarium.errors import InputError
from terrarium.randomness import generator
from terrarium.worlds import byte_tokens
from terrarium.worlds.check import check_world
from terrarium.worlds.leakage import leakage
from terrarium.worlds.statements import Statements, load_statements

ROWS = [
    {"statement": f"{a} and {b} make {a + b + wrong}; «so, so»", "label": not wrong}
    for a in range(6)
    for b in range(6)
    for wrong in (0, 1)
]


def write(folder, name, rows=ROWS):
    path = folder / name
    frame = pd.DataFrame(rows)
    if name.endswith(".csv"):
        frame.to_csv(path, index=False)
    elif name.endswith(".tsv"):
        frame.to_csv(path, sep="\t", index=False)
    elif name.endswith(".parquet"):
        frame.to_parquet(path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["s.csv", "s.tsv", "s.jsonl", "s.parquet"])
def test_all_kinds_of_file_hold_the_same_world(tmp_path, name):
    world = load_statements(write(tmp_path, name))
    texts, facts = world.rows("all")
    assert texts == [row["statement"] for row in ROWS]
    assert facts["truth"].tolist() == [row["label"] for row in ROWS]
    assert (facts["said"] == facts["truth"]).all()
    assert not facts["disagree"].any()
    assert world.notes == ()
    assert check_world(world) == []


def test_the_split_is_a_hash_of_the_statement_and_covers_all_rows(tmp_path):
    rows = [{"statement": f"statement {i}", "label": i % 2} for i in range(1500)]
    one = load_statements(write(tmp_path, "a.csv", rows))
    two = load_statements(write(tmp_path, "b.jsonl", rows[::-1]))
    shares = []
    for split in ("train", "validation", "test"):
        assert set(one.rows(split)[0]) == set(two.rows(split)[0])
        shares.append(len(one.rows(split)[0]) / 1500)
    assert shares == pytest.approx([0.6, 0.2, 0.2], abs=0.04)
    assert sum(shares) == pytest.approx(1)


def test_groups_stay_together_and_given_splits_are_kept(tmp_path):
    rows = [{"statement": f"s{i}", "label": i % 2, "group": f"g{i % 20}"} for i in range(200)]
    facts = load_statements(write(tmp_path, "g.csv", rows)).rows("all")[1]
    of = {}
    for group, split in zip(facts["group"], facts["split"], strict=True):
        assert of.setdefault(group, split) == split
    assert len(set(of.values())) > 1
    for i, row in enumerate(rows):
        row["split"] = ("train", "dev", "Test")[i % 3]
    world = load_statements(write(tmp_path, "given.csv", rows))
    expected = np.array(["train", "validation", "test"])[np.arange(200) % 3]
    assert (world.rows("all")[1]["split"] == expected).all()
    assert world.splits == ("train", "validation", "test")


def test_columns_can_be_mapped_and_optional_ones_become_facts(tmp_path):
    rows = [
        {"text": f"s{i}", "ok": ("yes", "No")[i % 2], "bob": i % 3 == 0, "hardness": i}
        for i in range(40)
    ]
    names = {"statement": "text", "label": "ok", "quirky_label": "bob", "difficulty": "hardness"}
    world = load_statements(write(tmp_path, "m.csv", rows), names)
    facts = world.rows("all")[1]
    truth, rule = np.arange(40) % 2 == 0, np.arange(40) % 3 == 0
    assert (facts["truth"] == truth).all()
    assert (facts["rule_label"] == rule).all()
    assert (facts["disagree"] == (truth != rule)).all()
    assert (facts["easy"] == (np.arange(40) <= np.quantile(np.arange(40), 0.25))).all()
    assert facts["hard"].sum() == 10
    table = {
        (r.values["truth"], r.values["rule_label"]): r.probability for r in world.joint_table("all")
    }
    for cell, p in table.items():
        assert p == np.mean((truth == cell[0]) & (rule == cell[1]))


def test_the_spec_pins_the_files_content(tmp_path):
    path = write(tmp_path, "s.csv")
    world = load_statements(path)
    again = Statements.model_validate_json(world.model_dump_json())
    assert again == world
    assert again.digest == world.digest != ""
    write(tmp_path, "s.csv", ROWS[:-2])
    assert load_statements(path).digest != world.digest
    with pytest.raises(InputError, match="not the file that was used before"):
        Statements.model_validate_json(world.model_dump_json())


def test_batches_of_any_tokenizer_mark_the_answer(tmp_path):
    world = load_statements(write(tmp_path, "s.jsonl"))
    words = ["<s>", "</s>", "True", "False", "Is", "it", "so", "?", "and", "make"]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<s>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()

    def encode(texts):  # a tokenizer that adds a token at both ends
        return [[0, *tokenizer.encode(t).ids, 1] for t in texts]

    asked = world.model_copy(update={"template": "{statement} Is it so ?"})
    for answer in ("said", "true", "false"):
        batch = asked.batch(encode, "test", answer=answer, pad=9)
        start, stop = batch.spans["answer"].T
        assert (stop - start == 1).all()
        assert (stop == batch.lengths - 1).all()
        rows = np.arange(len(batch))
        says = {"said": batch.facts["truth"], "true": True, "false": False}[answer]
        assert (batch.inputs[rows, start] == np.where(says, 2, 3)).all()
        assert (batch.inputs[rows, start - 1] == 7).all()  # the question mark
        assert (batch.targets[rows, start - 1] == batch.inputs[rows, start]).all()
    plain = asked.batch(encode, "test", answer="none")
    assert (plain.spans["answer"] == plain.lengths[:, None]).all()
    true, false = asked.contrast_pair(encode, "test")
    assert ((true.inputs != false.inputs).sum(axis=1) == 1).all()
    with pytest.raises(InputError, match="did you mean 'none'"):
        asked.batch(encode, answer="nome")
    with pytest.raises(InputError, match="template must hold"):
        Statements(path=world.path, template="{sentence}")


def test_an_answer_that_merges_with_the_prompt_is_still_marked(tmp_path):
    world = load_statements(write(tmp_path, "s.csv"))

    def encode(texts):  # merges the prompt's last character into a following " T" or " F"
        return [
            [ord(c) for c in t.replace("» T", "\u1000").replace("» F", "\u1001")] for t in texts
        ]

    batch = world.batch(encode, "test")
    rows, start = np.arange(len(batch)), batch.spans["answer"][:, 0]
    assert set(batch.inputs[rows, start]) == {0x1000, 0x1001}
    assert (batch.spans["answer"][:, 1] == batch.lengths).all()


def test_bytes_round_trip(tmp_path):
    texts = ["plain", "naïve «é» 漢字 🙂\n\ttabs", "\x00\x7f"]
    tokenizer = Tokenizer.from_str(byte_tokens.tokenizer_json())
    for ids, text in zip(byte_tokens.encode(texts), texts, strict=True):
        assert tokenizer.encode(text).ids == ids
        assert tokenizer.decode(ids) == text == byte_tokens.text(ids)
    assert tokenizer.get_vocab_size() == 259


def test_duplicates_are_counted_and_kept(tmp_path):
    rows = [*ROWS, *ROWS[:3], {"statement": ROWS[0]["statement"], "label": not ROWS[0]["label"]}]
    world = load_statements(write(tmp_path, "d.csv", rows))
    assert len(world.rows("all")[0]) == len(ROWS) + 4
    assert world.notes == (
        f"4 of {len(ROWS) + 4} rows repeat an earlier statement; all are kept.",
        "1 statements are labelled both true and false.",
    )
    split = ["train"] * len(ROWS) + ["test"] * 4
    rows = [{**row, "split": s} for row, s in zip(rows, split, strict=True)]
    world = load_statements(write(tmp_path, "e.csv", rows))
    assert world.notes[-1].startswith("3 statements stand in more than one split")


def test_a_lexical_confound_is_seen_without_any_model(tmp_path):
    rows = [
        {"statement": f"{'indeed' if i % 2 else 'hardly'} number {i}", "label": i % 2}
        for i in range(300)
    ]
    assert leakage(load_statements(write(tmp_path, "l.csv", rows)), n=500).all_rows == 1.0
    rng = generator("labels")
    rows = [{"statement": f"number {i}", "label": bool(rng.random() < 0.5)} for i in range(600)]
    assert abs(leakage(load_statements(write(tmp_path, "n.csv", rows)), 500).all_rows - 0.5) < 0.15


def text_file(name, content):
    return lambda folder: (folder / name).write_bytes(content) and folder / name


BAD_FILES = {
    "missing": (lambda folder: folder / "nowhere.csv", "There is no file"),
    "folder": (lambda folder: folder, "is a folder"),
    "unknown kind": (text_file("s.xlsx", b"x"), "of no known kind"),
    "empty": (lambda f: (f / "e.csv").touch() or f / "e.csv", "is empty"),
    "header only": (text_file("h.csv", b"statement,label\n"), "holds no rows"),
    "latin-1": (text_file("l.csv", "statement,label\ncaf\xe9,1\n".encode("latin-1")), "not UTF-8"),
    "utf-16": (text_file("u.jsonl", '{"statement": "a"}'.encode("utf-16")), "not UTF-8"),
    "wrong column": (text_file("w.csv", b"statment,label\na,1\n"), "did you mean 'statment'"),
    "no label": (text_file("w.jsonl", b'{"statement": "a", "truth": 1}\n'), "no column 'label'"),
    "twice": (text_file("t.csv", b"statement,label,label\na,1,1\n"), "twice in its header"),
    "ragged": (text_file("r.csv", b"statement,label\na,1\nb, c,0\n"), "line 3: 3 fields"),
    "cut quote": (text_file("q.csv", b'statement,label\na,1\n"b,0\n'), "after line 2"),
    "cut JSON": (
        text_file("c.jsonl", b'{"statement": "a", "label": 1}\n\n{"statement": "b", "la'),
        "line 3: not valid JSON",
    ),
    "no object": (text_file("o.jsonl", b'["a", 1]\n'), "line 1: expected a JSON object"),
    "lost field": (
        text_file("f.jsonl", b'{"statement": "a", "label": 1}\n{"statement": "b"}\n'),
        "line 2: the field 'label' is missing",
    ),
    "cut Parquet": (
        lambda f: (
            (f / "p.parquet").write_bytes(write(f, "q.parquet").read_bytes()[:-9])
            and f / "p.parquet"
        ),
        "not a readable Parquet file",
    ),
    "label": (
        text_file("b.csv", b"statement,label\na,1\nb,maybe\n"),
        "line 3: label is 'maybe'; expected true or false",
    ),
    "label 2": (text_file("b.csv", b"statement,label\na,0\nb,2\n"), "line 3: label is '2'"),
    "null label": (
        text_file("n.jsonl", b'{"statement": "a", "label": null}\n'),
        "line 1: label is None",
    ),
    "no text": (text_file("x.csv", b"statement,label\n ,1\n"), "line 2: statement is ' '"),
    "one class": (text_file("1.csv", b"statement,label\na,1\nb,yes\n"), "all 2 labels are true"),
    "difficulty": (
        text_file("d.csv", b"statement,label,difficulty\na,1,2\nb,0,nan\n"),
        "line 3: difficulty is 'nan'",
    ),
    "split": (
        text_file("s.csv", b"statement,label,split\na,1,train\nb,0,holdout\n"),
        "line 3: split is 'holdout'",
    ),
}


@pytest.mark.parametrize(("make", "message"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_bad_files_get_one_sentence(tmp_path, make, message):
    path = make(tmp_path)
    with pytest.raises(InputError) as caught:
        load_statements(path)
    sentence = str(caught.value)
    assert message in sentence
    assert str(path) in sentence
    assert "\n" not in sentence


def test_a_byte_order_mark_is_accepted(tmp_path):
    path = tmp_path / "bom.csv"
    path.write_bytes(b"\xef\xbb\xbfstatement,label\na,true\nb,FALSE\n")
    assert load_statements(path).rows("all")[1]["truth"].tolist() == [True, False]


def test_long_files_are_refused_while_reading(tmp_path):
    path = write(tmp_path, "s.csv")
    with pytest.raises(InputError, match="more than max_rows = 20 rows"):
        load_statements(path, max_rows=20)
    with pytest.raises(InputError, match="did you mean 'statement'"):
        load_statements(path, columns={"statements": "statement"})
    with pytest.raises(InputError, match="no column 'verdict'"):
        load_statements(path, columns={"label": "verdict"})


def test_a_split_without_rows_is_refused(tmp_path):
    rows = [{"statement": f"s{i}", "label": i % 2, "split": "train"} for i in range(8)]
    world = load_statements(write(tmp_path, "s.csv", rows))
    assert world.splits == ("train",)
    assert check_world(world) == []
    with pytest.raises(InputError, match="no rows in split 'test'"):
        world.rows("test")
    with pytest.raises(InputError, match="no split 'tests'; did you mean 'test'"):
        world.rows("tests")
