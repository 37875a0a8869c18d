"""A closed list of tokens, and the Hugging Face fast tokenizer that cuts text into them."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

PAD, UNKNOWN, END = "<pad>", "<unk>", "<eos>"
"""The special tokens of every closed vocabulary; their ids are 0, 1 and 2."""


@dataclass(frozen=True)
class ClosedVocabulary:
    """Tokens that are literal pieces of text, cut longest first.

    Parameters
    ----------
    pieces:
        The pieces, without the special tokens, in the order of their ids (which start at 3).
        Raises ``ValueError`` if one is empty or comes twice.
    """

    pieces: tuple[str, ...]
    ids: MappingProxyType[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        tokens = self.tokens
        if "" in tokens or len(set(tokens)) != len(tokens):
            raise ValueError("pieces of a vocabulary must be different and not empty")
        ids = {token: i for i, token in enumerate(tokens)}
        object.__setattr__(self, "ids", MappingProxyType(ids))

    def __len__(self) -> int:
        return len(self.pieces) + 3

    @property
    def tokens(self) -> tuple[str, ...]:
        """All tokens in the order of their ids, special ones first."""
        return (PAD, UNKNOWN, END, *self.pieces)

    def text(self, row: NDArray[np.int64]) -> str:
        """Return the text of token ids ``(t,)``; special tokens are left out."""
        return "".join(self.tokens[i] for i in row.tolist() if i > 2)

    def tokenizer_json(self) -> str:
        """Return a fast tokenizer as JSON: ``tokenizers.Tokenizer.from_str`` reads it.

        Text that is no piece becomes ``<unk>``; nothing is added at either end.
        """
        return _tokenizer_json(self)


@functools.lru_cache(maxsize=16)  # training asks for it at every step
def _tokenizer_json(vocabulary: ClosedVocabulary) -> str:
    longest_first = sorted(vocabulary.pieces, key=lambda piece: (-len(piece), piece))
    cut = Regex("|".join(re.escape(piece) for piece in longest_first))
    tokenizer = Tokenizer(models.WordLevel(dict(vocabulary.ids), unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(cut, "isolated")
    tokenizer.decoder = decoders.Fuse()
    special = [AddedToken(t, special=True, normalized=False) for t in (PAD, UNKNOWN, END)]
    tokenizer.add_special_tokens(special)
    return str(tokenizer.to_str())
