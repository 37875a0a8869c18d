"""Files that are whole or not there: checksums, atomic writes, errors that say what to do."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from terrarium.errors import StoreError

CHECKSUMS = "checksums.json"
"""The file in a value's folder that lists every other file's size and checksum."""

# What can only be the disk's fault, whichever file it was told about.
_DISK = {
    errno.ENOSPC: "the disk is full; free some space, or set TERRARIUM_HOME to a folder elsewhere",
    errno.EDQUOT: "the disk quota is used up; free some space, or set TERRARIUM_HOME elsewhere",
    errno.EIO: "the disk reports an input/output error; check it, or set TERRARIUM_HOME elsewhere",
    errno.EMFILE: "too many files are open; raise the limit (ulimit -n) and run again",
}
# What is the store's business only where it names one of the store's own files.
_PLACE = {
    errno.EROFS: "the file system is read-only; set TERRARIUM_HOME to a folder you can write to",
    errno.EACCES: "permission is denied; set TERRARIUM_HOME to a folder you can write to",
    errno.EPERM: "permission is denied; set TERRARIUM_HOME to a folder you can write to",
    errno.ENOTDIR: "part of the path is a file; set TERRARIUM_HOME to a folder",
    errno.EEXIST: "a file is in the way of a folder; set TERRARIUM_HOME to a folder",
}


def store_error(error: BaseException, home: Path) -> StoreError | None:
    """Return the `StoreError` that ``error`` amounts to, or None if it is not about the disk.

    Libraries written in Rust or C++ (safetensors, torch) report a full disk as an error of their
    own, which carries the operating system's text only; it is recognised by that text.
    """
    number = error.errno if isinstance(error, OSError) else None
    if number is None and os.strerror(errno.ENOSPC) in str(error):
        number = errno.ENOSPC
    remedy = _DISK.get(number or 0)
    if remedy is None and isinstance(error, OSError) and _concerns(error, home):
        remedy = _PLACE.get(number or 0)
    return StoreError(f"The store at {home} cannot be used: {remedy}.") if remedy else None


def _concerns(error: OSError, home: Path) -> bool:
    if not isinstance(error.filename, (str, Path)):
        return False
    path = Path(error.filename).absolute()
    # A parent of the home counts: it may be what cannot be written or is a file.
    return path.is_relative_to(home) or home.is_relative_to(path)


@contextlib.contextmanager
def disk_errors(home: Path) -> Iterator[None]:
    """Turn errors about the disk under ``home`` into a `StoreError`; others pass."""
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        told = store_error(error, home)
        if told is None:
            raise
        raise told from error


def checksum(path: Path) -> str:
    """Return the file's blake2b checksum, 32 hex digits."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def files_below(folder: Path) -> list[Path]:
    """Return the regular files below ``folder`` (checksums left out), sorted by name."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in found if path != folder / CHECKSUMS)


def seal(folder: Path) -> None:
    """Write the checksums of all files of ``folder`` beside them and flush everything to disk.

    The caller then renames the folder into place: after a power cut the name is there only with
    the whole content behind it.
    """
    listed: dict[str, dict[str, Any]] = {}
    for path in files_below(folder):
        name = path.relative_to(folder).as_posix()
        listed[name] = {"size": path.stat().st_size, "blake2b": checksum(path)}
        _flush(path)
    write_json(folder / CHECKSUMS, {"files": listed})
    for below in [*(path for path in folder.rglob("*") if path.is_dir()), folder]:
        _flush(below)


def fault(folder: Path) -> str:
    """Return what is wrong with a sealed folder in a few words, ``""`` if every byte is right."""
    try:
        listed = json.loads((folder / CHECKSUMS).read_text(encoding="utf-8"))["files"].items()
        wanted = [(name, int(facts["size"]), str(facts["blake2b"])) for name, facts in listed]
    except FileNotFoundError:
        return f"{CHECKSUMS} is missing"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{CHECKSUMS} cannot be read"
    for name, size, digest in wanted:
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes instead of {size}"
        if checksum(path) != digest:
            return f"{name} does not match its checksum"
    return ""


def signature(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Return names, sizes and modification times of the files: cheap, changes when they do."""
    files = [*files_below(folder), folder / CHECKSUMS]
    facts = ((path, path.stat()) for path in files if path.is_file())
    return tuple((str(path), found.st_size, found.st_mtime_ns) for path, found in facts)


def size_of(folder: Path) -> int:
    """Return the bytes of all files below ``folder``; what vanishes meanwhile counts nothing."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size if path.is_file() else 0
    return total


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as JSON and flush it to disk (not atomic: for files in temporary folders)."""
    with path.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=1, sort_keys=True, allow_nan=False)
        file.flush()
        os.fsync(file.fileno())


def replace_json(path: Path, value: Any) -> None:
    """Write ``value`` as JSON at ``path``, whole or not at all."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write_json(aside, value)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def rename_folder(source: Path, target: Path) -> bool:
    """Rename ``source`` to ``target`` for good; return False if content is there already."""
    try:
        source.rename(target)
    except OSError as error:
        # Windows says EACCES or EEXIST where a folder is in the way, Linux ENOTEMPTY.
        taken = error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.EACCES)
        if taken and target.is_dir():
            return False
        raise
    _flush(target.parent)
    return True


def remove_folder(folder: Path) -> None:
    """Remove ``folder`` as far as that is possible; nothing is raised."""
    shutil.rmtree(folder, ignore_errors=True)


def _flush(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot flush folders
    handle = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
