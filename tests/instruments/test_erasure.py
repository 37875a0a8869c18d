"""LEACE against the concept-erasure package, an optimiser, and what it promises."""

import numpy as np
import pytest
import torch
from concept_erasure import LeaceFitter
from sklearn.linear_model import LinearRegression, LogisticRegression

from terrarium.errors import InputError
from terrarium.instruments.erasure import fit_leace


def planted(n=400, d=6, classes=2, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    centres = 2.0 * rng.standard_normal((classes, d))
    x = 3.0 + centres[y] + rng.standard_normal((n, d)) @ rng.standard_normal((d, d))
    return x, y


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_agrees_with_the_concept_erasure_package(classes):
    x, y = planted(classes=classes)
    hot = torch.nn.functional.one_hot(torch.from_numpy(y), classes).double()
    judge = LeaceFitter.fit(
        torch.from_numpy(x), hot, shrinkage=False, constrain_cov_trace=False, svd_tol=1e-8
    ).eraser
    eraser = fit_leace(x, y)
    np.testing.assert_allclose(eraser.projection, judge.P.numpy(), atol=1e-8)
    expected = judge(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(eraser(x), expected, atol=1e-8)
    np.testing.assert_allclose(eraser(torch.from_numpy(x)).numpy(), expected, atol=1e-8)
    assert eraser.left.shape == (6, classes - 1)


@pytest.mark.parametrize("shrinkage", [0.0, "ledoit_wolf", 1.0])
@pytest.mark.parametrize("classes", [2, 4])
def test_nothing_linear_is_left(classes, shrinkage):
    x, y = planted(classes=classes)
    assert LogisticRegression(max_iter=2000).fit(x, y).score(x, y) > 0.7  # positive control
    erased = fit_leace(x, y, shrinkage)(x)
    for label in range(classes):
        np.testing.assert_allclose(erased[y == label].mean(0), x.mean(0), atol=1e-9)
    assert LinearRegression().fit(erased, y == 0).score(erased, y == 0) < 1e-10
    majority = np.bincount(y).max() / len(y)
    assert LogisticRegression(max_iter=2000).fit(erased, y).score(erased, y) <= majority + 1e-9


def test_no_smaller_change_erases():
    """Theorem 4.3: among affine maps that equalise the class means, LEACE moves rows least."""
    x, y = planted()
    centred = x - x.mean(0)
    projection = fit_leace(x, y).projection
    cross = centred.T @ (y - y.mean())

    def change(matrix):
        return np.square(centred - centred @ matrix.T).sum()

    assert np.abs(projection @ cross).max() < 1e-8 * np.abs(cross).max()
    rng = np.random.default_rng(1)
    for _ in range(20):  # all other erasing maps: add anything that kills the cross-covariance
        other = rng.standard_normal((6, 6))
        other -= np.outer(other @ cross, cross) / (cross @ cross)
        assert change(projection + 1e-3 * other) >= change(projection) - 1e-9
    along = cross / np.linalg.norm(cross)
    assert change(np.eye(6) - np.outer(along, along)) > change(projection) * 1.01


def test_what_is_not_linear_survives():
    """The limit of the method, stated: a label in the variance is still there."""
    rng = np.random.default_rng(2)
    y = rng.integers(0, 2, 600)
    x = rng.standard_normal((600, 3)) * np.where(y == 0, 0.2, 3.0)[:, None]
    erased = fit_leace(x, y)(x)
    size = np.square(erased).sum(1)[:, None]
    assert LogisticRegression().fit(size, y).score(size, y) > 0.9


def test_leading_axes_and_label_types():
    pairs = [planted(seed=seed) for seed in range(3)]
    x = np.stack([p[0] for p in pairs])
    y = np.stack([np.array(["no", "yes"])[p[1]] for p in pairs])
    together = fit_leace(x, y)
    halfway = together(torch.from_numpy(x).float(), strength=0.5)
    for i, (rows, labels) in enumerate(pairs):
        alone = fit_leace(rows, labels.astype(bool))
        np.testing.assert_allclose(together(x)[i], alone(rows), atol=1e-9)
        np.testing.assert_allclose(halfway[i], (rows + alone(rows)) / 2, rtol=1e-4, atol=1e-4)
    shared = fit_leace(x, pairs[0][1])  # one row of labels for all leading indices
    np.testing.assert_allclose(shared(x)[0], together(x)[0], atol=1e-9)


def test_fewer_rows_than_channels():
    x, y = planted(n=12, d=40)
    erased = fit_leace(x, y)(x)
    assert np.isfinite(erased).all()
    np.testing.assert_allclose(erased[y == 0].mean(0), erased[y == 1].mean(0), atol=1e-8)


def test_a_concept_that_is_not_there_is_left_alone():
    x = np.random.default_rng(0).standard_normal((40, 4))
    twice, y = np.concatenate([x, x]), np.repeat([0, 1], 40)
    np.testing.assert_allclose(fit_leace(twice, y)(twice), twice, atol=1e-9)


@pytest.mark.parametrize(
    ("x", "y", "word"),
    [
        (np.eye(4), np.zeros(4), "two labels"),
        (np.eye(4), np.array([0, 1, 0]), "one label for each row"),
        (np.eye(4), np.array([0, 1, np.nan, 1]), "NaN"),
        (np.eye(4) * np.nan, np.array([0, 1, 0, 1]), "NaN"),
        (np.stack([np.eye(4)] * 2), np.array([[0, 1, 0, 1], [1, 1, 1, 1]]), "leading index"),
    ],
)
def test_refusals(x, y, word):
    with pytest.raises(InputError, match=word):
        fit_leace(x, y)


def test_refuses_other_shapes_and_strengths():
    x, y = planted()
    eraser = fit_leace(np.stack([x, x]), y)
    for bad in (x, np.stack([x, x])[..., :3]):
        with pytest.raises(InputError, match="fitted on"):
            eraser(bad)
    with pytest.raises(InputError, match="strength"):
        eraser(np.stack([x, x]), 2.0)
    with pytest.raises(AttributeError):
        eraser.mean = None
