"""Laws of images under which the best denoiser is known in closed form.

With ``y = x + sigma * n`` and white Gaussian ``n``, the denoiser of least mean squared error is the
posterior mean ``E[x | y]`` (Karras et al. 2022, arXiv 2206.00364, appendix B.3 for a finite set).
For a mixture of Gaussians it is the mean of each component's Wiener filter, weighted by the
component's posterior probability; a finite set is the mixture whose components have no spread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from terrarium.errors import InputError

Float64 = NDArray[np.float64]

_CHUNK_NUMBERS = 1 << 22
"""Numbers held at once by the largest intermediate array (32 MB)."""

_PRODUCTS = 0.01
"""Above this level a finite set's distances may come from one matrix product: rounding stays under
1e-9 of a posterior's logarithm for pixels between 0 and 1."""

_ALL_NOISE = 1e100
"""Levels above count as infinite: their squares would overflow."""


@dataclass(frozen=True, eq=False)
class ImageLaw:
    """A mixture of ``k`` Gaussians on images of ``d`` numbers, low-rank plus white.

    Component ``j`` has mean ``means[j]`` and covariance
    ``directions[j] @ diag(variances[j]) @ directions[j].T + floor * I``.

    Attributes
    ----------
    shape:
        ``(channels, rows, columns)``; d is their product.
    weights:
        ``(k,)`` prior probabilities, positive, together 1.
    means:
        ``(k, d)``.
    directions:
        ``(k, d, r)`` with orthonormal columns; r may be 0.
    variances:
        ``(k, r)``, positive.
    floor:
        Variance of the white part; 0 for none.
    """

    shape: tuple[int, int, int]
    weights: Float64
    means: Float64
    directions: Float64
    variances: Float64
    floor: float = 0.0

    def __repr__(self) -> str:
        k, d, r = self.directions.shape
        kind = f"rank {r}, floor {self.floor:g}" if r or self.floor else "a finite set"
        return f"ImageLaw({k} components on {d} numbers: {kind})"

    @property
    def size(self) -> int:
        """Numbers in an image."""
        return int(np.prod(self.shape))

    @cached_property
    def mean(self) -> Float64:
        """The law's mean ``(d,)``."""
        return np.asarray(self.weights @ self.means)

    @cached_property
    def covariance(self) -> Float64:
        """The law's covariance ``(d, d)``."""
        off = (self.means - self.mean) * np.sqrt(self.weights)[:, None]
        wide = self.directions * np.sqrt(self.weights[:, None] * self.variances)[:, None, :]
        wide = wide.transpose(1, 0, 2).reshape(self.size, -1)
        return np.asarray(off.T @ off + wide @ wide.T + self.floor * np.eye(self.size))

    @cached_property
    def _spectrum(self) -> tuple[Float64, Float64]:
        """Eigenvalues ``(d,)`` and eigenvectors ``(d, d)`` of the covariance."""
        values, vectors = np.linalg.eigh(self.covariance)
        return np.maximum(values, 0), vectors

    def sample(
        self, n: int, rng: np.random.Generator
    ) -> tuple[Float64, NDArray[np.int64], Float64]:
        """Return ``n`` images ``(n, d)``, their components ``(n,)`` and coefficients ``(n, r)``.

        Coefficients are in standard deviations along the component's directions.
        """
        component = rng.choice(len(self.weights), size=n, p=self.weights)
        coefficient = rng.standard_normal((n, self.variances.shape[1]))
        white = rng.standard_normal((n, self.size))
        return self.compose(component, coefficient, white), component, coefficient

    def compose(
        self, component: NDArray[np.int64], coefficient: Float64, white: Float64
    ) -> Float64:
        """Return the images ``(n, d)`` of components, coefficients and white noise ``(n, d)``."""
        moved = coefficient * np.sqrt(self.variances[component])
        return np.asarray(
            self.means[component]
            + np.einsum("ndr,nr->nd", self.directions[component], moved)
            + np.sqrt(self.floor) * white
        )

    def exact_denoiser(self, noisy: ArrayLike, sigma: ArrayLike) -> Float64:
        """Return the posterior mean ``E[x | x + sigma n = noisy]``, float64, shaped as ``noisy``.

        ``noisy`` is ``(n, channels, rows, columns)``; ``sigma`` one noise level (standard
        deviation per pixel) or one per row, from 0 (the nearest point of the law's support; for
        equal distances weighted as the prior) to infinity (the law's mean).  Raises
        ``InputError`` for other shapes and levels.
        """
        return self._rows(noisy, sigma, self._posterior_mean, self.shape)

    def responsibilities(self, noisy: ArrayLike, sigma: ArrayLike) -> Float64:
        """Return the posterior probabilities ``(n, k)`` of the components."""
        wide = (len(self.weights),)
        return self._rows(noisy, sigma, lambda y, s: self._posterior(y, s)[0], wide)

    def log_density(self, noisy: ArrayLike, sigma: ArrayLike) -> Float64:
        """Return the log-density ``(n,)`` of noisy images, nats.

        Raises ``InputError`` where law and noise together have no density (a finite set at 0).
        """
        if self.floor == 0 and not np.all(np.asarray(sigma) > 0):
            raise InputError("Without a white part the law has no density at sigma 0; add noise.")

        def density(y: Float64, s: Float64) -> Float64:
            joint, taken, _, _ = self._joint(y, s)
            return np.asarray(_logsumexp(joint) + taken)

        return self._rows(noisy, sigma, density, ())

    def linear_denoiser(self, noisy: ArrayLike, sigma: ArrayLike) -> Float64:
        """Return the best linear (affine) denoiser's output: the Wiener filter of the whole law.

        Made from the law's mean and covariance alone; exact where the law is one Gaussian.
        """
        values, vectors = self._spectrum

        def filtered(y: Float64, s: Float64) -> Float64:
            known = _share(values[None, :], s[:, None])
            return np.asarray(self.mean + (known * ((y - self.mean) @ vectors)) @ vectors.T)

        return self._rows(noisy, sigma, filtered, self.shape)

    def nearest(self, images: ArrayLike) -> tuple[NDArray[np.int64], Float64]:
        """Return the component whose mean is nearest ``(n,)``, and the distance to it per pixel.

        The distance is the root mean squared difference.
        """
        far = self._rows(images, 1.0, lambda y, _: self._squares(y), (len(self.weights),))
        index = far.argmin(axis=1)
        return index, np.sqrt(far[np.arange(len(far)), index] / self.size)

    def nearest_denoiser(self, noisy: ArrayLike, sigma: ArrayLike = 0.0) -> Float64:
        """Return the nearest mean, whatever the noise level: maximum likelihood in a finite set."""
        index, _ = self.nearest(noisy)
        return self.means[index].reshape(-1, *self.shape)

    def _squares(self, y: Float64) -> Float64:
        """Return squared distances ``(n, k)`` of rows to the means."""
        return np.asarray(np.square(y[:, None] - self.means).sum(axis=2))

    def _products(self, y: Float64) -> Float64:
        """Return the same by one matrix product, about the law's mean: fast, and less exact."""
        x, z = self.means - self.mean, y - self.mean
        square = np.square(z).sum(axis=1)[:, None] + np.square(x).sum(axis=1) - 2 * z @ x.T
        return np.asarray(np.maximum(square, 0))

    def _rows(
        self,
        noisy: ArrayLike,
        sigma: ArrayLike,
        function: Callable[[Float64, Float64], Float64],
        out: tuple[int, ...],
    ) -> Float64:
        """Return ``function`` of rows ``(m, d)`` and levels ``(m,)``, some rows at a time."""
        y = np.asarray(noisy, np.float64)
        if y.ndim != 4 or y.shape[1:] != self.shape:
            raise InputError(f"Images of shape (n, {self.shape}) are expected; got {y.shape}.")
        try:
            levels = np.broadcast_to(np.asarray(sigma, np.float64), len(y))
        except ValueError:
            raise InputError(
                f"sigma must be one number or one per image; got {np.shape(sigma)} for {len(y)}."
            ) from None
        if not (levels >= 0).all():
            raise InputError("sigma must be 0 or more; it is a standard deviation.")
        levels = np.where(levels > _ALL_NOISE, np.inf, levels)
        # what is left of an image under infinite noise says nothing, and may be infinite itself
        y = np.where(np.isfinite(levels)[:, None], y.reshape(len(y), self.size), 0.0)
        step = max(1, _CHUNK_NUMBERS // (len(self.weights) * self.size))
        found = [
            function(y[at : at + step], levels[at : at + step]) for at in range(0, len(y), step)
        ]
        return np.concatenate([np.zeros((0, int(np.prod(out)))).reshape(0, *out),
                               *(part.reshape(-1, *out) for part in found)])  # fmt: skip

    def _joint(self, y: Float64, sigma: Float64) -> tuple[Float64, Float64, Float64, Float64]:
        """Return log p(k, y) ``(n, k)``, residuals ``(n, k, d)`` and their parts along directions.

        A finite set's residuals are left out (``k`` is 0 there) where products will do.

        What is alike for all k (by the nearest component) is taken out of the first and comes
        second ``(n, 1)``: at tiny levels it is too large for differences to survive beside it.
        At level 0 without a floor the joint is the limit's order: 0 for the nearest, else -inf.
        """
        d, r = self.directions.shape[1:]
        if not r and not self.floor and (sigma > _PRODUCTS).all():
            residual, along = np.zeros((len(y), 0, d)), np.zeros((len(y), len(self.means), 0))
            square = self._products(y)
        else:
            residual = y[:, None] - self.means
            along = np.einsum("nkd,kdr->nkr", residual, self.directions)
            across = residual - np.einsum("nkr,kdr->nkd", along, self.directions) if r else residual
            square = np.square(across).sum(axis=2)
        white = np.where(np.isfinite(sigma), self.floor + sigma**2, 1.0)[:, None]
        wide = self.variances + white[..., None]
        least = square.min(axis=1, keepdims=True)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            taken = -0.5 * least / white
            joint = -0.5 * (
                (square - least) / white
                + (np.square(along) / wide + np.log(wide)).sum(axis=2)
                + (d - r) * np.log(white)
                + d * np.log(2 * np.pi)
            )
        joint = np.where(white > 0, joint, np.where(square == least, 0.0, -np.inf))
        joint = np.where(np.isfinite(sigma)[:, None], joint, 0.0)
        return joint + np.log(self.weights), taken, residual, along

    def _posterior(self, y: Float64, sigma: Float64) -> tuple[Float64, Float64, Float64]:
        joint, _, residual, along = self._joint(y, sigma)
        return np.exp(joint - _logsumexp(joint)), residual, along

    def _posterior_mean(self, y: Float64, sigma: Float64) -> Float64:
        posterior, residual, along = self._posterior(y, sigma)
        level = sigma[:, None, None]
        white = _share(np.array(self.floor), level)
        mean = posterior @ self.means
        if self.floor:
            mean = mean + np.einsum("nk,nkd->nd", posterior, white * residual)
        if self.variances.shape[1]:
            more = (_share(self.variances + self.floor, level) - white) * along
            mean = mean + np.einsum("nk,nkr,kdr->nd", posterior, more, self.directions)
        return np.asarray(mean)


def _share(variance: Float64, sigma: Float64) -> Float64:
    """Return the Wiener gain ``variance / (variance + sigma**2)``, at every sigma.

    0 for no variance (also at sigma 0) and at infinite sigma.
    """
    total = variance + sigma**2
    with np.errstate(invalid="ignore", divide="ignore"):
        gain = variance / total
    return np.where((variance > 0) & np.isfinite(total), gain, 0.0)


def _logsumexp(x: Float64) -> Float64:
    """Return the log of the sum of exponentials over the last axis, kept with length 1."""
    top = x.max(axis=-1, keepdims=True)
    return np.asarray(top + np.log(np.exp(x - top).sum(axis=-1, keepdims=True)))
