"""The compact transformer: a decoder of the Llama shape whose parameters carry a fleet axis.

RMSNorm (Zhang & Sennrich 2019), rotary positions (Su et al. 2021), SwiGLU (Shazeer 2020), no
biases: the architecture of Touvron et al. 2023, so that a member is written as
``LlamaForCausalLM`` and gives the same logits there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from terrarium.organisms.export import EPSILON, save_llama
from terrarium.organisms.fleet import Fleet, Key, multiply, normal, per_member
from terrarium.organisms.network import Site
from terrarium.organisms.recipe import TransformerModel


class Transformer(Fleet):
    """A fleet of decoders.

    ``network(tokens)`` takes int64 ``(member, n, t)`` and gives float32 logits
    ``(member, n, t, vocabulary)``.  Attention is causal; padding on the right therefore changes
    nothing to its left.
    """

    def __init__(self, spec: TransformerModel, keys: Sequence[Key]) -> None:
        if spec.vocabulary is None:
            raise ValueError("the vocabulary of a transformer must be set before it is built")
        super().__init__(spec, _shapes(spec), lambda key: _initial(spec, key), keys)
        self.blocks = nn.ModuleList(Block(self, layer) for layer in range(spec.layers))
        self.embedding = Embedding(self)
        self._rotary: dict[tuple[int, torch.device], tuple[Tensor, Tensor]] = {}

    def forward(
        self, tokens: Tensor, exits: Sequence[int] = (), columns: Tensor | None = None
    ) -> Tensor | tuple[Tensor, dict[int, Tensor]]:
        """Return logits, and with ``exits`` also those read after that many blocks.

        ``columns`` ``(c,)`` keeps only those positions, ``(member, n, c, vocabulary)``.
        """
        residual = self.embedding(tokens)
        rotary = self._rotation(tokens.shape[-1], tokens.device)
        early: dict[int, Tensor] = {}
        for layer, block in enumerate(self.blocks, start=1):
            residual = block(residual, rotary)
            if layer in exits:
                early[layer] = self.unembed(_columns(residual, columns))
        logits = self.unembed(_columns(residual, columns))
        return (logits, early) if exits else logits

    def unembed(self, residual: Tensor) -> Tensor:
        """Return logits ``(member, ..., vocabulary)`` of a residual ``(member, ..., width)``."""
        return multiply(rms_norm(residual, self.weights["norm"]), self.weights["unembed"])

    def sites(self) -> Mapping[str, Site]:
        """Return ``embed`` and the four sites of each block, in the order of the forward pass."""
        found = {"embed": Site(self.embedding)}
        for layer, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            found[f"attn.out[{layer}]"] = Site(block.attention)
            found[f"mlp.act[{layer}]"] = Site(block.mlp.hidden)
            found[f"mlp.out[{layer}]"] = Site(block.mlp)
            found[f"resid.post[{layer}]"] = Site(block)
        return found

    def save(self, member: int, folder: Path, tokenizer_json: str | None = None) -> None:
        """Write one member as a ``LlamaForCausalLM`` folder."""
        save_llama(self.spec, self.member_state(member), folder, tokenizer_json)

    def _rotation(self, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
        at = (length, device)
        if at not in self._rotary:
            size = self.spec.width // self.spec.heads
            self._rotary[at] = rotation(length, size, self.spec.rope_base, device)
        return self._rotary[at]


class Embedding(nn.Module):
    """Looks tokens up: ``(member, n, t)`` to ``(member, n, t, width)``."""

    def __init__(self, network: Transformer) -> None:
        super().__init__()
        self._network = (network,)  # a tuple hides the parent from nn.Module's tree

    def forward(self, tokens: Tensor) -> Tensor:
        """Return each member's own rows of its own table."""
        table = self._network[0].weights["embed"]
        members, vocabulary, width = table.shape
        if members == 1:
            return F.embedding(tokens, table[0])
        offset = torch.arange(members, device=tokens.device).view(-1, 1, 1) * vocabulary
        return F.embedding(tokens + offset, table.reshape(-1, width))


class Attention(nn.Module):
    """Causal multi-head attention with rotary positions; returns what it adds."""

    def __init__(self, network: Transformer, layer: int) -> None:
        super().__init__()
        self._network, self._layer = (network,), layer

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        """Return ``(member, n, t, width)`` of normed ``x``."""
        network, layer = self._network[0], self._layer
        members, n, t, width = x.shape
        heads = network.spec.heads
        qkv = multiply(x, network.matrix(f"blocks.{layer}.qkv"))
        qkv = qkv.view(members * n, t, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
        query, key = rotate(qkv[:2], *rotary)
        mixed = F.scaled_dot_product_attention(query, key, qkv[2], is_causal=True)
        mixed = mixed.transpose(1, 2).reshape(members, n, t, width)
        return multiply(mixed, network.matrix(f"blocks.{layer}.out"))


class Hidden(nn.Module):
    """The hidden units of a SwiGLU block."""

    def __init__(self, network: Transformer, layer: int) -> None:
        super().__init__()
        self._network, self._layer = (network,), layer

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(member, n, t, mlp)``: silu(gate) * up."""
        network = self._network[0]
        both = multiply(x, network.matrix(f"blocks.{self._layer}.gate_up"))
        gate, up = both.chunk(2, dim=-1)
        return F.silu(gate) * up


class MLP(nn.Module):
    """A SwiGLU block; returns what it adds."""

    def __init__(self, network: Transformer, layer: int) -> None:
        super().__init__()
        self._network, self._layer = (network,), layer
        self.hidden = Hidden(network, layer)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(member, n, t, width)`` of normed ``x``."""
        down = self._network[0].matrix(f"blocks.{self._layer}.down")
        return multiply(self.hidden(x), down)


class Block(nn.Module):
    """One pre-norm block: ``x + attention(norm(x))``, then ``+ mlp(norm(.))``."""

    def __init__(self, network: Transformer, layer: int) -> None:
        super().__init__()
        self._network, self._layer = (network,), layer
        self.attention = Attention(network, layer)
        self.mlp = MLP(network, layer)

    def forward(self, residual: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        """Return the residual stream after the block."""
        weights, layer = self._network[0].weights, self._layer
        normed = rms_norm(residual, weights[f"blocks.{layer}.norm1"])
        residual = residual + self.attention(normed, rotary)
        normed = rms_norm(residual, weights[f"blocks.{layer}.norm2"])
        after: Tensor = residual + self.mlp(normed)
        return after


def rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    """Return ``x`` over its root mean square, times ``weight`` ``(member, width)``."""
    return F.rms_norm(x, (x.shape[-1],), eps=EPSILON) * per_member(weight, x)


def rotation(length: int, size: int, base: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return cosines and sines ``(length, size)`` of the rotary angles, halves repeated."""
    frequency = base ** (-torch.arange(0, size, 2, device=device) / size)
    angle = torch.arange(length, device=device)[:, None] * frequency
    angle = torch.cat([angle, angle], dim=-1)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turn ``(..., t, size)`` by its position; channel i pairs with i + size / 2."""
    first, second = x.chunk(2, dim=-1)
    return x * cosine + torch.cat([-second, first], dim=-1) * sine


def _columns(x: Tensor, columns: Tensor | None) -> Tensor:
    return x if columns is None else x.index_select(2, columns)


def _shapes(spec: TransformerModel) -> dict[str, tuple[int, ...]]:
    d, m, v = spec.width, spec.mlp, spec.vocabulary or 0
    shapes: dict[str, tuple[int, ...]] = {"embed": (v, d)}
    for layer in range(spec.layers):
        at = f"blocks.{layer}"
        shapes[f"{at}.norm1"] = (d,)
        shapes[f"{at}.qkv"] = (d, 3 * d)
        shapes[f"{at}.out"] = (d, d)
        shapes[f"{at}.norm2"] = (d,)
        shapes[f"{at}.gate_up"] = (d, 2 * m)
        shapes[f"{at}.down"] = (m, d)
    shapes["norm"] = (d,)
    shapes["unembed"] = (d, v)
    return shapes


def _initial(spec: TransformerModel, key: Key) -> dict[str, Tensor]:
    """Draw a member's first weights: normal, 1/sqrt(fan-in), residual branches by 1/sqrt(2L)."""
    state = {}
    for name, shape in _shapes(spec).items():
        if len(shape) == 1:
            state[name] = torch.ones(shape)
            continue
        scale = 0.3 if name == "embed" else 1 / math.sqrt(shape[0])
        if name.endswith((".out", ".down")):
            scale /= math.sqrt(2 * spec.layers)
        state[name] = normal(key, name, shape, scale)
    return state
