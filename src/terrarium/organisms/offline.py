"""The one door to `transformers` and `peft`: imported late, offline, and quiet while they load."""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    # a tokenizer that has used threads warns at every later fork of a worker
    "TOKENIZERS_PARALLELISM": "false",
}


def go_offline() -> None:
    """Tell Hugging Face libraries, before they are imported, to stay off the network.

    What the user has set already stands: these are defaults of the process.
    """
    for name, value in _OFFLINE.items():
        os.environ.setdefault(name, value)


def import_offline(module: str) -> Any:
    """Return ``module`` (``"transformers"``, ``"peft"``), imported after `go_offline`."""
    go_offline()
    return importlib.import_module(module)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the progress bars, log lines and warnings of `transformers`; restores them after."""
    logging = import_offline("transformers").utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
