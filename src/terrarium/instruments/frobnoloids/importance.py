"""Does a feature matter?  Its exact effect against random directions of the same displacement."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from terrarium.errors import InputError
from terrarium.instruments.effects import Effects
from terrarium.instruments.frobnoloids.scores import Score, by_group

_OPTION = {"random": "randoms", "varying": "varying"}  # of exact_effects


def importance(
    effects: Effects,
    groups: NDArray[Any] | None = None,
    *,
    member: int = 0,
    worse: Literal["more", "less"] = "more",
    against: Literal["random", "varying"] = "random",
) -> Score:
    """Return how much worse the known quantity gets without each feature, in its units.

    Parameters
    ----------
    effects:
        Of `terrarium.instruments.effects.exact_effects`, with ``randoms`` of 8 or more.
    groups:
        ``(n,)`` scene, image or text of each example; the error is over groups.
    member:
        Whose effects.
    worse:
        Whether the quantity is worse where there is more of it (errors, nats) or less (dB).
    against:
        The null: each feature's random directions of all channels alike, or those in which the
        site varies.  In a random network, whose next layer favours no direction, units and the
        former are alike, so that p-values are uniform.  The latter are mixtures of what the site
        holds: to beat them is to matter more than its features do on average.  They can lie close
        to each other, so that they are no test by themselves.

    Raises ``InputError`` without random directions.
    """
    sign = 1.0 if worse == "more" else -1.0
    change = sign * effects.change[member]
    random = sign * (effects.random if against == "random" else effects.varying)[member]
    if random.shape[1] < 4:
        raise InputError(
            f"importance: the effects hold {random.shape[1]} {against} directions for each "
            f"feature; measure them with {_OPTION[against]}=8 or more."
        )
    n = change.shape[1]
    names = np.arange(n) if groups is None else np.asarray(groups)
    if names.shape != (n,):
        raise InputError(
            f"importance: {n} examples and groups of shape {names.shape}; give one for each."
        )
    codes = np.unique(names, return_inverse=True)[1].reshape(-1)
    size = int(codes.max()) + 1
    if size < 2:
        raise InputError("importance: an interval over groups needs two groups at least.")
    # the mean over examples is a ratio of sums over groups: its linearised error
    mean = change.mean(1)
    left = by_group((change - mean[:, None]).T, codes, size)
    error = np.sqrt(size / (size - 1) * (left**2).sum(0)) / n
    dead = effects.displacement[member].max(1) <= 0
    null = np.where(dead[:, None], np.nan, random.mean(2)).T
    return Score(np.where(dead, np.nan, mean), error, size - 1, null)
