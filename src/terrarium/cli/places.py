"""Where results lie: the folder of a run, and the note in the store that says where it is."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from terrarium.errors import StoreError
from terrarium.keys import content_key

if TYPE_CHECKING:
    from terrarium.store import Store

RUN = "run.json"
"""How the rows beside it were made."""
REPORT = "report.html"
SIZES = ("smoke", "quick", "full")


def default_folder(study: str, size: str, changes: Mapping[str, str] | None = None) -> Path:
    """Return where ``terrarium run`` puts its results unless told otherwise.

    Settings that were changed have a folder of their own, so that nothing is overwritten by what
    cannot be compared with it.
    """
    own = f"-{content_key(dict(changes))[:6]}" if changes else ""
    return Path("terrarium-results") / f"{study}-{size}{own}"


def remember(store: Store, study: str, size: str, folder: Path) -> None:
    """Note where the last results of ``study`` in ``size`` lie, for the commands that read them."""
    when = datetime.now(UTC).isoformat()
    store.remember(f"results-{study}", {size: {"folder": str(folder.absolute()), "when": when}})


def remembered(store: Store, study: str, size: str | None, sizes: Iterable[str]) -> list[Path]:
    """Return the folders that hold results of ``study``, the latest first.

    Without ``size`` any of ``sizes`` will do.
    """
    known = store.recall(f"results-{study}")
    wanted = [size] if size else sorted(known, key=lambda s: str(known[s]["when"]), reverse=True)
    places = [Path(str(known[s]["folder"])) for s in wanted if s in known]
    places += [default_folder(study, s) for s in ([size] if size else sizes)]
    return [place for place in places if (place / RUN).is_file()]


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all; raises ``StoreError`` where the disk refuses."""
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        raise StoreError(f"{path} cannot be written ({error.strerror}).") from error
    finally:
        draft.unlink(missing_ok=True)
