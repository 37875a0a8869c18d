"""What decides the rows of a study beside its own modules, for the keys of its cells."""

from __future__ import annotations

from terrarium.keys import code_closure, code_package

ELSEWHERE = (
    "anatomy",
    "autoencoder",
    "coordinate",
    "export",
    "folder",
    "huggingface",
    "offline",
    "plain",
    "policy",
    "retokenise",
)
"""Modules of `terrarium.organisms` for other networks, or for writing networks for others."""


def growing() -> tuple[str, ...]:
    """Return the modules by which a compact transformer is grown, loaded and asked.

    All but those `ELSEWHERE`, so that a new module counts until somebody says that it doesn't.
    """
    others = {f"terrarium.organisms.{name}" for name in ELSEWHERE}
    return tuple(name for name in code_package("terrarium.organisms") if name not in others)


def measuring() -> tuple[str, ...]:
    """Return the modules of all readings and instruments: they are found by name, not imported."""
    read = (*code_package("terrarium.readings"), *code_package("terrarium.instruments"))
    return ("terrarium.randomness", *read)


def road(world: str) -> tuple[str, ...]:
    """Return the modules from ``world`` (its module's name) to instruments.

    Whoever edits one of them measures again; what is grown has its own, narrower keys.
    """
    return (*code_closure(f"terrarium.worlds.{world}"), *growing(), *measuring())
