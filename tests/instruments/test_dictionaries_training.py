"""Losses and gradients against dense formulas under autograd; selection, resampling, schedules."""

import itertools

import numpy as np
import pytest
import torch

from terrarium.errors import InputError
from terrarium.instruments.dictionaries import kinds, selecting
from terrarium.instruments.dictionaries.active import Active, top_of_batch, top_of_rows
from terrarium.instruments.dictionaries.dense import DenseSelecting
from terrarium.instruments.dictionaries.penalised import (
    JumpReLUFunction,
    Penalised,
    StepFunction,
    gated_loss,
    jump_relu_loss,
    relu_loss,
)
from terrarium.instruments.dictionaries.rows import batches, centre_and_size
from terrarium.instruments.dictionaries.selecting import Selecting
from terrarium.instruments.dictionaries.train import Adam, Alive, Training, _resample
from terrarium.instruments.dictionaries.weights import Usual, Weights

M, D, N = 40, 9, 300
DEAD = np.array([3, 10, 11, 29, 38])


def weights(seed=0, **extra):
    rng = np.random.default_rng(seed)
    made = Weights.drawn(M, D, rng, 1.3, **extra)
    for tensor in made.all().values():
        tensor.add_(torch.from_numpy(rng.normal(0, 0.1, tensor.shape).astype(np.float32)))
    return made


def rows(n=N, seed=1):
    return torch.from_numpy(np.random.default_rng(seed).normal(0, 0.4, (n, D)).astype(np.float32))


def kept(z, k):
    """The k largest of relu(z) in each row, the rest zero: dense and naive."""
    positive = torch.relu(z)
    value, where = positive.topk(k)
    return torch.zeros_like(z).scatter(-1, where, value)


def by_autograd(loss, made):
    leaves = {name: t.detach().double().requires_grad_() for name, t in made.all().items()}
    value = loss(leaves)
    value.backward()
    return float(value.detach()), {name: leaf.grad for name, leaf in leaves.items()}


def dense_selecting(x, k, by_batch, prefixes, auxiliary, revived, mean_square):
    """Gao et al. 2024, sec. 2.3 and A.2; Bussmann et al. 2024 and 2025, written down densely."""
    x = x.double()

    def loss(w):
        z = (x - w["b_dec"]) @ w["w_enc"].T + w["b_enc"]
        f = kept(z.flatten(), k * len(x)).view_as(z) if by_batch else kept(z, k)
        total = 0
        for m in prefixes:
            reached = f[:, :m] @ w["w_dec"][:m] + w["b_dec"]
            total = total + (reached - x).square().sum(1).mean() / len(prefixes)
        if auxiliary:
            e = (x - f @ w["w_dec"] - w["b_dec"]).detach()
            again = kept(z[:, DEAD], min(revived, len(DEAD))) @ w["w_dec"][DEAD]
            total = total + auxiliary * mean_square * (e - again).square().sum() / e.square().sum()
        return total

    return loss


@pytest.mark.parametrize(
    ("by_batch", "prefixes", "auxiliary", "revived"),
    [
        (False, (M,), 0.0, 1),
        (False, (M,), 0.5, 3),
        (True, (M,), 0.5, 30),
        (True, (5, 17, M), 0.5, 2),
        (False, (1, M), 0.0, 1),
    ],
)
def test_selecting_equals_autograd(by_batch, prefixes, auxiliary, revived, monkeypatch):
    made, x = weights(), rows()
    dense = dense_selecting(x, 4, by_batch, prefixes, auxiliary, revived, made.mean_square)
    loss, wanted = by_autograd(dense, made)
    # in one go, in blocks of 7 rows, and by the dense products that a GPU computes
    for block, kind in ((1 << 22, Selecting), (7 * M, Selecting), (0, DenseSelecting)):
        monkeypatch.setattr(selecting, "BLOCK", block)
        objective = kind(made, 4, by_batch, prefixes, auxiliary, revived)
        for _ in range(2):  # the second batch starts from the first one's threshold
            step = objective.step(x, DEAD)
        assert step.loss == pytest.approx(loss, rel=1e-5)
        assert step.l0 <= 4
        for name, slope in wanted.items():
            torch.testing.assert_close(
                made.grad(name).double(), slope, rtol=1e-4, atol=1e-5 * float(slope.abs().max())
            )


@pytest.mark.parametrize(("by_batch", "prefixes"), [(False, (M,)), (True, (5, 17, M))])
def test_dense_products_say_what_the_sparse_ones_do(by_batch, prefixes):
    x = rows()
    sparse, dense = (
        kind(weights(), 4, by_batch, prefixes, 0.5, 3) for kind in (Selecting, DenseSelecting)
    )
    one, other = sparse.step(x, DEAD), dense.step(x, DEAD)
    assert np.array_equal(one.fired, other.fired)
    assert one.squared_error == pytest.approx(other.squared_error, rel=1e-5)
    assert one.l0 == other.l0
    assert sparse.usual == dense.usual
    torch.testing.assert_close(sparse.reconstruct(x), dense.reconstruct(x))
    parts = [x[:100], x[100:]]
    if by_batch:
        assert sparse.threshold(parts) == pytest.approx(dense.threshold(parts), rel=1e-5)


@pytest.mark.parametrize("kind", [kinds.TopK, kinds.BatchTopK, kinds.Matryoshka])
def test_a_dictionary_by_dense_products_is_the_one_by_sparse_ones(kind, monkeypatch):
    x = np.random.default_rng(0).gamma(1.0, 1.0, (2000, M)) @ weights().w_dec.numpy()
    spec = kind(features=32, active=3, training=Training(samples=4000, batch=100))
    sparse = spec.fit(x)
    monkeypatch.setattr(kinds, "Selecting", DenseSelecting)
    dense = spec.fit(x)
    assert [h["dead"] for h in dense.history] == [h["dead"] for h in sparse.history]
    assert dense.history[-1]["fvu"] == pytest.approx(sparse.history[-1]["fvu"], rel=1e-2)
    np.testing.assert_allclose(dense.directions, sparse.directions, atol=0.01)


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "cuda:x", "mps"])
def test_a_device_that_is_not_here_is_told(device):
    with pytest.raises(InputError, match="Training: device"):
        Training(device=device)


def test_the_auxiliary_loss_needs_dead_latents_and_reaches_them_alone():
    made, x = weights(), rows()
    without = Selecting(made, 4, False, (M,), 0.0, 5)
    without.step(x, DEAD)
    plain = made.grad("w_dec").clone()
    with_it = Selecting(made, 4, False, (M,), 0.5, 5)
    with_it.step(x, DEAD)
    moved = (made.grad("w_dec") - plain).abs().sum(1).numpy() > 0
    assert set(np.flatnonzero(moved)) <= set(DEAD)
    assert moved.any()
    with_it.step(x, np.empty(0, np.int64))
    torch.testing.assert_close(made.grad("w_dec"), plain)


# --- what is active -----------------------------------------------------------------------------


@pytest.mark.parametrize(("m", "k"), [(200, 3), (200, 60), (37, 5), (16, 16), (1000, 1)])
def test_top_of_rows_is_the_naive_choice(m, k):
    z = np.random.default_rng(m + k).normal(size=(50, m)).astype(np.float32)
    z[7] = -1.0  # nothing positive
    z[8, 2:] = -1.0  # fewer than k positive
    chosen = np.zeros_like(z)
    flat = top_of_rows(z, k)
    chosen.ravel()[flat] = z.ravel()[flat]
    assert np.array_equal(chosen, kept(torch.from_numpy(z), k).numpy())
    assert np.array_equal(flat, np.sort(flat))


def test_ties_keep_the_lower_columns():
    z = np.tile(np.float32([1, 2, 2, 2, 0, 2]), (3, 1))
    assert np.array_equal(top_of_rows(z, 2).reshape(3, 2) % 6, [[1, 2]] * 3)
    flat, least = top_of_batch(z, 5, 0.0)
    assert (len(flat), least) == (5, 2.0)


@pytest.mark.parametrize("guess", [0.0, 0.5, 100.0])
def test_top_of_batch_does_not_depend_on_its_guess(guess):
    z = np.random.default_rng(0).normal(size=(30, 20)).astype(np.float32)
    flat, least = top_of_batch(z, 90, guess)
    wanted = np.sort(z.ravel().argsort()[-90:])
    assert np.array_equal(flat, wanted)
    assert least == z.ravel()[wanted].min()
    few, _ = top_of_batch(z, 10_000, guess)
    assert np.array_equal(few, np.flatnonzero(z > 0))


def test_sparse_products_are_the_dense_ones():
    z = np.random.default_rng(0).normal(size=(12, M)).astype(np.float32)
    f = kept(torch.from_numpy(z), 4)
    active = Active.of(z, top_of_rows(z, 4))
    directions, left = rows(M, 3), rows(12, 4)
    torch.testing.assert_close(active.decoded(directions), f @ directions)
    on = (f > 0).numpy()
    assert np.allclose(
        active.products(left, directions), (left @ directions.T).numpy()[on], atol=1e-6
    )
    into = active.gathered(active.values, left.numpy())
    assert np.allclose(into, (f.T @ left).numpy(), atol=1e-5)


# --- penalties ----------------------------------------------------------------------------------


def test_straight_through_gradients_are_the_formulas():
    """Rajamanoharan et al. 2024b, eqs. 11 and 12, entry by entry."""
    rng = np.random.default_rng(0)
    z = torch.from_numpy(rng.uniform(0, 1, (200, 5))).requires_grad_()
    theta = torch.from_numpy(rng.uniform(0.2, 0.8, 5)).requires_grad_()
    slope, width = torch.from_numpy(rng.normal(size=(200, 5))), 0.1
    near = ((z - theta).abs() < width / 2).double()
    JumpReLUFunction.apply(z, theta, width).backward(slope)
    torch.testing.assert_close(theta.grad, (-(theta / width) * near * slope).sum(0))
    torch.testing.assert_close(z.grad, slope * (z > theta))
    z.grad = theta.grad = None
    StepFunction.apply(z, theta, width).backward(slope)
    torch.testing.assert_close(theta.grad, (-(1 / width) * near * slope).sum(0))
    assert z.grad is None
    assert 0 < float(near.sum()) < near.numel()


def losses(x):
    x = x.double()

    def z(w):
        return (x - w["b_dec"]) @ w["w_enc"].T

    def off(w, f):
        return (x - f @ w["w_dec"] - w["b_dec"]).square().sum(1).mean()

    def relu(w):
        f = torch.relu(z(w) + w["b_enc"])
        return off(w, f) + 0.3 * f.sum(1).mean()

    def relu_by_norm(w):
        f = torch.relu(z(w) + w["b_enc"])
        return off(w, f) + 0.3 * (f * w["w_dec"].norm(dim=1)).sum(1).mean()

    def gated(w):
        gate = torch.relu(z(w) + w["b_enc"])
        f = (gate > 0) * torch.relu(w["r_mag"].exp() * z(w) + w["b_mag"])
        frozen = {"w_dec": w["w_dec"].detach(), "b_dec": w["b_dec"].detach()}
        return off(w, f) + 0.3 * gate.sum(1).mean() + off(frozen, gate)

    def jump(w):
        theta, v = w["threshold"], torch.relu(z(w) + w["b_enc"])
        l0 = StepFunction.apply(v, theta, 0.2).sum(1).mean()
        return off(w, JumpReLUFunction.apply(v, theta, 0.2)) + 0.3 * l0

    zero = torch.zeros(M)
    return {
        "relu": (relu, relu_loss(0.3, False), {}),
        "relu_by_norm": (relu_by_norm, relu_loss(0.3, True), {}),
        "gated": (gated, gated_loss(0.3), {"r_mag": zero.clone(), "b_mag": zero.clone()}),
        "jump": (jump, jump_relu_loss(0.3, 0.2, None), {"threshold": zero + 0.5}),
    }


@pytest.mark.parametrize("name", ["relu", "relu_by_norm", "gated", "jump"])
def test_penalised_losses_equal_the_formulas_in_any_blocks(name, monkeypatch):
    x = rows()
    naive, loss, extra = losses(x)[name]
    made = weights(**extra)
    value, wanted = by_autograd(naive, made)
    for block in (1 << 19, 7 * M):
        monkeypatch.setattr("terrarium.instruments.dictionaries.penalised.BLOCK", block)
        with torch.no_grad():
            step = Penalised(made, loss).step(x, np.empty(0, np.int64))
        assert step.loss == pytest.approx(value, rel=1e-5)
        for label, slope in wanted.items():
            torch.testing.assert_close(
                made.grad(label).double(), slope, rtol=1e-3, atol=1e-5 * float(slope.abs().max())
            )


def test_a_target_penalises_the_distance_from_it():
    made, x = weights(threshold=torch.zeros(M) + 0.5), rows()
    with torch.no_grad():
        free = Penalised(made, jump_relu_loss(0.0, 0.2, None)).step(x, DEAD)
        held = Penalised(made, jump_relu_loss(0.7, 0.2, 3.0)).step(x, DEAD)
        none = Penalised(made, jump_relu_loss(0.7, 0.2, 3.0)).step(x, DEAD, sparsity=0.0)
    assert held.loss - free.loss == pytest.approx(0.7 * (free.l0 / 3 - 1) ** 2, rel=1e-4)
    assert none.loss == pytest.approx(free.loss)


# --- the loop -----------------------------------------------------------------------------------


def test_adam_is_that_of_pytorch():
    rng = np.random.default_rng(0)
    start = torch.from_numpy(rng.normal(size=(4, 3)).astype(np.float32))
    ours, theirs = start.clone(), start.clone().requires_grad_()
    adam = Adam({"w": ours})
    judge = torch.optim.Adam([theirs], lr=0.05, betas=adam.betas, eps=1e-9)
    for _ in range(20):
        slope = torch.from_numpy(rng.normal(size=(4, 3)).astype(np.float32))
        ours.grad, theirs.grad = slope, slope.clone()
        adam.step(0.05)
        judge.step()
    torch.testing.assert_close(ours, theirs.detach(), rtol=1e-5, atol=1e-6)


def test_directions_stay_unit_and_their_gradient_is_tangent():
    made = weights()
    made.make_unit()
    made.grad("w_dec").copy_(rows(M, 5))
    made.keep_unit()
    assert float((made.grad("w_dec") * made.w_dec).sum(1).abs().max()) < 1e-6
    assert torch.allclose(made.w_dec.norm(dim=1), torch.ones(M))


def test_dead_latents_are_pointed_at_badly_reconstructed_rows():
    made, x = weights(), rows()
    made.b_dec.zero_()
    made.b_enc.zero_()
    x[:-1] *= 1e-3  # the last row alone is worth a latent
    adam, alive = Adam(made.all()), Alive(M, after=100)
    for tensor in adam.first.values():
        tensor.fill_(1.0)
    fired = np.ones(M, np.int64)
    fired[DEAD] = 0
    alive.see(fired, 101)
    assert np.array_equal(alive.dead, DEAD)
    before = {name: t.clone() for name, t in made.all().items()}
    objective = Selecting(made, 1, False, (M,), 0.0, 1)
    _resample(made, adam, x, objective, alive, np.random.default_rng(0))
    towards = x[-1] / x[-1].norm()
    alive_norm = before["w_enc"][np.setdiff1d(np.arange(M), DEAD)].norm(dim=1).mean()
    for latent in DEAD:
        torch.testing.assert_close(made.w_dec[latent], towards)
        torch.testing.assert_close(made.w_enc[latent], towards * 0.2 * alive_norm)
        assert float(adam.first["w_enc"][latent].abs().sum()) == 0
    others = np.setdiff1d(np.arange(M), DEAD)
    assert torch.equal(made.w_dec[others], before["w_dec"][others])
    assert float(adam.first["w_enc"][others].min()) == 1
    assert len(alive.dead) == 0


def test_rates_rise_and_fall():
    training = Training(samples=1000, batch=10, lr=1.0, warmup=0.1, decay=0.2)
    usual = Usual(4e-3, hurry=2.0, most=1e-2)
    rates = [training.rate(step, 64, usual) for step in range(training.steps)]
    assert rates[:3] == pytest.approx([0.1, 0.2, 0.3])
    assert rates[9:81] == [1.0] * 72
    assert rates[-1] == pytest.approx(1 / 20)
    assert Training().rate(400, 4096, usual) == pytest.approx(2e-3)
    few = Training(samples=100 * 1024)
    assert few.rate(50, 4096, usual) == pytest.approx(4e-3)
    assert few.rate(50, 64, usual) == 1e-2


def test_biases_step_as_if_coordinates_had_variance_one():
    made, x = weights(), rows()
    before = {name: t.clone() for name, t in made.all().items()}
    objective = Selecting(made, 2, False, (M,), 0.0, 1)
    adam = Adam(made.all(), {"b_enc": objective.usual.biases, "b_dec": objective.usual.biases})
    objective.step(x, np.array([], np.int64))
    adam.step(0.1)
    # Adam's first step is the rate itself wherever there is a slope
    moved = {name: float((t - before[name]).abs().max()) for name, t in made.all().items()}
    assert moved["w_enc"] == pytest.approx(0.1, rel=1e-3)
    assert moved["b_dec"] == pytest.approx(0.1 / np.sqrt(x.shape[1]), rel=1e-3)


def test_centre_and_size_by_hand():
    x = np.random.default_rng(0).normal(2.0, 1.0, (400, 3))
    x[0] = 1e4
    mean, size, square = centre_and_size(x, median=False)
    assert np.allclose(mean, x.mean(0))
    assert size == pytest.approx(np.linalg.norm(x - x.mean(0), axis=1).mean())
    assert square == pytest.approx(np.square(x - x.mean(0)).sum(1).mean())
    median, *_ = centre_and_size(x, median=True)
    off = np.linalg.norm(x - median, axis=1)
    assert np.abs(((x - median) / off[:, None]).sum(0)).max() < 1e-2  # its optimality condition
    assert np.abs(median - 2).max() < 0.3


def test_batches_show_every_row_once_an_epoch(tmp_path):
    x = np.arange(3000, dtype=np.float32)[:, None]
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    for held in (x, mapped):
        rng = np.random.default_rng(0)
        shown = [b.numpy()[:, 0] for b in batches(held, 100, 60, rng)]
        first, second = np.concatenate(shown[:30]), np.concatenate(shown[30:])
        assert np.array_equal(np.sort(first), x[:, 0])
        assert np.array_equal(np.sort(second), x[:, 0])
        assert not np.array_equal(first, second)
        assert np.ptp(shown[0]) > 1500  # not one stretch of the file


@pytest.mark.parametrize(
    "options",
    [{"lr": -1.0}, {"batch": 0}, {"samples": 1.5}, {"warmup": 2.0}, {"centre": "mode"}],
)
def test_bad_training_is_refused(options):
    with pytest.raises(InputError):
        Training(**options)


def test_a_rate_that_blows_up_is_told():
    x = np.random.default_rng(0).normal(size=(500, 4)).astype(np.float32)
    wild = kinds.TopK(8, Training(samples=5000, batch=50, lr=1e30), active=2)
    with pytest.raises(InputError, match="learning rate"):
        wild.fit(x)


def test_nested_sizes_are_disjoint_groups():
    objective = Selecting(weights(), 4, True, (5, 17, M), 0.0, 1)
    assert [len(list(g)) for _, g in itertools.groupby(objective._group)] == [5, 12, M - 17]
