"""`terrarium probe` and `terrarium detect`: the instruments on somebody's own model and data.

Both are studies without hypotheses, so that rows, report, store and progress are those of every
other study.  There is one model, so intervals are over rows of the test split and say so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from terrarium.evidence.checks import Check, not_made
from terrarium.evidence.quantities import where
from terrarium.evidence.rows import Row
from terrarium.figures.curves import layer_curves
from terrarium.figures.dots import dots
from terrarium.figures.figure import Figure
from terrarium.keys import code_closure, folder_checksum
from terrarium.progress import Progress
from terrarium.studies.base import Cell, Study
from terrarium.studies.code import measuring
from terrarium.worlds.statement_files import file_digest
from terrarium.worlds.statements import load_statements

HONEST_BASELINES = ("input only", "untrained network", "shuffled labels")


def probe_study(
    model: Path,
    data: Path,
    *,
    columns: Mapping[str, str] | None = None,
    template: str | None = None,
    chat: bool | str = "auto",
    dtype: str = "float32",
    device_map: str | None = None,
) -> Study:
    """Return the study behind ``terrarium probe MODEL DATA``.

    Every probe is fitted on the training rows at every layer and scored on the test rows, beside
    the input alone, the same architecture with random weights, and shuffled labels.  Raises
    ``InputError`` for files and ``ModelError`` for folders that cannot be used.
    """
    spec = {
        "model": str(model.resolve()),
        "content": folder_checksum(model),
        "data": str(data.resolve()),
        "digest": load_statements(data, columns).digest,
        "columns": dict(columns or {}),
        "template": template,
        "chat": chat,
        "dtype": dtype,
        "device_map": device_map,
    }
    return Study(
        name="probe",
        question=f"What can be read of {data.name} in {model.name}, and what does it take?",
        hypotheses=(),
        defaults={"quick": {}},
        cells=lambda settings: [Cell(f"probe {model.name}", spec, cost_s=30.0)],
        measure=_measure_probe,
        figures=probe_figures,
        checks=probe_checks,
        code=_CODE,
    )


def detect_study(
    model: Path,
    trusted: Path,
    suspect: Path,
    *,
    columns: Mapping[str, str] | None = None,
    template: str | None = None,
    chat: bool | str = "auto",
    dtype: str = "float32",
    device_map: str | None = None,
) -> Study:
    """Return the study behind ``terrarium detect MODEL --trusted A --suspect B``.

    Detectors are fitted on half of the trusted rows; false positives are counted on the rest.
    """
    spec = {
        "model": str(model.resolve()),
        "content": folder_checksum(model),
        "trusted": str(trusted.resolve()),
        "suspect": str(suspect.resolve()),
        "digests": [file_digest(path) for path in (trusted, suspect)],
        "columns": dict(columns or {}),
        "template": template,
        "chat": chat,
        "dtype": dtype,
        "device_map": device_map,
    }
    return Study(
        name="detect",
        question=f"Do rows of {suspect.name} look odd to {model.name}, given {trusted.name}?",
        hypotheses=(),
        defaults={"quick": {}},
        cells=lambda settings: [Cell(f"detect in {model.name}", spec, cost_s=30.0)],
        measure=_measure_detect,
        figures=detect_figures,
        code=_CODE,
    )


_CODE = (
    "terrarium.studies.own_model",
    "terrarium.studies.own_reading",
    "terrarium.studies.measure_probes",
    "terrarium.organisms.huggingface",
    *code_closure("terrarium.worlds.statements"),
    *measuring(),
)


# Measuring


def _measure_probe(cell: Cell, store_home: str, progress: Progress) -> list[Row]:
    from terrarium.studies import own_reading

    return own_reading.probe_rows(cell.spec, progress)


def _measure_detect(cell: Cell, store_home: str, progress: Progress) -> list[Row]:
    from terrarium.studies import own_reading

    return own_reading.detect_rows(cell.spec, progress)


# Showing


def _records(rows: Sequence[Row], metric: str, /, **factors: Any) -> Iterator[dict[str, Any]]:
    for row in rows:
        if row.metric == metric and all(row.factors.get(k) == v for k, v in factors.items()):
            band = row.interval
            yield {
                **row.factors,
                "seed": None,
                "value": row.value,
                "low": band.low if band else None,
                "high": band.high if band else None,
            }


def probe_figures(rows: Sequence[Row]) -> list[Figure]:
    """Return the layer curves of every probe beside its baselines."""
    records = [
        {**r, "quantity": r["probe"]} for r in _records(rows, "auroc", split="test", rows="all")
    ]
    known = [r for r in records if r["layer"] is not None and r["value"] is not None]
    if not known:
        return []
    best = max(
        (r for r in known if r["probe"] not in HONEST_BASELINES),
        key=lambda r: r["value"],
        default=None,
    )
    told = "" if best is None else f": at most {best['value']:.2f} ({best['probe']})"
    chosen = {"logistic_regression", "difference_in_means", "lda", *HONEST_BASELINES}
    return [
        layer_curves(
            "layers",
            [r for r in known if r["quantity"] in chosen],
            title=f"What probes read of the label, by layer{told}",
            caption="AUROC on test rows; bands are 95 % intervals over rows (DeLong), since there "
            "is one model. The input-only baseline needs no model.",
            references={"chance": 0.5},
        ),
        dots(
            "probes",
            [{**r, "label": r["probe"]} for r in _at_chosen_layer(rows, known)],
            title=f"All probes, each at the layer chosen on validation rows{told}",
            caption="AUROC on test rows.",
            references={"chance": 0.5},
            domain=(0.0, 1.0),
        ),
    ]


def _at_chosen_layer(
    rows: Sequence[Row], records: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Keep each probe's test value at the layer with the best validation value."""
    best: dict[str, tuple[float, Any]] = {}
    for r in _records(rows, "auroc", split="validation", rows="all"):
        if r["value"] is not None and r["value"] > best.get(r["probe"], (-1.0, None))[0]:
            best[r["probe"]] = (r["value"], r["layer"])
    return [
        {**r, "seed": 0}
        for r in records
        if r["probe"] in best and best[r["probe"]][1] == r["layer"]
    ]


def probe_checks(rows: Sequence[Row]) -> list[Check]:
    """Return the checks that one model allows: baselines that must explain little."""
    made = []
    for name, bar in (("input only", 0.6), ("shuffled labels", 0.6)):
        chosen = where("auroc", probe=name, split="test", rows="all", against="truth")
        known = [r.value for r in chosen.matching(rows) if r.value is not None]
        title = f"{name} explains little"
        if not known:
            made.append(not_made(title, "it has no value on these rows"))
            continue
        mean = sum(known) / len(known)
        found = f"mean AUROC {mean:.2f} over {len(known)} sites, wanted at most {bar:g}"
        made.append(Check(title, "passed" if mean <= bar else "failed", found))
    return made


def detect_figures(rows: Sequence[Row]) -> list[Figure]:
    """Return the detectors' AUROC by layer, and recall at 1 % false positives."""
    records = list(_records(rows, "detector_auroc"))
    known = [r for r in records if r["value"] is not None]
    if not known:
        return []
    best = max(known, key=lambda r: r["value"])
    return [
        layer_curves(
            "layers",
            [{**r, "quantity": r["detector"]} for r in known if isinstance(r["layer"], int)],
            title="How odd suspect rows look, by layer: at most "
            f"{best['value']:.2f} ({best['detector']}, layer {best['layer']})",
            caption="AUROC of suspect rows against trusted rows that the detector was not fitted "
            "on. Words alone may explain it: compare with the input-only line.",
            references={"chance": 0.5},
        )
    ]
