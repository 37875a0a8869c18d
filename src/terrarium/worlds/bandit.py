"""A tiny world of prompts with one right answer each, for policy gradients.

A prompt is a letter among random digits, such as ``c417?``; the right answer is a fixed word for
the letter.  Joint table: every letter alike, in every split; digits tell nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, model_validator

from terrarium.errors import InputError
from terrarium.randomness import generator
from terrarium.worlds import splits
from terrarium.worlds.base import Array, Batch, Counterfactual, JointRow, JudgedText, Split
from terrarium.worlds.faults import Told
from terrarium.worlds.features import input_features
from terrarium.worlds.tokens import END, ClosedVocabulary

LETTERS, ARMS = "abcdefghijklmnop", "ABCDEFGHIJKLMNOP"


class Bandit(Told):
    """Prompts of one letter and three digits, answered by ``length`` capital letters.

    Facts: ``letter``, ``answer`` (text), ``filler`` (int64, the digits as a number).
    Spans: ``letter``, ``filler``, ``answer``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    letters: int = Field(4, ge=2, le=16, description="different prompts")
    arms: int = Field(4, ge=2, le=16, description="capital letters to choose from")
    length: int = Field(1, ge=1, le=4, description="tokens of an answer")

    @model_validator(mode="after")
    def _words_suffice(self) -> Bandit:
        if self.arms**self.length < self.letters:
            raise ValueError(f"{self.letters} letters need as many words; raise arms or length")
        return self

    @property
    def name(self) -> str:
        """``"bandit"``."""
        return "bandit"

    @property
    def output(self) -> JudgedText:
        """A short text for the judge."""
        return JudgedText(self.length)

    @cached_property
    def _vocabulary(self) -> ClosedVocabulary:
        return ClosedVocabulary((*LETTERS, *ARMS, *"0123456789?"))

    @cached_property
    def _words(self) -> NDArray[np.int64]:
        """``(letters, length)`` the right arms, fixed by the spec, no two words alike."""
        rng = generator("bandit", self.letters, self.arms, self.length)
        word = rng.permutation(self.arms**self.length)[: self.letters, None]
        return np.asarray(word // self.arms ** np.arange(self.length) % self.arms)

    def sample(self, n: int, rng: np.random.Generator, split: Split = "train") -> Batch:
        """Return ``n`` prompts with their answers; fillers belong to one split each."""
        splits.check_split(split, splits.SPLITS, self.name)
        fillers = np.flatnonzero(splits.owned(np.arange(1000), np.full(1000, 1000), split))
        letter = rng.integers(0, self.letters, n)
        return self.render(letter, fillers[rng.integers(0, len(fillers), n)])

    def render(self, letter: Array, filler: Array) -> Batch:
        """Return the examples of given letters (indices) and fillers (0 to 999)."""
        ids, n = self._vocabulary.ids, len(letter)
        inputs = np.empty((n, 5 + self.length), np.int64)
        inputs[:, 0] = ids["a"] + letter
        for place in range(3):
            inputs[:, 3 - place] = ids["0"] + filler // 10**place % 10
        inputs[:, 4] = ids["?"]
        inputs[:, 5:] = ids["A"] + self._words[letter]
        targets = np.concatenate([inputs[:, 1:], np.full((n, 1), ids[END])], axis=1)
        words = np.array(["".join(ARMS[i] for i in word) for word in self._words])
        facts = {
            "letter": np.array(list(LETTERS))[letter],
            "answer": words[letter],
            "filler": np.asarray(filler),
        }
        ranges = {"letter": (0, 1), "filler": (1, 4), "answer": (5, 5 + self.length)}
        spans = {name: np.tile(np.array(span), (n, 1)) for name, span in ranges.items()}
        return Batch(inputs, targets, facts, spans, np.full(n, inputs.shape[1]))

    def optimum(self, batch: Batch) -> Array:
        """Return ``(n,)`` the right answers, as text."""
        return batch.facts["answer"]

    def regret(self, batch: Batch, output: Array) -> NDArray[np.float64]:
        """Return ``(n,)`` the reward missed: 0 for the right answer, else 1."""
        return 1.0 - self.judge(batch, list(output))["right"].astype(np.float64)

    def judge(self, batch: Batch, output: Sequence[Any]) -> Mapping[str, Array]:
        """Judge ``n`` texts: valid if made of the right number of arms, right if the answer."""
        if len(output) != len(batch):
            raise InputError(f"There are {len(output)} outputs for {len(batch)} examples.")
        given = [str(text).strip().removesuffix(END) for text in output]
        arms = set(ARMS[: self.arms])
        valid = np.array([len(t) == self.length and set(t) <= arms for t in given], dtype=bool)
        right = np.array(given, dtype=str) == batch.facts["answer"]
        return {"valid": valid, "right": valid & right}

    def joint_table(self, split: Split = "train") -> list[JointRow]:
        """Return the law of letter and answer."""
        words = ["".join(ARMS[i] for i in word) for word in self._words]
        return [
            JointRow({"letter": letter, "answer": word}, 1 / self.letters)
            for letter, word in zip(LETTERS, words, strict=False)
        ]

    def counterfactuals(self, n: int, rng: np.random.Generator) -> list[Counterfactual]:
        """Return prompts with another letter, and prompts with another filler."""
        before = self.sample(n, rng, "test")
        letter = before.inputs[:, 0] - self._vocabulary.ids["a"]
        other = (letter + rng.integers(1, self.letters, n)) % self.letters
        filler = self.sample(n, rng, "test").facts["filler"]
        after = self.render(other, before.facts["filler"])
        moved = self.render(letter, filler)
        return [
            Counterfactual("letter", "letter", ("letter", "answer"), before, after),
            Counterfactual("filler", "filler", ("filler",), before, moved),
        ]

    def tokenizer_json(self) -> str:
        """Return the tokenizer."""
        return self._vocabulary.tokenizer_json()

    def texts(self, batch: Batch) -> list[str]:
        """Return each example as text, answer included."""
        return [self._vocabulary.text(row) for row in batch.inputs]

    def input_features(self, batch: Batch) -> NDArray[np.float32]:
        """Return ``(n, k)`` one-hot tokens of the prompt, for the input-only baseline."""
        return input_features(batch, len(self._vocabulary), 5 + self.length)
