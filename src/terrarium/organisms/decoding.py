"""The compact transformer read token by token, with what it needs of earlier tokens kept.

Keys and values of a row lie in slots: those of its prompt first, as many as the longest prompt
has, then one per new token.  Slots behind a shorter prompt are masked, and a new token's rotary
position is its own, whatever its slot; so rows need not be of one length.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from terrarium.organisms.export import EPSILON
from terrarium.organisms.fused import KEYS
from terrarium.organisms.transformer import Transformer, attend, rotate, rotation


class Decoder:
    """The state of some members of a fleet that write.

    Parameters
    ----------
    network:
        The fleet; adapters count.
    part:
        Which of its members write, a slice.
    prompts, lengths:
        Their prompts ``(member, n, t)``, padded on the right, and how much of each is real.
    tokens:
        Longest continuation.
    repeat:
        Continuations of each prompt; rows are then ``n * repeat``, those of a prompt next to each
        other.
    """

    def __init__(
        self,
        network: Transformer,
        part: slice,
        prompts: Tensor,
        lengths: Tensor,
        tokens: int,
        repeat: int,
    ) -> None:
        self._heads = network.spec.heads
        self._size = network.spec.width // self._heads
        self._layers = [_layer(network, part, i) for i in range(network.spec.layers)]
        self._embed = network.weights["embed"][part]
        self._unembed = _folded(network.weights["unembed"][part], network.weights["norm"][part])
        members, _, t = prompts.shape
        self._members, self._prompt, self._step = members, t, 0
        slots = -(-(t + tokens) // KEYS) * KEYS
        self._turns = rotation(t + tokens, self._size, network.spec.rope_base, prompts.device)
        self._length = lengths.repeat_interleave(repeat, dim=1)
        # one mask for both: new slots are masked until they are written
        place = torch.arange(slots, device=prompts.device)
        hidden = place >= self._length.reshape(-1, 1)
        self._mask = torch.zeros(hidden.shape, device=prompts.device).masked_fill_(
            hidden, -math.inf
        )
        self._kept: list[Tensor] = []
        self._first = self._read(prompts, lengths, slots, repeat)

    def first(self) -> Tensor:
        """Return the logits after the prompts, ``(member, row, vocabulary)``."""
        return self._first

    def after(self, token: Tensor) -> Tensor:
        """Take each row's next token ``(member, row)``; return the logits after it."""
        slot = self._prompt + self._step
        used = -(-(slot + 1) // KEYS) * KEYS
        at = (self._length + self._step).flatten()
        cosine, sine = (table[at][:, None, :] for table in self._turns)
        self._mask[:, slot] = 0
        mask = self._mask[:, None, :used]
        x = self._embedded(token)
        for kept, layer in zip(self._kept, self._layers, strict=True):
            query_key, value = self._project(x, layer)
            query, key = rotate(query_key, cosine, sine)
            kept[0, :, :, slot], kept[1, :, :, slot] = key, value
            keys, values = kept[:, :, :, :used].flatten(1, 2)
            asked = query.reshape(-1, 1, self._size) * self._size**-0.5
            score = torch.bmm(asked, keys.transpose(1, 2)).view(-1, self._heads, used)
            law = score.add_(mask).softmax(dim=-1)
            mixed = torch.bmm(law.view(-1, 1, used), values)
            x = self._finish(x, mixed.view(x.shape), layer)
        self._step += 1
        return torch.bmm(_unit(x), self._unembed)

    def keep(self, rows: Tensor) -> None:
        """Go on with some rows of each member alone, ``(member, kept)`` of those there are."""
        count = self._length.shape[1]
        start = torch.arange(self._members, device=rows.device)[:, None] * count
        flat = (rows + start).flatten()
        self._length = self._length.gather(1, rows)
        self._mask = self._mask[flat]
        self._kept = [kept.index_select(1, flat) for kept in self._kept]

    def _read(self, prompts: Tensor, lengths: Tensor, slots: int, repeat: int) -> Tensor:
        """Read the prompts, keep their keys and values, return the logits after each."""
        members, n, t = prompts.shape
        x = self._embedded(prompts.reshape(members, n * t))
        cosine, sine = (table[:t] for table in self._turns)
        for layer in self._layers:
            query_key, value = self._project(x, layer)
            shape = (members * n, t, self._heads, self._size)
            query_key = query_key.view(2, *shape).transpose(2, 3)
            value = value.view(shape).transpose(1, 2)
            query, key = rotate(query_key, cosine, sine)
            kept = key.new_zeros(2, members * n * repeat, self._heads, slots, self._size)
            kept[0, :, :, :t] = key.repeat_interleave(repeat, dim=0)
            kept[1, :, :, :t] = value.repeat_interleave(repeat, dim=0)
            self._kept.append(kept)
            mixed = attend(query, key, value).transpose(1, 2)
            x = self._finish(x, mixed.reshape(x.shape), layer)
        last = torch.arange(n, device=prompts.device) * t + lengths - 1
        x = x.gather(1, last[..., None].expand(-1, -1, x.shape[2]))
        return torch.bmm(_unit(x), self._unembed).repeat_interleave(repeat, dim=1)

    def _embedded(self, tokens: Tensor) -> Tensor:
        """Return ``(member, token, width)`` of tokens ``(member, token)``."""
        table = self._embed
        offset = torch.arange(self._members, device=tokens.device)[:, None] * table.shape[1]
        return table.flatten(0, 1)[tokens + offset]

    def _project(self, x: Tensor, layer: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return queries and keys ``(2, token, heads, size)``, and values ``(token, ...)``."""
        qkv = torch.bmm(_unit(x), layer["qkv"])
        parts = qkv.view(-1, 3, self._heads, self._size).transpose(0, 1)
        return parts[:2], parts[2]

    def _finish(self, x: Tensor, mixed: Tensor, layer: dict[str, Tensor]) -> Tensor:
        """Return the residual stream after the block, ``(member, token, width)``."""
        x = torch.baddbmm(x, mixed, layer["out"])
        gate, up = torch.bmm(_unit(x), layer["gate_up"]).chunk(2, dim=-1)
        return torch.baddbmm(x, torch.nn.functional.silu(gate) * up, layer["down"])


def _layer(network: Transformer, part: slice, layer: int) -> dict[str, Tensor]:
    """Return a block's matrices with the norms folded in."""
    at = f"blocks.{layer}"
    matrix = {name: network.matrix(f"{at}.{name}")[part] for name in ("out", "down")}
    for name, norm in (("qkv", "norm1"), ("gate_up", "norm2")):
        scale = network.weights[f"{at}.{norm}"][part]
        matrix[name] = _folded(network.matrix(f"{at}.{name}")[part], scale)
    return matrix


def _folded(matrix: Tensor, norm: Tensor) -> Tensor:
    return matrix * norm.unsqueeze(-1)


def _unit(x: Tensor) -> Tensor:
    """Return ``x`` over its root mean square."""
    return torch.nn.functional.rms_norm(x, (x.shape[-1],), eps=EPSILON)
