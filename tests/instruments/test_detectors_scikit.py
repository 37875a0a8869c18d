"""Detectors that scikit-learn computes, against brute force; and detectors inside scikit-learn."""

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn import ensemble
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from terrarium.errors import InputError
from terrarium.instruments.detectors.forest import IsolationForest
from terrarium.instruments.detectors.mahalanobis import Mahalanobis
from terrarium.instruments.detectors.neighbours import LocalOutlierFactor
from terrarium.instruments.detectors.pca import PCAReconstruction
from terrarium.instruments.detectors.scikit import fit_scaler
from terrarium.instruments.detectors.svm import OneClassSVM
from terrarium.instruments.sklearn_detectors import DetectorEstimator


def rows(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape) * np.geomspace(1, 5, shape[-1])


def brute_lof(trusted, x, k):
    """Breunig et al. 2000, definitions 3 to 7, with x as a new object."""

    def near(row, skip=None):
        distances = np.array([np.linalg.norm(row - other) for other in trusted])
        if skip is not None:
            distances[skip] = np.inf
        chosen = np.argsort(distances)[:k]
        return chosen, distances[chosen]

    k_distance = [near(row, i)[1][-1] for i, row in enumerate(trusted)]

    def density(row, skip=None):
        chosen, distances = near(row, skip)
        reach = [max(k_distance[j], dist) for j, dist in zip(chosen, distances, strict=True)]
        return 1.0 / np.mean(reach)

    own = [density(row, i) for i, row in enumerate(trusted)]
    return np.array([np.mean([own[j] for j in near(row)[0]]) / density(row) for row in x])


def test_local_outlier_factor_is_brute_force():
    trusted, x = rows(2, 30, 3), rows(2, 8, 3, seed=1) * 2
    scores = LocalOutlierFactor(4, scaling="none").fit(trusted).score(x)
    for i in range(2):
        np.testing.assert_allclose(scores[i], brute_lof(trusted[i], x[i], 4), rtol=1e-6)


@pytest.mark.parametrize("scaling", ["standardise", "whiten"])
def test_scaling_is_fitted_on_trusted_rows(scaling):
    trusted, x = rows(2, 40, 3), rows(2, 8, 3, seed=1)
    scaler = fit_scaler(trusted, scaling, "test")
    scores = LocalOutlierFactor(4, scaling).fit(trusted).score(x)
    for i in range(2):
        if scaling == "standardise":
            judge = StandardScaler().fit(trusted[i])
            np.testing.assert_allclose(scaler(x)[i], judge.transform(x[i]), rtol=1e-9)
        else:
            distances = np.square(scaler(x)[i]).sum(-1)
            np.testing.assert_allclose(distances, Mahalanobis().fit(trusted[i]).score(x[i]))
        expected = brute_lof(scaler(trusted)[i], scaler(x)[i], 4)
        np.testing.assert_allclose(scores[i], expected, rtol=1e-6)


@pytest.mark.parametrize("constant", [0.0, 7.3])  # the second has a spread of rounding errors
def test_a_constant_channel_survives_standardising(constant):
    trusted = np.hstack([rows(40, 3), np.full((40, 1), constant)])
    fitted = LocalOutlierFactor(4).fit(trusted)
    odd = trusted[:1] + np.array([0.0, 0.0, 0.0, 9.0])
    assert 3.0 < fitted.score(odd)[0] < 100.0
    assert np.isfinite(fitted.score(trusted)).all()


def path_length(tree, row):
    """Cuts until the row is alone, plus the mean depth of the subtree that was not grown."""
    node = depth = 0
    while tree.children_left[node] >= 0:
        left = np.float32(row[tree.feature[node]]) <= tree.threshold[node]
        node = (tree.children_left if left else tree.children_right)[node]
        depth += 1
    return depth + average_path(tree.n_node_samples[node])


def average_path(n):
    """Liu et al. 2008, eq. 1."""
    if n <= 2:
        return float(n == 2)
    return 2 * (np.log(n - 1) + np.euler_gamma) - 2 * (n - 1) / n


def test_isolation_forest_is_the_papers_score():
    trusted, x = rows(2, 50, 3), rows(2, 6, 3, seed=1) * 2
    scores = IsolationForest(trees=8, samples=32, seed=5).fit(trusted).score(x)
    for i in range(2):
        judge = ensemble.IsolationForest(n_estimators=8, max_samples=32, random_state=5)
        judge.fit(trusted[i])
        for j in range(6):
            mean = np.mean([path_length(tree.tree_, x[i, j]) for tree in judge.estimators_])
            assert scores[i, j] == pytest.approx(2 ** (-mean / average_path(32)), rel=1e-6)


def test_one_class_svm_solves_schoelkopfs_problem():
    trusted, x = rows(14, 2), rows(6, 2, seed=1) * 2
    nu, gamma, n = 0.4, 0.3, 14

    def kernel(a, b):
        return np.exp(-gamma * np.square(a[:, None] - b[None]).sum(-1))

    gram = kernel(trusted, trusted)
    solved = minimize(
        lambda a: 0.5 * a @ gram @ a,
        np.full(n, 1 / n),
        jac=lambda a: gram @ a,
        bounds=[(0, 1 / (nu * n))] * n,
        constraints={"type": "eq", "fun": lambda a: a.sum() - 1, "jac": lambda a: np.ones(n)},
        method="SLSQP",
        options={"ftol": 1e-15, "maxiter": 500},
    )
    weights = solved.x
    inside = (weights > 1e-4) & (weights < 1 / (nu * n) - 1e-4)
    rho = (gram @ weights)[inside].mean()
    expected = (rho - kernel(x, trusted) @ weights) * nu * n  # libsvm's weights sum to nu n
    found = OneClassSVM(nu, gamma, "none", tolerance=1e-8).fit(trusted).score(x)
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("detector", "word"),
    [
        (LocalOutlierFactor(20), "20 trusted rows; it needs at least 21"),
        (LocalOutlierFactor(0), "neighbours"),
        (LocalOutlierFactor(4, "whitened"), "did you mean 'whiten'"),
        (IsolationForest(trees=0), "trees"),
        (OneClassSVM(nu=0.0), "nu"),
        (OneClassSVM(gamma=-1.0), "gamma"),
    ],
)
def test_parameters_out_of_range_are_refused(detector, word):
    with pytest.raises(InputError, match=word):
        detector.fit(rows(20, 3))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@pytest.mark.parametrize("detector", ["mahalanobis", PCAReconstruction(explained_variance=0.5)])
def test_scikit_learns_own_checks(detector):
    check_estimator(DetectorEstimator(detector))


def test_estimator_in_a_pipeline():
    trusted, odd = rows(200, 3), rows(20, 3, seed=1) + 30.0
    model = make_pipeline(StandardScaler(), DetectorEstimator("mahalanobis", contamination=0.05))
    model.fit(trusted)
    assert (model.predict(odd) == -1).all()
    assert (model.predict(trusted) == -1).mean() == pytest.approx(0.05)
    assert clone(model).fit(trusted).predict(odd).tolist() == model.predict(odd).tolist()


def test_estimator_refuses_batch_scores_and_unknown_names():
    with pytest.raises(ValueError, match="whole batches"):
        DetectorEstimator("spectral_signature").fit(rows(20, 3))
    with pytest.raises(ValueError, match="did you mean 'mahalanobis'"):
        DetectorEstimator("mahalanobiz").fit(rows(20, 3))
