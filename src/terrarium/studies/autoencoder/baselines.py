"""What an autoencoder has to beat: PCA of the same number of components, the mean image."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from terrarium.errors import InputError

Float = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PatchPCA:
    """Principal components of square patches: as many numbers for each patch as components.

    With a patch as large as the image it is the best linear autoencoder of images (Baldi & Hornik
    1989); for a code that is a map of stride s, patches of side s have as many numbers as it.
    """

    patch: int
    mean: Float = field(repr=False)
    components: Float = field(repr=False)

    def __call__(self, images: NDArray[np.floating]) -> Float:
        """Return the reconstructions of ``(n, channels, rows, columns)``."""
        flat = to_patches(np.asarray(images, np.float64), self.patch)
        code = (flat - self.mean) @ self.components.T
        return from_patches(self.mean + code @ self.components, images.shape, self.patch)


def fit_patch_pca(images: NDArray[np.floating], components: int, patch: int) -> PatchPCA:
    """Fit `PatchPCA` to ``(n, channels, rows, columns)``; raises ``InputError`` for too few."""
    flat = to_patches(np.asarray(images, np.float64), patch)
    if not 0 < components <= flat.shape[1]:
        raise InputError(
            f"PCA of patches of {flat.shape[1]} numbers has at most as many components, not "
            f"{components}; compare with a code that is smaller than the image."
        )
    mean = flat.mean(axis=0)
    centred = flat - mean
    _, vectors = np.linalg.eigh(centred.T @ centred)
    return PatchPCA(patch, mean, vectors[:, ::-1][:, :components].T)


def to_patches(images: Float, side: int) -> Float:
    """Return ``(n * patches, channels * side * side)`` of ``(n, channels, rows, columns)``."""
    n, channels, rows, columns = images.shape
    cut = images.reshape(n, channels, rows // side, side, columns // side, side)
    return cut.transpose(0, 2, 4, 1, 3, 5).reshape(-1, channels * side * side)


def from_patches(patches: Float, shape: tuple[int, ...], side: int) -> Float:
    """Return images of ``shape`` again."""
    n, channels, rows, columns = shape
    cut = patches.reshape(n, rows // side, columns // side, channels, side, side)
    return cut.transpose(0, 3, 1, 4, 2, 5).reshape(shape)


def decibel(error: float) -> float:
    """Return a mean squared error of images in [0, 1] as a peak signal-to-noise ratio, dB."""
    return float(-10 * np.log10(max(error, 1e-12)))
