"""What a run will do, before it does it: cells, time, memory, disk."""

from __future__ import annotations

import inspect
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from terrarium.errors import InputError
from terrarium.evidence.rows import Factor, Row, Status
from terrarium.evidence.table import read_rows
from terrarium.keys import code_fingerprint, content_key
from terrarium.store import Store
from terrarium.store.differences import plain
from terrarium.studies.base import Cell, Size, Study
from terrarium.studies.pace import Forecast, remembered_scale
from terrarium.studies.resources import available_memory_mb, usable_cores
from terrarium.studies.settings import resolve_settings
from terrarium.studies.workers import ROWS

PARENT_MB = 150.0
"""Memory of the process that leads a run, which loads no torch (measured)."""


@dataclass(frozen=True)
class PlannedCell:
    """A cell of a run, the key of its rows, whether they are stored, the seconds it should take.

    ``spec`` is what its rows are stored under; ``seconds`` is 0 where they are stored.
    """

    cell: Cell
    key: str
    spec: dict[str, Any]
    stored: bool
    seconds: float


@dataclass(frozen=True)
class Plan:
    """What a run will do.

    ``seconds`` (with this many workers), ``memory_mb`` (peak, all processes) and ``disk_mb``
    (added to the store) are estimates: from earlier runs on this store where there were any,
    else from the study's author.
    """

    study: str
    size: Size
    settings: Mapping[str, Any]
    code: str
    cells: tuple[PlannedCell, ...]
    workers: int
    seconds: float
    memory_mb: float
    disk_mb: float
    notes: tuple[str, ...] = ()

    @property
    def to_run(self) -> int:
        """How many cells are not in the store."""
        return sum(not planned.stored for planned in self.cells)

    def __str__(self) -> str:
        plural = "" if len(self.cells) == 1 else "s"
        size = f"{self.study}, {self.size}: {len(self.cells)} cell{plural}"
        if not self.to_run:
            found = "all of them" if plural else "it is"
            return f"{size}, {found} in the store."
        where = f"on {self.workers} worker{'' if self.workers == 1 else 's'}"
        return (
            f"{size}, {self.to_run} to run {where if self.workers else 'in this process'}: "
            f"about {self.seconds:.0f} s, {self.memory_mb:.0f} MB of memory, "
            f"{self.disk_mb:.0f} MB of disk."
        )


def plan(
    study: Study,
    size: Size = "quick",
    overrides: Mapping[str, Any] | None = None,
    store: Store | None = None,
    *,
    workers: int | None = None,
) -> Plan:
    """Return what `run_study` would do with the same arguments; nothing is run.

    Raises `InputError` for what `run_study` would refuse.
    """
    store = store or Store()
    settings = resolve_settings(study, size, overrides)
    code = code_of(study)
    facts = store.recall(durations_of(study))
    cells = tuple(_planned(study, cell, code, facts, store) for cell in _cells(study, settings))
    _refuse_twins(cells)
    left = [planned for planned in cells if not planned.stored]
    count, notes = _workers(workers, left)
    heaviest = sorted((planned.cell.memory_mb for planned in left), reverse=True)[: max(1, count)]
    now = time.monotonic()
    seconds = [planned.seconds for planned in left]
    return Plan(
        study=study.name,
        size=size,
        settings=settings,
        code=code,
        cells=cells,
        workers=count,
        seconds=Forecast(seconds, count, now).left(now) if left else 0.0,
        memory_mb=PARENT_MB + sum(heaviest),
        disk_mb=sum(planned.cell.disk_mb for planned in left),
        notes=notes,
    )


def stored_rows(
    study: Study,
    size: Size = "quick",
    overrides: Mapping[str, Any] | None = None,
    store: Store | None = None,
) -> list[Row]:
    """Return the rows of a study that are in the store, and one row for each cell that isn't.

    Such a row has the metric ``cell``: ``failed`` with the reason if the cell's last try failed,
    ``skipped`` if it has not been run.
    """
    store = store or Store()
    planned = plan(study, size, overrides, store)
    failures = store.recall(failures_of(study))
    rows: list[Row] = []
    for one in planned.cells:
        if one.stored:
            rows += read_rows(store.path(ROWS, one.key))
        elif one.key in failures:
            rows.append(cell_row(study, one, "failed", str(failures[one.key]["reason"])))
        else:
            rows.append(cell_row(study, one, "skipped", "not run yet; run the study"))
    return rows


def cell_row(study: Study, planned: PlannedCell, status: Status, reason: str) -> Row:
    """Return the row that stands for a cell without rows, so that it stays in the denominator."""
    factors: dict[str, Factor] = {"cell": planned.cell.name}
    for name, level in planned.cell.spec.items():
        if level is None or isinstance(level, (str, int, float, bool)):
            factors.setdefault(name, level)
    return Row(study.name, planned.key, "cell", "cell", None, factors, None, 1, status, reason)


def code_of(study: Study) -> str:
    """Return the fingerprint of the code that decides the study's rows.

    A study without ``code`` gets that of its ``measure``: the module's, or in a notebook the
    function's own text.
    """
    if study.code:
        return code_fingerprint(*study.code)
    try:
        return code_fingerprint(study.measure.__module__)
    except (ModuleNotFoundError, ValueError, OSError, AttributeError):
        pass
    try:
        return content_key(inspect.getsource(study.measure))[:12]
    except (OSError, TypeError):
        raise InputError(
            f"The source of {study.name}'s measure cannot be found, so its rows could not be told "
            "from those of other code; put it into a file, or name its modules in Study.code."
        ) from None


def durations_of(study: Study) -> str:
    """Return the name under which the store remembers how long the study's cells took."""
    return f"durations-{study.name}"


def failures_of(study: Study) -> str:
    """Return the name under which the store remembers why cells failed."""
    return f"failures-{study.name}"


def _cells(study: Study, settings: Mapping[str, Any]) -> list[Cell]:
    # measure gets the spec as JSON gives it back, so that it cannot depend on what no key holds.
    try:
        cells = [replace(cell, spec=plain(cell.spec)) for cell in study.cells(settings)]
    except ValidationError as error:
        # a setting went into a model's spec that refuses it
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or first["type"]
        raise InputError(
            f"{study.name} cannot be run with these settings: {where} is "
            f"{first.get('input')!r:.60}: {first['msg']}."
        ) from None
    if not cells:
        raise InputError(f"{study.name} has no cells with these settings; ask for at least one.")
    return cells


def _planned(
    study: Study, cell: Cell, code: str, facts: Mapping[str, Any], store: Store
) -> PlannedCell:
    spec = {"study": study.name, "cell": plain(cell.spec)}
    stored = store.get(ROWS, spec, code) is not None
    fact = facts.get(duration_key(cell))
    if isinstance(fact, dict) and "seconds" in fact:
        seconds = float(fact["seconds"])
        if fact.get("peak_mb"):
            cell = replace(cell, memory_mb=float(fact["peak_mb"]))
    else:
        seconds = cell.cost_s * remembered_scale(facts, cell.cost_s)
    return PlannedCell(cell, store.key(spec, code), spec, stored, 0.0 if stored else seconds)


def duration_key(cell: Cell) -> str:
    """Return what a cell's duration is remembered under: its spec without the code."""
    return content_key(cell.spec)


def _refuse_twins(cells: tuple[PlannedCell, ...]) -> None:
    seen: dict[str, str] = {}
    for planned in cells:
        other = seen.setdefault(planned.key, planned.cell.name)
        if other != planned.cell.name:
            raise InputError(
                f"The cells '{other}' and '{planned.cell.name}' have the same spec; "
                "put what tells them apart into it."
            )


def _workers(asked: int | None, left: list[PlannedCell]) -> tuple[int, tuple[str, ...]]:
    """Return how many worker processes to use, 0 for none (cells run in this process)."""
    cores = usable_cores()
    if asked is not None and asked < 0:
        raise InputError(f"workers expects 0 (in this process) or more; got {asked}.")
    if asked == 0 or not left:
        return 0, ()
    if asked is not None:
        count = min(asked, cores, len(left))
        told = f"{asked} workers were asked for; {cores} cores may be used, so {count} run."
        return count, (told,) if asked > cores else ()
    count = min(cores, len(left))
    memory = available_memory_mb()
    if memory is not None:
        each = max(planned.cell.memory_mb for planned in left)
        fitting = max(1, int((memory - PARENT_MB) // each))
        if fitting < count:
            return fitting, (f"Memory for {fitting} worker(s) only: {memory:.0f} MB are free.",)
    return count, ()
