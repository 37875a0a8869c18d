"""Model folders: what loads, what is refused and in which words, adapters, saving."""

import json
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers

from terrarium.errors import InputError, ModelError
from terrarium.organisms.huggingface import load_folder
from terrarium.organisms.recipe import LoRA
from terrarium.readings.hooks import capture
from terrarium.readings.read import read
from terrarium.worlds.base import Batch

V = 12
CONFIGS = {
    "gpt2": lambda: transformers.GPT2Config(
        vocab_size=V, n_embd=16, n_layer=2, n_head=2, n_positions=32
    ),
    "llama": lambda: transformers.LlamaConfig(
        vocab_size=V,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=32,
    ),
}


def word_tokenizer(size=V):
    tokenizer = Tokenizer(models.WordLevel({f"w{i}": i for i in range(size)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


def write(folder, kind):
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(CONFIGS[kind]()).save_pretrained(folder)
    transformers.PreTrainedTokenizerFast(tokenizer_object=word_tokenizer()).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    home = tmp_path_factory.mktemp("models")
    return {kind: write(home / kind, kind) for kind in CONFIGS}


@pytest.fixture
def folder(originals, tmp_path):
    return shutil.copytree(originals["llama"], tmp_path / "model")


def set_config(folder, **changes):
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


def tokens():
    return torch.from_numpy(np.random.default_rng(0).integers(0, V, (1, 3, 6)))


def detached(path):
    """Tensors of a file that are no memory map of it, so that it can be written over."""
    return {name: tensor.clone() for name, tensor in load_file(path).items()}


def refusal(folder, match, **options):
    with pytest.raises(ModelError, match=match) as caught:
        load_folder(folder, **options)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.endswith((".", "'?"))
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("kind", CONFIGS)
def test_loads_with_the_logits_of_transformers(originals, kind):
    network = load_folder(originals[kind])
    x = tokens()
    plain = transformers.AutoModelForCausalLM.from_pretrained(originals[kind]).eval()
    torch.testing.assert_close(network(x)[0], plain(x[0]).logits)
    assert (network.members, network.vocabulary, network.context) == (1, V, 32)
    assert network.name == kind
    assert not network.training
    assert len(network.tokenizer) == V
    names = dict(plain.named_parameters())
    assert dict(network.named_parameters()).keys() == names.keys()
    with pytest.raises(ValueError, match="takes tokens"):
        network(x[0])


def test_dtype_trainable_and_frozen(originals):
    network = load_folder(originals["llama"], dtype="bfloat16", trainable=False)
    assert network(tokens()).dtype == torch.bfloat16
    assert network.member_parameters(0) == []
    network = load_folder(originals["llama"])
    everything = network.member_parameters(0)
    rest = network.member_parameters(0, ("model.embed_tokens", "model.layers.0."))
    assert len(everything) - len(rest) == 10
    with pytest.raises(ValueError, match="member 0 alone"):
        network.member_parameters(1)
    with pytest.raises(InputError, match="dtype 'int8'"):
        load_folder(originals["llama"], dtype="int8")


def test_untrained_is_the_same_architecture_with_other_weights(originals):
    network = load_folder(originals["llama"], dtype="bfloat16")
    drawn = []
    for _ in range(2):
        torch.manual_seed(3)
        drawn.append(network.untrained()(tokens()))
    assert torch.equal(drawn[0], drawn[1])
    assert drawn[0].dtype == torch.bfloat16
    assert not torch.allclose(drawn[0], network(tokens()), atol=1e-2)


def test_state_goes_out_and_comes_back(originals):
    network = load_folder(originals["gpt2"])
    x, state = tokens(), network.member_state(0)
    before = network(x).detach()
    with torch.no_grad():
        for parameter in network.member_parameters(0):
            parameter.add_(1)
    copied = network.select([0])
    assert not torch.allclose(copied(x), before)
    network.load_member_state(0, state)
    assert torch.equal(network(x), before)
    assert not torch.allclose(copied(x), before)
    with pytest.raises(ModelError, match="do not fit"):
        network.load_member_state(0, {"x": torch.zeros(1)})
    with pytest.raises(ValueError, match="member 0 alone"):
        network.select([0, 0])


@pytest.mark.parametrize("kind", CONFIGS)
def test_adapters_change_nothing_until_trained_and_merging_keeps_logits(originals, kind, tmp_path):
    network = load_folder(originals[kind])
    x = tokens()
    names = [n for n, _ in network.named_parameters()]
    before = network(x).detach()
    network.add_lora(LoRA(rank=2, alpha=4.0), [("seed", 7)])
    torch.testing.assert_close(network(x), before)
    leaves = network.member_parameters(0)
    trained = [n for n, p in network.named_parameters() if p.requires_grad]
    assert trained
    assert all("lora_" in name for name in trained)
    optimiser = torch.optim.SGD(leaves, lr=1.0)
    for _ in range(3):
        optimiser.zero_grad()
        network(x).square().mean().backward()
        optimiser.step()
    adapted = network(x).detach()
    assert not torch.allclose(adapted, before, atol=1e-3)
    with torch.no_grad(), capture(network, "all", np.zeros((3, 1), np.int64)) as kept:
        network(x)
    torch.testing.assert_close(
        kept["embed"] + sum(v for k, v in kept.items() if ".out[" in k), kept["resid.post[1]"]
    )
    network.save(0, tmp_path / "whole")
    torch.testing.assert_close(load_folder(tmp_path / "whole")(x), adapted)
    assert network.adapters is not None
    network.merge_lora()
    torch.testing.assert_close(network(x), adapted)
    assert network.adapters is None
    assert [n for n, _ in network.named_parameters()] == names
    assert all(p.requires_grad for p in network.member_parameters(0))
    assert len(network.member_parameters(0)) == len(names)


def test_adapters_are_drawn_by_their_key(originals):
    drawn = []
    for key, noise in (((1,), 0), ((1,), 5), ((2,), 0)):
        network = load_folder(originals["llama"])
        torch.manual_seed(noise)
        network.add_lora(LoRA(rank=2, targets=("q_proj",)), [key])
        drawn.append(torch.cat([p.flatten() for p in network.member_parameters(0)]))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    with pytest.raises(ValueError, match="merge them first"):
        network.add_lora(LoRA())
    with pytest.raises(InputError, match="down_proj"):
        load_folder(originals["llama"]).add_lora(LoRA(targets=("nonsense",)))


def test_saved_folder_loads_in_transformers_with_a_tokenizer_of_its_own(originals, tmp_path):
    network = load_folder(originals["llama"])
    other = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    other.pre_tokenizer = pre_tokenizers.Whitespace()
    network.save(0, tmp_path / "out", other.to_str())
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    x = tokens()
    torch.testing.assert_close(again(x[0]).logits, network(x)[0])
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "out")("b a")["input_ids"] == [
        1,
        0,
    ]
    assert (tmp_path / "out" / "model.safetensors").exists()


def test_saves_over_the_folder_it_was_loaded_from(folder):
    """Weights may be memory maps of the file that is written over."""
    network = load_folder(folder)
    with torch.no_grad():
        network.member_parameters(0)[0].mul_(2)
    expected = network(tokens())
    network.save(0, folder)
    assert torch.equal(network(tokens()), expected)
    torch.testing.assert_close(load_folder(folder)(tokens()), expected)
    assert not [p for p in folder.parent.iterdir() if p.name != folder.name]


def test_training_goes_on_after_reading(originals):
    network = load_folder(originals["llama"]).train()
    inputs = tokens()[0].numpy()
    batch = Batch(inputs, inputs, {})
    reading = read(network, batch, positions=("last",))
    assert network.training
    assert network.model.model.layers[0].training
    assert reading.sites == ("resid.post[0]", "resid.post[1]")
    network(tokens()).square().mean().backward()
    assert all(p.grad is not None for p in network.member_parameters(0))


# --- refusals ---------------------------------------------------------------------------------


def test_refuses_missing_parts(folder, tmp_path):
    refusal(tmp_path / "nowhere", "no model folder")
    refusal(folder / "config.json", "is a file")
    (folder / "tokenizer.json").rename(folder / "kept")
    refusal(folder, "no tokenizer")
    assert load_folder(folder, needs_tokenizer=False).tokenizer is None
    (folder / "tokenizer.json").write_text("{")
    refusal(folder, "tokenizer .* cannot be loaded")
    (folder / "kept").rename(folder / "tokenizer.json")
    (folder / "model.safetensors").rename(folder / "model.gguf")
    refusal(folder, "model.gguf only; convert")
    (folder / "model.gguf").unlink()
    refusal(folder, "no weights")
    (folder / "config.json").unlink()
    refusal(folder, "no config.json")


def test_refuses_configs_that_are_none(folder):
    for text, match in (
        ("{", "not valid JSON"),
        ("[]", "names no model_type"),
        ("{}", "names no model_type"),
        ('{"model_type": "unheard_of"}', "knows no model type 'unheard_of'"),
    ):
        (folder / "config.json").write_text(text)
        refusal(folder, match)
    (folder / "config.json").write_bytes(b"\xff\xfe\x00")
    refusal(folder, "not valid JSON")


@pytest.mark.parametrize(
    ("kind", "architecture"),
    [
        ("bert", "BertForMaskedLM"),
        ("bert", None),
        ("t5", "T5ForConditionalGeneration"),
        ("vit", "ViTForImageClassification"),
        ("llama", "LlamaForSequenceClassification"),
    ],
)
def test_refuses_other_kinds_of_model(folder, kind, architecture):
    set_config(folder, model_type=kind, architectures=architecture and [architecture])
    refusal(folder, f"{architecture or kind}, which is not a causal language model")


def test_never_runs_code_from_the_folder(folder, tmp_path):
    trap = tmp_path / "ran"
    (folder / "configuration_own.py").write_text(f"open({str(trap)!r}, 'w')")
    auto_map = {"AutoConfig": "configuration_own.Own", "AutoModelForCausalLM": "modeling_own.Own"}
    set_config(folder, auto_map=auto_map)
    load_folder(folder)  # a kind that transformers knows needs no such code
    set_config(folder, model_type="own")
    refusal(folder, "needs Python code")
    assert not trap.exists()


def test_refuses_weights_that_are_cut_or_incomplete(folder):
    path = folder / "model.safetensors"
    whole, state = path.read_bytes(), detached(path)
    for length in (len(whole) - 100, 4, 0):
        path.write_bytes(whole[:length])
        refusal(folder, "truncated")
    some = {k: v for k, v in state.items() if "layers.1.mlp" not in k}
    save_file(some, path, metadata={"format": "pt"})
    refusal(folder, "lack 'model.layers.1.mlp.down_proj.weight' and 2 more")
    save_file({**state, "lm_head.weight": torch.zeros(3, 3)}, path, metadata={"format": "pt"})
    refusal(folder, r"'lm_head.weight' is \(3, 3\) and config.json asks for \(12, 16\)")
    path.unlink()
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"lm_head.weight": "part-1.safetensors"}}))
    refusal(folder, "lacks the weight file part-1.safetensors")
    index.write_text("{}")
    refusal(folder, "no index of weights")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_refuses_weights_that_are_not_finite(folder, value):
    path = folder / "model.safetensors"
    state = detached(path)
    state["model.layers.1.mlp.up_proj.weight"][3, 2] = value
    save_file(state, path, metadata={"format": "pt"})
    refusal(folder, r"'model\.layers\.1\.mlp\.up_proj\.weight' holds NaN")


class Trap:
    """Unpickling this would write a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_pickles_load_safely_or_not_at_all(folder, tmp_path):
    state = detached(folder / "model.safetensors")
    expected = load_folder(folder)(tokens())
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    torch.testing.assert_close(load_folder(folder)(tokens()), expected)
    torch.save({**state, "x": Trap(tmp_path / "ran")}, folder / "pytorch_model.bin")
    refusal(folder, "safetensors")
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(tmp_path / "ran")))
    refusal(folder, "safetensors")
    assert not (tmp_path / "ran").exists()


def test_refuses_a_tokenizer_larger_than_the_embedding(folder):
    (folder / "tokenizer.json").write_text(word_tokenizer(V + 1).to_str())
    refusal(folder, "knows 13 tokens and the embedding only 12")


def test_transformers_is_imported_late_offline_and_silent(originals):
    """In a fresh process: no import before it is needed, no line on the terminal, no network."""
    code = f"""
import socket, sys
def no(*a, **k): raise AssertionError("network")
socket.socket.connect = no
socket.getaddrinfo = no
import terrarium.organisms.huggingface, terrarium.readings.read
assert "transformers" not in sys.modules
import os
from terrarium.organisms.huggingface import load_folder
from terrarium.organisms.recipe import LoRA
network = load_folder({str(originals["gpt2"])!r})
network.add_lora(LoRA(rank=2))
network.merge_lora()
assert os.environ["HF_HUB_OFFLINE"] == "1"
import transformers
assert transformers.utils.logging.is_progress_bar_enabled()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
