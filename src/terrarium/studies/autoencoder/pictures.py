"""Pictures of what is kept and of what each latent adds, as rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrarium.evidence.rows import Row, measured
from terrarium.figures.gallery import png_uri
from terrarium.instruments.effects import what_it_adds
from terrarium.instruments.site_features import units
from terrarium.studies.autoencoder.baselines import decibel

SHOWN = 4
"""Images in a gallery."""

GAIN = 3.0
"""By how much differences are enlarged."""

LINES = 12
"""Most latents in a gallery."""


def kept_pictures(
    images: NDArray[np.floating], made: Mapping[str, NDArray[np.floating]], own: str
) -> list[Row]:
    """Return images, what each coder makes of them, and the network's error map.

    The map is the error of each pixel (root mean square over channels) over its largest there.
    """
    rows = []
    for place, image in enumerate(images[:SHOWN]):
        error = np.square(made[own][place] - image).mean(axis=0)
        seen = np.sqrt(error)
        shown = {"image": image, **{name: x[place] for name, x in made.items()}}
        shown["difference"] = 0.5 + GAIN * (made[own][place] - image)
        shown["error map"] = seen / max(float(seen.max()), 1e-12)
        db = decibel(float(error.mean()))
        rows += [
            picture("kept", f"{place + 1} ({db:.1f} dB)", name, x, db) for name, x in shown.items()
        ]
    return rows


def added_pictures(
    network: Any, images: NDArray[np.floating], site: str, effects: NDArray[np.floating]
) -> list[Row]:
    """Return what each latent adds to some images: the output with it, less with its mean.

    The latents that matter most, by ``effects`` ``(k,)`` in dB, and the largest first.
    """
    top = np.argsort(-effects)[:LINES]
    added = what_it_adds(
        network, images[:SHOWN], site, units(len(effects), top.tolist()), how="mean"
    )[0]
    rows = []
    for j, changes in zip(top, added, strict=True):
        line = f"latent {j} ({effects[j]:.2f} dB)"
        rows += [
            picture("added", line, str(place + 1), 0.5 + GAIN * change, float(effects[j]))
            for place, change in enumerate(changes)
        ]
    rows += [
        picture("added", "image", str(place + 1), image, 0.0)
        for place, image in enumerate(images[:SHOWN])
    ]
    return rows


def picture(gallery: str, line: str, column: str, image: Any, value: float) -> Row:
    """Return an image of a gallery ``(channels, rows, columns)`` as a row; ``value`` in dB."""
    told = {"gallery": gallery, "line": line, "column": column, "image": png_uri(image)}
    return measured("picture", value, unit="dB", n=1, **told)
