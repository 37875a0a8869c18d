"""Damaged meshes: mended and told, or one clear sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from terrarium.errors import InputError
from terrarium.randomness import generator
from terrarium.worlds.scenes.load import load_scene
from terrarium.worlds.scenes.mesh import MeshScene
from terrarium.worlds.scenes.world import Scenes

trimesh = pytest.importorskip("trimesh", reason="the extra vision is not installed")
pytest.importorskip("igl", reason="the extra vision is not installed")

POINTS = generator("damaged").uniform(-1, 1, (600, 3))


def opened(mesh: Any, path: Path) -> MeshScene:
    mesh.export(path)
    it = load_scene(path)
    assert isinstance(it, MeshScene)
    return it


def ball(**more: Any) -> Any:
    return trimesh.creation.icosphere(subdivisions=3, radius=0.7, **more)


@pytest.fixture
def whole(tmp_path: Path) -> np.ndarray:
    return opened(ball(), tmp_path / "whole.ply").distance(POINTS)


def test_holes_are_accepted_and_flagged(tmp_path: Path, whole: np.ndarray) -> None:
    holed = ball()
    holed.update_faces(holed.triangles_center[:, 2] < 0.62)
    it = opened(holed, tmp_path / "holed.ply")
    assert not it.watertight
    (note,) = it.notes
    assert note.startswith("The mesh is not watertight (")
    assert "winding number" in note
    far = np.abs(whole) > 0.15
    far &= POINTS[:, 2] < 0.7 * np.linalg.norm(POINTS, axis=1)  # the nearest point is still there
    assert it.distance(POINTS)[far] == pytest.approx(whole[far], abs=1e-9)
    assert (it.occupancy(POINTS) == (whole < 0))[far].all()


def test_flipped_faces_are_turned_back(tmp_path: Path, whole: np.ndarray) -> None:
    flipped = ball()
    rows = generator("flip").random(len(flipped.faces)) < 0.2
    faces = flipped.faces.copy()
    faces[rows] = faces[rows][:, ::-1]
    it = opened(trimesh.Trimesh(flipped.vertices, faces, process=False), tmp_path / "flipped.ply")
    assert it.notes == (
        f"{rows.sum()} of {len(faces)} faces were turned against their neighbours; they were "
        "turned round.",
    )
    assert it.distance(POINTS) == pytest.approx(whole, abs=1e-6)
    assert it.normals(POINTS) == pytest.approx(
        POINTS / np.linalg.norm(POINTS, axis=1, keepdims=True), abs=0.2
    )


def test_a_mesh_inside_out_is_turned(tmp_path: Path, whole: np.ndarray) -> None:
    inverted = ball()
    inverted.invert()
    it = opened(inverted, tmp_path / "inverted.ply")
    assert it.notes == ("The mesh was inside out: its 1280 faces were turned round.",)
    assert it.distance(POINTS) == pytest.approx(whole, abs=1e-6)
    open_one = ball()
    open_one.update_faces(open_one.triangles_center[:, 2] < 0.5)
    kept = opened(open_one, tmp_path / "open.ply").occupancy(POINTS)
    open_one.invert()
    it = opened(open_one, tmp_path / "open_inverted.ply")
    assert it.notes[0].startswith("The mesh was inside out")
    assert (it.occupancy(POINTS) == kept).all()
    assert 0.05 < kept.mean() < 0.3


def test_a_cavity_stays_and_an_inverted_piece_does_not(tmp_path: Path) -> None:
    cavity = trimesh.creation.icosphere(subdivisions=2, radius=0.3)
    cavity.invert()
    hollow = opened(trimesh.util.concatenate([ball(), cavity]), tmp_path / "hollow.ply")
    assert hollow.notes == ()
    assert hollow.occupancy(np.array([[0, 0, 0], [0.5, 0, 0], [0.9, 0, 0]])).tolist() == [
        False,
        True,
        False,
    ]
    beside = cavity.copy().apply_translation([2, 0, 0])
    pair = opened(trimesh.util.concatenate([ball(), beside]), tmp_path / "pair.ply")
    assert pair.notes == ("A piece of the mesh was inside out: its 320 faces were turned round.",)
    assert pair.occupancy(np.array([[0, 0, 0], [2.0, 0, 0]])).all()


def test_faces_that_do_nothing_are_left_out(tmp_path: Path, whole: np.ndarray) -> None:
    it = ball()
    faces = np.concatenate([it.faces, it.faces[:5], [[0, 0, 1], [3, 4, 3]]])
    it = opened(trimesh.Trimesh(it.vertices, faces, process=False), tmp_path / "idle.ply")
    assert it.notes == (
        "2 faces without area were left out.",
        "5 repeated faces were left out.",
    )
    assert it.distance(POINTS) == pytest.approx(whole, abs=1e-6)


def plate(size: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """A flat square of ``2 * size**2`` faces."""
    corner = np.stack(np.meshgrid(*[np.arange(size + 1.0)] * 2, indexing="ij"), -1).reshape(-1, 2)
    a = (np.arange(size)[:, None] * (size + 1) + np.arange(size)).reshape(-1)
    across = np.stack([a, a + size + 1, a + size + 2], axis=1)
    along = np.stack([a, a + size + 2, a + 1], axis=1)
    return np.c_[corner, np.zeros(len(corner))], np.concatenate([across, along])


def test_a_ball_squashed_flat_has_no_curvature_and_says_so(tmp_path: Path) -> None:
    squashed = ball()
    squashed.vertices = squashed.vertices * [1, 1, 0]
    it = opened(squashed, tmp_path / "squashed.ply")
    assert any(note.startswith("The mesh is closed and flat: ") for note in it.notes)
    assert np.isnan(it.curvature(POINTS)).all()
    assert not it.occupancy(POINTS).any()


def test_faces_back_to_back_are_kept_from_the_fit(tmp_path: Path) -> None:
    vertices, faces = plate()
    vertices[:, 2] = 0.1 * vertices[:, 0] ** 2  # an open sheet that is bent
    doubled = faces[(faces == 7).any(axis=1)]
    both = np.concatenate([faces, doubled[:, ::-1]])
    it = opened(trimesh.Trimesh(vertices, both, process=False), tmp_path / "both.ply")
    assert "6 pairs of faces lie back to back" in " ".join(it.notes)
    bent = it.curvature(vertices)
    assert np.isnan(bent[7])
    assert np.isfinite(bent).any()
    # two pieces that meet in a point, where their normals cancel
    one = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1.0]])
    sides = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]])
    other = np.where(sides > 0, sides + 3, 0)[:, ::-1]
    met = trimesh.Trimesh(np.r_[one, -one[1:]], np.r_[sides, other], process=False)
    assert np.isnan(opened(met, tmp_path / "met.ply").curvature(POINTS)).all()


def test_an_open_sheet_is_flat_and_has_curvature_zero(tmp_path: Path) -> None:
    vertices, faces = plate()
    it = opened(trimesh.Trimesh(vertices, faces, process=False), tmp_path / "sheet.ply")
    assert len(it.notes) == 1  # of its edges
    assert it.curvature(vertices) == pytest.approx(0, abs=1e-12)


def written(vertices: np.ndarray, faces: np.ndarray, path: Path) -> Path:
    """Write an OBJ with every digit."""
    lines = [f"v {x!r} {y!r} {z!r}" for x, y, z in vertices.tolist()]
    lines += [f"f {a} {b} {c}" for a, b, c in (faces + 1).tolist()]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("scale", [1e-30, 1e300, 1e-10, 1e10])
def test_extents_that_no_answer_is_exact_for_are_refused(scale: float, tmp_path: Path) -> None:
    path = written(ball().vertices * scale, ball().faces, tmp_path / "ball.obj")
    with pytest.raises(InputError, match=r"units across; expected from 1e-09 to 1e\+09") as error:
        load_scene(path)
    assert "\n" not in str(error.value)


@pytest.mark.filterwarnings("error")
def test_a_stray_vertex_is_refused_and_one_that_no_face_uses_is_not(tmp_path: Path) -> None:
    vertices = ball().vertices.copy()
    load_scene(written(np.r_[vertices, [[1e300, 0, 0]]], ball().faces, tmp_path / "idle.obj"))
    vertices[0, 0] = 1e300
    with pytest.raises(InputError, match="delete stray vertices"):
        load_scene(written(vertices, ball().faces, tmp_path / "stray.obj"))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_answers_scale_with_the_mesh(scale: float, tmp_path: Path, whole: np.ndarray) -> None:
    it = load_scene(written(ball().vertices * scale, ball().faces, tmp_path / "ball.obj"))
    assert it.distance(POINTS * scale) / scale == pytest.approx(whole, abs=1e-6)
    world = Scenes.model_validate({"scene": str(tmp_path / "ball.obj"),
                                   "quantity": "occupancy", "law": {"surface": 0}})  # fmt: skip
    assert world.sample(200, generator("scale")).facts["inside"].mean() == pytest.approx(
        0.5, abs=0.2
    )


def test_a_surface_with_one_side_has_no_inside(tmp_path: Path) -> None:
    turn = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    rims = []
    for side in (-1, 1):
        across = 1 + 0.2 * side * np.cos(turn / 2)
        rims.append(
            np.stack(
                [across * np.cos(turn), across * np.sin(turn), 0.2 * side * np.sin(turn / 2)],
                axis=1,
            )
        )
    i = np.arange(40)
    after, a, b = (i + 1) % 40, i, i + 40
    c, d = np.where(i == 39, after + 40, after), np.where(i == 39, after, after + 40)
    faces = np.concatenate([np.stack([a, c, b], axis=1), np.stack([b, c, d], axis=1)])
    strip = trimesh.Trimesh(np.concatenate(rims), faces, process=False)
    with pytest.raises(InputError, match="one side only"):
        opened(strip, tmp_path / "strip.ply")


def test_an_obj_without_its_texture_is_flagged(tmp_path: Path) -> None:
    text = "mtllib absent.mtl\nusemtl skin\nv 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\n"
    text += "vt 0 0\nvt 1 0\nvt 0 1\n"
    text += "".join(
        f"f {a}/1 {b}/2 {c}/3\n" for a, b, c in ((1, 3, 2), (1, 2, 4), (2, 3, 4), (3, 1, 4))
    )
    (tmp_path / "bare.obj").write_text(text)
    it = load_scene(tmp_path / "bare.obj")
    (note,) = it.notes
    assert "no texture was found" in note
    assert np.ptp(it.colour(POINTS), axis=0).max() < 1e-12
    (tmp_path / "absent.mtl").write_text("newmtl skin\nKd 0.2 0.4 0.6\nmap_Kd gone.png\n")
    (note,) = load_scene(tmp_path / "bare.obj").notes
    assert "no texture was found" in note
    with pytest.raises(InputError, match="There is no texture"):
        load_scene(tmp_path / "bare.obj", texture=str(tmp_path / "gone.png"))
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n1234")
    with pytest.raises(InputError, match="cannot be read as a picture"):
        load_scene(tmp_path / "bare.obj", texture=str(tmp_path / "cut.png"))


def test_a_texture_that_is_cut_off_gets_one_sentence(tmp_path: Path) -> None:
    from PIL import Image

    text = "mtllib it.mtl\nusemtl skin\nv 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\n"
    text += "vt 0 0\nvt 1 0\nvt 0 1\nf 1/1 3/2 2/3\nf 1/1 2/2 4/3\nf 2/1 3/2 4/3\nf 3/1 1/2 4/3\n"
    (tmp_path / "it.obj").write_text(text)
    (tmp_path / "it.mtl").write_text("newmtl skin\nmap_Kd skin.png\n")
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "skin.png")
    whole = (tmp_path / "skin.png").read_bytes()
    assert load_scene(tmp_path / "it.obj").notes == ()
    (tmp_path / "skin.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"skin\.png cannot be read as a picture; it may be cut"):
        load_scene(tmp_path / "it.obj")


def glb() -> bytes:
    return bytes(trimesh.Scene(ball()).export(file_type="glb"))


def ply(text: str) -> bytes:
    return f"ply\nformat ascii 1.0\n{text}".encode()


NAN = ply(
    "element vertex 3\nproperty float x\nproperty float y\nproperty float z\n"
    "element face 1\nproperty list uchar int vertex_indices\nend_header\n"
    "nan 0 0\n1 0 0\n0 1 0\n3 0 1 2\n"
)
CLOUD = ply(
    "element vertex 2\nproperty float x\nproperty float y\nproperty float z\nend_header\n"
    "0 0 0\n1 1 1\n"
)

BROKEN: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "absent": ("gone.obj", lambda: b"", "There is no file"),
    "empty": ("empty.obj", lambda: b"", "is empty"),
    "unknown kind": ("mesh.blend", lambda: b"BLENDER", "no known kind of mesh"),
    "text as glb": ("text.glb", lambda: b"hello, this is no mesh at all", "cannot be read as GLB"),
    "cut glb": ("cut.glb", lambda: glb()[:2000], "cannot be read as GLB"),
    "cut ply": ("cut.ply", lambda: bytes(ball().export(file_type="ply"))[:5000],
                "cannot be read as PLY"),
    "cut stl": ("cut.stl", lambda: bytes(ball().export(file_type="stl"))[:500], "cut off"),
    "bytes as stl": ("bytes.stl", lambda: bytes(range(256)) * 3, "another kind"),
    "json of another kind": ("other.gltf", lambda: b"[1, 2", "no glTF file"),
    "gltf without its buffer": ("lone.gltf", lambda: b'{"buffers": [{"uri": "b.bin"}]}',
                                "refers to b.bin, which is not beside it"),
    "no faces": ("none.obj", lambda: b"# an empty scene\n", "no faces|cannot be read as OBJ"),
    "points": ("points.obj", lambda: b"v 0 0 0\nv 1 0 0\nv 0 1 0\n", "3 points and no faces|faces"),
    "point cloud": ("cloud.ply", lambda: CLOUD, "2 points and no faces"),
    "NaN": ("nan.ply", lambda: NAN, "1 vertices whose coordinates are NaN"),
    "NaN in obj": ("nan.obj", lambda: b"v nan 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "NaN"),
    "faces of absent vertices": ("short.obj", lambda: b"v 0 0 0\nv 1 0 0\nf 1 2 9\n",
                                 "cut off"),
    "flat to a line": ("line.obj", lambda: b"v 0 0 0\nv 1 0 0\nv 2 0 0\nf 1 2 3\n",
                       "none with an area"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_used_gets_one_sentence(name: str, tmp_path: Path) -> None:
    file, content, expected = BROKEN[name]
    path = tmp_path / file
    if name != "absent":
        path.write_bytes(content())
    with pytest.raises(InputError, match=expected) as raised:
        load_scene(path)
    sentence = str(raised.value)
    assert file in sentence
    assert "\n" not in sentence
    assert len(sentence) < 400


def test_a_folder_is_no_mesh(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder"):
        load_scene({"path": str(tmp_path)})
