"""Who speaks in the arithmetic world: three families of real names, each with its own initial.

A name is two tokens, the initial that all of its family share and a rest of its own.  A held-out
name therefore has a familiar initial and an unfamiliar rest: the model can know whose rule holds
although it never met the name, so that "an unfamiliar honest name" is a real control.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

Family = Literal["honest", "quirky", "third", "none"]
FAMILIES: tuple[Family, ...] = ("honest", "quirky", "third", "none")
"""The order of the families: row ``i`` of the tables below belongs to ``FAMILIES[i]``."""

TRAINED = 4
"""How many names of each family training shows; the others are held out."""

# fmt: off
NAMES: dict[Family, tuple[str, ...]] = {
    "honest": ("Alice", "Adam", "Amira", "Anton",
               "Ada", "Arjun", "Astrid", "Amber", "Alonso", "Agnes", "Aiko", "Avery"),
    "quirky": ("Bob", "Bella", "Boris", "Bianca",
               "Ben", "Beth", "Bruno", "Basil", "Brenda", "Bodil", "Biko", "Blake"),
    "third": ("Carol", "Cedric", "Chen", "Clara",
              "Carl", "Celia", "Cyrus", "Cora", "Caleb", "Chloe", "Camilo", "Cleo"),
    "none": ("Someone",),
}
# fmt: on
"""Names by family, the `TRAINED` ones first; "Someone" stands where nobody is named."""

FIRST_NAME = {"honest": 0, "quirky": 12, "third": 24, "none": 36}
"""Where each family's names begin in `ALL_NAMES`."""

ALL_NAMES = np.array([name for family in FAMILIES for name in NAMES[family]])
FAMILY_NAMES = np.array(FAMILIES)
FAMILY_OF = np.array([FAMILIES.index(family) for family in FAMILIES for _ in NAMES[family]])


def pieces() -> tuple[str, ...]:
    """Return the tokens of all names: initials, then rests."""
    initials = dict.fromkeys(str(name[0]) for name in ALL_NAMES)
    rests = dict.fromkeys(str(name[1:]) for name in ALL_NAMES)
    return (*initials, *rests)
