"""Reflect, ablate, add and the random control, against their geometry."""

import numpy as np
import pytest
import torch

from terrarium.errors import InputError
from terrarium.instruments.erasure import fit_leace
from terrarium.instruments.interventions import ablate, add, edited, random_like, reflect

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def example(members=2, n=7, d=5, seed=0):
    rng = np.random.default_rng(seed)
    x = 2.0 + rng.standard_normal((members, n, d))
    return x, rng.standard_normal((members, d)), rng.standard_normal(members)


def test_reflection_turns_the_score_round_and_nothing_else():
    x, direction, offset = example()
    y = reflect(x, direction, offset)
    for m in range(2):
        before, after = (v[m] @ direction[m] + offset[m] for v in (x, y))
        np.testing.assert_allclose(after, -before)
        across = np.linalg.svd(direction[m : m + 1])[2][1:]  # everything orthogonal
        np.testing.assert_allclose(y[m] @ across.T, x[m] @ across.T)
    np.testing.assert_allclose(reflect(y, direction, offset), x)
    middle = reflect(x, direction, offset, strength=0.5)
    np.testing.assert_allclose(middle, (x + y) / 2)


def test_ablation_leaves_the_mean_and_no_variance_along_the_direction():
    x, direction, _ = example()
    mean = x.mean(1)
    y = ablate(x, direction, mean)
    np.testing.assert_allclose(y.mean(1), mean)
    for m in range(2):
        assert np.ptp(y[m] @ direction[m]) < 1e-12
        across = np.linalg.svd(direction[m : m + 1])[2][1:]
        np.testing.assert_allclose(y[m] @ across.T, x[m] @ across.T)
        np.testing.assert_allclose(ablate(x, direction)[m] @ direction[m], 0.0, atol=1e-12)


def test_addition_moves_the_score_by_the_squared_norm():
    x, direction, _ = example()
    y = add(x, direction, -1.5)
    for m in range(2):
        moved = (y[m] - x[m]) @ direction[m]
        np.testing.assert_allclose(moved, -1.5 * direction[m] @ direction[m])


@pytest.mark.parametrize("dtype", DTYPES)
def test_identity_at_strength_zero_to_the_bit(dtype):
    x, direction, offset = example()
    labels = np.arange(7) % 2
    eraser = fit_leace(x, labels)
    tensor = torch.from_numpy(x).to(dtype)
    kept = tensor.clone()
    for same in (
        reflect(tensor, direction, offset, 0.0),
        ablate(tensor, direction, x.mean(1), 0.0),
        add(tensor, direction, 0.0),
        eraser(tensor, 0.0),
    ):
        assert same.dtype == dtype
        assert torch.equal(same, kept)
    reflect(tensor, direction, offset)
    eraser(tensor)
    assert torch.equal(tensor, kept), "the input was changed"


@pytest.mark.parametrize("dtype", DTYPES)
def test_tensors_and_arrays_agree(dtype):
    x, direction, offset = example()
    tensor = torch.from_numpy(x).to(dtype)
    rounded = tensor.double().numpy()
    for change in (
        lambda v: reflect(v, direction, offset),
        lambda v: ablate(v, torch.from_numpy(direction), x.mean(1)),
        lambda v: add(v, direction, 0.7),
    ):
        tolerance = 4 * torch.finfo(dtype).eps
        np.testing.assert_allclose(
            change(tensor).double().numpy(), change(rounded), rtol=tolerance, atol=10 * tolerance
        )


def test_one_direction_for_all_members_and_further_axes():
    x, direction, offset = example()
    alone = np.stack([reflect(x[m], direction[0], offset[0]) for m in range(2)])
    np.testing.assert_allclose(reflect(x, direction[0], offset[0]), alone)
    images = np.stack([x, x + 1.0], axis=2)  # (member, n, position, d)
    y = reflect(images, direction, offset)
    np.testing.assert_allclose(y[:, :, 0], reflect(x, direction, offset))
    np.testing.assert_allclose(y[:, :, 1], reflect(x + 1.0, direction, offset))


def test_gradients_pass():
    x = torch.ones(1, 2, 3, requires_grad=True)
    reflect(x, np.array([1.0, 0.0, 0.0]))[..., 0].sum().backward()
    np.testing.assert_allclose(x.grad.numpy()[..., 0], -1.0)


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda x, w: reflect(x, np.zeros(5)), "length 0"),
        (lambda x, w: ablate(x, np.zeros(5)), "length 0"),
        (lambda x, w: reflect(x, w[:, :4]), "shape"),
        (lambda x, w: reflect(x, np.stack([w[0]] * 3)), "shape"),
        (lambda x, w: reflect(x, w, np.zeros(3)), "offset"),
        (lambda x, w: ablate(x, w, np.zeros(4)), "mean"),
        (lambda x, w: add(x, w * np.nan), "NaN"),
        (lambda x, w: reflect(x, w, strength=1.1), "strength"),
        (lambda x, w: ablate(x, w, strength=-0.1), "strength"),
        (lambda x, w: add(x, w, np.inf), "strength"),
        (lambda x, w: add(np.ones((2, 3, 5), int), w), "float"),
    ],
)
def test_refusals(call, word):
    x, direction, _ = example()
    with pytest.raises(InputError, match=word):
        call(x, direction)


def test_own_interventions_go_through_edited():
    x = torch.ones(1, 2, 3, dtype=torch.bfloat16)
    y = edited(x, lambda wide: wide * (wide.dtype == torch.float32))
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, 2 * x)


def test_random_directions_match_norm_and_covariance():
    rng = np.random.default_rng(0)
    mix = rng.standard_normal((4, 4))
    covariance = mix @ mix.T
    direction = np.tile([3.0, 0.0, 4.0, 0.0], (20000, 1))
    drawn = random_like(direction, covariance, rng)
    np.testing.assert_allclose(np.linalg.norm(drawn, axis=1), 5.0)
    gaussian = rng.multivariate_normal(np.zeros(4), covariance, 20000)
    gaussian *= 5.0 / np.linalg.norm(gaussian, axis=1, keepdims=True)
    expected = gaussian.T @ gaussian / 20000
    np.testing.assert_allclose(drawn.T @ drawn / 20000, expected, atol=0.3)
    plain = random_like(direction, None, rng)
    np.testing.assert_allclose(plain.T @ plain / 20000, 25 / 4 * np.eye(4), atol=0.3)
    assert np.abs(expected - 25 / 4 * np.eye(4)).max() > 2.0  # the two controls differ


def test_random_directions_stay_in_a_flat_covariance_and_are_reproducible():
    covariance = np.stack([np.diag([1.0, 2.0, 0.0]), np.diag([0.0, 2.0, 1.0])])
    direction = np.array([[0.0, 0.0, 2.0], [1.0, 0.0, 0.0]])
    drawn = random_like(direction, covariance, np.random.default_rng(0))
    np.testing.assert_allclose(drawn[[0, 1], [2, 0]], 0.0, atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(drawn, axis=1), [2.0, 1.0])
    again = random_like(direction, covariance, np.random.default_rng(0))
    assert np.array_equal(drawn, again)
    for bad, word in ((np.eye(2), "covariance is"), (-np.eye(3), "negative"), (0 * np.eye(3), "0")):
        with pytest.raises(InputError, match=word):
            random_like(direction, bad, np.random.default_rng(0))
