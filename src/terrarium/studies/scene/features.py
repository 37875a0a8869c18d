"""Features of a sparse dictionary of one hidden layer: what each does to the output, and where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from terrarium.evidence.rows import Row, measured
from terrarium.instruments.site_features import dictionary_features
from terrarium.randomness import generator
from terrarium.studies.scene.layers import (
    Points,
    cost_ratio,
    kind_rows,
    ratio,
    sites_of,
    value_of,
)
from terrarium.studies.scene.removals import AS_FEATURE, FEATURE, UNIT, Float, changes, size
from terrarium.studies.site_dictionaries import Fit, activations, live

if TYPE_CHECKING:
    from terrarium.studies.scene.measure import Subject

FITTED = 8000
"""Training points whose activations a dictionary is fitted to."""

FEATURES = "features"
"""The level of the factor ``part`` where a ratio is one of features, not of units."""


class LayerDictionary:
    """A dictionary of the middle hidden layer, fitted on points of training.

    The middle one (of three: the second) has what enters and what leaves the network about as far
    away.  ``sizes`` ``(live,)`` are the root mean square changes of the output, in %, when each
    live feature is taken out; `rows` measures them.
    """

    def __init__(self, subject: Subject, fit: Fit, seed: int, *key: str | int) -> None:
        sites = sites_of(subject.network)
        self.subject, self.layer = subject, (len(sites) + 1) // 2
        self.site, self.features = sites[self.layer - 1], fit.features
        rng = generator("scene", "dictionary", *key)
        train = subject.world.sample(FITTED, rng, "train").inputs
        self.fitted = fit.dictionary(activations(subject.network, train, self.site), seed)
        self.live = np.zeros(0, np.int64)
        self.sizes: Float = np.zeros(0)

    def rows(
        self, at: Points, units: Sequence[Row], randoms: int, key: Sequence[str | int]
    ) -> list[Row]:
        """Return what features do, beside directions that move each point as far.

        ``units`` hold the footprint of the layer's units.  Only features that are active on the
        points of ``at`` count.
        """
        if self.fitted is not None:
            seen = activations(self.subject.network, at.points, self.site)
            self.live = live(self.fitted, seen)
        rows = [measured("live", float(len(self.live)), unit="features", n=self.features)]
        if len(self.live):
            own, matched = self.changes(at.points, self.live.tolist(), randoms, *key)
            self.sizes = size(own)
            rows += kind_rows(FEATURE, own, at) + kind_rows(AS_FEATURE, matched, at)
            rows.append(cost_ratio(own, matched, at).with_factors(part=FEATURES))
            areas = (
                value_of(units, "footprint", kind=UNIT, layer=self.layer),
                value_of(rows, "footprint", kind=FEATURE),
            )
            rows.append(ratio("locality", *areas, at.half).with_factors(part=FEATURES))
        return [row.with_factors(layer=self.layer) for row in rows]

    def changes(
        self, points: NDArray[np.floating], which: Sequence[int], randoms: int, *key: str | int
    ) -> tuple[Float, Float]:
        """Return the changes of the output, in %, as `removals.changes` does."""
        subject, told = self.subject, dictionary_features(self.fitted, which)
        found = changes(
            subject.network, points, self.site, told, subject.outputs, randoms, *key, FEATURES
        )
        return found[0] * subject.scale, found[1] * subject.scale


def layer_dictionary(subject: Subject, spec: Mapping[str, Any], *key: str | int) -> LayerDictionary:
    """Return the dictionary that a cell's spec asks for."""
    return LayerDictionary(subject, Fit.of(spec), int(spec["seed"]), *key)
