"""A fixed number of examples of another world: a finite training set, drawn once.

Where a world's truth takes longer to compute than a training step (distances to a mesh), and where
the size of the training set is the question.

Joint table: that of the other world, with the shares counted over the drawn examples in the split
train.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, ValidationError, model_validator

from terrarium.errors import InputError
from terrarium.randomness import generator
from terrarium.worlds.base import (
    Array,
    Batch,
    Counterfactual,
    JointRow,
    OutputSpace,
    Split,
    worlds,
)
from terrarium.worlds.faults import Told, sentence


class Finite(Told):
    """``rows`` examples of a world of coordinates or images; all else is that world's.

    The split train gives the drawn examples, evenly and with replacement; other splits are the
    other world's own.

    Attributes
    ----------
    world, options:
        The other world, by name, and its options (filled in with its defaults).
    rows, seed:
        How many examples are drawn, and by which seed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    world: str = "field"
    options: dict[str, Any] = Field(default_factory=dict, validate_default=True)
    rows: int = Field(100_000, ge=1, le=100_000_000)
    seed: int = Field(0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _filled_in(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        name = given.get("world", "field")
        if name == "finite":
            raise InputError("A finite world is made of another world; name that one.")
        made = _made(name, given.get("options") or {})
        if hasattr(made, "tokenizer_json"):
            raise InputError(
                f"A finite world is made of coordinates or images, and '{name}' is of text; "
                "give its sources exact rows instead."
            )
        return {**given, "options": made.model_dump(mode="json")}

    @property
    def name(self) -> str:
        """``"finite"``."""
        return "finite"

    @cached_property
    def inner(self) -> Any:
        """The other world."""
        return _made(self.world, self.options)

    @property
    def of_worlds(self) -> tuple[str, ...]:
        """The names of the worlds whose code decides the examples too."""
        return (self.world, *getattr(self.inner, "of_worlds", ()))

    @property
    def output(self) -> OutputSpace:
        """That of the other world."""
        space: OutputSpace = self.inner.output
        return space

    @property
    def box(self) -> Any:
        """Where the inputs lie; raises ``AttributeError`` where the other world does not say."""
        return self.inner.box

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits of the other world."""
        return tuple(getattr(self.inner, "splits", ("train", "validation", "test")))

    @cached_property
    def drawn(self) -> Batch:
        """The examples of the split train."""
        batch: Batch = self.inner.sample(self.rows, generator("finite", self.seed), "train")
        return batch

    def sample(self, n: int, rng: np.random.Generator, split: Split = "train") -> Batch:
        """Return ``n`` examples of ``split``."""
        if split != "train":
            batch: Batch = self.inner.sample(n, rng, split)
            return batch
        return self.drawn.take(rng.integers(0, self.rows, n))

    def optimum(self, batch: Batch) -> Array:
        """Return the exact right outputs."""
        best: Array = self.inner.optimum(batch)
        return best

    def regret(self, batch: Batch, output: Array) -> NDArray[np.float64]:
        """Return ``(n,)`` squared errors."""
        errors: NDArray[np.float64] = self.inner.regret(batch, output)
        return errors

    def judge(self, batch: Batch, output: Sequence[Any]) -> Mapping[str, Array]:
        """Judge as the other world does."""
        verdicts: Mapping[str, Array] = self.inner.judge(batch, output)
        return verdicts

    def joint_table(self, split: Split = "train") -> list[JointRow]:
        """Return the other world's table, in the split train with the drawn examples' shares."""
        table: list[JointRow] = list(self.inner.joint_table(split))
        if split != "train":
            return table
        facts = self.drawn.facts
        counted = []
        for row in table:
            here = np.ones(self.rows, bool)
            for fact, value in row.values.items():
                here &= np.asarray(facts[fact] == value)
            counted.append(JointRow(row.values, float(here.mean())))
        return counted

    def counterfactuals(self, n: int, rng: np.random.Generator) -> list[Counterfactual]:
        """Return the other world's pairs."""
        pairs: list[Counterfactual] = self.inner.counterfactuals(n, rng)
        return pairs


def _made(name: Any, options: Any) -> Any:
    """Return a world; raises ``InputError`` with one sentence for options that it does not take."""
    spec = worlds.get(str(name))
    try:
        return spec.model_validate(options)
    except ValidationError as error:
        raise InputError(sentence(error, spec, f"finite: world '{name}'")) from None
