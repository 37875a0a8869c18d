"""A probe of your own, to be compared with the built-in ones on standard organisms.

    terrarium compare examples/my_probe.py

The contract is scikit-learn's, with two differences.  ``fit`` returns a new object, which scores;
and all arrays may have leading axes (layers), so that one call fits every layer: activations are
``(..., n, d)``, labels ``(n,)`` or ``(..., n)``, scores ``(..., n)``.  Higher scores mean "true".
What cannot be fitted raises ``terrarium.errors.InputError``; `terrarium.check_probe` tests all of
it on planted data, and `terrarium compare` runs it first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from terrarium.errors import InputError


@dataclass(frozen=True)
class Ridge:
    """Least squares on labels of plus and minus one, with a penalty on the weights.

    Parameters
    ----------
    penalty:
        In units of the activations' mean variance, so that it means the same at every layer.
    """

    penalty: float = 0.1
    supervised = True

    def fit(self, x, y=None):
        """Fit on activations ``(..., n, d)`` and boolean labels."""
        x = _activations(x)
        y = _labels(y, x.shape[:-1])
        mean = x.mean(axis=-2, keepdims=True)
        centred, sign = x - mean, np.where(y, 1.0, -1.0)
        offset = sign.mean(axis=-1, keepdims=True)
        covariance = np.swapaxes(centred, -1, -2) @ centred / x.shape[-2]
        scale = np.trace(covariance, axis1=-2, axis2=-1)[..., None, None] / x.shape[-1]
        target = np.swapaxes(centred, -1, -2) @ (sign - offset)[..., None] / x.shape[-2]
        ridge = covariance + self.penalty * scale * np.eye(x.shape[-1])
        direction = np.linalg.solve(ridge, target)[..., 0]
        bias = offset[..., 0] - (mean[..., 0, :] * direction).sum(axis=-1)
        return _FittedRidge(direction, np.asarray(bias))


@dataclass(frozen=True)
class _FittedRidge:
    """The fitted probe; helpers' names begin with an underscore."""

    direction: np.ndarray
    bias: np.ndarray

    def __post_init__(self):
        self.direction.flags.writeable = False
        self.bias.flags.writeable = False

    def score(self, x):
        """Return one score for each row, ``(..., n)``."""
        x = _activations(x)
        if x.shape[-1] != self.direction.shape[-1]:
            raise InputError(f"The rows have {x.shape[-1]} channels, the probe was fitted on "
                             f"{self.direction.shape[-1]}.")  # fmt: skip
        return (x @ self.direction[..., None])[..., 0] + self.bias[..., None]


def _activations(x):
    x = np.asarray(x, dtype=np.float64)
    if x.ndim < 2 or not np.isfinite(x).all():
        raise InputError("Ridge needs finite activations (..., n, d).")
    return x


def _labels(y, shape):
    if y is None or np.shape(y)[-1:] != shape[-1:]:
        raise InputError("Ridge needs one label for each row.")
    y = np.asarray(y)
    if not np.isin(y, (0, 1)).all() or len({*y.ravel().tolist()}) != 2:
        raise InputError("Ridge needs labels of two classes, true and false.")
    return np.broadcast_to(y.astype(bool), shape)
