"""Detectors as scikit-learn outlier detectors, for its pipelines, searches and checks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from terrarium.errors import InputError
from terrarium.instruments.base import detectors

T = TypeVar("T")


class DetectorEstimator(OutlierMixin, BaseEstimator):  # type: ignore[misc]
    """A terrarium detector with scikit-learn's interface: *lower* scores are odder there.

    Parameters
    ----------
    detector:
        A registry name (``"mahalanobis"``) or a detector object.  Transductive detectors are
        refused: scikit-learn scores rows one by one.
    contamination:
        Share of the training rows that `predict` calls outliers, in (0, 0.5].

    Attributes
    ----------
    detector_:
        The fitted detector.
    offset_:
        ``decision_function = score_samples - offset_``.
    """

    def __init__(self, detector: Any = "mahalanobis", contamination: float = 0.1) -> None:
        self.detector = detector
        self.contamination = contamination

    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit on trusted rows ``X`` ``(n, d)``; ``y`` is ignored.

        Raises ``ValueError`` (as scikit-learn's checks expect) where the detector refuses.
        """
        if not 0.0 < self.contamination <= 0.5:
            raise ValueError(f"contamination is {self.contamination}; give a share in (0, 0.5].")
        rows = validate_data(self, X, ensure_min_samples=2, dtype=np.float64)
        chosen = self.detector
        if isinstance(chosen, str):
            kind = _as_value_error(partial(detectors.get, chosen))
            chosen = _as_value_error(kind)
        if getattr(chosen, "transductive", False):
            raise ValueError(
                f"{type(chosen).__name__} scores whole batches and has no place in scikit-learn, "
                "which scores rows one by one; call its fit and score directly."
            )
        self.detector_ = _as_value_error(lambda: chosen.fit(rows))
        self.offset_ = np.percentile(-self.detector_.score(rows), 100.0 * self.contamination)
        return self

    def score_samples(self, X: Any) -> NDArray[np.float64]:
        """Return ``(n,)`` minus the detector's scores."""
        check_is_fitted(self)
        rows = validate_data(self, X, reset=False, dtype=np.float64)
        scores: NDArray[np.float64] = -_as_value_error(lambda: self.detector_.score(rows))
        return scores

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """Return ``(n,)`` scores with the boundary at 0; negative is an outlier."""
        shifted: NDArray[np.float64] = self.score_samples(X) - self.offset_
        return shifted

    def predict(self, X: Any) -> NDArray[np.int64]:
        """Return ``(n,)``: 1 for inliers, -1 for outliers."""
        return np.where(self.decision_function(X) < 0, -1, 1)


def _as_value_error(action: Callable[[], T]) -> T:
    try:
        return action()
    except InputError as error:
        raise ValueError(str(error)) from error
