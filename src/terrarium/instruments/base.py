"""The contract of probes, detectors and dictionaries: scikit-learn's, fitting and fitted apart.

An instrument's parameters stand in its constructor (frozen dataclasses); ``fit`` returns a small
frozen fitted object with ``score``.  All take leading batch axes, so that every site, seed and
condition is fitted in one call: ``x`` is ``(..., n, d)`` and labels broadcast from ``(n,)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from terrarium.errors import InputError
from terrarium.registry import Registry

Array = NDArray[Any]


@runtime_checkable
class FittedProbe(Protocol):
    """A probe that has been fitted."""

    def score(self, x: Array) -> NDArray[np.float64]:
        """Return ``(..., n)`` scores of ``x`` ``(..., n, d)``; higher means "true"."""


@runtime_checkable
class FittedLinearProbe(FittedProbe, Protocol):
    """A fitted probe with a direction: ``score(x) = x @ direction + bias``."""

    @property
    def direction(self) -> NDArray[np.float64]:
        """``(..., d)``, in units of the activations (not standardised)."""

    @property
    def bias(self) -> NDArray[np.float64]:
        """``(...,)``."""


@dataclass(frozen=True)
class ContrastPairs:
    """Activations of the same statement completed as true and as false.

    ``positive`` and ``negative`` are ``(..., n, d)``, paired row by row.
    """

    positive: Array
    negative: Array

    def __post_init__(self) -> None:
        if self.positive.shape != self.negative.shape:
            raise InputError(
                f"contrast pairs: positive is {tuple(self.positive.shape)}, negative "
                f"{tuple(self.negative.shape)}; they must be paired row by row."
            )

    def __repr__(self) -> str:
        return f"ContrastPairs(each side {'x'.join(map(str, self.positive.shape))})"


@runtime_checkable
class Probe(Protocol):
    """Reads a label from activations.  ``supervised`` says whether ``y`` is used."""

    supervised: bool

    def fit(self, x: Array, y: Array | None = None) -> FittedProbe:
        """Fit on ``x`` ``(..., n, d)`` with boolean ``y`` ``(n,)`` or ``(..., n)``.

        Raises ``InputError`` for NaN, for shapes that do not match, and for a single class
        where two are needed.
        """


@runtime_checkable
class ContrastProbe(Protocol):
    """Reads a label from contrast pairs; ``fit`` and ``score`` take `ContrastPairs`."""

    supervised: bool

    def fit(self, pairs: ContrastPairs, y: Array | None = None) -> Any:
        """Fit on the pairs; the result has ``score(pairs) -> (..., n)``."""


@runtime_checkable
class FittedDetector(Protocol):
    """A detector that has been fitted."""

    def score(self, x: Array) -> NDArray[np.float64]:
        """Return ``(..., n)`` anomaly scores of ``x`` ``(..., n, d)``; higher is odder."""


@runtime_checkable
class Detector(Protocol):
    """Tells odd activations from trusted ones; fitted on trusted rows alone, without labels."""

    def fit(self, trusted: Array) -> FittedDetector:
        """Fit on ``trusted`` ``(..., n, d)``; raises ``InputError`` for NaN or too few rows."""


@runtime_checkable
class FittedDictionary(Protocol):
    """A dictionary that has been fitted: features of activations and back."""

    @property
    def k(self) -> int:
        """Number of features."""

    @property
    def d(self) -> int:
        """Number of channels."""

    @property
    def directions(self) -> NDArray[np.float32]:
        """``(k, d)``: what one unit of each feature adds to the activations."""

    def encode(self, x: Array) -> NDArray[np.float32]:
        """Return features ``(..., k)`` of activations ``(..., d)``, row by row."""

    def decode(self, features: Array) -> NDArray[np.float32]:
        """Return activations ``(..., d)`` of features ``(..., k)``."""


@runtime_checkable
class Dictionary(Protocol):
    """Takes activations apart into features; fitted without labels.

    Unlike probes and detectors, a dictionary is fitted on one site of one member at a time, and
    the leading axes of ``x`` are examples, positions, pixels.
    """

    def fit(self, x: Array) -> FittedDictionary:
        """Fit on rows ``(n, d)`` or maps ``(n, rows, columns, d)``.

        Raises ``InputError`` for NaN, for other shapes, and for rows that are all the same.
        """


_PROBES = "terrarium.instruments.probes"
_DETECTORS = "terrarium.instruments.detectors"
_DICTIONARIES = "terrarium.instruments.dictionaries"

probes: Registry[Any] = Registry(
    "probes",
    {
        "logistic_regression": f"{_PROBES}.logistic:LogisticRegression",
        "difference_in_means": f"{_PROBES}.means:DifferenceInMeans",
        "lda": f"{_PROBES}.lda:LDA",
        "random_direction": f"{_PROBES}.random:RandomDirections",
        "contrast_logistic_regression": f"{_PROBES}.contrast:ContrastLogisticRegression",
        "contrast_difference_in_means": f"{_PROBES}.contrast:ContrastDifferenceInMeans",
        "ccs": f"{_PROBES}.ccs:CCS",
        "crc": f"{_PROBES}.crc:CRC",
        "vinc": f"{_PROBES}.vinc:VINC",
    },
)
"""All probes by name; a value is a class, called without arguments for its defaults."""

detectors: Registry[Any] = Registry(
    "detectors",
    {
        "pca_reconstruction": f"{_DETECTORS}.pca:PCAReconstruction",
        "mahalanobis": f"{_DETECTORS}.mahalanobis:Mahalanobis",
        "relative_mahalanobis": f"{_DETECTORS}.mahalanobis:RelativeMahalanobis",
        "local_outlier_factor": f"{_DETECTORS}.neighbours:LocalOutlierFactor",
        "isolation_forest": f"{_DETECTORS}.forest:IsolationForest",
        "one_class_svm": f"{_DETECTORS}.svm:OneClassSVM",
        "quantum_entropy": f"{_DETECTORS}.entropy:QuantumEntropy",
        "spectral_signature": f"{_DETECTORS}.spectral:SpectralSignature",
        "probe_log_odds": f"{_DETECTORS}.log_odds:ProbeLogOddsGaussian",
    },
)
"""All detectors by name; a value is a class, called without arguments for its defaults."""

dictionaries: Registry[Any] = Registry(
    "dictionaries",
    {
        "topk": f"{_DICTIONARIES}.kinds:TopK",
        "batch_topk": f"{_DICTIONARIES}.kinds:BatchTopK",
        "matryoshka": f"{_DICTIONARIES}.kinds:Matryoshka",
        "jump_relu": f"{_DICTIONARIES}.kinds:JumpReLU",
        "gated": f"{_DICTIONARIES}.kinds:Gated",
        "relu": f"{_DICTIONARIES}.kinds:ReLU",
        "pca": f"{_DICTIONARIES}.decomposed:PCA",
        "ica": f"{_DICTIONARIES}.decomposed:ICA",
        "nmf": f"{_DICTIONARIES}.decomposed:NMF",
    },
)
"""All dictionaries by name; a value is a class, called without arguments for its defaults."""
