"""How much of the label the input gives away by itself: the input-only baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrarium.errors import InputError
from terrarium.randomness import generator
from terrarium.worlds.base import Batch

_CHUNK = 2000


@dataclass(frozen=True)
class Leakage:
    """AUROC of a linear model on the raw input, for truth, on rows that it was not fitted on.

    ``all_rows`` and ``disagreeing`` (rows where truth and the rule's label differ) are
    proportions, or None where the rows hold one class only; ``n`` and ``n_disagreeing`` count
    the rows scored.
    """

    all_rows: float | None
    disagreeing: float | None
    n: int
    n_disagreeing: int


def leakage(world: Any, n: int = 20_000, seed: int = 0, split: str = "test") -> Leakage:
    """Measure what the input alone tells about truth.

    A logistic regression (scikit-learn, L2 with C = 1) on the world's ``input_features`` is
    fitted on ``n`` rows of the training split and scored on ``n`` rows of ``split``.  An
    organism's probe says something about the organism only as far as it does better.  Rare
    digits need many rows: with few of them the leak is underestimated.

    Raises ``InputError`` if the world offers no ``input_features``, or one class only to fit.
    """
    from sklearn.linear_model import LogisticRegression  # half a second to import

    if getattr(world, "input_features", None) is None:
        raise InputError(
            f"The world '{getattr(world, 'name', world)}' has no input_features(batch); the "
            "input-only baseline needs it."
        )
    x, train = _features(world, n, seed, "train")
    truth = np.asarray(train.facts["truth"], dtype=bool)
    if truth.all() or not truth.any():
        raise InputError("The training rows are all true or all false; nothing can leak.")
    model = LogisticRegression(max_iter=1000).fit(x, truth)
    x, test = _features(world, n, seed, split)
    score = model.decision_function(x)
    label = np.asarray(test.facts["truth"], dtype=bool)
    differ = label != np.asarray(test.facts.get("rule_label", label), dtype=bool)
    return Leakage(_auroc(label, score), _auroc(label[differ], score[differ]), n, int(differ.sum()))


def _features(world: Any, n: int, seed: int, split: str) -> tuple[Any, Batch]:
    """Return ``n`` rows and their features, sparse, since nearly all of them are zero."""
    from scipy import sparse

    batch = world.sample(n, generator("leakage", seed, split), split)
    blocks = [
        sparse.csr_matrix(world.input_features(batch.take(np.arange(i, min(i + _CHUNK, n)))))
        for i in range(0, n, _CHUNK)
    ]
    return sparse.vstack(blocks, format="csr"), batch


def _auroc(label: NDArray[np.bool_], score: NDArray[np.float64]) -> float | None:
    from sklearn.metrics import roc_auc_score

    if not len(label) or label.all() or not label.any():
        return None
    return float(roc_auc_score(label, score))
