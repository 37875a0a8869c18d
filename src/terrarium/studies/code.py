"""What decides the rows of a study beside its own modules, for the keys of its cells."""

from __future__ import annotations

from terrarium.keys import code_closure, code_package

GROWING = tuple(
    f"terrarium.organisms.{name}"
    for name in (
        "build",
        "engine",
        "fleet",
        "grow",
        "kernels",
        "measure",
        "network",
        "objectives",
        "optimizer",
        "parameters",
        "recipe",
        "transformer",
    )
)
"""How a compact transformer is grown, loaded and asked."""


def measuring() -> tuple[str, ...]:
    """Return the modules of all readings and instruments: they are found by name, not imported."""
    read = (*code_package("terrarium.readings"), *code_package("terrarium.instruments"))
    return ("terrarium.randomness", *read)


def road(world: str) -> tuple[str, ...]:
    """Return the modules from ``world`` (its module's name) to instruments.

    Whoever edits one of them measures again; what is grown has its own, narrower keys.
    """
    return (*code_closure(f"terrarium.worlds.{world}"), *GROWING, *measuring())
