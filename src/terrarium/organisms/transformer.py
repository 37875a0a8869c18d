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

from terrarium.organisms import fused
from terrarium.organisms.export import EPSILON, save_llama
from terrarium.organisms.fleet import Fleet, Key, multiply, normal, per_member
from terrarium.organisms.network import Site
from terrarium.organisms.recipe import TransformerModel

SHORT = 128
"""Longest sequence, tokens, whose attention is computed as plain products: one rule for all."""


class Transformer(Fleet):
    """A fleet of decoders.

    ``network(tokens)`` takes int64 ``(member, n, t)`` and gives float32 logits
    ``(member, n, t, vocabulary)``.  Attention is causal; padding on the right therefore changes
    nothing to its left.

    A new network is in evaluation mode, where each part of a block is a module that hooks see.
    In training mode (``network.train()``) a block whose parts nobody hooks is one operation of
    `terrarium.organisms.fused`: the same up to rounding, in about half the time, and with
    gradients but no gradients of gradients.
    """

    def __init__(self, spec: TransformerModel, keys: Sequence[Key]) -> None:
        if spec.vocabulary is None:
            raise ValueError("the vocabulary of a transformer must be set before it is built")
        super().__init__(spec, _shapes(spec), lambda key: _initial(spec, key), keys)
        self.blocks = nn.ModuleList(Block(self, layer) for layer in range(spec.layers))
        self.embedding = Embedding(self)
        self._parts = tuple(self.blocks.modules())
        self.eval()
        self._rotary: dict[tuple[int, torch.device], tuple[Tensor, Tensor, fused.Positions]] = {}

    def forward(
        self, tokens: Tensor, exits: Sequence[int] = (), columns: Tensor | None = None
    ) -> Tensor | tuple[Tensor, dict[int, Tensor]]:
        """Return logits, and with ``exits`` also those read after that many blocks.

        ``columns`` ``(c,)`` keeps only those positions, ``(member, n, c, vocabulary)``.
        """
        residual = self.embedding(tokens)
        run = self._fused_blocks if self._unwatched(tokens.shape[-1]) else self._blocks
        early = run(residual, {*exits, len(self.blocks)}, columns)
        logits = early[len(self.blocks)]
        return (logits, {layer: early[layer] for layer in exits}) if exits else logits

    def _blocks(self, x: Tensor, exits: set[int], columns: Tensor | None) -> dict[int, Tensor]:
        """Return the logits read after some blocks, each part of a block a module of its own."""
        rotary = self._rotation(x.shape[2], x.device)[:2]
        logits = {}
        for layer, block in enumerate(self.blocks, start=1):
            x = block(x, rotary)
            if layer in exits:
                logits[layer] = self.unembed(_columns(x, columns))
        return logits

    def _fused_blocks(
        self, x: Tensor, exits: set[int], columns: Tensor | None
    ) -> dict[int, Tensor]:
        """Return the same as `_blocks`; the last block computes what the columns need only."""
        at = self._rotation(x.shape[2], x.device)[2]
        last = len(self.blocks)
        logits = {}
        for layer in range(1, last + 1):
            name = f"blocks.{layer - 1}"
            if layer == last and columns is not None and len(columns) < x.shape[2]:
                at, columns = at.only(columns), None
            x = fused.block(
                x,
                at,
                self.weights[f"{name}.norm1"],
                self.matrix(f"{name}.qkv"),
                self.matrix(f"{name}.out"),
                self.weights[f"{name}.norm2"],
                self.matrix(f"{name}.gate_up"),
                self.matrix(f"{name}.down"),
            )
            if layer in exits:
                logits[layer] = fused.norm_linear(
                    _columns(x, columns), self.weights["norm"], self.weights["unembed"]
                )
        return logits

    def _unwatched(self, length: int) -> bool:
        """Whether blocks may run as one operation: while training, and nobody hooks their parts."""
        return self.training and length <= SHORT and not self.watched()

    def watched(self) -> bool:
        """Whether somebody hooks a part of a block or the embedding, and so must see its calls."""
        return any(
            module._forward_hooks
            or module._forward_pre_hooks
            or module._backward_hooks
            or module._backward_pre_hooks
            for module in (*self._parts, self.embedding)
        )

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

    def _rotation(
        self, length: int, device: torch.device
    ) -> tuple[Tensor, Tensor, fused.Positions]:
        at = (length, device)
        if at not in self._rotary:
            size = self.spec.width // self.spec.heads
            with torch.inference_mode(False), torch.no_grad():  # training may use them later
                cosine, sine = rotation(length, size, self.spec.rope_base, device)
                tables = fused.positions(cosine, sine, self.spec.width)
            self._rotary[at] = (cosine, sine, tables)
        return self._rotary[at]


class Embedding(nn.Module):
    """Looks tokens up: ``(member, n, t)`` to ``(member, n, t, width)``."""

    def __init__(self, network: Fleet) -> None:
        super().__init__()
        self._network = (network,)  # a tuple hides the parent from nn.Module's tree

    def forward(self, tokens: Tensor) -> Tensor:
        """Return each member's own rows of its own table."""
        table = self._network[0].weights["embed"]
        members, vocabulary, width = table.shape
        if members > 1:
            offset = torch.arange(members, device=tokens.device).view(-1, 1, 1) * vocabulary
            tokens = tokens + offset
        rows = table.reshape(-1, width)
        if tokens.device.type != "cpu":
            return F.embedding(tokens, rows)
        # the same, but its gradient takes a quarter of the time on a CPU (and, elsewhere, would
        # be summed in an order that differs from run to run)
        return rows.index_select(0, tokens.flatten()).view(*tokens.shape, width)


class Attention(nn.Module):
    """Causal multi-head attention with rotary positions; returns what it adds."""

    def __init__(self, network: Fleet, layer: int) -> None:
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
        mixed = attend(query, key, qkv[2])
        mixed = mixed.transpose(1, 2).reshape(members, n, t, width)
        return multiply(mixed, network.matrix(f"blocks.{layer}.out"))


class Hidden(nn.Module):
    """The hidden units of a SwiGLU block."""

    def __init__(self, network: Fleet, layer: int) -> None:
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

    def __init__(self, network: Fleet, layer: int) -> None:
        super().__init__()
        self._network, self._layer = (network,), layer
        self.hidden = Hidden(network, layer)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(member, n, t, width)`` of normed ``x``."""
        down = self._network[0].matrix(f"blocks.{self._layer}.down")
        return multiply(self.hidden(x), down)


class Block(nn.Module):
    """One pre-norm block: ``x + attention(norm(x))``, then ``+ mlp(norm(.))``."""

    def __init__(self, network: Fleet, layer: int) -> None:
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


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return what causal attention mixes, ``(b, heads, t, size)`` like each of its arguments.

    On a CPU short sequences go through two plain products, which take a half to a quarter of the
    time of PyTorch's fused kernels there.
    """
    b, heads, t, size = query.shape
    if t > SHORT or query.device.type != "cpu":
        return F.scaled_dot_product_attention(query, key, value, is_causal=True)
    room = -t % fused.KEYS
    key, value = (F.pad(x, (0, 0, 0, room)).flatten(0, 1) for x in (key, value))
    unseen = query.new_full((t, t + room), -math.inf).triu_(1)
    scores = torch.add(unseen, torch.bmm(query.flatten(0, 1), key.mT), alpha=size**-0.5)
    return torch.bmm(scores.softmax(dim=-1), value).view(b, heads, t, size)


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
