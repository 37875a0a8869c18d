"""Runs a study: every cell once, in worker processes, and what is stored is not run again."""

from __future__ import annotations

import pickle
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from terrarium.errors import InputError, StoreError, TerrariumError
from terrarium.evidence.rows import Row
from terrarium.evidence.table import read_rows
from terrarium.progress import Progress, Silent
from terrarium.store import Store
from terrarium.studies.base import Size, Study
from terrarium.studies.pace import Forecast
from terrarium.studies.plan import (
    Plan,
    PlannedCell,
    cell_row,
    duration_key,
    durations_of,
    failures_of,
    plan,
    stored_rows,
)
from terrarium.studies.pool import Pool, Worker
from terrarium.studies.resources import single_thread
from terrarium.studies.schedule import Schedule
from terrarium.studies.workers import (
    ROWS,
    Broken,
    Busy,
    Done,
    Failed,
    Job,
    Message,
    Note,
    Ready,
    Step,
    Task,
    forwarded,
    perform,
)

__all__ = ["Failure", "Plan", "Snapshot", "StudyResult", "plan", "run_study", "stored_rows"]

BEAT_S = 0.5
"""Seconds between two looks at the time left."""
MOST_STILLBORN = 3
"""How many workers in a row may die before they are ready."""


@dataclass(frozen=True)
class Failure:
    """A cell that could not be measured: its name, the key of its rows, why, the traceback.

    ``kind`` is ``"input"`` where what the user handed in cannot be used.
    """

    cell: str
    key: str
    reason: str
    trace: str = ""
    kind: str = ""


@dataclass(frozen=True)
class Snapshot:
    """Where a run stands: for the command line and the live view.

    ``fraction`` is the share of the run's time that is over; ``running`` maps the names of cells
    at work to what they are at.
    """

    cells: int
    done: int
    failed: int
    fraction: float
    seconds_left: float
    running: Mapping[str, str]


@dataclass(frozen=True)
class StudyResult:
    """What a run gave: rows in the order of the cells, a failed row for each failure.

    ``measured`` and ``found`` count the cells measured by this run and those in the store
    already; ``notes`` are things a person may want to know.
    """

    study: str
    size: Size
    settings: Mapping[str, Any]
    rows: list[Row]
    failures: list[Failure]
    notes: list[str]
    seconds: float
    measured: int
    found: int

    def __repr__(self) -> str:
        """Say what the run gave, not the rows."""
        return (
            f"StudyResult({self.study}, {self.size}: {len(self.rows)} rows; {self.measured} cells "
            f"measured and {self.found} found in the store in {self.seconds:.1f} s, "
            f"{len(self.failures)} failed)"
        )


def run_study(
    study: Study,
    size: Size = "quick",
    overrides: Mapping[str, Any] | None = None,
    store: Store | None = None,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
    watch: Callable[[Snapshot], None] | None = None,
) -> StudyResult:
    """Run the cells of ``study`` that are not in the store, and return the rows of all.

    Parameters
    ----------
    study, size:
        What to run; ``size`` chooses among ``study.defaults``.
    overrides:
        Settings that differ from ``study.defaults[size]``, as text or as Python objects.
    store:
        Where the rows are looked for and put; by default ``Store()``.
    workers:
        Number of worker processes, each with one thread; by default as many as there are cores,
        cells and memory for, never more than cores.  0 runs the cells in this process (for a
        debugger), with one thread as well, so that the rows are the same.
    progress:
        Gets one task, in percent of the run's time, from the start on.
    watch:
        Called about twice a second with where the run stands.

    A cell that raises, or whose worker dies twice, becomes a row with status ``failed`` and
    metric ``cell``; cells that need it are ``failed`` too; all are tried again by the next run.
    Whenever the process is killed, the next run goes on from the rows (and the checkpoints of
    the cells) that are in the store.  Raises `InputError` for bad settings, `StoreError` if the
    store fails, ``KeyboardInterrupt`` on Ctrl-C; no worker outlives the call or the process.
    """
    began = time.monotonic()
    store = store or Store()
    run = _Run(study, plan(study, size, overrides, store, workers=workers), store, watch)
    shown = progress or Silent()
    shown.start(study.name, 100.0, "%")
    run.show = shown
    try:
        if run.planned.to_run:
            store.check_writable()
            run.go()
    finally:
        shown.finish(study.name)
    return StudyResult(
        study=study.name,
        size=size,
        settings=run.planned.settings,
        rows=run.rows(),
        failures=[run.failures[at] for at in sorted(run.failures)],
        notes=[*run.planned.notes, *run.notes, *(event.message for event in store.events)],
        seconds=time.monotonic() - began,
        measured=run.measured,
        found=len(run.cells) - run.measured - len(run.failures),
    )


class _Run:
    """The state of one run: takes messages of workers, keeps the books."""

    def __init__(
        self,
        study: Study,
        planned: Plan,
        store: Store,
        watch: Callable[[Snapshot], None] | None,
    ) -> None:
        self.study, self.planned, self.store, self.watch = study, planned, store, watch
        self.cells: tuple[PlannedCell, ...] = planned.cells
        self.show: Progress = Silent()
        self.failures: dict[int, Failure] = {}
        self.notes: list[str] = []
        self.measured = 0
        costs = [one.seconds for one in self.cells]
        done = {at for at, one in enumerate(self.cells) if one.stored}
        self.schedule = Schedule([one.cell for one in self.cells], costs, done)
        self.forecast = Forecast(costs, planned.workers, time.monotonic())
        for at in done:
            self.forecast.done(at, None)
        self._at: dict[int, str] = {}
        self._shown = 0.0
        self._beat = 0.0
        self._stillborn = 0
        self._known_failures = set(store.recall(failures_of(study)))

    def go(self) -> None:
        task = Task(self.study.name, self.study.measure, self.planned.code, str(self.store.home))
        if self.planned.workers and _portable(task):
            self._with_workers(task)
            return
        if self.planned.workers:
            self.notes.append(
                f"The measure of {self.study.name} lives in a notebook or script, where worker "
                "processes cannot find it; its cells ran in this process, one after another."
            )
            self.forecast.workers = 1
        with single_thread(), forwarded(self.handle):
            self._alone(task)

    def _alone(self, task: Task) -> None:
        while not self.schedule.finished:
            job = self._next()
            if job is None:
                time.sleep(0.05)
                self.beat()
                continue
            perform(task, job, self.handle)

    def _with_workers(self, task: Task) -> None:
        with Pool(self.planned.workers, task) as pool:
            while not self.schedule.finished:
                for worker in pool.workers:
                    if worker.ready and worker.job is None and (job := self._next()) is not None:
                        worker.give(job)
                self.beat()
                received = pool.receive(0.1)
                if received is not None:
                    self._received(pool, *received)

    def _received(self, pool: Pool, worker: Worker, message: Message | None) -> None:
        if message is None:
            reason = worker.end()
            self._stillborn = 0 if worker.ready else self._stillborn + 1
            if self._stillborn >= MOST_STILLBORN:
                raise TerrariumError(
                    f"The worker processes of {self.study.name} do not start ({reason}); "
                    "see what is wrong by running it with workers=0."
                )
            if worker.job is not None:
                self._died(worker.job.index, reason)
            pool.fill()
        elif isinstance(message, Ready):
            worker.ready = True
        else:
            if isinstance(message, (Done, Busy, Failed)):
                worker.job = None
            self.handle(message)

    def _next(self) -> Job | None:
        at = self.schedule.take(time.monotonic())
        if at is None:
            return None
        self.forecast.started(at, time.monotonic())
        self._at[at] = ""
        return Job(at, self.cells[at].cell, self.cells[at].spec)

    def handle(self, message: Message) -> None:
        """Take one message about a cell."""
        if isinstance(message, Step):
            self._at[message.index] = message.note or self._at.get(message.index, "")
            self.forecast.step(message.index, message.fraction)
            self.beat()
        elif isinstance(message, Done):
            self._done(message)
        elif isinstance(message, Busy):
            self._at.pop(message.index, None)
            self.schedule.put_back(message.index, time.monotonic() + BEAT_S)
            self.forecast.put_back(message.index)
        elif isinstance(message, Failed):
            if message.kind == "store":
                raise StoreError(message.reason)
            if message.kind == "memory":
                self._died(message.index, message.reason)
            else:
                self._failed(message.index, message.reason, message.trace, message.kind)
        elif isinstance(message, Note):
            self.notes.append(message.text)
        elif isinstance(message, Broken):
            raise InputError(
                f"The study {self.study.name} cannot be loaded in a worker process: "
                f"{message.reason}."
            )

    def _done(self, message: Done) -> None:
        at, one = message.index, self.cells[message.index]
        self._at.pop(at, None)
        self.schedule.done(at)
        self.forecast.done(at, message.seconds)
        if message.seconds is not None:
            self.measured += 1
            fact = {
                "seconds": round(message.seconds, 3),
                "guess": one.cell.cost_s,
                "peak_mb": message.peak_mb and round(message.peak_mb),
            }
            self.store.remember(durations_of(self.study), {duration_key(one.cell): fact})
        if one.key in self._known_failures:
            self.store.remember(failures_of(self.study), {one.key: None})
        self.beat()

    def _died(self, at: int, reason: str) -> None:
        self._at.pop(at, None)
        name = self.cells[at].cell.name
        if self.schedule.died(at):
            self.forecast.put_back(at)
            self.notes.append(f"Cell '{name}' is tried again: {reason}.")
        else:
            self._failed(at, f"it was tried twice: {reason}", "")

    def _failed(self, at: int, reason: str, trace: str, kind: str = "") -> None:
        name = self.cells[at].cell.name
        self._record(at, reason, trace, kind)
        for lost in self.schedule.failed(at):
            self._record(lost, f"it needs '{name}', which failed: {reason}", "")
        self.beat()

    def _record(self, at: int, reason: str, trace: str, kind: str = "") -> None:
        one = self.cells[at]
        self._at.pop(at, None)
        self.forecast.done(at, None)
        self.failures[at] = Failure(one.cell.name, one.key, reason, trace, kind)
        fact = {"cell": one.cell.name, "reason": reason, "trace": trace}
        self.store.remember(failures_of(self.study), {one.key: fact})

    def beat(self) -> None:
        """Tell the progress and the watcher where the run stands, not too often."""
        now = time.monotonic()
        if now - self._beat < BEAT_S and not self.schedule.finished:
            return
        self._beat = now
        fraction = self.forecast.fraction(now)
        running = {self.cells[at].cell.name: note for at, note in sorted(self._at.items())}
        done = sum(self.schedule.is_done(at) for at in range(len(self.cells)))
        words = ", ".join(f"{name} {note}".strip() for name, note in running.items())
        # In percent of the time, so that whoever extrapolates from it finds the forecast.
        step = max(0.0, 100.0 * fraction - self._shown)
        self._shown += step
        told = f"{done} of {len(self.cells)} cells" + (f"; {words}" if words else "")
        self.show.advance(self.study.name, step, told)
        if self.watch is not None:
            left = self.forecast.left(now)
            failed = len(self.failures)
            self.watch(Snapshot(len(self.cells), done, failed, fraction, left, running))

    def rows(self) -> list[Row]:
        """Return the rows of all cells in the cells' order."""
        rows: list[Row] = []
        for at, one in enumerate(self.cells):
            if at in self.failures:
                rows.append(cell_row(self.study, one, "failed", self.failures[at].reason))
                continue
            folder = self.store.get(ROWS, one.spec, self.planned.code)
            if folder is None:
                raise StoreError(
                    f"The rows of cell '{one.cell.name}' were damaged or removed while the study "
                    "ran; run it again."
                )
            rows += read_rows(folder)
        return rows


def _portable(task: Task) -> bool:
    """Return whether a fresh process can find ``task.measure`` by its module and name."""
    if getattr(task.measure, "__module__", None) == "__main__":
        return False
    try:
        pickle.dumps(task)
    except (pickle.PicklingError, AttributeError, TypeError):
        return False
    return bool(sys.executable)
