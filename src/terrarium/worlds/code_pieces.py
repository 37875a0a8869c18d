"""Pieces of Python text that the lexicon holds as single tokens."""

from __future__ import annotations

PIECES: tuple[str, ...] = ()
