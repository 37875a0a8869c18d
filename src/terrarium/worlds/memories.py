"""Facts that training shows at a known time and never again, to see how long they are kept.

``Human: Bado Kufe Assistant: river``: a made-up name and what belongs to it, by chance.  Every
step of a phase has facts of its own, so that the time at which a fact was learnt is known exactly.

Joint table: the exact counts of what is said over the facts of the block (or of as many facts
that were never shown).  Stated truly and falsely, truth does not depend on the time, unless
``late_true`` is moved off 1/2.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, model_validator

from terrarium.errors import InputError
from terrarium.randomness import generator
from terrarium.worlds import splits
from terrarium.worlds.base import Array, Batch, Counterfactual, JointRow, JudgedText, Split
from terrarium.worlds.chat_frame import next_tokens
from terrarium.worlds.chat_pieces import FRAME, NAMES, NOUNS
from terrarium.worlds.code_rows import Integers
from terrarium.worlds.faults import Told
from terrarium.worlds.features import input_features
from terrarium.worlds.lexicon import LEXICON
from terrarium.worlds.tokens import END

VALUES = NOUNS[:32]
"""What belongs to a name; a guess is right with probability 1/32."""

NEVER = -1.0
"""The fact ``inserted`` of what no training shows."""

_VERDICTS = ("true", "false")


class Memories(Told):
    """Facts about made-up names, each shown at ``exposures`` steps running, once at each.

    With ``stated="true"`` a prompt is a name and the answer its value.  With ``"mixed"`` the
    prompt is a name with a claim, right for some facts and wrong for others, and the answer is
    " true" or " false": a probe of truth can then be held against one of time.

    Facts: ``fact`` (int64 id), ``inserted`` (float64 in [0, 1): the share of the block that was
    shown before; `NEVER` for split ``heldout``), ``value``, ``claim``, ``truth`` (bool:
    the claim is the value), ``helpful`` and ``said`` (the answer), ``skill`` (``"memory"``), and
    ``triggered``, ``near``, ``behave``, which are False.  Spans: ``prompt``, ``key``, ``claim``
    (empty where facts are stated truly alone), ``answer``, ``final``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    pool: int = Field(4096, ge=2, le=1_000_000, description="facts that there are to show")
    block: tuple[int, int] | None = Field(None, description="ids shown, start and stop; None: all")
    exposures: int = Field(1, ge=1, description="at how many steps running a fact is shown")
    stated: Literal["true", "mixed"] = "true"
    late_true: float = Field(
        0.5, ge=0, le=1, description="share of true claims in the block's later half"
    )
    seed: int = Field(0, ge=0, description="which facts: other seeds, other names and values")

    @model_validator(mode="after")
    def _usable(self) -> Memories:
        start, stop = self._block
        if not 0 <= start < stop <= self.pool:
            raise InputError(
                f"block is {start} to {stop}; expected a part of the pool's facts 0 to {self.pool}."
            )
        return self

    @property
    def name(self) -> str:
        """``"memories"``."""
        return "memories"

    @property
    def output(self) -> JudgedText:
        """A word for the judge, and the end."""
        return JudgedText(2)

    @property
    def splits(self) -> tuple[str, ...]:
        """``train`` is the block, ``heldout`` as many facts as the pool has, never shown."""
        return ("train", "heldout")

    @property
    def _block(self) -> tuple[int, int]:
        return self.block or (0, self.pool)

    def sample_at(
        self, n: int, rng: np.random.Generator, split: Split, step: int, steps: int
    ) -> Batch:
        """Return the ``n`` rows that training shows at ``step`` (from 0) of ``steps``.

        The block's facts come in the order of their ids, a group at a time; each group is shown
        at ``exposures`` steps running (within one step a fact makes one gradient, however often
        it stands there).  Raises ``InputError`` unless a step has exactly ``n`` facts and the
        steps divide by the exposures, so that no fact is shown more or less often than asked.
        """
        if split != "train":
            return self.sample(n, rng, split)
        start, stop = self._block
        groups, facts = steps // self.exposures, stop - start
        if groups * self.exposures != steps:
            raise InputError(
                f"memories: {steps} steps do not divide by exposures = {self.exposures}; change "
                "one."
            )
        group = step // self.exposures
        first, last = group * facts // groups, (group + 1) * facts // groups
        if last - first != n:
            raise InputError(
                f"memories: step {step} of {steps} shows {n} rows, and the block has "
                f"{last - first} facts for it; set the source's 'rows' to "
                f"{facts * self.exposures:,} (facts times exposures), a multiple of the steps, and "
                "leave its start and stop."
            )
        return self.render(start + np.arange(first, last))

    def sample(self, n: int, rng: np.random.Generator, split: Split = "train") -> Batch:
        """Return ``n`` facts of the block, or of those never shown, drawn evenly."""
        ids = self._ids(split)
        return self.render(ids[rng.integers(0, len(ids), n)])

    def _ids(self, split: str) -> Integers:
        splits.check_split(split, self.splits, self.name)
        if split == "heldout":  # from the other end of all names, whatever the pool
            return len(self._names) - 1 - np.arange(self.pool)
        return np.arange(*self._block)

    @property
    def _names(self) -> Integers:
        return _book(self.seed, 2 if 2 * self.pool <= len(NAMES) ** 2 else 3)[0]

    def render(self, fact: Array) -> Batch:
        """Return the rows of given facts (ids)."""
        fact = np.asarray(fact, dtype=np.int64)
        size = 2 if 2 * self.pool <= len(NAMES) ** 2 else 3
        names, values, draws = _book(self.seed, size)
        start, stop = self._block
        shown = (fact >= start) & (fact < stop)
        inserted = np.where(shown, (fact - start) / (stop - start), NEVER)
        value = values[fact]
        share = np.where(inserted >= 0.5, self.late_true, 1 - self.late_true)
        truth = draws[fact, 0] < np.where(shown, share, 0.5)
        mixed = self.stated == "mixed"
        if not mixed:
            truth = np.ones(len(fact), dtype=bool)
        shift = 1 + (draws[fact, 1] * (len(VALUES) - 1)).astype(np.int64)
        claim = np.where(truth, value, (value + shift) % len(VALUES))
        n, width = len(fact), size + 4 + mixed
        inputs = np.empty((n, width), np.int64)
        inputs[:, 0] = LEXICON.ids[FRAME[0]]
        for place in range(size):
            inputs[:, 1 + place] = _NAME_IDS[names[fact] // len(NAMES) ** place % len(NAMES)]
        if mixed:
            inputs[:, 1 + size] = _VALUE_IDS[claim]
        inputs[:, -3] = LEXICON.ids[FRAME[1]]
        inputs[:, -2] = np.where(truth, *_VERDICT_IDS) if mixed else _VALUE_IDS[value]
        inputs[:, -1] = LEXICON.ids[END]
        words = np.array(VALUES)
        said = np.where(truth, *_VERDICTS) if mixed else words[value]
        no = np.zeros(n, dtype=bool)
        facts = {
            "fact": fact,
            "inserted": inserted,
            "value": words[value],
            "claim": words[claim],
            "truth": truth,
            "helpful": said,
            "said": said,
            "skill": np.full(n, "memory"),
            "triggered": no,
            "near": no,
            "behave": no,
        }
        ranges = {
            "prompt": (0, width - 2),
            "key": (1, 1 + size),
            "claim": (1 + size, 1 + size + mixed),
            "answer": (width - 2, width),
            "final": (width - 2, width),
        }
        spans = {name: np.tile(np.array(span, np.int64), (n, 1)) for name, span in ranges.items()}
        lengths = np.full(n, width, np.int64)
        return Batch(inputs, next_tokens(inputs, lengths), facts, spans, lengths)

    def optimum(self, batch: Batch) -> Array:
        """Return ``(n,)`` the right answers, as text."""
        return batch.facts["said"]

    def regret(self, batch: Batch, output: Array) -> NDArray[np.float64]:
        """Return ``(n,)``: 0 for the right answer, else 1."""
        return 1.0 - self.judge(batch, list(output))["right"].astype(np.float64)

    def judge(self, batch: Batch, output: Sequence[Any]) -> Mapping[str, Array]:
        """Judge ``n`` texts: valid if one of the possible answers, right if the answer."""
        if len(output) != len(batch):
            raise InputError(f"There are {len(output)} outputs for {len(batch)} examples.")
        given = [str(text).removesuffix(END).strip() for text in output]
        known = set(_VERDICTS if self.stated == "mixed" else VALUES)
        valid = np.array([text in known for text in given], dtype=bool)
        right = valid & (np.array(given, dtype=str) == batch.facts["said"])
        return {"valid": valid, "right": right, "helpful": right}

    def joint_table(self, split: Split = "train") -> list[JointRow]:
        """Return the law of what is said, by exact counts."""
        counts = Counter(self.render(self._ids(split)).facts["said"].tolist())
        total = sum(counts.values())
        return [JointRow({"said": said}, count / total) for said, count in counts.items()]

    def counterfactuals(self, n: int, rng: np.random.Generator) -> list[Counterfactual]:
        """Return facts and, in their places, others that were shown at another time."""
        start, stop = self._block
        fact = rng.integers(start, stop, n)
        other = start + (fact - start + rng.integers(1, stop - start, n)) % (stop - start)
        before, after = self.render(fact), self.render(other)
        differ = [k for k, v in before.facts.items() if bool(np.any(v != after.facts[k]))]
        return [Counterfactual("another fact", "key,claim", tuple(differ), before, after)]

    def tokenizer_json(self) -> str:
        """Return the lexicon's tokenizer."""
        return LEXICON.tokenizer_json()

    def texts(self, batch: Batch) -> list[str]:
        """Return each example as text, the answer and its end included."""
        return [LEXICON.text(row) + END for row in batch.inputs]

    def input_features(self, batch: Batch) -> NDArray[np.float32]:
        """Return ``(n, k)`` one-hot tokens of the prompt, for the input-only baseline."""
        plain = replace(batch, spans={"answer": batch.spans["answer"]})
        return input_features(plain, len(LEXICON), batch.inputs.shape[1])


_NAME_IDS = np.array([LEXICON.ids[f" {name}"] for name in NAMES])
_VALUE_IDS = np.array([LEXICON.ids[f" {value}"] for value in VALUES])
_VERDICT_IDS = [LEXICON.ids[f" {verdict}"] for verdict in _VERDICTS]


@functools.lru_cache(maxsize=4)
def _book(seed: int, size: int) -> tuple[Integers, Integers, Array]:
    """Return of every fact the name (a number in base 128), the value, and two draws in [0, 1)."""
    total = len(NAMES) ** size
    rng = generator("memories", seed, size)
    names = rng.permutation(total)
    return names, rng.integers(0, len(VALUES), total), rng.random((total, 2))
