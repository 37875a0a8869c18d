"""Cameras, light and rendered pictures against geometry done by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from terrarium.errors import InputError
from terrarium.randomness import generator
from terrarium.worlds.scenes.analytic import AnalyticScene
from terrarium.worlds.scenes.camera import Camera, look_at, on_sphere
from terrarium.worlds.scenes.lights import DirectionalLight, Light, PointLight, shade
from terrarium.worlds.scenes.scene import Framed, Scene, render


def ball(radius: float = 0.5, **more: Any) -> AnalyticScene:
    return AnalyticScene.model_validate({"shape": {"kind": "sphere", "radius": radius}, **more})


def test_rays_are_those_of_nerfs_published_code() -> None:
    pose = on_sphere(4.0, 0.7, 0.4)
    camera = Camera(6, 8, 0.6911, pose, offset=0.0)
    origins, directions = camera.rays(unit=False)
    # bmild/nerf, run_nerf_helpers.py, get_rays_np, with focal = .5 * W / tan(.5 * camera_angle_x)
    i, j = np.meshgrid(np.arange(8), np.arange(6), indexing="xy")
    focal = 0.5 * 8 / np.tan(0.5 * 0.6911)
    dirs = np.stack([(i - 8 * 0.5) / focal, -(j - 6 * 0.5) / focal, -np.ones_like(i)], -1)
    known = np.sum(dirs[..., np.newaxis, :] * pose[:3, :3], -1)
    assert directions == pytest.approx(known)
    assert origins == pytest.approx(np.broadcast_to(pose[:3, 3], known.shape))
    unit = camera.rays()[1]
    assert np.linalg.norm(unit, axis=-1) == pytest.approx(np.ones((6, 8)))
    assert np.cross(unit, known) == pytest.approx(np.zeros(known.shape), abs=1e-12)


def test_rays_pass_through_the_middles_of_pixels() -> None:
    camera = Camera(3, 5, 1.0, np.eye(4))
    _, directions = camera.rays(unit=False)
    assert directions[1, 2] == pytest.approx([0, 0, -1])
    edge = np.tan(0.5) * (1 - 1 / 5)  # half a pixel within the edge of the field of view
    assert directions[1, 4] == pytest.approx([edge, 0, -1])
    assert directions[0, 2, 1] > 0 > directions[2, 2, 1]


@pytest.mark.parametrize("up", ["y", "z"])
def test_a_camera_on_a_sphere_looks_at_its_middle(up: str) -> None:
    target = (0.3, -0.2, 0.1)
    rng = generator("sphere")
    for azimuth, elevation in rng.uniform([-3, -1.5], [3, 1.5], (20, 2)):
        pose = on_sphere(2.0, azimuth, elevation, target=target, up=up)
        axis = {"y": (0, 1, 0), "z": (0, 0, 1)}[up]
        assert pose == pytest.approx(look_at(pose[:3, 3], target, axis), abs=1e-12)
        assert np.linalg.det(pose[:3, :3]) == pytest.approx(1)
        height = (pose[:3, 3] - target) @ np.array(axis)
        assert height == pytest.approx(2 * np.sin(elevation))
    pole = on_sphere(1.0, 0.3, np.pi / 2, up=up)
    assert pose[:3, :3] @ pose[:3, :3].T == pytest.approx(np.eye(3), abs=1e-12)
    assert np.isfinite(pole).all()
    front, side = (on_sphere(1.0, a, 0.0, up=up)[:3, 3] for a in (0, np.pi / 2))
    known = {"y": ([0, 0, 1], [1, 0, 0]), "z": ([1, 0, 0], [0, 1, 0])}[up]
    assert front == pytest.approx(known[0], abs=1e-12)
    assert side == pytest.approx(known[1], abs=1e-12)


def test_impossible_cameras_are_refused() -> None:
    with pytest.raises(InputError, match="one line"):
        look_at((0, 0, 2), (0, 0, 0), (0, 0, 1))
    with pytest.raises(InputError, match="pose"):
        Camera(2, 2, 1.0, np.eye(3))
    with pytest.raises(InputError, match="field of view"):
        Camera(2, 2, 4.0, np.eye(4))
    with pytest.raises(InputError, match="positive radius"):
        on_sphere(0, 0, 0)


def test_light_falls_by_the_cosine() -> None:
    normals = np.array([[0, 0, 1.0], [0, 0.6, 0.8], [0, 1, 0], [0, 0, -1]])
    colour = np.tile([1.0, 0.5, 0.2], (4, 1))
    sun = DirectionalLight(towards=(0, 0, 5), intensity=0.6)
    seen = shade(colour, np.zeros((4, 3)), normals, [sun], 0.1)
    assert seen == pytest.approx(colour * np.array([[0.7], [0.58], [0.1], [0.1]]))
    lamp = PointLight(position=(0, 0, 2), intensity=0.9)
    point = np.array([[0.0, 1.5, 0]])
    assert shade(colour[:1], point, normals[:1], [lamp], 0.0) == pytest.approx(colour[:1] * 0.72)
    bright = shade(colour, np.zeros((4, 3)), normals, [sun, sun], 0.5)
    assert bright.max() == 1.0
    assert (shade(colour, np.zeros((4, 3)), normals, [], 0.1) == colour).all()
    kind: TypeAdapter[Any] = TypeAdapter(Light)
    assert kind.validate_json(lamp.model_dump_json()) == lamp


def test_a_picture_of_a_ball_is_a_disc_of_the_right_depth() -> None:
    radius, far = 0.5, 3.0
    lit = ball(radius, lights=[{"kind": "directional", "towards": [1, 0, 0], "intensity": 1.0}],
               ambient=0.0)  # fmt: skip
    camera = Camera(61, 81, 0.5, on_sphere(far, 0.0, 0.0))  # on the x axis
    rgb, depth, mask = render(lit, camera)
    _, directions = camera.rays()
    cosine = -directions[..., 0]
    root = far**2 * (cosine**2 - 1) + radius**2
    clear = np.abs(root) > 1e-6
    assert (mask == (root > 0))[clear].all()
    known = far * cosine - np.sqrt(np.maximum(root, 0))
    assert depth[mask & clear] == pytest.approx(known[mask & clear], abs=1e-6)
    assert np.isinf(depth[~mask]).all()
    assert (rgb[~mask] == 1.0).all()  # white background
    normal = (far - known * cosine) / radius  # the x coordinate of the normal
    grey = 0.7 * normal
    inner = mask & (root > 1e-3)
    assert rgb[inner] == pytest.approx(np.repeat(grey[inner][:, None], 3, axis=1), abs=1e-5)
    plain = render(lit, camera, lights=(), background=(0, 0, 0))
    assert plain.rgb[mask] == pytest.approx(0.7)
    assert (plain.rgb[~mask] == 0).all()


def test_a_surface_seen_from_behind_is_lit_from_there() -> None:
    lamp = {"kind": "point", "position": [0, 0, 0], "intensity": 0.6}
    hollow = ball(0.5, lights=[lamp], ambient=0.1)
    within = render(hollow, Camera(9, 9, 1.0, on_sphere(0.2, 0.4, 0.2)))
    assert within.mask.all()
    assert within.rgb == pytest.approx(0.7 * 0.7)


def test_large_pictures_are_rendered_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    camera = Camera(20, 30, 0.5, on_sphere(3.0, 0.5, 0.5))
    whole = render(ball(), camera)
    monkeypatch.setattr("terrarium.worlds.scenes.scene.RAYS", 77)
    pieces = render(ball(), camera)
    assert (whole.rgb == pieces.rgb).all()
    assert (whole.depth == pieces.depth).all()


def test_a_scene_in_a_frame_is_the_scene_scaled() -> None:
    lamp = {"kind": "point", "position": [3.0, 0, 0], "intensity": 1.0}
    large = AnalyticScene.model_validate(
        {
            "shape": {"kind": "moved", "translation": [1, 2, 3], "shape": {"kind": "torus"}},
            "lights": [lamp],
        }
    )
    small = Framed(large, np.array([1.0, 2.0, 3.0]), 2.0)
    assert isinstance(small, Scene)
    assert isinstance(large, Scene)
    points = generator("frame").uniform(-0.5, 0.5, (200, 3))
    where = points * 2 + [1, 2, 3]
    assert small.distance(points) * 2 == pytest.approx(large.distance(where))
    assert small.curvature(points) == pytest.approx(2 * large.curvature(where))
    assert small.closest(points) * 2 + [1, 2, 3] == pytest.approx(large.closest(where))
    assert (small.occupancy(points) == large.occupancy(where)).all()
    assert (small.normals(points) == large.normals(where)).all()
    assert small.bounds * 2 + [1, 2, 3] == pytest.approx(large.bounds)
    one = render(small, Camera(20, 20, 0.5, on_sphere(2.0, 0.3, 0.6)))
    two = render(large, Camera(20, 20, 0.5, on_sphere(4.0, 0.3, 0.6, target=(1, 2, 3))))
    assert one.rgb == pytest.approx(two.rgb, abs=1e-6)
    assert one.depth[one.mask] * 2 == pytest.approx(two.depth[two.mask], abs=1e-6)
    assert one.mask.any()
