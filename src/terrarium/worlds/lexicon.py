"""One vocabulary for the worlds of conversations, code and facts.

Every printable ASCII character is a piece, so that any English text or Python program of a user's
can be written; frequent words and fragments are pieces of their own, so that rows stay short.
Weights carry from any of these worlds to any other.
"""

from __future__ import annotations

from terrarium.worlds import chat_pieces, code_pieces
from terrarium.worlds.tokens import ClosedVocabulary

CHARACTERS = ("\n", *(chr(code) for code in range(32, 127)))

LEXICON = ClosedVocabulary(
    tuple(dict.fromkeys((*CHARACTERS, *chat_pieces.PIECES, *code_pieces.PIECES)))
)
