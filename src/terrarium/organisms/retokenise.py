"""A text world in the tokens of somebody else's tokenizer."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from terrarium.errors import InputError, ModelError
from terrarium.organisms.folder import check_folder, load_tokenizer
from terrarium.randomness import generator
from terrarium.worlds.base import Array, Batch, Counterfactual, JudgedText, pad_right
from terrarium.worlds.tokens import END

_PROBES = 32
"""Examples from which the answers' tokens are learnt."""


@dataclass(frozen=True)
class Retokenised:
    """A `TextWorld` whose batches are in the tokens of ``tokenizer_text`` (a tokenizer's JSON).

    Texts are encoded as the model's tokenizer would, with the token it puts in front (but none
    behind: the answer must be able to follow).  Spans are carried over through the text: a span
    covers every new token that overlaps it.

    Attributes
    ----------
    world:
        The world as it is in its own tokens; its facts and its oracle stay.
    tokenizer_text:
        A Hugging Face fast tokenizer as JSON.
    context:
        Longest example that the model takes, tokens; None if it says nothing.
    end:
        The text of the token that ends what the model writes; None if it has none.
    """

    world: Any
    tokenizer_text: str
    context: int | None = None
    end: str | None = None

    @property
    def name(self) -> str:
        """The name of the world."""
        return str(self.world.name)

    @property
    def output(self) -> Any:
        """The output space of the world; how long a text may be is told in the new tokens."""
        space = self.world.output
        return JudgedText(self._longest) if isinstance(space, JudgedText) else space

    @functools.cached_property
    def _longest(self) -> int:
        """Return as many new tokens as the longest text of the world may take."""
        drawn = self.world.sample(_PROBES, generator("longest answer"))
        spans = [b.spans["answer"] for b in (drawn, self._told(drawn))]
        mine, told = ((span[:, 1] - span[:, 0]).astype(float) for span in spans)
        return int(np.ceil((told / mine).max() * self.world.output.max_tokens))

    @property
    def end_token(self) -> int:
        """The token that ends what the model writes."""
        found = _plain(self.tokenizer_text).token_to_id(self._needed_end())
        assert found is not None  # it is among the special tokens
        return int(found)

    @functools.cached_property
    def _closed(self) -> bool:
        """Whether the world's texts end with an end token."""
        drawn = self.world.sample(1, generator("closed"))
        return bool(self.world.texts(drawn)[0].endswith(END))

    def _needed_end(self) -> str:
        if self.end is None:
            raise ModelError(
                f"The model's tokenizer has no end-of-text token, and the world '{self.name}' "
                "needs one to know where a text ends; name one in tokenizer_config.json."
            )
        return self.end

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits of the world."""
        known: tuple[str, ...] = self.world.splits
        return known

    def model_dump(self, **options: Any) -> dict[str, Any]:
        """Return the world's spec: the tokenizer belongs to the model."""
        spec: dict[str, Any] = self.world.model_dump(**options)
        return spec

    def tokenizer_json(self) -> str:
        """Return the tokenizer in use."""
        return self.tokenizer_text

    def sample(self, n: int, rng: np.random.Generator, split: str = "train") -> Batch:
        """Sample from the world and encode the text anew.

        Raises ``ModelError`` where an example is longer than the model's context.
        """
        return self._told(self.world.sample(n, rng, split))

    def _told(self, batch: Batch) -> Batch:
        end = self._needed_end() if self._closed else END
        told = reencode(self.world, batch, self.tokenizer_text, end)
        if self.context is not None and told.inputs.shape[1] > self.context:
            raise ModelError(
                f"An example of the world '{self.name}' takes {told.inputs.shape[1]} of the "
                f"model's tokens and the model was made for {self.context}; take shorter examples "
                "or another model."
            )
        return told

    def texts(self, batch: Batch) -> list[str]:
        """Return the examples as text, special tokens left out."""
        known = _plain(self.tokenizer_text)
        rows = [row[:n].tolist() for row, n in zip(batch.inputs, _lengths(batch), strict=True)]
        return [known.decode(row) + (END if self._closed else "") for row in rows]

    def answer_tokens(self) -> tuple[int, ...]:
        """Return the token that each answer begins with, as it stands in an example.

        Raises ``InputError`` where two answers begin with the same token, or where one begins
        differently from example to example.
        """
        return self._answers

    @functools.cached_property
    def _answers(self) -> tuple[int, ...]:
        drawn = self.sample(_PROBES, generator("answer tokens"))
        right = np.asarray(self.world.optimum(drawn)).argmax(axis=1)
        first = drawn.inputs[np.arange(len(drawn)), drawn.spans["answer"][:, 0]]
        found = []
        for index, answer in enumerate(self.output.answers):
            tokens = {int(token) for token in first[right == index]}
            if len(tokens) != 1:
                raise InputError(
                    f"The tokenizer has no one token for the start of the answer {answer!r} "
                    f"(found {len(tokens)} in {_PROBES} examples); take another template or "
                    "tokenizer."
                )
            found.append(tokens.pop())
        if len(set(found)) < len(found):
            raise InputError(
                f"The answers {list(self.output.answers)} begin with the same token of this "
                "tokenizer, so they cannot be told apart; take another tokenizer."
            )
        return tuple(found)

    def contrast_pair(self, batch: Batch) -> tuple[Batch, Batch]:
        """Return the same examples with the first and with the second answer in their place.

        Facts and targets stay those of the right answer.  The span ``"answer"`` is the answer's
        first token: where answers take several, no more of them is written.
        """
        start = batch.spans["answer"][:, 0]
        spans = {**batch.spans, "answer": np.stack([start, start + 1], axis=1)}
        pair = []
        for token in self.answer_tokens()[:2]:
            inputs = batch.inputs.copy()
            inputs[np.arange(len(batch)), start] = token
            pair.append(replace(batch, inputs=inputs, spans=spans))
        return pair[0], pair[1]

    def preferred(self, batch: Batch) -> tuple[Batch, Batch]:
        """Return the world's chosen and rejected answers in the new tokens."""
        chosen, rejected = self.world.preferred(batch)
        return self._told(chosen), self._told(rejected)

    def input_features(self, batch: Batch) -> NDArray[np.float32]:
        """Return the world's own features, of the examples in the world's own tokens.

        These know each digit's place, which tokens of several digits would hide from a linear
        model: the baseline must not become weaker by a change of tokenizer.
        """
        mine = reencode(self, batch, self.world.tokenizer_json())
        features: NDArray[np.float32] = self.world.input_features(mine)
        return features

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

    def counterfactuals(self, n: int, rng: np.random.Generator) -> list[Counterfactual]:
        """Return the world's minimal pairs in the new tokens."""
        return [
            replace(pair, before=self._told(pair.before), after=self._told(pair.after))
            for pair in self.world.counterfactuals(n, rng)
        ]

    def __repr__(self) -> str:
        """Show the world, not the tokenizer's JSON."""
        return f"Retokenised({self.world!r}, context={self.context})"


def retokenised(world: Any, folder: Path) -> Retokenised:
    """Return ``world`` in the tokens of the model in ``folder``.

    Raises ``ModelError`` for a folder that holds no model or no fast tokenizer, and
    ``InputError`` for a world without text.
    """
    if not hasattr(world, "tokenizer_json"):
        raise InputError(
            f"The world '{world.name}' has no text, and a language model needs one; take another."
        )
    return Retokenised(world, *_tokenizer_of(folder.resolve(), _stamp(folder)))


def _stamp(folder: Path) -> tuple[int, ...]:
    """Return what changes when the folder's small files do."""
    found = sorted(folder.glob("*.json")) if folder.is_dir() else []
    return tuple(path.stat().st_mtime_ns for path in found)


@functools.lru_cache(maxsize=8)
def _tokenizer_of(folder: Path, stamp: tuple[int, ...]) -> tuple[str, int | None, str | None]:
    """Return the folder's tokenizer as JSON, the model's context, and the end of its texts."""
    config = check_folder(folder)
    known = load_tokenizer(folder)
    if not getattr(known, "is_fast", False):
        raise ModelError(
            f"{folder} has no fast tokenizer (tokenizer.json), which alone tells where in the text "
            "a token stands; save one into that folder."
        )
    named = [config.get(key) for key in ("max_position_embeddings", "n_positions")]
    context = next((n for n in named if isinstance(n, int) and n > 0), None)
    end = known.eos_token
    text = json.dumps(json.loads(known.backend_tokenizer.to_str()))
    return text, context, None if end is None else str(end)


def reencode(world: Any, batch: Batch, tokenizer_text: str, end: str = END) -> Batch:
    """Return the batch in other tokens; raises ``ModelError`` where a text cannot be told.

    ``end`` is how the new tokens write the end of a text, where the world writes one.
    """
    texts = world.texts(batch)
    own = getattr(world, "end", None) or END
    before = _encoded(world.tokenizer_json(), [_ended(text, own) for text in texts])
    after = _encoded(tokenizer_text, [_ended(text, end) for text in texts])
    rows = [list(encoding.ids[: _end(encoding)]) for encoding in after]
    lengths = np.array([len(row) for row in rows], np.int64)
    longest = int(lengths.max())
    inputs = np.concatenate(
        [pad_right(np.array([row], np.int64).reshape(1, -1), longest, 0) for row in rows]
    )
    targets = np.full_like(inputs, -100)
    targets[:, :-1] = np.where(np.arange(1, longest) < lengths[:, None], inputs[:, 1:], -100)
    spans = {}
    for name, span in batch.spans.items():
        moved = np.zeros((len(batch), 2), np.int64)
        for i, (start, stop) in enumerate(span.tolist()):
            if stop > start:
                offsets = before[i].offsets
                moved[i] = _overlap(offsets[start][0], offsets[stop - 1][1], after[i])
        spans[name] = moved
    return replace(batch, inputs=inputs, targets=targets, spans=spans, lengths=lengths)


def _ended(text: str, end: str) -> str:
    return text.removesuffix(END) + end if text.endswith(END) else text


def _encoded(tokenizer_text: str, texts: Sequence[str]) -> list[Encoding]:
    encoded: list[Encoding] = _plain(tokenizer_text).encode_batch(texts, add_special_tokens=True)
    return encoded


def _end(encoding: Encoding) -> int:
    """Return the number of tokens before the special ones that the tokenizer puts behind."""
    ends = [k for k, special in enumerate(encoding.special_tokens_mask) if not special]
    return ends[-1] + 1 if ends else 0


def _overlap(start: int, stop: int, encoding: Encoding) -> tuple[int, int]:
    """Return the half-open range of tokens that overlap the characters ``[start, stop)``."""
    known = zip(encoding.offsets, encoding.special_tokens_mask, strict=True)
    touched = [k for k, ((a, b), s) in enumerate(known) if not s and a < stop and b > start]
    if not touched:
        raise ModelError("The tokenizer leaves out a part of the text that the world needs.")
    return touched[0], touched[-1] + 1


def _lengths(batch: Batch) -> Any:
    return batch.lengths if batch.lengths is not None else [batch.inputs.shape[1]] * len(batch)


@functools.lru_cache(maxsize=8)
def _plain(tokenizer_text: str) -> Tokenizer:
    """Return a copy of the tokenizer that neither pads nor truncates."""
    known = Tokenizer.from_str(tokenizer_text)
    known.no_padding()
    known.no_truncation()
    return known
