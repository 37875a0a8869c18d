"""Supervised probes against scikit-learn, closed forms and planted truth."""

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
from sklearn.covariance import LedoitWolf, ledoit_wolf
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression as Judge
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from terrarium.errors import InputError
from terrarium.instruments.base import ContrastPairs
from terrarium.instruments.metrics import auroc, optional
from terrarium.instruments.probes.contrast import (
    ContrastDifferenceInMeans,
    ContrastLogisticRegression,
)
from terrarium.instruments.probes.lda import LDA
from terrarium.instruments.probes.logistic import LogisticRegression
from terrarium.instruments.probes.means import DifferenceInMeans
from terrarium.instruments.probes.random import RandomDirections


def activations(n, d, seed=0, strength=1.0, dtype=np.float64, offset=3.0):
    """Rows with a steep spectrum and an offset, as residual streams have; labels along one axis."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.standard_normal((d, d)))[0]
    y = rng.random(n) < 0.5
    z = rng.standard_normal((n, d)) * np.arange(1, d + 1) ** -0.75
    z[:, d // 3] += strength * np.where(y, 0.5, -0.5)
    return (z @ axes.T + offset * rng.standard_normal(d)).astype(dtype), y


def objective(x, y, direction, bias, C):
    margin = (x.astype(float) @ direction + bias) * np.where(y, 1, -1)
    return 0.5 * direction @ direction + C * np.logaddexp(0, -margin).sum()


# --- logistic regression ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("C", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("strength", [0.3, 4.0], ids=["overlapping", "nearly separable"])
def test_loss_and_auroc_are_those_of_scikit_learn(dtype, C, strength):
    x, y = activations(600, 24, strength=strength, dtype=dtype)
    judge = Judge(C=C, tol=1e-10, max_iter=100_000).fit(x.astype(float), y)
    probe = LogisticRegression(C=C, standardize="none").fit(x, y)
    reached = objective(x, y, probe.direction, probe.bias, C)
    best = objective(x, y, judge.coef_[0], judge.intercept_[0], C)
    assert reached <= best * (1 + (1e-8 if dtype == np.float32 else 1e-10))
    new, truth = activations(600, 24, seed=0, strength=strength, dtype=dtype)
    new = new + np.random.default_rng(9).standard_normal(new.shape) * 0.1
    difference = optional(auroc(probe.score(new), truth)) - roc_auc_score(
        truth, judge.decision_function(new)
    )
    assert abs(difference) < 0.001


@pytest.mark.parametrize("kind", ["global", "feature"])
def test_standardising_is_a_change_of_units(kind):
    x, y = activations(400, 10)
    x = x * np.geomspace(0.01, 100, 10)
    scaler = StandardScaler().fit(x)
    unit = np.sqrt(x.var(0).mean()) if kind == "global" else scaler.scale_
    judge = Judge(C=0.3, tol=1e-12, max_iter=100_000).fit((x - x.mean(0)) / unit, y)
    probe = LogisticRegression(C=0.3, standardize=kind).fit(x, y)
    assert np.allclose(probe.score(x), judge.decision_function((x - x.mean(0)) / unit), atol=1e-3)


def test_without_intercept():
    x, y = activations(400, 10)
    judge = Judge(C=0.3, tol=1e-12, max_iter=100_000, fit_intercept=False).fit(x, y)
    probe = LogisticRegression(C=0.3, standardize="none", fit_intercept=False).fit(x, y)
    assert probe.bias == 0
    assert np.allclose(probe.direction, judge.coef_[0], atol=1e-4)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_more_channels_than_rows_is_exact(dtype):
    x, y = activations(60, 200, dtype=dtype)
    judge = Judge(C=1.0, tol=1e-10, max_iter=100_000).fit(x.astype(float), y)
    probe = LogisticRegression(C=1.0, standardize="none").fit(x, y)
    best = objective(x, y, judge.coef_[0], judge.intercept_[0], 1.0)
    assert objective(x, y, probe.direction, probe.bias, 1.0) <= best * (1 + 1e-6)
    assert np.allclose(probe.direction, judge.coef_[0], atol=1e-3 * np.abs(judge.coef_).max())


@pytest.mark.parametrize("C", [1.0, 1e4, 1e8])
def test_separable_rows_converge(C):
    x, y = activations(300, 8, strength=0)
    x[:, 0] += np.where(y, 20, -20)
    probe = LogisticRegression(C=C, standardize="none").fit(x, y)
    best = scipy.optimize.minimize(
        lambda w: objective(x, y, w[:-1], w[-1], C) / C,
        np.append(probe.direction, probe.bias),
        method="BFGS",
    )
    assert objective(x, y, probe.direction, probe.bias, C) <= best.fun * C * (1 + 1e-6)
    assert optional(auroc(probe.score(x), y)) == 1.0


@pytest.mark.parametrize("size", [1e-18, 1e-6, 1e6, 1e18])
def test_the_unit_of_the_activations_does_not_matter(size):
    x, y = activations(200, 6, dtype=np.float32)
    wanted = LogisticRegression().fit(x, y).score(x)
    scaled = x * np.float32(size)
    assert np.allclose(LogisticRegression().fit(scaled, y).score(scaled), wanted, atol=1e-3)


def test_dead_and_repeated_channels_are_harmless():
    x, y = activations(200, 6)
    padded = np.concatenate([x, x[:, :1], np.full((200, 2), 5.0)], -1)
    for kind in ("global", "feature", "none"):
        probe = LogisticRegression(standardize=kind).fit(padded, y)
        assert np.abs(probe.direction[-2:]).max() < 1e-6
        assert probe.direction[0] == pytest.approx(probe.direction[6], rel=1e-3)
    constant = LogisticRegression().fit(np.ones((8, 3)), np.arange(8) < 2)
    assert constant.score(np.ones((1, 3)))[0] == pytest.approx(np.log(2 / 6), abs=1e-4)


def test_a_sweep_over_sites_and_seeds_is_a_loop_over_them():
    parts = [activations(150, 5, seed=s, dtype=np.float32) for s in range(6)]
    x = np.stack([p[0] for p in parts]).reshape(2, 3, 150, 5)
    y = np.stack([p[1] for p in parts]).reshape(2, 3, 150)
    together = LogisticRegression().fit(x, y)
    for k, (rows, truth) in enumerate(parts):
        alone = LogisticRegression().fit(rows, truth)
        assert np.array_equal(together.direction.reshape(6, 5)[k], alone.direction)
        assert together.bias.reshape(6)[k] == alone.bias


# --- difference in means, LDA -------------------------------------------------------------------


def test_difference_in_means_is_the_closed_form():
    x, y = activations(100, 7, dtype=np.float32)
    probe = DifferenceInMeans().fit(x, y)
    true, false = x[y].mean(0, dtype=float), x[~y].mean(0, dtype=float)
    assert np.allclose(probe.direction, true - false)
    middle = probe.score(((true + false) / 2)[None])
    assert middle == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("amount", [0.0, 0.2, 0.9])
def test_lda_is_that_of_scikit_learn_at_equal_shrinkage(amount):
    x, y = activations(300, 12)
    residuals = x - np.where(y[:, None], x[y].mean(0), x[~y].mean(0))
    pooled = residuals.T @ residuals / len(x)
    shrunk = (1 - amount) * pooled + amount * np.trace(pooled) / 12 * np.eye(12)
    closed = np.linalg.solve(shrunk, x[y].mean(0) - x[~y].mean(0))
    probe = LDA(shrinkage=amount).fit(x, y)
    assert np.allclose(probe.direction, closed)
    judge = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=amount).fit(x, y)
    assert np.allclose(probe.score(x), judge.decision_function(x))


def test_ledoit_wolf_is_that_of_scikit_learn():
    x, y = activations(80, 20)
    residuals = x - np.where(y[:, None], x[y].mean(0), x[~y].mean(0))
    covariance, _ = ledoit_wolf(residuals, assume_centered=True)
    probe = LDA().fit(x, y)
    assert np.allclose(probe.direction, np.linalg.solve(covariance, x[y].mean(0) - x[~y].mean(0)))
    new, truth = activations(80, 20)
    new = new + 0.2 * np.random.default_rng(5).standard_normal(new.shape)
    for judge in (
        LinearDiscriminantAnalysis(solver="eigen", shrinkage="auto"),
        LinearDiscriminantAnalysis(solver="lsqr", covariance_estimator=LedoitWolf()),
    ):
        theirs = roc_auc_score(truth, judge.fit(x, y).decision_function(new))
        assert optional(auroc(probe.score(new), truth)) == pytest.approx(theirs, abs=0.02)


def test_lda_without_shrinkage_refuses_a_singular_covariance():
    x, y = activations(10, 20)
    with pytest.raises(InputError, match="no inverse"):
        LDA(shrinkage=0).fit(x, y)


# --- contrast pairs -----------------------------------------------------------------------------


def pairs(n=300, d=6, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.random(n) < 0.5
    truth = np.linalg.qr(np.random.default_rng(42).standard_normal((d, d)))[0][:, 0]
    sign = np.where(y, 1.0, -1.0)[:, None]
    shared = rng.standard_normal((n, d)) * 2
    one = shared + sign * truth + 0.7 * rng.standard_normal((n, d)) + 3
    other = shared - sign * truth + 0.7 * rng.standard_normal((n, d)) - 1
    return ContrastPairs(one, other), y, truth


def test_contrast_logistic_regression_is_one_on_concatenated_sides():
    data, y, _ = pairs()
    both = np.concatenate([data.positive, data.negative], -1)
    judge = Judge(C=0.5, tol=1e-12, max_iter=100_000).fit(both, y)
    probe = ContrastLogisticRegression(C=0.5, standardize="none").fit(data, y)
    assert np.allclose(probe.score(data), judge.decision_function(both), atol=1e-4)
    gap = data.positive - data.negative
    judge = Judge(C=0.5, tol=1e-12, max_iter=100_000).fit(gap, y)
    probe = ContrastLogisticRegression(C=0.5, standardize="none", features="difference")
    assert np.allclose(probe.fit(data, y).score(data), judge.decision_function(gap), atol=1e-4)


@pytest.mark.parametrize("features", ["concatenated", "difference"])
def test_contrast_probes_beat_one_side_and_ignore_each_sides_mean(features):
    data, y, truth = pairs()
    fresh, answer, _ = pairs(seed=1)
    moved = ContrastPairs(data.positive + 7, data.negative - 5)
    for kind in (ContrastLogisticRegression, ContrastDifferenceInMeans):
        probe = kind(features=features).fit(data, y)
        again = kind(features=features).fit(moved, y)
        assert np.allclose(probe.score(data), again.score(moved), atol=1e-3)
        cosine = probe.direction @ truth / np.linalg.norm(probe.direction)
        assert cosine > 0.85
    one_side = LogisticRegression().fit(data.positive, y).score(fresh.positive)
    both = ContrastLogisticRegression(features=features).fit(data, y).score(fresh)
    assert optional(auroc(both, answer)) > optional(auroc(one_side, answer)) + 0.05


# --- planted truth, planted confound, null ------------------------------------------------------

SUPERVISED = [LogisticRegression(), DifferenceInMeans(), LDA()]


@pytest.mark.parametrize("probe", SUPERVISED, ids=repr)
def test_a_planted_lexical_confound_is_exposed(probe):
    """A token that predicts the label in training only: the counterbalanced rows tell."""
    rng = np.random.default_rng(0)
    n, d = 2000, 8
    y = rng.random(n) < 0.5
    token, truth = np.eye(d)[0], np.eye(d)[1]

    def rows(agree):  # `agree`: the share of rows whose token goes with the label
        has_token = np.where(rng.random(n) < agree, y, ~y)
        noise = rng.standard_normal((n, d))
        return noise + 3.0 * has_token[:, None] * token + 1.0 * y[:, None] * truth

    confounded, balanced = rows(0.95), rows(0.5)
    lured = probe.fit(confounded, y)
    sound = probe.fit(balanced, y)
    at_home = optional(auroc(lured.score(rows(0.95)), y))
    counterbalanced = optional(auroc(lured.score(rows(0.5)), y))
    assert at_home > 0.9
    assert counterbalanced < 0.7
    assert optional(auroc(sound.score(rows(0.5)), y)) > counterbalanced + 0.05
    assert abs(lured.direction @ token) > abs(lured.direction @ truth)


@pytest.mark.parametrize("probe", SUPERVISED, ids=repr)
def test_shuffled_labels_are_at_chance_within_the_interval(probe):
    rng = np.random.default_rng(1)
    x = np.stack([activations(200, 10, seed=s)[0] for s in range(20)])
    y = np.stack([rng.permutation(np.arange(200) < 100) for _ in range(20)])
    half = slice(0, 100), slice(100, 200)
    fitted = probe.fit(x[:, half[0]], y[:, half[0]])
    areas = np.asarray(auroc(fitted.score(x[:, half[1]]), y[:, half[1]]))
    low, high = scipy.stats.t.interval(0.999, 19, areas.mean(), scipy.stats.sem(areas))
    assert low < 0.5 < high


# --- random directions --------------------------------------------------------------------------


def test_random_directions_report_their_best_and_the_null():
    x, y = activations(400, 6, strength=3.0)
    fitted = RandomDirections(k=300).fit(x, y)
    areas = np.array([roc_auc_score(y, x @ d) for d in fitted.directions.astype(float)])
    free = np.maximum(areas, 1 - areas)
    assert np.allclose(fitted.training_auroc, free, atol=2e-4)  # directions rank in float32
    assert optional(auroc(fitted.score(x), y)) == pytest.approx(free.max(), abs=2e-4)
    assert np.allclose(fitted.null(x, y), fitted.training_auroc)
    new, truth = activations(400, 6, strength=3.0)
    null = fitted.null(new + 0.1, truth)
    assert null.shape == (300,)
    assert float(null.min()) >= 0.5
    assert fitted.null(x, np.ones(400, bool)).mask.all()


def test_matched_directions_have_the_rows_covariance():
    x, y = activations(500, 4)
    drawn = RandomDirections(k=8_000).fit(x, y).directions
    assert np.allclose(np.cov(drawn.T), np.cov(x.T, ddof=0), atol=0.08)
    plain = RandomDirections(k=8_000, covariance_matched=False).fit(x, y).directions
    assert np.allclose(np.cov(plain.T), np.eye(4), atol=0.08)
