"""Who gives rows to which step: exact counts, windows, curricula, strands."""

from __future__ import annotations

import numpy as np
import pytest

from terrarium.errors import InputError
from terrarium.organisms.feed import check_feed, source_rows, turn_of
from terrarium.organisms.recipe import AnswerOnly, Phase, Recipe, Source, Strand
from terrarium.randomness import generator

STEPS, ROWS = 40, 16


def source(**changes):
    return Source(world="bandit", **changes)


def counts(*sources):
    """``(steps, sources)`` rows of a whole phase."""
    return np.array(
        [source_rows(sources, ROWS, step, STEPS, generator("feed", step)) for step in range(STEPS)]
    )


@pytest.mark.parametrize("rows", [1, 7, 40, 300])
@pytest.mark.parametrize("window", [(0.0, 1.0), (0.0, 0.5), (0.5, 1.0), (0.3, 0.8)])
def test_exact_rows_are_exact_wherever_they_stand(rows, window):
    start, stop = window
    found = counts(source(rows=rows, start=start, stop=stop), source())
    assert found[:, 0].sum() == rows
    assert (found.sum(axis=1) == ROWS).all()
    inside = np.arange(STEPS)
    outside = (inside < np.floor(start * STEPS)) | (inside >= np.ceil(stop * STEPS))
    assert not found[outside, 0].any()
    spread = found[~outside, 0]
    assert spread.max() - spread.min() <= 1, "spread evenly"


def test_a_curriculum_moves_from_one_source_to_the_other():
    first = source(weight=1.0, final_weight=0.0)
    second = source(weight=0.0, final_weight=1.0)
    found = counts(first, second)
    assert found[0].tolist() == [ROWS, 0]
    assert found[-1].tolist() == [0, ROWS]
    half = found[STEPS // 2 - 8 : STEPS // 2 + 8].mean(axis=0)
    assert half == pytest.approx([ROWS / 2, ROWS / 2], abs=1.5)


def test_weights_are_shares():
    found = counts(source(weight=3.0), source(weight=1.0)).sum(axis=0)
    assert found[0] / found.sum() == pytest.approx(0.75, abs=0.06)


def test_steps_that_cannot_be_filled_are_refused():
    with pytest.raises(InputError, match="no source with a weight fills step 20"):
        check_feed([source(stop=0.5)], ROWS, STEPS, "phase 'p'")
    with pytest.raises(InputError, match="ask for 25 of the 16 rows of step 0"):
        check_feed([source(rows=1000), source()], ROWS, STEPS, "phase 'p'")
    check_feed([source(stop=0.5), source(start=0.5)], ROWS, STEPS, "phase 'p'")
    check_feed([source(rows=ROWS * STEPS)], ROWS, STEPS, "phase 'p'")


def test_impossible_sources_are_refused():
    with pytest.raises(ValueError, match="must come after"):
        source(start=0.5, stop=0.5)
    with pytest.raises(ValueError, match="draws nothing"):
        source(weight=0)
    with pytest.raises(ValueError, match="either rows or final_weight"):
        source(rows=3, final_weight=2.0)


def test_strands_take_the_last_of_their_steps():
    strand = Strand(sources=(source(),), objective=AnswerOnly(), every=4)
    third = strand.model_copy(update={"every": 3})
    phase = Phase(
        name="p", sources=(source(),), objective=AnswerOnly(), steps=12, strands=(strand, third)
    )
    turns = [turn_of(phase, step) for step in range(12)]
    assert turns == [0, 0, 2, 1, 0, 2, 0, 1, 2, 0, 0, 1], "where both want a step the first has it"


def test_the_twin_of_a_strand_and_of_a_writer():
    quirky = source(options={"letters": 4}, twin={"letters": 5})
    written = source(sampled={"recipe": recipe(quirky).model_dump(mode="json")})
    strand = Strand(sources=(quirky,), objective=AnswerOnly(), every=2)
    twin = recipe(written, strands=(strand,)).twin()
    assert twin.phases[0].strands[0].sources[0].options["letters"] == 5
    assert twin.phases[0].sources[0].sampled.recipe.phases[0].sources[0].options["letters"] == 5
    assert recipe(written).has_twin
    assert not recipe(source()).has_twin


def recipe(*sources, strands=()):
    phase = Phase(name="p", sources=sources, objective=AnswerOnly(), steps=4, strands=strands)
    return Recipe(name="r", phases=(phase,))
