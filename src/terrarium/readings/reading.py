"""What a model did on some examples: what it says, and its activations at named sites."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrarium.errors import InputError, did_you_mean

SEQUENCE_AXES = ("member", "n", "position", "channel")
VECTOR_AXES = ("member", "n", "channel")
IMAGE_AXES = ("member", "n", "row", "column", "channel")


@dataclass(frozen=True)
class Reading:
    """Outputs and activations of one organism (or a fleet) on a batch.

    Attributes
    ----------
    activations:
        Site (``"resid.post[2]"``) to float32 ``(member, n, position, channel)`` for sequences,
        ``(member, n, channel)`` for coordinates, ``(member, n, row, column, channel)`` for
        images.  Arrays may be memory-mapped.  Positions that an example does not have
        (``"all"`` beyond its length) are NaN, so that no instrument takes them for values.
    axes:
        The names of those axes, in order.
    positions:
        Names of the positions read (``("prompt_end",)``), along the position axis.
    says:
        ``(member, n, k)`` float32 log-probabilities of the world's ``k`` answers
        (renormalised over them) or the model's raw output for other output spaces; None where
        only activations were stored.
    facts:
        The batch's facts, ``(n,)`` each.
    model:
        What was read: the organism's key or the folder's name.
    """

    activations: Mapping[str, NDArray[np.float32]]
    axes: tuple[str, ...]
    facts: Mapping[str, NDArray[Any]]
    positions: tuple[str, ...] = ()
    says: NDArray[np.float32] | None = None
    model: str = ""
    notes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites read, in the order of the forward pass."""
        return tuple(self.activations)

    @property
    def members(self) -> int:
        """Number of members."""
        return int(next(iter(self.activations.values())).shape[0])

    @property
    def n(self) -> int:
        """Number of examples."""
        return int(next(iter(self.activations.values())).shape[1])

    def at(self, site: str, position: str | None = None) -> NDArray[np.float32]:
        """Return ``(member, n, channel)`` at one site and position (may be None if only one).

        Raises ``InputError`` for a site or position that was not read.
        """
        if site not in self.activations:
            known = did_you_mean(site, self.activations)
            raise InputError(f"The site '{site}' was not read{known}")
        values = self.activations[site]
        if "position" not in self.axes:
            return values
        if position is None and len(self.positions) == 1:
            return values[:, :, 0]
        if position is None or position not in self.positions:
            asked = "no position is named" if position is None else f"'{position}' was not read"
            known = did_you_mean(position or "", self.positions)
            raise InputError(f"Several positions may be read and {asked}{known}")
        return values[:, :, self.positions.index(position)]

    def stack(self, position: str | None = None) -> NDArray[np.float32]:
        """Return ``(site, member, n, channel)`` over all sites, which must share their width."""
        return np.stack([self.at(site, position) for site in self.sites])

    def take(self, rows: NDArray[Any]) -> Reading:
        """Return the reading of the examples that ``rows`` (mask or indices) selects."""
        return Reading(
            {site: values[:, rows] for site, values in self.activations.items()},
            self.axes,
            {name: fact[rows] for name, fact in self.facts.items()},
            self.positions,
            None if self.says is None else self.says[:, rows],
            self.model,
            self.notes,
        )

    def __repr__(self) -> str:
        """Say what was read, not the numbers."""
        sizes = dict(zip(self.axes, next(iter(self.activations.values())).shape, strict=True))
        shape = ", ".join(f"{axis}={size}" for axis, size in sizes.items() if axis != "channel")
        says = "no" if self.says is None else "x".join(str(size) for size in self.says.shape)
        return (
            f"Reading({self.model or 'unnamed'}: {shape}; sites {', '.join(self.sites)}; "
            f"positions {', '.join(self.positions) or 'none'}; says {says}; "
            f"facts {', '.join(self.facts) or 'none'})"
        )
