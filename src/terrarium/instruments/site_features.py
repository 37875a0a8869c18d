"""Features at a site: units, directions and a dictionary's features, as what can be taken out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from terrarium.errors import InputError
from terrarium.instruments.control_directions import isotropic, taking
from terrarium.instruments.control_directions import varying as varying_directions
from terrarium.randomness import generator

Float = NDArray[np.float64]


class Dictionary(Protocol):
    """What a fitted dictionary must offer: numpy in, numpy out."""

    @property
    def directions(self) -> NDArray[Any]:
        """``(k, d)``: what one unit of each feature adds to the activation."""

    def encode(self, x: NDArray[Any]) -> NDArray[Any]:
        """Return ``(n, k)`` features of ``x`` ``(n, d)``."""


@dataclass(frozen=True, eq=False)
class SiteFeatures:
    """Features at a site: how much of each there is, and which way each points.

    Attributes
    ----------
    names:
        The ``k`` features.
    directions:
        ``(k, d)``, or ``(member, k, d)`` where members have their own.
    coefficients:
        Takes activations ``(member, ..., d)``, returns ``(member, ..., k)``: the feature's part
        of an activation is its coefficient times its direction.
    """

    names: tuple[str, ...]
    directions: Float = field(repr=False)
    coefficients: Callable[[Tensor], Tensor] = field(repr=False)

    def __post_init__(self) -> None:
        shape = self.directions.shape
        if len(shape) not in (2, 3) or shape[-2] != len(self.names) or not len(self.names):
            raise InputError(
                f"Features: {len(self.names)} names and directions of shape {shape}; give at "
                "least one feature, as (feature, channel) or (member, feature, channel)."
            )
        lengths = np.linalg.norm(self.directions, axis=-1)
        if not np.isfinite(lengths).all() or bool((lengths == 0).any()):
            raise InputError("Features: a direction has length 0, or NaN; leave that feature out.")

    @property
    def width(self) -> int:
        """Channels of the site."""
        return int(self.directions.shape[-1])

    def lengths(self, members: int) -> Float:
        """Return ``(member, k)`` lengths of the directions."""
        lengths = np.linalg.norm(self.directions, axis=-1)
        return np.array(np.broadcast_to(lengths, (members, len(self.names))), np.float64)

    def with_random(
        self, along: Float, rows: Float, randoms: int, varied: int, key: Sequence[str | int]
    ) -> NDArray[np.float32]:
        """Return ``(member, k, 1 + draws, d)``: each feature's direction, then random ones.

        Parameters
        ----------
        along:
            ``(member, k, d)`` sum over examples and places of the change times the activation; it
            decides the signs, see `terrarium.instruments.control_directions.taking`.
        rows:
            ``(member, r, d)`` activations, whose covariance the ``varied`` directions have.
        randoms, varied, key:
            How many of either kind, and what decides them beside the feature's name.
        """
        members, k, d = along.shape
        own = np.broadcast_to(self.directions, (members, k, d))
        lengths = self.lengths(members)
        vectors = np.empty((members, k, 1 + randoms + varied, d), np.float32)
        vectors[:, :, 0] = own
        for j, name in enumerate(self.names):
            drawn = isotropic(randoms, d, generator("effects", *key, name))
            for m in range(members):
                rng = generator("effects, varying", *key, name)
                units = np.concatenate([drawn, varying_directions(varied, rows[m], rng)])
                vectors[m, j, 1:] = taking(units, along[m, j], own[m, j]) * lengths[m, j]
        return vectors


def units(width: int, which: Sequence[int] | None = None) -> SiteFeatures:
    """Return the units (channels) of a site of ``width`` channels, or the chosen ones."""
    chosen = list(range(width)) if which is None else [int(w) for w in which]
    if not all(0 <= unit < width for unit in chosen):
        raise InputError(f"Units {chosen} are asked for and the site has {width}, from 0.")
    return SiteFeatures(
        tuple(f"unit {unit}" for unit in chosen),
        np.eye(width)[chosen],
        lambda x: x[..., chosen],
    )


def along(directions: Any, names: Sequence[str] | None = None) -> SiteFeatures:
    """Return directions ``(k, d)`` or ``(member, k, d)`` as features, each at length 1.

    A coefficient is the activation's component along the direction, so that taking it out leaves
    the projection onto what is orthogonal.  Raises ``InputError`` for arrays of other dimensions.
    """
    vectors = np.asarray(directions, np.float64)
    if vectors.ndim not in (2, 3):
        raise InputError(
            f"Directions have shape {vectors.shape} and must be (k, d) or (member, k, d); give one "
            "direction as an array of one row."
        )
    with np.errstate(invalid="ignore", divide="ignore"):
        unit = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)

    def components(x: Tensor) -> Tensor:
        matrix = torch.from_numpy(unit).to(x)
        if matrix.dim() == 2:
            return x @ matrix.T
        flat = x.reshape(x.shape[0], -1, x.shape[-1]) @ matrix.transpose(1, 2)
        return flat.reshape(*x.shape[:-1], matrix.shape[1])

    told = names or [f"direction {i}" for i in range(vectors.shape[-2])]
    return SiteFeatures(tuple(told), np.nan_to_num(unit), components)


def dictionary_features(dictionary: Dictionary, which: Sequence[int] | None = None) -> SiteFeatures:
    """Return a fitted dictionary's features, all or the chosen ones.

    What the dictionary does not reconstruct stays in the activation when a feature is taken out.
    """
    vectors = np.asarray(dictionary.directions, np.float64)
    chosen = list(range(len(vectors))) if which is None else [int(w) for w in which]
    if not all(0 <= feature < len(vectors) for feature in chosen):
        raise InputError(f"Features {chosen} are asked for and there are {len(vectors)}, from 0.")

    def encode(x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1]).detach().cpu().float().numpy()
        found = np.asarray(dictionary.encode(rows))[:, chosen]
        return torch.from_numpy(np.ascontiguousarray(found)).to(x).reshape(*x.shape[:-1], -1)

    return SiteFeatures(tuple(f"feature {j}" for j in chosen), vectors[chosen], encode)
