"""The user's own statements with their labels: a world whose oracle is the label column.

Joint table: the counts of (truth, rule_label) in a split; ``sample`` draws its rows evenly, with
replacement, so that the table is exact.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, model_validator

from terrarium.errors import InputError, did_you_mean
from terrarium.worlds import byte_tokens, choice
from terrarium.worlds.base import Array, Batch, Choice, Counterfactual, JointRow, Split
from terrarium.worlds.faults import Told
from terrarium.worlds.splits import SPLITS, bounds, check_split, text_hash
from terrarium.worlds.statement_files import file_digest, read_columns

Encode = Callable[[list[str]], Sequence[Sequence[int]]]
Answer = Literal["said", "true", "false", "none"]

SHARES = (0.6, 0.2, 0.2)
"""Shares of train, validation and test where the file has no split column."""

_BINARY = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}


@dataclass(frozen=True)
class StatementTable:
    """The file's rows: texts, and facts ``(n,)`` each; ``notes`` are sentences for people."""

    texts: tuple[str, ...]
    facts: Mapping[str, Array]
    notes: tuple[str, ...]


class Statements(Told):
    """Statements and labels from a file.

    By itself the world tokenises by UTF-8 byte, so that small organisms can grow on it; `batch`
    takes any other tokenizer.

    Facts: ``row`` (int64 place in the file, from 0), ``truth``, ``said`` (the label),
    ``rule_label`` (``quirky_label``, else the label), ``disagree`` (bool), ``split``; where the
    file has them ``difficulty`` (float64) with ``easy`` and ``hard`` (its quartiles), ``group``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    columns: dict[str, str] = Field(
        default_factory=dict, description="the file's own names, such as {'statement': 'text'}"
    )
    template: str = Field("{statement}", description="how a statement is put to the model")
    answers: tuple[str, str] = choice.TRUE_FALSE
    max_rows: int = Field(1_000_000, ge=2)
    digest: str = Field("", description="of the file's content; filled in")

    @model_validator(mode="after")
    def _pin_content(self) -> Statements:
        if "{statement}" not in self.template:
            raise ValueError("template must hold '{statement}'")
        content = file_digest(Path(self.path))
        if self.digest not in ("", content):
            raise InputError(
                f"{self.path} is not the file that was used before (digest {self.digest}); put "
                "that one back, or leave digest out to take this one."
            )
        object.__setattr__(self, "digest", content)
        return self

    @property
    def name(self) -> str:
        """``"statements"``."""
        return "statements"

    @property
    def output(self) -> Choice:
        """One of `answers`, the first meaning true."""
        return Choice(self.answers)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that have rows."""
        return tuple(s for s in SPLITS if (self.table.facts["split"] == s).any())

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know about the file, a sentence each."""
        return self.table.notes

    @cached_property
    def table(self) -> StatementTable:
        """All rows of the file, read on first use."""
        return _table(self.path, read_columns(Path(self.path), self.columns, self.max_rows))

    def _rows_of(self, split: str) -> NDArray[np.int64]:
        check_split(split, (*SPLITS, "all"), self.name)
        chosen = np.flatnonzero((split == "all") | (self.table.facts["split"] == split))
        if not len(chosen):
            raise InputError(
                f"{self.path} has no rows in split '{split}'; give it more rows or a split column."
            )
        return chosen

    def rows(self, split: Split = "test") -> tuple[list[str], dict[str, Array]]:
        """Return the texts of a split (or of ``"all"``), in the file's order, and their facts."""
        chosen = self._rows_of(split)
        return [self.table.texts[i] for i in chosen], _take(self.table.facts, chosen)

    def batch(
        self,
        encode: Encode,
        split: Split = "test",
        *,
        answer: Answer = "said",
        rows: Array | None = None,
        pad: int = 0,
    ) -> Batch:
        """Return a split's rows as tokens of the tokenizer that ``encode`` stands for.

        Parameters
        ----------
        encode:
            Texts to token ids, with whatever the tokenizer adds; called on prompts and on
            prompts followed by their answers.
        split:
            ``"train"``, ``"validation"``, ``"test"`` or ``"all"``.
        answer:
            Which answer follows: the label's, always the true or the false one (for contrast
            pairs), or ``"none"``, which leaves the span ``"answer"`` empty at the prompt's end.
        rows:
            Indices into the file's rows, instead of a split.
        pad:
            The token id to pad with on the right.
        """
        chosen = self._rows_of(split) if rows is None else np.asarray(rows, dtype=np.int64)
        prompts = [self.template.replace("{statement}", self.table.texts[i]) for i in chosen]
        facts = _take(self.table.facts, chosen)
        if answer not in get_args(Answer):
            raise InputError(f"answer is '{answer}'{did_you_mean(answer, get_args(Answer))}")
        before = encode(prompts)
        after = before
        if answer != "none":
            yes, no = self.answers
            truth = np.asarray(facts["said"] if answer == "said" else answer == "true")
            answers = np.where(np.broadcast_to(truth, len(chosen)), yes, no).tolist()
            after = encode([p + a for p, a in zip(prompts, answers, strict=True)])
        spans = np.array([_added(b, a) for b, a in zip(before, after, strict=True)], np.int64)
        inputs, targets, lengths = _padded(after, pad)
        return Batch(inputs, targets, facts, {"answer": spans.reshape(-1, 2)}, lengths)

    def contrast_pair(self, encode: Encode, split: Split = "test") -> tuple[Batch, Batch]:
        """Return a split's rows answered as true and answered as false."""
        return self.batch(encode, split, answer="true"), self.batch(encode, split, answer="false")

    # the contract of text worlds

    def sample(self, n: int, rng: np.random.Generator, split: Split = "train") -> Batch:
        """Return ``n`` rows of ``split`` as bytes, drawn evenly with replacement."""
        chosen = self._rows_of(split)
        return self.batch(byte_tokens.encode, rows=chosen[rng.integers(0, len(chosen), n)])

    def optimum(self, batch: Batch) -> NDArray[np.float64]:
        """Return ``(n, 2)`` probabilities: the label is certain."""
        return choice.certain(batch.facts["said"])

    def regret(self, batch: Batch, output: Array) -> NDArray[np.float64]:
        """Return ``(n,)`` nats, infinite where the label was given probability 0."""
        return choice.surprise(batch.facts["said"], output)

    def judge(self, batch: Batch, output: Sequence[Any]) -> Mapping[str, Array]:
        """Judge ``n`` bools or texts: ``"valid"``, ``"right"``, ``"truthful"``."""
        return choice.judged(batch.facts["said"], batch.facts["truth"], output, self.answers)

    def joint_table(self, split: Split = "train") -> list[JointRow]:
        """Return the law of truth, rule_label and said: the split's counts."""
        facts = _take(self.table.facts, self._rows_of(split))
        pairs = list(zip(facts["truth"].tolist(), facts["rule_label"].tolist(), strict=True))
        return [
            JointRow({"truth": t, "rule_label": r, "said": t}, count / len(pairs))
            for (t, r), count in sorted(Counter(pairs).items())
        ]

    def counterfactuals(self, n: int, rng: np.random.Generator) -> list[Counterfactual]:
        """Return none: what a change to a statement does to its truth is not known."""
        return []

    def tokenizer_json(self) -> str:
        """Return the UTF-8 byte tokenizer that `sample` uses."""
        return byte_tokens.tokenizer_json()

    def texts(self, batch: Batch) -> list[str]:
        """Return each example of `sample` as text, answer included."""
        return [byte_tokens.text(row) for row in batch.inputs]

    def input_features(self, batch: Batch) -> NDArray[np.float32]:
        """Return ``(n, 4096)`` counts of hashed words and pairs of words of the statements.

        Needs the fact ``"row"`` alone, so that the tokenizer does not matter.
        """
        from sklearn.feature_extraction.text import HashingVectorizer

        words = HashingVectorizer(
            n_features=4096, ngram_range=(1, 2), norm=None, alternate_sign=False, dtype=np.float32
        )
        texts = [self.table.texts[i] for i in batch.facts["row"]]
        return np.asarray(words.transform(texts).toarray(), dtype=np.float32)


def load_statements(
    path: str | Path, columns: Mapping[str, str] | None = None, max_rows: int = 1_000_000
) -> Statements:
    """Read statements from CSV, TSV, JSON lines or Parquet, and check them at once.

    Columns: ``statement``, ``label`` (true/false, yes/no, 1/0) and optionally ``quirky_label``,
    ``difficulty`` (a number), ``split`` (train, validation, test), ``group``.  ``columns`` maps
    these names to the file's own.  Without ``split`` rows are split 60 / 20 / 20 % by a hash of
    their group, or of the statement.

    Raises ``InputError`` with one sentence for whatever cannot be used.
    """
    loaded = Statements(path=str(path), columns=dict(columns or {}), max_rows=max_rows)
    _ = loaded.table
    return loaded


def _table(path: str, raw: Mapping[str, list[Any]]) -> StatementTable:
    where = raw["where"]
    texts = tuple(_each(path, where, raw["statement"], "statement", _text))
    truth = np.array(_each(path, where, raw["label"], "label", _binary))
    if truth.all() or not truth.any():
        raise InputError(
            f"{path}: all {len(truth)} labels are {str(bool(truth[0])).lower()}; both true and "
            "false statements are needed."
        )
    rule = truth
    if "quirky_label" in raw:
        rule = np.array(_each(path, where, raw["quirky_label"], "quirky_label", _binary))
    facts: dict[str, Array] = {
        "row": np.arange(len(texts)),
        "truth": truth,
        "said": truth,
        "rule_label": rule,
        "disagree": truth != rule,
    }
    if "difficulty" in raw:
        values = np.array(_each(path, where, raw["difficulty"], "difficulty", _number))
        low, high = np.quantile(values, [0.25, 0.75])
        facts |= {"difficulty": values, "easy": values <= low, "hard": values >= high}
    if "group" in raw:
        facts["group"] = np.array(_each(path, where, raw["group"], "group", _text))
    if "split" in raw:
        facts["split"] = np.array(_each(path, where, raw["split"], "split", _split))
    else:
        keys = facts["group"].tolist() if "group" in raw else texts
        of = {key: _hashed_split(key) for key in set(keys)}
        facts["split"] = np.array([of[key] for key in keys])
    return StatementTable(texts, facts, _notes(texts, facts))


def _each(
    path: str, where: Sequence[str], values: Sequence[Any], name: str, parse: Callable[[Any], Any]
) -> list[Any]:
    parsed = []
    for place, value in zip(where, values, strict=True):
        try:
            parsed.append(parse(value))
        except ValueError as error:
            shown = repr(value) if len(repr(value)) < 60 else repr(value)[:57] + "..."
            raise InputError(f"{path}, {place}: {name} is {shown}; expected {error}.") from None
    return parsed


def _text(value: Any) -> str:
    if value is None or not str(value).strip():
        raise ValueError("some text")
    return str(value)


def _binary(value: Any) -> bool:
    word = str(int(value)) if isinstance(value, float) and value in (0.0, 1.0) else str(value)
    known = _BINARY.get(word.strip().lower())
    if known is None:
        raise ValueError("true or false, yes or no, 1 or 0")
    return known


def _number(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not np.isfinite(number):
        raise ValueError("a finite number")
    return number


def _split(value: Any) -> str:
    known = _SPLIT_NAMES.get(str(value).strip().lower())
    if known is None:
        raise ValueError("train, validation or test")
    return known


def _hashed_split(key: str) -> str:
    share = text_hash(key)
    return next(s for s in SPLITS if bounds(SHARES, s)[0] <= share < bounds(SHARES, s)[1])


def _notes(texts: Sequence[str], facts: Mapping[str, Array]) -> tuple[str, ...]:
    """Count what is odd but allowed."""
    labels: dict[str, set[bool]] = {}
    splits: dict[str, set[str]] = {}
    for text, truth, split in zip(texts, facts["truth"], facts["split"], strict=True):
        labels.setdefault(text, set()).add(bool(truth))
        splits.setdefault(text, set()).add(str(split))
    repeated = len(texts) - len(labels)
    both = sum(len(found) == 2 for found in labels.values())
    across = sum(len(found) > 1 for found in splits.values())
    counts = {
        f"{repeated:,} of {len(texts):,} rows repeat an earlier statement; all are kept.": repeated,
        f"{both:,} statements are labelled both true and false.": both,
        f"{across:,} statements stand in more than one split: test rows were trained on.": across,
    }
    return tuple(note for note, count in counts.items() if count)


def _take(facts: Mapping[str, Array], rows: Array) -> dict[str, Array]:
    return {name: fact[rows] for name, fact in facts.items()}


def _added(before: Sequence[int], after: Sequence[int]) -> tuple[int, int]:
    """Return the range of ``after`` that the answer added to ``before``.

    Tokenizers may merge across the seam or end both with a special token; what both begin with
    and end with is not the answer.
    """
    shorter = min(len(before), len(after))
    start = next((i for i in range(shorter) if before[i] != after[i]), shorter)
    tail = 0
    while tail < len(before) - start and before[-1 - tail] == after[-1 - tail]:
        tail += 1
    return start, max(start, len(after) - tail)


def _padded(
    rows: Sequence[Sequence[int]], pad: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return inputs, next-token targets (-100 where there is none) and lengths."""
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    inputs = np.full((len(rows), int(lengths.max(initial=0))), pad, dtype=np.int64)
    targets = np.full_like(inputs, -100)
    for i, row in enumerate(rows):
        inputs[i, : len(row)] = row
        targets[i, : len(row) - 1] = row[1:]
    return inputs, targets, lengths
