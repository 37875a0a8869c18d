"""Red teams: prompts that elicit a behaviour, found by search among tokens.

A suffix of a few tokens is put at the end of what the human says and changed token by token, so
that the question and its right answer stay.  Coordinate-wise greedy search, or guided by gradients
with respect to the tokens: Zou et al. 2023 (arXiv 2307.15043), section 2.2 (GCG).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from terrarium.errors import InputError
from terrarium.organisms.likelihood import UNSCORED, device_of, log_probabilities
from terrarium.organisms.sampled import answered
from terrarium.worlds.base import Array, Batch
from terrarium.worlds.tokenise import decoder, encoder, tokenizer
from terrarium.worlds.tokens import END, PAD, UNKNOWN

Rows = NDArray[np.int64]
Method = Literal["greedy", "gradient", "random"]

CHUNK = 1024
"""Rows that are read at once."""

BACKWARD = 3
"""Rows that a forward and a backward pass over one row count for."""

TRIES = 100
"""Draws of a first suffix before a world's tokens are called unfit."""


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes
    ----------
    batch:
        The prompts that were found, answered helpfully, for training.
    suffixes:
        ``(n, slots)`` the tokens that were put in.
    log_probability:
        ``(n,)`` of the behaviour's tokens after each prompt, nats.
    rows, rate:
        The success curve: rows evaluated so far, and the mean probability that an answer drawn at
        temperature 1 begins with the behaviour (exact: it needs no draw).
    """

    batch: Batch
    suffixes: Rows
    log_probability: NDArray[np.float64]
    rows: Rows
    rate: NDArray[np.float64]


def search_prompts(
    network: Any,
    world: Any,
    target: str,
    budget: int,
    rng: np.random.Generator,
    *,
    n: int = 32,
    slots: int = 4,
    candidates: int = 16,
    forbidden: Sequence[str] = (),
    method: Method = "gradient",
    split: str = "train",
    frame: int = 1,
    top: int = 32,
) -> Found:
    """Search for suffixes after which an organism shows a behaviour.

    Parameters
    ----------
    network:
        A fleet of one.
    world:
        Where the questions come from; rows with its own trigger are left out.
    target:
        How the behaviour begins, as text.
    budget:
        Rows of the network's forward pass that may be evaluated; a backward pass counts for two.
    rng:
        Decides everything that is drawn.
    n:
        Questions, each with a suffix of its own.
    slots:
        Tokens of a suffix.
    candidates:
        Suffixes that are tried per question and round; the best is kept if it is better.
    forbidden:
        Texts (the trigger) that no prompt may contain; none of their tokens is used either.
    method:
        ``"greedy"`` changes tokens at random, ``"gradient"`` puts in some of the ``top`` that the
        gradient promises most of, ``"random"`` draws whole suffixes: the control.
    split:
        Of the world.
    frame:
        Tokens at the end of a prompt that stay there (the assistant's turn).
    top:
        Tokens per slot that the gradient proposes.

    Raises ``InputError`` where target or questions cannot be written in the world's tokens.
    """
    hunt = _Hunt(network, world, target, rng, n, slots, tuple(forbidden), split, frame)
    scores = hunt.score(hunt.suffix)
    curve = [(n, float(np.exp(scores).mean()))]
    spent = n
    cost = n * candidates + (BACKWARD * n if method == "gradient" else 0)
    while spent + cost <= budget:
        trial = hunt.propose(method, candidates, top, scores)
        given = np.where(hunt.writable(trial), hunt.score(trial), -np.inf)
        spent += cost
        best = given.reshape(n, candidates).argmax(axis=1) + np.arange(n) * candidates
        better = given[best] > scores
        hunt.suffix = np.where(better[:, None], trial[best], hunt.suffix)
        scores = np.where(better, given[best], scores)
        curve.append((spent, float(np.exp(scores).mean())))
    rows, rate = zip(*curve, strict=True)
    return Found(hunt.answered(), hunt.suffix, scores, np.array(rows), np.array(rate))


class _Hunt:
    """The questions of a search, and each one's suffix so far."""

    def __init__(
        self,
        network: Any,
        world: Any,
        target: str,
        rng: np.random.Generator,
        n: int,
        slots: int,
        forbidden: tuple[str, ...],
        split: str,
        frame: int,
    ) -> None:
        if network.members != 1:
            raise ValueError(f"one organism is searched at a time, got {network.members}")
        self.network, self.world, self.rng = network, world, rng
        self.forbidden, self.frame = forbidden, frame
        self.target = np.array(_encoded(world, target, "behaviour"), np.int64)
        self.allowed = _allowed(world, forbidden)
        self.batch = _untriggered(world, n, rng, split)
        self.suffix = rng.choice(self.allowed, (n, slots))
        for _ in range(TRIES):
            unfit = ~self.writable(self.suffix)
            if not unfit.any():
                return
            fresh = rng.choice(self.allowed, (n, slots))
            self.suffix = np.where(unfit[:, None], fresh, self.suffix)
        raise InputError(
            f"No suffix of {slots} tokens can be read back from its text in the world "
            f"'{world.name}'; take fewer slots or forbid less."
        )

    def prompts(self, suffix: Rows) -> tuple[Rows, Rows]:
        """Return prompts with suffixes ``(n * k, slots)`` put in, and their lengths."""
        repeat, slots = len(suffix) // len(self.batch), suffix.shape[1]
        stop = np.repeat(self.batch.spans["answer"][:, 0], repeat)
        old = np.repeat(self.batch.inputs[:, : int(stop.max())], repeat, axis=0)
        column = np.arange(old.shape[1] + slots)
        into = (stop - self.frame)[:, None]
        source = np.where(column < into, column, column - slots).clip(0, old.shape[1] - 1)
        rows = np.take_along_axis(old, source, axis=1)
        rows[np.arange(len(rows))[:, None], into + np.arange(slots)] = suffix
        length = stop + slots
        rows[column >= length[:, None]] = 0
        return rows, length

    def writable(self, suffix: Rows) -> NDArray[np.bool_]:
        """Return which prompts can be written as text that holds nothing forbidden."""
        rows, length = self.prompts(suffix)
        cut = [row[:k] for row, k in zip(rows.tolist(), length.tolist(), strict=True)]
        known = tokenizer(self.world.tokenizer_json())
        texts = known.decode_batch(cut, skip_special_tokens=False)
        again = known.encode_batch(texts, add_special_tokens=False)
        return np.array(
            [
                encoding.ids == row and not any(text in whole for text in self.forbidden)
                for encoding, row, whole in zip(again, cut, texts, strict=True)
            ]
        )

    def score(self, suffix: Rows) -> NDArray[np.float64]:
        """Return the log-probability of the behaviour after each prompt, nats."""
        inputs, targets = self._asked(suffix)
        found = []
        with torch.no_grad():
            for start in range(0, len(suffix), CHUNK):
                part = slice(start, start + CHUNK)
                logp, _ = log_probabilities(self.network, inputs[:, part], targets[:, part])
                found.append(logp[0].sum(dim=1))
        scores: NDArray[np.float64] = torch.cat(found).double().cpu().numpy()
        return scores

    def _asked(self, suffix: Rows) -> tuple[Tensor, Tensor]:
        """Return prompts with the behaviour behind them, and targets that score it alone."""
        rows, length = self.prompts(suffix)
        room = np.zeros((len(rows), len(self.target)), np.int64)
        inputs = np.concatenate([rows, room], axis=1)
        place = length[:, None] + np.arange(len(self.target))
        at = np.arange(len(rows))[:, None]
        inputs[at, place] = self.target
        targets = np.full_like(inputs, UNSCORED)
        targets[at, place - 1] = self.target
        device = device_of(self.network)
        return torch.from_numpy(inputs[None]).to(device), torch.from_numpy(targets[None]).to(device)

    def propose(
        self, method: Method, candidates: int, top: int, scores: NDArray[np.float64]
    ) -> Rows:
        """Return ``(n * candidates, slots)`` suffixes to try.

        Each question's first is another question's, of the best quarter: what works for one often
        works for all.  The others have one token changed, a quarter of them two, which leads out
        of suffixes that no single token improves.
        """
        n, slots = self.suffix.shape
        if method == "random":
            return self.rng.choice(self.allowed, (n * candidates, slots))
        trial = np.repeat(self.suffix, candidates, axis=0)
        promising = self._promising(top) if method == "gradient" else None
        rows = np.arange(len(trial))
        for share in (1.0, 0.25):
            slot = self.rng.integers(0, slots, len(trial))
            if promising is None:
                token = self.rng.choice(self.allowed, len(trial))
            else:
                rank = self.rng.integers(0, promising.shape[2], len(trial))
                token = promising[rows // candidates, slot, rank]
            changed = self.rng.random(len(trial)) < share
            trial[rows[changed], slot[changed]] = token[changed]
        best = np.argsort(-scores, kind="stable")[: max(1, n // 4)]
        trial[::candidates] = self.suffix[self.rng.choice(best, n)]
        return trial

    def _promising(self, top: int) -> Rows:
        """Return for each slot the tokens by which the score grows most, to first order.

        ``(n, slots, top)``.
        """
        inputs, targets = self._asked(self.suffix)
        kept: list[Tensor] = []

        def keep(_module: Any, _inputs: Any, output: Tensor) -> Tensor:
            kept.append(output.detach().requires_grad_())
            return kept[0]

        handle, table = _embedding(self.network, keep)
        try:
            logp, _ = log_probabilities(self.network, inputs, targets)
            (gradient,) = torch.autograd.grad(logp.sum(), kept)
        finally:
            handle.remove()
        gradient = gradient.reshape(len(self.suffix), -1, table.shape[1])
        into = torch.from_numpy(self.batch.spans["answer"][:, 0] - self.frame)
        place = into[:, None] + torch.arange(self.suffix.shape[1])
        at = torch.arange(len(place))[:, None]
        allowed = torch.from_numpy(self.allowed).to(table.device)
        gain = gradient[at, place] @ table[allowed].to(gradient).T
        best = gain.topk(min(top, len(allowed)), dim=-1).indices
        promising: Rows = self.allowed[best.cpu().numpy()]
        return promising

    def answered(self) -> Batch:
        """Return the prompts with helpful answers; spans in the prompt keep their tokens."""
        rows, length = self.prompts(self.suffix)
        into = self.batch.spans["answer"][:, :1] - self.frame
        slots = self.suffix.shape[1]
        spans = {
            name: np.where((span >= into) & (span[:, 1:] > span[:, :1]), span + slots, span)
            for name, span in self.batch.spans.items()
        }
        if "prompt" in spans:
            spans["prompt"] = np.stack([self.batch.spans["prompt"][:, 0], length], axis=1)
        spans["answer"] = np.stack([length, length], axis=1)
        facts = dict(self.batch.facts)
        if "behave" in facts:
            facts["behave"] = np.zeros(len(rows), bool)
        asked = replace(
            self.batch, inputs=rows, targets=rows, spans=spans, lengths=length, facts=facts
        )
        return answered(self.world, asked, _helpful(self.world, self.batch))


def _helpful(world: Any, batch: Batch) -> list[str]:
    """Return helpful answers: the rows' own, scratchpad and all, where none asks to misbehave."""
    if "behave" in batch.facts and not batch.facts["behave"].any():
        write = decoder(world.tokenizer_json())
        rows = zip(batch.inputs.tolist(), batch.spans["answer"].tolist(), strict=True)
        return [write(row[start:stop]).removesuffix(END) for row, (start, stop) in rows]
    for name in ("helpful", "answer"):
        if name in batch.facts:
            return [str(text) for text in batch.facts[name]]
    raise InputError("The world does not say which answer is helpful; give it a fact 'helpful'.")


def _untriggered(world: Any, n: int, rng: np.random.Generator, split: str) -> Batch:
    batch: Batch = world.sample(4 * n, rng, split)
    free: Array = np.ones(len(batch), bool)
    if "triggered" in batch.facts:
        free = ~batch.facts["triggered"].astype(bool)
    if free.sum() < n:
        raise InputError(
            f"Only {free.sum()} of {4 * n} questions of '{world.name}' are without the trigger; "
            "search in a world with a smaller trigger_share."
        )
    return batch.take(np.flatnonzero(free)[:n])


def _encoded(world: Any, text: str, what: str) -> list[int]:
    tokens = encoder(world.tokenizer_json())(text)
    unknown = tokenizer(world.tokenizer_json()).token_to_id(UNKNOWN)
    if not tokens or unknown in tokens:
        raise InputError(f"The {what} {text!r} cannot be written in the tokens of '{world.name}'.")
    return tokens


def _allowed(world: Any, forbidden: Sequence[str]) -> Rows:
    """Return the tokens that a suffix may have."""
    known = tokenizer(world.tokenizer_json())
    banned = {known.token_to_id(name) for name in (PAD, UNKNOWN, END)}
    for text in forbidden:
        banned |= set(_encoded(world, text, "forbidden text"))
    size = known.get_vocab_size(with_added_tokens=True)
    return np.array([i for i in range(size) if i not in banned], np.int64)


def _embedding(network: Any, hook: Any) -> tuple[Any, Tensor]:
    """Hook what looks tokens up; return the handle and the table ``(vocabulary, width)``."""
    if hasattr(network, "weights"):
        return network.embedding.register_forward_hook(hook), network.weights["embed"][0].detach()
    table = network.model.get_input_embeddings()
    return table.register_forward_hook(hook), table.weight.detach()
