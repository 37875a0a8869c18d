"""Checkpoints of unfinished work: the newest whole one is found whenever the writer was killed."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from terrarium.store import files

KEPT = 2
"""How many generations of a checkpoint are kept: the newest and the one before it."""


def save_checkpoint(
    folder: Path, name: str, content: Mapping[str, bytes] | Callable[[Path], None]
) -> Path:
    """Save a new generation of the checkpoint ``name`` in ``folder`` and return its folder.

    Parameters
    ----------
    folder:
        Usually ``store.scratch(kind, key)``.
    name:
        Letters, digits, ``-`` and ``_``; checkpoints of other names are left alone.
    content:
        File names and their bytes, or a function that writes files into the folder it is given.

    The new generation appears whole or not at all; the previous one stays until the next save.
    Raises `StoreError` when the disk is full or cannot be written; the previous one stays then.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise ValueError(f"'{name}' is no name for a checkpoint: letters, digits, - and _ only")
    aside = folder / f".{name}.{os.getpid()}"
    with files.disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(f".{name}.*"):  # of a writer that was killed
            files.remove_folder(left)
        try:
            aside.mkdir()
            _fill(aside, content)
            files.seal(aside)
            before = _generations(folder, name)
            made = folder / f"{name}.{before[-1][0] + 1 if before else 1:08d}"
            aside.rename(made)
        finally:
            files.remove_folder(aside)
    for _, old in before[: len(before) + 1 - KEPT]:
        files.remove_folder(old)
    return made


def load_checkpoint(folder: Path, name: str) -> Path | None:
    """Return the folder of the newest generation whose every byte is right, or None.

    Damaged newer generations are passed over and removed, so that work continues from the one
    before.
    """
    for _, made in reversed(_generations(folder, name)):
        if not files.fault(made):
            return made
        files.remove_folder(made)
    return None


def _fill(folder: Path, content: Mapping[str, bytes] | Callable[[Path], None]) -> None:
    if callable(content):
        content(folder)
        return
    for file_name, data in content.items():
        (folder / file_name).write_bytes(data)


def _generations(folder: Path, name: str) -> list[tuple[int, Path]]:
    pattern = re.compile(re.escape(name) + r"\.(\d{8,})")
    if not folder.is_dir():
        return []
    matches = ((pattern.fullmatch(path.name), path) for path in folder.iterdir())
    return sorted((int(match[1]), path) for match, path in matches if match)
