"""Measuring somebody's own model on their own statements: every probe, every layer, and nulls."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import TemplateError
from numpy.typing import NDArray

from terrarium.errors import InputError
from terrarium.evidence.rows import Row, measured
from terrarium.instruments.base import ContrastPairs, probes
from terrarium.instruments.metrics import balanced_accuracy, optional
from terrarium.organisms.huggingface import HuggingFaceNetwork, load_folder
from terrarium.progress import Progress
from terrarium.randomness import generator, seed
from terrarium.readings.read import read
from terrarium.readings.reading import Reading
from terrarium.readings.text import Encoded, encode_statements
from terrarium.studies.measure_probes import CONTRAST, PLAIN, RANDOM_DIRECTIONS
from terrarium.studies.own_data import SPLITS, SplitRows, auroc_row, data_rows, split_rows
from terrarium.studies.own_figures import INPUT, SAID, SHUFFLED, UNTRAINED
from terrarium.studies.pace import Stage
from terrarium.worlds.statements import load_statements

Array = NDArray[Any]
Scorer = Callable[[Any], Array]

RANDOM = f"best of {RANDOM_DIRECTIONS} random directions"
SHUFFLES = 5
DETAILED = ("logistic_regression", SAID, INPUT, UNTRAINED)
"""Whose scores are also told by difficulty and by group."""
KEPT_BYTES = 2**28
"""Activations of one reading beyond this go to disk."""
WORDS = 1024
"""Columns into which words and pairs of words are hashed."""

NO_ROOM = "the untrained network does not fit into memory beside the model"

_LOG = logging.getLogger("terrarium.studies")


@dataclass(frozen=True)
class Fit:
    """One way to fit a probe: its name, the rows it learns from, and what is fitted."""

    probe: str
    fit: Callable[[Any, NDArray[np.bool_]], Scorer]
    trained_on: str = "all"
    shuffle: int | None = None


class Reader:
    """A network that reads statements in one template, and counts what it had to cut."""

    def __init__(
        self, spec: Mapping[str, Any], aside: Path, progress: Progress, task: str, examples: int
    ) -> None:
        self.spec, self.aside, self.progress, self.task = spec, aside, progress, task
        self.network: HuggingFaceNetwork = load_folder(
            spec["model"], dtype=spec["dtype"], device_map=spec["device_map"], trainable=False
        )
        self.share = 80.0 / max(1, examples)
        self.readings = 0
        self.truncated: dict[str, int] = {}

    @property
    def sites(self) -> tuple[str, ...]:
        """What leaves each block.

        Not what enters the first: the last prompt token is the same in every row.
        """
        return tuple(s for s in self.network.sites() if s.startswith("resid.post"))

    def encoded(self, texts: Sequence[str], answer: int | None = None) -> Encoded:
        """Return the statements in the template, answered by the first or the second answer."""
        own = getattr(self.network.tokenizer, "model_max_length", None) or 10**9
        limit = min(int(own), self.network.context or 10**9)
        try:
            return encode_statements(
                texts,
                self.network.tokenizer,
                labels=None if answer is None else np.full(len(texts), answer),
                template=self.spec["template"],
                chat=self.spec["chat"],
                max_tokens=limit if limit < 10**9 else None,
            )
        except TemplateError as error:
            raise InputError(
                f"The chat template of {self.spec['model']} cannot be used ({error}); mend it, or "
                "ask without it by --no-chat."
            ) from None

    def read(
        self, texts: Sequence[str], called: str, answer: int | None = None, says: bool = False
    ) -> Reading:
        """Return the activations at the prompt's end, or at the answer where one is given."""
        encoded = self.encoded(texts, answer)
        if answer is None:
            self.truncated[called] = int(encoded.notes["truncated"])
        self.readings += 1
        return read(
            self.network,
            encoded.batch,
            self.sites,
            ("prompt_end" if answer is None else "answer",),
            answers=encoded.answers if says else None,
            memory_limit_bytes=KEPT_BYTES,
            folder=self.aside / str(self.readings),
            progress=Stage(self.progress, self.task, self.share * len(texts)),
        )

    def untrained(self, texts: Mapping[str, Sequence[str]]) -> dict[str, Reading] | None:
        """Read with random first weights in the network's place; None where memory has no room."""
        import torch

        try:
            with torch.random.fork_rng():
                torch.manual_seed(seed("untrained", self.spec["content"]))
                self.network = self.network.untrained()
            return {name: self.read(part, f"{name}, untrained") for name, part in texts.items()}
        except (MemoryError, RuntimeError) as error:
            if not isinstance(error, MemoryError) and "memory" not in str(error):
                raise
            return None


def probe_rows(spec: Mapping[str, Any], name: str, progress: Progress) -> list[Row]:
    """Return the rows of ``terrarium probe``; ``spec`` is that of `probe_study`."""
    statements = load_statements(spec["data"], spec["columns"])
    splits = split_rows(statements)
    for note in statements.notes:
        _LOG.warning(note)
    progress.start(name, 100.0, "%")
    examples = 4 * sum(len(part.texts) for part in splits.values())
    with tempfile.TemporaryDirectory(prefix="terrarium-") as aside:
        reader = Reader(spec, Path(aside), progress, name, examples)
        rows = [*data_rows(statements, splits), *_input_rows(splits)]
        rows += _plain_rows(reader, splits)
        rows += _contrast_rows(reader, splits)
        rows += _untrained_rows(reader, splits)
    progress.finish(name)
    return rows


def _plain_rows(reader: Reader, splits: Mapping[str, SplitRows]) -> Iterator[Row]:
    """What is said, and every probe on single statements, read at the prompt's end."""
    readings = {s: reader.read(part.texts, s, says=True) for s, part in splits.items()}
    cut = sum(reader.truncated.values())
    n = sum(len(part.texts) for part in splits.values())
    yield measured("truncated_statements", float(cut), unit="statements", n=n)
    if cut:
        _LOG.warning(
            f"{cut:,} of {n:,} statements are longer than the model takes; their ends are cut off."
        )
    says, label = readings["test"].says, splits["test"].label
    assert says is not None
    odds = (says[0, :, 0] - says[0, :, 1]).astype(np.float64)
    mass = float(np.mean(readings["test"].notes["answer_mass"]))
    yield measured("answer_mass", mass, unit="proportion", n=len(odds), split="test")
    right = optional(balanced_accuracy(odds, label))
    yield measured("balanced_accuracy", right, unit="proportion", n=len(odds), split="test")
    yield from score_rows(splits["test"], odds, "test", site="output", layer=None, probe=SAID)
    fits = _plain_fits(reader.spec["digest"], splits["train"])
    yield from _site_rows(fits, readings, reader.sites, splits)


def _plain_fits(key: str, train: SplitRows) -> list[Fit]:
    random = probes.get("random_direction")(k=RANDOM_DIRECTIONS, seed=seed(key) % 2**31)
    fits = [Fit(name, _supervised(probes.get(name)())) for name in PLAIN]
    fits.append(Fit(RANDOM, _supervised(random)))
    logistic = _supervised(probes.get("logistic_regression")())
    if "easy" in train.facts:
        fits.append(Fit("logistic_regression", logistic, "easy"))
    for index in range(SHUFFLES):
        order = generator("shuffle", key, index).permutation(len(train.texts))
        fits.append(Fit(SHUFFLED, _reordered(logistic, order), shuffle=index))
    return fits


def _supervised(probe: Any) -> Callable[[Any, NDArray[np.bool_]], Scorer]:
    def fit(x: Any, y: NDArray[np.bool_]) -> Scorer:
        scorer: Scorer = probe.fit(x, y).score
        return scorer

    return fit


def _reordered(
    fit: Callable[[Any, NDArray[np.bool_]], Scorer], order: NDArray[np.int64]
) -> Callable[[Any, NDArray[np.bool_]], Scorer]:
    return lambda x, y: fit(x, y[order])


def _contrast_rows(reader: Reader, splits: Mapping[str, SplitRows]) -> Iterator[Row]:
    """Probes on contrast pairs, read at the answer token."""
    sides = [
        {s: reader.read(part.texts, s, answer=answer) for s, part in splits.items()}
        for answer in (0, 1)
    ]
    fits = [Fit(name, _supervised(probes.get(name)())) for name in CONTRAST]
    for at, site in enumerate(reader.sites):
        pairs = {
            s: ContrastPairs(sides[0][s].at(site, "answer")[0], sides[1][s].at(site, "answer")[0])
            for s in SPLITS
        }
        yield from _fit_rows(fits, pairs, splits, site=site, layer=at + 1)


def _untrained_rows(reader: Reader, splits: Mapping[str, SplitRows]) -> Iterator[Row]:
    """The same architecture with random weights, where memory has room for it."""
    sites = reader.sites
    fit = Fit(UNTRAINED, _supervised(probes.get("logistic_regression")()))
    readings = reader.untrained({s: part.texts for s, part in splits.items()})
    if readings is not None:
        yield from _site_rows([fit], readings, sites, splits)
        return
    for at, site in enumerate(sites):
        yield from score_rows(
            splits["test"],
            None,
            "test",
            probe=UNTRAINED,
            reason=NO_ROOM,
            site=site,
            layer=at + 1,
        )


def _site_rows(
    fits: Sequence[Fit],
    readings: Mapping[str, Reading],
    sites: Sequence[str],
    splits: Mapping[str, SplitRows],
) -> Iterator[Row]:
    # One site at a time: what lies on disk must not all be in memory at once.
    for at, site in enumerate(sites):
        x = {s: reading.at(site, "prompt_end")[0] for s, reading in readings.items()}
        yield from _fit_rows(fits, x, splits, site=site, layer=at + 1)


def _fit_rows(
    fits: Sequence[Fit], x: Mapping[str, Any], splits: Mapping[str, SplitRows], **place: Any
) -> Iterator[Row]:
    """Fit on the training rows, score the other splits; what cannot be fitted is undefined."""
    train = splits["train"]
    for one in fits:
        mask = train.subsets(True).get(one.trained_on, np.ones(len(train.texts), bool))
        rows = x["train"] if mask.all() else x["train"][mask]
        reason, scorer = "", None
        try:
            scorer = one.fit(rows, train.label[mask])
        except InputError as error:
            reason = f"the probe cannot be fitted: {error}"
        for split in SPLITS[1:]:
            scores = None if scorer is None else np.asarray(scorer(x[split]))
            for row in score_rows(
                splits[split], scores, split, probe=one.probe, trained_on=one.trained_on,
                reason=reason, **place,
            ):  # fmt: skip
                yield row if one.shuffle is None else row.with_factors(shuffle=one.shuffle)


def score_rows(
    part: SplitRows,
    scores: Array | None,
    split: str,
    *,
    probe: str,
    reason: str = "",
    trained_on: str = "all",
    **place: Any,
) -> Iterator[Row]:
    """Yield AUROCs of ``scores`` ``(n,)`` on each subset, against the label and the quirky one."""
    shared: dict[str, Any] = {"probe": probe, "trained_on": trained_on, "split": split, **place}
    options = {"reason": reason} if reason else {}
    for name, mask in part.scored(probe in DETAILED).items():
        chosen = None if scores is None else scores[mask]
        row = auroc_row(
            "auroc", chosen, part.label[mask], groups=part.groups(mask), **options, **shared
        )
        yield row.with_factors(rows=name, against="label")
    if part.facts["disagree"].any():
        quirky = part.facts["rule_label"].astype(bool)
        row = auroc_row("auroc", scores, quirky, groups=part.groups(), **options, **shared)
        yield row.with_factors(rows="all", against="quirky label")


def _input_rows(splits: Mapping[str, SplitRows]) -> Iterator[Row]:
    """Words and pairs of words alone, without any model."""
    x = {split: word_counts(part.texts) for split, part in splits.items()}
    logistic = _supervised(probes.get("logistic_regression")())
    fits = [Fit(INPUT, logistic)]
    if "easy" in splits["train"].facts:
        fits.append(Fit(INPUT, logistic, "easy"))
    yield from _fit_rows(fits, x, splits, site="input", layer=None)


def word_counts(texts: Sequence[str]) -> NDArray[np.float32]:
    """Return ``(n, 1024)`` counts of hashed words and pairs of words."""
    from sklearn.feature_extraction.text import HashingVectorizer

    words = HashingVectorizer(
        n_features=WORDS, ngram_range=(1, 2), norm=None, alternate_sign=False, dtype=np.float32
    )
    return np.asarray(words.transform(texts).toarray(), dtype=np.float32)
