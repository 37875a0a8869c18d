"""Tracebacks that nobody wants on the screen, kept where they can be found."""

from __future__ import annotations

import sys
import tempfile
import time
import traceback
from pathlib import Path


def write_log(error: BaseException) -> str:
    """Write the traceback of ``error`` into the store's ``logs`` and return the file's path.

    Where the store cannot be written the file goes to the temporary folder.
    """
    from terrarium.store import Store

    name = time.strftime("crash-%Y%m%d-%H%M%S") + f"-{time.time_ns() % 1_000_000:06d}.log"
    text = f"{' '.join(sys.argv)}\n\n{''.join(traceback.format_exception(error))}"
    for folder in (Store().home / "logs", Path(tempfile.gettempdir())):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
        except OSError:
            continue
        return str(folder / name)
    return "no file, for none could be written"
