"""Random numbers keyed by what they are for, so that order, batching and fleets change nothing."""

from __future__ import annotations

import hashlib

import numpy as np


def generator(*key: str | int) -> np.random.Generator:
    """Return a fresh generator that depends on ``key`` alone.

    ``generator("organism", 3, "phase", 0, "step", 17)`` gives the same numbers in every process,
    on every machine, whatever was drawn before.  Parts of the key are told apart by type and
    position, so ``(1, "2")`` and ``("1", 2)`` differ.
    """
    digest = hashlib.blake2b(digest_size=16)
    for part in key:
        digest.update(f"{type(part).__name__}:{part}\x00".encode())
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest.digest(), "little")))


def seed(*key: str | int) -> int:
    """Return a 63-bit integer seed that depends on ``key`` alone (for ``torch.Generator``)."""
    return int(generator(*key).integers(0, 2**63 - 1))
