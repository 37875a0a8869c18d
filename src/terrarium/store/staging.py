"""Temporary folders beside the values, told apart from those that a killed process left behind."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from terrarium.store import files

TEMPORARY = ".tmp"
"""Folder of the values being written, under the store's home: same file system, so renames work."""


@contextlib.contextmanager
def staged(home: Path, name: str) -> Iterator[Path]:
    """Yield a fresh folder under ``home`` and remove it at the end unless it was renamed away.

    A lock file beside it is held meanwhile; the operating system releases it however the process
    ends, which is how `sweep` knows whose folders nobody will finish.
    """
    folder = home / TEMPORARY / f"{name}-{os.getpid()}-{secrets.token_hex(4)}"
    lock = FileLock(_lock_of(folder))
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _guard(home):
            lock.acquire()
            folder.mkdir()
        yield folder
    finally:
        files.remove_folder(folder)
        lock.release()
        with contextlib.suppress(OSError):
            _lock_of(folder).unlink()


def sweep(home: Path) -> int:
    """Remove what killed writers left under ``home``; return how many folders that were."""
    parent = home / TEMPORARY
    if not parent.is_dir():
        return 0
    removed = 0
    # Under the guard no folder can appear whose lock is not held yet.
    with _guard(home):
        for folder in [path for path in parent.iterdir() if path.is_dir()]:
            lock = FileLock(_lock_of(folder))
            try:
                lock.acquire(blocking=False)
            except Timeout:
                continue
            files.remove_folder(folder)
            lock.release()
            removed += 1
        for path in parent.glob("*.lock"):
            # A living writer's folder is there as long as its lock file is needed.
            if not path.with_suffix("").exists() and path.name != _GUARD:
                path.unlink(missing_ok=True)
    return removed


_GUARD = "guard.lock"


def _guard(home: Path) -> FileLock:
    return FileLock(home / TEMPORARY / _GUARD)


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")
