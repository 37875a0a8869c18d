"""Values found by what they are: their full spec and the code that made them."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs
from filelock import FileLock, Timeout

from terrarium.errors import StoreError
from terrarium.keys import content_key
from terrarium.store import files
from terrarium.store.description import SPEC, description, now, spec_fault
from terrarium.store.differences import difference, plain
from terrarium.store.staging import staged, sweep

_LOG = logging.getLogger("terrarium.store")
_KIND = re.compile(r"[a-z][a-z0-9_-]*")
_LOCKS, _SCRATCH, _FACTS, _DAMAGED = ".locks", ".scratch", ".facts", "damaged"


@dataclass(frozen=True)
class StoreEvent:
    """Something the store did on its own that a person may want to know (a damaged value)."""

    kind: str
    key: str
    message: str


@dataclass(frozen=True)
class Entry:
    """One stored value: where it lies, what it is, when it was made, how many bytes it takes."""

    kind: str
    key: str
    path: Path
    spec: Any
    code: str
    made: str
    size: int


@dataclass(frozen=True)
class StoreSummary:
    """What a store holds: ``kinds`` maps a kind to its count and bytes."""

    home: Path
    kinds: Mapping[str, tuple[int, int]]
    damaged: tuple[int, int]
    scratch: tuple[int, int]

    def __str__(self) -> str:
        rows = [*self.kinds.items(), ("damaged", self.damaged), ("unfinished", self.scratch)]
        lines = [f"  {name}: {n}, {size / 1e6:.1f} MB" for name, (n, size) in rows if n]
        return "\n".join([f"Store at {self.home}", *(lines or ["  empty"])])


class Store:
    """A folder of content-addressed values; safe for several processes at once.

    Parameters
    ----------
    home:
        The store's folder; by default ``TERRARIUM_HOME``, else the platform's data folder.
        Nothing is read or written before it is needed, and a read-only home can be read.

    A value is found by its ``kind`` (``"organism"``, ``"rows"``, ...), its full resolved ``spec``
    (anything that `terrarium.keys.canonical_json` takes) and ``code``, the fingerprint of the
    code that gives the spec its meaning.  It lies in ``home/<kind>/<key[:2]>/<key>/`` with
    ``spec.json`` and ``checksums.json`` beside its files.
    """

    def __init__(self, home: Path | str | None = None) -> None:
        named = home or os.environ.get("TERRARIUM_HOME") or platformdirs.user_data_path("terrarium")
        self.home = Path(named).expanduser().absolute()
        self.events: list[StoreEvent] = []
        self._verified: dict[Path, tuple[tuple[str, int, int], ...]] = {}
        self._swept = False

    def __repr__(self) -> str:
        return f"Store({str(self.home)!r})"

    # Finding

    def key(self, spec: Any, code: str) -> str:
        """Return the key of ``spec`` made by ``code``."""
        return content_key(spec, code)

    def path(self, kind: str, key: str) -> Path:
        """Return where the value lies or would lie; raises ``ValueError`` for a bad kind."""
        if not _KIND.fullmatch(kind) or kind == _DAMAGED:
            raise ValueError(f"'{kind}' is no kind of value: lower-case letters, digits, - and _")
        return self.home / kind / key[:2] / key

    def get(self, kind: str, spec: Any, code: str) -> Path | None:
        """Return the folder of the value, every byte of it verified, or None if it isn't there.

        A damaged or incomplete value is moved to ``home/damaged``, told in ``events`` and in the
        log, and None is returned, so that the caller makes it again.  Raises `StoreError` if
        what lies there is whole but belongs to another spec (two specs cannot share a key, so
        somebody moved or edited it), saying what differs.
        """
        key = self.key(spec, code)
        folder = self.open(kind, key)
        if folder is None:
            return None
        there = json.loads((folder / SPEC).read_text(encoding="utf-8"))
        found = {"spec": there.get("spec"), "code": there.get("code")}
        asked = {"spec": plain(spec), "code": code}
        if told := difference(asked, found):
            raise StoreError(
                f"The {kind} at {folder} is not what was asked for: {told} (first: asked for, "
                "second: found); remove that folder and run again."
            )
        return folder

    def open(self, kind: str, key: str) -> Path | None:
        """Return the folder of the value with this key, verified as by `get`, or None."""
        folder = self.path(kind, key)
        with files.disk_errors(self.home):
            if not folder.is_dir():
                return None
            signature = files.signature(folder)
            if self._verified.get(folder) == signature:
                return folder
            wrong = files.fault(folder) or spec_fault(folder)
            if not wrong:
                self._verified[folder] = signature
                return folder
        self._set_aside(kind, key, wrong)
        return None

    def _set_aside(self, kind: str, key: str, wrong: str) -> None:
        folder = self.path(kind, key)
        target = self.home / _DAMAGED / f"{kind}-{key}-{time.time_ns()}"
        message = f"{kind} {key} was damaged ({wrong}); it was moved to {target}"
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            folder.rename(target)
            files.write_json(target / "damage.json", {"wrong": wrong, "found": now()})
        except FileNotFoundError:
            return  # another process was faster
        except OSError as error:
            message = f"{kind} {key} is damaged ({wrong}) and cannot be moved aside: {error}"
        self._tell(kind, key, message)

    def _tell(self, kind: str, key: str, message: str) -> None:
        self.events.append(StoreEvent(kind, key, message))
        _LOG.warning(message)

    # Making

    @contextlib.contextmanager
    def write(self, kind: str, spec: Any, code: str) -> Iterator[Path]:
        """Yield an empty folder; what is put there becomes the value, whole or not at all.

        Nothing is stored if the body raises.  If another process finished the same value
        meanwhile, theirs is kept.  The key's `scratch` folder is removed.  Raises `StoreError`
        when the disk is full, read-only or not permitted; nothing half written stays.
        """
        key = self.key(spec, code)
        target = self.path(kind, key)
        self.check_writable()
        with files.disk_errors(self.home), staged(self.home, f"{kind}-{key}") as folder:
            yield folder
            files.write_json(folder / SPEC, description(kind, key, spec, code))
            files.seal(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            if not files.rename_folder(folder, target) and self.open(kind, key) is None:
                # What lay there was damaged and has been moved aside.
                files.rename_folder(folder, target)
        files.remove_folder(self._scratch(kind, key))

    def obtain(
        self,
        kind: str,
        spec: Any,
        code: str,
        make: Callable[[Path], None],
        waiting: Callable[[float], None] | None = None,
    ) -> Path:
        """Return the value's folder, making it with ``make(folder)`` if it is not there.

        Of several processes that ask at once one makes it and the others wait for it;
        ``waiting`` is as for `lock`.  ``make`` may keep checkpoints in `scratch`.
        """
        if (found := self.get(kind, spec, code)) is not None:
            return found
        with self.lock(kind, self.key(spec, code), waiting=waiting):
            if (found := self.get(kind, spec, code)) is not None:
                return found
            with self.write(kind, spec, code) as folder:
                make(folder)
            if (found := self.get(kind, spec, code)) is not None:
                return found
        raise StoreError(
            f"A {kind} was written to {self.home} and was not there afterwards; "
            "check the disk, or set TERRARIUM_HOME to a folder elsewhere."
        )

    @contextlib.contextmanager
    def lock(
        self,
        kind: str,
        key: str,
        *,
        waiting: Callable[[float], None] | None = None,
        blocking: bool = True,
    ) -> Iterator[bool]:
        """Hold the lock of one value among all processes; yield whether it is held.

        With ``blocking=False`` it yields False at once if another process holds it.  While it
        waits, ``waiting(seconds)`` is called about once a second.  The operating system releases
        the lock of a process that dies.  A process must not take the same lock twice.
        """
        self.check_writable()
        self.path(kind, key)
        lock = FileLock(self.home / _LOCKS / f"{kind}-{key}.lock")
        with files.disk_errors(self.home):
            Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
            held = _acquire(lock, blocking, waiting)
        try:
            yield held
        finally:
            if held:
                lock.release()

    def scratch(self, kind: str, key: str) -> Path:
        """Return a folder for the checkpoints of a value being made.

        It outlives the process and goes when the value is written.  Use it under the key's lock.
        """
        self.check_writable()
        folder = self._scratch(kind, key)
        with files.disk_errors(self.home):
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    def discard_scratch(self, kind: str, key: str) -> None:
        """Remove the scratch folder of work that several values shared and that is done."""
        files.remove_folder(self._scratch(kind, key))

    def _scratch(self, kind: str, key: str) -> Path:
        self.path(kind, key)
        return self.home / _SCRATCH / kind / key

    def check_writable(self) -> None:
        """Raise `StoreError` if nothing can be written; tidy up after killed processes, once."""
        if self._swept:
            return
        with files.disk_errors(self.home):
            self.home.mkdir(parents=True, exist_ok=True)
            with staged(self.home, "check") as folder:
                (folder / "check").write_bytes(b"terrarium")
            sweep(self.home)
            self._swept = True
            for folder in (self.home / _SCRATCH).glob("*/*"):
                kind, key = folder.parent.name, folder.name
                if self.path(kind, key).is_dir():  # killed between the rename and the removal
                    with self.lock(kind, key, blocking=False) as held:
                        if held:
                            files.remove_folder(folder)

    def remove(self, kind: str, key: str) -> bool:
        """Remove a value; return whether it was there."""
        folder = self.path(kind, key)
        with files.disk_errors(self.home):
            if not folder.is_dir():
                return False
            with staged(self.home, f"{kind}-{key}") as aside:
                # Renamed first, so that nobody sees half of it.
                folder.rename(aside / "removed")
        self._verified.pop(folder, None)
        return True

    # Small facts: estimates and notes that may be lost without harm

    def recall(self, name: str) -> dict[str, Any]:
        """Return the facts remembered under ``name``; empty if there are none or they are damaged.

        For estimates (how long did this cell take?), never for results.
        """
        try:
            facts = json.loads((self.home / _FACTS / f"{name}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return facts if isinstance(facts, dict) else {}

    def remember(self, name: str, changes: Mapping[str, Any]) -> None:
        """Merge ``changes`` into the facts called ``name``; a value of None removes the fact."""
        with files.disk_errors(self.home):
            folder = self.home / _FACTS
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / f"{name}.lock"):
                merged = {**self.recall(name), **changes}
                kept = {key: fact for key, fact in merged.items() if fact is not None}
                files.replace_json(folder / f"{name}.json", kept)

    # Looking

    def entries(self, kind: str | None = None) -> Iterator[Entry]:
        """Yield all values (of one ``kind``), by kind and key; unreadable ones are left out."""
        if not self.home.is_dir():
            return
        for folder in sorted(self.home.glob(f"{kind or '[a-z]*'}/??/*")):
            if folder.parent.parent.name == _DAMAGED or spec_fault(folder):
                continue
            there = json.loads((folder / SPEC).read_text(encoding="utf-8"))
            size = files.size_of(folder)
            name = folder.parent.parent.name
            spec, code, made = there["spec"], there["code"], there["made"]
            yield Entry(name, folder.name, folder, spec, code, made, size)

    def describe(self) -> StoreSummary:
        """Return what the store holds; printed, it is a few lines."""
        kinds: dict[str, tuple[int, int]] = {}
        for entry in self.entries():
            count, size = kinds.get(entry.kind, (0, 0))
            kinds[entry.kind] = (count + 1, size + entry.size)
        damaged = [files.size_of(path) for path in (self.home / _DAMAGED).glob("*")]
        scratch = [files.size_of(path) for path in (self.home / _SCRATCH).glob("*/*")]
        return StoreSummary(
            self.home, kinds, (len(damaged), sum(damaged)), (len(scratch), sum(scratch))
        )


def _acquire(lock: FileLock, blocking: bool, waiting: Callable[[float], None] | None) -> bool:
    started = told = time.monotonic()
    pause = 0.02
    while True:
        try:
            lock.acquire(blocking=False)
            return True
        except Timeout:
            if not blocking:
                return False
        time.sleep(pause)
        pause = min(0.25, pause * 1.5)
        now = time.monotonic()
        if waiting is not None and now - told >= 1.0:
            told = now
            waiting(now - started)
