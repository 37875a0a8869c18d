"""CCS, CRC and VINC against independent computation on small planted data."""

import numpy as np
import pytest
import scipy.optimize
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score

from terrarium.errors import InputError
from terrarium.instruments.base import ContrastPairs
from terrarium.instruments.metrics import auroc, optional
from terrarium.instruments.probes.ccs import CCS
from terrarium.instruments.probes.crc import CRC
from terrarium.instruments.probes.eigen import leading_eigenvector
from terrarium.instruments.probes.minimise import lbfgs
from terrarium.instruments.probes.vinc import VINC


def pairs(n=120, d=5, seed=0, strength=2.0):
    """Pairs whose sides move against each other along the truth and together elsewhere."""
    rng = np.random.default_rng(seed)
    truth = np.linalg.qr(np.random.default_rng(7).standard_normal((d, d)))[0][:, 0]
    y = rng.random(n) < 0.5
    sign = np.where(y, strength, -strength)[:, None]
    shared = rng.standard_normal((n, d)) * 1.5
    one = shared + sign * truth + 0.5 * rng.standard_normal((n, d)) + 2.0
    other = shared - sign * truth + 0.5 * rng.standard_normal((n, d)) - 1.0
    return ContrastPairs(one, other), y, truth


def same_line(a, b):
    return abs(a @ b) / np.linalg.norm(a) / np.linalg.norm(b)


# --- CRC ----------------------------------------------------------------------------------------


def test_crc_is_the_first_principal_component_of_the_differences():
    data, y, truth = pairs()
    probe = CRC().fit(data)
    component = PCA(1).fit(data.positive - data.negative).components_[0]
    assert same_line(probe.direction, component) == pytest.approx(1, abs=1e-9)
    assert np.linalg.norm(2 * probe.direction) == pytest.approx(1)
    assert same_line(probe.direction, truth) > 0.95
    centred = [side - side.mean(0) for side in (data.positive, data.negative)]
    assert np.allclose(probe.score(data), (centred[0] - centred[1]) @ probe.direction)
    assert roc_auc_score(y, CRC().fit(data, y).score(data)) > 0.95


def test_wide_matrices_use_lanczos_and_agree_with_the_full_decomposition():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((50, 600))
    matrix = rows.T @ rows - 2 * np.eye(600)  # not positive
    full = np.linalg.eigh(matrix)[1][:, -1]
    assert same_line(leading_eigenvector(matrix, "test"), full) == pytest.approx(1, abs=1e-8)


# --- VINC ---------------------------------------------------------------------------------------


def vinc_matrix(data, weights, clusters, y=None):
    """The matrix of the paper's eq. 5 to 8, written with ``numpy.cov`` and loops."""
    alpha, beta, gamma, sigma = weights
    names = np.unique(clusters)
    centroids = [
        np.stack([s[clusters == c].mean(0) for c in names]) for s in (data.positive, data.negative)
    ]
    d = data.positive.shape[1]
    joint = np.cov(centroids[0].T, centroids[1].T)
    conf = joint[:d, :d] + joint[d:, d:]
    cons = -joint[:d, d:] - joint[d:, :d]
    inv = np.zeros((d, d))
    for side in (data.positive, data.negative):
        for c in names:
            if (clusters == c).sum() > 1:
                inv -= np.cov(side[clusters == c].T) / len(names)
    matrix = alpha * conf + beta * inv + gamma * cons
    if sigma:
        true = np.concatenate([data.positive[y], data.negative[~y]]).mean(0)
        false = np.concatenate([data.positive[~y], data.negative[y]]).mean(0)
        matrix += sigma * np.cov(np.stack([true, false]).T)
    return matrix


@pytest.mark.parametrize("sizes", [(1,), (3,), (1, 2, 5)], ids=["none", "equal", "unequal"])
@pytest.mark.parametrize("weights", [(1, 5, 5, 0), (1, 0, 0, 0), (0.5, 1, 0, 2), (0, 1, 1, 0)])
def test_vinc_is_the_papers_eigenproblem(weights, sizes):
    data, y, _ = pairs()
    clusters = np.repeat(np.arange(120), np.resize(sizes, 120))[:120]
    probe = VINC(*map(float, weights)).fit(data, y, clusters=clusters[::-1])
    wanted = np.linalg.eigh(vinc_matrix(data, weights, clusters[::-1], y))[1][:, -1]
    assert same_line(probe.direction, wanted) == pytest.approx(1, abs=1e-8)


def test_vincs_special_cases():
    data, y, truth = pairs()
    crc = VINC(1, 0, 1, 0).fit(data)
    assert same_line(crc.direction, CRC().fit(data).direction) == pytest.approx(1, abs=1e-9)
    means = VINC(0, 0, 0, 1).fit(data, y)
    true = np.concatenate([data.positive[y], data.negative[~y]]).mean(0)
    false = np.concatenate([data.positive[~y], data.negative[y]]).mean(0)
    assert same_line(means.direction, true - false) == pytest.approx(1, abs=1e-9)
    assert same_line(VINC().fit(data).direction, truth) > 0.9


def test_invariance_turns_vinc_away_from_what_differs_between_paraphrases():
    rng = np.random.default_rng(3)
    data, y, truth = pairs(n=200)
    nuisance = np.linalg.qr(np.stack([truth, rng.standard_normal(5)]).T)[0][:, 1]
    wobble = 9 * rng.standard_normal((200, 1)) * nuisance  # against each other, differs by row
    clusters = np.arange(200) // 4
    rows = np.repeat(np.arange(0, 200, 4), 4)
    told = ContrastPairs(data.positive[rows] + wobble, data.negative[rows] - wobble)
    assert same_line(VINC(invariance=0).fit(told, y[rows], clusters).direction, truth) < 0.5
    assert same_line(VINC(invariance=20).fit(told, y[rows], clusters).direction, truth) > 0.9


def test_vinc_refuses_bad_clusters_and_missing_labels():
    data, _, _ = pairs()
    with pytest.raises(InputError, match="one name per row"):
        VINC().fit(data, clusters=np.arange(5))
    with pytest.raises(InputError, match="one cluster"):
        VINC().fit(data, clusters=np.zeros(120))
    with pytest.raises(InputError, match="labels are needed"):
        VINC(supervision=1).fit(data)


# --- CCS ----------------------------------------------------------------------------------------


def ccs_loss(theta, one, other, l2=0.0):
    """The published loss, sides centred, both divided by their common root mean variance."""
    sides = [s - s.mean(0) for s in (one, other)]
    unit = np.sqrt(np.mean([np.square(s).mean() for s in sides]))
    p, q = (1 / (1 + np.exp(-(s / unit @ theta[:-1] + theta[-1]))) for s in sides)
    loss = ((p - (1 - q)) ** 2).mean() + (np.minimum(p, q) ** 2).mean()
    return loss + 0.5 * l2 * theta[:-1] @ theta[:-1]


@pytest.mark.parametrize("l2", [0.0, 0.01])
def test_ccs_is_at_least_as_low_as_scipys_best_of_many(l2):
    data, _, _ = pairs(strength=1.0)
    one, other = data.positive, data.negative
    probe = CCS(l2=l2, steps=2000).fit(data)
    unit = np.sqrt(np.mean([np.var(s, axis=0).mean() for s in (one, other)]))
    weights = 2 * probe.on_positive * unit
    offset = probe.offset[0] + one.mean(0) @ (2 * probe.on_positive)
    theta = np.append(weights, offset)
    assert ccs_loss(theta, one, other) == pytest.approx(float(probe.loss), abs=1e-9)
    rng = np.random.default_rng(0)
    best = min(
        scipy.optimize.minimize(ccs_loss, rng.standard_normal(6), (one, other, l2)).fun
        for _ in range(15)
    )
    assert ccs_loss(theta, one, other, l2) <= best + 1e-5


def test_ccs_finds_the_truth_and_answers_as_published():
    data, y, truth = pairs()
    fresh, answer, _ = pairs(seed=1)
    probe = CCS().fit(data, y)
    assert same_line(probe.direction, truth) > 0.95
    assert optional(auroc(probe.score(fresh), answer)) > 0.95
    credence = probe.credence(fresh)
    assert ((credence > 0.5) == answer).mean() > 0.95
    one = 1 / (1 + np.exp(-(fresh.positive @ (2 * probe.on_positive) + probe.offset[0])))
    other = 1 / (1 + np.exp(-(fresh.negative @ (2 * probe.on_positive) + probe.offset[1])))
    assert np.allclose(credence, (one + 1 - other) / 2)
    logits = [np.log(p / (1 - p)) for p in (one, other)]
    assert np.allclose(probe.score(fresh), (logits[0] - logits[1]) / 2, atol=1e-6)


def test_more_restarts_never_end_higher():
    data, _, _ = pairs(strength=0.3)
    losses = [float(CCS(restarts=k, l2=0.0).fit(data).loss) for k in (1, 3, 10)]
    assert losses[0] >= losses[1] >= losses[2]


def test_lbfgs_solves_rosenbrock_from_many_starts_at_once():
    def rosenbrock(points):
        x, y = points[..., 0], points[..., 1]
        value = (1 - x) ** 2 + 100 * (y - x**2) ** 2
        slope = np.stack([-2 * (1 - x) - 400 * x * (y - x**2), 200 * (y - x**2)], -1)
        return value, slope

    starts = np.random.default_rng(0).uniform(-2, 2, (3, 4, 2))
    points, values = lbfgs(rosenbrock, starts, steps=500)
    assert np.allclose(points, 1, atol=1e-5)
    assert values.max() < 1e-10


# --- the sign -----------------------------------------------------------------------------------


@pytest.mark.parametrize("probe", [CCS(), CRC(), VINC()], ids=repr)
def test_the_sign_is_unresolved_until_labels_resolve_it(probe):
    data, y, _ = pairs()
    blind = probe.fit(data)
    assert blind.sign == "unresolved"
    seeing, opposed = probe.fit(data, y), probe.fit(data, ~y)
    assert seeing.sign == opposed.sign == "labels"
    assert np.allclose(seeing.score(data), -opposed.score(data))
    assert optional(auroc(seeing.score(data), y)) > 0.9
    assert np.allclose(np.abs(blind.score(data)), np.abs(seeing.score(data)))
    turned = blind.resolve_sign(data, y)
    assert np.array_equal(turned.score(data), seeing.score(data))
    if isinstance(probe, CCS):
        assert np.allclose(seeing.credence(data), 1 - opposed.credence(data))
    with pytest.raises(InputError, match="single class"):
        blind.resolve_sign(data, np.ones_like(y))


@pytest.mark.parametrize("probe", [CCS(restarts=2), CRC(), VINC()], ids=repr)
def test_each_problem_gets_its_own_sign(probe):
    parts = [pairs(seed=s) for s in range(3)]
    flipped = [False, True, False]
    stack = ContrastPairs(
        np.stack(
            [p[0].negative if f else p[0].positive for p, f in zip(parts, flipped, strict=True)]
        ),
        np.stack(
            [p[0].positive if f else p[0].negative for p, f in zip(parts, flipped, strict=True)]
        ),
    )
    y = np.stack([p[1] ^ f for p, f in zip(parts, flipped, strict=True)])
    assert float(auroc(probe.fit(stack, y).score(stack), y).min()) > 0.9


@pytest.mark.parametrize("probe", [CCS(), CRC(), VINC()], ids=repr)
def test_pairs_that_do_not_vary_are_refused(probe):
    same = ContrastPairs(np.ones((8, 3)), np.zeros((8, 3)))
    with pytest.raises(InputError, match="vary"):
        probe.fit(same)
