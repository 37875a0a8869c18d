"""Features of the maps before the code: what each costs, and what it adds to an image."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from terrarium.evidence.rows import Row
from terrarium.instruments.effects import Effects, what_it_adds
from terrarium.instruments.site_features import dictionary_features
from terrarium.randomness import generator
from terrarium.readings.hooks import capture
from terrarium.studies.autoencoder.pictures import GAIN, picture
from terrarium.studies.site_dictionaries import activations

SHOWN = 3
"""Images of a feature in the gallery: those where it is most active."""

LINES = 6
"""Features in the gallery: those whose removal costs most."""


@torch.no_grad()
def last_maps(network: Any, images: NDArray[np.floating]) -> str | None:
    """Return the last site of a loaded encoder that is wider than what leaves the encoder.

    None where no block is: then all that is known of an image lies in the code.
    """
    names = [name for name in network.sites() if name.startswith("encoder.block")]
    with capture(network, names) as kept:
        network(torch.from_numpy(images[:1])[None])
    widths = {name: kept[name].shape[2] for name in names if name in kept}
    wider = [name for name, width in widths.items() if width > widths[names[-1]]]
    return wider[-1] if wider else None


def some(names: NDArray[np.int64], most: int, *key: str | int) -> list[int]:
    """Return at most ``most`` of ``names``, drawn at random by ``key``, in order."""
    if len(names) <= most:
        return [int(name) for name in names]
    drawn = generator("autoencoder", "some", *key).choice(names, most, replace=False)
    return sorted(int(name) for name in drawn)


def feature_pictures(
    network: Any, site: str, fitted: Any, effects: Effects, images: NDArray[np.float32]
) -> list[Row]:
    """Return the features that cost most, on the images where each is most active.

    ``effects`` are those of the dictionary ``fitted`` on the PSNR.  Beside an image stands the
    output with the feature less the output without it.
    """
    loss = -effects.mean[0]
    maps = activations(network, images, site)
    found = np.asarray(fitted.encode(maps), np.float64)
    seen = found.reshape(len(images), -1, found.shape[-1]).max(axis=1)
    rows = []
    for place in np.argsort(-loss, kind="stable")[:LINES]:
        j = int(effects.names[place].split()[-1])
        top = np.argsort(-seen[:, j], kind="stable")[:SHOWN]
        added = what_it_adds(network, images[top], site, dictionary_features(fitted, [j]))[0, 0]
        line = f"feature {j} ({loss[place]:.2f} dB)"
        for rank, (image, change) in enumerate(zip(images[top], added, strict=True), start=1):
            for column, shown in (("image", image), ("adds", 0.5 + GAIN * change)):
                rows.append(
                    picture("features", line, f"{column} {rank}", shown, float(loss[place]))
                )
    return rows
