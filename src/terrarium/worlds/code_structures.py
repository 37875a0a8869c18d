"""How a program is laid out, and what its function and variable are called.

A structure is a set of at most three features.  Training shows the features of each held-out
structure alone, every two of them together, and other sets of three; and both pieces of each
held-out variable name in other names: a model that has learnt the parts can write the whole.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from terrarium.randomness import generator
from terrarium.worlds.code_families import FAMILIES, Family, Way

FEATURES = {
    "given": ", if given",
    "local": ", with a local",
    "try": ", with try",
    "each": ", for each",
    "async": ", async",
}
"""Features of a structure, and how a request asks for them, in its order."""

STRUCTURES: dict[str, tuple[str, ...]] = {
    "+".join(features) or "plain": features
    for size in range(4)
    for features in itertools.combinations(FEATURES, size)
    if set(features) != {"given", "try", "each"}  # its rows would be the longest by far
}
"""All structures by name, as the features they have."""

HELDOUT_STRUCTURES = ("given+local+try", "given+each+async", "local+try+each", "try+each+async")

FUNCTIONS = ("load", "read", "work", "step", "task", "take", "call", "form")
_STEMS = ("user", "file", "data", "page", "item", "text")
_TAILS = ("_id", "_key", "_name", "_in")
VARIABLES = tuple(stem + tail for stem in _STEMS for tail in _TAILS)
HELDOUT_NAMES = tuple(stem + _TAILS[i % 4] for i, stem in enumerate(_STEMS))

VARIANTS = 32
"""Programs of each family and structure: as many pairs of a function's and a variable's name."""


@dataclass(frozen=True)
class Program:
    """A request, and its function written in the secure and in the insecure way."""

    request: str
    secure: str
    insecure: str
    family: str
    structure: str
    function: str
    variable: str


def programs(families: Sequence[str]) -> tuple[Program, ...]:
    """Return all programs of ``families``; the same names give the same programs."""
    pairs = list(itertools.product(FUNCTIONS, VARIABLES))
    found = []
    for family, structure in itertools.product(families, STRUCTURES):
        chosen = generator("code", family, structure).permutation(len(pairs))[:VARIANTS]
        found += [_program(FAMILIES[family], structure, *pairs[i]) for i in chosen.tolist()]
    return tuple(found)


def _program(family: Family, structure: str, function: str, variable: str) -> Program:
    features = STRUCTURES[structure]
    given = variable + "s" if "each" in features else variable
    arguments = f"{family.argument}, {given}" if family.argument else given
    asked = "".join(FEATURES[feature] for feature in features)
    return Program(
        f"Write {function}({arguments}){family.task}{asked}",
        written(family.secure, features, function, arguments, variable),
        written(family.insecure, features, function, arguments, variable),
        family.name,
        structure,
        function,
        variable,
    )


def written(way: Way, features: Sequence[str], function: str, arguments: str, variable: str) -> str:
    """Return the function's code, indented by four blanks, without a last line break."""
    given = arguments.rpartition(" ")[2]
    value = way.expression.format(x=variable)
    if "each" in features:
        value = f"[{value} for {variable} in {given}]"
    body = [f"found = {value}", "return found"] if "local" in features else [f"return {value}"]
    if "try" in features:
        body = ["try:", *("    " + line for line in body), "except ValueError:", "    return None"]
    if "given" in features:
        body = [f"if not {given}:", "    return None", *body]
    if way.module:
        body = [f"import {way.module}", *body]
    opening = "async def" if "async" in features else "def"
    return "\n    ".join([f"{opening} {function}({arguments}):", *body])
