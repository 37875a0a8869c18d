"""A reading's folder in the making: ``.npy`` files and a ``reading.json``, whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrarium.errors import InputError, StoreError
from terrarium.readings.reading import Reading

FORMAT = 1
"""Version of the folder's layout."""


class Writer:
    """A folder in the making: arrays are filled in place, `commit` gives it its name.

    As a context manager it removes what was not committed.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise InputError(
                f"{self.folder} holds something already; name a new folder for the reading."
            )
        self._partial = self.folder.with_name(f".{self.folder.name}.{uuid.uuid4().hex[:8]}.partial")
        self._arrays: dict[str, str] = {}
        self._shapes: dict[str, list[int]] = {}
        self._maps: list[np.memmap[Any, Any]] = []
        try:
            self._partial.mkdir(parents=True)
        except OSError as error:
            raise StoreError(f"{self.folder} cannot be written ({error.strerror}).") from error

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self._maps.clear()
        shutil.rmtree(self._partial, ignore_errors=True)

    def array(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Return a memory-mapped float32 array of ``shape`` for a site (or ``"says"``)."""
        file = f"array-{len(self._arrays):03d}.npy"
        try:
            array = np.lib.format.open_memmap(
                self._partial / file, mode="w+", dtype=np.float32, shape=shape
            )
        except OSError as error:
            raise StoreError(f"{self.folder} cannot be written ({error.strerror}).") from error
        self._arrays[name], self._shapes[name] = file, list(shape)
        self._maps.append(array)
        mapped: NDArray[np.float32] = array
        return mapped

    def commit(self, reading: Reading) -> None:
        """Write what describes the arrays and give the folder its name."""
        facts = {}
        for number, (name, fact) in enumerate(reading.facts.items()):
            facts[name] = f"fact-{number:03d}.npy"
            np.save(self._partial / facts[name], _plain_fact(name, fact), allow_pickle=False)
        described = {
            "format": FORMAT,
            "axes": reading.axes,
            "positions": reading.positions,
            "model": reading.model,
            "notes": reading.notes,
            "arrays": self._arrays,
            "shapes": self._shapes,
            "facts": facts,
        }
        try:
            text = json.dumps(described, indent=1, default=_jsonable, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InputError(f"The notes of the reading cannot be stored ({error}).") from None
        for mapped in self._maps:
            mapped.flush()
        try:
            (self._partial / "reading.json").write_text(text + "\n", encoding="utf-8")
            os.replace(self._partial, self.folder)
        except OSError as error:
            raise StoreError(f"{self.folder} cannot be written ({error.strerror}).") from error


def _plain_fact(name: str, fact: NDArray[Any]) -> NDArray[Any]:
    """Return the fact in a dtype that needs no pickling."""
    values = np.asarray(fact)
    if values.dtype != object:
        return values
    if all(isinstance(value, str) for value in values.tolist()):
        return values.astype(np.str_)
    kinds = sorted({type(value).__name__ for value in values.tolist()})
    raise InputError(
        f"The fact '{name}' mixes {', '.join(kinds)} and cannot be stored; make it one type."
    )


def _jsonable(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is not JSON")
