"""Sampling from a fleet with a key-value cache: every draw is decided by given numbers."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from terrarium.organisms.decoding import Decoder
from terrarium.organisms.transformer import Transformer
from terrarium.worlds.base import Batch
from terrarium.worlds.tokenise import tokenizer
from terrarium.worlds.tokens import END

STOP = 2
"""The token ``<eos>`` of every closed vocabulary."""

DENSE = 0.75
"""Rows that have stopped are dropped from the cache once no more than this share still runs."""


ANSWERED = 512
"""Prompts that are answered at once."""


@torch.no_grad()
def generate(
    network: Any,
    prompts: Tensor,
    lengths: Tensor,
    tokens: int,
    uniforms: Tensor,
    temperature: float = 1.0,
    stop: int | None = STOP,
    repeat: int = 1,
) -> Tensor:
    """Return what each member writes after each prompt, ``(member, n * repeat, tokens)`` int64.

    The token ``stop`` ends a row and is written; 0 stands after it.  A compact transformer is
    read with a key-value cache, one member after the other on a CPU, so that what a member writes
    does not depend on its fleet; where somebody hooks its parts, and for networks that know no
    cache, the whole sequence is read anew for every token (`generate_plainly`): the same tokens,
    as far as rounding allows.

    Parameters
    ----------
    network:
        A fleet that maps tokens to logits.
    prompts:
        ``(member, n, t)`` int64, padded on the right.
    lengths:
        ``(member, n)`` int64, how many tokens of a prompt are real, at least 1.
    tokens:
        Longest continuation.
    uniforms:
        ``(member, n * repeat, tokens)`` in [0, 1): a draw is the token at which the cumulated
        probabilities pass this number.
    temperature:
        Divides the logits; 0 takes the likeliest token.
    stop:
        The token that ends a row; None for rows of ``tokens`` tokens.
    repeat:
        Continuations of each prompt, which lie next to each other; the prompt is read once.
    """
    prompts = prompts[:, :, : int(lengths.max())]
    if isinstance(network, Transformer) and not network.watched():
        return _with_cache(network, prompts, lengths, tokens, uniforms, temperature, stop, repeat)
    if _caches(network, prompts.shape[2] + tokens):
        return _with_foreign_cache(
            network, prompts, lengths, tokens, uniforms, temperature, stop, repeat
        )
    return generate_plainly(network, prompts, lengths, tokens, uniforms, temperature, stop, repeat)


@torch.no_grad()
def generate_plainly(
    network: Any,
    prompts: Tensor,
    lengths: Tensor,
    tokens: int,
    uniforms: Tensor,
    temperature: float = 1.0,
    stop: int | None = STOP,
    repeat: int = 1,
) -> Tensor:
    """Return the same as `generate` without any cache, from whatever maps tokens to logits."""
    prompts, lengths = (x.repeat_interleave(repeat, dim=1) for x in (prompts, lengths))
    members, n, t = prompts.shape
    sequence = torch.cat([prompts, prompts.new_zeros(members, n, tokens)], dim=2)
    drawn = prompts.new_zeros(members, n, tokens)
    running = torch.ones(members, n, dtype=torch.bool, device=prompts.device)
    for k in range(tokens):
        at = lengths + k
        logits = network(sequence[:, :, : t + k])
        index = (at - 1)[..., None, None].expand(-1, -1, 1, logits.shape[-1])
        token = draw(logits.gather(2, index).squeeze(2), uniforms[..., k], temperature)
        drawn[..., k] = token * running
        sequence.scatter_(2, at[..., None], drawn[..., k : k + 1])
        if stop is not None:
            running &= token != stop
            if not bool(running.any()):
                break
    return drawn


def draw(logits: Tensor, uniform: Tensor, temperature: float) -> Tensor:
    """Return the tokens ``(...,)`` that ``uniform`` ``(...,)`` picks from ``logits`` ``(..., v)``.

    Where rounding leaves the last sum below the number, the last token with any probability is
    taken.
    """
    if temperature == 0:
        return logits.argmax(dim=-1)
    logits = logits.float()
    law = (logits - logits.amax(dim=-1, keepdim=True)).div_(temperature).exp_()
    # float64 sums: an error of 1e-7 in one of many would move every later token
    total = law.cumsum(dim=-1, dtype=torch.float64)
    wanted = uniform.to(total)[..., None] * total[..., -1:]
    token = torch.searchsorted(total, wanted, right=True)
    return token.clamp_(max=logits.shape[-1] - 1).squeeze(-1)


def _with_cache(
    network: Transformer,
    prompts: Tensor,
    lengths: Tensor,
    tokens: int,
    uniforms: Tensor,
    temperature: float,
    stop: int | None,
    repeat: int,
) -> Tensor:
    """Return what a compact transformer writes.

    On a CPU matrix products of several members are made one after the other anyway, and alone a
    member may drop the rows that have stopped without asking the others.
    """
    members = range(network.members)
    groups = [[i] for i in members] if prompts.device.type == "cpu" else [list(members)]
    drawn = []
    for group in groups:
        part = slice(group[0], group[-1] + 1)
        decoder = Decoder(network, part, prompts[part], lengths[part], tokens, repeat)
        drawn.append(_decode(decoder, tokens, uniforms[part], temperature, stop))
    return torch.cat(drawn)


def _decode(
    decoder: Decoder, tokens: int, uniforms: Tensor, temperature: float, stop: int | None
) -> Tensor:
    """Draw token after token; ``uniforms`` ``(member, n, tokens)`` are those of its members."""
    members, n, _ = uniforms.shape
    drawn = torch.zeros(members, n, tokens, dtype=torch.int64, device=uniforms.device)
    rows = torch.arange(n, device=uniforms.device).expand(members, n)
    running = torch.ones(members, n, dtype=torch.bool, device=uniforms.device)
    logits = decoder.first()
    for k in range(tokens):
        number = uniforms[..., k].gather(1, rows)
        token = draw(logits, number, temperature) * running
        drawn[..., k].scatter_(1, rows, token)
        if stop is not None:
            running &= token != stop
            most = int(running.sum(dim=1).max())
            if most == 0:
                break
            if most <= DENSE * rows.shape[1]:
                # the running rows first, in their order; some that have stopped fill a member up
                kept = torch.argsort(~running, dim=1, stable=True)[:, :most]
                rows, running, token = (x.gather(1, kept) for x in (rows, running, token))
                decoder.keep(kept)
        if k + 1 < tokens:
            logits = decoder.after(token)
    return drawn


def _caches(network: Any, length: int) -> bool:
    """Whether a `transformers` model takes a cache in which positions are not places.

    Prompts of different lengths leave gaps in the cache, which a window that counts places would
    count too.
    """
    model = getattr(network, "model", None)
    config = getattr(model, "config", None)
    if model is None or config is None:
        return False
    known = inspect.signature(model.forward).parameters
    text = config.get_text_config()
    window = getattr(text, "sliding_window", None)
    recurrent = bool(getattr(model, "_is_stateful", False))
    return (
        {"past_key_values", "position_ids", "attention_mask"} <= set(known)
        and not recurrent
        and (window is None or length <= window)
    )


def _with_foreign_cache(
    network: Any,
    prompts: Tensor,
    lengths: Tensor,
    tokens: int,
    uniforms: Tensor,
    temperature: float,
    stop: int | None,
    repeat: int,
) -> Tensor:
    """Return what a `transformers` model writes, read with the cache of `transformers`."""
    model, device = network.model, network.device
    prompt, length = prompts[0].to(device), lengths[0].to(device)
    n, t = prompt.shape
    place = torch.arange(t + tokens, device=device)
    seen = ((place < length[:, None]) | (place >= t)).long()
    position = torch.arange(t, device=device).expand(n, t)
    out = model(
        input_ids=prompt,
        attention_mask=seen[:, :t],
        position_ids=position,
        use_cache=True,
        return_dict=True,
    )
    cache = out.past_key_values
    logits = out.logits.take_along_dim((length - 1)[:, None, None], dim=1)[:, 0]
    if repeat > 1:
        cache.batch_repeat_interleave(repeat)
        logits, seen, length = (x.repeat_interleave(repeat, 0) for x in (logits, seen, length))
    drawn = prompt.new_zeros(n * repeat, tokens)
    running = torch.ones(n * repeat, dtype=torch.bool, device=device)
    numbers = uniforms[0].to(device)
    for k in range(tokens):
        drawn[:, k] = draw(logits, numbers[:, k], temperature) * running
        if stop is not None:
            running &= drawn[:, k] != stop
            if not bool(running.any()):
                break
        if k + 1 < tokens:
            logits = model(
                input_ids=drawn[:, k : k + 1],
                attention_mask=seen[:, : t + k + 1],
                position_ids=(length + k)[:, None],
                past_key_values=cache,
                use_cache=True,
                return_dict=True,
            ).logits[:, -1]
    return drawn[None].to(prompts.device)


@torch.no_grad()
def write_answers(
    network: Any,
    world: Any,
    batch: Batch,
    rng: np.random.Generator,
    temperature: float = 1.0,
    tokens: int | None = None,
) -> list[list[str]]:
    """Return what each member writes after each prompt of ``batch``, ``members`` lists of texts.

    All members draw with the same random numbers, so that they are compared in pairs.  ``tokens``
    is the longest answer, by default the longest of the world or of the batch.
    """
    longest = tokens or max(
        int(np.diff(batch.spans["answer"], axis=1).max()),
        int(getattr(world.output, "max_tokens", 1)),
    )
    device = network.member_parameters(0)[0].device
    members, stop, known = network.members, end_token(world), world.tokenizer_json()
    written: list[list[str]] = [[] for _ in range(members)]
    for start in range(0, len(batch), ANSWERED):
        part = batch.take(np.arange(start, min(start + ANSWERED, len(batch))))
        prompts, lengths = prompts_of([part])
        uniforms = rng.random((1, len(part), longest))
        drawn = generate(
            network,
            torch.from_numpy(prompts).expand(members, -1, -1).to(device),
            torch.from_numpy(lengths).expand(members, -1).to(device),
            longest,
            torch.from_numpy(uniforms).expand(members, -1, -1).to(device),
            temperature,
            stop=stop,
        ).cpu()
        for told, rows in zip(written, drawn, strict=True):
            told.extend(texts_of(rows.numpy(), known, stop).tolist())
    return written


def prompts_of(batches: Sequence[Batch]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return what stands before each answer, ``(member, n, t)``, and its lengths ``(member, n)``.

    Padded with 0; one batch per member, all of as many rows.
    """
    stops = [batch.spans["answer"][:, 0] for batch in batches]
    longest = max(int(stop.max()) for stop in stops)
    rows = []
    for batch, stop in zip(batches, stops, strict=True):
        row = batch.inputs[:, :longest]
        if row.shape[1] < longest:
            row = np.pad(row, ((0, 0), (0, longest - row.shape[1])))
        rows.append(np.where(np.arange(longest) < stop[:, None], row, 0))
    return np.stack(rows), np.stack(stops).astype(np.int64)


def texts_of(
    rows: NDArray[np.int64], tokenizer_json: str, stop: int | None = STOP
) -> NDArray[np.str_]:
    """Return the text of token rows ``(n, t)`` up to ``stop``; equal rows are read once.

    Special tokens are left out.
    """
    unique, inverse = np.unique(rows, axis=0, return_inverse=True)
    length = np.full(len(unique), unique.shape[1])
    if stop is not None:
        ends = unique == stop
        length = np.where(ends.any(axis=1), ends.argmax(axis=1), length)
    cut = [row[:n] for row, n in zip(unique.tolist(), length.tolist(), strict=True)]
    found = tokenizer(tokenizer_json).decode_batch(cut, skip_special_tokens=True)
    texts: NDArray[np.str_] = np.array(found, dtype=str)[inverse.reshape(-1)]
    return texts


def end_token(world: Any) -> int | None:
    """Return the token that ends an answer in a world's tokens; None where there is none.

    A world in a foreign tokenizer says itself which one it is.
    """
    own = getattr(world, "end_token", None)
    if own is not None:
        return int(own)
    known: int | None = tokenizer(world.tokenizer_json()).token_to_id(END)
    return known
