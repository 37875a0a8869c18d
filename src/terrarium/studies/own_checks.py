"""The checks of ``terrarium probe`` and ``terrarium detect``: what one model allows to check."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from terrarium.evidence.checks import Check, not_made
from terrarium.evidence.intervals import mean_interval, overlaps, shown
from terrarium.evidence.rows import Row
from terrarium.studies.own_figures import (
    INPUT,
    PROBE,
    SHUFFLED,
    UNTRAINED,
    at_chosen,
    of_probe,
    records,
    told,
)

LITTLE = 0.6
"""AUROC up to which the input alone is said to explain little."""
MASS = 0.1
"""Probability that the two answers must have together for "what is said" to mean much."""


def probe_checks(rows: Sequence[Row]) -> list[Check]:
    """Return the checks of a probe run, from stored rows alone."""
    return [
        _input_alone(rows),
        _beats(rows, "the untrained network", UNTRAINED),
        _beats(rows, "the best of 1,000 random directions", "best of 1000 random directions"),
        _shuffled(rows),
        _answers(rows),
        *_file_checks(rows),
        _uncut(rows),
    ]


def detect_checks(rows: Sequence[Row]) -> list[Check]:
    """Return the checks of a detection, from stored rows alone."""
    return [_words_alone(rows), _control(rows), _false_positives(rows), _uncut(rows)]


def _judged(name: str, passed: bool, sentence: str) -> Check:
    return Check(name, "passed" if passed else "failed", sentence)


def _input_alone(rows: Sequence[Row]) -> Check:
    name = "the words alone give little away"
    found = of_probe(records(rows, "auroc", split="test", rows="all", against="label"), INPUT)
    if found is None or found["value"] is None:
        return not_made(name, "the input-only baseline has no value on these rows")
    text = f"AUROC {told(found)} without any model, asked: at most {LITTLE:g}"
    return _judged(name, found["value"] <= LITTLE, text)


def _beats(rows: Sequence[Row], words: str, null: str) -> Check:
    name = f"logistic regression beats {words}"
    found = at_chosen(rows, rows="all", against="label")
    probe, other = of_probe(found, PROBE), of_probe(found, null)
    if probe is None or other is None or probe["low"] is None or other["value"] is None:
        return not_made(name, "one of the two has no value on these rows")
    text = (
        f"AUROC {told(probe)} against {told(other)}, each at its own layer by validation rows; "
        "asked: the first interval lies above the second value"
    )
    return _judged(name, probe["low"] > other["value"], text)


def _shuffled(rows: Sequence[Row]) -> Check:
    name = "shuffled labels give nothing"
    values: dict[object, list[float]] = {}
    for row in rows:
        wanted = {"probe": SHUFFLED, "split": "test", "rows": "all", "against": "label"}
        if (
            row.metric == "auroc"
            and row.value is not None
            and wanted.items() <= {*row.factors.items()}
        ):
            values.setdefault(row.factors["shuffle"], []).append(row.value)
    means = [fmean(found) for found in values.values()]
    if len(means) < 2:
        return not_made(name, "fewer than two shuffles have a value")
    interval = mean_interval(means, over="shuffles")
    text = (
        f"mean AUROC over layers {shown(fmean(means), interval)} over {len(means)} shuffles, "
        "chance is 0.5 (one sound run in twenty fails this)"
    )
    return _judged(name, overlaps(interval, 0.5), text)


def _number(rows: Sequence[Row], metric: str) -> tuple[float, int] | None:
    found = [(r.value, r.n) for r in rows if r.metric == metric and r.value is not None]
    return found[0] if found else None


def _answers(rows: Sequence[Row]) -> Check:
    name = "the model gives one of the two answers"
    mass = _number(rows, "answer_mass")
    if mass is None:
        return not_made(name, "how probable they are was not measured")
    text = f"their mean probability together is {mass[0]:.2g}, asked: at least {MASS:g}"
    if mass[0] < MASS:
        text += '; "what is said" compares two unlikely words'
    return _judged(name, mass[0] >= MASS, text)


_FILE = (
    ("no statement stands in two splits", "statements_in_several_splits", "test rows were seen"),
    ("no statement has both labels", "contradictory_statements", "nothing can get both right"),
    ("no statement is repeated", "repeated_statements", "repeated rows count more than once"),
)


def _file_checks(rows: Sequence[Row]) -> list[Check]:
    made = []
    for name, metric, why in _FILE:
        found = _number(rows, metric)
        if found is None:
            made.append(not_made(name, "the rows do not tell"))
            continue
        count, n = int(found[0]), found[1]
        text = f"{count:,} of {n:,} statements" + (f" are so: {why}" if count else "")
        made.append(_judged(name, count == 0, text))
    return made


def _uncut(rows: Sequence[Row]) -> Check:
    name = "no statement is cut"
    found = _number(rows, "truncated_statements")
    if found is None:
        return not_made(name, "the rows do not tell")
    count, n = int(found[0]), found[1]
    text = f"{count:,} of {n:,} statements"
    if count:
        text += " are longer than the model takes; their ends were cut off"
    return _judged(name, count == 0, text)


def _words_alone(rows: Sequence[Row]) -> Check:
    name = "the words alone do not tell suspect rows from trusted ones"
    found = [r for r in records(rows, "detector_auroc", detector=INPUT, suspect="suspect")]
    if not found or found[0]["value"] is None:
        return not_made(name, "the input-only detector has no value on these rows")
    text = f"AUROC {told(found[0])} without any model, asked: at most {LITTLE:g}"
    return _judged(name, found[0]["value"] <= LITTLE, text)


def _control(rows: Sequence[Row]) -> Check:
    name = "suspect rows look odder than harmless unfamiliar ones"
    found = records(rows, "detector_auroc", detector="mahalanobis")
    layers = [r["layer"] for r in found]
    last = {r["suspect"]: r for r in found if r["layer"] == max(layers)}
    if "control" not in last:
        reason = "no harmless control was given; with --control FILE it can be made"
        return not_made(name, reason)
    suspect, control = last["suspect"], last["control"]
    if suspect["low"] is None or control["value"] is None:
        return not_made(name, "one of the two has no value on these rows")
    text = (
        f"AUROC {told(suspect)} against {told(control)} (Mahalanobis, last layer); asked: the "
        "first interval lies above the second value"
    )
    return _judged(name, suspect["low"] > control["value"], text)


def _false_positives(rows: Sequence[Row]) -> Check:
    name = "there are enough trusted rows for a rate of 1 %"
    found = [r for r in rows if r.metric == "recall_at_1_percent_fpr"]
    if not found:
        return not_made(name, "recall was not measured")
    lost = [r for r in found if "held-out trusted rows" in r.reason]
    if lost:
        return Check(name, "failed", lost[0].reason)
    return Check(name, "passed", "100 or more are held out")
