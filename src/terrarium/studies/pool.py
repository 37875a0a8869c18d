"""Worker processes and the parent's end of their pipes."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections import deque
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO

import terrarium
from terrarium.studies.resources import THREADS
from terrarium.studies.workers import Job, Message, Task

_GRACE_S = 2.0


class Worker:
    """One worker process; its messages go to a queue shared by all, None when it has ended."""

    def __init__(self, task: bytes, inbox: SimpleQueue[tuple[Worker, Message | None]]) -> None:
        source = Path(str(terrarium.__file__)).parent.parent
        paths = os.pathsep.join(filter(None, [str(source), os.environ.get("PYTHONPATH")]))
        code = f"from terrarium.studies.workers import main; main({os.getpid()})"
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **THREADS, "PYTHONPATH": paths, "TOKENIZERS_PARALLELISM": "false"},
        )
        self.job: Job | None = None
        self.ready = False
        self._said: deque[str] = deque(maxlen=20)
        for target in (lambda: self._receive(inbox), self._listen):
            threading.Thread(target=target, daemon=True).start()
        self._write(pickle.dumps((sys.path, task)))

    def give(self, job: Job) -> None:
        """Hand the worker a job."""
        self.job = job
        self._write(pickle.dumps(job))

    def end(self) -> str:
        """Return, once the worker's pipe is closed, how it ended, in words."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_GRACE_S)
        code = self.process.poll()
        if code is None:
            self.process.kill()
            return "its worker process hung up"
        if code >= 0:
            last = f": {self._said[-1]}" if self._said else ""
            return f"its worker process left with exit code {code}{last}"
        name = _signal_name(-code)
        if -code == getattr(signal, "SIGKILL", 9):
            return f"its worker process was killed ({name}), most likely because memory ran out"
        return f"its worker process crashed ({name})"

    def stop(self) -> None:
        """Ask the worker to end at once; `join` waits for it."""
        with contextlib.suppress(OSError):
            self.process.terminate()

    def join(self) -> None:
        """Wait until the worker has ended; force it after two seconds."""
        try:
            self.process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        with contextlib.suppress(OSError):
            _pipe(self.process.stdin).close()

    def _write(self, data: bytes) -> None:
        # A worker that has died is noticed by its end of file, where it's dealt with.
        with contextlib.suppress(OSError):
            pipe = _pipe(self.process.stdin)
            pipe.write(data)
            pipe.flush()

    def _receive(self, inbox: SimpleQueue[tuple[Worker, Message | None]]) -> None:
        with _pipe(self.process.stdout) as pipe, contextlib.suppress(Exception):
            while True:
                inbox.put((self, pickle.load(pipe)))
        inbox.put((self, None))

    def _listen(self) -> None:
        with _pipe(self.process.stderr) as pipe:
            for line in pipe:
                if text := line.decode(errors="replace").strip():
                    self._said.append(text)


class Pool:
    """Up to ``size`` workers for one task, and their messages in the order they came.

    Use it as a context manager: at the end, however it comes, no worker is left.
    """

    def __init__(self, size: int, task: Task) -> None:
        self._task = pickle.dumps(task)
        self._inbox: SimpleQueue[tuple[Worker, Message | None]] = SimpleQueue()
        self.workers: list[Worker] = []
        self._size = size

    def __enter__(self) -> Pool:
        self.fill()
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            worker.stop()
        for worker in self.workers:
            worker.join()
        self.workers.clear()

    def fill(self) -> None:
        """Start workers until there are as many as asked for."""
        while len(self.workers) < self._size:
            self.workers.append(Worker(self._task, self._inbox))

    def receive(self, timeout: float) -> tuple[Worker, Message | None] | None:
        """Return the next message and its worker, None if none comes within ``timeout`` seconds.

        The message None means that the worker has ended; it is no longer in ``workers``.
        """
        try:
            worker, message = self._inbox.get(timeout=timeout)
        except Empty:
            return None
        if message is None and worker in self.workers:
            self.workers.remove(worker)
        return worker, message


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:  # cannot be: all three are asked for
        raise RuntimeError("a worker process without pipes")
    return stream


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
