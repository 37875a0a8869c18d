"""Measuring somebody's own model on their own statements."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrarium.errors import InputError
from terrarium.evidence.intervals import auroc_interval
from terrarium.evidence.rows import Row, measured
from terrarium.instruments.base import ContrastPairs, detectors, probes
from terrarium.instruments.metrics import recall_at_fpr
from terrarium.organisms.huggingface import HuggingFaceNetwork, load_folder
from terrarium.progress import Progress
from terrarium.randomness import generator, seed
from terrarium.readings.read import read
from terrarium.readings.text import Encoded, encode_statements
from terrarium.studies.measure_probes import CONTRAST, PLAIN, RANDOM_DIRECTIONS
from terrarium.worlds.statement_files import read_columns
from terrarium.worlds.statements import Statements, load_statements

Features = NDArray[np.float32]
SPLITS = ("train", "validation", "test")


def probe_rows(spec: Mapping[str, Any], progress: Progress) -> list[Row]:
    """Return the rows of ``terrarium probe``; ``spec`` is that of `probe_study`."""
    statements = load_statements(spec["data"], spec["columns"])
    network = _network(spec)
    with tempfile.TemporaryDirectory(prefix="terrarium-") as aside:
        found = _Split(network, statements, spec, Path(aside), progress)
        rows = [*_notes_rows(found), *_says_rows(found), *_plain_rows(found)]
        rows += _contrast_rows(found)
        rows += _input_rows(found)
        rows += _untrained_rows(found)
    return rows


def detect_rows(spec: Mapping[str, Any], progress: Progress) -> list[Row]:
    """Return the rows of ``terrarium detect``; ``spec`` is that of `detect_study`."""
    network = _network(spec)
    texts = [
        [
            str(t)
            for t in read_columns(Path(spec[k]), spec["columns"], 1_000_000, ("statement",))[
                "statement"
            ]
        ]
        for k in ("trusted", "suspect")
    ]
    if len(texts[0]) < 20:
        raise InputError(
            f"{spec['trusted']} has {len(texts[0])} rows; detectors need at least 20 trusted rows."
        )
    with tempfile.TemporaryDirectory(prefix="terrarium-") as aside:
        x = [
            _stack(network, _encoded(network, part, {}, spec), Path(aside) / str(i), progress)
            for i, part in enumerate(texts)
        ]
    order = generator("trusted half", spec["digests"][0]).permutation(len(texts[0]))
    half = len(order) // 2
    fitted_on, held = x[0][:, order[:half]], x[0][:, order[half:]]
    sites = _sites(network)
    rows: list[Row] = []
    for name in detectors:
        if name == "probe_log_odds":
            continue  # needs labels, which trusted rows need not have
        fitted = detectors.get(name)().fit(fitted_on)
        both = np.concatenate([held, x[1]], axis=1)
        rows += _detector_rows(fitted.score(both), held.shape[1], sites, detector=name)
    words = _word_counts([*texts[0], *texts[1]])
    trusted, odd = words[order[:half]], words[np.r_[order[half:], len(order) : len(words)]]
    scores = detectors.get("mahalanobis")().fit(trusted).score(odd)
    rows += _detector_rows(scores[None], held.shape[1], ("input",), detector="input only")
    return rows


def _detector_rows(
    scores: NDArray[np.float64], trusted: int, sites: Sequence[str], **factors: Any
) -> Iterator[Row]:
    odd = np.arange(scores.shape[-1]) >= trusted
    recalls = recall_at_fpr(scores, odd, 0.01)
    for index, site in enumerate(sites):
        layer = index + 1 if site != "input" else None
        shared = {"layer": layer, "site": site, **factors}
        yield auroc_row("detector_auroc", scores[index], odd, **shared)
        yield measured(
            "recall_at_1_percent_fpr",
            float(recalls[index]),
            unit="proportion",
            n=int(odd.sum()),
            **shared,
        )


def auroc_row(metric: str, scores: NDArray[Any], labels: NDArray[np.bool_], **factors: Any) -> Row:
    """Return an AUROC with DeLong's interval over rows."""
    positive, negative = scores[labels], scores[~labels]
    if not len(positive) or not len(negative):
        reason = "one of the two classes has no rows"
        return measured(metric, None, unit="proportion", n=len(labels), reason=reason, **factors)
    area, interval = auroc_interval(positive, negative)
    row = measured(metric, area, unit="proportion", n=len(labels), **factors)
    return replace(row, interval=interval)


class _Split:
    """The model's readings of the three splits, and their facts."""

    def __init__(
        self,
        network: HuggingFaceNetwork,
        statements: Statements,
        spec: Mapping[str, Any],
        aside: Path,
        progress: Progress,
    ) -> None:
        self.network, self.statements, self.spec = network, statements, spec
        self.aside, self.progress = aside, progress
        self.sites = _sites(network)
        self.texts: dict[str, list[str]] = {}
        self.facts: dict[str, dict[str, NDArray[Any]]] = {}
        self.encoded: dict[str, Encoded] = {}
        self.x: dict[str, Features] = {}
        self.says: dict[str, NDArray[np.float32]] = {}
        self.mass = 0.0
        for split in SPLITS:
            texts, facts = statements.rows(split)
            self.texts[split], self.facts[split] = texts, facts
            encoded = _encoded(network, texts, facts, spec)
            self.encoded[split] = encoded
            reading = read(
                network,
                encoded.batch,
                self.sites,
                ("prompt_end",),
                answers=encoded.answers,
                folder=aside / split,
                progress=progress,
            )
            self.x[split] = reading.stack("prompt_end")[:, 0]
            assert reading.says is not None
            self.says[split] = reading.says[0]
            self.mass = float(np.mean(reading.notes["answer_mass"]))

    def label(self, split: str) -> NDArray[np.bool_]:
        """The label of a split's rows, ``(n,)``."""
        return self.facts[split]["truth"].astype(bool)

    def rows(
        self, split: str, scores: NDArray[np.float64], sites: Sequence[str | None], **factors: Any
    ) -> Iterator[Row]:
        """Yield AUROCs of ``scores`` ``(site, n)`` by site, against label and quirky label."""
        disagree = self.facts[split]["disagree"].astype(bool)
        subsets = {"all": np.ones_like(disagree)}
        if disagree.any():
            subsets["disagree"] = disagree
        for index, site in enumerate(sites):
            for subset, mask in subsets.items():
                yield auroc_row(
                    "auroc",
                    scores[index][mask],
                    self.label(split)[mask],
                    layer=index + 1 if site is not None else None,
                    site=site,
                    split=split,
                    rows=subset,
                    against="truth",
                    **factors,
                )


def _notes_rows(found: _Split) -> Iterator[Row]:
    """How the data were read: what was cut, and how much probability the answers have."""
    for split in SPLITS:
        n = len(found.texts[split])
        cut = float(found.encoded[split].notes["truncated"])
        yield measured("truncated_statements", cut, unit="statements", n=n, split=split)
    yield measured("answer_mass", found.mass, unit="proportion", n=n, split="test")


def _says_rows(found: _Split) -> Iterator[Row]:
    odds = (found.says["test"][:, 0] - found.says["test"][:, 1]).astype(np.float64)
    yield from found.rows("test", odds[None], (None,), probe="none: what is said")


def _plain_rows(found: _Split) -> Iterator[Row]:
    x, y = found.x["train"], found.label("train")
    key = found.spec["digest"]
    random = probes.get("random_direction")(k=RANDOM_DIRECTIONS, seed=seed(key) % 2**31)
    fitted = {name: probes.get(name)().fit(x, y) for name in PLAIN}
    fitted[f"best of {RANDOM_DIRECTIONS} random directions"] = random.fit(x, y)
    shuffled = generator("shuffle", key).permutation(y)
    fitted["shuffled labels"] = probes.get("logistic_regression")().fit(x, shuffled)
    for name, probe in fitted.items():
        for split in SPLITS[1:]:
            yield from found.rows(split, probe.score(found.x[split]), found.sites, probe=name)


def _contrast_rows(found: _Split) -> Iterator[Row]:
    """Probes on contrast pairs, read at the answer token."""
    pairs = {}
    for split in SPLITS:
        sides = []
        for answer in (0, 1):
            labels = np.full(len(found.texts[split]), answer)
            encoded = _encoded(found.network, found.texts[split], {}, found.spec, labels)
            sides.append(
                _stack(
                    found.network,
                    encoded,
                    found.aside / f"{split}-{answer}",
                    found.progress,
                    "answer",
                )
            )
        pairs[split] = ContrastPairs(*sides)
    for name in CONTRAST:
        fitted = probes.get(name)().fit(pairs["train"], found.label("train"))
        for split in SPLITS[1:]:
            yield from found.rows(split, fitted.score(pairs[split]), found.sites, probe=name)


def _input_rows(found: _Split) -> Iterator[Row]:
    """Words and pairs of words alone, without any model."""
    train = _word_counts(found.texts["train"])
    fitted = probes.get("logistic_regression")().fit(train, found.label("train"))
    for split in SPLITS[1:]:
        scores = fitted.score(_word_counts(found.texts[split]))
        # The same line at every layer, so that it can be drawn beside the probes.
        repeated = np.repeat(scores[None], len(found.sites), axis=0)
        yield from found.rows(split, repeated, found.sites, probe="input only")


def _untrained_rows(found: _Split) -> Iterator[Row]:
    """The same architecture with random weights."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed("untrained", found.spec["content"]))
        network = found.network.untrained()
    x = {
        split: _stack(network, found.encoded[split], found.aside / f"u-{split}", found.progress)
        for split in SPLITS
    }
    fitted = probes.get("logistic_regression")().fit(x["train"], found.label("train"))
    for split in SPLITS[1:]:
        yield from found.rows(split, fitted.score(x[split]), found.sites, probe="untrained network")


def _network(spec: Mapping[str, Any]) -> HuggingFaceNetwork:
    return load_folder(
        spec["model"], dtype=spec["dtype"], device_map=spec["device_map"], trainable=False
    )


def _sites(network: HuggingFaceNetwork) -> tuple[str, ...]:
    # Not "embed": the last prompt token is the same in every row, so nothing varies there.
    return tuple(s for s in network.sites() if s.startswith("resid.post"))


def _encoded(
    network: HuggingFaceNetwork,
    texts: Sequence[str],
    facts: Mapping[str, NDArray[Any]],
    spec: Mapping[str, Any],
    labels: NDArray[Any] | None = None,
) -> Encoded:
    return encode_statements(
        texts,
        network.tokenizer,
        facts,
        labels=labels,
        template=spec["template"],
        chat=spec["chat"],
    )


def _stack(
    network: HuggingFaceNetwork,
    encoded: Encoded,
    folder: Path,
    progress: Progress,
    position: str = "prompt_end",
) -> Features:
    """Return ``(site, n, d)`` activations at one position."""
    reading = read(
        network, encoded.batch, _sites(network), (position,), folder=folder, progress=progress
    )
    return reading.stack(position)[:, 0]


def _word_counts(texts: Sequence[str]) -> NDArray[np.float32]:
    """Return ``(n, 1024)`` counts of hashed words and pairs of words."""
    from sklearn.feature_extraction.text import HashingVectorizer

    words = HashingVectorizer(
        n_features=1024, ngram_range=(1, 2), norm=None, alternate_sign=False, dtype=np.float32
    )
    return np.asarray(words.transform(texts).toarray(), dtype=np.float32)
