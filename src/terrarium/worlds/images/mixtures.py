"""The world `image_mixture`: images from a law whose exact denoiser is known.

Joint table: ``component`` follows the law's weights (even, or Zipf's), in every split.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import ConfigDict, Field, model_validator

from terrarium.randomness import generator
from terrarium.worlds import splits
from terrarium.worlds.base import Array, Batch, Counterfactual, Image, JointRow, Split
from terrarium.worlds.faults import Told
from terrarium.worlds.given import check_count
from terrarium.worlds.images.factors import FACTORS, Images, Name, judged, squared_errors
from terrarium.worlds.images.law import ImageLaw

CALM = (0.3, 0.7)
"""Means of Gaussians are squeezed into this range, so that hardly a pixel leaves [0, 1]."""

OUTSIDE = 1e-4
"""Largest share of images that may have a pixel outside [0, 1]; they are drawn again."""

WAVES = 4
"""Gaussians vary along mixtures of cosines of fewer than so many half waves a side."""


class ImageMixture(Told):
    """Images from a finite set, or from a mixture of Gaussians; the right output is the input.

    The images of a set, and the Gaussians' means, are drawn once from the world `images`, by
    ``law_seed``.  ``finite``: each split has its own set of ``count`` images, so that ``test``
    shows what a network does with images of the same family that it has not seen.  ``gaussian``:
    around each mean, ``rank`` smooth directions and white noise; all splits have the same law.

    `law` gives the law with its exact denoiser.  An image of a Gaussian with a pixel outside
    [0, 1] is drawn again, which the closed form leaves out: `outside` bounds their share.

    Facts: ``component`` (int64); ``coefficient_0`` ... (standard deviations) of Gaussians.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["finite", "gaussian"] = "finite"
    count: int = Field(8, ge=1, le=4096, description="images of the set, or Gaussians")
    side: int = Field(16, ge=8, le=64, multiple_of=4)
    channels: Literal[1, 3] = 1
    vary: Annotated[int, Field(ge=2, le=len(FACTORS))] | tuple[Name, ...] = 6
    weights: Literal["even", "zipf"] = "even"
    rank: int = Field(4, ge=0, le=WAVES**2)
    spread: float = Field(0.045, ge=0, description="largest standard deviation by directions")
    floor: float = Field(0.02, ge=0, description="standard deviation of the white part")
    law_seed: int = 0

    @model_validator(mode="after")
    def _has_a_law(self) -> ImageMixture:
        if self.kind == "finite" and self.count < 2:
            raise ValueError("a finite set needs a count of at least 2")
        if self.kind == "gaussian":
            if not (self.rank and self.spread) and not self.floor:
                raise ValueError("Gaussians need a rank and spread, or a floor, above 0")
            if self.outside > OUTSIDE:
                raise ValueError(
                    f"{self.outside:.2g} of the images would leave [0, 1]; lower spread or floor"
                )
        return self

    @property
    def name(self) -> str:
        """``"image_mixture"``."""
        return "image_mixture"

    @property
    def output(self) -> Image:
        """An image like the input."""
        return Image(self.channels, self.side, self.side)

    @property
    def outside(self) -> float:
        """Upper bound (over pixels, summed) of the share of images that leave [0, 1]."""
        from scipy.special import erfc  # a tenth of a second to import

        if self.kind == "finite":
            return 0.0
        law = self.law("train")
        varying = np.square(law.directions) * law.variances[:, None, :]
        deviation = np.sqrt(2 * (varying.sum(axis=2) + law.floor))
        beyond = 0.5 * (erfc(law.means / deviation) + erfc((1 - law.means) / deviation))
        return float(law.weights @ beyond.sum(axis=1))

    def law(self, split: Split = "train") -> ImageLaw:
        """Return the exact law of a split's images (of Gaussians: the same for all)."""
        splits.check_split(split, splits.SPLITS, self.name)
        return _law(self, split if self.kind == "finite" else "train")

    def exact_denoiser(
        self, noisy: ArrayLike, sigma: ArrayLike, split: Split = "train"
    ) -> NDArray[np.float64]:
        """Return the posterior mean under a split's law; see `ImageLaw.exact_denoiser`."""
        return self.law(split).exact_denoiser(noisy, sigma)

    def sample(self, n: int, rng: np.random.Generator, split: Split = "train") -> Batch:
        """Return ``n`` images of ``split``."""
        check_count(n, self.name)
        law = self.law(split)
        # splits of one law share no row, whatever the generators that they are drawn with
        rng = generator("image mixture", split, int(rng.integers(2**63)))
        images, component, coefficient = law.sample(n, rng)
        while len(out := np.flatnonzero(((images < 0) | (images > 1)).any(axis=1))):
            images[out], component[out], coefficient[out] = law.sample(len(out), rng)
        return self._batch(images, component, coefficient)

    def _batch(self, images: Array, component: Array, coefficient: Array) -> Batch:
        shaped = images.reshape(-1, self.channels, self.side, self.side).astype(np.float32)
        facts: dict[str, Array] = {"component": np.asarray(component, np.int64)}
        for place in range(coefficient.shape[1]):
            facts[f"coefficient_{place}"] = coefficient[:, place].copy()
        return Batch(shaped, shaped.copy(), facts)

    def optimum(self, batch: Batch) -> NDArray[np.float32]:
        """Return the input."""
        return np.asarray(batch.inputs, dtype=np.float32)

    def regret(self, batch: Batch, output: Array) -> NDArray[np.float64]:
        """Return ``(n,)`` squared errors summed over channels and pixels."""
        return squared_errors(batch, output)

    def judge(self, batch: Batch, output: Sequence[Any]) -> Mapping[str, Array]:
        """Judge ``n`` images as the world `images` does."""
        return judged(batch, output)

    def joint_table(self, split: Split = "train") -> list[JointRow]:
        """Return the law of ``component``."""
        law = self.law(split)
        return [JointRow({"component": k}, float(p)) for k, p in enumerate(law.weights)]

    def counterfactuals(self, n: int, rng: np.random.Generator) -> list[Counterfactual]:
        """Return images of another component, and with the first coefficient drawn anew."""
        law = self.law("test")
        _, component, coefficient = law.sample(n, rng)
        white = rng.standard_normal((n, law.size))
        before = self._batch(law.compose(component, coefficient, white), component, coefficient)
        pairs = []
        if self.count > 1:
            other = (component + rng.integers(1, self.count, n)) % self.count
            after = self._batch(law.compose(other, coefficient, white), other, coefficient)
            pairs.append(Counterfactual("component", "image", ("component",), before, after))
        if coefficient.shape[1]:
            moved = coefficient.copy()
            moved[:, 0] = rng.standard_normal(n)
            after = self._batch(law.compose(component, moved, white), component, moved)
            name = "coefficient_0"
            pairs.append(Counterfactual(name, "first direction", (name,), before, after))
        return pairs


@functools.lru_cache(maxsize=64)
def _law(world: ImageMixture, split: str) -> ImageLaw:
    """Return the law of a world's split, made once."""
    family = Images(side=world.side, channels=world.channels, vary=world.vary)
    rng = generator("image law", world.law_seed, split)
    images = family.sample(world.count, rng, split).inputs.astype(np.float64)
    means = images.reshape(world.count, -1)
    weights = np.ones(world.count)
    if world.weights == "zipf":
        weights = 1 / np.arange(1, world.count + 1)
    shape = (world.channels, world.side, world.side)
    d, rank = means.shape[1], world.rank if world.kind == "gaussian" and world.spread else 0
    directions, variances = np.zeros((world.count, d, rank)), np.zeros((world.count, rank))
    floor = 0.0
    if world.kind == "gaussian":
        low, high = CALM
        means, floor = low + (high - low) * means, world.floor**2
        for place in range(world.count if rank else 0):
            directions[place], variances[place] = _smooth(rng, shape, rank, world.spread)
    return ImageLaw(shape, weights / weights.sum(), means, directions, variances, floor)


def _smooth(
    rng: np.random.Generator, shape: tuple[int, int, int], rank: int, spread: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return ``rank`` orthonormal smooth directions ``(d, rank)`` and their variances.

    Variances fall by half from one to the next; no pixel's standard deviation exceeds ``spread``.
    """
    channels, rows, columns = shape
    waves = [
        np.cos(np.pi * np.arange(WAVES)[:, None] * (np.arange(size) + 0.5) / size)
        for size in (rows, columns)
    ]
    basis = np.einsum("ah,bw->abhw", *waves).reshape(WAVES**2, -1)
    mixed = rng.standard_normal((rank, channels, WAVES**2)) @ basis
    directions, _ = np.linalg.qr(mixed.reshape(rank, -1).T)
    variances = 0.5 ** np.arange(rank)
    largest = (np.square(directions) @ variances).max()
    return directions, variances * spread**2 / largest
