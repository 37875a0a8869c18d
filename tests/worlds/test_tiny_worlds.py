import numpy as np
import pytest
from tokenizers import Tokenizer

from terrarium.errors import InputError
from terrarium.randomness import generator
from terrarium.worlds.bandit import Bandit
from terrarium.worlds.base import worlds
from terrarium.worlds.features import input_features
from terrarium.worlds.field import AnalyticField
from terrarium.worlds.leakage import leakage
from terrarium.worlds.patches import Patches
from terrarium.worlds.tokens import ClosedVocabulary


def test_the_circle_is_the_distance_to_its_nearest_point():
    world = AnalyticField(radius=0.4)
    batch = world.sample(200, generator("circle"), "test")
    angle = np.linspace(0, 2 * np.pi, 20_001)
    rim = 0.4 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    nearest = np.linalg.norm(batch.inputs[:, None] - rim, axis=2).min(axis=1)
    signed = np.where(np.hypot(*batch.inputs.T) < 0.4, -nearest, nearest)
    assert world.optimum(batch)[:, 0] == pytest.approx(signed, abs=1e-4)
    assert batch.targets.dtype == np.float32
    assert batch.targets.shape == (200, 1)


def test_the_smooth_union_is_a_union_with_a_soft_seam():
    world = AnalyticField(shape="smooth_union", radius=0.3, offset=0.25, smoothing=0.1)
    points = np.random.default_rng(0).uniform(-1, 1, (4000, 2))
    one, two = (np.hypot(points[:, 0] - s * 0.25, points[:, 1]) - 0.3 for s in (1, -1))
    hard = np.minimum(one, two)
    value = world.value(points)
    far = np.abs(one - two) >= 0.1
    assert (value[far] == hard[far]).all()
    assert (value[~far] < hard[~far]).all()
    assert (value >= hard - 0.1 / 4 - 1e-12).all()
    seam = np.array([[-1e-6, 0.5], [1e-6, 0.5]])  # smooth where the hard union has a crease
    step = np.diff(world.value(seam))[0] / 2e-6
    assert abs(step) < 1e-5


def test_a_field_is_right_within_its_tolerance():
    world = AnalyticField()
    batch = world.sample(4, generator("field"))
    given = world.optimum(batch) + np.array([[0.0], [0.009], [0.02], [np.nan]])
    verdict = world.judge(batch, list(given))
    assert verdict["right"].tolist() == [True, True, False, False]
    assert verdict["valid"].tolist() == [True, True, True, False]
    assert world.regret(batch, world.optimum(batch) + 0.1) == pytest.approx(np.full(4, 0.01))


def test_a_patch_is_made_from_its_factors():
    world = Patches()
    batch = world.sample(500, generator("patches"))
    assert batch.inputs.shape == (500, 1, 8, 8)
    assert (batch.inputs == batch.targets).all()
    assert batch.inputs.min() >= 0
    assert batch.inputs.max() <= 1
    facts = batch.facts
    centre = np.rint(np.stack([facts["row"], facts["column"]], 1)).astype(int)
    there = batch.inputs[np.arange(500), 0, centre[:, 0], centre[:, 1]]
    assert ((there > 0.5) == facts["bright"]).all()
    place = np.stack([facts["row"], facts["column"]], axis=1)
    again = world.render(place, facts["strength"], facts["bright"])
    assert (again.inputs == batch.inputs).all()
    wrong = batch.inputs + np.float32(0.1)
    assert world.regret(batch, wrong) == pytest.approx(np.full(500, 0.64), rel=1e-4)
    assert not world.judge(batch, list(wrong))["right"].any()


def test_a_bandits_answer_follows_its_letter_alone():
    world = Bandit(letters=8, arms=3, length=2)
    batch = world.sample(600, generator("bandit"))
    answers = {}
    for letter, answer in zip(batch.facts["letter"], batch.facts["answer"], strict=True):
        assert answers.setdefault(letter, answer) == answer
    assert len(answers) == 8 == len(set(answers.values()))
    decode = Tokenizer.from_str(world.tokenizer_json()).decode
    written = [
        decode(row[start:stop].tolist())
        for row, (start, stop) in zip(batch.inputs, batch.spans["answer"], strict=True)
    ]
    assert world.judge(batch, written)["right"].all()
    assert not world.judge(batch, [w[::-1] + "x" for w in written])["valid"].any()
    assert (world.regret(batch, np.array(["AA"] * 600)) == (batch.facts["answer"] != "AA")).all()
    with pytest.raises(InputError, match="raise arms or length"):
        Bandit(letters=5, arms=4)


@pytest.mark.parametrize("name", ["field", "patches", "bandit"])
def test_unknown_splits_are_refused(name):
    with pytest.raises(InputError, match="did you mean 'train'"):
        worlds.get(name)().sample(3, generator(0), "trian")


def test_a_closed_vocabulary_cuts_longest_first_and_round_trips():
    vocabulary = ClosedVocabulary(("a", "ab", " a", ".", "*", "  "))
    tokenizer = Tokenizer.from_str(vocabulary.tokenizer_json())
    text = "aba a  ab.*"
    encoded = tokenizer.encode(text)
    assert encoded.tokens == ["ab", "a", " a", "  ", "ab", ".", "*"]
    assert tokenizer.decode(encoded.ids) == text == vocabulary.text(np.array(encoded.ids))
    assert vocabulary.text(np.array([0, 3, 2])) == "a"
    with pytest.raises(ValueError, match="different"):
        ClosedVocabulary(("a", "a"))


def test_input_features_are_the_statements_tokens_and_nothing_of_the_answer():
    world = Bandit()
    batch = world.sample(50, generator("features"))
    features = world.input_features(batch)
    assert features.dtype == np.float32
    assert set(np.unique(features)) == {0.0, 1.0}
    assert (features.sum(axis=1) == 5 + 4).all()  # five positions, four of them in spans
    inputs = batch.inputs.copy()
    inputs[:, 5:] = 7
    other = type(batch)(inputs, batch.targets, batch.facts, batch.spans, batch.lengths)
    assert (world.input_features(other) == features).all()
    inputs[:, 2] += 1
    assert ((world.input_features(other) != features).sum(axis=1) == 4).all()
    hashed = input_features(batch, 50_000, 6)
    assert hashed.shape == (50, 4096)
    assert (hashed.sum(axis=1) == 5 + 4).all()  # five tokens, four pairs


def test_worlds_without_labels_or_features_cannot_leak():
    with pytest.raises(InputError, match="no input_features"):
        leakage(AnalyticField())
