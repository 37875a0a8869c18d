"""Scores of whole batches (quantum entropy, spectral signature) against independent computation."""

import numpy as np
import pytest
from scipy.linalg import expm, sqrtm
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import TruncatedSVD

from terrarium.errors import InputError
from terrarium.instruments.detectors.entropy import QuantumEntropy
from terrarium.instruments.detectors.mahalanobis import Mahalanobis
from terrarium.instruments.detectors.spectral import SpectralSignature


def data(seed=0, d=5):
    rng = np.random.default_rng(seed)
    mix = rng.standard_normal((d, d))
    trusted = 2.0 + rng.standard_normal((2, 80, d)) @ mix
    suspect = 2.0 + rng.standard_normal((2, 40, d)) @ mix
    suspect[:, :12] += 6.0 * rng.standard_normal(d)
    return trusted, suspect


def que(trusted, suspect, alpha, centre):
    """SPECTRE's QUE scores from the formula: symmetric whitening, scipy's matrix exponential."""
    law = LedoitWolf().fit(trusted)
    white = (suspect - law.location_) @ np.linalg.inv(np.real(sqrtm(law.covariance_)))
    if centre == "batch":
        white = white - white.mean(0)
    moment = white.T @ white / len(white)
    identity = np.eye(len(moment))
    q = expm(alpha * (moment - identity) / (np.linalg.norm(moment, 2) - 1))
    return np.array([row @ q @ row for row in white]) / np.trace(q)


@pytest.mark.parametrize("alpha", [0.0, 1.0, 4.0])
@pytest.mark.parametrize("centre", ["trusted", "batch"])
def test_quantum_entropy_is_the_formula(alpha, centre):
    trusted, suspect = data()
    scores = QuantumEntropy(alpha, centre=centre).fit(trusted).score(suspect)
    for i in range(2):
        expected = que(trusted[i], suspect[i], alpha, centre)
        np.testing.assert_allclose(scores[i], expected, rtol=1e-7)


def test_quantum_entropy_between_its_two_limits():
    trusted, suspect = data()
    plain = Mahalanobis().fit(trusted).score(suspect) / 5
    np.testing.assert_allclose(QuantumEntropy(0.0).fit(trusted).score(suspect), plain, rtol=1e-9)
    gaussian = QuantumEntropy(1e6).fit(trusted)
    white = gaussian.gaussian.whiten(suspect)
    for i in range(2):
        top = np.linalg.svd(white[i])[2][0]
        np.testing.assert_allclose(gaussian.score(suspect)[i], (white[i] @ top) ** 2, rtol=1e-7)


def test_quantum_entropy_without_excess_is_the_plain_norm():
    """A batch that varies nowhere more than the trusted rows: the exponent has no sense there."""
    trusted, _ = data()
    calm = trusted.mean(1, keepdims=True) + 0.1 * (trusted - trusted.mean(1, keepdims=True))
    plain = Mahalanobis().fit(trusted).score(calm) / 5
    np.testing.assert_allclose(QuantumEntropy().fit(trusted).score(calm), plain, rtol=1e-9)


def test_a_batch_shifted_as_a_whole_shows_only_about_the_trusted_mean():
    trusted, _ = data()
    shift = np.array([9.0, 0, 0, 0, 0])
    for kind in (QuantumEntropy, SpectralSignature):
        seen = kind(centre="trusted").fit(trusted)
        assert seen.score(trusted + shift).mean() > 3 * seen.score(trusted).mean()
        blind = kind(centre="batch").fit(trusted)
        np.testing.assert_allclose(blind.score(trusted + shift), blind.score(trusted), rtol=1e-7)


@pytest.mark.parametrize("centre", ["trusted", "batch"])
def test_spectral_signature_is_the_top_singular_direction(centre):
    trusted, suspect = data()
    scores = SpectralSignature(centre).fit(trusted).score(suspect)
    for i in range(2):
        centred = suspect[i] - (trusted if centre == "trusted" else suspect)[i].mean(0)
        svd = TruncatedSVD(1, algorithm="arpack").fit(centred)
        np.testing.assert_allclose(scores[i], svd.transform(centred)[:, 0] ** 2, rtol=1e-6)


def test_planted_rows_are_found_where_only_the_batch_tells():
    """A common shift smaller than the noise of each row: batch scores rank it, distances don't."""
    rng = np.random.default_rng(1)
    d = 60
    trusted, clean = rng.standard_normal((2000, d)), rng.standard_normal((200, d))
    odd = rng.standard_normal((200, d)) + 4.0 * np.eye(d)[0]
    rows = np.concatenate([clean, odd])

    def auroc(detector):
        scores = detector.fit(trusted).score(rows)
        return (scores[200:, None] > scores[:200]).mean()

    assert auroc(QuantumEntropy()) > 0.98
    assert auroc(SpectralSignature()) > 0.98
    assert auroc(Mahalanobis()) < 0.95


def test_refusals():
    trusted, suspect = data()
    for kind in (QuantumEntropy, SpectralSignature):
        with pytest.raises(InputError, match="whole batch"):
            kind().fit(trusted).score(suspect[:, :1])
        with pytest.raises(InputError, match="centre"):
            kind(centre="middle").fit(trusted)
    with pytest.raises(InputError, match="alpha"):
        QuantumEntropy(-1.0).fit(trusted)
