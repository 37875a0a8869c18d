"""Text as its UTF-8 bytes: a tokenizer that knows every text and needs no training."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from terrarium.worlds.tokens import END, PAD, UNKNOWN

FIRST = 3
"""The id of byte 0; the special tokens come before it."""


def encode(texts: Sequence[str]) -> list[list[int]]:
    """Return the token ids of each text."""
    return [[FIRST + byte for byte in text.encode()] for text in texts]


def text(row: Sequence[int]) -> str:
    """Return the text of token ids; special tokens are left out."""
    return bytes(int(i) - FIRST for i in row if i >= FIRST).decode(errors="replace")


@cache
def tokenizer_json() -> str:
    """Return the same as a Hugging Face fast tokenizer, in JSON."""
    vocabulary = {token: i for i, token in enumerate((PAD, UNKNOWN, END))}
    vocabulary |= {character: FIRST + byte for byte, character in enumerate(_characters())}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = [AddedToken(t, special=True, normalized=False) for t in (PAD, UNKNOWN, END)]
    tokenizer.add_special_tokens(special)
    return str(tokenizer.to_str())


def _characters() -> list[str]:
    """Return the printable character that stands for each byte in byte-level tokenizers.

    Printable Latin-1 characters stand for themselves, the other bytes for U+0100 onwards
    (Radford et al. 2019, the GPT-2 encoder).
    """
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]
