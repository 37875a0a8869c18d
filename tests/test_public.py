"""The public nouns: there, what they say they are, and readable when a notebook shows them."""

from __future__ import annotations

import importlib.util
import types

import numpy as np
import pytest

import terrarium as tm
from terrarium.evidence.predictions import above
from terrarium.evidence.quantities import per_seed
from terrarium.figures.dots import dots
from terrarium.instruments.causal import CausalEffect
from terrarium.organisms.grow import Organism
from terrarium.studies.runner import StudyResult

LONGEST = 500
"""Characters of a `repr`: a few lines of a notebook, no wall of numbers."""


def recipe() -> tm.Recipe:
    options = {"operation": "modular_addition", "modulus": 10, "operands": "uniform"}
    source = tm.Source(world="arithmetic", options=options)
    phase = tm.Phase(name="truth", sources=(source,), objective={"kind": "answer_only"}, steps=1)
    return tm.Recipe(name="tiny", phases=(phase,))


def batch() -> tm.Batch:
    return tm.Arithmetic().sample(300, tm.generator("repr"))


def rows() -> list[tm.Row]:
    return [tm.Row("s", "c", "auroc", "", 0.9 + i / 1000, {"seed": i}) for i in range(5)]


def hypothesis() -> tm.Hypothesis:
    return tm.Hypothesis("high", "It is high.", "No.", "-", "-", above(per_seed("auroc"), 0.5))


def nouns(tmp_path) -> dict[str, tuple[object, list[str]]]:
    """Return things to show, each with words that its repr must hold."""
    examples = batch()
    reading = tm.Reading(
        {"resid.post[0]": np.zeros((1, 300, 1, 8), np.float32)},
        ("member", "n", "position", "channel"),
        examples.facts,
        ("prompt_end",),
        model="tiny",
    )
    says = np.log(np.full((1, 300, 2), 0.5))
    pairs = tm.ContrastPairs(np.zeros((300, 8)), np.zeros((300, 8)))
    figure = dots("d", [{"label": "a", "value": 0.5, "seed": 0}], title="Half", caption="c")
    empty = tm.Study("empty", "Why?", [hypothesis()], {"smoke": {}}, list, list, list)
    target = np.zeros(300, np.int64)
    return {
        "Batch": (examples, ["300 examples", "int64 300x", "claim", "truth"]),
        "Reading": (reading, ["tiny", "resid.post[0]", "prompt_end", "300"]),
        "ContrastPairs": (pairs, ["300x8"]),
        "Organism": (
            Organism(recipe(), 3, "abc", tmp_path, "diverged", "the loss was NaN", (7,)),
            ["tiny", "seed 3", "diverged, the loss was NaN", "truth 7 steps", "abc"],
        ),
        "CausalEffect": (
            CausalEffect(says, says, target, np.ones((1, 300))),
            ["300 rows", "0.0% flipped", "+0.00 nats"],
        ),
        "Hypothesis": (hypothesis(), ["high", "It is high."]),
        "Verdict": (tm.judge([hypothesis()], rows())[0], ["high", "supported", "5 seeds"]),
        "Figure": (figure, ["'d'", "'Half'", "rows"]),
        "Store": (tm.Store(tmp_path), [str(tmp_path)]),
        "Study": (empty, ["empty", "Why?", "high", "smoke"]),
        "StudyResult": (
            StudyResult("empty", "smoke", {}, rows() * 100, [], [], 1.0, 2, 3),
            ["empty", "500 rows", "2 cells measured", "3 found"],
        ),
        "Registry": (tm.probes, ["probes", "lda", "ccs"]),
    }


def test_every_noun_shows_itself_in_a_few_lines(tmp_path):
    for name, (thing, words) in nouns(tmp_path).items():
        shown = repr(thing)
        assert shown.startswith(name), shown
        assert len(shown) <= LONGEST, f"{name} shows {len(shown)} characters"
        assert "array(" not in shown, name
        for word in words:
            assert word in shown, (name, word, shown)


@pytest.mark.parametrize("name", [name for name in tm.__all__ if name != "__version__"])
def test_a_public_name_is_no_module_however_often_it_is_asked_for(name):
    # terrarium.worlds and terrarium.studies are packages: such a name would turn into one.
    for _ in range(2):
        assert not isinstance(getattr(tm, name), types.ModuleType)
    assert importlib.util.find_spec(f"terrarium.{name}") is None


def test_an_unknown_name_is_told():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = tm.nothing
    assert set(dir(tm)) == set(tm.__all__)
