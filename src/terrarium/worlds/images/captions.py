"""The world `captions`: the shapes of `images`, told in words instead of shown.

A row gives colours and light in words, then points along the outline in the order in which a pen
meets them, and asks what it is:

``blue on dark red, lit from NNW low: 31/22 28/24 ... 35/23 is a cross.``

So text and images hold the same facts under the same law, and a difference between organisms is
one of modality.

Joint table: as that of `images`, ``label`` is even over the four classes where the shape varies,
and always the same where it doesn't; in every split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, model_validator

from terrarium.errors import InputError
from terrarium.worlds.base import Array, Batch, Choice, Counterfactual, JointRow, Split
from terrarium.worlds.faults import Told
from terrarium.worlds.features import input_features
from terrarium.worlds.given import check_count
from terrarium.worlds.images import outlines
from terrarium.worlds.images.factors import FACTORS, RANGES, Images, Name
from terrarium.worlds.images.rendering import LENGTHS
from terrarium.worlds.images.shapes import SHAPES
from terrarium.worlds.tokens import END, ClosedVocabulary

ANSWERS = tuple(f" a {shape}" for shape in SHAPES)

HUES = ("red", "orange", "yellow", "lime", "green", "teal", "blue", "violet")
LIGHTS = ("W", "WNW", "NW", "NNW", "NNE", "NE", "ENE", "E")
VALUES = ("dark ", "dim ", "pale ", "bright ")
HEIGHTS = (" low", " slanting", " steep", " high")
"""Words for equal parts of the ranges of hue, light, the ground's value and the lamp's elevation.

Their order is that of the numbers.
"""

_ON, _LIT, _BEGIN, _IS, _STOP = " on ", ", lit from ", ": ", "is", "."


class Captions(Told):
    """Sentences about lit shapes; the answer is the shape's class.

    Facts are those of `Images`, in the units of its side, and ``start`` (where on its way round
    the outline the first point lies, a proportion).  Spans: ``hue``, ``ground``, ``light``,
    ``points``, ``answer``, ``end`` (the full stop).  Every row has the same length.

    Attributes
    ----------
    vary:
        As in `Images`: how many factors vary, or which by name.
    corners:
        Points told of each outline.
    grid:
        Steps a side in which points are told: what words keep of a length.
    side:
        Pixels a side of the image that is spoken of; the unit of the facts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    vary: Annotated[int, Field(ge=2, le=len(FACTORS))] | tuple[Name, ...] = 6
    corners: int = Field(12, ge=6, le=48)
    grid: int = Field(64, ge=32, le=256)
    side: int = Field(32, ge=8, le=128, multiple_of=4)

    @model_validator(mode="after")
    def _points_tell_rows_apart(self) -> Captions:
        if len(set(self.images.varying) & _PLACED) < 2:
            raise ValueError(
                f"at least two of {sorted(_PLACED)} must vary, or splits would share sentences"
            )
        return self

    @cached_property
    def images(self) -> Images:
        """The same shapes as images."""
        return Images(side=self.side, vary=self.vary)

    @property
    def name(self) -> str:
        """``"captions"``."""
        return "captions"

    @property
    def output(self) -> Choice:
        """What it is."""
        return Choice(ANSWERS)

    @cached_property
    def _vocabulary(self) -> ClosedVocabulary:
        words = (*ANSWERS, *VALUES, *HEIGHTS, *HUES, *LIGHTS, _ON, _LIT, _BEGIN, _IS, _STOP)
        rows = tuple(f"{i}/" for i in range(self.grid))
        columns = tuple(f"{i} " for i in range(self.grid))
        return ClosedVocabulary((*words, *rows, *columns))

    def sample(self, n: int, rng: np.random.Generator, split: Split = "train") -> Batch:
        """Return ``n`` sentences of ``split``; splits are those of the images."""
        check_count(n, self.name)
        label, factors = self.images.draw(n, rng, split)
        return self._of_facts(label, self._in_pixels(factors), rng.random(n))

    def _in_pixels(self, factors: Mapping[str, Array]) -> dict[str, Array]:
        scale = {name: self.side if name in LENGTHS else 1 for name in RANGES}
        return {name: np.asarray(factors[name], np.float64) * scale[name] for name in RANGES}

    def _of_facts(
        self, label: NDArray[np.int64], facts: Mapping[str, Array], start: Array
    ) -> Batch:
        parts = {
            "hue": self._words(HUES, "hue", facts),
            "on": self._constant(_ON, len(label)),
            "ground": np.concatenate(
                [
                    self._words(VALUES, "ground_value", facts),
                    self._words(HUES, "ground_hue", facts),
                ],
                axis=1,
            ),
            "lit": self._constant(_LIT, len(label)),
            "light": np.concatenate(
                [
                    self._words(LIGHTS, "light_deg", facts),
                    self._words(HEIGHTS, "elevation_deg", facts),
                ],
                axis=1,
            ),
            "begin": self._constant(_BEGIN, len(label)),
            "points": self._points(label, facts, start),
            "is": self._constant(_IS, len(label)),
            "answer": self._vocabulary.ids[ANSWERS[0]] + label[:, None],
            "end": self._constant(_STOP, len(label)),
        }
        inputs = np.concatenate(list(parts.values()), axis=1).astype(np.int64)
        after = np.full((len(label), 1), self._vocabulary.ids[END])
        ends = np.cumsum([part.shape[1] for part in parts.values()])
        spans = {
            name: np.tile([end - part.shape[1], end], (len(label), 1)).astype(np.int64)
            for (name, part), end in zip(parts.items(), ends, strict=True)
            if name in ("hue", "ground", "light", "points", "answer", "end")
        }
        told = {"label": label, "shape": np.asarray(SHAPES)[label], **facts, "start": start}
        lengths = np.full(len(label), inputs.shape[1])
        return Batch(inputs, np.concatenate([inputs[:, 1:], after], axis=1), told, spans, lengths)

    def _constant(self, piece: str, n: int) -> NDArray[np.int64]:
        return np.full((n, 1), self._vocabulary.ids[piece])

    def _words(
        self, words: Sequence[str], name: str, facts: Mapping[str, Array]
    ) -> NDArray[np.int64]:
        """Return ``(n, 1)`` the word for the part of its range in which a factor lies."""
        law = RANGES[name]
        share = (np.asarray(facts[name]) - law.low) / (law.high - law.low)
        place = np.clip((share * len(words)).astype(np.int64), 0, len(words) - 1)
        return np.array([self._vocabulary.ids[word] for word in words])[place][:, None]

    def _points(
        self, label: NDArray[np.int64], facts: Mapping[str, Array], start: Array
    ) -> NDArray[np.int64]:
        """Return ``row/column`` of each point, ``(n, 2 corners)``."""
        u, v = np.moveaxis(outlines.points(label, np.asarray(start), self.corners), 2, 0)
        turn = np.radians(facts["rotation_deg"])[:, None]
        size = np.asarray(facts["size"])[:, None]
        down = np.asarray(facts["row"])[:, None] + size * (u * np.sin(turn) + v * np.cos(turn))
        across = np.asarray(facts["column"])[:, None] + size * (u * np.cos(turn) - v * np.sin(turn))
        ids = self._vocabulary.ids
        out = np.empty((len(label), self.corners, 2), np.int64)
        for place, (first, value) in enumerate((("0/", down), ("0 ", across))):
            step = np.floor(value * (self.grid / self.side)).astype(np.int64)
            out[:, :, place] = ids[first] + np.clip(step, 0, self.grid - 1)
        return out.reshape(len(label), -1)

    def optimum(self, batch: Batch) -> NDArray[np.float64]:
        """Return ``(n, 4)``: the right class is certain."""
        return np.eye(len(SHAPES))[batch.facts["label"]]

    def regret(self, batch: Batch, output: Array) -> NDArray[np.float64]:
        """Return ``(n,)`` minus the log-probability of the right class, nats.

        Raises ``InputError`` if ``output`` ``(n, 4)`` holds no probabilities.
        """
        p = np.asarray(output, dtype=np.float64)
        expected = (len(batch), len(SHAPES))
        if p.shape != expected:
            raise InputError(f"Expected {expected} probabilities of the answers, got {p.shape}.")
        if not bool(np.all((p >= 0) & (np.abs(p.sum(axis=1, keepdims=True) - 1) < 1e-4))):
            raise InputError("Rows of the output must be probabilities that sum to 1.")
        with np.errstate(divide="ignore"):
            chosen = p[np.arange(len(batch)), batch.facts["label"]]
            return np.asarray(np.maximum(0.0, -np.log(chosen)))

    def judge(self, batch: Batch, output: Sequence[Any]) -> Mapping[str, Array]:
        """Judge ``n`` texts: valid if one of the answers, right if it is the shape's."""
        if len(output) != len(batch):
            raise InputError(f"There are {len(output)} outputs for {len(batch)} examples.")
        known = {answer.strip(): place for place, answer in enumerate(ANSWERS)}
        said = np.array(
            [
                known.get(str(text).strip().removesuffix(END).removesuffix(_STOP).strip(), -1)
                for text in output
            ]
        )
        return {"valid": said >= 0, "right": said == batch.facts["label"]}

    def joint_table(self, split: Split = "train") -> list[JointRow]:
        """Return the law of ``label``."""
        return self.images.joint_table(split)

    def counterfactuals(self, n: int, rng: np.random.Generator) -> list[Counterfactual]:
        """Return, for each factor that varies, sentences in which it alone is drawn anew."""
        before = self.sample(n, rng, "test")
        pairs = []
        for name in self.images.varying:
            label = before.facts["label"]
            facts = {key: before.facts[key] for key in RANGES}
            affects: tuple[str, ...] = (name,)
            if name == "shape":
                label = (label + rng.integers(1, len(SHAPES), n)) % len(SHAPES)
                affects = ("label", "shape")
            else:
                scale = self.side if name in LENGTHS else 1
                facts[name] = RANGES[name].at(rng.random(n)) * scale
            after = self._of_facts(label, facts, before.facts["start"])
            pairs.append(Counterfactual(name, _SPAN.get(name, "points"), affects, before, after))
        return pairs

    def tokenizer_json(self) -> str:
        """Return the tokenizer."""
        return self._vocabulary.tokenizer_json()

    def texts(self, batch: Batch) -> list[str]:
        """Return each example as text, answer included."""
        return [self._vocabulary.text(row) for row in batch.inputs]

    def input_features(self, batch: Batch) -> NDArray[np.float32]:
        """Return ``(n, k)`` one-hot tokens of the sentence, for the input-only baseline."""
        return input_features(batch, len(self._vocabulary), 2 * self.corners + 11)


_PLACED = frozenset({"row", "column", "size", "rotation_deg"})
"""Factors that move the points."""

_SPAN = {
    "hue": "hue",
    "ground_hue": "ground",
    "ground_value": "ground",
    "light_deg": "light",
    "elevation_deg": "light",
}
"""Which span tells a factor; the others are told by the points."""
