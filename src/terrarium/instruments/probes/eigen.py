"""The leading eigenvector of a symmetric matrix, reproducibly."""

from __future__ import annotations

import numpy as np
import scipy.sparse.linalg
from numpy.typing import NDArray

from terrarium.errors import InputError

Float = NDArray[np.float64]
_DENSE = 512  # below this width the full decomposition is quicker than Lanczos


def leading_eigenvector(matrix: Float, what: str) -> Float:
    """Return the unit eigenvector ``(d,)`` of the algebraically largest eigenvalue.

    ``matrix`` is ``(d, d)``, symmetric, not necessarily positive.  The sign is arbitrary.  Raises
    ``InputError`` (its sentence starts with ``what``) for the zero matrix.
    """
    if not bool(matrix.any()):
        raise InputError(f"{what}: the pairs do not vary, so no direction stands out; give others.")
    if len(matrix) > _DENSE:
        start = np.random.default_rng(0).standard_normal(len(matrix))
        try:
            _, vectors = scipy.sparse.linalg.eigsh(matrix, k=1, which="LA", v0=start)
            leading: Float = vectors[:, 0]
            return leading
        except scipy.sparse.linalg.ArpackNoConvergence:
            pass  # nearly equal eigenvalues: decompose in full
    return np.linalg.eigh(matrix)[1][:, -1]
