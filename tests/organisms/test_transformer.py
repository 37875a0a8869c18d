"""The transformer: fused blocks are the modules that hooks see, and their gradients are right."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck
from torch.nn import functional as F

from terrarium.organisms import fused, transformer
from terrarium.organisms.recipe import LoRA, TransformerModel
from terrarium.organisms.transformer import Transformer, attend, rotation

SPEC = TransformerModel(vocabulary=11, width=16, heads=2, layers=3, mlp=24)


@pytest.fixture
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def network(members=2, lora=False, spec=SPEC):
    made = Transformer(spec, [("seed", i) for i in range(members)])
    drawn = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name in made.weights.slots:
            if "norm" in name:  # else they are all one, and would hide a mistake
                made.weights[name].uniform_(0.5, 1.5, generator=drawn)
    if lora:
        made.add_lora(LoRA(rank=2), [("lora", i) for i in range(members)])
        with torch.no_grad():
            made.adapters.values.normal_(std=0.3, generator=drawn)
    return made


def tokens(members, n, t, vocabulary=11):
    drawn = torch.Generator().manual_seed(1)
    return torch.randint(0, vocabulary, (members, n, t), generator=drawn)


def outcome(net, x, columns, exits):
    """Return logits, those of an early exit, and all gradients of a function of both."""
    net.zero_grad()
    logits, early = net(x, columns=columns, exits=exits)
    (logits.sin().sum() + sum(early[layer].cos().sum() for layer in exits)).backward()
    net.collect_gradients()
    owner = net.weights if net.adapters is None else net.adapters
    return logits.detach(), early[exits[0]].detach(), owner.gradients.clone()


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("columns", [None, (2, 4), (4,), (0, 1, 2, 3, 4), (4, 1)])
def test_fused_blocks_are_the_modules(columns, lora):
    net, x = network(lora=lora), tokens(2, 3, 5)
    columns = None if columns is None else torch.tensor(columns)
    plain = outcome(net.eval(), x, columns, (1, 3))
    fast = outcome(net.train(), x, columns, (1, 3))
    for a, b in zip(plain, fast, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("t", [1, 2, 15, 16, 17, 33])
def test_fused_blocks_at_any_length_and_in_float32(t):
    net, x = network(), tokens(2, 3, t)
    plain = outcome(net.eval(), x, None, (2,))
    fast = outcome(net.train(), x, None, (2,))
    for a, b in zip(plain, fast, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_fused_blocks_run_where_they_should(monkeypatch):
    net, x = network(), tokens(2, 2, 5)
    calls = []
    real = fused.block
    monkeypatch.setattr(fused, "block", lambda *a: calls.append(1) or real(*a))
    net(x)
    assert not calls, "a new network is for reading"
    net.train()(x)
    assert len(calls) == SPEC.layers
    for module in (net.blocks[1], net.blocks[0].attention, net.blocks[2].mlp.hidden):
        seen = []
        handle = module.register_forward_hook(lambda m, a, out, seen=seen: seen.append(out))
        net(x, columns=torch.tensor([4]))
        handle.remove()
        assert seen[0].shape[:3] == (2, 2, 5), "a hook sees every position"
    handle = net.blocks[0].mlp.register_full_backward_hook(lambda *a: None)
    net(x)
    handle.remove()
    monkeypatch.setattr(transformer, "SHORT", 4)
    net(x)
    assert len(calls) == SPEC.layers


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("columns", [None, (1, 3)])
def test_gradients_of_a_block(columns):
    inputs, at = block_inputs(t=4)
    if columns is not None:
        at = at.only(torch.tensor(columns))
    assert gradcheck(lambda x, *weights: fused.block(x, at, *weights), inputs)


@pytest.mark.usefixtures("float64")
def test_gradients_of_a_norm_and_a_matrix():
    drawn = torch.Generator().manual_seed(0)
    shapes = ((2, 3, 2, 4), (2, 4), (2, 4, 5))
    inputs = [torch.randn(s, generator=drawn, requires_grad=True) for s in shapes]
    assert gradcheck(fused.norm_linear, inputs)


@pytest.mark.usefixtures("float64")
def test_gradients_of_gradients_are_refused_and_not_wrong():
    inputs, at = block_inputs(t=3)
    normed = [inputs[0], inputs[1], inputs[2]]
    for out, leaves in (
        (fused.block(inputs[0], at, *inputs[1:]), inputs),
        (fused.norm_linear(*normed), normed),
    ):
        # of a linear function too, where autograd alone would cut the graph in silence
        for loss in (out.sum(), out.square().sum()):
            with pytest.raises(RuntimeError, match=r"network\.eval\(\)"):
                torch.autograd.grad(loss, leaves, create_graph=True)
    net, x = network().eval(), tokens(2, 2, 5)
    (grad,) = torch.autograd.grad(net(x).sum(), net.weights["blocks.0.qkv"], create_graph=True)
    grad.square().sum().backward()
    assert net.weights["blocks.0.qkv"].grad.abs().sum() > 0


@pytest.mark.usefixtures("float64")
def test_what_is_saved_for_the_backward_pass_is_left_as_it_is():
    inputs, at = block_inputs(t=5)
    out = fused.block(inputs[0], at, *inputs[1:])
    grad = torch.randn_like(out)
    before = grad.clone()
    first = torch.autograd.grad(out, inputs, grad, retain_graph=True)
    second = torch.autograd.grad(out, inputs, grad)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert torch.equal(grad, before)


def block_inputs(t, members=2, n=1, width=4, mlp=3):
    drawn = torch.Generator().manual_seed(0)
    shapes = (
        (members, n, t, width),
        (members, width),
        (members, width, 3 * width),
        (members, width, width),
        (members, width),
        (members, width, 2 * mlp),
        (members, mlp, width),
    )
    cosine, sine = rotation(t, width // 2 or 2, 100.0, torch.device("cpu"))
    at = fused.positions(cosine, sine, width)
    return [torch.randn(s, generator=drawn, requires_grad=True) for s in shapes], at


@pytest.mark.parametrize("training", [False, True])
def test_later_tokens_change_nothing_before_them(training):
    net, x = network().train(training), tokens(2, 3, 7)
    other = x.clone()
    other[:, :, 5:] = (other[:, :, 5:] + 1) % 11
    a, b = net(x).detach(), net(other).detach()
    torch.testing.assert_close(a[:, :, :5], b[:, :, :5], rtol=0, atol=1e-6)
    assert (a[:, :, 5:] - b[:, :, 5:]).abs().amin(dim=(0, 1, 3)).max() > 0


@pytest.mark.parametrize("t", [1, 9, 16, 30, 130])
def test_attention_over_short_and_long_sequences(t):
    drawn = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 2, 3, t, 4, generator=drawn).mul(3)
    expected = F.scaled_dot_product_attention(query, key, value, is_causal=True)
    torch.testing.assert_close(attend(query, key, value), expected)


@pytest.mark.parametrize("members", [1, 3])
def test_the_embedding_and_its_gradient(members):
    net, x = network(members), tokens(members, 4, 6)
    net.embedding(x).sin().sum().backward()
    for member in range(members):
        table = net.member_state(member)["embed"].requires_grad_()
        rows = F.embedding(x[member], table)
        assert torch.equal(net.embedding(x)[member], rows)
        rows.sin().sum().backward()
        torch.testing.assert_close(net.weights["embed"].grad[member], table.grad)


@pytest.mark.parametrize("training", [False, True])
def test_training_after_inference_mode_on_the_same_length(training):
    net, x = network().train(training), tokens(2, 2, 6)
    with torch.inference_mode():
        net(x)
    net(x).sum().backward()
    assert float(net.weights["blocks.0.qkv"].grad.abs().sum()) > 0


@pytest.mark.parametrize("training", [False, True])
def test_large_scores_stay_finite(training):
    net, x = network().train(training), tokens(2, 2, 6)
    with torch.no_grad():
        net.weights["blocks.0.qkv"].mul_(1e4)
    logits = net(x)
    logits.sum().backward()
    assert torch.isfinite(logits).all()
    assert all(torch.isfinite(p.grad).all() for p in net.weights.parameters())
