"""The world of scenes keeps the contract, draws by its law, and knows its answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from terrarium.errors import InputError
from terrarium.randomness import generator
from terrarium.worlds.base import worlds
from terrarium.worlds.check import check_world
from terrarium.worlds.finite import Finite
from terrarium.worlds.scenes.scene import render
from terrarium.worlds.scenes.world import Scenes

PAIR = {
    "kind": "analytic",
    "shape": {
        "kind": "smooth_union",
        "smoothing": 0.2,
        "shapes": [
            {"kind": "sphere", "colour": {"kind": "checker"}},
            {
                "kind": "moved",
                "translation": [0.5, 0, 0],
                "shape": {"kind": "torus", "colour": {"kind": "stripes"}},
            },
        ],
    },
}
QUANTITIES = ("distance", "occupancy", "colour", "view")


@pytest.mark.parametrize("quantity", QUANTITIES)
def test_the_contract_holds_for_formulas(quantity: Any) -> None:
    check_world(Scenes(quantity=quantity))
    check_world(Scenes(scene=PAIR, quantity=quantity, normalise=False))


@pytest.mark.parametrize("quantity", QUANTITIES)
def test_the_contract_holds_for_a_mesh(quantity: Any, shared_data: Callable[[str], Path]) -> None:
    pytest.importorskip("igl", reason="the extra vision is not installed")
    spot = {
        "kind": "mesh",
        "path": str(shared_data("meshes/spot.obj")),
        "texture": str(shared_data("meshes/spot_texture.png")),
        "lights": [{"kind": "directional", "towards": [1, 2, 3]}],
    }
    world = Scenes(scene=spot, quantity=quantity, views={"up": "y", "rows": 40, "columns": 40})
    check_world(world)
    assert world.scene.checksum  # type: ignore[union-attr]
    assert worlds.get("scenes") is Scenes


def test_points_follow_their_law() -> None:
    law = {"volume": 0.3, "near": 0.5, "surface": 0.2, "spread": 0.03}
    world = Scenes(law=law)
    batch = world.sample(6000, generator("law"))
    where, distance = batch.facts["where"], batch.facts["distance"]
    assert np.abs(distance[where == "surface"]).max() < 1e-6
    near = distance[where == "near"]
    # a Gaussian step off a nearly flat surface: its normal part is Gaussian
    assert near.std() == pytest.approx(0.03 * world.diagonal, rel=0.05)
    points = batch.inputs[where == "volume"].astype(np.float64)
    assert points.min() > -1.0 - 1e-6
    assert points.max() < 1.0 + 1e-6
    radius = 1 / 1.1  # the ball within its margin
    inside = 4 / 3 * np.pi * radius**3 / 8
    share = (distance[where == "volume"] < 0).mean()
    assert share == pytest.approx(inside, abs=0.06)  # cells, not points, are drawn into splits
    assert batch.facts["distance"] == pytest.approx(
        np.linalg.norm(batch.inputs.astype(np.float64), axis=1) - radius, abs=1e-12
    )


@pytest.mark.parametrize("quantity", QUANTITIES)
def test_a_finite_set_of_a_scenes_examples_keeps_the_contract(quantity: Any) -> None:
    more = {} if quantity == "view" else {"scene": PAIR}
    world = Finite(world="scenes", options={"quantity": quantity, **more}, rows=3000)
    check_world(world)
    batch = world.sample(9000, generator("finite"))
    assert 2500 < len({row.tobytes() for row in batch.inputs}) <= 3000
    assert world.optimum(batch) == pytest.approx(batch.targets, abs=1e-6)


def test_occupancy_is_asked_inside_and_outside_alike() -> None:
    world = Scenes(scene=PAIR, quantity="occupancy")
    batch = world.sample(4000, generator("sides"), "validation")
    for where in ("volume", "near"):
        here = batch.facts["where"] == where
        assert batch.targets[here].mean() == pytest.approx(0.5, abs=0.05)
    verdict = world.judge(batch, list(0.6 * batch.targets + 0.1))
    assert verdict["right"].all()
    assert not world.judge(batch, list(1 - batch.targets))["right"].any()
    with pytest.raises(InputError, match="neither inside nor outside"):
        Scenes(quantity="occupancy", law={"volume": 0.5, "near": 0.3, "surface": 0.2})
    with pytest.raises(InputError, match=r"sum to 1\.2"):
        Scenes(law={"volume": 0.7, "near": 0.5})


def test_distances_are_right_within_half_a_percent_of_the_diagonal() -> None:
    world = Scenes(scene=PAIR)
    batch = world.sample(3, generator("right"))
    off = np.array([[0.0], [0.0049], [0.0051]]) * world.diagonal
    assert world.judge(batch, list(world.optimum(batch) + off))["right"].tolist() == [
        True,
        True,
        False,
    ]
    assert world.regret(batch, world.optimum(batch) + 0.1) == pytest.approx(np.full(3, 0.01))


def test_inputs_are_the_scene_s_own_points_in_a_frame() -> None:
    big = {"kind": "moved", "translation": [10, 0, 0], "scale": 6, "shape": {"kind": "sphere"}}
    world = Scenes(scene={"kind": "analytic", "shape": big}, margin=0.5)
    batch = world.sample(500, generator("frame"), "test")
    points = world.to_scene(batch.inputs)
    known = np.linalg.norm(points - [10, 0, 0], axis=1) - 3
    assert batch.facts["distance"] * 3 * 1.5 == pytest.approx(known, abs=1e-9)
    assert world.diagonal == pytest.approx(2 * 3**0.5 / 1.5)
    own = Scenes(scene={"kind": "analytic", "shape": big}, normalise=False)
    batch = own.sample(500, generator("frame"), "test")
    assert (own.to_scene(batch.inputs) == batch.inputs).all()
    assert own.output.unit == "units of the scene"


def test_views_are_the_pixels_of_rendered_pictures() -> None:
    lit = {**PAIR, "lights": [{"kind": "point", "position": [0, 0, 3]}]}
    views = {"count": 30, "rows": 16, "columns": 24, "radius": 3.0, "background": (0.2, 0.3, 0.4)}
    world = Scenes(scene=lit, quantity="view", views=views)
    batch = world.sample(400, generator("views"), "test")
    mine = world.views.of_split("test")
    cameras = world.cameras("test")
    assert len(cameras) == len(mine) > 1
    for camera, number in zip(cameras, mine, strict=True):
        picture = render(world.oracle, camera, background=(0.2, 0.3, 0.4))
        here = batch.facts["camera"] == number
        row, column = batch.facts["row"][here], batch.facts["column"][here]
        # rays are float32: on an edge of the colours they may see the other side
        same = np.abs(batch.targets[here] - picture.rgb[row, column]).max(axis=1) < 1e-3
        assert same.mean() > 0.97
        hit = batch.facts["hit"][here]
        assert (hit == picture.mask[row, column]).mean() > 0.97
    assert 0.1 < batch.facts["hit"].mean() < 0.9
    numbers = [set(world.views.of_split(s).tolist()) for s in ("train", "validation", "test")]
    assert len(set.union(*numbers)) == sum(map(len, numbers)) == 30
    heights = [c.pose[2, 3] for s in ("train", "validation", "test") for c in world.cameras(s)]
    assert np.sin(np.deg2rad(-30)) < min(heights) / 3 < max(heights) / 3 < np.sin(np.deg2rad(80))


def test_symmetries_are_found_and_nothing_else() -> None:
    def families(world: Scenes) -> set[str]:
        return {pair.name for pair in world.counterfactuals(20, generator("pairs"))}

    assert families(Scenes(scene=PAIR)) == {"through_the_surface", "mirror_y", "mirror_z"}
    # the checker is no mirror image of itself
    assert families(Scenes(scene=PAIR, quantity="colour")) == {"through_the_surface"}
    (across, *_) = Scenes().counterfactuals(500, generator("across"))
    flat = across.before.facts["where"] == "near"
    before, after = (pair.facts["distance"][flat] for pair in (across.before, across.after))
    assert after == pytest.approx(-before, abs=1e-5)  # through a ball, on the line to its middle


def test_paths_are_specs(tmp_path: Path) -> None:
    (tmp_path / "scene.yaml").write_text("shape: {kind: torus}")
    world = Scenes(scene=str(tmp_path / "scene.yaml"))
    assert world == Scenes(scene={"kind": "analytic", "shape": {"kind": "torus"}})
    assert Scenes.model_validate_json(world.model_dump_json()) == world
    with pytest.raises(InputError, match="There is no file"):
        Scenes(scene=str(tmp_path / "gone.obj"))
    with pytest.raises(InputError, match="no split 'trian'"):
        world.sample(3, generator(0), "trian")


def test_meshes_that_leave_nothing_to_learn_are_refused(tmp_path: Path) -> None:
    trimesh = pytest.importorskip("trimesh", reason="the extra vision is not installed")
    pytest.importorskip("igl", reason="the extra vision is not installed")
    trimesh.creation.box().export(tmp_path / "box.ply")
    plain = Scenes(scene=str(tmp_path / "box.ply"), quantity="colour")
    with pytest.raises(InputError, match="one colour throughout"):
        plain.sample(5, generator("plain"))
    sheet = trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2]], process=False)
    sheet.export(tmp_path / "sheet.ply")
    flat = Scenes(scene=str(tmp_path / "sheet.ply"), quantity="occupancy")
    with pytest.raises(InputError, match="hardly any points inside"):
        flat.sample(50, generator("flat"))
