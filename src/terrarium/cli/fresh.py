"""Whether a report on disk is what rows and code would give again, told without computing it."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import terrarium
from terrarium.cli.places import RUN
from terrarium.studies.base import studies

_PARTS = ("evidence", "figures", "pages", "studies")
_MARK = re.compile(r'<meta name="terrarium-made-from" content="([0-9a-f]{32})">')
_HEAD = 4_000


def made_from(folder: Path) -> str | None:
    """Return a fingerprint of the results in ``folder`` and of the code that shows them.

    The files of results count by their content, those of code by path, size and time of change.
    None where that doesn't tell: for studies from outside this package, and without results.
    """
    digest = hashlib.blake2b(digest_size=16)
    try:
        contents = [(folder / name).read_bytes() for name in (RUN, "rows.parquet")]
        study = str(json.loads(contents[0])["study"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    module = studies.module(study) if study in studies else "terrarium"
    if module is None or module.split(".")[0] != "terrarium":
        return None
    for content in contents:
        digest.update(content)
    root = Path(str(terrarium.__file__)).parent
    for part in _PARTS:
        for file in sorted((root / part).rglob("*")):
            if file.suffix in (".py", ".j2", ".css", ".js", ".txt"):
                told = file.stat()
                digest.update(f"{file} {told.st_size} {told.st_mtime_ns}\0".encode())
    return digest.hexdigest()


def marked(html: str, mark: str | None) -> str:
    """Return the page with ``mark``, if there is one, in its head."""
    if mark is None:
        return html
    tag = f'<meta name="terrarium-made-from" content="{mark}">'
    return html.replace('<meta charset="utf-8">', f'<meta charset="utf-8">\n{tag}', 1)


def is_fresh(page: Path, mark: str) -> bool:
    """Return whether the page at ``page`` carries ``mark``."""
    try:
        with page.open(encoding="utf-8") as file:
            found = _MARK.search(file.read(_HEAD))
    except (OSError, UnicodeDecodeError):
        return False
    return found is not None and found.group(1) == mark
