"""Where readings are put together: in memory, or on disk past a limit."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrarium.errors import InputError, ModelError
from terrarium.readings.reading import IMAGE_AXES, SEQUENCE_AXES, VECTOR_AXES, Reading
from terrarium.readings.stored import load_reading
from terrarium.readings.writer import Writer


class Sink:
    """Takes the results of forward passes to their rows.

    Parameters
    ----------
    n:
        Number of examples.
    where:
        ``(n, p)`` positions, -1 where an example has none; None without sequences.
    limit, folder:
        Above ``limit`` bytes the arrays are made in ``folder``.
    stack:
        Removes a half-made folder when it closes.
    """

    def __init__(
        self,
        n: int,
        where: NDArray[np.int64] | None,
        limit: int,
        folder: str | Path | None,
        stack: ExitStack,
    ) -> None:
        self.n, self.limit, self.folder, self.stack = n, limit, folder, stack
        self.where = where
        self.arrays: dict[str, NDArray[np.float32]] = {}
        self.mass: NDArray[np.float64] | None = None
        self.bad: dict[str, set[int]] = {}
        self.writer: Writer | None = None

    def put(
        self,
        rows: NDArray[np.int64],
        found: Mapping[str, NDArray[np.float32]],
        says: NDArray[np.float32] | None,
        mass: NDArray[np.float64] | None,
    ) -> None:
        """Store one pass."""
        values = _as_images(found) | ({} if says is None else {"says": says})
        if not self.arrays:
            self._allocate(values)
        missing = None if self.where is None else self.where[rows] < 0
        for name, value in values.items():
            self.arrays[name][:, rows] = value
            self._note_bad(name, value, missing)
        if mass is not None:
            if self.mass is None:
                self.mass = np.zeros((len(mass), self.n))
            self.mass[:, rows] = mass

    def _allocate(self, values: Mapping[str, NDArray[np.float32]]) -> None:
        shapes = {name: (v.shape[0], self.n, *v.shape[2:]) for name, v in values.items()}
        size = 4 * sum(int(np.prod(shape)) for shape in shapes.values())
        if size <= self.limit:
            self.arrays = {name: np.empty(shape, np.float32) for name, shape in shapes.items()}
            return
        if self.folder is None:
            raise InputError(
                f"The reading takes {size / 2**30:.2f} GiB and the limit is "
                f"{self.limit / 2**30:.2f} GiB; name a folder to stream it to, or read fewer "
                "sites and positions."
            )
        self.writer = self.stack.enter_context(Writer(self.folder))
        self.arrays = {name: self.writer.array(name, shape) for name, shape in shapes.items()}

    def _note_bad(
        self, name: str, value: NDArray[np.float32], missing: NDArray[np.bool_] | None
    ) -> None:
        for member, part in enumerate(value):
            with np.errstate(all="ignore"):
                # a sum is finite only if all its terms are (if it overflows, look again)
                if np.isfinite(part.sum()):
                    continue
            real = part if missing is None or name == "says" else part[~missing]
            if not np.isfinite(real).all():
                self.bad.setdefault(name, set()).add(member)

    def reading(
        self, facts: Mapping[str, NDArray[Any]], labels: tuple[str, ...], model: str
    ) -> Reading:
        """Return what was stored."""
        members = next(iter(self.arrays.values())).shape[0]
        for name, bad in self.bad.items():
            if len(bad) == members:
                raise ModelError(
                    f"'{name}' holds NaN or infinity in every member; load the model in float32 "
                    "or bfloat16 (float16 overflows), or use another checkpoint."
                )
        says = self.arrays.pop("says", None)
        ndim = next(iter(self.arrays.values())).ndim
        axes = SEQUENCE_AXES if labels else IMAGE_AXES if ndim == 5 else VECTOR_AXES
        notes: dict[str, Any] = {}
        if self.mass is not None:
            notes["answer_mass"] = self.mass.mean(axis=1).tolist()
        if self.bad:
            notes["not_finite"] = {name: sorted(bad) for name, bad in self.bad.items()}
        reading = Reading(self.arrays, axes, dict(facts), labels, says, model, notes)
        if self.writer is None:
            return reading
        self.writer.commit(reading)
        return load_reading(self.writer.folder)


def _as_images(found: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    """Put the channel last in images; beside images a vector is an image of one pixel."""
    if all(value.ndim < 5 for value in found.values()):
        return dict(found)
    return {
        name: np.moveaxis(value, 2, -1) if value.ndim == 5 else value[:, :, None, None]
        for name, value in found.items()
    }
