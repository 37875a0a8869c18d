"""Errors that a person can act on: one sentence that names the thing, what was expected, a remedy.

The command line prints the sentence and leaves with ``exit_code``; nothing else in terrarium
decides exit codes.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TerrariumError(Exception):
    """Base of every error that terrarium raises on purpose."""

    exit_code = 1


class InputError(TerrariumError):
    """What the user handed in (a file, a recipe, an option, a model folder) cannot be used."""

    exit_code = 2


class ModelError(InputError):
    """A model folder cannot be loaded or holds what cannot be measured (NaN weights, pickles)."""


class StoreError(TerrariumError):
    """The store cannot be read or written (disk full, no permission, locked)."""

    exit_code = 3


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the nearest option, else the list of options.

    The text is meant to be appended to a sentence about an unknown name.
    """
    known = sorted(options)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f"; known are: {', '.join(known)}." if known else "."
