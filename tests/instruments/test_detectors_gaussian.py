"""Mahalanobis, relative Mahalanobis, log-odds Gaussian and PCA against independent computation."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import multivariate_normal
from sklearn.covariance import OAS, EmpiricalCovariance, LedoitWolf, ShrunkCovariance
from sklearn.decomposition import PCA

from terrarium.errors import InputError
from terrarium.instruments.covariance import shrunk_covariance
from terrarium.instruments.detectors.log_odds import ProbeLogOddsGaussian, log_odds_features
from terrarium.instruments.detectors.mahalanobis import Mahalanobis, RelativeMahalanobis
from terrarium.instruments.detectors.pca import PCAReconstruction


def correlated(rng, *shape):
    d = shape[-1]
    return 3.0 + rng.standard_normal(shape) @ rng.standard_normal((d, d))


@pytest.mark.parametrize("n", [5, 40])  # fewer rows than channels, and more
@pytest.mark.parametrize(
    ("shrinkage", "judge"),
    [
        ("ledoit_wolf", LedoitWolf()),
        ("oas", OAS()),
        (0.0, EmpiricalCovariance()),
        (0.3, ShrunkCovariance(shrinkage=0.3)),
        (1.0, ShrunkCovariance(shrinkage=1.0)),
    ],
)
def test_shrunk_covariance_is_scikit_learns(shrinkage, judge, n):
    x = correlated(np.random.default_rng(0), 3, n, 8)
    covariance, amount = shrunk_covariance(x - x.mean(1, keepdims=True), shrinkage)
    for i in range(3):
        judge.fit(x[i])
        np.testing.assert_allclose(covariance[i], judge.covariance_, rtol=1e-9, atol=1e-9)
        if hasattr(judge, "shrinkage_"):
            assert amount[i] == pytest.approx(judge.shrinkage_)


def test_shrinkage_keeps_the_unit():
    """A bare identity as target would make the amount of shrinkage depend on the unit."""
    x = correlated(np.random.default_rng(0), 12, 8)
    x -= x.mean(0)
    small, a = shrunk_covariance(1e-3 * x, "ledoit_wolf")
    large, b = shrunk_covariance(x, "ledoit_wolf")
    assert a == pytest.approx(b)
    np.testing.assert_allclose(small * 1e6, large, rtol=1e-9)


@pytest.mark.parametrize("shrinkage", ["ledoit_wolf", "oas", 0.0])
def test_mahalanobis_is_scikit_learns(shrinkage):
    rng = np.random.default_rng(1)
    trusted, x = correlated(rng, 2, 3, 60, 5), correlated(rng, 2, 3, 9, 5)
    scores = Mahalanobis(shrinkage).fit(trusted).score(x)
    judge = {"ledoit_wolf": LedoitWolf(), "oas": OAS(), 0.0: EmpiricalCovariance()}[shrinkage]
    for index in np.ndindex(2, 3):
        judge.fit(trusted[index])
        np.testing.assert_allclose(scores[index], judge.mahalanobis(x[index]), rtol=1e-8)


def test_mahalanobis_one_channel_is_the_squared_z_score():
    trusted = np.array([[1.0], [2.0], [3.0], [6.0]])
    found = Mahalanobis().fit(trusted).score(np.array([[3.0], [10.0]]))
    np.testing.assert_allclose(found, [0.0, 49.0 / trusted.var()])


def test_singular_covariance_is_refused_and_shrinkage_helps():
    rng = np.random.default_rng(2)
    x = rng.standard_normal((30, 4))
    repeated = np.hstack([x, x[:, :1]])
    for shrinkage in (0.0, 0):
        with pytest.raises(InputError, match=r"no inverse.*ledoit_wolf"):
            Mahalanobis(shrinkage).fit(repeated)
        with pytest.raises(InputError, match="no inverse"):
            Mahalanobis(shrinkage).fit(x[:4])
    assert np.isfinite(Mahalanobis().fit(repeated).score(repeated)).all()


@pytest.mark.parametrize("shrinkage", ["lediot", -0.1, 1.5, None])
def test_unknown_shrinkage_is_refused(shrinkage):
    with pytest.raises(InputError, match="shrinkage"):
        Mahalanobis(shrinkage).fit(np.eye(5))


def test_refusals_name_the_thing():
    fitted = Mahalanobis().fit(np.random.default_rng(0).standard_normal((2, 30, 4)))
    with pytest.raises(InputError, match="width 3 and the trusted rows had 4"):
        fitted.score(np.zeros((2, 5, 3)))
    with pytest.raises(InputError, match="leading axes"):
        fitted.score(np.zeros((5, 4)))
    with pytest.raises(InputError, match="leading index \\(1,\\) are all the same"):
        Mahalanobis().fit(np.stack([np.eye(3), np.ones((3, 3))]))
    with pytest.raises(InputError, match="not an array of real numbers"):
        Mahalanobis().fit([["a", "b"], ["c", "d"]])


def relative(trusted, groups, x):
    """Ren et al. 2021, sec. 2, row by row."""
    names = np.unique(groups)
    means = {g: trusted[groups == g].mean(0) for g in names}
    n = len(trusted)
    residuals = np.array([row - means[g] for row, g in zip(trusted, groups, strict=True)])
    within = np.linalg.inv(residuals.T @ residuals / n)
    overall = trusted.mean(0)
    total = np.linalg.inv((trusted - overall).T @ (trusted - overall) / n)
    near = cdist(x, np.array(list(means.values())), "mahalanobis", VI=within).min(1) ** 2
    return near - cdist(x, overall[None], "mahalanobis", VI=total)[:, 0] ** 2


def test_relative_mahalanobis_is_the_papers():
    rng = np.random.default_rng(3)
    groups = np.array(["yes", "no", "maybe"])[rng.integers(0, 3, 80)]
    trusted, x = correlated(rng, 2, 80, 4), correlated(rng, 2, 11, 4)
    trusted[:, groups == "yes"] += 5.0
    scores = RelativeMahalanobis(0.0).fit(trusted, groups).score(x)
    for i in range(2):
        np.testing.assert_allclose(scores[i], relative(trusted[i], groups, x[i]), rtol=1e-8)


def test_relative_mahalanobis_with_groups_that_differ_between_members():
    rng = np.random.default_rng(4)
    trusted, x = correlated(rng, 2, 60, 3), correlated(rng, 2, 8, 3)
    groups = np.stack([rng.integers(0, 2, 60), rng.integers(1, 3, 60)])  # 2 or 0 is absent
    x[:, 0] = 0.0  # an absent group must not pass for one whose mean is 0
    scores = RelativeMahalanobis(0.0).fit(trusted, groups).score(x)
    for i in range(2):
        np.testing.assert_allclose(scores[i], relative(trusted[i], groups[i], x[i]), rtol=1e-8)


def test_relative_mahalanobis_shrinks_within_and_background_alike():
    rng = np.random.default_rng(5)
    groups = rng.integers(0, 2, 20)
    trusted, x = correlated(rng, 20, 15), correlated(rng, 6, 15)
    means = np.stack([trusted[groups == g].mean(0) for g in (0, 1)])
    within = LedoitWolf(assume_centered=True).fit(trusted - means[groups])
    background = LedoitWolf().fit(trusted)
    near = np.min([within.mahalanobis(x - mean) for mean in means], axis=0)
    scores = RelativeMahalanobis().fit(trusted, groups).score(x)
    np.testing.assert_allclose(scores, near - background.mahalanobis(x), rtol=1e-7)


def test_relative_mahalanobis_without_groups_subtracts_the_diagonal():
    rng = np.random.default_rng(6)
    trusted, x = correlated(rng, 70, 4), correlated(rng, 9, 4)
    mean, covariance = trusted.mean(0), np.cov(trusted.T, bias=True)
    diagonal = np.diag(np.diag(covariance))
    normal = [multivariate_normal(mean, c) for c in (covariance, diagonal)]
    full, bare = (-2 * (law.logpdf(x) - law.logpdf(mean)) for law in normal)
    for detector in (RelativeMahalanobis(0.0), ProbeLogOddsGaussian(subtract_diagonal=True)):
        np.testing.assert_allclose(detector.fit(trusted).score(x), full - bare, rtol=1e-7)


def test_relative_mahalanobis_ignores_what_is_unusual_in_general():
    """Ren et al.'s point: plain distance prefers the far row of a class to the one between."""
    rng = np.random.default_rng(7)
    groups = np.repeat([0, 1], 500)
    trusted = rng.standard_normal((1000, 2)) * [1.0, 5.0]
    trusted[:, 0] += np.where(groups == 0, -6.0, 6.0)
    between, stretched = np.array([0.0, 0.0]), np.array([6.0, 32.0])
    absolute = Mahalanobis().fit(trusted).score(np.stack([between, stretched]))
    relative_ = RelativeMahalanobis().fit(trusted, groups).score(np.stack([between, stretched]))
    assert absolute[0] < absolute[1]
    assert relative_[0] > relative_[1]


@pytest.mark.parametrize("groups", [np.zeros(40), np.arange(39), [[1] * 20 + [2] * 20, [1] * 40]])
def test_relative_mahalanobis_refuses_useless_groups(groups):
    x = np.random.default_rng(0).standard_normal((2, 40, 3))
    with pytest.raises(InputError, match="group"):
        RelativeMahalanobis().fit(x, groups)


def test_log_odds_gaussian_finds_disagreement_between_layers():
    """Each layer alone looks ordinary; only their joint law gives the planted rows away."""
    rng = np.random.default_rng(8)

    class Probe:
        def score(self, x):
            return x[..., 0]

    def activations(agree, n):  # (site, n, d), first channel = log-odds
        truth = rng.choice([-3.0, 3.0], n)
        signs = np.array([1.0, 1.0, 1.0 if agree else -1.0])
        odds = signs[:, None] * truth + rng.standard_normal((3, n))
        return np.stack([odds, rng.standard_normal((3, n))], axis=-1)

    trusted, fine, odd = (
        log_odds_features(Probe(), activations(agree, n))
        for agree, n in ((True, 300), (True, 100), (False, 100))
    )
    assert trusted.shape == (300, 3)
    fitted = ProbeLogOddsGaussian().fit(trusted)
    mean, covariance = trusted.mean(0), np.cov(trusted.T, bias=True)
    direct = cdist(odd, mean[None], "mahalanobis", VI=np.linalg.inv(covariance))[:, 0] ** 2
    np.testing.assert_allclose(fitted.score(odd), direct, rtol=1e-8)
    assert (fitted.score(odd)[:, None] > fitted.score(fine)).mean() > 0.99
    for layer in range(3):  # no layer alone tells
        alone = Mahalanobis().fit(trusted[:, layer : layer + 1])
        one = (
            alone.score(odd[:, layer : layer + 1])[:, None]
            > alone.score(fine[:, layer : layer + 1])
        ).mean()
        assert 0.35 < one < 0.65


def test_log_odds_features_keeps_the_other_axes():
    class Probe:
        def score(self, x):
            return x.sum(-1)

    x = np.random.default_rng(0).standard_normal((4, 2, 7, 3))
    features = log_odds_features(Probe(), x)
    assert features.shape == (2, 7, 4)
    np.testing.assert_allclose(features[1, 5], x[:, 1, 5].sum(-1))
    with pytest.raises(InputError, match="site"):
        log_odds_features(Probe(), x[0, 0])


@pytest.mark.parametrize("n", [6, 50])
@pytest.mark.parametrize("components", [1, 4])
def test_pca_reconstruction_is_scikit_learns(components, n):
    rng = np.random.default_rng(9)
    trusted, x = correlated(rng, 2, n, 8), correlated(rng, 2, 7, 8)
    fitted = PCAReconstruction(components).fit(trusted)
    for i in range(2):
        judge = PCA(components).fit(trusted[i])
        error = np.square(x[i] - judge.inverse_transform(judge.transform(x[i]))).sum(1)
        np.testing.assert_allclose(fitted.score(x)[i], error, rtol=1e-8)
        assert fitted.explained[i] == pytest.approx(judge.explained_variance_ratio_.sum())
        projected = np.abs(fitted.project(x)[i, :, :components])
        np.testing.assert_allclose(projected, np.abs(judge.transform(x[i])), rtol=1e-7, atol=1e-9)


def test_pca_without_components_is_the_distance_from_the_mean():
    x = correlated(np.random.default_rng(0), 9, 1)
    for detector in (PCAReconstruction(0), PCAReconstruction()):  # one channel: none can be kept
        np.testing.assert_allclose(detector.fit(x).score(x), (x[:, 0] - x.mean()) ** 2)


def test_pca_keeps_what_explains_the_share_at_each_leading_index():
    rng = np.random.default_rng(10)
    trusted = (
        rng.standard_normal((3, 60, 8))
        * np.stack([np.ones(8), np.geomspace(1, 1e-2, 8), np.geomspace(1, 1e-4, 8)])[:, None]
    )
    for share in (0.5, 0.8, 0.95):
        fitted = PCAReconstruction(explained_variance=share).fit(trusted)
        expected = [min(7, PCA(share, svd_solver="full").fit(t).n_components_) for t in trusted]
        assert fitted.kept.tolist() == expected
        x = rng.standard_normal((3, 5, 8))
        for i, k in enumerate(expected):
            alone = PCAReconstruction(k).fit(trusted[i]).score(x[i])
            np.testing.assert_allclose(fitted.score(x)[i], alone, rtol=1e-9)


def test_pca_refuses_what_would_score_every_row_zero():
    x = np.random.default_rng(0).standard_normal((9, 4))
    assert (PCAReconstruction(explained_variance=0.999999).fit(x).score(x) > 0).any()
    for bad in ({"components": 4}, {"components": -1}, {"explained_variance": 1.0}):
        with pytest.raises(InputError, match="PCAReconstruction"):
            PCAReconstruction(**bad).fit(x)
    with pytest.raises(InputError, match="both set"):
        PCAReconstruction(2, 0.9).fit(x)
