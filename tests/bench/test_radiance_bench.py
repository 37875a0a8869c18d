"""The benchmark of pictures runs through; its numbers are not a test."""

from __future__ import annotations

import pytest

from terrarium.bench import BENCHES, SHOWN, summary
from terrarium.bench import radiance as bench
from terrarium.organisms.build import build
from terrarium.organisms.radiance_render import Uniform, render_radiance
from terrarium.organisms.recipe import RadianceModel
from terrarium.worlds.scenes.camera import Camera, on_sphere


def test_pictures_give_rows_of_one_shape_without_the_published_fields(tmp_path, monkeypatch):
    monkeypatch.setenv("TERRARIUM_DATA", str(tmp_path))
    (row,) = bench.main(side=8, samples=64)
    assert row["field"] == "a sphere, grown here"
    assert row["psnr_db"] > 40
    shown = summary([{"benchmark": "radiance", **row}])
    assert set(shown[0]) == set(SHOWN["radiance"])
    assert "radiance" in BENCHES


def test_operations_are_those_of_the_matrices():
    model = RadianceModel(
        position={"frequencies": 0}, direction=None, widths=(5,), feature=None, direction_widths=()
    )
    field = build(model, [("seed", 0)])
    picture = render_radiance(field, Camera(2, 3, 0.5, on_sphere(4.0, 0, 0)), Uniform(10))
    assert bench.operations(field, picture) == 60 * 2 * (3 * 5 + 5 * 1 + 5 * 3)


def test_the_published_fields_have_84548_parameters_and_so_many_operations(shared_data):
    shared_data("nerf/lego.ckpt")
    name, field = next(bench.fields())
    assert name == "lego"
    matrices = sum(a * b for a, b in bench.net_shapes(field.spec).values())
    assert 2 * matrices == pytest.approx(169_000, rel=0.02)
