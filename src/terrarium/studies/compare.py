"""`terrarium compare`: somebody's own probe or detector beside all built-in ones, paired.

The file defines an instrument: a class (or instance) with the contract of
`terrarium.instruments.base`.  It is first run through `check_probe` or `check_detector`, then
measured on the standard organisms of `says-knows`.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from terrarium.errors import InputError
from terrarium.evidence.hypotheses import Hypothesis
from terrarium.evidence.predictions import above
from terrarium.evidence.quantities import difference, per_seed
from terrarium.evidence.rows import Row
from terrarium.figures.dots import dots
from terrarium.figures.figure import Figure
from terrarium.progress import Progress
from terrarium.studies.base import Cell, Study
from terrarium.studies.code import road
from terrarium.studies.quirky import NEEDS_TRUTH, QUIRKS

Kind = Literal["probe", "detector"]

PROBE_METRIC = "transfer_auroc"
DETECTOR_METRIC = "excess_auroc"


def compare_study(path: Path) -> Study:
    """Return the study behind ``terrarium compare MY_PROBE.py``.

    Raises ``InputError`` where the file holds no instrument, several, or one that breaks the
    contract.
    """
    name, kind = inspect(path)
    spec = {
        "path": str(path.resolve()),
        "digest": hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest(),
        "instrument": name,
        "kind": kind,
        "recipe": QUIRKS[NEEDS_TRUTH].recipe().model_dump(mode="json"),
        "label": NEEDS_TRUTH,
        "train_rows": 3000,
        "test_rows": 3000,
    }

    def cells(settings: Mapping[str, Any]) -> list[Cell]:
        return [
            Cell(f"seed {seed}", {**spec, "seed": seed}, cost_s=60.0)
            for seed in range(settings["seeds"])
        ]

    return Study(
        name="compare",
        question=f"How does {name} compare with the built-in {kind}s on standard organisms?",
        hypotheses=_hypotheses(name, kind),
        defaults={"quick": {"seeds": 5}},
        cells=cells,
        measure=_measure,
        figures=lambda rows: _figures(rows, name, kind),
        code=(
            "terrarium.studies.compare",
            "terrarium.studies.compare_measure",
            "terrarium.studies.contexts",
            "terrarium.studies.measure_detectors",
            "terrarium.studies.measure_probes",
            *road("arithmetic"),
        ),
    )


def inspect(path: Path) -> tuple[str, Kind]:
    """Return the name and kind of the one instrument that the file defines."""
    found = load_instrument(path)
    name, instrument = found
    kind: Kind = "probe" if hasattr(instrument, "supervised") else "detector"
    return name, kind


def load_instrument(path: Path) -> tuple[str, Any]:
    """Run the file and return its one instrument, named by its class.

    The file is the user's own code and is run as such.
    """
    if not path.is_file():
        raise InputError(f"There is no file {path}; give a Python file that defines a probe.")
    if path.suffix != ".py":
        raise InputError(f"{path} is not a Python file; give a .py file that defines a probe.")
    spec = importlib.util.spec_from_file_location(f"terrarium_user_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        told = f"{type(error).__name__}: {error}"
        raise InputError(f"{path} cannot be run ({told}); mend it first.") from error
    own = [
        value
        for name, value in vars(module).items()
        if isinstance(value, type)
        and value.__module__ == module.__name__
        and hasattr(value, "fit")
        and not name.startswith("_")
    ]
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


def _hypotheses(name: str, kind: Kind) -> Sequence[Hypothesis]:
    metric = PROBE_METRIC if kind == "probe" else DETECTOR_METRIC
    rival = "logistic_regression" if kind == "probe" else "mahalanobis"
    gap = difference(per_seed(metric, instrument=name), per_seed(metric, instrument=rival))
    return [
        Hypothesis(
            name="better-than-standard",
            claim=f"{name} does better than {rival}.",
            rival="It does not.",
            counts_for=f"Its {metric} exceeds that of {rival}, paired by seed.",
            counts_against="It falls short of it.",
            prediction=above(gap.called(f"{metric}: {name} minus {rival}"), 0.0),
        )
    ]


def _measure(cell: Cell, store_home: str, progress: Progress) -> Sequence[Row]:
    from terrarium.studies.compare_measure import compare_rows

    return compare_rows(cell.spec, store_home, progress)


def _figures(rows: Sequence[Row], name: str, kind: Kind) -> list[Figure]:
    metric = PROBE_METRIC if kind == "probe" else DETECTOR_METRIC
    records = [
        {**r.factors, "value": r.value, "label": r.factors["instrument"]}
        for r in rows
        if r.metric == metric
    ]
    if not records:
        return []
    what = {
        "probe": "AUROC for the truth on Bob's rows where truth and rule differ, fitted on honest "
        "rows, at the earliest informative layer by honest validation rows",
        "detector": "AUROC of untruthful rows minus that of a truthful third name, last layer",
    }[kind]
    return [
        dots(
            "compare",
            records,
            title=f"{name} beside the built-in {kind}s on the same organisms",
            caption=f"{what}. Dots are seeds.",
            domain=(0.0, 1.0) if kind == "probe" else None,
            references={"chance": 0.5} if kind == "probe" else {"no excess": 0.0},
        )
    ]
