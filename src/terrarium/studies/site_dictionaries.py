"""Sparse dictionaries of one site of a network: what studies of pictures look for features with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from terrarium.instruments.base import dictionaries
from terrarium.instruments.dictionaries.train import Training
from terrarium.readings.hooks import capture

ROWS = 256
"""Examples in a forward pass."""


@dataclass(frozen=True)
class Fit:
    """How dictionaries are fitted: features, how many are active at once, rows shown in all."""

    features: int
    active: int
    samples: int

    @staticmethod
    def of(spec: Mapping[str, Any]) -> Fit:
        """Return the fit that a cell's spec asks for."""
        return Fit(int(spec["features"]), int(spec["active"]), int(spec["dictionary_rows"]))

    def dictionary(self, activations: NDArray[np.float32], seed: int) -> Any:
        """Return a TopK dictionary of activations ``(..., d)``, None where all rows are alike.

        Gao et al. 2024, arXiv 2406.04093.
        """
        rows = activations.reshape(-1, activations.shape[-1])
        if not np.ptp(rows, axis=0).any():
            return None
        training = Training(samples=self.samples, batch=256, dead_after=self.samples // 8)
        spec = dictionaries.get("topk")(
            features=self.features, active=self.active, training=training, seed=seed
        )
        return spec.fit(rows)


@torch.no_grad()
def activations(
    network: Any, inputs: NDArray[Any], site: str, *options: Any
) -> NDArray[np.float32]:
    """Return what a fleet of one holds at a site: ``(n, d)``, maps ``(n, rows, columns, d)``.

    ``options`` are further arguments of the network, the same for all inputs (a noise level).
    """
    parts = []
    for start in range(0, len(inputs), ROWS):
        part = np.ascontiguousarray(inputs[start : start + ROWS], np.float32)
        with capture(network, site) as kept:
            network(torch.from_numpy(part)[None], *options)
        found = kept[site][0].float()
        # maps hold their channels first
        parts.append((found.movedim(1, -1) if found.dim() == 4 else found).cpu().numpy())
    return np.concatenate(parts)


def live(fitted: Any, activations: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the features that are active anywhere in activations ``(..., d)``."""
    features = np.asarray(fitted.encode(activations.reshape(-1, activations.shape[-1])))
    return np.flatnonzero((features > 0).any(axis=0))
