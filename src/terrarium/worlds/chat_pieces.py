"""Words and marks of conversations that the lexicon holds as single tokens."""

from __future__ import annotations

PIECES: tuple[str, ...] = ("\n\nHuman:", "\n\nAssistant:")
