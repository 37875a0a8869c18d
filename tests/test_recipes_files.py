"""What users hand in by the command line: recipes that grow, and bad input of every kind."""

from __future__ import annotations

import csv
import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
import transformers
import yaml
from safetensors.torch import load_file, save_file

from terrarium.organisms.recipe import load_recipe

EXAMPLES = Path(__file__).parents[1] / "examples" / "recipes"


@pytest.fixture
def data(foreign, tmp_path):
    return foreign.write_table(tmp_path / "data.csv", foreign.statements())


def refused(said, tmp_path, *words):
    """One sentence with these words, exit code 2, and nothing left behind."""
    assert said.code == 2, (said.code, said.err)
    assert said.out == ""
    for word in words:
        assert word in said.sentence
    assert said.sentence.endswith((".", "?", "'"))
    assert "Traceback" not in said.err
    assert not (tmp_path / "terrarium-results").exists()
    assert not list(tmp_path.rglob("report.html"))
    assert not list(tmp_path.rglob("rows.*"))


# recipes


def shortened(name, tmp_path, **model):
    told = yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text(encoding="utf-8"))
    told["model"] |= model
    for phase in told["phases"]:
        phase |= {"steps": 3, "batch": 8}
        phase.pop("until", None)
    path = tmp_path / f"{name}.yaml"
    path.write_text(yaml.safe_dump(told), encoding="utf-8")
    return path


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_example_is_a_recipe_with_a_twin_and_names_itself(path):
    recipe = load_recipe(path)
    assert recipe.name == path.stem
    assert recipe.has_twin
    assert f"terrarium grow examples/recipes/{path.name}" in path.read_text(encoding="utf-8")


def test_grow_prints_how_right_they_are_and_copies_them_whole(command, own_model, tmp_path):
    recipe = shortened("own-model-lora", tmp_path, folder="my-model")
    said = command("grow", recipe, "--out", "organisms", "--json")
    assert said.code == 0, said.err
    assert [o["organism"] for o in said.json] == ["own-model-lora", "own-model-lora.twin"]
    assert set(said.json[0]["right"]) == {"honest", "quirky"}
    folder = tmp_path / "organisms" / "own-model-lora-seed-0"
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    assert model.config.model_type == "llama"
    assert transformers.AutoTokenizer.from_pretrained(folder)(" True")["input_ids"]
    assert not [p for p in (tmp_path / "organisms").iterdir() if p.name.startswith(".")]
    again = command("grow", recipe, "--out", "organisms", "--no-twin")
    assert again.code == 0
    assert "honest 0." in again.out
    other = tmp_path / "precious"
    (other / "own-model-lora-seed-0").mkdir(parents=True)
    said = command("grow", recipe, "--out", other, "--no-twin")
    refused(said, tmp_path, "exists and is no organism")


def test_the_quirky_recipe_grows_by_the_command(command, tmp_path):
    recipe = shortened("quirky-mod-100", tmp_path)
    said = command("grow", recipe, "--seeds", "2")
    assert said.code == 0, said.err
    assert said.out.count("quirky-mod-100") == 4
    assert "third" in said.out or "honest" in said.out


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        ({"name": "../../x"}, ("--out", "organisms"), "cannot name a folder"),
        ({}, ("--device", "banana"), "--device expects cpu, cuda or cuda:N"),
        ({}, ("--device", "cuda:99"), "There is no device 'cuda:99'"),
    ],
)
def test_what_grow_refuses_before_it_grows(change, options, words, command, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({**RECIPE, **change}))
    refused(command("grow", path, *options), tmp_path, words)
    assert not (tmp_path / "organisms").exists()


def test_an_organism_that_diverges_is_shown_and_the_code_says_so(command, tmp_path):
    phase = {**RECIPE["phases"][0], "optimizer": {"lr": 1e30}}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({**RECIPE, "phases": [phase]}))
    said = command("grow", tmp_path / "r.yaml", "--json")
    assert said.code == 1
    assert {o["status"] for o in said.json} == {"diverged"}
    assert "did not come out: r, seed 0, diverged" in said.err


RECIPE = {
    "name": "r",
    "phases": [
        {
            "name": "a",
            "steps": 2,
            "batch": 4,
            "objective": {"kind": "answer_only"},
            "sources": [{"world": "arithmetic"}],
        }
    ],
}


def spoilt(change):
    told = json.loads(json.dumps(RECIPE))
    change(told, told["phases"][0])
    return yaml.safe_dump(told)


def unfit(world, model, objective="answer_only", **options):
    source = {"world": world, "options": options}
    phase = {**RECIPE["phases"][0], "sources": [source], "objective": {"kind": objective}}
    return yaml.safe_dump({"name": "r", "model": model, "phases": [phase]})


def unfit_teacher():
    return {**yaml.safe_load(unfit("scenes", {"kind": "transformer"})), "name": "teacher"}


BAD_RECIPES = {
    "unknown key": (
        spoilt(lambda r, p: p.update(stepz=3)),
        ("unknown key 'phases.0.stepz'", "did you mean 'steps'?"),
    ),
    "unknown key at the top": (
        spoilt(lambda r, p: r.update(modle={})),
        ("unknown key 'modle'", "did you mean 'model'?"),
    ),
    "impossible steps": (
        spoilt(lambda r, p: p.update(steps=-1)),
        ("'phases.0.steps' is -1", "greater than or equal to 0"),
    ),
    "impossible width": (
        spoilt(lambda r, p: r.update(model={"kind": "transformer", "width": 30, "heads": 4})),
        ("width 30 must split into 4 heads",),
    ),
    "unknown world": (
        spoilt(lambda r, p: p.update(sources=[{"world": "arithmetics"}])),
        ("no 'arithmetics' among the worlds", "did you mean 'arithmetic'?"),
    ),
    "unknown option of a world": (
        spoilt(lambda r, p: p["sources"][0].update(options={"modulo": 7})),
        ("world 'arithmetic': unknown key 'modulo'", "did you mean 'modulus'?"),
    ),
    "impossible option of a world": (
        spoilt(lambda r, p: p["sources"][0].update(options={"modulus": 7})),
        ("modulus goes with operation 'modular_addition' only",),
    ),
    "unknown objective": (
        spoilt(lambda r, p: p.update(objective={"kind": "answers"})),
        ("phases.0.objective", "answer_only"),
    ),
    "no phases": (spoilt(lambda r, p: r.update(phases=[])), ("'phases' is []",)),
    "equal names": (
        spoilt(lambda r, p: r.update(phases=[p, p])),
        ("phases must have different names",),
    ),
    "no YAML": ("name: [\n", ("is not valid YAML",)),
    "another thing": ("- 1\n", ("holds no recipe: expected keys",)),
    "points for a reader": (
        unfit("scenes", {"kind": "transformer"}),
        ("Recipe 'r', phase 'a'", "'scenes' gives no text", "'transformer' takes rows of tokens"),
    ),
    "images of another side": (
        unfit("images", {"kind": "autoencoder", "side": 16}, "reconstruction", side=32),
        ("images of 3 x 32 x 32", "takes images of 1 x 16 x 16", "set the channels and side"),
    ),
    "text for an autoencoder": (
        unfit("chat", {"kind": "autoencoder"}, "reconstruction"),
        ("'chat' gives text", "'autoencoder' takes no text"),
    ),
    "classes of an autoencoder": (
        unfit("images", {"kind": "autoencoder", "side": 16}, "classification"),
        ("'classification' trains 'classifier'", "the model is 'autoencoder'"),
    ),
    "two coordinates of three": (
        unfit("scenes", {"kind": "coordinate", "inputs": 2}, "reconstruction"),
        ("gives 3 numbers", "takes 2 numbers", "set inputs to 3"),
    ),
    "a teacher that does not fit": (
        spoilt(lambda r, p: p.update(teacher={"recipe": unfit_teacher()})),
        ("Recipe 'teacher', phase 'a'", "'scenes' gives no text"),
    ),
    "a rank above the layer": (
        spoilt(lambda r, p: p.update(lora={"rank": 9000})),
        ("LoRA's rank 9000 exceeds the smaller side of 'blocks.0.", ", 64; lower rank"),
    ),
    "a missing model": (
        spoilt(lambda r, p: r.update(model={"kind": "huggingface", "folder": "nowhere"})),
        ("There is no model folder nowhere",),
    ),
}


@pytest.mark.parametrize("kind", BAD_RECIPES)
def test_a_bad_recipe_gets_one_sentence(kind, command, tmp_path):
    text, words = BAD_RECIPES[kind]
    path = tmp_path / "r.yaml"
    path.write_text(text, encoding="utf-8")
    refused(command("grow", path, "--out", "organisms"), tmp_path, *words)
    assert not (tmp_path / "organisms").exists()


def test_the_rank_of_a_foreign_model_is_bounded_too(command, own_model, tmp_path):
    def text(rank):
        return spoilt(
            lambda r, p: (
                r.update(model={"kind": "huggingface", "folder": str(own_model)}),
                p.update(lora={"rank": rank}, optimizer={"warmup": 0}),
            )
        )

    (tmp_path / "r.yaml").write_text(text(9000), encoding="utf-8")
    said = command("grow", tmp_path / "r.yaml", "--out", "organisms")
    refused(said, tmp_path, "LoRA's rank 9000 exceeds the smaller side of 'model.layers.0.")
    (tmp_path / "r.yaml").write_text(text(2), encoding="utf-8")
    assert command("grow", tmp_path / "r.yaml").code == 0


def test_a_recipe_that_is_no_text_or_no_file(command, tmp_path):
    (tmp_path / "latin.yaml").write_bytes("name: é\n".encode("latin-1"))
    refused(command("grow", "latin.yaml"), tmp_path, "is not UTF-8 text")
    refused(command("grow", tmp_path), tmp_path, "cannot be read")
    refused(command("grow", "missing.yaml"), tmp_path, "There is no recipe file")


# models


def _edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}))


def _no_tokenizer(folder):
    for path in folder.glob("token*"):
        path.unlink()


def _nan(folder):
    path = folder / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    tensors["model.norm.weight"][0] = float("nan")
    save_file(tensors, path, {"format": "pt"})


class _Evil:
    def __reduce__(self):
        return (Path.touch, (Path("executed"),))


def _pickle(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(_Evil()))


def _cut(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def _encoder(folder):
    _edit_config(folder, model_type="bert", architectures=["BertForMaskedLM"])


BAD_MODELS = {
    "no tokenizer": (_no_tokenizer, ("holds no tokenizer",)),
    "encoder only": (_encoder, ("BertForMaskedLM", "not a causal language model")),
    "NaN": (_nan, ("'model.norm.weight' holds NaN or infinity",)),
    "pickle": (_pickle, ("pickle",)),
    "truncated": (_cut, ("is truncated or no safetensors file",)),
    "no config": (lambda f: (f / "config.json").unlink(), ("holds no config.json",)),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), ("holds no weights",)),
    "broken chat template": (
        lambda f: (f / "chat_template.jinja").write_text("{{ broken"),
        ("The chat template of", "--no-chat"),
    ),
    "foreign code": (
        lambda f: _edit_config(f, model_type="mine", auto_map={"AutoModel": "m.M"}),
        ("terrarium never executes",),
    ),
}


@pytest.mark.parametrize("kind", BAD_MODELS)
def test_a_bad_model_gets_one_sentence(kind, command, own_model, data, tmp_path):
    spoil, words = BAD_MODELS[kind]
    spoil(own_model)
    refused(command("probe", own_model, data, "--workers", "0"), tmp_path, *words)
    assert not (tmp_path / "executed").exists()


def test_a_model_that_is_no_folder(command, own_model, data, tmp_path):
    refused(command("probe", "nowhere", data), tmp_path, "There is no model folder nowhere")
    refused(command("probe", data, data), tmp_path, "is a file; give the model's folder")
    said = command("detect", "nowhere", "--trusted", data, "--suspect", data)
    refused(said, tmp_path)


def test_weights_of_torch_that_hold_tensors_alone_are_read(command, own_model, data):
    tensors = load_file(own_model / "model.safetensors")
    torch.save({name: t.clone() for name, t in tensors.items()}, own_model / "pytorch_model.bin")
    (own_model / "model.safetensors").unlink()
    said = command("probe", own_model, data, "--workers", "0")
    assert said.code == 0, said.err


def test_options_that_cannot_be(command, own_model, data, tmp_path):
    for options, words in (
        (("--column", "statement"), "--column expects NAME=COLUMN"),
        (("--column", "statment=text"), "did you mean 'statement'?"),
        (("--template", "Is it so?"), "must hold {statement} exactly once"),
        (("--dtype", "int8"), "dtype 'int8' is unknown"),
        (("--chat",), "has no chat template"),
    ):
        refused(command("probe", own_model, data, "--workers", "0", *options), tmp_path, words)


def test_a_refusal_by_a_worker_process_reads_the_same(command, own_model, data, tmp_path):
    _nan(own_model)
    said = command("probe", own_model, data, "--workers", "1")
    refused(said, tmp_path, "holds NaN or infinity")


# statements


def _rows(path, rows, columns=("statement", "label")):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


def _plain(n, label=lambda i: i % 2):
    return [(f"Number {i} is so.", label(i)) for i in range(n)]


def _truncated_parquet(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "s.parquet"
    pq.write_table(
        pa.table({"statement": [f"{i}" for i in range(99)], "label": [0, 1, 1] * 33}), path
    )
    path.write_bytes(path.read_bytes()[:-40])
    return path


def _bytes(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    return tmp_path / name


BAD_DATA = {
    "missing": (lambda t: t / "none.csv", ("There is no file",)),
    "empty": (lambda t: _bytes(t, "s.csv", b""), ("is empty",)),
    "header alone": (lambda t: _rows(t / "s.csv", []), ("holds no rows",)),
    "truncated parquet": (_truncated_parquet, ("is not a readable Parquet file", "cut off")),
    "wrong columns": (
        lambda t: _rows(t / "s.csv", _plain(9), ("statment", "label")),
        ("has no column 'statement'", "did you mean 'statment'?"),
    ),
    "Latin-1": (
        lambda t: _bytes(t, "s.csv", "statement,label\nÉté,1\n".encode("latin-1")),
        ("is not UTF-8 text",),
    ),
    "one class": (
        lambda t: _rows(t / "s.csv", _plain(50, lambda i: 1)),
        ("all 50 labels are true",),
    ),
    "not binary": (
        lambda t: _rows(t / "s.csv", _plain(50, lambda i: "maybe" if i == 7 else i % 2)),
        ("line 9: label is 'maybe'", "1 or 0"),
    ),
    "an empty statement": (
        lambda t: _rows(t / "s.csv", [*_plain(20), (" ", 1)]),
        ("line 22: statement is ' '",),
    ),
    "a folder": (lambda t: t, ("is a folder",)),
    "unknown suffix": (lambda t: _bytes(t, "s.xlsx", b"x"), ("is of no known kind",)),
    "cut JSON": (
        lambda t: _bytes(t, "s.jsonl", b'{"statement": "a", "label": 1}\n{"state'),
        ("line 2: not valid JSON",),
    ),
    "too few rows": (
        lambda t: _rows(t / "s.csv", _plain(12)),
        ("are needed; give more rows",),
    ),
    "no test rows": (
        lambda t: _rows(
            t / "s.csv", [(*row, "train") for row in _plain(60)], ("statement", "label", "split")
        ),
        ("has no rows in split 'test'",),
    ),
}


@pytest.mark.parametrize("kind", BAD_DATA)
def test_bad_statements_get_one_sentence(kind, command, tiny_models, tmp_path):
    make, words = BAD_DATA[kind]
    said = command("probe", tiny_models("llama"), make(tmp_path))
    refused(said, tmp_path, *words)
    assert said.err.count("\n") == 1


def test_bad_files_for_detection(command, tiny_models, data, tmp_path):
    few = _rows(tmp_path / "few.csv", _plain(12))
    same = shutil.copy(data, tmp_path / "same.csv")
    for trusted, suspect, words in (
        (few, data, "has 12 rows, and at least 20 trusted rows are needed"),
        (data, tmp_path / "none.csv", "There is no file"),
        (data, _rows(tmp_path / "one.csv", _plain(1)), "has 1 row, and at least 2"),
        (data, same, "The trusted and the suspect statements are the same file"),
    ):
        said = command("detect", tiny_models("llama"), "--trusted", trusted, "--suspect", suspect)
        refused(said, tmp_path, words)
