import numpy as np
import pytest

from terrarium.errors import InputError
from terrarium.worlds.check import check_world
from terrarium.worlds.images import outlines, shapes
from terrarium.worlds.images.captions import ANSWERS, HUES, Captions
from terrarium.worlds.images.factors import RANGES


@pytest.mark.parametrize("options", [{}, {"vary": 10, "corners": 8, "grid": 128}, {"vary": 7}])
def test_keeps_the_contract_of_a_world(options):
    check_world(Captions(**options))


@pytest.mark.parametrize("place", range(4))
def test_points_lie_on_the_outline_and_evenly(place):
    start = np.linspace(0, 0.99, 9)
    p = outlines.points(np.full(9, place), start, 400)
    # the bar's round ends are drawn by straight pieces
    assert np.abs(shapes.distance(shapes.SHAPES[place], p[..., 0], p[..., 1])).max() < 2e-4
    steps = np.linalg.norm(np.diff(p, axis=1, append=p[:, :1]), axis=2)
    assert np.median(steps) == pytest.approx(steps.max(), rel=1e-3)
    # a corner cuts a step short: by half at most, at the triangle's sixty degrees
    assert (steps > 0.49 * steps.max()).all()


def test_what_is_told_is_where_the_image_has_the_shape():
    world = Captions(vary=7, grid=256)
    batch = world.sample(40, np.random.default_rng(0), "test")
    distance = world.images.maps(batch)["distance"]
    for i, text in enumerate(world.texts(batch)):
        pairs = [part.split("/") for part in text.split(": ")[1].split(" is ")[0].split()]
        at = (np.array(pairs, float) + 0.5) * (world.side / world.grid)
        row, column = np.floor(at).astype(int).T
        # pixel centres lie within half a diagonal of any point in the pixel
        assert np.abs(distance[i, row, column]).max() < np.sqrt(0.5) + 0.1


def test_words_follow_the_numbers():
    world = Captions(vary=7)
    batch = world.sample(400, np.random.default_rng(1))
    words = np.array([text.split(" on ")[0] for text in world.texts(batch)])
    means = [batch.facts["hue"][words == word].mean() for word in HUES]
    width = (RANGES["hue"].high - RANGES["hue"].low) / len(HUES)
    expected = RANGES["hue"].low + width * (np.arange(len(HUES)) + 0.5)
    np.testing.assert_allclose(means, expected, atol=0.3 * width)
    assert {text.rsplit(" is", 1)[1] for text in world.texts(batch)} == {a + "." for a in ANSWERS}


def test_bags_of_words_do_not_tell_the_shape():
    """Position after position is needed: the shape is in the geometry, not in any token."""
    from sklearn.linear_model import LogisticRegression

    world = Captions(vary=7)

    def counted(split, n):
        batch = world.sample(n, np.random.default_rng(2), split)
        tokens = np.stack([np.bincount(r[:-2], minlength=200)[:200] for r in batch.inputs])
        return tokens, batch.facts["label"]

    x, y = counted("train", 3000)
    model = LogisticRegression(max_iter=300, C=0.01).fit(x, y)
    x, y = counted("test", 1000)
    assert model.score(x, y) < 0.5


def test_refuses_laws_whose_sentences_would_coincide():
    with pytest.raises(InputError, match="at least two of"):
        Captions(vary=("hue", "row"))


def test_regret_and_judge():
    world = Captions()
    batch = world.sample(10, np.random.default_rng(3))
    even = np.full((10, 4), 0.25)
    np.testing.assert_allclose(world.regret(batch, even), np.log(4))
    said = [f" a {shape}.<eos>" for shape in batch.facts["shape"]]
    assert world.judge(batch, said)["right"].all()
    assert not world.judge(batch, ["a dog"] * 10)["valid"].any()
