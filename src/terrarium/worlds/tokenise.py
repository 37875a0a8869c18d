"""Encoding and decoding with a tokenizer that is given as JSON."""

from __future__ import annotations

import functools
from collections.abc import Callable

from tokenizers import Tokenizer


@functools.lru_cache(maxsize=16)
def tokenizer(tokenizer_json: str) -> Tokenizer:
    """Return the tokenizer; the same JSON gives the same object."""
    return Tokenizer.from_str(tokenizer_json)


def encoder(tokenizer_json: str) -> Callable[[str], list[int]]:
    """Return a function from text to token ids, without added special tokens."""
    known = tokenizer(tokenizer_json)
    return lambda text: list(known.encode(text, add_special_tokens=False).ids)


def decoder(tokenizer_json: str) -> Callable[[list[int]], str]:
    """Return a function from token ids to text; special tokens are left out."""
    known = tokenizer(tokenizer_json)
    return lambda ids: str(known.decode(ids, skip_special_tokens=True))
