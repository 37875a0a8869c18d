"""Named sites of transformers models against activations computed independently."""

import copy

import numpy as np
import pytest
import torch
import transformers

from terrarium.errors import InputError, ModelError
from terrarium.organisms.anatomy import find_blocks, unembed
from terrarium.organisms.huggingface import HuggingFaceNetwork
from terrarium.readings.hooks import capture, choose_sites, edit
from terrarium.readings.read import read
from terrarium.worlds.base import Batch

V, WIDTH, LAYERS = 40, 32, 3
LLAMA = {
    "vocab_size": V,
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GPT2 = {"vocab_size": V, "n_embd": WIDTH, "n_layer": LAYERS, "n_head": 4, "n_positions": 64}
NEOX = {k: v for k, v in LLAMA.items() if k not in {"num_key_value_heads", "head_dim"}}
CONFIGS = {
    "gpt2": lambda: transformers.GPT2Config(**GPT2),
    "gpt_neo": lambda: transformers.GPTNeoConfig(
        vocab_size=V,
        hidden_size=WIDTH,
        num_layers=2,
        attention_types=[[["global", "local"], 1]],
        window_size=4,
        num_heads=4,
        max_position_embeddings=64,
    ),
    "gpt_neox": lambda: transformers.GPTNeoXConfig(**NEOX),
    "gpt_neox_serial": lambda: transformers.GPTNeoXConfig(**NEOX, use_parallel_residual=False),
    "llama": lambda: transformers.LlamaConfig(**LLAMA),
    "mistral": lambda: transformers.MistralConfig(**LLAMA, sliding_window=5),
    "qwen2": lambda: transformers.Qwen2Config(**LLAMA),
    "qwen3": lambda: transformers.Qwen3Config(**LLAMA),
    "gemma": lambda: transformers.GemmaConfig(**LLAMA),
    "gemma2": lambda: transformers.Gemma2Config(
        **LLAMA, query_pre_attn_scalar=8, sliding_window=5, final_logit_softcapping=2.0
    ),
    "gemma3": lambda: transformers.Gemma3TextConfig(
        **LLAMA, query_pre_attn_scalar=8, sliding_window=5
    ),
    "opt": lambda: transformers.OPTConfig(
        vocab_size=V,
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        ffn_dim=48,
        num_attention_heads=4,
        max_position_embeddings=64,
        word_embed_proj_dim=16,
        pad_token_id=0,
    ),
    "phi": lambda: transformers.PhiConfig(**NEOX),
    # not in the table: the block list has to be found by its shape
    "stablelm": lambda: transformers.StableLmConfig(**{k: v for k, v in LLAMA.items()}),
}
PARALLEL = {"gpt_neox", "phi"}
UNKNOWN = {"stablelm"}


@pytest.fixture(scope="module", params=sorted(CONFIGS))
def network(request):
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(CONFIGS[request.param]()).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # norms of exactly one would hide their absence
            parameter.add_(0.1 * torch.randn_like(parameter))
    return HuggingFaceNetwork(model, name=request.param)


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    lengths = np.array([9, 4, 12, 7, 12, 5])
    inputs = rng.integers(1, V, (6, 12))
    inputs[np.arange(12) >= lengths[:, None]] = -1  # padding that is no token at all
    spans = {
        "answer": np.stack([lengths - 1, lengths], axis=1),
        "name": np.stack([lengths - 3, lengths - 2], axis=1),
    }
    return Batch(inputs, np.full_like(inputs, -100), {"row": np.arange(6)}, spans, lengths)


def tokens(n=3, t=10):
    return torch.from_numpy(np.random.default_rng(1).integers(1, V, (1, n, t)))


def everywhere(n=3, t=10):
    return np.tile(np.arange(t), (n, 1))


def final_norm(network):
    model = network.model
    for owner in (model.base_model, getattr(model.base_model, "decoder", None)):
        for name in ("ln_f", "norm", "final_layer_norm", "final_layernorm"):
            if owner is not None and hasattr(owner, name):
                return getattr(owner, name)
    raise AssertionError("no final norm")


def test_residual_equals_hidden_states_and_the_last_is_before_the_norm(network):
    x = tokens()
    with torch.no_grad(), capture(network, "all", everywhere()) as kept:
        logits = network(x)
    plain = network.model(input_ids=x[0], output_hidden_states=True)
    layers = len(find_blocks(network.model))
    assert [n for n in kept if n.startswith("resid")] == [f"resid.post[{i}]" for i in range(layers)]
    torch.testing.assert_close(kept["embed"][0], plain.hidden_states[0])
    for i in range(layers - 1):
        torch.testing.assert_close(kept[f"resid.post[{i}]"][0], plain.hidden_states[i + 1])
    last = kept[f"resid.post[{layers - 1}]"][0]
    normed = final_norm(network)(last)
    project = getattr(getattr(network.model.base_model, "decoder", None), "project_out", None)
    if project is not None:
        normed = project(normed)
    torch.testing.assert_close(normed, plain.hidden_states[-1])
    assert network.name == "opt" or not torch.allclose(last, plain.hidden_states[-1], atol=1e-3)
    torch.testing.assert_close(logits[0], plain.logits)


def test_parts_add_up_to_the_residual_stream(network):
    if network.name in UNKNOWN:
        assert {s.partition("[")[0] for s in network.sites()} == {"embed", "resid.post"}
        return
    with torch.no_grad(), capture(network, "all", everywhere()) as kept:
        network(tokens())
    before = kept["embed"]
    for i in range(len(find_blocks(network.model))):
        added = kept[f"attn.out[{i}]"] + kept[f"mlp.out[{i}]"]
        torch.testing.assert_close(before + added, kept[f"resid.post[{i}]"], atol=1e-5, rtol=1e-5)
        before = kept[f"resid.post[{i}]"]


def test_parallel_residual_differs_from_the_serial_one():
    """In GPT-NeoX and Phi the MLP reads the stream as it was before attention."""
    for kind in ("gpt_neox", "gpt_neox_serial"):
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(CONFIGS[kind]()).eval()
        network = HuggingFaceNetwork(model)
        with torch.no_grad(), capture(network, "all", everywhere()) as kept:
            network(tokens())
        block = model.gpt_neox.layers[1]
        stream = kept["resid.post[0]"][0]
        if kind == "gpt_neox_serial":
            stream = stream + kept["attn.out[1]"][0]
        expected = block.mlp(block.post_attention_layernorm(stream))
        torch.testing.assert_close(kept["mlp.out[1]"][0], expected)


def test_hidden_units_give_the_mlp_its_output(network):
    if network.name in UNKNOWN:
        return
    with torch.no_grad(), capture(network, ["mlp.act", "mlp.out"], everywhere()) as kept:
        network(tokens())
    block = find_blocks(network.model)[1]
    hidden = kept["mlp.act[1]"][0]
    downward = getattr(block, "mlp", block)
    for name in ("c_proj", "dense_4h_to_h", "down_proj", "fc2"):
        if hasattr(downward, name):
            out = getattr(downward, name)(hidden)
    if hasattr(block, "post_feedforward_layernorm"):
        out = block.post_feedforward_layernorm(out)
    torch.testing.assert_close(kept["mlp.out[1]"][0], out)


def test_early_exits_and_columns(network):
    x, columns = tokens(), torch.tensor([2, 7])
    layers = len(find_blocks(network.model))
    with torch.no_grad():
        full = network(x)
        torch.testing.assert_close(network(x, columns=columns), full[:, :, columns])
        if network.name in UNKNOWN:
            with pytest.raises(ModelError, match="final norm"):
                network(x, exits=(1,))
            return
        logits, early = network(x, exits=(1, layers), columns=columns)
        torch.testing.assert_close(early[layers], logits)
        assert not torch.allclose(early[1], logits, atol=1e-3)
        with capture(network, "resid.post[0]", everywhere()) as kept:
            network(x)
        expected = unembed(network.model, kept["resid.post[0]"])[:, :, columns]
        torch.testing.assert_close(early[1], expected)
        with pytest.raises(InputError, match="block 9"):
            network(x, exits=(9,))


def test_reading_does_not_depend_on_padding_batches_or_order(network, batch):
    options = {"sites": "all", "positions": ("prompt_end", "last:name"), "answers": [3, 5]}
    whole = read(network, batch, **options)
    assert whole.activations["resid.post[0]"].shape == (1, 6, 2, WIDTH)
    assert whole.axes == ("member", "n", "position", "channel")
    assert whole.model == network.name
    for one_by_one in (1, 13):
        again = read(network, batch, batch_tokens=one_by_one, **options)
        compare(whole, again)
    order = np.array([3, 0, 5, 1, 4, 2])
    compare(whole.take(order), read(network, batch.take(order), **options))
    for row in range(6):  # each alone, without padding, against output_hidden_states
        n = batch.lengths[row]
        alone = torch.from_numpy(batch.inputs[row : row + 1, :n])
        plain = network.model(input_ids=alone, output_hidden_states=True)
        expected = plain.hidden_states[1][0, [n - 2, n - 3]].detach().numpy()
        np.testing.assert_allclose(whole.activations["resid.post[0]"][0, row], expected, atol=2e-5)
        says = plain.logits[0, n - 2, [3, 5]].log_softmax(-1).detach().numpy()
        np.testing.assert_allclose(whole.says[0, row], says, atol=2e-5)
    mass = whole.notes["answer_mass"]
    assert len(mass) == 1
    assert 0 < mass[0] < 1


def test_mask_changes_nothing_before_the_padding(network, batch):
    inputs = torch.from_numpy(np.maximum(batch.inputs, 0))[None]
    lengths = torch.from_numpy(batch.lengths)
    with torch.no_grad():
        bare, masked = network(inputs), network(inputs, lengths=lengths)
    real = torch.arange(12) < lengths[:, None]
    torch.testing.assert_close(bare[0][real], masked[0][real])


def test_edit_touches_only_the_named_position(network):
    x = tokens()
    where = np.array([[4], [6], [-1]])
    sites = [s for s in network.sites() if s.endswith("[1]")] + ["embed"]
    with torch.no_grad():
        clean = network(x)
        for site in sites:
            with edit(network, site, lambda v: v, where):
                assert torch.equal(network(x), clean)
            with capture(network, site, everywhere()) as before:
                network(x)
            with (
                edit(network, site, lambda v: v + ramp(v), where),
                capture(network, site, everywhere()) as after,
            ):
                changed = network(x)
            difference = after[site] - before[site]
            at = torch.zeros(1, 3, 10, 1)
            at[0, 0, 4] = at[0, 1, 6] = 1
            torch.testing.assert_close(difference, at * ramp(difference), atol=1e-5, rtol=1e-5)
            assert torch.equal(changed[:, 2], clean[:, 2])
            # (equal to rounding: the matrix kernels see other numbers in the same block)
            torch.testing.assert_close(changed[:, 0, :4], clean[:, 0, :4])
            assert not torch.allclose(changed[0, 0, 4], clean[0, 0, 4], atol=1e-4)
        assert torch.equal(network(x), clean)


def test_reading_in_bfloat16_gives_float32(network, batch):
    small = HuggingFaceNetwork(copy.deepcopy(network.model).to(torch.bfloat16))
    reading = read(small, batch, positions=("last",), answers=[3, 5])
    exact = read(network, batch, positions=("last",), answers=[3, 5])
    for site in reading.sites:
        assert reading.activations[site].dtype == np.float32
        scale = np.abs(exact.activations[site]).max()
        assert np.abs(reading.activations[site] - exact.activations[site]).max() < 0.1 * scale
    assert reading.says.dtype == np.float32


def test_choose_sites(network):
    layers = len(find_blocks(network.model))
    assert choose_sites(network, "resid.post[-1]") == [f"resid.post[{layers - 1}]"]
    with pytest.raises(InputError, match=r"did you mean 'resid\.post"):
        choose_sites(network, "resid.pots")
    with pytest.raises(InputError, match="layers"):
        choose_sites(network, "resid.post[-9]")


def ramp(x):
    """Layer norms take a constant away, so the change differs from channel to channel."""
    return torch.linspace(-1, 2, x.shape[-1])


def compare(one, other):
    for site in one.sites:
        np.testing.assert_allclose(
            one.activations[site], other.activations[site], atol=2e-5, rtol=1e-4
        )
    np.testing.assert_allclose(one.says, other.says, atol=2e-5)
    np.testing.assert_array_equal(one.facts["row"], other.facts["row"])
