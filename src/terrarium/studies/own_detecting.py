"""Measuring how odd somebody's suspect statements look to their own model."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrarium.errors import InputError
from terrarium.evidence.intervals import clopper_pearson
from terrarium.evidence.rows import Row, measured
from terrarium.instruments.base import detectors, probes
from terrarium.instruments.detectors.log_odds import log_odds_features
from terrarium.instruments.metrics import optional, recall_at_fpr
from terrarium.progress import Progress
from terrarium.randomness import generator
from terrarium.studies.measure_detectors import FALSE_POSITIVE_RATE, PER_LAYER
from terrarium.studies.own_data import Texts, auroc_row, read_files
from terrarium.studies.own_detect_figures import UNTRAINED
from terrarium.studies.own_figures import INPUT
from terrarium.studies.own_reading import NO_ROOM, Reader, word_counts
from terrarium.worlds.statements import load_statements

Array = NDArray[Any]


@dataclass(frozen=True)
class Kinds:
    """Which rows are which, in one array of all: fitted on, trusted and held out, suspect.

    ``groups`` numbers the group of every row; None where no file names groups.
    """

    fitted: NDArray[np.int64]
    held: NDArray[np.int64]
    suspects: Mapping[str, NDArray[np.int64]]
    groups: NDArray[np.int64] | None = None


def detect_rows(spec: Mapping[str, Any], name: str, progress: Progress) -> list[Row]:
    """Return the rows of ``terrarium detect``; ``spec`` is that of `detect_study`."""
    found = read_files(spec, spec["columns"])
    texts = [text for part in found.values() for text in part.texts]
    kinds = _kinds(found, spec)
    progress.start(name, 100.0, "%")
    rows = list(_size_rows(found))
    with tempfile.TemporaryDirectory(prefix="terrarium-") as aside:
        reader = Reader(spec, Path(aside), progress, name, 2 * len(texts))
        reading = reader.read(texts, "all", says=True)
        rows.append(_cut_row(reader.truncated["all"], len(texts)))
        assert reading.says is not None
        groups = (reading.says[0, :, 0] > reading.says[0, :, 1])[kinds.fitted]
        for at, site in enumerate(reader.sites):
            x = reading.at(site, "prompt_end")[0]
            for detector in PER_LAYER:
                fit = _fit(detector, x[kinds.fitted], groups)
                rows += _kind_rows(fit, x, kinds, detector=detector, site=site, layer=at + 1)
        rows += _log_odds_rows(spec, found["trusted"], reading, reader.sites, kinds)
        rows += _untrained_rows(reader, texts, kinds)
    words = word_counts(texts)
    fit = _fit("mahalanobis", words[kinds.fitted], groups)
    rows += _kind_rows(fit, words, kinds, detector=INPUT, site="input", layer=None)
    progress.finish(name)
    return rows


def _untrained_rows(reader: Reader, texts: Sequence[str], kinds: Kinds) -> Iterator[Row]:
    """The same architecture with random weights, where memory has room for it."""
    sites = reader.sites
    readings = reader.untrained({"all": texts})
    for at, site in enumerate(sites):
        x = np.zeros((0, 1)) if readings is None else readings["all"].at(site, "prompt_end")[0]
        fit = NO_ROOM if readings is None else _fit("mahalanobis", x[kinds.fitted], x[:0])
        yield from _kind_rows(fit, x, kinds, detector=UNTRAINED, site=site, layer=at + 1)


def _kinds(found: Mapping[str, Texts], spec: Mapping[str, Any]) -> Kinds:
    """Draw the half of the trusted rows that detectors are fitted on, whole groups of them.

    Raises ``InputError`` where all trusted rows are of one group, so that none can be held out.
    """
    sizes = {role: len(part.texts) for role, part in found.items()}
    groups = _groups(found)
    order = generator("trusted half", *spec["digests"]).permutation(sizes["trusted"])
    fitted, held = halves(order, groups)
    if not len(held):
        raise InputError(
            f"{spec['trusted']}: all trusted rows are of one group, and detectors are judged on "
            "groups that they were not fitted on; give rows of at least two groups."
        )
    start = sizes["trusted"]
    suspects: dict[str, NDArray[np.int64]] = {}
    for role in ("suspect", "control"):
        if role in sizes:
            suspects[role] = np.arange(start, start + sizes[role])
            start += sizes[role]
    return Kinds(fitted, held, suspects, groups)


def _groups(found: Mapping[str, Texts]) -> NDArray[np.int64] | None:
    """Return the group of every row of all files, as numbers; None where none is named.

    One name is one group in all files; a row of a file without groups is a group of its own.
    """
    if all(part.groups is None for part in found.values()):
        return None
    names: list[tuple[str, str]] = []
    for role, part in found.items():
        if part.groups is None:
            names += [(role, str(at)) for at in range(len(part.texts))]
        else:
            names += [("", name) for name in part.groups.tolist()]
    numbers = {name: at for at, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names], dtype=np.int64)


def halves(
    rows: NDArray[np.int64], groups: NDArray[np.int64] | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cut ``rows`` ``(n,)``, in their order, into two halves in which no group stands twice.

    ``groups`` numbers the group of every row there is; None takes each row by itself.  Groups
    follow their first rows, and the cut is where the halves are most even; a second half is
    empty only where all rows are of one group.
    """
    if groups is None:
        return rows[: len(rows) // 2], rows[len(rows) // 2 :]
    own = groups[rows]
    _, first, number = np.unique(own, return_index=True, return_inverse=True)
    place = first[number]  # of every row: where its group's first row stands
    order = np.argsort(place, kind="stable")
    ends = np.flatnonzero(np.diff(place[order])) + 1
    if not len(ends):
        return rows, rows[:0]
    cut = ends[np.abs(ends - len(rows) / 2).argmin()]
    return rows[order[:cut]], rows[order[cut:]]


def _size_rows(found: Mapping[str, Texts]) -> Iterator[Row]:
    for role, part in found.items():
        n = len(part.texts)
        yield measured("statements", float(n), unit="statements", n=part.total, file=role)
        if n < part.total:
            logging.getLogger("terrarium.studies").warning(
                f"{n:,} of {part.total:,} {role} statements are read, drawn evenly."
            )


def _cut_row(cut: int, n: int) -> Row:
    if cut:
        logging.getLogger("terrarium.studies").warning(
            f"{cut:,} of {n:,} statements are longer than the model takes; their ends are cut off."
        )
    return measured("truncated_statements", float(cut), unit="statements", n=n)


Fit = Callable[[Array], Array] | str
"""What scores rows, or why nothing can."""


def _fit(name: str, x: Array, groups: Array) -> Fit:
    try:
        if name == "relative_mahalanobis" and groups.any() and not groups.all():
            # The classes are what the model itself says: known without any label.
            scorer: Callable[[Array], Array] = detectors.get(name)().fit(x, groups=groups).score
        else:
            scorer = detectors.get(name)().fit(x).score
    except InputError as error:
        return f"the detector cannot be fitted: {error}"
    return scorer


def _kind_rows(fit: Fit, x: Array, kinds: Kinds, **factors: Any) -> Iterator[Row]:
    for kind, suspect in kinds.suspects.items():
        odd = np.arange(len(kinds.held) + len(suspect)) >= len(kinds.held)
        scores = None if isinstance(fit, str) else fit(x[np.r_[kinds.held, suspect]])
        shared = {"suspect": kind, **factors}
        options: dict[str, Any] = {"reason": fit} if isinstance(fit, str) else {}
        of = None if kinds.groups is None else kinds.groups[np.r_[kinds.held, suspect]]
        yield auroc_row("detector_auroc", scores, odd, groups=of, **options, **shared)
        yield _recall_row(scores, odd, options.get("reason", ""), shared)


def _recall_row(
    scores: Array | None, odd: NDArray[np.bool_], reason: str, factors: Mapping[str, Any]
) -> Row:
    """Return recall at 1 % false positives, undefined with fewer than 100 trusted rows held out."""
    held, value = int((~odd).sum()), None
    if held * FALSE_POSITIVE_RATE < 1:
        reason = f"1 % false positives need 100 held-out trusted rows, and there are {held}"
    elif scores is not None:
        value = optional(recall_at_fpr(scores, odd, FALSE_POSITIVE_RATE))
    n = int(odd.sum())
    name = "recall_at_1_percent_fpr"
    row = measured(name, value, unit="proportion", n=n, reason=reason, **factors)
    return row if value is None else replace(row, interval=clopper_pearson(round(value * n), n))


def _log_odds_rows(
    spec: Mapping[str, Any], trusted: Texts, reading: Any, sites: Sequence[str], kinds: Kinds
) -> Iterator[Row]:
    """The Gaussian over all layers' probe log-odds, where the trusted rows have labels."""
    fit, scores = _log_odds(spec, trusted, reading, sites, kinds)
    place = {"detector": "probe_log_odds", "site": "all", "layer": None}
    yield from _kind_rows(fit, scores, kinds, **place)


def _log_odds(
    spec: Mapping[str, Any], trusted: Texts, reading: Any, sites: Sequence[str], kinds: Kinds
) -> tuple[Fit, Array]:
    nothing = np.zeros((0, 1))
    try:
        facts = load_statements(spec["trusted"], spec["columns"]).table.facts
    except InputError as error:
        return f"it needs labels of the trusted rows: {error}", nothing
    label = facts["truth"][trusted.kept].astype(bool)
    # Probes and Gaussian are fitted on different rows, or overfitting becomes part of "normal".
    parts = halves(kinds.fitted, kinds.groups)
    columns = []
    try:
        for site in sites:
            x = reading.at(site, "prompt_end")[0]
            probe = probes.get("logistic_regression")().fit(x[parts[0]][None], label[parts[0]])
            columns.append(log_odds_features(probe, x[None]))
        scores = np.concatenate(columns, axis=-1)
        return detectors.get("probe_log_odds")().fit(scores[parts[1]]).score, scores
    except InputError as error:
        return f"the detector cannot be fitted: {error}", nothing
