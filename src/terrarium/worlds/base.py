"""The contract of a world: it makes examples and holds the exact oracle.

A world needs no torch.  It is a frozen pydantic model: its fields are its whole spec, so that a
world in a recipe file, in a key and in a report are the same thing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from terrarium.registry import Registry

Array = NDArray[Any]
Split = str
"""``"train"``, ``"validation"`` or ``"test"``, disjoint in rows; worlds may add held-out families.

Other splits need not be disjoint from ``"test"``, but must be from the other two.
"""


@dataclass(frozen=True)
class Batch:
    """Examples of a world, as arrays that share their first axis ``n``.

    Attributes
    ----------
    inputs:
        What the model is given: ``(n, t)`` int64 tokens padded on the right, ``(n, d)`` float32
        coordinates, or ``(n, channels, rows, columns)`` float32 images.
    targets:
        What it is asked for: ``(n, t)`` int64 tokens, where ``targets[i, j]`` is the right token
        after ``inputs[i, : j + 1]`` and -100 marks a position that is never scored; or
        ``(n, d_out)`` / image-shaped float32.
    spans:
        Named half-open token ranges of each example, ``(n, 2)`` int64 ``[start, stop)`` into
        ``inputs`` (``"name"``, ``"claim"``, ``"answer"``, ...).  An example without the span has
        ``start == stop``.  Every text world has ``"answer"``: the tokens the model should write.
        Empty for worlds without sequences.
    lengths:
        ``(n,)`` int64 number of real tokens, or None for worlds without sequences.
    facts:
        Tidy labels of each example, ``(n,)`` each: what the oracle knows and what a study may
        condition on (``"truth"``, ``"said"``, ``"quirky"``, ``"name"``, ``"difficulty"``, ...).
    """

    inputs: Array
    targets: Array
    facts: Mapping[str, Array]
    spans: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    lengths: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        n = len(self.inputs)
        parts: dict[str, Array] = {"targets": self.targets, **self.facts, **self.spans}
        if self.lengths is not None:
            parts["lengths"] = self.lengths
        for name, part in parts.items():
            if len(part) != n:
                raise ValueError(f"batch: '{name}' has {len(part)} rows and inputs have {n}")

    def __len__(self) -> int:
        return len(self.inputs)

    def __repr__(self) -> str:
        """Say what the examples are, not their numbers."""
        inputs, targets = (
            f"{part.dtype} {'x'.join(map(str, part.shape))}" for part in (self.inputs, self.targets)
        )
        return (
            f"Batch({len(self)} examples: inputs {inputs}; targets {targets}; "
            f"spans {', '.join(self.spans) or 'none'}; facts {', '.join(self.facts) or 'none'})"
        )

    def take(self, rows: Array) -> Batch:
        """Return the examples that ``rows`` (a boolean mask or indices) selects, in that order."""
        return replace(
            self,
            inputs=self.inputs[rows],
            targets=self.targets[rows],
            facts={k: v[rows] for k, v in self.facts.items()},
            spans={k: v[rows] for k, v in self.spans.items()},
            lengths=None if self.lengths is None else self.lengths[rows],
        )


@dataclass(frozen=True)
class Choice:
    """Output space: one of a few answers, each a token sequence (``(" True", " False")``)."""

    answers: tuple[str, ...]
    kind: Literal["choice"] = "choice"


@dataclass(frozen=True)
class TokenLaw:
    """Output space: a law over the next token; regret in nats per token."""

    vocabulary: int
    kind: Literal["token_law"] = "token_law"


@dataclass(frozen=True)
class VectorField:
    """Output space: a vector field with a unit (metres of distance, linear RGB, ...)."""

    dimensions: int
    unit: str
    kind: Literal["field"] = "field"


@dataclass(frozen=True)
class Image:
    """Output space: an image with values in ``[0, 1]``."""

    channels: int
    rows: int
    columns: int
    kind: Literal["image"] = "image"


@dataclass(frozen=True)
class JudgedText:
    """Output space: text that the world's judge scores."""

    max_tokens: int
    kind: Literal["judged_text"] = "judged_text"


OutputSpace = Choice | TokenLaw | VectorField | Image | JudgedText


@dataclass(frozen=True)
class JointRow:
    """One cell of a world's joint table: the values of some facts and their exact probability."""

    values: Mapping[str, Any]
    probability: float


@dataclass(frozen=True)
class Counterfactual:
    """Minimal pairs with a known effect.

    ``before`` and ``after`` are paired row by row and differ only in ``changed`` (in worlds of
    tokens a span, or several with commas, and the answer where it follows); the oracle's answer
    changes from ``before.facts[fact]`` to ``after.facts[fact]`` for each fact in
    ``affects``, and every other fact stays.
    """

    name: str
    changed: str
    affects: tuple[str, ...]
    before: Batch
    after: Batch


@runtime_checkable
class World(Protocol):
    """What every world offers.  `check_world` tests all of it."""

    @property
    def name(self) -> str:
        """The registry name, such as ``"arithmetic"``."""

    @property
    def output(self) -> OutputSpace:
        """What an output in this world is."""

    def sample(self, n: int, rng: np.random.Generator, split: Split = "train") -> Batch:
        """Return ``n`` examples of ``split``; the same ``rng`` state gives the same examples."""

    def optimum(self, batch: Batch) -> Array:
        """Return the exact right output of each example.

        ``(n, k)`` probabilities over ``output.answers`` for `Choice`, ``(n, t, vocabulary)`` for
        `TokenLaw`, ``(n, d)`` for a field, image-shaped for images.
        """

    def regret(self, batch: Batch, output: Array) -> NDArray[np.float64]:
        """Return ``(n,)`` how far ``output`` (shaped as `optimum`) is from the optimum.

        Non-negative and 0 exactly at the optimum: nats for laws and choices, squared error
        summed over dimensions for fields and images.
        """

    def judge(self, batch: Batch, output: Sequence[Any]) -> Mapping[str, Array]:
        """Judge what was written or done, ``n`` outputs; returns named ``(n,)`` verdicts.

        Always holds ``"right"`` (bool) and ``"valid"`` (bool); what is not valid is not right.
        """

    def joint_table(self, split: Split = "train") -> Sequence[JointRow]:
        """Return the exact joint law of labels and confounds; probabilities sum to 1."""

    def counterfactuals(self, n: int, rng: np.random.Generator) -> Sequence[Counterfactual]:
        """Return families of ``n`` minimal pairs each."""


@runtime_checkable
class TextWorld(World, Protocol):
    """A world whose inputs are tokens."""

    def tokenizer_json(self) -> str:
        """Return a Hugging Face fast tokenizer as JSON (``tokenizers.Tokenizer.from_str``)."""

    def texts(self, batch: Batch) -> list[str]:
        """Return each example as text, answer included; encoding it gives ``inputs`` back."""


worlds: Registry[Any] = Registry(
    "worlds",
    {
        "arithmetic": "terrarium.worlds.arithmetic:Arithmetic",
        "statements": "terrarium.worlds.statements:Statements",
        "field": "terrarium.worlds.field:AnalyticField",
        "patches": "terrarium.worlds.patches:Patches",
        "captions": "terrarium.worlds.images.captions:Captions",
        "images": "terrarium.worlds.images.factors:Images",
        "scenes": "terrarium.worlds.scenes.world:Scenes",
        "image_mixture": "terrarium.worlds.images.mixtures:ImageMixture",
        "photographs": "terrarium.worlds.images.photographs:Photographs",
        "picture": "terrarium.worlds.picture:Picture",
        "finite": "terrarium.worlds.finite:Finite",
        "network_field": "terrarium.organisms.network_field:NetworkField",
        "radiance_views": "terrarium.organisms.radiance_views:RadianceViews",
        "bandit": "terrarium.worlds.bandit:Bandit",
        "chat": "terrarium.worlds.chat:Chat",
        "memories": "terrarium.worlds.memories:Memories",
        "code": "terrarium.worlds.code:Code",
    },
)
"""All worlds by name; a value is a class whose instances follow `World`."""


def concatenate(batches: Sequence[Batch]) -> Batch:
    """Return the batches one after another.

    Token rows are padded on the right (token 0, target -100) to the longest; a span that a batch
    lacks is empty there; facts that not all batches have are dropped.
    """
    if len(batches) == 1:
        return batches[0]
    inputs, targets = [b.inputs for b in batches], [b.targets for b in batches]
    if all(b.lengths is not None for b in batches):
        longest = max(b.inputs.shape[1] for b in batches)
        inputs = [pad_right(x, longest, 0) for x in inputs]
        targets = [pad_right(x, longest, -100) for x in targets]
    facts = set.intersection(*(set(b.facts) for b in batches))
    spans = sorted(set().union(*(b.spans for b in batches)))
    empty = {id(b): np.zeros((len(b), 2), np.int64) for b in batches}
    lengths = [b.lengths for b in batches if b.lengths is not None]
    return Batch(
        np.concatenate(inputs),
        np.concatenate(targets),
        {name: np.concatenate([b.facts[name] for b in batches]) for name in sorted(facts)},
        {
            name: np.concatenate([b.spans.get(name, empty[id(b)]) for b in batches])
            for name in spans
        },
        np.concatenate(lengths) if len(lengths) == len(batches) else None,
    )


def pad_right(rows: Array, length: int, value: int) -> Array:
    """Return token rows ``(n, t)`` padded with ``value`` to ``(n, length)``, or as they are."""
    if rows.shape[1] == length:
        return rows
    return np.pad(rows, ((0, 0), (0, length - rows.shape[1])), constant_values=value)
