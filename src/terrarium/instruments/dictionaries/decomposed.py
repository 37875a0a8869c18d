"""Classical baselines with the same contract: PCA, ICA and NMF, computed by scikit-learn."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn import decomposition as scikit
from sklearn.exceptions import ConvergenceWarning

from terrarium.errors import InputError
from terrarium.instruments.dictionaries.fitted import decoded
from terrarium.instruments.dictionaries.rows import encoding_rows, training_rows
from terrarium.instruments.dictionaries.sparse import whole
from terrarium.progress import Progress, Silent
from terrarium.randomness import generator

Float32 = NDArray[np.float32]


@dataclass(frozen=True, eq=False, repr=False)
class LinearDictionary:
    """A fitted linear dictionary: ``features = encoder (x - offset)``, dense and of both signs.

    ``encoder`` and ``directions`` are ``(k, d)`` float32, the directions of norm 1; ``offset``
    ``(d,)``.  The signs of features mean nothing.
    """

    encoder: Float32
    directions: Float32
    offset: Float32
    name: str = ""

    def __post_init__(self) -> None:
        _own(self, "encoder", "directions", "offset")

    @property
    def k(self) -> int:
        """Number of features."""
        return len(self.directions)

    @property
    def d(self) -> int:
        """Number of channels."""
        return int(self.directions.shape[1])

    def encode(self, x: Any) -> Float32:
        """Return features ``(..., k)`` of activations ``(..., d)``."""
        rows, lead = encoding_rows(x, self.d)
        features = np.asarray((rows - self.offset) @ self.encoder.T, np.float32)
        return features.reshape(*lead, self.k)

    def decode(self, features: Any) -> Float32:
        """Return activations ``(..., d)`` of features ``(..., k)``."""
        return decoded(features, self.directions, self.offset)

    def reconstruct(self, x: Any) -> Float32:
        """Return ``decode(encode(x))``."""
        return self.decode(self.encode(x))

    def __repr__(self) -> str:
        return f"LinearDictionary({self.name}: {self.k} features of {self.d} channels)"


@dataclass(frozen=True, eq=False, repr=False)
class NonNegativeDictionary:
    """A fitted NMF: features are the best non-negative ones for the directions, row by row.

    ``parts`` ``(k, d)`` or, where activations have both signs, ``(k, 2 d)``: one half for what
    is above zero, one for what is below.  ``directions`` ``(k, d)`` are their difference, scaled
    like the parts, which have norm 1.
    """

    parts: Float32
    d: int
    steps: int
    name: str = "nmf"

    def __post_init__(self) -> None:
        _own(self, "parts")

    @property
    def k(self) -> int:
        """Number of features."""
        return len(self.parts)

    @property
    def directions(self) -> Float32:
        """``(k, d)``: what one unit of each feature adds to the activations."""
        if self.parts.shape[1] == self.d:
            return self.parts
        return self.parts[:, : self.d] - self.parts[:, self.d :]

    def encode(self, x: Any) -> Float32:
        """Return features ``(..., k)`` of activations ``(..., d)``.

        Raises ``InputError`` for negative activations where none were there at the fit.
        """
        rows, lead = encoding_rows(x, self.d)
        halves = _halves(rows, self.parts.shape[1] == 2 * self.d)
        features = np.zeros((len(rows), self.k), np.float32)
        some = np.flatnonzero((halves > 0).any(1))
        if len(some):
            features[some] = _non_negative(halves[some], self.parts, self.steps)
        return features.reshape(*lead, self.k)

    def decode(self, features: Any) -> Float32:
        """Return activations ``(..., d)`` of features ``(..., k)``."""
        return decoded(features, self.directions, np.zeros(self.d, np.float32))

    def reconstruct(self, x: Any) -> Float32:
        """Return ``decode(encode(x))``."""
        return self.decode(self.encode(x))

    def __repr__(self) -> str:
        return f"NonNegativeDictionary({self.name}: {self.k} features of {self.d} channels)"


@dataclass(frozen=True)
class PCA:
    """Principal components; ``features`` None stands for as many as there are channels.

    Source: Pearson 1901; computed by scikit-learn.
    """

    features: int | None = None
    seed: int = 0
    name: ClassVar[str] = "pca"

    def fit(self, x: Any, progress: Progress | None = None) -> LinearDictionary:
        """Fit on ``x`` ``(n, d)`` or maps; raises ``InputError`` as all dictionaries do."""
        rows, k = _rows(x, self)
        (progress or Silent()).start(self.name, 1, "fits")
        fitted = scikit.PCA(k, svd_solver="full").fit(rows.astype(np.float64))
        (progress or Silent()).finish(self.name)
        components = fitted.components_.astype(np.float32)
        return LinearDictionary(components, components, fitted.mean_.astype(np.float32), self.name)


@dataclass(frozen=True)
class ICA:
    """Independent components by FastICA; at most as many as there are channels.

    Source: Hyvarinen & Oja 2000, Neural Networks 13; computed by scikit-learn.
    """

    features: int | None = None
    seed: int = 0
    steps: int = 400
    name: ClassVar[str] = "ica"

    def fit(self, x: Any, progress: Progress | None = None) -> LinearDictionary:
        """Fit on ``x`` ``(n, d)`` or maps; raises ``InputError`` as all dictionaries do."""
        rows, k = _rows(x, self)
        (progress or Silent()).start(self.name, 1, "fits")
        rank = int(np.linalg.matrix_rank(rows.astype(np.float64) - rows.mean(0)))
        ica = scikit.FastICA(
            min(k, rank),
            whiten="unit-variance",
            max_iter=self.steps,
            random_state=_state(self.name, self.seed),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the best found so far is kept
            fitted = ica.fit(rows.astype(np.float64))
        (progress or Silent()).finish(self.name)
        norms = np.linalg.norm(fitted.mixing_, axis=0)
        return LinearDictionary(
            (fitted.components_ * norms[:, None]).astype(np.float32),
            (fitted.mixing_ / norms).T.astype(np.float32),
            fitted.mean_.astype(np.float32),
            self.name,
        )


@dataclass(frozen=True)
class NMF:
    """Non-negative factors; activations of both signs are split into what is above and below zero.

    Source: Lee & Seung 1999, Nature 401; for activations Fel et al. 2023 (CRAFT, arXiv
    2211.10154), who have non-negative ones; computed by scikit-learn.
    """

    features: int | None = None
    seed: int = 0
    steps: int = 400
    name: ClassVar[str] = "nmf"

    def fit(self, x: Any, progress: Progress | None = None) -> NonNegativeDictionary:
        """Fit on ``x`` ``(n, d)`` or maps; raises ``InputError`` as all dictionaries do."""
        rows, k = _rows(x, self)
        (progress or Silent()).start(self.name, 1, "fits")
        halves = _halves(rows, bool((rows < 0).any()))
        state = _state(self.name, self.seed)
        nmf = scikit.NMF(k, init="nndsvda", max_iter=self.steps, random_state=state)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            parts = nmf.fit(halves.astype(np.float64)).components_
        (progress or Silent()).finish(self.name)
        norms = np.linalg.norm(parts, axis=1, keepdims=True)
        unit = (parts / np.where(norms > 0, norms, 1)).astype(np.float32)
        return NonNegativeDictionary(unit, rows.shape[1], max(self.steps, 400))


def _rows(x: Any, spec: PCA | ICA | NMF) -> tuple[NDArray[Any], int]:
    what = type(spec).__name__
    rows = training_rows(x, what)
    most = min(rows.shape)
    if spec.features is not None:
        whole(what, "features", spec.features, 1, most)
    return rows, most if spec.features is None else spec.features


def _state(name: str, seed: int) -> int:
    return int(generator("dictionary", name, seed).integers(2**31))


def _halves(rows: NDArray[Any], split: bool) -> Float32:
    values = np.asarray(rows, np.float32)
    if split:
        return np.concatenate([np.maximum(values, 0), np.maximum(-values, 0)], axis=1)
    if bool((values < 0).any()):
        raise InputError(
            "NMF was fitted on activations without a negative value and these have some; fit it "
            "on activations of both signs."
        )
    return values


def _non_negative(halves: Float32, parts: Float32, steps: int) -> Float32:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        found, *_ = scikit.non_negative_factorization(
            halves.astype(np.float64),
            H=parts.astype(np.float64),
            n_components=len(parts),
            init="custom",
            update_H=False,
            tol=1e-7,
            max_iter=steps,
        )
    return np.asarray(found, np.float32)


def _own(dictionary: Any, *names: str) -> None:
    for name in names:
        owned = np.array(getattr(dictionary, name), np.float32)
        owned.flags.writeable = False
        object.__setattr__(dictionary, name, owned)
