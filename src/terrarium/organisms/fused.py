"""A transformer block for training as one operation, its gradients in closed form.

Small networks on a CPU spend more time on passes over memory and on bookkeeping than on matrix
products.  Here a block makes few passes: the weights of a norm are folded into the matrix behind
it, rotations are complex products, residuals are added by the matrix product that makes them,
and attention over short sequences is two plain batched products.  What it computes is what the
modules of `terrarium.organisms.transformer` compute, up to rounding.

Gradients of gradients are not defined here: ``create_graph=True`` raises ``RuntimeError``.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import Function

from terrarium.organisms.export import EPSILON

VECTORS = 64
"""Numbers that a processor's vector units take in one go, at most."""

KEYS = 16
"""Keys are filled up to a multiple of this: softmax takes ten times as long over 15 as over 16."""


@dataclass(frozen=True)
class Positions:
    """What a block needs to know about positions, for ``t`` tokens and ``c`` queries.

    ``query_turn`` ``(c, size / 2)`` and ``key_turn`` ``(keys, size / 2)`` are complex factors, the
    queries' including 1 / sqrt(size); ``mask`` ``(c, keys)`` is 0 where a query sees a key and
    -inf elsewhere; ``keys`` is ``t`` filled up.  ``order`` ``(3 * width,)`` puts the two channels
    that rotate together side by side and ``inverse`` puts them back; ``columns`` ``(c,)`` are the
    positions that ask, None for all.
    """

    heads: int
    query_turn: Tensor
    key_turn: Tensor
    mask: Tensor
    order: Tensor
    inverse: Tensor
    columns: Tensor | None = None

    def only(self, columns: Tensor) -> Positions:
        """Return the same for queries at some positions."""
        return replace(
            self, query_turn=self.query_turn[columns], mask=self.mask[columns], columns=columns
        )


def positions(cosine: Tensor, sine: Tensor, width: int) -> Positions:
    """Return the `Positions` of rotary angles given as ``(t, size)`` cosines and sines.

    Channel i rotates with channel i + size / 2, so only the first halves of the tables are read.
    """
    length, size = cosine.shape
    keys = -(-length // KEYS) * KEYS
    turn = torch.complex(cosine[:, : size // 2], sine[:, : size // 2])
    key_turn = turn.new_ones(keys, size // 2)
    key_turn[:length] = turn
    mask = cosine.new_full((length, keys), -math.inf).triu(1)
    channel = torch.arange(3 * width, device=cosine.device).view(3, -1, 2, size // 2)
    paired = channel[:2].transpose(-1, -2).flatten()
    order = torch.cat([paired, channel[2].flatten()])
    return Positions(
        width // size, turn / math.sqrt(size), key_turn, mask, order, torch.argsort(order)
    )


def block(
    x: Tensor,
    at: Positions,
    norm1: Tensor,
    qkv: Tensor,
    out: Tensor,
    norm2: Tensor,
    gate_up: Tensor,
    down: Tensor,
) -> Tensor:
    """Return the residual stream after a block, ``(member, n, c, width)``.

    ``x`` is ``(member, n, t, width)``; norms are ``(member, width)``, matrices
    ``(member, in, out)``.  Differentiable once, in everything but ``at``.
    """
    result: Tensor = _Block.apply(x, at, norm1, qkv, out, norm2, gate_up, down)  # type: ignore[no-untyped-call]
    return result


def norm_linear(x: Tensor, norm: Tensor, matrix: Tensor) -> Tensor:
    """Return ``(rms_norm(x) * norm) @ matrix``, ``(member, ..., out)``; differentiable once.

    ``x`` is ``(member, ..., width)``, ``norm`` ``(member, width)``.
    """
    members, *middle, width = x.shape
    flat = _NormLinear.apply(x.reshape(members, -1, width), norm, matrix)  # type: ignore[no-untyped-call]
    result: Tensor = flat.view(members, *middle, matrix.shape[-1])
    return result


Backward = Callable[[Any, Tensor], tuple[Tensor | None, ...]]


def _once(backward: Backward) -> Backward:
    """Refuse to be part of a graph of gradients.

    (``once_differentiable`` refuses only where the incoming gradient depends on something; after
    a linear function it would cut the graph in silence.)
    """

    @functools.wraps(backward)
    def refusing(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "Fused blocks have no gradients of gradients (create_graph=True); "
                "call network.eval() first, then each part is an ordinary module."
            )
        return backward(ctx, grad)

    return refusing


class _NormLinear(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, norm: Tensor, matrix: Tensor) -> Tensor:
        unit, scale = _normalise(x)
        folded = matrix * norm.unsqueeze(-1)
        ctx.save_for_backward(unit, scale, norm, matrix, folded)
        return torch.bmm(unit, folded)

    @staticmethod
    @_once
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        unit, scale, norm, matrix, folded = ctx.saved_tensors
        by_folded = _by_matrix(any(ctx.needs_input_grad[1:]), unit, grad)
        grad_unit = torch.bmm(grad, folded.transpose(1, 2))
        grad_x = _normalise_backward(grad_unit, unit).mul_(scale)
        return grad_x, *_unfold(by_folded, norm, matrix)


class _Block(Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        at: Positions,
        norm1: Tensor,
        qkv: Tensor,
        out: Tensor,
        norm2: Tensor,
        gate_up: Tensor,
        down: Tensor,
    ) -> Tensor:
        members, n, t, width = x.shape
        unit1, scale1 = _normalise(x.reshape(members, n * t, width))
        qkv_folded = qkv.index_select(2, at.order).mul_(norm1.unsqueeze(-1))
        query, key_value = _project(unit1, qkv_folded, at, n)
        law, mixed = _attend(query, key_value, at)
        mixed = _tokens(mixed.unsqueeze(0), members, at)
        asking = x if at.columns is None else x.index_select(2, at.columns)
        after = torch.baddbmm(asking.reshape(mixed.shape), mixed, out)
        unit2, scale2 = _normalise(after)
        gate_up_folded = gate_up * norm2.unsqueeze(-1)
        opened, slope, hidden = _swiglu(unit2, gate_up_folded)
        after.baddbmm_(hidden, down)
        ctx.at, ctx.rows = at, n
        ctx.save_for_backward(
            *(unit1, scale1, qkv_folded, query, key_value, law, mixed),
            *(unit2, scale2, gate_up_folded, opened, slope, hidden),
            *(norm1, qkv, out, norm2, gate_up, down),
        )
        return after.view(members, n, -1, width)

    @staticmethod
    @_once
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        saved, at, n, wanted = ctx.saved_tensors, ctx.at, ctx.rows, ctx.needs_input_grad
        unit1, scale1, qkv_folded, query, key_value, law, mixed = saved[:7]
        unit2, scale2, gate_up_folded, opened, slope, hidden = saved[7:13]
        norm1, qkv, out, norm2, gate_up, down = saved[13:]
        members, _, _, width = grad.shape
        grad = grad.reshape(members, -1, width)

        grad_down = _by_matrix(wanted[7], hidden, grad)
        grad_hidden = torch.bmm(grad, down.transpose(1, 2))
        half = slope.shape[-1]
        both = grad_hidden.new_empty(members, grad.shape[1], 2 * half)
        torch.mul(grad_hidden, slope, out=both[..., :half])
        torch.mul(grad_hidden, opened, out=both[..., half:])
        by_folded = _by_matrix(wanted[5] or wanted[6], unit2, both)
        by_gate_up = _unfold(by_folded, norm2, gate_up)
        grad_unit = torch.bmm(both, gate_up_folded.transpose(1, 2))
        grad = torch.addcmul(grad, _normalise_backward(grad_unit, unit2), scale2)

        grad_out = _by_matrix(wanted[4], mixed, grad)
        grad_mixed = _heads(torch.bmm(grad, out.transpose(1, 2)), n, 1, at)[0]
        by_query, by_key_value = _attend_backward(grad_mixed, query, key_value, law, at)
        grad_unit, by_folded = _project_backward(by_query, by_key_value, unit1, qkv_folded, at, n)
        by_qkv = _unfold(by_folded.index_select(2, at.inverse), norm1, qkv)
        grad_x = _normalise_backward(grad_unit, unit1).mul_(scale1).view(members, n, -1, width)
        grad = grad.view(members, n, -1, width)
        if at.columns is None:
            grad_x.add_(grad)
        else:
            grad_x.index_add_(2, at.columns, grad)
        return grad_x, None, *by_qkv, grad_out, *by_gate_up, grad_down


def _normalise(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``x`` ``(member, token, width)`` over its root mean square, and one over that."""
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    scale = length.square_().div_(x.shape[-1]).add_(EPSILON).rsqrt_()
    return x * scale, scale


def _normalise_backward(grad: Tensor, unit: Tensor) -> Tensor:
    """Take from ``grad``, in place, its part along ``unit``; the caller multiplies by the scale."""
    along = torch.linalg.vecdot(grad, unit).unsqueeze(-1)
    return grad.addcmul_(unit, along, value=-1 / unit.shape[-1])


def _by_matrix(wanted: bool, x: Tensor, grad: Tensor) -> Tensor | None:
    """Return the gradient of a matrix that ``x`` was multiplied by, if anybody wants it."""
    return torch.bmm(x.transpose(1, 2), grad) if wanted else None


def _unfold(
    grad: Tensor | None, norm: Tensor, matrix: Tensor
) -> tuple[Tensor, Tensor] | tuple[None, None]:
    """Return the gradients of a norm's weights and of the matrix that they were folded into."""
    if grad is None:
        return None, None
    return (grad * matrix).sum(-1), grad.mul_(norm.unsqueeze(-1))


def _project(unit: Tensor, folded: Tensor, at: Positions, n: int) -> tuple[Tensor, Tensor]:
    """Return rotated queries ``(b, c, size)`` and keys, values ``(2, b, keys, size)``.

    ``b`` runs over heads, members and rows.
    """
    width = unit.shape[-1]
    if at.columns is None:
        flat = torch.bmm(unit, folded)
        asking, asked = flat[..., :width], flat[..., width:]
    else:
        asking = torch.bmm(_asking(unit, at, n), folded[..., :width])
        asked = torch.bmm(unit, folded[..., width:])
    query = _heads(asking, n, 1, at)[0]
    key_value = _heads(asked, n, 2, at, at.mask.shape[1])
    _turn(query, at.query_turn)
    _turn(key_value[0], at.key_turn)
    return query, key_value


def _project_backward(
    by_query: Tensor, by_key_value: Tensor, unit: Tensor, folded: Tensor, at: Positions, n: int
) -> tuple[Tensor, Tensor]:
    """Return the gradients of ``unit`` and of the folded matrix."""
    members, tokens, width = unit.shape
    by_key_value = by_key_value[:, :, : tokens // n]
    if at.columns is None:
        flat = unit.new_empty(members, tokens, 3 * width)
        _tokens(by_query, members, at, flat[..., :width])
        _tokens(by_key_value, members, at, flat[..., width:])
        return torch.bmm(flat, folded.transpose(1, 2)), torch.bmm(unit.transpose(1, 2), flat)
    asking = _tokens(by_query, members, at)
    asked = _tokens(by_key_value, members, at)
    grad_unit = torch.bmm(asked, folded[..., width:].transpose(1, 2))
    grad_unit.view(members, n, -1, width).index_add_(
        2,
        at.columns,
        torch.bmm(asking, folded[..., :width].transpose(1, 2)).view(members, n, -1, width),
    )
    by_asking = torch.bmm(_asking(unit, at, n).transpose(1, 2), asking)
    return grad_unit, torch.cat([by_asking, torch.bmm(unit.transpose(1, 2), asked)], dim=-1)


def _asking(unit: Tensor, at: Positions, n: int) -> Tensor:
    """Return the tokens of ``(member, n * t, width)`` that ask, ``(member, n * c, width)``."""
    assert at.columns is not None
    members, _, width = unit.shape
    chosen = unit.view(members, n, -1, width).index_select(2, at.columns)
    return chosen.view(members, -1, width)


def _heads(flat: Tensor, n: int, parts: int, at: Positions, room: int = 0) -> Tensor:
    """Turn ``(member, n * t, parts * width)`` into ``(parts, head * member * n, t, size)``.

    ``room`` fills t up with zeros.
    """
    members, tokens, _ = flat.shape
    split = flat.view(members * n, tokens // n, parts, at.heads, -1).permute(2, 3, 0, 1, 4)
    if room <= tokens // n:
        return split.contiguous().flatten(1, 2)
    filled = flat.new_zeros(*split.shape[:3], room, split.shape[4])
    filled[:, :, :, : tokens // n] = split
    return filled.flatten(1, 2)


def _tokens(parts: Tensor, members: int, at: Positions, out: Tensor | None = None) -> Tensor:
    """Undo `_heads`."""
    count, b, tokens, size = parts.shape
    rows = b // at.heads
    if out is None:
        out = parts.new_empty(members, rows * tokens // members, count * at.heads * size)
    split = parts.view(count, at.heads, rows, tokens, size).permute(2, 3, 0, 1, 4)
    out.view(split.shape).copy_(split)
    return out


def _turn(x: Tensor, by: Tensor) -> None:
    """Rotate ``(b, t, size)`` in place, neighbouring channels being one complex number."""
    torch.view_as_complex(x.view(*x.shape[:-1], -1, 2)).mul_(by)


def _attend(query: Tensor, key_value: Tensor, at: Positions) -> tuple[Tensor, Tensor]:
    """Return attention ``(b, c, keys)`` and what is mixed ``(b, c, size)``."""
    key, value = key_value.unbind()
    law = torch.softmax(torch.bmm(query, key.transpose(1, 2)).add_(at.mask), dim=-1)
    return law, torch.bmm(law, value)


def _attend_backward(
    grad: Tensor, query: Tensor, key_value: Tensor, law: Tensor, at: Positions
) -> tuple[Tensor, Tensor]:
    """Return gradients before rotation: queries' ``(1, b, c, size)``, keys' and values'."""
    key, value = key_value.unbind()
    by_query, by_key_value = torch.empty_like(query), torch.empty_like(key_value)
    by_key, by_value = by_key_value.unbind()
    torch.bmm(law.transpose(1, 2), grad, out=by_value)
    scores = torch.bmm(grad, value.transpose(1, 2)).mul_(law)
    scores.addcmul_(law, scores.sum(dim=-1, keepdim=True), value=-1)
    torch.bmm(scores.transpose(1, 2), query, out=by_key)
    torch.bmm(scores, key, out=by_query)
    _turn(by_query, torch.conj_physical(at.query_turn))
    _turn(by_key, torch.conj_physical(at.key_turn))
    return by_query.unsqueeze(0), by_key_value


def _with_room(count: int) -> int:
    """Round up to whole vectors of the processor, of which an operation takes a few at a time.

    What is left over takes another route there, which may round differently.  With room no
    member's numbers are ever left over, and they do not depend on the size of its fleet.
    """
    return -(-count // VECTORS) * VECTORS


def _swiglu(unit: Tensor, folded: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return silu(gate), the hidden units' slope along the gate, and the hidden units."""
    half = folded.shape[-1] // 2
    shape = (*unit.shape[:-1], half)
    count = math.prod(shape)
    flat = unit.new_empty(_with_room(count))
    flat[count:] = 0
    gate = torch.bmm(unit, folded[..., :half], out=flat[:count].view(shape))
    up = torch.bmm(unit, folded[..., half:])
    slope = torch.sigmoid(flat)[:count].view(shape)
    opened = gate.mul_(slope)
    # d silu = s + silu * (1 - s), which is silu moved by the share s towards 1
    torch.lerp(opened, opened.new_ones(()), slope, out=slope)
    return opened, slope.mul_(up), up.mul_(opened)
