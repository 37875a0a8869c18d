"""Analytic scenes: formulas against points of the surface that formulas did not make."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import yaml
from scipy.spatial import cKDTree

from terrarium.errors import InputError
from terrarium.randomness import generator
from terrarium.worlds.scenes.analytic import AnalyticScene
from terrarium.worlds.scenes.load import load_scene
from terrarium.worlds.scenes.shapes import parts
from terrarium.worlds.scenes.world import Scenes

SPHERE = {"kind": "sphere", "radius": 0.4}
CUBE = {"kind": "box", "half": [0.3, 0.3, 0.3]}


def scene(shape: dict[str, Any], **more: Any) -> AnalyticScene:
    return AnalyticScene.model_validate({"shape": shape, **more})


def moved(shape: dict[str, Any], *by: float, **more: Any) -> dict[str, Any]:
    return {"kind": "moved", "shape": shape, "translation": by or (0, 0, 0), **more}


def directions(n: int) -> np.ndarray:
    u = generator("directions").normal(size=(n, 3))
    return u / np.linalg.norm(u, axis=1, keepdims=True)


def box_points(half: np.ndarray) -> np.ndarray:
    sides = []
    for axis in range(3):
        lines = [np.linspace(-h, h, round(h * 280) + 1) for h in half]
        lines[axis] = half[axis] * np.array([-1.0, 1.0])
        sides.append(np.stack([m.ravel() for m in np.meshgrid(*lines)], axis=1))
    return np.concatenate(sides)


def torus_points(major: float, minor: float) -> np.ndarray:
    a, b = (m.ravel() for m in np.meshgrid(np.linspace(0, 2 * np.pi, 601), np.linspace(0, 7, 300)))
    ring = major + minor * np.cos(b)
    return np.stack([ring * np.cos(a), ring * np.sin(a), minor * np.sin(b)], axis=1)


def cylinder_points(radius: float, half: float) -> np.ndarray:
    a, h = (m.ravel() for m in np.meshgrid(np.linspace(0, 7, 900), np.linspace(-half, half, 150)))
    side = np.stack([radius * np.cos(a), radius * np.sin(a), h], axis=1)
    grid = np.linspace(-radius, radius, 260)
    disc = np.stack([m.ravel() for m in np.meshgrid(grid, grid)], axis=1)
    disc = disc[np.hypot(*disc.T) <= radius]
    ends = [np.column_stack([disc, np.full(len(disc), z)]) for z in (half, -half)]
    return np.concatenate([side, *ends])


START, STOP = np.array([-0.3, 0.0, 0.1]), np.array([0.2, 0.3, 0.4])
# each: the spec, points of its surface, and whether points are inside, none by the formulas
CASES: dict[str, tuple[dict[str, Any], np.ndarray, Any]] = {
    "sphere": (
        {"kind": "sphere", "radius": 0.4},
        0.4 * directions(120_000),
        lambda p: (p**2).sum(1) < 0.16,
    ),
    "box": (
        {"kind": "box", "half": [0.5, 0.3, 0.2]},
        box_points(np.array([0.5, 0.3, 0.2])),
        lambda p: (np.abs(p) < [0.5, 0.3, 0.2]).all(1),
    ),
    "torus": (
        {"kind": "torus", "major": 0.5, "minor": 0.2},
        torus_points(0.5, 0.2),
        lambda p: (np.hypot(p[:, 0], p[:, 1]) - 0.5) ** 2 + p[:, 2] ** 2 < 0.04,
    ),
    "cylinder": (
        {"kind": "cylinder", "radius": 0.4, "half_height": 0.3},
        cylinder_points(0.4, 0.3),
        lambda p: (np.hypot(p[:, 0], p[:, 1]) < 0.4) & (np.abs(p[:, 2]) < 0.3),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_primitive_is_the_distance_to_its_nearest_point(name: str) -> None:
    spec, surface, inside = CASES[name]
    it = scene(spec)
    points = generator("points", name).uniform(it.bounds[0] - 0.3, it.bounds[1] + 0.3, (700, 3))
    nearest = cKDTree(surface).query(points)[0]
    within = inside(points)
    signed = np.where(within, -nearest, nearest)
    assert 20 < within.sum() < 650
    # the points lie about 0.005 apart; what is near the surface is off by that, the rest by less
    assert it.distance(points) == pytest.approx(signed, abs=6e-3)
    far = nearest > 0.1
    assert it.distance(points)[far] == pytest.approx(signed[far], abs=6e-4)
    assert (it.occupancy(points) == within).all()
    assert it.exact == (True, True)
    assert np.abs(it.distance(surface[:2000])).max() < 1e-12
    low, high = it.bounds
    assert low == pytest.approx(surface.min(axis=0), abs=4e-3)
    assert high == pytest.approx(surface.max(axis=0), abs=4e-3)


def test_a_rounded_box_is_a_smaller_box_with_a_skin() -> None:
    half, radius = np.array([0.5, 0.3, 0.25]), 0.1
    it = scene({"kind": "rounded_box", "half": half.tolist(), "radius": radius})
    points = generator("rounded").uniform(-0.8, 0.8, (2000, 3))
    core = half - radius
    gap = np.linalg.norm(points - np.clip(points, -core, core), axis=1)
    beyond = gap > 0
    assert it.distance(points)[beyond] == pytest.approx(gap[beyond] - radius, abs=1e-12)
    within = (core - np.abs(points)).min(axis=1)[~beyond]
    assert it.distance(points)[~beyond] == pytest.approx(-within - radius, abs=1e-12)


def test_a_capsule_is_its_segment_with_a_skin() -> None:
    it = scene({"kind": "capsule", "start": START.tolist(), "stop": STOP.tolist(), "radius": 0.2})
    points = generator("capsule").uniform(it.bounds[0] - 0.3, it.bounds[1] + 0.3, (1000, 3))
    segment = START + np.linspace(0, 1, 20_001)[:, None] * (STOP - START)
    nearest = cKDTree(segment).query(points)[0]
    assert it.distance(points) == pytest.approx(nearest - 0.2, abs=2e-5)


def test_a_plane_measures_along_its_normal() -> None:
    it = scene({"kind": "plane", "normal": [0, 3, 4], "offset": 0.5}, extent=[[-1] * 3, [1] * 3])
    points = np.array([[7.0, 0.3, 0.4], [0.0, 0.6, 0.8], [1.0, 0.0, 0.0]])
    assert it.distance(points) == pytest.approx([0.0, 0.5, -0.5])
    with pytest.raises(ValueError, match="give extent"):
        scene({"kind": "plane"})


COMBINED: dict[str, dict[str, Any]] = {
    "overlapping union": {"kind": "union", "shapes": [SPHERE, moved(CUBE, 0.4, 0.1, 0)]},
    "apart": {"kind": "union", "shapes": [SPHERE, moved(CUBE, 1.0, 0, 0)]},
    "intersection": {"kind": "intersection", "shapes": [SPHERE, moved(CUBE, 0.2, 0.1, 0)]},
    "difference": {"kind": "difference", "shape": CUBE, "without": moved(SPHERE, 0.2, 0.2, 0.3)},
    "smooth": {
        "kind": "smooth_union",
        "shapes": [SPHERE, moved(SPHERE, 0.5, 0, 0)],
        "smoothing": 0.3,
    },
    "turned and scaled": moved(
        CASES["box"][0], 0.1, 0.2, 0.3, rotation_deg=[20, 30, 40], scale=0.7
    ),
    "grid": {
        "kind": "repeated",
        "shape": moved({"kind": "sphere", "radius": 0.1}, 0.2, 0.1, 0),
        "spacing": [0.7, 0.7, 0],
        "count": [3, 2, 0],
    },
}
EXACT = {
    "overlapping union": (True, False),
    "apart": (True, True),
    "intersection": (False, True),
    "difference": (False, True),
    "smooth": (False, False),
    "turned and scaled": (True, True),
    "grid": (True, True),
}


@pytest.mark.parametrize("name", COMBINED)
def test_what_is_said_to_be_exact_is_exact_and_the_rest_a_bound(name: str) -> None:
    it = scene(COMBINED[name])
    assert it.exact == EXACT[name]
    surface = it.surface(60_000, generator("surface", name))
    assert np.abs(it.distance(surface)).max() < 1e-12
    rng = generator("combined", name)
    points = rng.uniform(it.bounds[0] - 0.2, it.bounds[1] + 0.2, (1500, 3))
    points = np.concatenate([points, surface[:800] + rng.normal(0, 0.08, (800, 3))])
    nearest = cKDTree(surface).query(points)[0]
    value = it.distance(points)
    off = nearest - np.abs(value)
    assert off.min() > -1e-9  # never more than the distance
    off = off[nearest > 0.05]  # where the spacing of the points does not matter
    outside = (value >= 0)[nearest > 0.05]
    for here, exact in zip((outside, ~outside), it.exact, strict=True):
        if exact:
            assert np.quantile(off[here], 0.95) < 2e-3
            assert off[here].max() < 0.02  # on edges the drawn points lie wider apart
        else:
            assert off[here].max() > 0.03
    assert bool(it.notes) == (it.exact != (True, True))


def test_a_grid_is_the_union_of_its_copies() -> None:
    ball = moved({"kind": "sphere", "radius": 0.1}, 0.2, 0.1, 0)
    finite, endless = (
        scene(
            {"kind": "repeated", "shape": ball, "spacing": [0.7, 0.6, 0], "count": count},
            extent=[[-1] * 3, [1] * 3],
        )
        for count in ((3, 2, 0), (0, 0, 0))
    )
    points = generator("grid").uniform(-2, 2, (3000, 3))
    copies = [moved(ball, (i - 1) * 0.7, (j - 0.5) * 0.6, 0) for i in range(3) for j in range(2)]
    judge = scene({"kind": "union", "shapes": copies})
    assert finite.distance(points) == pytest.approx(judge.distance(points), abs=1e-12)
    many = [moved(ball, i * 0.7, j * 0.6, 0) for i in range(-5, 6) for j in range(-5, 6)]
    judge = scene({"kind": "union", "shapes": many})
    assert endless.distance(points) == pytest.approx(judge.distance(points), abs=1e-12)
    with pytest.raises(ValueError, match="out of its cell"):
        scene({"kind": "repeated", "shape": ball, "spacing": [0.5, 1, 1], "count": [2, 2, 2]})


def test_a_turn_is_right_handed() -> None:
    rod = {"kind": "box", "half": [0.5, 0.1, 0.1]}
    for degrees, tip in (
        ([0, 0, 90], [0, 1, 0]),
        ([0, 90, 0], [0, 0, -1]),
        ([0, 0, 30], [0.75**0.5, 0.5, 0]),
    ):
        end = moved(rod, rotation_deg=degrees)
        it = scene({"kind": "difference", "shape": end, "without": moved(SPHERE, 0, 0, 9)})
        assert it.distance(0.5 * np.array([tip])) == pytest.approx([0], abs=1e-9)
    marked = scene(
        moved({**SPHERE, "colour": {"kind": "gradient", "start": [0, -1, 0], "stop": [0, 1, 0]}},
              rotation_deg=[90, 0, 0])
    )  # fmt: skip
    up = marked.colour(np.array([[0, 0, 0.9], [0, 0, -0.9]]))  # y is turned to z
    assert up[0, 0] > up[1, 0]


@pytest.mark.parametrize("name", COMBINED)
def test_gradients_and_hessians_are_those_of_differences(name: str) -> None:
    it, step = scene(COMBINED[name]), 1e-5
    points = generator("gradients", name).uniform(*it.bounds, (1000, 3))
    found = it.jet(points)
    assert found.hessian is not None
    ahead, behind = ([points + s * step * np.eye(3)[i] for i in range(3)] for s in (1, -1))
    pairs = list(zip(ahead, behind, strict=True))
    slope = [(it.distance(a) - it.distance(b)) / (2 * step) for a, b in pairs]
    bend = [(it.jet(a, 1).gradient - it.jet(b, 1).gradient) / (2 * step) for a, b in pairs]
    off = np.abs(np.stack(slope, axis=1) - found.gradient).max(axis=1)
    assert np.quantile(off, 0.98) < 1e-5  # but at kinks
    off = np.abs(np.stack(bend, axis=1) - found.hessian).max(axis=(1, 2))
    assert np.quantile(off, 0.98) < 1e-5
    assert found.value == pytest.approx(it.distance(points), abs=1e-15)


def test_mean_curvature_is_that_of_textbooks() -> None:
    rng = generator("curvature")
    ball = scene(SPHERE)
    assert ball.curvature(rng.normal(size=(50, 3))) == pytest.approx(np.full(50, 2.5), rel=1e-6)
    rod = scene({"kind": "cylinder", "radius": 0.4, "half_height": 5})
    assert rod.curvature(np.array([[0.6, 0.1, 1], [0, 0.2, -1]])) == pytest.approx(1.25, rel=1e-6)
    assert rod.curvature(np.array([[0.1, 0.1, 6.0]])) == pytest.approx(0, abs=1e-6)
    major, minor = 0.5, 0.2
    ring = scene({"kind": "torus", "major": major, "minor": minor})
    angle = np.linspace(0, 2 * np.pi, 13)
    across = major + 1.3 * minor * np.cos(angle)
    points = np.stack([0 * angle, across, 1.3 * minor * np.sin(angle)], axis=1)
    # Do Carmo 1976, section 3-3: H = (R + 2 r cos) / (2 r (R + r cos))
    known = (major + 2 * minor * np.cos(angle)) / (2 * minor * (major + minor * np.cos(angle)))
    assert ring.curvature(points) == pytest.approx(known, rel=1e-6)
    hollow = scene({"kind": "difference", "shape": {"kind": "box", "half": [2, 2, 2]},
                    "without": SPHERE})  # fmt: skip
    assert hollow.curvature(np.array([[0.5, 0, 0]])) == pytest.approx(-2.5, rel=1e-6)
    turned = scene(moved(CUBE, rotation_deg=[20, 30, 40]))
    flat = turned.curvature(rng.normal(size=(300, 3)))  # the nearest points are edges too
    assert np.abs(flat).max() < 1e-6


def test_normals_point_away_from_the_nearest_point() -> None:
    it = scene(COMBINED["turned and scaled"])
    points = generator("normals").uniform(it.bounds[0] - 0.2, it.bounds[1] + 0.2, (400, 3))
    gap = (points - it.closest(points)) / it.distance(points)[:, None]
    assert it.normals(points) == pytest.approx(gap, abs=1e-6)
    assert (scene(SPHERE).normals(np.zeros((1, 3))) == 0).all()


def test_the_surface_is_drawn_evenly_by_area() -> None:
    major, minor, n = 0.5, 0.3, 20_000
    points = scene({"kind": "torus", "major": major, "minor": minor}).surface(n, generator("area"))
    outer = np.hypot(points[:, 0], points[:, 1]) > major
    share = 0.5 + minor / (np.pi * major)
    assert outer.mean() == pytest.approx(share, abs=4 * (share * (1 - share) / n) ** 0.5)
    assert abs(share - 0.5) > 0.15
    two = {"kind": "union", "shapes": [{**SPHERE, "radius": 0.2}, moved(SPHERE, 1, 0, 0)]}
    large = scene(two).surface(n, generator("two"))[:, 0] > 0.5
    assert large.mean() == pytest.approx(0.8, abs=4 * (0.16 / n) ** 0.5)


def test_a_smooth_seam_is_drawn_evenly_too() -> None:
    n, it = 20_000, scene(COMBINED["smooth"])
    # a surface of revolution about x: its profile by bisection, its area by the trapezoid rule
    x = np.linspace(-0.4, 0.9, 4001)
    low, high = np.zeros_like(x), np.ones_like(x)
    for _ in range(50):
        radius = (low + high) / 2
        within = it.distance(np.stack([x, radius, 0 * x], axis=1)) < 0
        low, high = np.where(within, radius, low), np.where(within, high, radius)
    area = radius * np.hypot(1, np.gradient(radius, x))
    seam = np.abs(x - 0.25) < 0.1
    share = np.trapezoid(area * seam, x) / np.trapezoid(area, x)
    points = it.surface(n, generator("seam"))
    found = (np.abs(points[:, 0] - 0.25) < 0.1).mean()
    assert found == pytest.approx(share, abs=4 * (share * (1 - share) / n) ** 0.5)


def test_colours_are_functions_of_the_place() -> None:
    red, blue = [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]
    points = np.array([[0.1, 0.1, 0.1], [0.3, 0.1, 0.1], [0.3, 0.3, 0.1], [-0.1, 0.1, 0.1]])

    def colours(at: np.ndarray = points, **colour: Any) -> list[list[float]]:
        return (
            scene({**SPHERE, "colour": {"first": red, "second": blue, **colour}})
            .colour(at)
            .tolist()
        )

    assert colours(kind="checker", size=0.2) == [red, blue, red, blue]
    assert colours(kind="stripes", axis="x", period=0.4, sharp=True) == [red, blue, blue, blue]
    soft = colours(np.array([[0, 0, 0], [0, 0, 0.1], [0, 0, 0.2]]), kind="stripes", period=0.4)
    assert np.array(soft) == pytest.approx(np.array([red, [0.5, 0, 0.5], blue]))
    mixed = colours(points[:2], kind="gradient", start=[0, 0, 0], stop=[0.4, 0, 0])
    assert np.array(mixed) == pytest.approx(np.array([[0.75, 0, 0.25], [0.25, 0, 0.75]]))


def test_parts_and_colours_follow_the_nearest_primitive() -> None:
    plain = [{**SPHERE, "colour": {"kind": "constant", "rgb": c}} for c in ([1, 0, 0], [0, 1, 0])]
    pair = [plain[0], moved(plain[1], 1, 0, 0)]
    points = np.array([[0.0, 0.1, 0], [0.45, 0, 0], [0.55, 0, 0], [1.2, 0, 0]])
    hard = scene({"kind": "union", "shapes": pair})
    assert hard.parts(points).tolist() == [0, 0, 1, 1]
    assert hard.colour(points)[:, 1].tolist() == [0, 0, 1, 1]
    soft = scene({"kind": "smooth_union", "shapes": pair, "smoothing": 0.4})
    middle = soft.colour(np.array([[0.5, 0.2, 0.0]]))
    assert middle == pytest.approx(np.array([[0.5, 0.5, 0]]))
    for x in (0.45, 0.55):
        point, step = np.array([[x, 0.2, 0.0]]), 1e-6
        balls = [np.hypot(x - c, 0.2) - 0.4 for c in (0, 1)]
        # the share of the second is how much the value moves with its distance
        moves = [soft.shape._smooth(balls[0], balls[1] + s) for s in (step, -step)]  # type: ignore[union-attr]
        share = (moves[0] - moves[1]) / (2 * step)
        assert soft.colour(point) == pytest.approx(np.array([[1 - share, share, 0]]), abs=1e-6)
        assert (share > 0.5) == (x > 0.5)
    nested = {"kind": "difference", "shape": hard.shape, "without": moved(CUBE, 1.0, 0, 0)}
    assert parts(scene(nested).shape) == 3
    assert scene(nested).parts(np.array([[1.0, 0, 0], [0, 0, 0.0]])).tolist() == [2, 0]


def test_rays_meet_what_is_known_to_be_there() -> None:
    rng = generator("rays")
    origins = rng.normal(size=(3000, 3))
    origins *= 2 / np.linalg.norm(origins, axis=1, keepdims=True)
    towards = rng.uniform(-0.5, 0.5, (3000, 3)) - origins
    towards /= np.linalg.norm(towards, axis=1, keepdims=True)
    ball = scene(SPHERE).cast(origins, towards)
    half = np.einsum("ni,ni->n", origins, towards)
    root = half**2 - (4 - 0.16)
    known = np.where(root > 0, -half - np.sqrt(np.maximum(root, 0)), np.inf)
    clear = np.abs(root) > 1e-6
    assert (ball.mask == np.isfinite(known))[clear].all()
    both = ball.mask & clear
    assert ball.depth[both] == pytest.approx(known[both], abs=1e-6)
    met = origins[both] + known[both, None] * towards[both]
    assert ball.normals[both] == pytest.approx(met / 0.4, abs=1e-5)
    assert 0.2 < ball.mask.mean() < 0.9
    # from within, a ray meets the surface where it leaves
    within = scene(SPHERE).cast(np.zeros((5, 3)), directions(5))
    assert within.depth == pytest.approx(np.full(5, 0.4), abs=1e-8)
    # a floor ends at its extent
    floor = scene({"kind": "plane"}, extent=[[-1, -1, -1], [1, 1, 1]])
    down = floor.cast(np.array([[0.5, 0, 3], [1.5, 0, 3.0]]), np.array([[0, 0, -1.0]] * 2))
    assert down.depth == pytest.approx([3, np.inf])


def test_a_yaml_file_holds_a_scene(tmp_path: Any) -> None:
    spec = {"shape": COMBINED["smooth"], "lights": [{"kind": "point", "position": [0, 0, 2]}]}
    (tmp_path / "scene.yaml").write_text(yaml.safe_dump(spec))
    read = load_scene(tmp_path / "scene.yaml")
    assert isinstance(read, AnalyticScene)
    assert read == scene(**{"shape": COMBINED["smooth"]}, lights=spec["lights"])
    assert AnalyticScene.model_validate_json(read.model_dump_json()) == read
    (tmp_path / "bad.yaml").write_text("shape: {kind: spheer}")
    with pytest.raises(InputError, match=r"bad.yaml.*sphere.*torus"):
        load_scene(tmp_path / "bad.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(InputError, match="holds no mapping"):
        load_scene(tmp_path / "list.yaml")
    for wrong in (
        {**SPHERE, "radius": -1},
        {"kind": "torus", "minor": 1.0},
        {"kind": "box", "x": 1},
    ):
        with pytest.raises(InputError):
            load_scene({"shape": wrong})


def test_an_empty_scene_says_so() -> None:
    gone = {"kind": "intersection", "shapes": [SPHERE, moved(SPHERE, 0.75, 0.1, 0.4)]}
    with pytest.raises(InputError, match="surface was not found"):
        scene(gone, extent=[[-1] * 3, [1] * 3]).surface(10, generator("none"))
    with pytest.raises(ValueError, match="no volume"):
        scene({"kind": "intersection", "shapes": [SPHERE, moved(SPHERE, 2, 0, 0)]})


# ------------------------------------------------------------------ one part moved or gone

BALL = {"kind": "sphere", "radius": 0.4, "colour": {"kind": "stripes", "axis": "x", "period": 0.2}}
RING = {"kind": "torus", "colour": {"kind": "constant", "rgb": [0.1, 0.2, 0.3]}}
TURN = {"translation": [0.5, 0, 0], "rotation_deg": [30, 40, 50], "scale": 1.5}


def _three(*between: dict[str, Any], smoothing: float = 0.2) -> dict[str, Any]:
    turned = {
        "kind": "moved",
        **TURN,
        "shape": {"kind": "difference", "shape": BALL, "without": RING},
    }
    shapes = [{"kind": "box", "half": [0.2, 0.3, 0.4]}, *between, turned]
    return {"kind": "smooth_union", "smoothing": smoothing, "shapes": shapes}


def test_a_scene_without_a_part_is_the_one_written_without_it() -> None:
    whole = AnalyticScene.model_validate({"shape": _three({"kind": "sphere"})})
    points = np.random.default_rng(0).uniform(-1.5, 1.5, (500, 3))
    alone = AnalyticScene.model_validate({"shape": _three()})
    for one, two in ((whole.without(1), alone), (alone.without(2).without(1), alone.without(1))):
        assert one.distance(points) == pytest.approx(two.distance(points), abs=1e-12)
        assert one.colour(points) == pytest.approx(two.colour(points), abs=1e-12)
    assert np.abs(whole.without(1).distance(points) - whole.distance(points)).max() > 0.1
    filled = alone.without(2)  # the hollow's shape is gone, so that the ball is whole
    assert (filled.distance(points) <= alone.distance(points) + 1e-12).all()
    assert (whole.without(1).bounds == whole.bounds).all()
    first, other = (Scenes(scene=scene) for scene in (whole, whole.without(1)))
    assert (first.to_scene(points) == other.to_scene(points)).all()


def test_a_moved_part_takes_its_distance_and_texture_along() -> None:
    shift = np.array([0.3, -0.2, 0.5])
    whole = AnalyticScene.model_validate({"shape": {"kind": "moved", **TURN, "shape": BALL}})
    points = np.random.default_rng(1).uniform(-1.5, 1.5, (500, 3))
    after = whole.with_moved(0, shift.tolist())
    assert after.distance(points) == pytest.approx(whole.distance(points - shift), abs=1e-12)
    assert after.colour(points) == pytest.approx(whole.colour(points - shift), abs=1e-9)
    both = AnalyticScene.model_validate({"shape": _three()})
    moved = both.with_moved(0, (0.0, 0.0, 1.0))
    far = both.parts(points) != moved.parts(points)
    assert 0 < far.mean() < 1


def test_parts_that_cannot_go_are_refused() -> None:
    ball = AnalyticScene.model_validate({"shape": BALL})
    grid = {"kind": "repeated", "spacing": [1, 1, 1], "count": [2, 2, 2], "shape": BALL}
    for act, words in (
        (lambda: ball.without(0), "nothing is left"),
        (lambda: ball.without(1), "no part 1; its parts are 0 to 0"),
        (lambda: ball.with_moved(-1, (0, 0, 1)), "no part -1"),
        (
            lambda: AnalyticScene.model_validate({"shape": grid}).with_moved(0, (0.3, 0, 0)),
            "out of its cell",
        ),
    ):
        with pytest.raises(InputError, match=words) as caught:
            act()
        assert "\n" not in str(caught.value)
