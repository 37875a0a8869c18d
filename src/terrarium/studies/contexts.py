"""One organism read in all the contexts that a quirky study compares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrarium.organisms.objectives import answer_tokens
from terrarium.randomness import generator
from terrarium.readings.read import read
from terrarium.readings.reading import Reading
from terrarium.worlds.base import Batch

SPLITS = ("train", "validation", "test", "heldout_names")
"""The splits read: probes are fitted on the first, layers chosen on the second."""

POSITION = "prompt_end"
"""Where statements are read: the last prompt token, before the answer."""


@dataclass(frozen=True)
class Contexts:
    """Readings of one organism, by split, with the batches that they are readings of.

    ``pairs`` holds, by split, the readings of the same statements answered " True" and answered
    " False", at the answer token.
    """

    batches: Mapping[str, Batch]
    readings: Mapping[str, Reading]
    pairs: Mapping[str, tuple[Reading, Reading]]
    sites: tuple[str, ...]

    @property
    def layers(self) -> tuple[int, ...]:
        """Blocks before each site, from 1: how rows and figures number layers."""
        return tuple(range(1, len(self.sites) + 1))

    def features(self, split: str) -> NDArray[np.float32]:
        """Return ``(site, n, d)`` activations at `POSITION`."""
        return self.readings[split].stack(POSITION)[:, 0]

    def fact(self, split: str, name: str) -> NDArray[Any]:
        """Return a fact of a split's rows, ``(n,)``."""
        return self.batches[split].facts[name]

    def answered(self, split: str) -> NDArray[np.float64]:
        """Return ``(n,)`` log-odds with which the organism says " True"."""
        says = self.readings[split].says
        assert says is not None
        odds: NDArray[np.float64] = (says[0, :, 0] - says[0, :, 1]).astype(np.float64)
        return odds


def draw(world: Any, rows: Mapping[str, int], seed: int) -> dict[str, Batch]:
    """Return ``rows[split]`` fresh examples of each split, keyed by ``seed``."""
    return {
        split: world.sample(n, generator("measure", split, seed), split)
        for split, n in rows.items()
    }


def read_contexts(
    network: Any, world: Any, rows: Mapping[str, int], seed: int, pairs: bool = True
) -> Contexts:
    """Read ``network`` (a fleet of one) on fresh rows of every split in ``rows``."""
    batches = draw(world, rows, seed)
    answers = answer_tokens(world)
    # Not "embed": the last prompt token is the same in every row, so nothing varies there.
    sites = tuple(s for s in network.sites() if s.startswith("resid.post"))
    readings = {
        split: read(network, batch, sites, (POSITION,), answers=answers)
        for split, batch in batches.items()
    }
    both: dict[str, tuple[Reading, Reading]] = {}
    for split in ("train", "validation", "test") if pairs else ():
        yes, no = world.contrast_pair(batches[split])
        both[split] = (
            read(network, yes, sites, ("answer",)),
            read(network, no, sites, ("answer",)),
        )
    return Contexts(batches, readings, both, sites)
