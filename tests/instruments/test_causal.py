"""Causal effects on a linear toy network whose answer is known."""

import numpy as np
import pytest
import torch
from torch import nn

from terrarium.errors import InputError
from terrarium.instruments.causal import causal_effect, causal_effects
from terrarium.instruments.erasure import fit_leace
from terrarium.instruments.interventions import ablate, add, random_like, reflect
from terrarium.organisms.network import Site
from terrarium.readings.hooks import capture
from terrarium.readings.read import read
from terrarium.worlds.base import Batch

D, VOCABULARY, MEMBERS = 24, 40, 2
NO, YES = 3, 5


class Toy(nn.Module):
    """Logits of YES less NO = truth . (own state + a tenth of the sum of the earlier states)."""

    members = MEMBERS

    def __init__(self):
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.table = nn.Parameter(torch.randn(MEMBERS, VOCABULARY, D, generator=draw))
        self.truth = nn.Parameter(torch.randn(MEMBERS, D, generator=draw))
        self.middle = nn.Identity()

    def forward(self, inputs):
        member = torch.arange(MEMBERS)[:, None, None]
        state = self.middle(self.table[member, inputs])
        state = 0.9 * state + 0.1 * state.cumsum(2)
        logits = torch.zeros(*inputs.shape, VOCABULARY)
        logits[..., YES] = torch.einsum("mntd,md->mnt", state, self.truth)
        return logits

    def sites(self):
        return {"resid.post[0]": Site(self.middle)}

    def member_parameters(self, member, frozen=()):
        return [self.table, self.truth]


@pytest.fixture(scope="module")
def toy():
    return Toy()


def questions(n=60, seed=0):
    """Return prompts of 3 to 6 tokens with the answer behind them."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(4, 8, n)
    inputs = rng.integers(6, VOCABULARY, (n, 7))
    inputs[np.arange(7) >= lengths[:, None]] = 0
    inputs[np.arange(n), lengths - 1] = YES
    spans = {
        "answer": np.stack([lengths - 1, lengths], axis=1),
        "claim": np.stack([np.zeros(n, int), np.ones(n, int)], axis=1),
    }
    return Batch(inputs, inputs, {"row": np.arange(n)}, spans, lengths)


ASK = {"answers": [NO, YES], "target": 1}
WHERE = ("resid.post[0]", "prompt_end")


def states(toy, batch):
    return read(toy, batch, *WHERE).at("resid.post[0]").astype(float)


def truth(toy):
    return toy.truth.detach().numpy().astype(float)


def reading_of(toy, batch):
    """The toy's log-odds by hand, and the part of them that the prompt's last state carries."""
    table, direction = toy.table.detach().numpy(), truth(toy)
    odds = np.zeros((MEMBERS, len(batch)))
    own = np.zeros_like(odds)
    for m in range(MEMBERS):
        for i, (start, _) in enumerate(batch.spans["answer"]):
            seen = table[m, batch.inputs[i, :start]].astype(float) @ direction[m]
            own[m, i] = seen[-1]
            odds[m, i] = 0.9 * seen[-1] + 0.1 * seen.sum()
    return odds, own


def test_reflecting_the_true_direction_has_the_effect_that_is_known(toy):
    batch = questions()
    odds, own = reading_of(toy, batch)
    effect = causal_effect(toy, batch, *WHERE, lambda x: reflect(x, truth(toy)), **ASK)
    np.testing.assert_allclose(effect.before[..., 1] - effect.before[..., 0], odds, atol=1e-4)
    np.testing.assert_allclose(effect.log_odds_changes, -2.0 * own, atol=1e-4)
    np.testing.assert_array_equal(effect.flips, np.sign(odds) != np.sign(odds - 2.0 * own))
    assert (effect.flipped > 0.8).all()  # earlier states keep the rest from flipping
    length = np.linalg.norm(truth(toy), axis=1, keepdims=True)
    np.testing.assert_allclose(effect.displacement, 2 * np.abs(own) / length, rtol=1e-4)
    assert effect.flipped.shape == (MEMBERS,)


def test_random_directions_flip_little_and_less_than_the_truth(toy):
    batch = questions()
    rng = np.random.default_rng(0)
    x = states(toy, batch)
    covariance = np.stack([np.cov(member.T) for member in x])
    controls = {str(i): random_like(truth(toy), covariance, rng) for i in range(10)}
    changes = {
        name: lambda v, w=w: reflect(v, w, -(x.mean(1) * w).sum(-1)) for name, w in controls.items()
    }
    effects = causal_effects(toy, batch, *WHERE, changes, **ASK)
    planted = causal_effect(toy, batch, *WHERE, lambda v: reflect(v, truth(toy)), **ASK)
    flipped = np.array([effect.flipped for effect in effects.values()])
    assert flipped.mean() < 0.3
    assert (flipped.max(0) < planted.flipped).all()


def test_identity_at_strength_zero_changes_no_bit(toy):
    batch = questions()
    eraser = fit_leace(states(toy, batch), batch.facts["row"] % 2)
    nothing = {
        "reflect": lambda x: reflect(x, truth(toy), 0.3, strength=0.0),
        "ablate": lambda x: ablate(x, truth(toy), strength=0.0),
        "add": lambda x: add(x, truth(toy), 0.0),
        "leace": lambda x: eraser(x, 0.0),
    }
    for effect in causal_effects(toy, batch, *WHERE, nothing, **ASK).values():
        assert np.array_equal(effect.before, effect.after)
        assert (effect.displacement == 0).all()
        assert (effect.flipped == 0).all()


def test_adding_moves_towards_the_target_and_ablating_to_the_mean(toy):
    batch = questions()
    w = truth(toy)
    effects = causal_effects(
        toy,
        batch,
        *WHERE,
        {"add": lambda x: add(x, w, 0.5), "less": lambda x: add(x, w, -0.5)},
        **ASK,
    )
    np.testing.assert_allclose(effects["add"].log_odds_change, 0.5 * (w**2).sum(1), rtol=1e-4)
    np.testing.assert_allclose(effects["less"].log_odds_change, -0.5 * (w**2).sum(1), rtol=1e-4)
    other = causal_effect(toy, batch, *WHERE, lambda x: add(x, w, 0.5), answers=[NO, YES], target=0)
    np.testing.assert_allclose(other.log_odds_change, -0.5 * (w**2).sum(1), rtol=1e-4)
    _, own = reading_of(toy, batch)
    effect = causal_effect(toy, batch, *WHERE, lambda x: ablate(x, w), **ASK)
    np.testing.assert_allclose(effect.log_odds_changes, -own, atol=1e-4)


def test_only_the_named_position_is_touched(toy):
    batch = questions()
    table, w = toy.table.detach().numpy().astype(float), truth(toy)
    effect = causal_effect(toy, batch, WHERE[0], "first:claim", lambda x: reflect(x, w), **ASK)
    first = np.einsum("mnd,md->mn", table[:, batch.inputs[:, 0]], w)
    np.testing.assert_allclose(effect.log_odds_changes, -0.2 * first, atol=1e-4)
    behind = causal_effect(toy, batch, WHERE[0], "answer", lambda x: reflect(x, w), **ASK)
    assert np.array_equal(behind.before, behind.after)  # the answer comes after what is asked
    assert (behind.displacement > 0).all()


def test_nothing_is_left_behind(toy):
    batch = questions(10)
    before = states(toy, batch)
    with pytest.raises(RuntimeError, match="mine"):
        causal_effect(toy, batch, *WHERE, _fails, **ASK)
    assert np.array_equal(states(toy, batch), before)
    with capture(toy, "resid.post[0]", np.zeros((10, 1), int)) as kept:
        toy(torch.from_numpy(batch.inputs).expand(MEMBERS, -1, -1))
    assert kept["resid.post[0]"].shape == (MEMBERS, 10, 1, D)


def _fails(x):
    raise RuntimeError("mine")


@pytest.mark.parametrize("batch_tokens", [1, 40, None])
def test_batches_do_not_matter(toy, batch_tokens):
    batch = questions(20)
    whole = causal_effect(toy, batch, *WHERE, lambda x: reflect(x, truth(toy)), **ASK)
    parts = causal_effect(
        toy, batch, *WHERE, lambda x: reflect(x, truth(toy)), batch_tokens=batch_tokens, **ASK
    )
    np.testing.assert_allclose(parts.after, whole.after, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(parts.displacement, whole.displacement, rtol=1e-5, atol=1e-6)


def test_answers_and_targets_of_each_row(toy):
    batch = questions(20)
    turned = np.arange(20) % 2 == 0
    answers = np.where(turned[:, None], [YES, NO], [NO, YES])
    push = lambda x: add(x, truth(toy), 0.1)  # noqa: E731
    plain = causal_effect(toy, batch, *WHERE, push, **ASK)
    each = causal_effect(toy, batch, *WHERE, push, answers=answers, target=(~turned).astype(int))
    np.testing.assert_allclose(each.log_odds_changes, plain.log_odds_changes, atol=1e-5)
    three = causal_effect(toy, batch, *WHERE, push, answers=[NO, 4, YES], target=2)
    np.testing.assert_allclose(np.exp(three.before).sum(-1), 1.0, rtol=1e-6)
    # NO and 4 have the same logit: the odds against both are half those against one
    np.testing.assert_allclose(three.log_odds_changes, plain.log_odds_changes, atol=1e-5)
    odds, _ = reading_of(toy, batch)
    found = three.before[..., 2] - np.logaddexp(three.before[..., 0], three.before[..., 1])
    np.testing.assert_allclose(found, odds - np.log(2), atol=1e-4)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"site": "resid.pots[0]"}, "did you mean"),
        ({"position": "prompt_and"}, "did you mean"),
        ({"target": 2}, "index"),
        ({"target": np.zeros(3, int)}, "target"),
        ({"answers": [NO]}, "at least two"),
    ],
)
def test_refusals(toy, change, word):
    asked = {"site": WHERE[0], "position": WHERE[1], **ASK, **change}
    if "answers" in change:
        asked["target"] = 0
    with pytest.raises(InputError, match=word):
        causal_effect(toy, questions(5), intervention=lambda x: x, **asked)
