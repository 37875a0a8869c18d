"""Least-squares concept erasure (LEACE): make a label unreadable for every linear probe.

Source: Belrose et al. 2023, *LEACE: Perfect linear concept erasure in closed form*,
arXiv 2306.03819, theorem 4.3.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from terrarium.errors import InputError
from terrarium.instruments.base import Array
from terrarium.instruments.covariance import Float, Shrinkage, check_shrinkage, shrunk_covariance
from terrarium.instruments.detectors.rows import trusted_rows
from terrarium.instruments.interventions import Activations, edited


@dataclass(frozen=True, eq=False)
class Eraser:
    """A fitted eraser: ``x - strength * (x - mean) @ right.T @ left.T``.

    Attributes
    ----------
    mean:
        ``(..., d)``, preserved by the erasure.
    left, right:
        ``(..., d, r)`` and ``(..., r, d)`` with r the number of labels less one; ``left @ right``
        is the (oblique) projection that is removed.
    """

    mean: Float = field(repr=False)
    left: Float = field(repr=False)
    right: Float = field(repr=False)

    @property
    def projection(self) -> Float:
        """``(..., d, d)`` the matrix P of the paper: identity less what is removed."""
        kept: Float = np.eye(self.mean.shape[-1]) - self.left @ self.right
        return kept

    def __call__(self, x: Activations, strength: float = 1.0) -> Activations:
        """Return ``x`` ``(..., n, d)`` with the concept erased; same type, dtype and device.

        At strength 0 it is ``x``.  Leading axes must be those of the fit, or the fit had none.
        Raises ``InputError`` for another width or other axes, and a strength outside ``[0, 1]``.
        """
        if not 0.0 <= strength <= 1.0:
            raise InputError(f"LEACE: strength is {strength}; give a number from 0 to 1.")
        lead: tuple[int, ...] = self.mean.shape[:-1]
        d = self.mean.shape[-1]
        if x.shape[-1] != d or (lead and tuple(x.shape[:-2]) != lead):
            raise InputError(
                f"LEACE: the activations are {tuple(x.shape)} and it was fitted on "
                f"{(*lead, 'n', d)}; give the same members and width."
            )

        def change(wide: Tensor) -> Tensor:
            mean, left, right = (
                torch.as_tensor(part, dtype=wide.dtype, device=wide.device)
                for part in (self.mean[..., None, :], self.left, self.right)
            )
            return -strength * ((wide - mean) @ right.mT) @ left.mT

        return edited(x, change)


def fit_leace(x: Array, y: Any, shrinkage: Shrinkage = 0.0) -> Eraser:
    """Fit the smallest change to ``x`` after which no linear probe reads ``y`` from it.

    On the rows of the fit every class then has the same mean, which is necessary and sufficient
    for no linear predictor to beat a constant (theorem 3.1), while the mean squared change is the
    least that an affine map can make, whatever inner product measures it (theorem 4.3):
    P = I - W^+ (W S_xz)(W S_xz)^+ W, W the whitener, S_xz the cross-covariance with the one-hot
    labels.  The projection is oblique and may add variance in other directions.

    Parameters
    ----------
    x:
        ``(..., n, d)``, any float dtype; computed in float64.  n at most d is fine: the
        covariance's null space is left alone.
    y:
        Labels, two or more different ones of any type, ``(n,)`` or broadcastable to ``(..., n)``;
        the same set of labels at every leading index.
    shrinkage:
        Of the covariance in the whitener, as in
        `terrarium.instruments.covariance.shrunk_covariance`; 0 is the paper's estimator.  Erasure
        is exact with any; the change is then not the smallest on these very rows.

    Raises ``InputError`` for NaN, shapes that don't match and a single label.
    """
    check_shrinkage(shrinkage, "LEACE")
    rows = trusted_rows(x, "LEACE")
    concept = _one_hot(y, rows.shape[:-1])
    mean = rows.mean(-2)
    centred = rows - mean[..., None, :]
    covariance, _ = shrunk_covariance(centred, shrinkage)
    cross = np.swapaxes(centred, -1, -2) @ concept / rows.shape[-2]
    whiten, unwhiten = _roots(covariance)
    vectors, values, _ = np.linalg.svd(whiten @ cross, full_matrices=False)
    # A concept that is not there at all (equal class means) must not be "erased" along noise.
    largest = np.sqrt(np.square(concept).mean((-1, -2)))[..., None]
    tolerance = 1e3 * rows.shape[-1] * np.finfo(np.float64).eps * largest
    vectors = vectors * (values > tolerance)[..., None, :]
    return Eraser(mean, unwhiten @ vectors, np.swapaxes(vectors, -1, -2) @ whiten)


def _one_hot(y: Any, shape: tuple[int, ...]) -> Float:
    """Return centred one-hot labels ``(..., n, k - 1)``; the last label is implied."""
    labels = np.asarray(y)
    try:
        labels = np.broadcast_to(labels, shape)
    except ValueError:
        raise InputError(
            f"LEACE: labels are {labels.shape} for rows {shape}; give one label for each row."
        ) from None
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise InputError("LEACE: labels hold NaN or infinity; drop those rows.")
    names = np.unique(labels)
    member = labels[..., None] == names
    if len(names) < 2 or bool((member.sum(-2) == 0).any()):
        raise InputError(
            "LEACE: at least two labels are needed, all of them at each leading index."
        )
    hot = member[..., :-1].astype(np.float64)
    centred: Float = hot - hot.mean(-2, keepdims=True)
    return centred


def _roots(covariance: Float) -> tuple[Float, Float]:
    """Return the covariance's pseudo-inverse square root and its square root."""
    values, vectors = np.linalg.eigh(covariance)
    floor = values[..., -1:] * covariance.shape[-1] * np.finfo(np.float64).eps
    there = values > floor
    root = np.sqrt(np.where(there, values, 0.0))
    inverse = np.divide(1.0, root, out=np.zeros_like(root), where=there)
    turned = np.swapaxes(vectors, -1, -2)
    return (vectors * inverse[..., None, :]) @ turned, (vectors * root[..., None, :]) @ turned
