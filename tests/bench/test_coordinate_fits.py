"""The benchmark of fits runs through, within its own limits; its numbers are not a test."""

from __future__ import annotations

import pytest

from terrarium.bench import BENCHES, SHOWN, summary
from terrarium.bench.coordinate_fits import (
    DISTANCE_ARMS,
    PHOTOGRAPHS,
    PICTURE_ARMS,
    Job,
    _fit,
    _jobs,
    _means,
    mesh_file,
)
from terrarium.organisms.build import build
from terrarium.organisms.recipe import Source

pytest.importorskip("skimage")


@pytest.mark.parametrize("arm", [*PICTURE_ARMS, *DISTANCE_ARMS], ids=lambda arm: arm.name)
def test_every_network_has_fewer_than_300000_parameters(arm):
    inputs, outputs = (2, 3) if arm in PICTURE_ARMS else (3, 1)
    model = arm.recipe(Source(world="field"), inputs, outputs).model
    assert build(model, [("seed", 0)]).parameters_per_member < 300_000


def test_the_hash_grid_has_three_seeds_and_every_network_every_photograph():
    jobs = _jobs(PHOTOGRAPHS, 3)
    pictures = [job for job in jobs if job.photograph]
    assert len(pictures) == 4 * (3 + 1 + 1)
    assert {(j.arm.name, j.photograph) for j in pictures} == {
        (arm.name, name) for arm in PICTURE_ARMS for name in PHOTOGRAPHS
    }
    assert [job.arm for job in jobs if not job.photograph] == list(DISTANCE_ARMS)


def test_fits_give_rows_of_one_shape():
    rows = _fit(Job(PICTURE_ARMS[0], 0, photograph="astronaut"), 40)
    assert [row["measure"] for row in rows] == ["PSNR, dB"]
    assert 15 < rows[0]["value"] < 60  # a grey picture has about 11 dB
    distances = _fit(Job(DISTANCE_ARMS[0], 0), 40)
    assert [row["fitted"] for row in distances] == ["sphere", "sphere"]
    assert all(0 < row["value"] < 5 for row in distances)
    again = _means([*rows, {**rows[0], "value": rows[0]["value"] + 2}])
    assert again[0]["value"] == pytest.approx(rows[0]["value"] + 1)
    shown = summary([{"benchmark": "coordinate_fits", **row} for row in rows + distances])
    assert set(shown[0]) == set(SHOWN["coordinate_fits"])
    assert "coordinate_fits" in BENCHES


def test_the_mesh_is_looked_for_where_one_says(tmp_path, monkeypatch):
    monkeypatch.setenv("TERRARIUM_DATA", str(tmp_path))
    assert mesh_file() is None
    (tmp_path / "meshes").mkdir()
    (tmp_path / "meshes" / "spot.obj").write_text("")
    assert mesh_file() == tmp_path / "meshes" / "spot.obj"
