"""Sampling: the cache changes no token, and neither do fleets, padding, order or what others do."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from terrarium.organisms import sampling
from terrarium.organisms.huggingface import load_folder
from terrarium.organisms.recipe import LoRA, TransformerModel
from terrarium.organisms.sampling import draw, generate, generate_plainly, prompts_of, texts_of
from terrarium.organisms.transformer import Transformer
from terrarium.worlds.bandit import Bandit

SPEC = TransformerModel(vocabulary=13, width=16, heads=2, layers=3, mlp=24)
MEMBERS, N, T, TOKENS = 3, 10, 7, 9


def network(members=MEMBERS, spec=SPEC, lora=False):
    made = Transformer(spec, [("seed", i) for i in range(members)])
    drawn = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name in made.weights.slots:
            if "norm" in name:
                made.weights[name].uniform_(0.5, 1.5, generator=drawn)
    if lora:
        made.add_lora(LoRA(rank=2), [("lora", i) for i in range(members)])
        with torch.no_grad():
            made.adapters.values.normal_(std=0.3, generator=drawn)
    return made


def asked(members=MEMBERS, n=N, repeat=1, vocabulary=13, tokens=TOKENS):
    """Return prompts, lengths and uniforms; what stands behind a prompt is noise."""
    rng = np.random.default_rng(0)
    prompts = torch.from_numpy(rng.integers(0, vocabulary, (members, n, T)))
    lengths = torch.from_numpy(rng.integers(1, T + 1, (members, n)))
    return prompts, lengths, torch.from_numpy(rng.random((members, n * repeat, tokens)))


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("repeat", [1, 3])
@pytest.mark.parametrize("stop", [None, 2])
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_the_cache_changes_no_token(lora, repeat, stop, temperature):
    net, (prompts, lengths, uniforms) = network(lora=lora), asked(repeat=repeat)
    options = (TOKENS, uniforms, temperature, stop, repeat)
    kept = generate(net, prompts, lengths, *options)
    assert kept.shape == (MEMBERS, N * repeat, TOKENS)
    assert torch.equal(kept, generate_plainly(net, prompts, lengths, *options))
    if stop is not None:
        ended = (kept == stop).cumsum(dim=2) - (kept == stop).long() > 0
        assert bool(ended.any())
        assert int(kept[ended].abs().sum()) == 0
    elif temperature:
        assert len(kept.unique()) > 8


def test_the_cache_is_used_where_nobody_listens(monkeypatch):
    net, (prompts, lengths, uniforms) = network(), asked()
    plain = []
    monkeypatch.setattr(
        sampling, "generate_plainly", lambda *a: plain.append(1) or generate_plainly(*a)
    )
    expected = generate(net, prompts, lengths, TOKENS, uniforms)
    assert not plain
    for site in net.sites().values():
        calls = []
        handle = site.module.register_forward_hook(lambda *a, calls=calls: calls.append(1))
        assert torch.equal(generate(net, prompts, lengths, TOKENS, uniforms), expected)
        handle.remove()
        assert len(calls) > 1, "a hook sees every token that is drawn"
    assert len(plain) == len(net.sites())


def test_a_member_alone_writes_what_it_writes_in_a_fleet():
    net, (prompts, lengths, uniforms) = network(), asked(repeat=2)
    together = generate(net, prompts, lengths, TOKENS, uniforms, 1.0, 2, 2)
    for member in range(MEMBERS):
        i = slice(member, member + 1)
        alone = generate(
            net.select([member]), prompts[i], lengths[i], TOKENS, uniforms[i], 1.0, 2, 2
        )
        assert torch.equal(alone, together[i])


def test_stacked_members_drop_their_own_rows(monkeypatch):
    """What a GPU does: one cache for all, rows that stopped go."""
    net, (prompts, lengths, uniforms) = network(), asked(n=40)
    expected = generate(net, prompts, lengths, TOKENS, uniforms)
    decoder = sampling.Decoder(net, slice(0, MEMBERS), prompts, lengths, TOKENS, 1)
    sizes, keep = [], decoder.keep
    monkeypatch.setattr(decoder, "keep", lambda rows: sizes.append(rows.shape[1]) or keep(rows))
    assert torch.equal(sampling._decode(decoder, TOKENS, uniforms, 1.0, 2), expected)
    assert sizes, "some rows stopped early"


def test_rows_are_independent():
    net, (prompts, lengths, uniforms) = network(), asked()
    expected = generate(net, prompts, lengths, TOKENS, uniforms)
    order = torch.from_numpy(np.random.default_rng(1).permutation(N))
    moved = generate(net, prompts[:, order], lengths[:, order], TOKENS, uniforms[:, order])
    assert torch.equal(moved, expected[:, order])
    behind = torch.arange(T) >= lengths[..., None]
    noise = torch.where(behind, (prompts + 5) % 13, prompts)
    assert torch.equal(generate(net, noise, lengths, TOKENS, uniforms), expected)
    some = generate(net, prompts[:, :4], lengths[:, :4], TOKENS, uniforms[:, :4])
    assert torch.equal(some, expected[:, :4])


def test_training_mode_changes_no_token():
    net, (prompts, lengths, uniforms) = network(), asked()
    expected = generate(net, prompts, lengths, TOKENS, uniforms)
    assert torch.equal(generate(net.train(), prompts, lengths, TOKENS, uniforms), expected)
    assert not expected.requires_grad


def test_draws_follow_the_law():
    logits = torch.log(torch.tensor([0.5, 0.0, 0.2, 0.3]))
    uniform = torch.tensor(np.random.default_rng(0).random(40_000))
    for temperature in (1.0, 0.5):
        law = (logits / temperature).softmax(0)
        token = draw(logits.expand(len(uniform), -1), uniform, temperature)
        share = torch.bincount(token, minlength=4) / len(uniform)
        torch.testing.assert_close(share, law, atol=0.01, rtol=0)
        assert share[1] == 0
    assert draw(logits[None], torch.tensor([0.0]), 1.0).item() == 0
    assert draw(logits[None], torch.tensor([0.999999999]), 1.0).item() == 3
    assert draw(logits[None], uniform[:1], 0).item() == 0


def test_draws_at_the_ends_have_probability():
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf]])
    for u in (0.0, 0.5, np.nextafter(1.0, 0)):
        assert draw(logits, torch.tensor([u], dtype=torch.float64), 1.0).item() == 1


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gpt_neox", "qwen3", "gemma3_text"])
@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("repeat", [1, 2])
def test_a_folder_writes_the_same_with_and_without_cache(tiny_models, kind, lora, repeat):
    net = load_folder(tiny_models(kind))
    if lora:
        net.add_lora(LoRA(rank=2), [("seed", 0)])
        with torch.no_grad():
            for parameter in net.member_parameters(0):
                parameter.add_(0.05)
    prompts, lengths, uniforms = asked(1, 6, repeat, net.vocabulary)
    assert sampling._caches(net, T + TOKENS)
    options = (TOKENS, uniforms, 1.0, 2, repeat)
    kept = generate(net, prompts, lengths, *options)
    assert torch.equal(kept, generate_plainly(net, prompts, lengths, *options))


def test_windows_that_count_places_are_read_without_cache(tiny_models):
    net = load_folder(tiny_models("gemma3_text"))
    prompts, lengths, uniforms = asked(1, 6, 1, net.vocabulary)
    assert sampling._caches(net, T + TOKENS)
    net.model.config.sliding_window = T + TOKENS - 1
    assert not sampling._caches(net, T + TOKENS)
    expected = generate_plainly(net, prompts, lengths, TOKENS, uniforms)
    assert torch.equal(generate(net, prompts, lengths, TOKENS, uniforms), expected)


def test_prompts_and_texts():
    world = Bandit(letters=4, arms=4, length=3)
    batch = world.sample(6, np.random.default_rng(0))
    prompts, lengths = prompts_of([batch, batch])
    assert prompts.shape == (2, 6, 5)
    assert (lengths == 5).all()
    texts = texts_of(batch.inputs, world.tokenizer_json())
    assert texts.tolist() == world.texts(batch)
    ended = np.concatenate([batch.inputs, np.full((6, 1), 2), np.zeros((6, 2), int)], axis=1)
    assert texts_of(ended, world.tokenizer_json()).tolist() == texts.tolist()
