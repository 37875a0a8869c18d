"""What every detector asks of its rows, said once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrarium.errors import InputError

Float = NDArray[np.float64]


def _numbers(x: Any, what: str, which: str) -> Float:
    try:
        raw = np.asarray(x)
        if raw.dtype.kind not in "fiub":
            raise TypeError
        values = np.array(raw, dtype=np.float64)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(
            f"{what}: the {which} rows are not an array of real numbers; "
            "give a numeric array (..., n, d)."
        ) from None
    if values.ndim < 2 or values.shape[-1] == 0:
        raise InputError(
            f"{what}: the {which} rows have shape {values.shape}; expected (..., n, d) with d > 0."
        )
    bad = int((~np.isfinite(values)).any(-1).sum())
    if bad:
        raise InputError(
            f"{what}: {bad} of the {which} rows hold NaN or infinity; find out why or drop them."
        )
    return values


def trusted_rows(x: Any, what: str, minimum: int = 2) -> Float:
    """Return trusted rows as a fresh float64 array ``(..., n, d)``.

    Raises ``InputError`` for what is not numeric or not finite, for fewer than ``minimum`` rows,
    and where all rows of one leading index are the same: nothing can be learnt from them.
    """
    values = _numbers(x, what, "trusted")
    n = values.shape[-2]
    if n < minimum:
        raise InputError(f"{what}: there are {n} trusted rows; it needs at least {minimum}.")
    same = (values == values[..., :1, :]).all((-1, -2))
    if bool(same.any()):
        where = f" at leading index {tuple(np.argwhere(same)[0].tolist())}" if same.ndim else ""
        raise InputError(
            f"{what}: the trusted rows{where} are all the same; give rows that differ."
        )
    return values


def suspect_rows(x: Any, lead: tuple[int, ...], d: int, what: str, minimum: int = 0) -> Float:
    """Return the rows to be scored as a fresh float64 array ``(..., n, d)``.

    ``lead`` and ``d`` are the leading axes and the width of the trusted rows.  The leading axes
    must be the same; a detector fitted without any scores rows with any.  Raises ``InputError``
    otherwise, for a different width, for what is not finite, and for fewer than ``minimum`` rows.
    """
    values = _numbers(x, what, "scored")
    if values.shape[-1] != d:
        raise InputError(
            f"{what}: the scored rows have width {values.shape[-1]} and the trusted rows had {d}; "
            "read both at the same site."
        )
    if lead and values.shape[:-2] != lead:
        raise InputError(
            f"{what}: the scored rows have leading axes {values.shape[:-2]} and the trusted rows "
            f"had {lead}; give the same sites and members in the same order."
        )
    if values.shape[-2] < minimum:
        raise InputError(
            f"{what}: its scores depend on the whole batch, and {values.shape[-2]} rows are too "
            f"few; give at least {minimum}."
        )
    return values
