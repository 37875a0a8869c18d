"""A loaded radiance field as the truth: what rays through it see, and a student of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import yaml

from terrarium.errors import InputError
from terrarium.organisms.build import build
from terrarium.organisms.grow import grow
from terrarium.organisms.lineage import chain, world_code
from terrarium.organisms.radiance_file import load_radiance
from terrarium.organisms.radiance_render import Uniform, psnr, render_radiance, render_rays
from terrarium.organisms.radiance_truth import as_truth
from terrarium.organisms.radiance_views import RadianceViews
from terrarium.organisms.recipe import RadianceModel, Recipe
from terrarium.randomness import generator
from terrarium.store import Store
from terrarium.worlds.check import check_world
from terrarium.worlds.finite import Finite

MODEL = {
    "position": {"frequencies": 2},
    "direction": None,
    "widths": [16],
    "feature": None,
    "direction_widths": [],
    "background": [1.0, 0.9, 0.8],
}
LAYERS = {"trunk": ["body"], "density": "sigma", "colour": "rgb"}
SMALL = {"count": 40, "rows": 12, "columns": 16}


def made(folder, seed=0):
    """Write a random field as somebody else would have, and return its spec file."""
    field = build(RadianceModel.model_validate(MODEL), [("theirs", seed)])
    ours = field.member_state(0)
    ours["fine.colour.weight"] *= 3
    state = {}
    for mine, name in {"trunk.0": "body", "density": "sigma", "colour": "rgb"}.items():
        state[f"{name}.weight"] = ours[f"fine.{mine}.weight"].t().contiguous()
        state[f"{name}.bias"] = ours[f"fine.{mine}.bias"]
    torch.save(state, folder / "theirs.pt")
    path = folder / "theirs.yaml"
    path.write_text(yaml.safe_dump({"model": MODEL, "layers": LAYERS, "weights": "theirs.pt"}))
    return path


@pytest.fixture
def theirs(tmp_path):
    return made(tmp_path)


def test_the_contract_holds(theirs):
    world = RadianceViews(spec=str(theirs), samples=16, views=SMALL)
    assert check_world(world) == []
    assert world.views.background == (1.0, 0.9, 0.8)
    assert check_world(Finite(world="radiance_views", options=world.model_dump(), rows=3000)) == []


def test_targets_are_the_pixels_of_the_fields_full_pictures(theirs):
    world = RadianceViews(spec=str(theirs), samples=200, views=SMALL, centre=(0.1, 0.2, 0.0))
    batch = world.sample(300, generator("views"), "test")
    assert batch.targets.std(axis=0).min() > 0.02  # there is something to see
    for camera, number in zip(world.cameras("test"), world.views.of_split("test"), strict=True):
        picture = render_radiance(load_radiance(spec=theirs), camera, Uniform(200))
        here = batch.facts["camera"] == number
        at = batch.facts["row"][here], batch.facts["column"][here]
        np.testing.assert_allclose(batch.targets[here], picture.colour[at], atol=1e-5)
        np.testing.assert_allclose(batch.facts["depth"][here], picture.depth[at], atol=1e-4)
        np.testing.assert_allclose(batch.facts["opacity"][here], picture.opacity[at], atol=1e-5)


def test_a_ray_agrees_with_a_loop_over_the_truths_density_and_colour(theirs):
    world = RadianceViews(spec=str(theirs), samples=64, views=SMALL)
    truth = as_truth(world.field)
    batch = world.sample(5, generator("loop"))
    for ray, seen in zip(batch.inputs.astype(float), world.optimum(batch), strict=True):
        step, length = 4 / 64, np.linalg.norm(ray[3:])
        points = ray[:3] + (2 + step * (np.arange(64)[:, None] + 0.5)) * ray[3:]
        density = truth.density(points)
        colour = truth.colour(points, np.broadcast_to(ray[3:], points.shape))
        through, total = 1.0, np.zeros(3)
        for d, c in zip(density, colour, strict=True):
            total += through * (1 - np.exp(-d * step * length)) * c
            through *= np.exp(-d * step * length)
        np.testing.assert_allclose(seen, total + through * np.array([1, 0.9, 0.8]), atol=1e-5)


def recipe(theirs, steps=150):
    views = {"spec": str(theirs), "samples": 64, "views": {"rows": 12, "columns": 16}}
    source = {"world": "finite", "options": {"world": "radiance_views", "options": views}}
    source["options"]["rows"] = 3000
    phase = {
        "name": "fit",
        "sources": [source],
        "objective": {"kind": "rendering", "samples": 24},
        "steps": steps,
        "batch": 128,
        "optimizer": {"lr": 0.01, "warmup": 5, "schedule": "cosine"},
    }
    return Recipe.model_validate(
        {"name": "student", "model": {"kind": "radiance", **MODEL}, "phases": [phase]}
    )


def test_a_student_learns_what_a_loaded_field_shows(theirs, tmp_path):
    (student,) = grow([(recipe(theirs), 0)], Store(tmp_path / "store"))
    assert student.status == "grown"
    test = student.world.sample(400, generator("held out"), "test")
    rays = torch.from_numpy(test.inputs)[None]

    def decibels(network):
        with torch.no_grad():
            return psnr(render_rays(network, rays, Uniform(64)).colour[0], test.targets)

    mean = psnr(0 * test.targets + test.targets.mean(axis=0), test.targets)
    untrained = decibels(build(student.model, [("organism", 0)]))
    assert decibels(student.network()) > max(mean, untrained) + 8


def test_a_students_key_follows_the_files_and_the_code(theirs):
    told = recipe(theirs)
    before = chain(told, 0)[0].key
    world = RadianceViews(spec=str(theirs))
    assert chain(recipe(theirs), 0)[0].key == before
    made(theirs.parent, seed=1)
    with pytest.raises(InputError, match="no longer the one"):
        RadianceViews.model_validate_json(world.model_dump_json())
    assert chain(told, 0)[0].key != before
    counted = world_code(told.phases[0].sources[0])
    for module in ("organisms.radiance_views", "organisms.radiance_render", "worlds.scenes.laws"):
        assert f"terrarium.{module}" in counted


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({}, "names no weights"),
        ({"weights": "nowhere.ckpt"}, "no file of weights nowhere.ckpt"),
        ({"spec": "nowhere"}, "no spec file 'nowhere'"),
        ({"spec": "{}", "views": {"background": (0, 0, 0)}}, "leave views.background out"),
        ({"spec": "{}", "weights": "{}"}, "not a file of PyTorch weights"),
    ],
)
def test_what_is_no_field_is_refused_in_one_sentence(theirs, options, part):
    named = {k: str(theirs) if v == "{}" else v for k, v in options.items()}
    with pytest.raises(InputError, match=part) as caught:
        RadianceViews.model_validate(named)
    assert "\n" not in str(caught.value)


def test_a_published_field_shows_its_views(shared_data):
    views = {"rows": 100, "columns": 100, "lowest_deg": 0}
    world = RadianceViews(weights=str(shared_data("nerf/lego.ckpt")), views=views)
    batch = world.sample(48, generator("lego"), "test")
    assert 0.1 < batch.facts["opacity"].mean() < 0.9
    clear = batch.facts["opacity"] < 0.01
    assert clear.any()
    np.testing.assert_allclose(batch.targets[clear], 1, atol=0.01)  # its white background
    (camera, *_) = world.cameras("test")
    first = batch.facts["camera"] == world.views.of_split("test")[0]
    few = batch.take(np.flatnonzero(first)[:4])
    picture = render_radiance(world.field, Few(camera, few))
    np.testing.assert_allclose(few.targets, picture.colour[0], atol=1e-4)


class Few:
    """Some pixels of a camera, as a picture of one row."""

    def __init__(self, camera, batch):
        self.camera, self.at = camera, (batch.facts["row"], batch.facts["column"])

    def rays(self, unit=True):
        return tuple(part[None] for part in self.camera.through(*self.at, unit))
