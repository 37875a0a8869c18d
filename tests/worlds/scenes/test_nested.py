"""Parts of a mesh inside others: solids in solids are left out, overlaps told, cavities kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from terrarium.randomness import generator
from terrarium.worlds.scenes import mesh_nested
from terrarium.worlds.scenes.load import load_scene
from terrarium.worlds.scenes.mesh import MeshScene

trimesh = pytest.importorskip("trimesh", reason="the extra vision is not installed")
pytest.importorskip("igl", reason="the extra vision is not installed")

POINTS = generator("nested").uniform(-1.1, 1.1, (500, 3))


def ball(radius: float, x: float = 0.0, inside_out: bool = False) -> Any:
    made = trimesh.creation.icosphere(subdivisions=2, radius=radius)
    if inside_out:
        made.invert()
    return made.apply_translation([x, 0, 0])


def opened(path: Path, *parts: Any) -> MeshScene:
    trimesh.util.concatenate(parts).export(path)
    it = load_scene(path)
    assert isinstance(it, MeshScene)
    return it


@pytest.mark.parametrize(
    "inner",
    [
        [ball(0.5)],
        [ball(0.5), ball(0.3)],
        [ball(0.5), ball(0.3, inside_out=True)],
        [ball(0.2, 0.4), ball(0.2, -0.4)],
        [trimesh.creation.box(extents=[1, 1, 1])],
    ],
    ids=["ball", "ball in ball", "hollow ball", "two", "box"],
)
def test_solids_in_solids_are_left_out(inner: list[Any], tmp_path: Path) -> None:
    alone = opened(tmp_path / "alone.ply", ball(1))
    both = opened(tmp_path / "both.ply", ball(1), *inner)
    (note,) = both.notes
    assert note.endswith(f"{sum(len(part.faces) for part in inner)} faces were left out.")
    assert both.distance(POINTS) == pytest.approx(alone.distance(POINTS), abs=1e-12)
    assert both.watertight
    assert len(both.surface_mesh.wear.image) == len(both.surface_mesh.faces) == 320


def test_cavities_and_what_lies_in_them_stay(tmp_path: Path) -> None:
    parts = (ball(1), ball(0.6, inside_out=True), ball(0.3))
    it = opened(tmp_path / "shells.ply", *parts)
    assert it.notes == ()
    line = np.array([[0.0, 0, 0], [0.45, 0, 0], [0.8, 0, 0]])
    assert it.occupancy(line).tolist() == [True, False, True]
    assert it.distance(line) == pytest.approx([-0.3, 0.15, -0.2], abs=0.02)


def test_parts_that_overlap_are_told(tmp_path: Path) -> None:
    cube = trimesh.creation.box(extents=[1.5] * 3)
    crossed = opened(tmp_path / "crossed.ply", ball(1), cube)
    (note,) = crossed.notes
    assert "surface lies inside another part" in note
    assert len(crossed.surface_mesh.faces) == 320 + 12
    # what the note says is right: distances outside
    apart = [opened(tmp_path / f"{i}.ply", part) for i, part in enumerate((ball(1), cube))]
    union = np.minimum(*(it.distance(POINTS) for it in apart))
    outside = union > 0
    assert crossed.distance(POINTS)[outside] == pytest.approx(union[outside], abs=1e-12)
    assert (crossed.occupancy(POINTS) == (union < 0)).all()
    # no corner and no middle of a face lies within the other bar
    bars = [trimesh.creation.box(extents=size) for size in ([10, 1, 1], [1, 10, 1])]
    assert "About 4" in opened(tmp_path / "plus.ply", *bars).notes[0]
    # a part that touches the other from within is none that lies wholly inside
    low = trimesh.creation.box(extents=[0.5] * 3).apply_translation([0, 0, 0.5])
    assert "another part" in opened(tmp_path / "low.ply", cube, low).notes[0]


def test_one_part_and_parts_apart_cost_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mesh_nested, "_hidden", None)
    assert opened(tmp_path / "one.ply", ball(1)).notes == ()
    assert opened(tmp_path / "two.ply", ball(1), ball(0.5, 3.0)).notes == ()


def test_nothing_is_left_out_of_an_open_mesh(tmp_path: Path) -> None:
    holed = ball(1)
    holed.update_faces(holed.triangles_center[:, 2] < 0.9)
    it = opened(tmp_path / "open.ply", holed, ball(0.4))
    assert it.notes[0].startswith("The mesh is not watertight")
    assert "another part" in it.notes[1]
    assert len(it.surface_mesh.faces) == len(holed.faces) + 320
