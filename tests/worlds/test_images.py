"""The world `images`: outlines by search, coverage by fine sampling, concepts by differences."""

from __future__ import annotations

import numpy as np
import pytest

from terrarium.errors import InputError
from terrarium.randomness import generator
from terrarium.worlds.base import Batch
from terrarium.worlds.check import check_world
from terrarium.worlds.images import shapes
from terrarium.worlds.images.factors import FACTORS, RANGES, Images
from terrarium.worlds.images.rendering import AMBIENT, SATURATION, VALUE, hsv

THIRD = 0.8 / 3**0.5
CORNERS = {
    "rectangle": [(0.85, 0.5), (-0.85, 0.5), (-0.85, -0.5), (0.85, -0.5)],
    "triangle": [(-0.8, -THIRD), (0.8, -THIRD), (0.0, 2 * THIRD)],
    "cross": [
        (0.9, 0.3), (0.3, 0.3), (0.3, 0.9), (-0.3, 0.9), (-0.3, 0.3), (-0.9, 0.3),
        (-0.9, -0.3), (-0.3, -0.3), (-0.3, -0.9), (0.3, -0.9), (0.3, -0.3), (0.9, -0.3),
    ],
}  # fmt: skip


def outline(shape: str) -> np.ndarray:
    """Points of an outline, close together."""
    share = np.linspace(0, 1, 2000)[:, None]
    if shape == "bar":
        angle = np.linspace(-np.pi / 2, np.pi / 2, 4000)
        cap = np.stack([0.55 + 0.4 * np.cos(angle), 0.4 * np.sin(angle)], axis=1)
        flat = np.stack([np.linspace(-0.55, 0.55, 2000), np.full(2000, 0.4)], axis=1)
        return np.concatenate([cap, -cap, flat, -flat])
    corners = np.array(CORNERS[shape])
    ends = np.roll(corners, -1, axis=0)
    return np.concatenate([a + (b - a) * share for a, b in zip(corners, ends, strict=True)])


def inside(shape: str, points: np.ndarray) -> np.ndarray:
    """Whether points lie inside, by crossings of a ray (the bar: by its axis)."""
    if shape == "bar":
        axis = np.stack([np.linspace(-0.55, 0.55, 4000), np.zeros(4000)], axis=1)
        return np.linalg.norm(points[:, None] - axis, axis=2).min(axis=1) < 0.4
    odd = np.zeros(len(points), bool)
    corners = np.array(CORNERS[shape])
    for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        spans = (a[1] > points[:, 1]) != (b[1] > points[:, 1])
        rise = np.where(b[1] == a[1], 1.0, b[1] - a[1])
        odd ^= spans & (points[:, 0] < (b[0] - a[0]) * (points[:, 1] - a[1]) / rise + a[0])
    return odd


@pytest.mark.parametrize("shape", shapes.SHAPES)
def test_outlines_are_exact_distances(shape):
    points = np.random.default_rng(0).uniform(-1.3, 1.3, (300, 2))
    rim = outline(shape)
    nearest = np.linalg.norm(points[:, None] - rim, axis=2).min(axis=1)
    signed = np.where(inside(shape, points), -nearest, nearest)
    found = shapes.distance(shape, points[:, 0], points[:, 1])
    assert found == pytest.approx(signed, abs=1e-3)
    assert np.hypot(*rim.T).max() < 1 < shapes.DOME


@pytest.mark.parametrize("shape", shapes.SHAPES)
def test_no_shape_is_its_own_turn_within_the_range_of_rotations(shape):
    u, v = np.random.default_rng(1).uniform(-1, 1, (2, 4000))
    first = shapes.distance(shape, u, v) < 0
    widest = RANGES["rotation_deg"].high - RANGES["rotation_deg"].low
    for degrees in np.arange(5, widest + 1, 5):
        turn = np.radians(degrees)
        turned = shapes.distance(
            shape, u * np.cos(turn) + v * np.sin(turn), v * np.cos(turn) - u * np.sin(turn)
        )
        assert np.mean(first != (turned < 0)) > 0.01


@pytest.mark.parametrize(
    "world",
    [
        Images(side=16, vary=10, samples=1),
        Images(side=8, channels=1, vary=2),
        Images(side=8, vary=("rotation_deg",)),
        Images(side=8, vary=("hue", "shape", "light_deg")),
    ],
    ids=["all", "fewest", "one", "some"],
)
def test_the_contract_is_kept(world):
    assert check_world(world) == []


def test_no_more_factors_vary_than_asked():
    for count in (2, 4, 7):
        batch = Images(side=8, vary=count).sample(300, generator("dial", count))
        moving = {name for name in FACTORS if len(np.unique(batch.facts[name])) > 1}
        assert moving == set(FACTORS[:count])
    with pytest.raises(InputError, match="beside the shape"):
        Images(vary=("shape",))


def test_pixels_are_the_means_of_what_fine_sampling_sees():
    coarse, fine = Images(side=16, vary=10), Images(side=16, vary=10, samples=16)
    drawn = coarse.sample(40, generator("fine"))
    exact = fine._of_facts(drawn.facts["label"], {name: drawn.facts[name] for name in RANGES})
    error = np.abs(drawn.inputs - exact.inputs)
    assert error.mean() < 0.002
    assert error.max() < 0.1
    assert np.abs(coarse.maps(drawn)["mask"] - fine.maps(drawn)["mask"]).max() < 0.12


def grid(batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """Shape frames of the pixel centres, worked out row by row."""
    rows, columns = np.mgrid[:16, :16] + 0.5
    us, vs = [], []
    for i in range(len(batch)):
        f = {name: batch.facts[name][i] for name in RANGES}
        turn = np.exp(-1j * np.radians(f["rotation_deg"]))
        z = ((columns - f["column"]) + 1j * (rows - f["row"])) / f["size"] * turn
        us.append(z.real)
        vs.append(z.imag)
    return np.array(us), np.array(vs)


def test_concepts_of_pixels_agree_with_each_other():
    world = Images(side=16, vary=10)
    batch = world.sample(30, generator("maps"))
    maps = world.maps(batch)
    assert {part.shape for part in maps.values()} == {(30, 16, 16)}
    u, v = grid(batch)
    size = batch.facts["size"][:, None, None]
    for i, shape in enumerate(batch.facts["shape"]):
        own = shapes.distance(str(shape), u[i], v[i]) * batch.facts["size"][i]
        assert maps["distance"][i] == pytest.approx(own, abs=1e-9)
    within = maps["distance"] < 0
    assert maps["height"][within] == pytest.approx(
        np.sqrt((shapes.DOME**2 - u**2 - v**2)[within]) * (size + 0 * u)[within]
    )
    # normals are those of the height: slopes by differences of it
    slope = np.gradient(maps["height"], axis=1) * -maps["normal_up"]
    deep = maps["distance"] < -1.5
    assert maps["normal_row"][deep] == pytest.approx(slope[deep], abs=0.03)
    length = sum(maps[f"normal_{part}"] ** 2 for part in ("row", "column", "up"))
    assert length == pytest.approx(np.ones_like(length))
    cosine = sum(maps[f"normal_{p}"] * maps[f"light_{p}"] for p in ("row", "column", "up"))
    assert maps["shading"] == pytest.approx(AMBIENT + (1 - AMBIENT) * np.maximum(cosine, 0))
    assert (maps["mask"][maps["distance"] < -1] == 1).all()
    assert (maps["mask"][maps["distance"] > 1] == 0).all()


def test_pixels_wholly_inside_have_the_shaded_colour():
    world = Images(side=16, vary=10, samples=1)
    batch = world.sample(30, generator("colour"))
    maps = world.maps(batch)
    rgb = hsv(batch.facts["hue"], SATURATION, VALUE)[:, :, None, None] * maps["shading"][:, None]
    deep = np.broadcast_to((maps["distance"] < -1)[:, None], rgb.shape)
    assert batch.inputs[deep] == pytest.approx(rgb[deep], abs=1e-4)


def test_light_from_above_lights_the_upper_half():
    world = Images(side=16, vary=10)
    facts = {name: np.array([(r.low + r.high) / 2]) for name, r in RANGES.items()}
    facts |= {"light_deg": np.array([0.0]), "elevation_deg": np.array([25.0])}
    image = world.render(np.array([1]), facts).inputs[0].mean(axis=0)
    rows = image[6:10, 6:10].mean(axis=1)
    assert (np.diff(rows) < 0).all()


def test_hues_are_those_of_colorsys():
    import colorsys

    hue = np.linspace(0, 0.99, 37)
    wanted = [colorsys.hsv_to_rgb(h, 0.45, 0.6) for h in hue]
    assert hsv(hue, 0.45, np.full(37, 0.6)) == pytest.approx(np.array(wanted))


def test_a_forest_tells_shapes_and_shuffled_labels_are_at_chance():
    from sklearn.ensemble import RandomForestClassifier

    world = Images(side=16, channels=1, vary=4)
    train = world.sample(1200, generator("label"), "train")
    test = world.sample(400, generator("label"), "test")
    flat = train.inputs.reshape(1200, -1), test.inputs.reshape(400, -1)
    forest = RandomForestClassifier(100, random_state=0).fit(flat[0], train.facts["label"])
    assert forest.score(flat[1], test.facts["label"]) > 0.6
    shuffled = np.random.default_rng(0).permutation(train.facts["label"])
    null = RandomForestClassifier(100, random_state=0).fit(flat[0], shuffled)
    assert abs(null.score(flat[1], test.facts["label"]) - 0.25) < 0.1
