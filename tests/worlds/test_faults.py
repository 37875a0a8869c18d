"""What a user hands to a world or scene by mistake gets one sentence; pydantic's ways stay."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel, ValidationError

from terrarium.errors import InputError
from terrarium.randomness import generator
from terrarium.worlds.base import worlds
from terrarium.worlds.field import AnalyticField
from terrarium.worlds.finite import Finite
from terrarium.worlds.images.factors import Images
from terrarium.worlds.images.mixtures import ImageMixture
from terrarium.worlds.images.photographs import Photographs
from terrarium.worlds.patches import Patches
from terrarium.worlds.scenes.load import load_scene
from terrarium.worlds.scenes.world import Scenes

BALL = {"shape": {"kind": "sphere"}}
MISSPELT = {"shape": {"kind": "union", "shapes": [{"kind": "sphere", "raduis": 1}]}}

FIELDS: dict[str, tuple[Callable[[], Any], str]] = {
    "value": (lambda: Scenes(quantity="distanc"), "Scenes: 'quantity' is 'distanc': .*'distance'"),
    "nested key": (lambda: Scenes(law={"volum": 1}), "'law.volum'; did you mean 'volume'"),
    "number": (lambda: Photographs(side=0), "0 x 0 pixels were asked for"),
    "crop": (lambda: Photographs(side=500), r"crops \(tiles\) of 500 x 500 pixels"),
    "union": (lambda: Images(vary=11), "'vary' is 11: .*less than or equal to 10"),
    "kind": (lambda: ImageMixture(kind="gausian"), "'kind' is 'gausian': .*'gaussian'"),
    "law": (lambda: Scenes(law={"volume": 0.7}), r"sum to 1\.2, not 1"),
    "whole": (lambda: ImageMixture(count=1), "ImageMixture: a finite set needs a count"),
    "finite": (lambda: Finite(world="scenes", options={"law": {"volum": 1}}), "mean 'volume'"),
    "scene": (lambda: Scenes(scene=MISSPELT), "raduis'; did you mean 'radius'"),
    "load": (lambda: load_scene(MISSPELT), "raduis'; did you mean 'radius'"),
    "load kind": (lambda: load_scene({"kind": "mehs"}), "did you mean 'mesh'"),
    "load list": (lambda: load_scene([1]), r"cannot be made of \[1\]"),
    "load none": (lambda: load_scene(None), "cannot be made of None"),
    "load empty": (lambda: load_scene({}), "'shape' is missing"),
}


def one_sentence(make: Callable[[], Any], expected: str) -> None:
    with pytest.raises(InputError, match=expected) as raised:
        make()
    assert "\n" not in str(raised.value)
    assert str(raised.value)[-1] in ".?"


@pytest.mark.parametrize("name", FIELDS)
def test_wrong_fields_get_one_sentence(name: str) -> None:
    one_sentence(*FIELDS[name])


def test_pydantic_s_own_ways_stay() -> None:
    class Holder(BaseModel):
        images: Images

    with pytest.raises(ValidationError) as raised:
        Holder.model_validate({"images": {"vary": 11}})
    assert raised.value.errors()[0]["loc"][:2] == ("images", "vary")
    for read in (Images.model_validate, lambda given: Images.model_validate_json('{"vary": 11}')):
        with pytest.raises(ValidationError):
            read({"vary": 11})
    with pytest.raises(ValueError, match="vary"):
        Images(vary=11)
    world = Images(side=8)
    assert pickle.loads(pickle.dumps(world)) == world == world.model_copy()
    assert Holder(images=world).images is world


@pytest.mark.parametrize("spec", [BALL, {"kind": "analytic", **BALL}])
def test_a_scene_may_leave_out_its_kind(spec: dict[str, Any]) -> None:
    world = Scenes.model_validate({"scene": spec})
    assert world == Scenes(scene=spec) == Scenes(scene=load_scene(spec))
    assert Scenes.model_validate_json(world.model_dump_json()) == world


def test_wrong_points_and_shifts_get_one_sentence() -> None:
    scene, world = load_scene(BALL), Scenes()
    for wrong in ([[0, 0]], [0, 0, 0], [["a", 0, 0]], [[0, 0], [1]]):
        for ask in (scene.distance, scene.colour, scene.closest, world.oracle.occupancy):
            one_sentence(lambda ask=ask, wrong=wrong: ask(wrong), r"Points must be .*\(n, 3\)")
    one_sentence(lambda: scene.with_moved(0, (0, 0)), "three numbers, along x, y and z")
    one_sentence(lambda: scene.with_moved(0, (0, 0, np.nan)), "cannot move there")


@pytest.mark.parametrize(
    "name", ["scenes", "images", "image_mixture", "captions", "field", "patches"]
)
def test_wrong_counts_get_one_sentence(name: str) -> None:
    for n in (-5, 2.5):
        one_sentence(lambda n=n: worlds.get(name)().sample(n, generator(0)), f"'{name}'.* {n} ")
    assert len(worlds.get(name)().sample(np.int64(2), generator(0))) == 2


@pytest.mark.parametrize("world", [Scenes(), Images(side=8), AnalyticField(), Patches()])
def test_too_few_outputs_get_one_sentence(world: Any) -> None:
    batch = world.sample(5, generator("few"))
    one_sentence(lambda: world.judge(batch, list(batch.targets[:3])), "one output for each")
    one_sentence(lambda: world.judge(batch, ["a"] * 5), "no array of numbers")
    assert world.judge(batch, list(batch.targets))["right"].all()
