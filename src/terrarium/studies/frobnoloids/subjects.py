"""Whose features are scored: a dictionary's at a site, or the units of a coordinate network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrarium.instruments.site_features import SiteFeatures, dictionary_features, units
from terrarium.randomness import generator
from terrarium.studies.frobnoloids.arithmetic import arithmetic_shown
from terrarium.studies.frobnoloids.networks import Examples, Fit, activations, encoded, examples
from terrarium.studies.frobnoloids.networks import sites as sites_of
from terrarium.studies.frobnoloids.organisms import POINTS, QUIRKY
from terrarium.studies.frobnoloids.points import points_shown, with_waves
from terrarium.studies.frobnoloids.shown import Shown, shown, world_of

Float = NDArray[np.float64]

LIVE_EXAMPLES = 6
"""A feature that is active on fewer examples is dead: folds would not see it."""

STILL = 1e-6
"""A unit whose standard deviation over points is below this is dead."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A network, what it is shown, and its live features.

    Attributes
    ----------
    fitted:
        The dictionary whose features are scored; None where the features are units.
    live:
        ``(k,)`` which features (or units) are scored.
    features:
        ``(n, rows, columns, k)`` or ``(n, k)`` how much there is of each.
    runs:
        The same in other initialisations, by what was initialised anew.
    count:
        Features or units in all.
    """

    kind: tuple[str, str]
    network: Any = field(repr=False)
    fitted: Any = field(repr=False)
    shown: Shown = field(repr=False)
    given: Examples = field(repr=False)
    live: NDArray[np.int64] = field(repr=False)
    features: Float = field(repr=False)
    runs: Mapping[str, Sequence[Float]] = field(default_factory=dict, repr=False)
    count: int = 0
    seed: int = 0

    @property
    def target(self) -> SiteFeatures:
        """The live features at their site."""
        if self.fitted is None:
            width = activations(self.network, self.given.some(slice(0, 1)), self.site).shape[-1]
            return units(width, self.live.tolist())
        return dictionary_features(self.fitted, self.live.tolist())

    @property
    def site(self) -> str:
        """Where the features are read."""
        return sites_of(self.kind)[1]

    @property
    def how(self) -> Any:
        """How a feature is taken out; 0 is no absence for a sine, so that units get their mean."""
        return "zero" if self.fitted is not None else "mean"


def seen_by(spec: Mapping[str, Any], kind: tuple[str, str], seed: int) -> Shown:
    """Return what networks of a kind are shown, with all names but their own frequencies."""
    if kind[0] == POINTS:
        made = world_of(POINTS, int(spec["side"]))
        return points_shown(made, int(spec["blocks"]), int(spec["block_points"]), seed)
    if kind == QUIRKY:
        made = world_of(kind[0], int(spec["side"]))
        rng = generator("frobnoloids", "shown", seed)
        return arithmetic_shown(made, made.sample(int(spec["examples"]), rng, "test"))
    return shown(kind, int(spec["side"]), int(spec["examples"]), seed)


def named_for(seen: Shown, kind: tuple[str, str], network: Any) -> Shown:
    """Return what is shown with the names that only one network has: its own frequencies."""
    return with_waves(seen, network, network.spec.box) if kind[0] == POINTS else seen


def subject_of(
    spec: Mapping[str, Any], kind: tuple[str, str], networks: Sequence[Any], seen: Shown
) -> Subject:
    """Return the first network's features, and those of the others beside them."""
    seed = int(spec["seed"])
    given = examples(kind, seen.batch, "shown", seed)
    if kind[0] == POINTS:
        return _units(kind, networks, named_for(seen, kind, networks[0]), given, seed)
    site = sites_of(kind)[1]
    fit = Fit(int(spec["features"]), int(spec["active"]), int(spec["shown"]))
    world = world_of(kind[0], int(spec["side"]))
    rows = world.sample(int(spec["fitted"]), generator("frobnoloids", "fit", seed), "train")
    train = examples(kind, rows, "fit", seed)
    own = [fit.dictionary(networks[0], train, site, place) for place in range(len(networks))]
    others = [fit.dictionary(network, train, site, 0) for network in networks[1:]]
    x = activations(networks[0], given, site)
    features = encoded(own[0], x)
    active = features.reshape(len(seen.batch), -1, fit.features).max(1) > 0
    live = np.flatnonzero(active.sum(0) >= LIVE_EXAMPLES)
    runs = {
        "dictionary": [encoded(d, x) for d in own[1:]],
        "network": [
            encoded(d, activations(network, given, site))
            for d, network in zip(others, networks[1:], strict=True)
        ],
    }
    return Subject(
        kind, networks[0], own[0], seen, given, live, features[..., live], runs, fit.features, seed
    )


def _units(
    kind: tuple[str, str], networks: Sequence[Any], seen: Shown, given: Examples, seed: int
) -> Subject:
    site = sites_of(kind)[1]
    found = [activations(network, given, site).astype(np.float64) for network in networks]
    live = np.flatnonzero(found[0].std(0) > STILL)
    return Subject(
        kind,
        networks[0],
        None,
        seen,
        given,
        live,
        found[0][:, live],
        {"network": found[1:]},
        found[0].shape[1],
        seed,
    )
