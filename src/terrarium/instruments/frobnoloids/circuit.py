"""What computes a feature: the few upstream features that keep it, against random circuits.

A circuit is a set of upstream features; all others are set to their means, and what counts is the
share of the feature's variance that is left.  Sources: Wang et al. 2023, arXiv 2211.00593 (mean
ablation, faithfulness); Marks et al. 2024, arXiv 2403.19647, sec. 3; random circuits of equal size
as the control: Shi et al. 2024, arXiv 2410.13032.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from terrarium.errors import InputError
from terrarium.instruments.frobnoloids.arrays import keyed
from terrarium.instruments.site_features import SiteFeatures
from terrarium.organisms.network import Network
from terrarium.readings.hooks import capture, edit

Float = NDArray[np.float64]
Kept = Callable[[NDArray[np.bool_]], Float]
"""Takes masks ``(sets, k)`` of the upstream features that are kept; returns the feature's values
``(sets, rows)`` with all others at their means."""
_NOTHING = 1e-9  # of the feature's variance


@dataclass(frozen=True, eq=False)
class Circuit:
    """Upstream features that compute a feature.

    Attributes
    ----------
    members:
        Indices of the upstream features, in the order in which they were taken.
    faithfulness:
        After each: the share of the feature's variance kept, 1 - mean squared change / variance;
        below 0 where the circuit does worse than the feature's mean.
    effect:
        ``(k,)`` exact effect of each upstream feature alone: mean squared change of the feature,
        in its variances, when that one is set to its mean.
    random:
        ``(draws,)`` faithfulness of random circuits of the same size, drawn from the features that
        have any effect.  The search has seen these rows and random circuits were not searched for:
        to say that a circuit is better than chance, judge both on other rows.
    """

    members: tuple[int, ...]
    faithfulness: tuple[float, ...]
    effect: Float = field(repr=False)
    random: Float = field(repr=False)


def find_circuit(
    kept: Kept,
    k: int,
    *,
    enough: float = 0.9,
    most: int = 20,
    candidates: int = 40,
    draws: int = 100,
    together: int = 64,
    key: Sequence[str | int] = (),
) -> Circuit:
    """Return the smallest circuit that greedy search finds.

    Parameters
    ----------
    kept, k:
        See `Kept` (`linear_kept` and `network_kept` make them); number of upstream features.
    enough, most, candidates:
        From the ``candidates`` upstream features of largest exact effect, the one that helps most
        is added until ``enough`` of the variance is kept, or ``most`` are in, or none helps.
    draws, together, key:
        Random circuits, from the features with any effect; masks in one call; decides the former.

    Raises ``InputError`` where the feature does not vary, or no upstream feature moves it.
    """
    full = kept(np.ones((1, k), bool))[0]
    variance = float(full.var())
    if variance <= 1e-12 * (1.0 + float(np.abs(full).max()) ** 2):
        raise InputError("The feature does not vary on these rows; there is nothing to explain.")

    def judge(masks: NDArray[np.bool_]) -> Float:
        parts = [kept(masks[at : at + together]) for at in range(0, len(masks), together)]
        return np.asarray(1.0 - ((np.concatenate(parts) - full) ** 2).mean(1) / variance)

    effect = 1.0 - judge(~np.eye(k, dtype=bool))
    pool = [int(j) for j in np.argsort(-effect, kind="stable")[:candidates] if effect[j] > _NOTHING]
    if not pool:
        raise InputError("No upstream feature moves this feature; choose another site.")
    members: list[int] = []
    reached: list[float] = []
    base = float(judge(np.zeros((1, k), bool))[0])
    while pool and len(members) < most and (reached[-1] if reached else base) < enough:
        masks = np.zeros((len(pool), k), bool)
        masks[:, members] = True
        masks[np.arange(len(pool)), pool] = True
        found = judge(masks)
        best = int(found.argmax())
        # the first always enters: alone it may help little where features multiply
        if members and found[best] <= reached[-1]:
            break
        members.append(pool.pop(best))
        reached.append(float(found[best]))
    if not members:
        members, reached = [pool[0]], [base]
    return Circuit(
        tuple(members), tuple(reached), effect, _random(judge, effect, len(members), draws, key)
    )


def _random(
    judge: Callable[[NDArray[np.bool_]], Float],
    effect: Float,
    size: int,
    draws: int,
    key: Sequence[str | int],
) -> Float:
    rng = keyed("circuit", key)
    live = np.flatnonzero(effect > _NOTHING)
    masks = np.zeros((draws, len(effect)), bool)
    for row in masks:
        row[rng.permutation(live)[:size]] = True
    return judge(masks)


def linear_kept(weights: Any, activations: Any) -> Kept:
    """Return `Kept` of a feature that is linear in its upstream: ``activations @ weights``.

    ``weights`` ``(k,)``, ``activations`` ``(rows, k)``.
    """
    w, a = np.asarray(weights, np.float64), np.asarray(activations, np.float64)
    if w.ndim != 1 or a.ndim != 2 or a.shape[1] != len(w):
        raise InputError(f"A linear circuit needs (k,) and (rows, k), got {w.shape}, {a.shape}.")
    mean = a.mean(0)
    parts = (a - mean) * w
    level = float(mean @ w)
    return lambda masks: level + masks.astype(np.float64) @ parts.T


def linear_shares(weights: Any, activations: Any) -> Float:
    """Return ``(k,)`` shares of a linear feature's variance, which sum to 1.

    Weights times covariances with the feature, over its variance; negative where one works against
    the rest.  Raises ``InputError`` where the feature does not vary.
    """
    w, a = np.asarray(weights, np.float64), np.asarray(activations, np.float64)
    centred = a - a.mean(0)
    target = centred @ w
    variance = float((target**2).mean())
    if variance <= 0:
        raise InputError("The feature does not vary on these rows; there is nothing to explain.")
    return np.asarray(w * (centred.T @ target) / len(a) / variance)


def network_kept(
    network: Network,
    inputs: Any,
    upstream: tuple[str, SiteFeatures],
    target: tuple[str, SiteFeatures],
    *,
    index: int = 0,
    member: int = 0,
    positions: NDArray[np.int64] | None = None,
) -> Kept:
    """Return `Kept` of a feature in a network: upstream features at one site, it at a later one.

    Parameters
    ----------
    network, inputs:
        A fleet, and ``(n, ...)`` inputs; all are run for each mask, so give some dozens.
    upstream, target, index:
        Site and features, and which of the target's.  What is no upstream feature (a dictionary's
        error) stays as it is.
    member:
        Of the fleet.
    positions:
        ``(n, p)`` token positions for sequences, at both sites.

    Means are over the examples and places.  Rows of the values are examples and places.
    """
    one = network.select([member]) if network.members > 1 else network
    parameters = one.member_parameters(0)
    device = parameters[0].device if parameters else torch.device("cpu")
    x = torch.as_tensor(inputs).to(device)
    (site, features), (later, wanted) = upstream, target
    one.train(False)

    def run(copies: int) -> Tensor:
        tiled: Tensor = x.repeat(copies, *(1,) * (x.dim() - 1))[None]
        return tiled

    def where(copies: int) -> NDArray[np.int64] | None:
        return None if positions is None else np.tile(positions, (copies, 1))

    with torch.no_grad(), capture(one, site, where(1)) as found:
        one(run(1))
    value = features.coefficients(_last(found[site]).float())
    mean = value.reshape(-1, value.shape[-1]).mean(0)
    directions = torch.from_numpy(features.directions.reshape(-1, features.width)).float()

    def kept(masks: NDArray[np.bool_]) -> Float:
        gone = torch.from_numpy(~masks).float()

        def ablate(a: Tensor) -> Tensor:
            last = _last(a)
            blocks = last.reshape(len(masks), len(x), *last.shape[2:]).float()
            amounts = features.coefficients(blocks[:1]) - mean
            off = gone.view(len(masks), *(1,) * (blocks.dim() - 2), -1)
            new = (blocks - (amounts * off) @ directions).reshape(last.shape)
            return new.movedim(-1, 2) if a.dim() == 5 else new

        with (
            torch.no_grad(),
            edit(one, site, ablate, where(len(masks))),
            capture(one, later, where(len(masks))) as seen,
        ):
            one(run(len(masks)))
        out = wanted.coefficients(_last(seen[later]).float())[..., index]
        return np.asarray(out.reshape(len(masks), -1).double().cpu().numpy())

    return kept


def _last(x: Tensor) -> Tensor:
    return x.movedim(2, -1) if x.dim() == 5 else x
