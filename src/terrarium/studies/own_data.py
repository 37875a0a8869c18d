"""The user's statements made ready for probes: splits, what is too little, what is odd."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrarium.errors import InputError
from terrarium.evidence.intervals import auroc_interval, grouped_auroc_interval
from terrarium.evidence.rows import Factor, Interval, Row, measured
from terrarium.instruments.metrics import auroc, optional
from terrarium.randomness import generator
from terrarium.worlds.splits import text_hash
from terrarium.worlds.statement_files import read_columns
from terrarium.worlds.statements import Statements

Mask = NDArray[np.bool_]

SPLITS = ("train", "validation", "test")
LEAST = {"train": 5, "validation": 2, "test": 2}
"""Rows of each class that a split must have."""
VALIDATION_SHARE = 0.25
"""Share of the training rows that choose the layer where the file has no validation rows."""
GROUP_ROWS = 20
"""A group is scored by itself if the test split has as many rows of it."""
MOST_GROUPS = 20
LEAST_ROWS = {"trusted": 20, "suspect": 2, "control": 2}
"""Rows that the files of a detection must have."""
MOST_ROWS = 4000
"""At most so many rows of each are read: half of the detectors compare all with all."""


@dataclass(frozen=True)
class SplitRows:
    """The rows of one split: texts, and facts ``(n,)`` each."""

    texts: list[str]
    facts: Mapping[str, NDArray[Any]]

    @property
    def label(self) -> Mask:
        """The label, ``(n,)``."""
        return self.facts["truth"].astype(bool)

    def groups(self, mask: Mask | None = None) -> NDArray[Any] | None:
        """Return the group of each row (of ``mask``), None where the file has no groups."""
        found = self.facts.get("group")
        return found if found is None or mask is None else found[mask]

    def subsets(self, detailed: bool) -> dict[str, Mask]:
        """Return the rows to score apart, by name; ``detailed`` adds difficulty and groups."""
        found = {"all": np.ones(len(self.texts), bool)}
        disagree = self.facts["disagree"].astype(bool)
        if disagree.any():
            found["disagree"] = disagree
        if detailed:
            found |= {k: self.facts[k].astype(bool) for k in ("easy", "hard") if k in self.facts}
            found |= {f"group: {name}": mask for name, mask in self._groups()}
        return found

    def scored(self, detailed: bool) -> dict[str, Mask]:
        """Return the subsets that hold both classes."""
        return {k: v for k, v in self.subsets(detailed).items() if len({*self.label[v]}) == 2}

    def _groups(self) -> Iterator[tuple[str, Mask]]:
        if "group" not in self.facts:
            return
        names, counts = np.unique(self.facts["group"], return_counts=True)
        for at in np.argsort(-counts, kind="stable")[:MOST_GROUPS]:
            if counts[at] >= GROUP_ROWS:
                yield str(names[at]), self.facts["group"] == names[at]


def split_rows(statements: Statements) -> dict[str, SplitRows]:
    """Return the rows of the three splits.

    Where the file has no validation rows, a quarter of the training rows (whole groups, by a
    hash) take their place.  Raises ``InputError`` where a split has too few rows of a class.
    """
    found = {s: SplitRows(*statements.rows(s)) for s in SPLITS if s in statements.splits}
    for split in ("train", "test"):
        if split not in found:
            statements.rows(split)  # says what is missing
    if "validation" not in found:
        found["train"], found["validation"] = _carved(found["train"])
    for split in SPLITS:
        label = found[split].label
        if min(label.sum(), (~label).sum()) < LEAST[split]:
            raise InputError(
                f"{statements.path}: split '{split}' has {label.sum()} true and {(~label).sum()} "
                f"false statements, and at least {LEAST[split]} of each are needed; give more "
                "rows, or say which rows belong where in a split column."
            )
    return {split: found[split] for split in SPLITS}


def _carved(rows: SplitRows) -> tuple[SplitRows, SplitRows]:
    keys = rows.facts["group"].tolist() if "group" in rows.facts else rows.texts
    chosen = np.array([text_hash(f"validation {key}") < VALIDATION_SHARE for key in keys])
    return _taken(rows, ~chosen), _taken(rows, chosen)


def _taken(rows: SplitRows, mask: Mask) -> SplitRows:
    at = np.flatnonzero(mask)
    return SplitRows([rows.texts[i] for i in at], {k: v[at] for k, v in rows.facts.items()})


def data_rows(statements: Statements, splits: Mapping[str, SplitRows]) -> list[Row]:
    """Return rows that describe the file: sizes, repeated and contradictory statements."""
    n = len(statements.table.texts)
    places: dict[str, set[str]] = {}
    labels: dict[str, set[bool]] = {}
    for split, rows in splits.items():
        for text, label in zip(rows.texts, rows.label.tolist(), strict=True):
            places.setdefault(text, set()).add(split)
            labels.setdefault(text, set()).add(label)
    counts = {
        "repeated_statements": n - len(labels),
        "statements_in_several_splits": sum(len(found) > 1 for found in places.values()),
        "contradictory_statements": sum(len(found) > 1 for found in labels.values()),
    }
    told = [measured(k, float(v), unit="statements", n=n) for k, v in counts.items()]
    for split, part in splits.items():
        size, share = len(part.texts), float(part.label.mean())
        told.append(measured("statements", float(size), unit="statements", n=size, split=split))
        told.append(measured("share_true", share, unit="proportion", n=size, split=split))
        told += _unscored(split, part)
    return told


def _unscored(split: str, part: SplitRows) -> Iterator[Row]:
    """One row for each subset that no probe can be scored on, since it holds one class."""
    known = part.scored(True)
    for name, mask in part.subsets(True).items():
        if split != "train" and name not in known:
            label = part.label[mask]
            reason = f"all {len(label)} of these rows are {str(bool(label[:1].any())).lower()}"
            yield measured(
                "auroc", None, unit="proportion", n=len(label), reason=reason, split=split,
                rows=name, against="label",
            )  # fmt: skip


def auroc_row(
    metric: str,
    scores: NDArray[Any] | None,
    labels: Mask,
    *,
    reason: str = "one of the two classes has no rows",
    groups: NDArray[Any] | None = None,
    **factors: Factor,
) -> Row:
    """Return an AUROC with an interval over rows (DeLong), or over groups where rows have them.

    ``groups`` ``(n,)`` names the group of each row.  Rows of a single group are judged by
    themselves, as rows.  Where too little of a class is there for an interval, ``reason`` says so.
    Undefined, with ``reason``, where there are no scores or one class is missing.
    """
    n, ones = len(labels), int(labels.sum())
    unit = "proportion"
    if scores is None or not 0 < ones < n:
        return measured(metric, None, unit=unit, n=n, reason=reason, **factors)
    if not np.isfinite(scores).all():
        reason = "some scores are not finite"
        return measured(metric, None, unit=unit, n=n, reason=reason, **factors)
    area, interval, why = _area(scores, labels, groups)
    return Row("", "", metric, unit, area, factors, interval, n, reason=why)


def _area(
    scores: NDArray[Any], labels: Mask, groups: NDArray[Any] | None
) -> tuple[float, Interval | None, str]:
    """Return AUROC and interval, or why there is no interval."""
    names = 0 if groups is None else len(np.unique(groups))
    if groups is not None and 1 < names < len(labels):
        sides = (len(np.unique(groups[side])) for side in (labels, ~labels))
        if min(sides) > 1:
            return *grouped_auroc_interval(scores, labels, groups), ""
        why = "no interval: fewer than two groups hold rows of one of the two classes"
        return optional(auroc(scores, labels)) or 0.0, None, why
    if min(labels.sum(), (~labels).sum()) > 1:
        return *auroc_interval(scores[labels], scores[~labels]), ""
    why = "no interval: one of the two classes has a single row"
    return optional(auroc(scores, labels)) or 0.0, None, why


@dataclass(frozen=True)
class Texts:
    """The statements read from one file, at most `MOST_ROWS`, and the rows that the file has.

    ``groups`` ``(n,)`` names the group of each; None where the file has no such column.
    """

    texts: list[str]
    total: int
    kept: NDArray[np.int64]
    groups: NDArray[np.str_] | None = None


def read_files(
    files: Mapping[str, str | Path | None], columns: Mapping[str, str]
) -> dict[str, Texts]:
    """Return the statements of the trusted, the suspect and (where given) the control file.

    Raises ``InputError`` where one cannot be used or has too few rows.
    """
    return {
        role: _read_texts(Path(path), columns, least, role)
        for role, least in LEAST_ROWS.items()
        if (path := files.get(role)) is not None
    }


def _read_texts(path: Path, columns: Mapping[str, str], least: int, role: str) -> Texts:
    own = {name: column for name, column in columns.items() if name in ("statement", "group")}
    raw = read_columns(path, own, 1_000_000, ("statement",))
    needed = [name for name in ("statement", "group") if name in raw]
    for name in needed:
        for place, text in zip(raw["where"], raw[name], strict=True):
            if text is None or not str(text).strip():
                raise InputError(f"{path}, {place}: {name} is {text!r}; expected some text.")
    total = len(raw["statement"])
    if total < least:
        raise InputError(
            f"{path} has {total} row{'' if total == 1 else 's'}, and at least {least} {role} rows "
            "are needed; give more."
        )
    order = generator("rows of", role).permutation(total)[:MOST_ROWS]
    kept = np.sort(order)
    groups = np.array([str(raw["group"][i]) for i in kept]) if "group" in raw else None
    return Texts([str(raw["statement"][i]) for i in kept], total, kept, groups)
