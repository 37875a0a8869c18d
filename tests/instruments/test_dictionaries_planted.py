"""Features planted in superposition are found; where there are none, nothing is claimed."""

import numpy as np
import pytest

from terrarium.instruments.dictionaries.kinds import BatchTopK, TopK
from terrarium.instruments.dictionaries.metrics import chance_cosine, evaluate, matched_cosine
from terrarium.instruments.dictionaries.train import Training

D, TRUE, ACTIVE = 64, 128, 5


def superposition(n, seed, directions):
    """Rows ``(n, 64)``: on average 5 of 128 unit directions, of varying strength."""
    rng = np.random.default_rng(seed)
    on = rng.random((n, TRUE), np.float32) < ACTIVE / TRUE
    strength = on * rng.gamma(4.0, 0.25, (n, TRUE)).astype(np.float32)
    return (strength @ directions).astype(np.float32)


def planted(seed=0):
    directions = np.random.default_rng(seed + 100).standard_normal((TRUE, D)).astype(np.float32)
    return directions / np.linalg.norm(directions, axis=1, keepdims=True)


@pytest.mark.parametrize("kind", [TopK, BatchTopK])
def test_planted_features_are_recovered(kind):
    truth = planted()
    x = superposition(40_000, 0, truth)
    fitted = kind(192, Training(samples=500_000, batch=512), active=ACTIVE).fit(x)
    match = matched_cosine(truth, fitted.directions)
    assert match.mean_max > 0.95
    assert match.mean_paired > 0.9
    null = chance_cosine(truth, fitted.k, np.random.default_rng(0), draws=5)
    assert null.max() < 0.45
    assert evaluate(fitted, superposition(5_000, 1, truth)).fvu < 0.2


def test_rows_without_features_yield_none():
    """The null: normal rows of the same covariance, against the same directions.

    Their dictionary is nearer than random directions, for the covariance alone tells something.
    """
    truth = planted()
    x = superposition(20_000, 0, truth)
    noise = np.random.default_rng(5).multivariate_normal(x.mean(0), np.cov(x.T), 20_000)
    fitted = TopK(192, Training(samples=100_000, batch=512), active=ACTIVE).fit(noise)
    assert matched_cosine(truth, fitted.directions).best.max() < 0.75
    assert matched_cosine(truth, fitted.directions).mean_max < 0.5
