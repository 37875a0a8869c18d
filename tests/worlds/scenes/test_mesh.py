"""Meshes: libigl and Embree against trimesh's own ways, closed forms, and the pixels themselves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from terrarium.errors import InputError
from terrarium.randomness import generator
from terrarium.worlds.scenes.load import load_scene
from terrarium.worlds.scenes.mesh import MeshFile, MeshScene
from terrarium.worlds.scenes.texture import lookup

trimesh = pytest.importorskip("trimesh", reason="the extra vision is not installed")
pytest.importorskip("igl", reason="the extra vision is not installed")
pytest.importorskip("embreex", reason="the extra vision is not installed")
from PIL import Image  # noqa: E402

Data = Callable[[str], Path]


def opened(path: Any, **options: Any) -> MeshScene:
    it = load_scene(path, **options)
    assert isinstance(it, MeshScene)
    return it


def saved(mesh: Any, path: Path) -> Path:
    mesh.export(path)
    return path


def about(it: MeshScene, n: int, key: str, edge: float = 0.2) -> np.ndarray:
    return generator(key).uniform(it.bounds[0] - edge, it.bounds[1] + edge, (n, 3))


@pytest.fixture
def spot(shared_data: Data) -> MeshScene:
    texture = str(shared_data("meshes/spot_texture.png"))
    return opened(shared_data("meshes/spot.obj"), texture=texture)


def test_libigl_and_trimesh_agree_about_spot(spot: MeshScene) -> None:
    surface = spot.surface_mesh
    judge = trimesh.Trimesh(surface.vertices, surface.faces, process=False)
    assert judge.is_watertight
    assert spot.watertight
    assert judge.volume > 0
    points = np.concatenate([about(spot, 800, "spot"), spot.surface(800, generator("near"))])
    points[800:] += generator("step").normal(0, 0.02, (800, 3))
    size = np.linalg.norm(np.diff(spot.bounds, axis=0))
    theirs = -trimesh.proximity.signed_distance(judge, points)
    assert np.abs(spot.distance(points) - theirs).max() < 1e-5 * size
    assert 0.1 < (theirs < 0).mean() < 0.6


def test_winding_agrees_with_the_parity_of_rays(spot: MeshScene) -> None:
    surface = spot.surface_mesh
    judge = trimesh.Trimesh(surface.vertices, surface.faces, process=False)
    points = about(spot, 3000, "parity")
    towards = np.tile([0.5377, 0.2113, 0.8163], (len(points), 1))
    crossed = judge.ray.intersects_id(points, towards, multiple_hits=True)[1]
    odd = np.bincount(crossed, minlength=len(points)) % 2 == 1
    clear = np.abs(spot.distance(points)) > 1e-4
    assert (spot.occupancy(points) == odd)[clear].all()
    assert 0.1 < odd.mean() < 0.5
    winding = spot.winding(points)
    assert np.abs(winding - odd)[clear].max() < 0.01


def test_a_fine_icosphere_becomes_a_ball(tmp_path: Path) -> None:
    radius, errors, bends, depths = 0.7, [], [], []
    for level in (2, 3, 4):
        ball = trimesh.creation.icosphere(subdivisions=level, radius=radius)
        it = opened(saved(ball, tmp_path / f"{level}.ply"))
        points = about(it, 2000, "ball")
        far = np.linalg.norm(points, axis=1)
        errors.append(np.abs(it.distance(points) - (far - radius)).max())
        bends.append(np.abs(it.curvature(points) - 1 / radius).max())
        rays = points - np.array([0, 0, 4.0])
        rays = rays[far < 0.5] / np.linalg.norm(rays[far < 0.5], axis=1, keepdims=True)
        half = -4 * rays[:, 2]
        known = half - np.sqrt(half**2 - (16 - radius**2))
        met = it.cast(np.tile([0, 0, 4.0], (len(rays), 1)), rays)
        depths.append(np.abs(met.depth - known).max())
        assert np.einsum("ni,ni->n", met.normals, rays).max() < 0
    for found in (errors, bends, depths):  # of second order in the edges' length
        assert found[0] / found[1] > 2.5
        assert found[1] / found[2] > 2.5
    assert errors[-1] < 1e-3
    assert bends[-1] < 0.05 / radius
    assert depths[-1] < 2e-3


@pytest.mark.parametrize("kind", ["glb", "gltf", "obj", "ply", "stl", "off"])
def test_formats_give_the_same_distances(kind: str, tmp_path: Path) -> None:
    ring = trimesh.creation.torus(0.6, 0.25, major_sections=40, minor_sections=20)
    points = generator("formats").uniform(-1, 1, (500, 3))
    judge = trimesh.proximity.signed_distance(ring, points)
    if kind == "gltf":
        for name, content in trimesh.exchange.gltf.export_gltf(trimesh.Scene(ring)).items():
            (tmp_path / name).write_bytes(content)
        path = tmp_path / "model.gltf"
    else:
        path = saved(ring, tmp_path / f"ring.{kind}")
    it = opened(path)
    assert it.notes == ()
    assert it.distance(points) == pytest.approx(-judge, abs=1e-6)
    assert len(it.surface_mesh.vertices) == 800


def test_objects_stand_where_the_file_places_them(tmp_path: Path) -> None:
    cube = trimesh.creation.box()
    shifted, mirrored = np.eye(4), np.diag([-1.0, 1, 1, 1])
    shifted[:3, 3] = [3, 0, 0]
    mirrored[:3, 3] = [0, 5, 0]
    whole = trimesh.Scene()
    whole.add_geometry(cube, geom_name="cube", transform=shifted)
    whole.graph.update(frame_to="twin", geometry="cube", matrix=mirrored)
    it = opened(saved(whole, tmp_path / "two.glb"))
    points = np.array([[3, 0, 0], [0, 5, 0], [0, 0, 0], [3, 0, 0.75], [0.1, 5.75, 0]])
    assert it.distance(points) == pytest.approx([-0.5, -0.5, 2.5, 0.25, 0.25])
    pieces = it.parts(points)
    assert pieces[0] == pieces[3] != pieces[1] == pieces[4]
    assert it.normals(points[3:]) == pytest.approx(np.array([[0, 0, 1], [0, 1, 0]]), abs=1e-12)


def test_rays_meet_the_first_face(spot: MeshScene) -> None:
    surface = spot.surface_mesh
    judge = trimesh.Trimesh(surface.vertices, surface.faces, process=False)
    slow = trimesh.ray.ray_triangle.RayMeshIntersector(judge)  # no Embree
    origins = 4 * generator("origins").normal(size=(150, 3))
    towards = about(spot, 150, "targets", edge=-0.1) - origins
    towards /= np.linalg.norm(towards, axis=1, keepdims=True)
    places, ray, _ = slow.intersects_location(origins, towards, multiple_hits=False)
    known = np.full(150, np.inf)
    known[ray] = np.linalg.norm(places - origins[ray], axis=1)
    met = spot.cast(origins, towards)
    assert met.depth == pytest.approx(known, abs=1e-9)
    assert 0.3 < met.mask.mean() < 1
    points = (origins + met.depth[:, None] * towards)[met.mask]
    assert np.abs(spot.distance(points)).max() < 1e-9
    assert met.colour[met.mask] == pytest.approx(spot.colour(points), abs=1e-6)


def quad(pixels: np.ndarray, pbr: bool = False) -> Any:
    """A unit square in the plane z = 0, two triangles, dressed in a picture."""
    corners = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0.0]])
    picture = Image.fromarray(pixels)
    material = trimesh.visual.material.SimpleMaterial(image=picture)
    if pbr:
        material = trimesh.visual.material.PBRMaterial(baseColorTexture=picture)
    visual = trimesh.visual.TextureVisuals(uv=corners[:, :2], material=material)
    faces = [[0, 1, 2], [0, 2, 3]]
    return trimesh.Trimesh(corners, faces, visual=visual, process=False)


@pytest.mark.parametrize("kind", ["obj", "glb"])
def test_a_textured_point_has_the_colour_of_its_pixel(kind: str, tmp_path: Path) -> None:
    pixels = generator("pixels").integers(0, 256, (5, 7, 3), dtype=np.uint8)
    square = quad(pixels, pbr=kind == "glb")
    it = opened(saved(square, tmp_path / f"square.{kind}"))
    row, column = (m.ravel() for m in np.meshgrid(np.arange(5), np.arange(7), indexing="ij"))
    points = np.stack([(column + 0.5) / 7, 1 - (row + 0.5) / 5, 0.3 + 0 * row], axis=1)
    assert (it.colour(points) * 255).round(6).tolist() == pixels[row, column].tolist()
    assert it.notes[0].startswith("The mesh is not watertight")
    # within a quarter of a pixel of the middle the nearest pixel is the same one
    near = opened(tmp_path / f"square.{kind}", filter="nearest")
    shifted = points + np.array([0.25 / 7, -0.25 / 5, 0])
    assert (near.colour(shifted) * 255).round(6).tolist() == pixels[row, column].tolist()
    halfway = np.array([[1 / 7, 1 - 0.5 / 5, 0]])
    assert it.colour(halfway)[0] * 255 == pytest.approx(pixels[0, :2].mean(axis=0))


def test_textures_repeat() -> None:
    picture = generator("repeat").random((4, 4, 3))
    uv = generator("uv").uniform(-2, 3, (100, 2))
    for filter_ in ("bilinear", "nearest"):
        once = lookup(picture, uv % 1.0, filter_)  # type: ignore[arg-type]
        assert lookup(picture, uv, filter_) == pytest.approx(once)  # type: ignore[arg-type]


def test_spot_wears_its_texture(spot: MeshScene, shared_data: Data) -> None:
    whole = trimesh.load_mesh(shared_data("meshes/spot.obj"), process=False)
    picture = np.asarray(Image.open(shared_data("meshes/spot_texture.png")).convert("RGB")) / 255
    face = generator("faces").integers(0, len(whole.faces), 500)
    weights = generator("weights").dirichlet(np.ones(3), 500)
    points = np.einsum("nc,nck->nk", weights, whole.triangles[face])
    uv = np.einsum("nc,nck->nk", weights, whole.visual.uv[whole.faces[face]])
    column = np.clip(uv[:, 0] * picture.shape[1] - 0.5, 0, None)
    row = np.clip((1 - uv[:, 1]) * picture.shape[0] - 0.5, 0, None)
    from scipy.ndimage import map_coordinates

    known = np.stack(
        [
            map_coordinates(picture[..., c], [row, column], order=1, mode="nearest")
            for c in range(3)
        ],
        axis=1,
    )
    assert spot.colour(points) == pytest.approx(known, abs=1e-6)
    assert np.ptp(known) > 0.5


def test_vertex_and_face_colours_are_worn(tmp_path: Path) -> None:
    cube = trimesh.creation.box()
    cube.visual.vertex_colors = np.column_stack(
        [(cube.vertices > 0).astype(np.uint8) * 255, np.full(8, 255, np.uint8)]
    )
    for kind in ("ply", "glb"):
        it = opened(saved(cube, tmp_path / f"cube.{kind}"))
        corners = np.array([[0.5, 0.5, 0.5], [-0.5, 0.5, -0.5]])
        assert it.colour(corners) == pytest.approx(np.array([[1, 1, 1], [0, 1, 0]]))
        middle = it.colour(np.array([[0.5, 0.5, 0.0]]))
        assert middle == pytest.approx(np.array([[1, 1, 0.5]]))
    faces = trimesh.creation.box()
    faces.visual.face_colors = np.where(faces.face_normals[:, :1] > 0.5, [255, 0, 0, 255], 255)
    it = opened(saved(faces, tmp_path / "faces.ply"))
    assert it.colour(np.array([[0.6, 0.1, 0.2], [0, 0, 0.7]])).tolist() == [[1, 0, 0], [1, 1, 1]]


def test_smooth_normals_are_those_of_the_ball(tmp_path: Path) -> None:
    path = saved(trimesh.creation.icosphere(subdivisions=3), tmp_path / "ball.ply")
    points = generator("smooth").normal(size=(300, 3))
    known = points / np.linalg.norm(points, axis=1, keepdims=True)
    flat, smooth = (
        np.abs(opened(path, smooth=smooth).normals(points) - known).mean() for smooth in (0, 1)
    )
    assert smooth < flat / 2
    assert flat < 0.1


def test_a_point_of_the_surface_is_drawn_by_area(tmp_path: Path) -> None:
    two = trimesh.util.concatenate(
        [trimesh.creation.box(), trimesh.creation.box((2, 2, 2)).apply_translation([5, 0, 0])]
    )
    it = opened(saved(two, tmp_path / "two.ply"))
    points = it.surface(10_000, generator("area"))
    assert np.abs(it.distance(points)).max() < 1e-12
    assert (points[:, 0] > 2).mean() == pytest.approx(0.8, abs=4 * (0.16 / 1e4) ** 0.5)


def test_the_content_of_a_mesh_is_part_of_its_spec(tmp_path: Path) -> None:
    pixels = np.zeros((3, 3, 3), np.uint8)
    path = saved(quad(pixels), tmp_path / "square.obj")
    first = MeshFile(path=str(path))
    assert MeshFile.model_validate_json(first.model_dump_json()) == first
    assert len(first.checksum) == 32
    texture = next(p for p in tmp_path.iterdir() if p.suffix in (".png", ".jpg", ".jpeg"))
    Image.fromarray(pixels + 200).save(texture)  # a texture that the file refers to
    assert MeshFile(path=str(path)).checksum != first.checksum
    with pytest.raises(InputError, match="not the mesh that was used before"):
        MeshFile.model_validate_json(first.model_dump_json())
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for file in tmp_path.iterdir():
        if file.is_file():
            (moved / file.name).write_bytes(file.read_bytes())
    same = MeshFile(path=str(moved / path.name)).checksum
    assert same == MeshFile(path=str(path)).checksum
