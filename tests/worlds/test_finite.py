"""A finite set of examples of another world."""

from __future__ import annotations

import numpy as np
import pytest

from terrarium.errors import InputError
from terrarium.organisms.lineage import chain, world_code
from terrarium.organisms.recipe import CoordinateModel, Phase, Recipe, Reconstruction, Source
from terrarium.randomness import generator
from terrarium.worlds.check import check_world
from terrarium.worlds.finite import Finite


@pytest.mark.parametrize("inner", ["field", "patches"])
def test_it_keeps_the_contract(inner):
    assert check_world(Finite(world=inner, rows=500)) == []


def test_training_sees_the_drawn_examples_and_no_others():
    world = Finite(world="field", rows=7)
    batch = world.sample(400, generator("t"))
    drawn = {row.tobytes() for row in world.drawn.inputs}
    assert {row.tobytes() for row in batch.inputs} == drawn
    assert len(drawn) == 7
    np.testing.assert_array_equal(world.inner.value(batch.inputs)[:, None], world.optimum(batch))
    other = world.sample(400, generator("t"), "test")
    assert len({row.tobytes() for row in other.inputs}) == 400
    assert Finite(world="field", rows=7, seed=1).drawn.inputs.tolist() != drawn


def test_defaults_are_part_of_what_it_is():
    world = Finite(world="field", options={"radius": 0.4})
    assert world.options["shape"] == "circle"
    assert Finite.model_validate_json(world.model_dump_json()) == world
    assert not hasattr(world, "box")


def test_the_other_worlds_code_counts_in_keys():
    source = Source(world="finite", options={"world": "field", "rows": 9})
    assert {"terrarium.worlds.finite", "terrarium.worlds.field"} <= world_code(source)
    phase = Phase(name="fit", sources=(source,), objective=Reconstruction(), steps=1, batch=4)
    recipe = Recipe(name="r", model=CoordinateModel(), phases=(phase,))
    (link,) = chain(recipe, 0)
    assert link.spec["phase"]["sources"][0]["options"]["options"]["radius"] == 0.5


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"world": "finite"}, "another world"),
        ({"world": "arithmetic"}, "is of text"),
        ({"world": "feild"}, "did you mean 'field'"),
        ({"world": "field", "options": {"radius": 9}}, "'radius'"),
    ],
)
def test_what_cannot_be_drawn_from_is_refused(options, part):
    with pytest.raises(InputError, match=part) as caught:
        Finite.model_validate(options)
    assert "\n" not in str(caught.value)
