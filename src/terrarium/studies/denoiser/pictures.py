"""Pixels of a law's images, and differences of them, as pictures."""

from __future__ import annotations

from terrarium.figures.gallery import png_uri
from terrarium.studies.denoiser.laws import Float64
from terrarium.worlds.images.law import ImageLaw

DIFFERENCE = "difference"

GAIN = 3.0
"""By how much differences are enlarged in a gallery."""


def address(image: Float64, law: ImageLaw, difference: bool = False) -> str:
    """Return a picture in which the law's means reach from black to white; differences are grey."""
    low, high = law.means.min(), law.means.max()
    if difference:
        return png_uri(0.5 + GAIN * image / (high - low))
    return png_uri((image - low) / (high - low))
