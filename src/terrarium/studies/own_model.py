"""`terrarium probe` and `terrarium detect`: the instruments on somebody's own model and data.

Both are studies without hypotheses, so that rows, report, store and progress are those of every
other study.  There is one model, so intervals are over rows of the test split, or over the
groups of these where the file names groups, and say so.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from terrarium.errors import InputError
from terrarium.evidence.rows import Row
from terrarium.keys import code_closure, folder_checksum
from terrarium.organisms.folder import check_folder
from terrarium.progress import Progress
from terrarium.studies.base import Cell, Study
from terrarium.studies.code import measuring
from terrarium.studies.own_checks import detect_checks, probe_checks
from terrarium.studies.own_data import read_files, split_rows
from terrarium.studies.own_detect_figures import detect_figures
from terrarium.studies.own_figures import probe_figures
from terrarium.worlds.statement_files import file_digest
from terrarium.worlds.statements import load_statements

SPEED = 30e9
"""Floating-point operations per second and core that a guess of the time assumes."""
TOKENS = 40
"""Tokens of a statement in its template that it assumes."""


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
    the input alone, the same architecture with random weights, shuffled labels and the best of
    1,000 random directions.  Raises ``InputError`` for files and ``ModelError`` for folders that
    cannot be used.
    """
    statements = load_statements(data, columns)
    splits = split_rows(statements)
    examples = 4 * sum(len(part.texts) for part in splits.values())
    spec = {
        **_model_spec(model, template, chat, dtype, device_map),
        "data": str(data.resolve()),
        "digest": statements.digest,
        "columns": dict(columns or {}),
    }
    name = _name(model)
    return Study(
        name="probe",
        question=f"What can be read of {data.name} in {name}, and what does it take?",
        hypotheses=(),
        defaults={"quick": {}},
        cells=lambda settings: [_cell(f"probe {name}", spec, model, examples)],
        measure=_measure_probe,
        figures=probe_figures,
        checks=probe_checks,
        code=("terrarium.studies.own_data", *_CODE),
    )


def detect_study(
    model: Path,
    trusted: Path,
    suspect: Path,
    *,
    control: Path | None = None,
    columns: Mapping[str, str] | None = None,
    template: str | None = None,
    chat: bool | str = "auto",
    dtype: str = "float32",
    device_map: str | None = None,
) -> Study:
    """Return the study behind ``terrarium detect MODEL --trusted A --suspect B``.

    Detectors are fitted on half of the trusted rows (whole groups, where the file names groups);
    false positives are counted on the rest.
    ``control`` holds statements that are as unfamiliar as the suspect ones and known to be
    harmless: only the excess over them speaks of anything but unfamiliar words.
    """
    files = {"trusted": trusted, "suspect": suspect, "control": control}
    given = {role: path for role, path in files.items() if path is not None}
    examples = 2 * sum(len(part.texts) for part in read_files(files, columns or {}).values())
    _refuse_same(given)
    spec = {
        **_model_spec(model, template, chat, dtype, device_map),
        **{role: None if path is None else str(path.resolve()) for role, path in files.items()},
        "digests": [file_digest(path) for path in given.values()],
        "columns": dict(columns or {}),
    }
    name = _name(model)
    return Study(
        name="detect",
        question=f"Do rows of {suspect.name} look odd to {name}, given {trusted.name}?",
        hypotheses=(),
        defaults={"quick": {}},
        cells=lambda settings: [_cell(f"detect in {name}", spec, model, examples)],
        measure=_measure_detect,
        figures=detect_figures,
        checks=detect_checks,
        code=("terrarium.studies.own_detecting", "terrarium.studies.own_data", *_CODE),
    )


def shown(name: str, question: str) -> Study:
    """Return the study called ``"probe"`` or ``"detect"`` for showing stored rows again."""
    nothing: list[Any] = []
    probing = name == "probe"
    return Study(
        name=name,
        question=question,
        hypotheses=(),
        defaults={},
        cells=lambda settings: nothing,
        measure=_measure_probe if probing else _measure_detect,
        figures=probe_figures if probing else detect_figures,
        checks=probe_checks if probing else detect_checks,
    )


_CODE = (
    "terrarium.studies.own_reading",
    "terrarium.studies.measure_probes",
    "terrarium.studies.measure_detectors",
    "terrarium.organisms.huggingface",
    *code_closure("terrarium.worlds.statements"),
    *measuring(),
)


def _model_spec(
    model: Path, template: str | None, chat: bool | str, dtype: str, device_map: str | None
) -> dict[str, Any]:
    check_folder(model)
    if template is not None and template.count("{statement}") != 1:
        raise InputError(f"The template {template!r} must hold {{statement}} exactly once.")
    return {
        "model": str(model.resolve()),
        "content": folder_checksum(model),
        "template": template,
        "chat": chat,
        "dtype": dtype,
        "device_map": device_map,
    }


def _name(model: Path) -> str:
    return model.resolve().name


def _refuse_same(files: Mapping[str, Path]) -> None:
    seen: dict[str, str] = {}
    for role, path in files.items():
        other = seen.setdefault(file_digest(path), role)
        if other != role:
            raise InputError(
                f"The {other} and the {role} statements are the same file; "
                "give the rows to be compared in two files."
            )


def _cell(name: str, spec: Mapping[str, Any], model: Path, examples: int) -> Cell:
    """Return the one cell, its cost guessed from the size of the weights."""
    stored = sum(p.stat().st_size for p in model.iterdir() if p.suffix in (".safetensors", ".bin"))
    seconds = 8.0 + examples * TOKENS * 2 * (stored / 4) / SPEED
    return Cell(name, spec, cost_s=seconds, memory_mb=700 + 2.5 * stored / 2**20)


def _measure_probe(cell: Cell, store_home: str, progress: Progress) -> list[Row]:
    from terrarium.studies.own_reading import probe_rows

    return probe_rows(cell.spec, cell.name, progress)


def _measure_detect(cell: Cell, store_home: str, progress: Progress) -> list[Row]:
    from terrarium.studies.own_detecting import detect_rows

    return detect_rows(cell.spec, cell.name, progress)
