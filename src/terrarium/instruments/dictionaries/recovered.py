"""How much of a network's own loss is left when a dictionary's reconstruction takes the place."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from terrarium.errors import InputError
from terrarium.organisms.network import Network
from terrarium.readings.hooks import capture, choose_sites, edit
from terrarium.readings.positions import is_sequence, resolve
from terrarium.worlds.base import Batch

LossFunction = Callable[[Tensor, Batch], Tensor]
"""Takes one member's outputs ``(n, ...)`` and the batch; gives each example's loss ``(n,)``."""

Change = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class LossRecovered:
    """A network's loss with a site as it is, reconstructed, set to zero, set to its mean.

    Each is ``(n,)``, one for each example, in the loss's own units (nats, squared error).
    """

    clean: NDArray[np.float64]
    spliced: NDArray[np.float64]
    zero: NDArray[np.float64]
    mean: NDArray[np.float64]

    @property
    def over_zero(self) -> float | None:
        """Share of the loss that zero-ablation adds which the dictionary takes back.

        ``(zero - spliced) / (zero - clean)``: 1 is perfect, 0 no better than zero-ablation.  None
        where zero-ablation adds nothing.  Source: Bricken et al. 2023.
        """
        return _share(self.zero, self.spliced, self.clean)

    @property
    def over_mean(self) -> float | None:
        """The same over mean-ablation, the harder baseline."""
        return _share(self.mean, self.spliced, self.clean)

    def __repr__(self) -> str:
        told = ["undefined" if s is None else f"{s:.3f}" for s in (self.over_zero, self.over_mean)]
        return (
            f"LossRecovered({told[0]} over zero, {told[1]} over mean; loss {self.clean.mean():.4g}"
            f" clean, {self.spliced.mean():.4g} spliced, {self.zero.mean():.4g} zero, "
            f"{self.mean.mean():.4g} mean; n {len(self.clean)})"
        )


def _share(
    worst: NDArray[np.float64], found: NDArray[np.float64], best: NDArray[np.float64]
) -> float | None:
    added = float(worst.mean() - best.mean())
    return float(worst.mean() - found.mean()) / added if added > 0 else None


def loss_recovered(
    network: Network,
    batch: Batch,
    site: str,
    dictionary: Any,
    loss: LossFunction,
    *,
    positions: str | None = None,
    member: int = 0,
    mean: Any = None,
    rows: int = 256,
) -> LossRecovered:
    """Return the loss of ``network`` with a site replaced by its reconstruction, and baselines.

    Parameters
    ----------
    network, batch, site:
        One site of a fleet, and examples.
    member:
        Which member of the fleet.
    dictionary:
        Fitted on that member's site: anything with ``encode`` and ``decode``.
    loss:
        Per-example loss in the model's own output units; see `LossFunction`.
    positions:
        For sequences the name of the positions that are replaced; None stands for all.
    mean:
        ``(d,)`` what mean-ablation sets; None stands for the mean of the replaced activations.
    rows:
        Examples per forward pass.

    Raises ``InputError`` for unknown sites, another width, and losses of the wrong shape.
    """
    (name,) = _single(choose_sites(network, site), site)
    if not 0 <= member < network.members:
        raise InputError(f"The network has {network.members} member(s), none called {member}.")
    alone = network if network.members == 1 else network.select([member])
    where = resolve(batch, (positions or "all",))[1] if is_sequence(batch) else None
    parts = [np.arange(len(batch))[s : s + rows] for s in range(0, len(batch), rows)]
    if not parts:
        raise InputError("The batch holds no examples; give at least one.")

    def once(change: Change | None) -> NDArray[np.float64]:
        found = []
        for chosen in parts:
            part, at = batch.take(chosen), None if where is None else where[chosen]
            editing = nullcontext() if change is None else edit(alone, name, change, at)
            with torch.no_grad(), editing:
                output = alone(torch.from_numpy(part.inputs)[None])[0]
                found.append(_checked(loss(output, part), len(part)))
        return np.concatenate(found)

    centre = _mean(alone, batch, name, where, parts) if mean is None else np.asarray(mean)
    return LossRecovered(
        once(None),
        once(lambda a: _last(a, lambda x: dictionary.decode(dictionary.encode(x)))),
        once(torch.zeros_like),
        once(lambda a: _last(a, lambda x: np.broadcast_to(centre, x.shape))),
    )


def _single(names: list[str], asked: str) -> list[str]:
    if len(names) != 1:
        raise InputError(f"A dictionary belongs to one site and '{asked}' names {len(names)}.")
    return names


def _checked(losses: Tensor, n: int) -> NDArray[np.float64]:
    if losses.shape != (n,):
        raise InputError(f"The loss is {tuple(losses.shape)}; give one for each of {n} examples.")
    return losses.double().cpu().numpy()


def _last(activation: Tensor, change: Callable[[Any], Any]) -> Tensor:
    """Apply ``change`` to ``(..., channel)``; images hold ``(member, n, channel, row, column)``."""
    images = activation.dim() == 5
    moved = activation.movedim(2, -1) if images else activation
    present = torch.isfinite(moved).all(-1)
    new = moved.clone()
    values = np.array(change(moved[present].float().cpu().numpy()), np.float32)
    new[present] = torch.from_numpy(values).to(activation)
    return new.movedim(-1, 2) if images else new


def _mean(
    network: Network,
    batch: Batch,
    site: str,
    where: NDArray[np.int64] | None,
    parts: list[NDArray[np.int64]],
) -> NDArray[np.float64]:
    """Return ``(d,)`` the mean of the activations that are replaced."""
    total: Any = 0.0
    count = 0
    for chosen in parts:
        part, at = batch.take(chosen), None if where is None else where[chosen]
        with torch.no_grad(), capture(network, site, at) as kept:
            network(torch.from_numpy(part.inputs)[None])
        value = kept[site].movedim(2, -1) if kept[site].dim() == 5 else kept[site]
        rows = value.reshape(-1, value.shape[-1]).double()
        rows = rows[~rows.isnan().any(1)]
        total, count = total + rows.sum(0).cpu().numpy(), count + len(rows)
    return np.asarray(total / max(count, 1))
