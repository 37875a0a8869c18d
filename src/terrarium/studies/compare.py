"""`terrarium compare`: somebody's own probe or detector beside all built-in ones, paired.

The file defines an instrument: a class with the contract of `terrarium.instruments.base`.  It is
first run through `check_probe` or `check_detector`, then measured on the standard organisms of
`says-knows`, seed by seed beside the built-in ones.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from terrarium.errors import InputError, did_you_mean
from terrarium.evidence.checks import Check, chance_check, gate_check
from terrarium.evidence.hypotheses import Hypothesis
from terrarium.evidence.predictions import Gate, above
from terrarium.evidence.quantities import difference, per_seed
from terrarium.evidence.rows import Row
from terrarium.figures.dots import dots
from terrarium.figures.figure import Figure
from terrarium.progress import Progress
from terrarium.studies.base import Cell, Size, Study
from terrarium.studies.code import road
from terrarium.studies.quirky import NEEDS_TRUTH, OWN_ANSWER, QUIRKS

Kind = Literal["probe", "contrast probe", "detector"]

PROBE_METRIC = "transfer_auroc"
DETECTOR_METRIC = "excess_auroc"
SHUFFLED = "logistic_regression, shuffled labels"

_DEFAULTS: dict[Size, dict[str, Any]] = {
    "smoke": {
        "organisms": [NEEDS_TRUTH],
        "seeds": 2,
        "truth_steps": 4,
        "quirk_steps": 4,
        "train_rows": 600,
        "test_rows": 600,
    },
    "quick": {
        "organisms": [NEEDS_TRUTH],
        "seeds": 5,
        "truth_steps": 0,
        "quirk_steps": 0,
        "train_rows": 3000,
        "test_rows": 3000,
    },
    "full": {
        "organisms": [NEEDS_TRUTH, OWN_ANSWER],
        "seeds": 8,
        "truth_steps": 0,
        "quirk_steps": 0,
        "train_rows": 6000,
        "test_rows": 6000,
    },
}


def compare_study(path: Path, **settings: Any) -> Study:
    """Return the study behind ``terrarium compare MY_PROBE.py``.

    ``settings`` replace the defaults of every size: ``organisms`` (labels of
    `terrarium.studies.quirky.QUIRKS`), ``seeds``, ``truth_steps`` and ``quirk_steps`` (0: the
    recipe's own), ``train_rows``, ``test_rows``.

    Raises ``InputError`` where the file holds no instrument, several, or one that breaks the
    contract.
    """
    name, instrument = load_instrument(path)
    kind = kind_of(instrument)
    _check(instrument, kind, path)
    spec = {
        "path": str(path.resolve()),
        "digest": hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest(),
        "instrument": name,
        "kind": kind,
    }
    shown_as = _shown(name, kind)
    return replace(
        shown_as,
        defaults={size: {**defaults, **settings} for size, defaults in _DEFAULTS.items()},
        cells=lambda chosen: _cells(spec, chosen),
    )


def shown(question: str, rows: Sequence[Row]) -> Study:
    """Return the study for showing stored rows again; who was compared is read from them."""
    own = next((r for r in rows if r.factors.get("own") is True), None)
    name = "the instrument" if own is None else str(own.factors["instrument"])
    kind: Kind = "detector" if own is not None and own.metric == DETECTOR_METRIC else "probe"
    return replace(_shown(name, kind), question=question)


def _shown(name: str, kind: Kind) -> Study:
    nothing: list[Cell] = []
    return Study(
        name="compare",
        question=f"How does {name} compare with the built-in {kind}s on standard organisms?",
        hypotheses=_hypotheses(name, kind),
        defaults={},
        cells=lambda settings: nothing,
        measure=_measure,
        figures=lambda rows: _figures(rows, name, kind),
        checks=_checks,
        code=(
            "terrarium.studies.compare_measure",
            "terrarium.studies.contexts",
            "terrarium.studies.measure_probes",
            "terrarium.studies.measure_detectors",
            *road("arithmetic"),
        ),
    )


def _cells(spec: Mapping[str, Any], settings: Mapping[str, Any]) -> list[Cell]:
    made = []
    for label in settings["organisms"]:
        if label not in QUIRKS:
            raise InputError(
                f"There is no standard organism '{label}'{did_you_mean(label, QUIRKS)}"
            )
        steps = {k: settings[k] for k in ("truth_steps", "quirk_steps") if settings[k]}
        quirk = replace(QUIRKS[label], **steps)
        for seed in range(settings["seeds"]):
            cell = {
                **spec,
                "recipe": quirk.recipe().model_dump(mode="json"),
                "organism": label,
                "train_rows": settings["train_rows"],
                "test_rows": settings["test_rows"],
                "seed": seed,
            }
            cost = 9 + (quirk.truth_steps + quirk.quirk_steps) / 100 * 3
            made.append(Cell(f"{label}, seed {seed}", cell, cost_s=cost))
    return made


# The user's file


def kind_of(instrument: Any) -> Kind:
    """Return what the instrument is: probes say whether they are ``supervised``."""
    if not hasattr(instrument, "supervised"):
        return "detector"
    return "contrast probe" if getattr(instrument, "on_pairs", False) else "probe"


def load_instrument(path: Path) -> tuple[str, Any]:
    """Run the file and return its one instrument, named by its class.

    The file is the user's own code and is run as such; it may import what lies beside it.
    """
    if not path.is_file():
        raise InputError(f"There is no file {path}; give a Python file that defines a probe.")
    if path.suffix != ".py":
        raise InputError(f"{path} is not a Python file; give a .py file that defines a probe.")
    own = _instruments(path)
    if len(own) != 1:
        names = ", ".join(sorted(v.__name__ for v in own)) or "none"
        raise InputError(
            f"{path} must define exactly one class with a method 'fit' (found: {names}); "
            "begin helpers' names with an underscore."
        )
    try:
        return own[0].__name__, own[0]()
    except TypeError as error:
        raise InputError(
            f"{path}: {own[0].__name__}() cannot be made without arguments ({error}); "
            "give its parameters defaults."
        ) from None


def _instruments(path: Path) -> list[type[Any]]:
    """Run the file; return the public classes with ``fit`` that it defines itself."""
    name = f"terrarium_user_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up by its name
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise InputError(
            f"{path}, line {error.lineno}: {error.msg}; mend the file there."
        ) from None
    except Exception as error:
        told = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"{path} cannot be run ({told}); mend it first.") from error
    finally:
        sys.path.remove(str(path.resolve().parent))
    return [
        value
        for called, value in vars(module).items()
        if isinstance(value, type)
        and value.__module__ == name
        and hasattr(value, "fit")
        and not called.startswith("_")
    ]


def _check(instrument: Any, kind: Kind, path: Path) -> None:
    """Run the contract's checks; raises ``InputError`` with the first check's sentence."""
    from terrarium.instruments.check_detector import check_detector
    from terrarium.instruments.check_probe import check_probe

    check = check_detector if kind == "detector" else check_probe
    try:
        check(instrument)
    except Exception as error:  # somebody else's code fails in its own way
        told = " ".join(str(error).split())
        if not isinstance(error, AssertionError):
            told = f"{type(error).__name__}: {told}"
        raise InputError(f"{path} breaks the contract of a {kind}: {told}") from None


# Showing


def _hypotheses(name: str, kind: Kind) -> Sequence[Hypothesis]:
    metric = DETECTOR_METRIC if kind == "detector" else PROBE_METRIC
    rivals: dict[Kind, str] = {
        "probe": "logistic_regression",
        "contrast probe": "contrast_logistic_regression",
        "detector": "mahalanobis",
    }
    rival = rivals[kind]
    mine = per_seed(metric, instrument=name, organism=NEEDS_TRUTH)
    gap = difference(mine, per_seed(metric, instrument=rival, organism=NEEDS_TRUTH))
    return [
        Hypothesis(
            name="better-than-standard",
            claim=f"{name} does better than {rival} on '{NEEDS_TRUTH}'.",
            rival="It does not.",
            counts_for=f"Its {metric} exceeds that of {rival}, paired by seed.",
            counts_against="It falls short of it.",
            prediction=above(gap.called(f"{metric}: {name} minus {rival}"), 0.0),
            gates=arose(NEEDS_TRUTH),
        )
    ]


def _measure(cell: Cell, store_home: str, progress: Progress) -> Sequence[Row]:
    from terrarium.studies.compare_measure import compare_rows

    return compare_rows(cell.spec, cell.name, store_home, progress)


def arose(organism: str) -> tuple[Gate, ...]:
    """Return the gates of a standard organism: honest names are truthful, quirky ones quirky."""
    return tuple(
        Gate(
            per_seed(
                "balanced_accuracy",
                organism=organism,
                context=context,
                split="test",
                rows="disagree",
            ).called(f"balanced accuracy for {context} names of '{organism}'"),
            at_least=0.95,
        )
        for context in ("honest", "quirky")
    )


def _checks(rows: Sequence[Row]) -> list[Check]:
    organisms = dict.fromkeys(str(r.factors["organism"]) for r in rows if "organism" in r.factors)
    made = [
        gate_check(f"'{organism}' arose for {context} names", gate, rows)
        for organism in organisms
        for context, gate in zip(("honest", "quirky"), arose(organism), strict=True)
    ]
    return [*made, *_null_checks(rows)]


def _null_checks(rows: Sequence[Row]) -> list[Check]:
    if not any(r.factors.get("instrument") == SHUFFLED for r in rows):
        return []
    shuffled = per_seed(PROBE_METRIC, instrument=SHUFFLED, organism=NEEDS_TRUTH)
    named = shuffled.called("AUROC of logistic regression on shuffled labels")
    return [chance_check("shuffled labels give nothing", named, rows)]


def _figures(rows: Sequence[Row], name: str, kind: Kind) -> list[Figure]:
    metric = DETECTOR_METRIC if kind == "detector" else PROBE_METRIC
    records: list[dict[str, Any]] = [
        {**r.factors, "value": r.value, "label": str(r.factors["instrument"])}
        for r in rows
        if r.metric == metric
    ]
    if not records:
        return []
    means: dict[str, float] = {}
    for label in dict.fromkeys(r["label"] for r in records):
        values = [r["value"] for r in records if r["label"] == label and r["value"] is not None]
        if values:
            means[label] = fmean(values)
    others = {k: v for k, v in means.items() if k not in (name, SHUFFLED)}
    best = max(others, key=lambda k: others[k], default="")
    found = f"{means[name]:.2f}" if name in means else "no value"
    against = f", the best built-in {kind} {others[best]:.2f} ({best})" if best else ""
    what = (
        "AUROC of untruthful rows minus that of a truthful third name, last layer."
        if kind == "detector"
        else "AUROC for the truth on Bob's rows where truth and rule differ, fitted on honest "
        "rows, at the earliest informative layer by honest validation rows."
    )
    several = len({r["organism"] for r in records}) > 1
    return [
        dots(
            "compare",
            records,
            title=f"{name} reaches {found} on average{against.replace('_', ' ')}",
            caption=f"{what} Ticks are seeds, dots their mean with its 95 % interval.",
            facet="organism" if several else None,
            x_title="excess AUROC (difference of proportions)"
            if kind == "detector"
            else "AUROC (proportion)",
            domain=None if kind == "detector" else (0.0, 1.0),
            references={"no excess": 0.0} if kind == "detector" else {"chance": 0.5},
        )
    ]
