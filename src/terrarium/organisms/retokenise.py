"""A text world in the tokens of somebody else's tokenizer."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from terrarium.errors import ModelError
from terrarium.worlds.base import Array, Batch
from terrarium.worlds.tokenise import tokenizer


@dataclass(frozen=True)
class Retokenised:
    """A `TextWorld` whose batches are in the tokens of ``tokenizer_text`` (a tokenizer's JSON).

    Spans are carried over through the text: a span covers every new token that overlaps it.
    """

    world: Any
    tokenizer_text: str

    @property
    def name(self) -> str:
        """The name of the world."""
        return str(self.world.name)

    @property
    def output(self) -> Any:
        """The output space of the world."""
        return self.world.output

    def tokenizer_json(self) -> str:
        """Return the tokenizer in use."""
        return self.tokenizer_text

    def sample(self, n: int, rng: np.random.Generator, split: str = "train") -> Batch:
        """Sample from the world and encode the text anew."""
        return reencode(self.world, self.world.sample(n, rng, split), self.tokenizer_text)

    def texts(self, batch: Batch) -> list[str]:
        """Return the examples as text."""
        known = tokenizer(self.tokenizer_text)
        rows = [row[:n].tolist() for row, n in zip(batch.inputs, _lengths(batch), strict=True)]
        return [known.decode(row) for row in rows]

    def optimum(self, batch: Batch) -> Array:
        """Return the world's optimum."""
        result: Array = self.world.optimum(batch)
        return result

    def regret(self, batch: Batch, output: Array) -> NDArray[np.float64]:
        """Return the world's regret."""
        result: NDArray[np.float64] = self.world.regret(batch, output)
        return result

    def judge(self, batch: Batch, output: Sequence[Any]) -> Mapping[str, Array]:
        """Return the world's verdict."""
        result: Mapping[str, Array] = self.world.judge(batch, output)
        return result

    def joint_table(self, split: str = "train") -> Any:
        """Return the world's joint table."""
        return self.world.joint_table(split)


def retokenised(world: Any, folder: Path) -> Retokenised:
    """Return ``world`` in the tokens of the model in ``folder`` (its ``tokenizer.json``)."""
    path = folder / "tokenizer.json"
    if not path.exists():
        raise ModelError(
            f"{folder} has no tokenizer.json; save the model's fast tokenizer into that folder."
        )
    return Retokenised(world, path.read_text(encoding="utf-8"))


def reencode(world: Any, batch: Batch, tokenizer_text: str) -> Batch:
    """Return the batch in other tokens; raises ``ModelError`` where a text cannot be told."""
    texts = world.texts(batch)
    mine, theirs = tokenizer(world.tokenizer_json()), _plain(tokenizer_text)
    before = mine.encode_batch(texts, add_special_tokens=False)
    after = theirs.encode_batch(texts, add_special_tokens=False)
    longest = max(len(e.ids) for e in after)
    inputs = np.zeros((len(batch), longest), np.int64)
    lengths = np.array([len(e.ids) for e in after], np.int64)
    for i, encoding in enumerate(after):
        inputs[i, : len(encoding.ids)] = encoding.ids
    targets = np.full_like(inputs, -100)
    targets[:, :-1] = np.where(np.arange(1, longest) < lengths[:, None], inputs[:, 1:], -100)
    spans = {}
    for name, span in batch.spans.items():
        moved = np.zeros((len(batch), 2), np.int64)
        for i, (start, stop) in enumerate(span.tolist()):
            if stop > start:
                offsets = before[i].offsets
                moved[i] = _overlap(offsets[start][0], offsets[stop - 1][1], after[i].offsets)
        spans[name] = moved
    return replace(batch, inputs=inputs, targets=targets, spans=spans, lengths=lengths)


def _overlap(start: int, stop: int, offsets: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Return the half-open range of tokens that overlap the characters ``[start, stop)``."""
    touched = [k for k, (a, b) in enumerate(offsets) if a < stop and b > start]
    if not touched:
        raise ModelError("The tokenizer leaves out a part of the text that the world needs.")
    return touched[0], touched[-1] + 1


def _lengths(batch: Batch) -> Any:
    return batch.lengths if batch.lengths is not None else [batch.inputs.shape[1]] * len(batch)


@functools.lru_cache(maxsize=4)
def _plain(tokenizer_text: str) -> Tokenizer:
    """Return a copy of the tokenizer that neither pads nor truncates."""
    known = Tokenizer.from_str(tokenizer_text)
    known.no_padding()
    known.no_truncation()
    return known
