"""Stored readings: terrarium's own folders, and activations that the user brings along."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrarium.errors import InputError
from terrarium.readings.reading import SEQUENCE_AXES, VECTOR_AXES, Reading
from terrarium.readings.writer import FORMAT, Writer


def save_reading(reading: Reading, folder: str | Path) -> None:
    """Write ``reading`` to a new ``folder``.

    Raises ``InputError`` if the folder holds something already or a fact cannot be stored
    without pickling, ``StoreError`` if the disk refuses.
    """
    with Writer(folder) as writer:
        for site, values in reading.activations.items():
            writer.array(site, values.shape)[...] = values
        if reading.says is not None:
            writer.array("says", reading.says.shape)[...] = reading.says
        writer.commit(reading)


def load_reading(folder: str | Path) -> Reading:
    """Return the reading in ``folder``; its arrays are memory-mapped, read-only.

    Raises ``InputError`` if there is no whole reading in it.
    """
    folder = Path(folder)
    described = _described(folder)
    try:
        arrays = {
            name: np.load(folder / file, mmap_mode="r", allow_pickle=False)
            for name, file in described["arrays"].items()
        }
        facts = {
            name: np.load(folder / file, allow_pickle=False)
            for name, file in described["facts"].items()
        }
        says = arrays.pop("says", None)
        for name, shape in described["shapes"].items():
            held = says if name == "says" else arrays[name]
            if held is None or list(held.shape) != shape:
                raise ValueError(f"'{name}' should be {shape}")
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise InputError(
            f"The reading in {folder} is damaged ({' '.join(str(error).split())}); read it again."
        ) from None
    axes, positions = tuple(described["axes"]), tuple(described["positions"])
    return Reading(arrays, axes, facts, positions, says, described["model"], described["notes"])


def _described(folder: Path) -> dict[str, Any]:
    try:
        described = json.loads((folder / "reading.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"{folder} holds no reading (reading.json); give a folder written by save_reading."
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}/reading.json cannot be read ({error}).") from None
    if not isinstance(described, dict) or described.get("format") != FORMAT:
        raise InputError(f"{folder} holds no reading of format {FORMAT}; read it again.")
    return described


def load_activations(
    path: str | Path,
    facts: Mapping[str, NDArray[Any]] | str | Path | None = None,
    site: str = "activations",
) -> Reading:
    """Return the user's own activations as a `Reading`; no model is needed.

    Parameters
    ----------
    path:
        ``.npz`` or ``.safetensors``: each array of two or more axes is a site, each one-axis array
        a fact.  ``.npy``: one site.  ``.parquet``: each column of equally long lists is a site,
        each other column a fact.
    facts:
        Further facts, ``(n,)`` each: a mapping, or a ``.csv``, ``.tsv``, ``.jsonl`` or
        ``.parquet`` table with one row per example.  Beside an ``.npy`` file, a ``.csv`` of the
        same name is taken if None.
    site:
        What a lone ``.npy`` array is called.

    Sites are ``(n, channel)``, ``(n, position, channel)`` or ``(member, n, position, channel)``,
    all of them alike, in any real dtype (float32 ``.npy`` files stay memory-mapped).
    Raises ``InputError`` for files that cannot be read, pickles, NaN or infinite activations,
    and numbers of rows that differ.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"There is no file {path}; give .npz, .npy, .safetensors or .parquet.")
    if path.suffix not in _LOADERS:
        raise InputError(
            f"{path} is of no kind that holds activations; give .npz, .npy, .safetensors or "
            ".parquet (convert pickled .pt files to safetensors)."
        )
    try:
        arrays = _LOADERS[path.suffix](path, site)
    except InputError:
        raise
    except Exception as error:  # each format's library has errors of its own
        what = " ".join(str(error).split())[:200]
        raise InputError(f"{path} cannot be read as {path.suffix} ({what}).") from None
    found = {name: a for name, a in arrays.items() if a.ndim == 1}
    sites = {name: a for name, a in arrays.items() if a.ndim > 1}
    if not sites:
        raise InputError(f"{path} holds no array of shape (n, channel) or more axes.")
    beside = path.with_suffix(".csv")
    if facts is None and path.suffix == ".npy" and beside.is_file():
        facts = beside
    found |= load_facts(facts) if isinstance(facts, (str, Path)) else dict(facts or {})
    return _assembled(path, sites, found)


def load_facts(path: str | Path) -> dict[str, NDArray[Any]]:
    """Return the columns of a table, ``(n,)`` each; raises ``InputError`` if it is none."""
    import pandas as pd

    path = Path(path)
    readers: dict[str, Any] = {
        ".csv": pd.read_csv,
        ".tsv": functools.partial(pd.read_csv, sep="\t"),
        ".jsonl": functools.partial(pd.read_json, lines=True),
        ".parquet": pd.read_parquet,
    }
    if path.suffix not in readers:
        raise InputError(f"{path} is no table; give facts as .csv, .tsv, .jsonl or .parquet.")
    if not path.is_file():
        raise InputError(f"There is no file {path}; give a table with one row per example.")
    try:
        table = readers[path.suffix](path)
    except Exception as error:  # pandas passes on the errors of several parsers
        what = " ".join(str(error).split())[:200]
        raise InputError(f"{path} cannot be read as a table ({what}).") from None
    return {str(name): table[name].to_numpy() for name in table.columns}


def _assembled(
    path: Path, sites: dict[str, NDArray[Any]], facts: dict[str, NDArray[Any]]
) -> Reading:
    ranks = {a.ndim for a in sites.values()}
    if len(ranks) > 1 or not ranks <= {2, 3, 4}:
        shapes = ", ".join(f"'{name}' {a.shape}" for name, a in sites.items())
        raise InputError(
            f"{path}: all sites must be (n, channel), (n, position, channel) or (member, n, "
            f"position, channel), and they are {shapes}."
        )
    activations = {name: _values(path, name, a) for name, a in sites.items()}
    outer = {a.shape[:-1] for a in activations.values()}
    if len(outer) > 1:
        shapes = ", ".join(f"'{name}' {a.shape}" for name, a in sites.items())
        raise InputError(f"{path}: the sites' rows differ ({shapes}); they must be the same.")
    (shape,) = outer
    for name, fact in facts.items():
        if np.shape(fact)[:1] != shape[1:2]:
            raise InputError(
                f"The fact '{name}' has {len(fact)} rows and {path} has {shape[1]} examples; "
                "give one value per example."
            )
    facts = {name: np.asarray(fact) for name, fact in facts.items()}
    if len(shape) == 2:
        return Reading(activations, VECTOR_AXES, facts, model=path.stem)
    positions = tuple(str(i) for i in range(shape[2]))
    return Reading(activations, SEQUENCE_AXES, facts, positions, model=path.stem)


def _values(path: Path, name: str, array: NDArray[Any]) -> NDArray[np.float32]:
    """Return the array with its member axis as float32, checked for NaN block by block."""
    if array.dtype.kind not in "fiub":
        raise InputError(f"{path}: '{name}' is {array.dtype}; activations must be real numbers.")
    if 0 in array.shape:
        raise InputError(f"{path}: '{name}' is empty ({array.shape}); give at least one example.")
    if array.ndim < 4:
        array = array[None]
    values: NDArray[np.float32] = array.astype(np.float32, copy=False)
    block = max(1, 2**24 // max(1, int(np.prod(values.shape[2:]))))
    for member in values:
        for start in range(0, len(member), block):
            bad = ~np.isfinite(member[start : start + block].reshape(-1, *member.shape[1:]))
            if bad.any():
                row = start + int(np.argwhere(bad)[0, 0])
                raise InputError(
                    f"{path}: '{name}' holds NaN or infinity, first in row {row}; "
                    "leave such rows out."
                )
    return values


def _load_npz(path: Path, _site: str) -> dict[str, NDArray[Any]]:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _load_npy(path: Path, site: str) -> dict[str, NDArray[Any]]:
    return {site: np.load(path, mmap_mode="r", allow_pickle=False)}


def _load_safetensors(path: Path, _site: str) -> dict[str, NDArray[Any]]:
    from safetensors.torch import load_file  # numpy has no bfloat16

    return {
        name: (tensor.float() if tensor.is_floating_point() else tensor).numpy()
        for name, tensor in load_file(path).items()
    }


def _load_parquet(path: Path, _site: str) -> dict[str, NDArray[Any]]:
    import pandas as pd

    table = pd.read_parquet(path)
    arrays: dict[str, NDArray[Any]] = {}
    for name in table.columns:
        column = table[name].to_numpy()
        if not len(column) or not isinstance(column[0], (list, np.ndarray)):
            arrays[str(name)] = column
            continue
        lengths = {0 if cell is None else len(cell) for cell in column}
        if len(lengths) > 1:
            raise InputError(
                f"{path}: the lists in column '{name}' are {min(lengths)} to {max(lengths)} long; "
                "activations must be equally long."
            )
        arrays[str(name)] = np.stack([np.asarray(cell) for cell in column])
    return arrays


_LOADERS = {
    ".npz": _load_npz,
    ".npy": _load_npy,
    ".safetensors": _load_safetensors,
    ".parquet": _load_parquet,
}
