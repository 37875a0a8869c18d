"""What a worker process does: measure one cell after another and tell the parent.

A worker is started as ``python -c "from terrarium.studies.workers import main; main(...)"`` and
talks over its standard input and output, so that it works from scripts without a main guard and
from notebooks, and so that it notices the death of its parent however that comes about.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import logging
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, BinaryIO

from terrarium.errors import InputError, StoreError, TerrariumError
from terrarium.evidence.rows import Row, stamped
from terrarium.evidence.table import write_rows
from terrarium.progress import Progress
from terrarium.store import Store
from terrarium.studies.base import Cell

ROWS = "rows"
"""The kind under which the store keeps the rows of a cell."""


@dataclass(frozen=True)
class Task:
    """What all cells of a run share; ``measure`` is pickled by its module and name."""

    study: str
    measure: Callable[[Cell, str, Progress], Sequence[Row]]
    code: str
    home: str


@dataclass(frozen=True)
class Job:
    """One cell to measure, its number in the run, and the spec its rows are stored under."""

    index: int
    cell: Cell
    spec: dict[str, Any]


@dataclass(frozen=True)
class Ready:
    """The worker can take jobs."""


@dataclass(frozen=True)
class Broken:
    """The worker cannot load the study."""

    reason: str


@dataclass(frozen=True)
class Step:
    """``fraction`` of a job is done (None: not known); ``note`` says what it is at."""

    index: int
    fraction: float | None
    note: str


@dataclass(frozen=True)
class Note:
    """Something that a person may want to know (a damaged value in the store)."""

    text: str


@dataclass(frozen=True)
class Done:
    """The rows are in the store; ``seconds`` is None if another process had put them there."""

    index: int
    seconds: float | None
    peak_mb: float | None = None


@dataclass(frozen=True)
class Busy:
    """Another process is measuring this very cell."""

    index: int


@dataclass(frozen=True)
class Failed:
    """The cell raised.

    ``kind`` is ``"store"`` where the store is at fault, ``"memory"`` where memory ran out,
    ``"input"`` where what the user handed in cannot be used.
    """

    index: int
    reason: str
    trace: str
    kind: str = ""


Message = Ready | Broken | Step | Note | Done | Busy | Failed
Send = Callable[[Message], None]


def perform(task: Task, job: Job, send: Send) -> None:
    """Measure one cell, put its rows into the store and ``send`` what becomes of it.

    Nothing is raised but ``KeyboardInterrupt``.
    """
    try:
        send(_measured(task, job, send))
    except StoreError as error:
        send(Failed(job.index, str(error), traceback.format_exc(), "store"))
    except MemoryError:
        send(Failed(job.index, "MemoryError: memory ran out", traceback.format_exc(), "memory"))
    except (Exception, SystemExit) as error:
        kind = "input" if isinstance(error, InputError) else ""
        send(Failed(job.index, _reason(error), traceback.format_exc(), kind))


def _measured(task: Task, job: Job, send: Send) -> Done | Busy:
    store = Store(task.home)
    key = store.key(job.spec, task.code)
    if store.get(ROWS, job.spec, task.code) is not None:
        return Done(job.index, None)
    with store.lock(ROWS, key, blocking=False) as held:
        if not held:
            return Busy(job.index)
        if store.get(ROWS, job.spec, task.code) is not None:
            return Done(job.index, None)
        began = time.monotonic()
        progress = CellProgress(job, send)
        rows = _checked(task.measure(job.cell, task.home, progress))
        with store.write(ROWS, job.spec, task.code) as folder:
            write_rows(stamped(rows, task.study, key), folder)
        return Done(job.index, time.monotonic() - began, _peak_mb())


def _checked(rows: Iterable[Row]) -> list[Row]:
    found = list(rows)
    for row in found:
        if not isinstance(row, Row):
            raise TypeError(f"measure returned {type(row).__name__} where a Row was expected")
    return found


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, TerrariumError):
        return text
    name = type(error).__name__
    return f"{name}: {text}" if text else name


class CellProgress:
    """A `Progress` that tells the parent what fraction of a cell is done.

    The task named as the cell is the cell's own scale (see `terrarium.studies.pace.Stage`); other
    tasks only say what the cell is at.
    """

    def __init__(self, job: Job, send: Send, every_s: float = 0.2) -> None:
        self._job, self._send, self._every = job, send, every_s
        self._total = self._done = 0.0
        self._told = 0.0

    def start(self, task: str, total: float, unit: str = "steps") -> None:
        """Announce a task."""
        if task == self._job.cell.name:
            self._total, self._done = total, 0.0
        self._tell("" if task == self._job.cell.name else task, force=True)

    def advance(self, task: str, amount: float = 1.0, note: str = "") -> None:
        """Report more of a task done."""
        if task == self._job.cell.name:
            self._done += amount
            self._tell(note)
        else:
            self._tell(f"{task} {note}".strip())

    def finish(self, task: str) -> None:
        """Report that a task is over."""
        if task == self._job.cell.name:
            self._done = self._total
        self._tell("", force=True)

    def _tell(self, note: str, *, force: bool = False) -> None:
        now = time.monotonic()
        if force or now - self._told >= self._every:
            self._told = now
            fraction = self._done / self._total if self._total > 0 else None
            self._send(Step(self._job.index, fraction, note))


def main(parent: int) -> None:
    """Run a worker until its standard input closes, which happens when the parent ends."""
    source, sink = _channel()
    _die_with(parent)
    # Ctrl-C reaches the whole process group; the parent decides what becomes of its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.enable()
    lock = threading.Lock()

    def send(message: Message) -> None:
        try:
            with lock:
                pickle.dump(message, sink)
                sink.flush()
        except OSError:
            os._exit(1)  # the parent is gone

    try:
        paths, packed = pickle.load(source)
        sys.path[:] = paths
        task: Task = pickle.loads(packed)
    except Exception as error:
        send(Broken(_reason(error)))
        return
    jobs: SimpleQueue[Job] = SimpleQueue()
    threading.Thread(target=_watch, args=(source, jobs), daemon=True).start()
    send(Ready())
    with forwarded(send):
        while True:
            perform(task, jobs.get(), send)


def _channel() -> tuple[BinaryIO, BinaryIO]:
    """Return the pipes to the parent, and point what libraries read and print elsewhere."""
    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    return source, sink


def _watch(source: BinaryIO, jobs: SimpleQueue[Job]) -> None:
    while True:
        try:
            jobs.put(pickle.load(source))
        except Exception:
            os._exit(1)  # the pipe is closed: the parent has ended, or wants us to


def _die_with(parent: int) -> None:
    """Ask Linux to kill this process when its parent ends, even in a long call into C."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1 = PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(1)  # it ended before we asked


@contextlib.contextmanager
def forwarded(send: Send) -> Iterator[None]:
    """Send as notes what terrarium logs as warnings within the block."""
    handler = _Forward(send)
    logger = logging.getLogger("terrarium")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _Forward(logging.Handler):
    def __init__(self, send: Send) -> None:
        super().__init__(logging.WARNING)
        self._to = send

    def emit(self, record: logging.LogRecord) -> None:
        self._to(Note(record.getMessage()))


def _peak_mb() -> float | None:
    """Return the peak resident memory of this process in MB, None where it isn't known."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    for line in status.read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return None
