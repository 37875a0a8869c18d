"""A supervised probe as a scikit-learn classifier, for pipelines, searches and scorers."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from terrarium.errors import InputError
from terrarium.instruments.probes.logistic import LogisticRegression


class ProbeClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Binary classifier whose decision function is a probe's score.

    Parameters
    ----------
    probe:
        A supervised probe of rows, such as ``LDA()``; None stands for ``LogisticRegression()``.

    Attributes
    ----------
    classes_:
        The two labels, sorted; the second is what the probe calls "true".
    probe_:
        The fitted probe.
    """

    def __init__(self, probe: Any = None) -> None:
        self.probe = probe

    def fit(self, X: Any, y: Any) -> Self:
        """Fit on ``X`` ``(n, d)`` and two-valued ``y`` ``(n,)``.

        Raises ``ValueError``, as scikit-learn wants, for what it or the probe cannot use.
        """
        X, y = validate_data(self, X, y, dtype=(np.float64, np.float32), ensure_min_samples=2)
        check_classification_targets(y)
        self.classes_ = np.unique(y)
        if len(self.classes_) != 2:
            raise ValueError(
                f"Only binary classification is supported. The target has "
                f"{len(self.classes_)} class{'es' if len(self.classes_) > 2 else ''}."
            )
        probe = LogisticRegression() if self.probe is None else self.probe
        try:
            self.probe_ = probe.fit(X, y == self.classes_[1])
        except InputError as error:
            raise ValueError(str(error)) from error
        return self

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """Return ``(n,)`` scores; above 0 means the second class."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=(np.float64, np.float32), reset=False)
        scores: NDArray[np.float64] = self.probe_.score(X)
        return scores

    def predict(self, X: Any) -> NDArray[Any]:
        """Return ``(n,)`` labels out of ``classes_``."""
        scores = self.decision_function(X)
        chosen: NDArray[Any] = self.classes_[(scores > 0).astype(int)]
        return chosen

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags
