"""One typed registry for everything that has a name: worlds, probes, detectors, studies.

Third parties add theirs through entry points in the group ``terrarium.<kind>``
(for example ``[project.entry-points."terrarium.worlds"]``).
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from terrarium.errors import InputError, did_you_mean

T = TypeVar("T")


class Registry(Generic[T]):
    """Names to things, loaded on first use.

    Parameters
    ----------
    kind:
        What the names stand for, in the plural (``"worlds"``); also the entry-point group.
    builtin:
        Name to ``"module:attribute"``; modules are imported only when the name is asked for,
        so that ``--help`` needs no torch.
    """

    def __init__(self, kind: str, builtin: dict[str, str]) -> None:
        self.kind = kind
        self._targets = dict(builtin)
        self._loaded: dict[str, T] = {}
        self._scanned = False

    def add(self, name: str, thing: T) -> None:
        """Register ``thing`` under ``name``; raises ``ValueError`` if the name is taken."""
        if name in self:
            raise ValueError(f"{self.kind}: the name '{name}' is taken")
        self._loaded[name] = thing

    def names(self) -> list[str]:
        """Return all names, sorted."""
        self._scan()
        return sorted({*self._targets, *self._loaded})

    def module(self, name: str) -> str | None:
        """Return the module that ``name`` is loaded from; None for what `add` registered."""
        self._scan()
        return self._targets[name].partition(":")[0] if name in self._targets else None

    def get(self, name: str) -> T:
        """Return the thing called ``name``; raises ``InputError`` with a did-you-mean."""
        self._scan()
        if name not in self._loaded:
            if name not in self._targets:
                known = did_you_mean(name, self.names())
                raise InputError(f"There is no '{name}' among the {self.kind}{known}")
            module, _, attribute = self._targets[name].partition(":")
            self._loaded[name] = getattr(importlib.import_module(module), attribute)
        return self._loaded[name]

    def __repr__(self) -> str:
        return f"Registry({self.kind}: {', '.join(self.names())})"

    def __contains__(self, name: object) -> bool:
        self._scan()
        return name in self._targets or name in self._loaded

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def _scan(self) -> None:
        if self._scanned:
            return
        self._scanned = True
        for point in entry_points(group=f"terrarium.{self.kind}"):
            self._targets.setdefault(point.name, point.value)
