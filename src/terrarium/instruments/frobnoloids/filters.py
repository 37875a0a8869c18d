"""Concepts of images: coordinates, borders, grids, colours, edges, Gabor responses, and so on.

Each function returns concepts by name; see `terrarium.instruments.frobnoloids.concepts.Concept`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[Any]
Maps = Mapping[str, Array]
Concepts = dict[str, Callable[[Array, Maps], Array]]


def luminance(images: Array) -> Array:
    """Return Rec. 709 luma ``(n, rows, columns)``; the mean of channels that are not RGB."""
    if images.shape[1] != 3:
        return np.asarray(images.mean(1))
    return np.asarray(np.tensordot([0.2126, 0.7152, 0.0722], images, (0, 1)))


def _places(images: Array) -> tuple[Array, Array]:
    """Return x and y from -1 to 1, ``(n, rows, columns)``."""
    n, _, rows, columns = images.shape
    y, x = np.meshgrid(np.linspace(-1, 1, rows), np.linspace(-1, 1, columns), indexing="ij")
    return np.broadcast_to(x, (n, rows, columns)), np.broadcast_to(y, (n, rows, columns))


def coordinates() -> Concepts:
    """Return x, y and the distance from the middle."""
    return {
        "x": lambda images, _: _places(images)[0],
        "y": lambda images, _: _places(images)[1],
        "radius": lambda images, _: np.hypot(*_places(images)),
    }


def polynomials() -> Concepts:
    """Return products of coordinates up to the third degree."""

    def product(a: int, b: int, images: Array, _: Maps) -> Array:
        x, y = _places(images)
        return np.asarray(x**a * y**b)

    degrees = [(a, d - a) for d in (2, 3) for a in range(d + 1)]
    return {f"x^{a} y^{b}": partial(product, a, b) for a, b in degrees}


def borders() -> Concepts:
    """Return the distance to the image's border (pixels), and the bands that padding reaches."""

    def distance(images: Array, _: Maps | None = None) -> Array:
        n, _c, rows, columns = images.shape
        y = np.minimum(np.arange(rows), np.arange(rows)[::-1])
        x = np.minimum(np.arange(columns), np.arange(columns)[::-1])
        return np.broadcast_to(np.minimum(y[:, None], x), (n, rows, columns)).astype(np.float64)

    def band(width: int, images: Array, _: Maps) -> Array:
        return np.asarray(distance(images) < width)

    bands = {f"padding {width}": partial(band, width) for width in (1, 2, 4)}
    return {"distance to border": distance, **bands}


def grids(strides: Sequence[int]) -> Concepts:
    """Return the phase of each stride's grid, as a category."""

    def phase(stride: int, axis: int, images: Array, _: Maps) -> Array:
        n, _c, rows, columns = images.shape
        at = np.arange((rows, columns)[axis]) % stride
        wide = at[:, None] if axis == 0 else at[None, :]
        return np.broadcast_to(wide, (n, rows, columns))

    return {
        f"{'yx'[axis]} mod {stride}": partial(phase, stride, axis)
        for stride in strides
        for axis in (1, 0)
    }


def colours() -> Concepts:
    """Return the three channels (the first alone where there is one)."""

    def one(index: int, images: Array, _: Maps) -> Array:
        return np.asarray(images[:, min(index, images.shape[1] - 1)])

    return {name: partial(one, i) for i, name in enumerate(("red", "green", "blue"))}


def opponents() -> Concepts:
    """Return red - green, blue - yellow and saturation (largest less smallest channel)."""

    def against(weights: tuple[float, float, float], images: Array, _: Maps) -> Array:
        if images.shape[1] != 3:
            return np.zeros((len(images), *images.shape[2:]))
        return np.asarray(np.tensordot(weights, images, (0, 1)))

    return {
        "red - green": partial(against, (1.0, -1.0, 0.0)),
        "blue - yellow": partial(against, (-0.5, -0.5, 1.0)),
        "saturation": lambda images, _: images.max(1) - images.min(1),
    }


def edges(scales: Sequence[float]) -> Concepts:
    """Return Sobel gradients of the luminance, blurred by each scale, and their length."""

    def gradient(scale: float, which: str, images: Array, _: Maps) -> Array:
        smooth = ndimage.gaussian_filter(luminance(images), (0, scale, scale), mode="nearest")
        x, y = _sobel(smooth, 2, 1), _sobel(smooth, 1, 2)
        return np.asarray({"x": x, "y": y, "length": np.hypot(x, y)}[which])

    return {
        f"edge {which} at {scale:g}": partial(gradient, scale, which)
        for scale in scales
        for which in ("x", "y", "length")
    }


def _sobel(pictures: Array, along: int, across: int) -> Array:
    """Return Sobel's derivative of each image; scipy's own would blur over the images, too."""
    difference = ndimage.correlate1d(pictures, [-1, 0, 1], axis=along, mode="nearest")
    return np.asarray(ndimage.correlate1d(difference, [1, 2, 1], axis=across, mode="nearest"))


def gabors(orientations: int, wavelengths: Sequence[float]) -> Concepts:
    """Return even, odd and energy responses of Gabor filters to the luminance.

    Bandwidth of one octave: the Gaussian's standard deviation is 0.56 wavelengths (Daugman 1985).
    """

    def response(wavelength: float, angle: float, which: str, images: Array, _: Maps) -> Array:
        even, odd = gabor_kernels(wavelength, angle)
        picture = luminance(images)
        wanted = {"even": [even], "odd": [odd], "energy": [even, odd]}[which]
        found = [filtered(picture, kernel) for kernel in wanted]
        return np.asarray(np.hypot(*found) if which == "energy" else found[0])

    return {
        f"gabor {which} {wavelength:g} px {180 * i / orientations:g}°": partial(
            response, wavelength, np.pi * i / orientations, which
        )
        for wavelength in wavelengths
        for i in range(orientations)
        for which in ("even", "odd", "energy")
    }


def gabor_kernels(wavelength: float, angle: float) -> tuple[Array, Array]:
    """Return the even kernel (without mean) and the odd one, square, of odd side."""
    sigma = 0.56 * wavelength
    radius = int(np.ceil(2.5 * sigma))
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1].astype(np.float64)
    along = x * np.cos(angle) + y * np.sin(angle)
    window = np.exp(-(x**2 + y**2) / (2 * sigma**2))
    even, odd = (wave(2 * np.pi * along / wavelength) * window for wave in (np.cos, np.sin))
    even -= window * even.sum() / window.sum()
    return even / np.abs(even).sum(), odd / np.abs(odd).sum()


def filtered(pictures: Array, kernel: Array) -> Array:
    """Return ``(n, rows, columns)`` correlated with a kernel, borders continued by reflection."""
    from scipy.signal import fftconvolve

    half = [side // 2 for side in kernel.shape]
    margin = [(0, 0), (half[0], half[0]), (half[1], half[1])]
    wide = np.pad(pictures, margin, mode="symmetric")
    return np.asarray(fftconvolve(wide, kernel[None, ::-1, ::-1], mode="valid", axes=(1, 2)))


def local_statistics(scales: Sequence[float]) -> Concepts:
    """Return the mean and the variance of the luminance in a Gaussian window."""

    def statistic(scale: float, which: str, images: Array, _: Maps) -> Array:
        picture = luminance(images)
        blur = partial(ndimage.gaussian_filter, sigma=(0, scale, scale), mode="nearest")
        mean = blur(picture)
        return np.asarray(mean if which == "mean" else np.maximum(blur(picture**2) - mean**2, 0))

    return {
        f"local {which} at {scale:g}": partial(statistic, scale, which)
        for scale in scales
        for which in ("mean", "variance")
    }


def _wave(frequency: tuple[float, float], images: Array, _: Maps) -> Array:
    x, y = _places(images)
    angle = np.pi * (frequency[0] * x + frequency[1] * y)  # places run over a width of 2
    return np.stack([np.sin(angle), np.cos(angle)], -1)


def harmonics(frequencies: Sequence[tuple[float, float]]) -> Concepts:
    """Return sine and cosine of each frequency and of its double and triple."""
    return {
        f"harmonic {m} of ({u:g}, {v:g})": partial(_wave, (m * u, m * v))
        for u, v in frequencies
        for m in (1, 2, 3)
    }


def beats(frequencies: Sequence[tuple[float, float]]) -> Concepts:
    """Return sine and cosine of the sum and difference of every two frequencies."""
    return {
        f"beat ({a[0]:g}, {a[1]:g}) {word} ({b[0]:g}, {b[1]:g})": partial(
            _wave, (a[0] + sign * b[0], a[1] + sign * b[1])
        )
        for i, a in enumerate(frequencies)
        for b in frequencies[:i]
        for word, sign in (("+", 1), ("-", -1))
    }


def of_distance() -> Concepts:
    """Return what follows from a known signed distance: itself, normals, curvature."""
    return {
        "distance": lambda _, known: known["distance"],
        "normals": lambda _, known: normals(known["distance"]),
        "curvature": lambda _, known: curvature(known["distance"]),
    }


def normals(distance: Array) -> Array:
    """Return the direction of the distance's gradient, ``(n, rows, columns, 2)`` as x and y."""
    y, x = np.gradient(np.asarray(distance, np.float64), axis=(1, 2))
    length = np.maximum(np.hypot(x, y), 1e-9)
    return np.stack([x / length, y / length], -1)


def curvature(distance: Array) -> Array:
    """Return the curvature of the level lines, in 1 / pixel, from -1 to 1 (beyond: one pixel)."""
    direction = normals(distance)
    dx = np.gradient(direction[..., 0], axis=2)
    dy = np.gradient(direction[..., 1], axis=1)
    return np.asarray(np.clip(dx + dy, -1.0, 1.0))


def of_mask() -> Concepts:
    """Return what follows from a known mask: itself, and the signed distance to its boundary."""

    def signed(_: Array, known: Maps) -> Array:
        inside = np.asarray(known["mask"], bool)
        far = float(np.hypot(*inside.shape[1:]))
        found = np.empty(inside.shape)
        for i, mask in enumerate(inside):
            both = [
                ndimage.distance_transform_edt(side) if not side.all() else np.full(side.shape, far)
                for side in (mask, ~mask)
            ]
            found[i] = both[1] * ~mask - both[0] * mask
        return found

    return {
        "mask": lambda _, known: np.asarray(known["mask"], bool),
        "distance to mask": signed,
    }
