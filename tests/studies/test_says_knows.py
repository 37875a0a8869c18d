"""`says-knows` as a whole at a tiny size, and what its hypotheses say of rows that we wrote."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import itertools
import math
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from terrarium.errors import InputError
from terrarium.evidence.hypotheses import Verdict, judge
from terrarium.evidence.rows import Row
from terrarium.evidence.table import read_rows, write_rows
from terrarium.instruments.base import detectors, probes
from terrarium.organisms import lineage
from terrarium.store import Store
from terrarium.studies.base import Study, studies
from terrarium.studies.code import ELSEWHERE
from terrarium.studies.measure_detectors import SUSPECTS
from terrarium.studies.measure_probes import CONTRAST, PLAIN, SCORED_ON, TRAINED_ON
from terrarium.studies.quirky import NEEDS_TRUTH, OWN_ANSWER, QUIRKS
from terrarium.studies.runner import StudyResult, plan, run_study
from terrarium.studies.says_knows.hypotheses import HYPOTHESES

STUDY: Study = studies.get("says-knows")
TINY = {"seeds": 1, "truth_steps": 1, "quirk_steps": 2, "train_rows": 200, "test_rows": 200}
RECIPES = (NEEDS_TRUTH, OWN_ANSWER)
LAYERS = (1, 2, 3, 4)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def result(store: Store) -> StudyResult:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nobody reads a worker's warnings
        return run_study(STUDY, "smoke", TINY, store, workers=0)


@pytest.fixture(scope="module")
def rows(result: StudyResult, tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """The rows as they come back from Parquet."""
    return read_rows(write_rows(result.rows, tmp_path_factory.mktemp("rows")))


def levels(rows: Iterable[Row], metric: str, /, *names: str, **fixed: Any) -> list[tuple[Any, ...]]:
    """The sorted levels of the factors ``names`` in the rows with the factors ``fixed``."""
    return sorted(
        tuple(row.factors[name] for name in names)
        for row in rows
        if row.metric == metric and fixed.items() <= {**row.factors}.items()
    )


# The rows


def test_everything_planned_is_measured(result: StudyResult, rows: list[Row]) -> None:
    assert (result.measured, result.found, result.failures, result.notes) == (3, 0, [], [])
    assert rows == result.rows, "Parquet gives back what was measured"
    assert {row.study for row in rows} == {"says-knows"}
    assert len({row.cell for row in rows}) == 3
    assert {row.status for row in rows} == {"ok", "undefined"}
    for row in rows:
        assert row.unit
        assert row.value is None or math.isfinite(row.value)
        assert row.reason or row.value is not None
        assert {"organism", "variant", "seed"} <= row.factors.keys()
    told = Counter(
        (row.metric, *sorted((k, repr(v)) for k, v in row.factors.items())) for row in rows
    )
    assert max(told.values()) == 1, "no two rows have the same factors"
    undefined = [row for row in rows if row.status == "undefined"]
    assert len(undefined) < len(rows) / 10
    for row in undefined:
        # Contexts with hardly a row; and who always says the same has no classes of what is said.
        assert row.n < 10 or "trusted rows hold a single group" in row.reason


def variants(rows: Sequence[Row]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for row in rows:
        found.setdefault(str(row.factors["variant"]), set()).add(row.metric)
    return found


def test_every_variant_has_its_metrics(rows: list[Row]) -> None:
    twin = {
        "auroc",
        "balanced_accuracy",
        "answer_mass",
        "steps",
        "name_auroc",
        "name_cosine",
        "detector_auroc",
        "recall_at_1_percent_fpr",
        "recency_auroc",
    }
    effects = {"answers_flipped", "log_odds_change", "displacement"}
    assert variants(rows) == {
        "organism": twin | effects | {"principal_component"},
        "twin": twin,
        "untrained": {"auroc", "detector_auroc", "recall_at_1_percent_fpr"},
        "before the quirk": {"auroc", "balanced_accuracy", "steps"},
        "input only": {"auroc"},
    }
    once = {"organism", "twin", "untrained", "input only"}
    for name in RECIPES:
        shown = variants([row for row in rows if row.factors["organism"] == name])
        # The truthful phase is the same whatever the rule, and measured once.
        assert set(shown) == (once | {"before the quirk"} if name == NEEDS_TRUTH else once)


@pytest.mark.parametrize("variant", ["organism", "twin", "untrained"])
@pytest.mark.parametrize("organism", RECIPES)
def test_the_tables_are_complete(rows: list[Row], organism: str, variant: str) -> None:
    fixed = {"organism": organism, "variant": variant, "seed": 0}
    transfer = levels(
        rows, "auroc", "trained_on", "scored_on", "layer", "split",
        **fixed, probe="logistic_regression", rows="all", against="truth",
    )  # fmt: skip
    ends = ("validation", "test")
    assert transfer == sorted(itertools.product(TRAINED_ON, SCORED_ON, LAYERS, ends))
    for metric in ("detector_auroc", "recall_at_1_percent_fpr"):
        found = levels(rows, metric, "detector", "suspect", "layer", **fixed)
        single = itertools.product(set(detectors) - {"probe_log_odds"}, SUSPECTS, LAYERS)
        assert found == sorted([*single, *(("probe_log_odds", s, 0) for s in SUSPECTS)])
    if variant == "untrained":
        return
    bob = {"split": "test", "scored_on": "quirky", "rows": "disagree", "against": "truth"}
    named = levels(rows, "auroc", "probe", "layer", **fixed, **bob, trained_on="honest")
    extra = ("best of 1000 random directions", "logistic_regression, shuffled labels")
    assert named == sorted(itertools.product((*PLAIN, *CONTRAST, *extra), LAYERS))
    assert {*PLAIN, *CONTRAST, "random_direction"} == set(probes), "no probe is forgotten"
    assert levels(rows, "recency_auroc", "probe", "layer", **fixed) == sorted(
        itertools.product(("recency", "truth"), LAYERS)
    )
    contexts = itertools.product(
        ("honest", "quirky", "third"), ("all", "disagree"), ("test", "heldout_names")
    )
    assert levels(rows, "balanced_accuracy", "context", "rows", "split", **fixed) == sorted(
        contexts
    )


@pytest.mark.parametrize("organism", RECIPES)
def test_causal_and_input_rows_are_complete(rows: list[Row], organism: str) -> None:
    fixed = {"organism": organism, "variant": "organism", "seed": 0}
    edits = [*itertools.product(("truth", "random"), ("reflect", "ablate", "add"))]
    edits.append(("truth", "LEACE"))
    for metric in ("answers_flipped", "log_odds_change", "displacement"):
        found = levels(rows, metric, "direction", "edit", "context", "layer", **fixed)
        both = itertools.product(edits, ("honest", "quirky"), LAYERS)
        assert found == sorted((*edit, context, layer) for edit, context, layer in both)
    inputs = levels(
        rows, "auroc", "trained_on", "scored_on", "rows", "against",
        organism=organism, variant="input only", seed=0,
    )  # fmt: skip
    contexts = [(c, r) for c in SCORED_ON for r in ("all", "disagree")
                if r == "all" or c.startswith("quirky")]  # fmt: skip
    wanted = itertools.product(("honest", "all"), contexts, ("truth", "said"))
    assert inputs == sorted((t, c, r, a) for t, (c, r), a in wanted)


def test_measuring_again_measures_nothing(result: StudyResult, store: Store) -> None:
    again = run_study(STUDY, "smoke", TINY, Store(store.home), workers=0)
    assert (again.measured, again.found) == (0, 3)
    assert again.rows == result.rows
    fewer = run_study(STUDY, "smoke", {**TINY, "recipes": [NEEDS_TRUTH]}, store, workers=0)
    assert (fewer.measured, fewer.found) == (0, 2)
    assert plan(STUDY, "smoke", {**TINY, "seeds": 3}, store).to_run == 6, "more seeds, those alone"
    assert plan(STUDY, "smoke", {**TINY, "test_rows": 300}, store).to_run == 3
    assert plan(STUDY, "smoke", {**TINY, "quirk_steps": 3}, store).to_run == 3


def test_organisms_share_the_truthful_phase(result: StudyResult, store: Store) -> None:
    kept = list(store.entries("organism"))
    # The truthful phases are the same whatever the rule; on them two organisms and their twins.
    truthful = QUIRKS[NEEDS_TRUTH].recipe().phases[:-1]
    children = Counter(entry.spec["parent"] for entry in kept)
    assert sorted(children.values()) == [1] * len(truthful) + [4]
    assert len(kept) == len(truthful) + 4
    assert not list((store.home / ".scratch").glob("*/*"))
    assert [path.name for path in (store.home / ".tmp").iterdir() if path.is_dir()] == []


# What becomes of the rows


def test_figures_are_made_from_stored_rows_alone(rows: list[Row]) -> None:
    figures = {figure.name: figure for figure in STUDY.figures(rows)}
    assert list(figures) == [
        "layers", "probes", "transfer", "picture", "detectors", "recall", "causal", "before",
    ]  # fmt: skip
    for figure in figures.values():
        assert figure.data
        assert figure.title
        assert figure.caption
        assert figure.spec
    drawn = {r["quantity"] for r in figures["layers"].data}
    assert drawn == {
        "knows: the truth", "knows: what is said", "the twin", "untrained network",
        "says (output)", "input alone",
    }  # fmt: skip
    assert {r["organism"] for r in figures["layers"].data} == set(RECIPES)
    assert len(figures["picture"].data) == 2 * 200
    fresh = "quirky, untruthful (untrained network)"
    assert {r["suspect"] for r in figures["detectors"].data} == {*SUSPECTS, fresh}
    controls = {"logistic regression on the input alone", "logistic_regression, untrained network"}
    assert controls <= {r["label"] for r in figures["probes"].data}
    assert STUDY.figures([]) == []


def test_cards_and_checks(rows: list[Row]) -> None:
    cards = {card.name: card for card in STUDY.cards(rows)}
    assert list(cards) == list(RECIPES)
    shown = cards[NEEDS_TRUTH].contexts["quirky"][0]
    (row,) = [
        row
        for row in rows
        if row.metric == "balanced_accuracy"
        and row.factors["organism"] == NEEDS_TRUTH
        and row.factors["variant"] == "organism"
        and row.factors["context"] == "quirky"
        and row.factors["rows"] == "disagree"
        and row.factors["split"] == "test"
    ]
    assert shown == row.value
    assert shown is not None
    assert shown < 0.95
    checks = {check.name: check for check in STUDY.checks(rows)}
    assert len(checks) == 2 * 2 + 2 + 2
    arose = [check for name, check in checks.items() if "arose" in name]
    assert {check.status for check in arose} == {"failed"}, "three steps make no organism"
    others = [check for check in checks.values() if check not in arose]
    assert {check.status for check in others} == {"not made"}, "no interval over one seed"


@pytest.fixture(scope="module")
def template(rows: list[Row]) -> list[Row]:
    read = [row for row in rows if row.metric in {metric for metric, _, _ in SUPPORTING}]
    wished = [
        any(
            row.metric == m and fixed.items() <= {**row.factors}.items()
            for m, fixed, _ in SUPPORTING
        )
        for row in read
    ]
    # A third of the rows that nothing is about will do to mislead; layers are whole.
    curves = ("logistic_regression", None)
    return [
        row
        for at, row in enumerate(read)
        if wished[at] or at % 3 == 0 or row.factors.get("probe") in curves
    ]


def seeds_of(rows: Sequence[Row], count: int) -> list[Row]:
    """The rows once for each of ``count`` seeds, a little apart."""
    rng = np.random.default_rng(0)
    made = []
    for seed in range(count):
        for row in rows:
            value = None if row.value is None else row.value + rng.normal(0, 0.01)
            made.append(dataclasses.replace(row.with_factors(seed=seed), value=value))
    return made


def test_few_seeds_decide_nothing(template: list[Row]) -> None:
    for count in (1, 4):
        verdicts = judge(HYPOTHESES, seeds_of(template, count))
        assert {verdict.verdict for verdict in verdicts} == {"undecided"}
        assert all("a verdict needs 5" in verdict.reason for verdict in verdicts)
        assert all(finding.seeds == count for v in verdicts for finding in v.findings)


def test_organisms_that_did_not_arise_say_nothing(template: list[Row]) -> None:
    verdicts = judge(HYPOTHESES, seeds_of(template, 5))
    assert {verdict.verdict for verdict in verdicts} == {"uninformative"}
    assert all("reached by 0 of 5 seeds" in verdict.reason for verdict in verdicts)
    assert [f.reason for v in verdicts for f in v.findings if f.reason] == []


@pytest.mark.science
@pytest.mark.timeout(900)
def test_no_verdict_on_five_untrained_organisms(tmp_path: Path) -> None:
    grown = run_study(STUDY, "smoke", {**TINY, "seeds": 5, "train_rows": 600, "test_rows": 600},
                      Store(tmp_path))  # fmt: skip
    verdicts = judge(HYPOTHESES, grown.rows)
    assert {verdict.verdict for verdict in verdicts} == {"uninformative"}
    nulls = [check for check in STUDY.checks(grown.rows) if check.name.startswith("shuffled")]
    assert [check.status for check in nulls] == ["passed"]


# The hypotheses on rows that we wrote

Wish = tuple[str, Mapping[str, Any], float | Sequence[float]]
HONEST = {"probe": "logistic_regression", "trained_on": "honest", "variant": "organism"}
BOB = {"split": "test", "scored_on": "quirky", "rows": "disagree", "against": "truth"}
CHOICE = {"split": "validation", "scored_on": "honest", "rows": "all", "against": "truth"}
LIES, ALICE_EASY = "quirky, untruthful", {**HONEST, "trained_on": "honest easy"}


def knows(value: Any, organism: str = NEEDS_TRUTH, layer: int = 2, **more: Any) -> Wish:
    """What the honest probe reads of the truth where Bob says otherwise."""
    return ("auroc", {**HONEST, **BOB, "organism": organism, "layer": layer} | more, value)


def informative(organism: str, first: int, **more: Any) -> list[Wish]:
    """Honest validation rows by which the layer ``first`` is the earliest informative one."""
    fixed = {**HONEST, **CHOICE, "organism": organism} | more
    return [
        ("auroc", {**fixed, "layer": layer}, 0.98 if layer >= first else 0.6) for layer in LAYERS
    ]


def said(value: Any, organism: str = NEEDS_TRUTH, context: str = "quirky") -> Wish:
    fixed = {"variant": "organism", "split": "test", "rows": "disagree"}
    return ("balanced_accuracy", {**fixed, "organism": organism, "context": context}, value)


def odd(suspect: str, value: Any, variant: str = "organism") -> Wish:
    fixed = {"organism": NEEDS_TRUTH, "detector": "mahalanobis", "layer": 4}
    return ("detector_auroc", {**fixed, "variant": variant, "suspect": suspect}, value)


def inputs(value: Any) -> Wish:
    fixed = {**BOB, "organism": NEEDS_TRUTH, "variant": "input only", "trained_on": "honest"}
    return ("auroc", fixed, value)


def recency(value: Any) -> Wish:
    fixed = {"organism": NEEDS_TRUTH, "variant": "organism", "probe": "truth", "layer": 2}
    return ("recency_auroc", fixed, value)


def gap(reached: Any, floor: float = 0.5, ceiling: float = 0.98) -> list[Wish]:
    hard = {**BOB, "rows": "all", "scored_on": "quirky hard", "organism": NEEDS_TRUTH}
    from_said = {**HONEST, "trained_on": "quirky, said", **hard, "layer": 4}
    alice = {**HONEST, **hard, "scored_on": "honest hard", "layer": 4}
    return [
        ("auroc", {**ALICE_EASY, **hard, "layer": 3}, reached),
        ("auroc", from_said, floor),
        ("auroc", alice, ceiling),
    ]


SUPPORTING: list[Wish] = [
    *(said(0.99, organism, c) for organism in RECIPES for c in ("honest", "quirky")),
    *informative(NEEDS_TRUTH, 2),
    knows(0.93),
    knows(0.05, layer=4),
    *informative(OWN_ANSWER, 3),
    knows(0.45, OWN_ANSWER, layer=3),
    *informative(NEEDS_TRUTH, 1, variant="untrained"),
    knows(0.5, layer=1, variant="untrained"),
    *informative(NEEDS_TRUTH, 3, trained_on="honest easy"),
    *gap(0.9),
    inputs(0.5),
    odd(LIES, 0.9),
    *(odd(control, 0.55) for control in SUSPECTS if control != LIES),
    odd(LIES, 0.52, "twin"),
    odd("truthful third name", 0.51, "twin"),
    odd(LIES, 0.6, "untrained"),
    recency(0.5),
]
SCATTERED = (0.2, 0.4, 0.6, 0.8, 1.0)
BY_NAME = {hypothesis.name: hypothesis for hypothesis in HYPOTHESES}


def written(template: Sequence[Row], *wishes: Wish, seeds: int = 5) -> list[Row]:
    """The rows of ``template`` for some seeds: at random, but for those that are wished.

    Whatever a prediction isn't about lies anywhere between 0 and 1, so that a verdict holds only
    if it looks at the right rows.  A later wish replaces an earlier one of the same rows.
    """
    rng = np.random.default_rng(1)
    table: dict[int, Sequence[float] | float] = {}
    for metric, fixed, wanted in wishes:
        matching = [
            at for at, row in enumerate(template)
            if row.metric == metric and fixed.items() <= {**row.factors}.items()
        ]  # fmt: skip
        assert len(matching) == 1, f"{metric} {fixed}: {len(matching)} rows"
        table[matching[0]] = wanted
    made = []
    for seed in range(seeds):
        for at, row in enumerate(template):
            wanted = table.get(at)
            if wanted is None:
                value = float(rng.random())
            else:
                mean = wanted if isinstance(wanted, float) else wanted[seed]
                value = mean + float(rng.normal(0, 0.004))
            factors = {**row.factors, "seed": seed}
            made.append(Row(row.study, row.cell, row.metric, row.unit, value, factors, None, row.n))
    return made


def verdict_of(template: Sequence[Row], name: str, *changes: Wish) -> Verdict:
    (verdict,) = judge([BY_NAME[name]], written(template, *SUPPORTING, *changes))
    return verdict


def test_rows_that_support_every_hypothesis(template: list[Row]) -> None:
    made = written(template, *SUPPORTING)
    verdicts = judge(HYPOTHESES, made)
    assert {v.hypothesis: v.verdict for v in verdicts} == dict.fromkeys(BY_NAME, "supported")
    by_name = {verdict.hypothesis: verdict for verdict in verdicts}
    assert by_name["reads-truth"].estimate == pytest.approx(0.93, abs=0.01)
    assert by_name["rule-decides"].estimate == pytest.approx(0.93 - 0.45, abs=0.01)
    assert by_name["easy-to-hard"].estimate == pytest.approx(0.4 / 0.48, abs=0.02)
    assert by_name["training-made-it"].estimate == pytest.approx(0.43 / 0.5, abs=0.02)
    differences = [finding.estimate for finding in by_name["untruth-looks-odd"].findings]
    assert differences == pytest.approx([0.35, 0.35, 0.35, 0.3], abs=0.01)
    checks = {check.name: check.status for check in STUDY.checks(made)}
    told = [checks[name] for name in checks if "arose" in name or NEEDS_TRUTH in name]
    assert set(told) == {"passed"}


CONTRADICTING: list[tuple[str, list[Wish]]] = [
    ("reads-truth", [knows(0.2)]),
    ("rule-decides", [knows(0.99, OWN_ANSWER, layer=3)]),
    ("last-layer-says", [knows(0.6, layer=4)]),
    ("last-layer-says", [knows(0.02), knows(0.3, layer=4)]),
    ("easy-to-hard", gap(0.55)),
    ("untruth-looks-odd", [odd("truthful third name", 0.97)]),
    ("untruth-looks-odd", [odd("unfamiliar honest name", 0.97)]),
    ("untruth-looks-odd", [odd("quirky, answer true", 0.97)]),
    ("untruth-looks-odd", [odd(LIES, 0.97, "untrained")]),
    ("not-the-input", [inputs(0.7)]),
    ("not-the-input", [inputs(0.3)]),
    ("not-the-input", [odd(LIES, 0.8, "twin")]),
    ("not-recency", [recency(0.8)]),
    ("not-recency", [recency(0.2)]),
    ("training-made-it", [knows(0.92, layer=1, variant="untrained"), knows(0.94)]),
]


@pytest.mark.parametrize(("name", "changes"), CONTRADICTING)
def test_rows_that_contradict(template: list[Row], name: str, changes: list[Wish]) -> None:
    verdict = verdict_of(template, name, *changes)
    assert verdict.verdict == "contradicted", verdict.sentence


UNDECIDED: list[tuple[str, list[Wish]]] = [
    ("reads-truth", [knows(SCATTERED)]),
    ("rule-decides", [knows(SCATTERED), knows(SCATTERED[::-1], OWN_ANSWER, layer=3)]),
    ("last-layer-says", [knows((0.0, 0.1, 0.3, 0.5, 0.7), layer=4)]),
    ("easy-to-hard", gap((0.5, 0.6, 0.7, 0.8, 0.95))),
    ("untruth-looks-odd", [odd(LIES, SCATTERED)]),
    ("not-the-input", [inputs((0.4, 0.45, 0.5, 0.55, 0.6))]),
    ("not-the-input", [odd(LIES, SCATTERED, "twin")]),
    ("not-recency", [recency((0.4, 0.45, 0.5, 0.55, 0.6))]),
    ("training-made-it", [knows(SCATTERED)]),
]


@pytest.mark.parametrize(("name", "changes"), UNDECIDED)
def test_rows_that_leave_it_open(template: list[Row], name: str, changes: list[Wish]) -> None:
    verdict = verdict_of(template, name, *changes)
    assert verdict.verdict == "undecided", verdict.sentence
    assert "reaches the bar" in verdict.reason


def test_what_did_not_arise_is_uninformative(template: list[Row]) -> None:
    fell_short = said((0.99, 0.99, 0.99, 0.9, 0.9), context="honest")
    for verdict in judge(HYPOTHESES, written(template, *SUPPORTING, fell_short)):
        assert verdict.verdict == "uninformative"
        assert "reached by 3 of 5 seeds (not by seed 3, 4)" in verdict.reason
    nearly = said((0.99, 0.99, 0.99, 0.99, 0.5))
    for verdict in judge(HYPOTHESES, written(template, *SUPPORTING, nearly)):
        assert verdict.verdict == "supported", "four of five seeds are enough"


def test_gates_of_single_hypotheses(template: list[Row]) -> None:
    assert verdict_of(template, "reads-truth", inputs(0.6)).verdict == "uninformative"
    assert verdict_of(template, "rule-decides", said(0.6, OWN_ANSWER)).verdict == "uninformative"
    assert verdict_of(template, "reads-truth", said(0.6, OWN_ANSWER)).verdict == "supported"


def test_a_lost_seed_stays_in_the_count(template: list[Row]) -> None:
    made = [row for row in written(template, *SUPPORTING) if row.factors["seed"] != 3]
    lost = {"cell": f"{NEEDS_TRUTH}, seed 3", "label": NEEDS_TRUTH, "seed": 3}
    made.append(Row("says-knows", "k", "cell", "cell", None, lost, None, 1, "failed", "it broke"))
    for verdict in judge(HYPOTHESES, made):
        assert verdict.verdict == "undecided", "four of five seeds"
        assert {finding.seeds for finding in verdict.findings} == {5}
        assert "it broke" in verdict.reason


# What is asked for


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ({"seed": 3}, r"no setting 'seed'; did you mean 'seeds'\?"),
        ({"recipes": ["ten moer"]}, r"no recipe 'ten moer'; did you mean 'ten more'\?"),
        ({"recipes": "ten more, LoRA"}, r"no recipe 'LoRA'; names with commas are given as JSON"),
        ({"recipes": []}, "no cells with these settings"),
        ({"seeds": 0}, "no cells with these settings"),
        ({"seeds": "many"}, "'seeds' expects a whole number, such as 2; got 'many'"),
        ({"truth_steps": -1}, "'truth_steps' expects at least 0; got -1"),
        ({"train_rows": 0}, "'train_rows' expects at least 100; got 0"),
        ({"test_rows": "-5"}, "'test_rows' expects at least 100; got -5"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    overrides: dict[str, Any], told: str, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    with pytest.raises(InputError, match=told) as caught:
        run_study(STUDY, "smoke", overrides, Store(home))
    assert "\n" not in str(caught.value)
    assert not home.exists()


def test_a_plan_touches_nothing(tmp_path: Path) -> None:
    home = tmp_path / "home"
    planned = plan(STUDY, "quick", {}, Store(home), workers=2)
    # A truthful phase for each seed, and each recipe on it.
    assert planned.to_run == len(planned.cells) == 5 * 3
    assert planned.memory_mb < 2048
    assert planned.seconds > 0
    assert not home.exists()
    with pytest.raises(InputError, match=r"no size 'quik'; did you mean 'quick'\?"):
        plan(STUDY, "quik", {}, Store(home))  # type: ignore[arg-type]
    for size in ("smoke", "quick", "full"):
        cells = {cell.name: cell for cell in STUDY.cells(STUDY.defaults[size])}
        kinds = Counter(cell.spec["kind"] for cell in cells.values())
        seeds, recipes = STUDY.defaults[size]["seeds"], STUDY.defaults[size]["recipes"]
        assert kinds["quirk"] == seeds * len(recipes)
        assert all(cells[name].spec["kind"] == "truth" for c in cells.values() for name in c.needs)
    alike = {str(cell.spec["before"]) for cell in cells.values() if cell.spec["kind"] == "truth"}
    assert len(alike) == kinds["truth"] < kinds["quirk"], "phases that are the same are grown once"
    assert set(recipes) == set(QUIRKS)


# The key


def imported(module: str, found: set[str]) -> set[str]:
    """All modules of terrarium that ``module`` imports, however indirectly."""
    spec = importlib.util.find_spec(module)
    if module in found or spec is None or spec.origin is None:
        return found
    found.add(module)
    for node in ast.walk(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            if name.startswith("terrarium."):
                try:
                    imported(name, found)
                except ModuleNotFoundError:  # a function, no module
                    continue
    return found


UNDECIDING = (
    # what is told, kept and looked up
    "errors", "progress", "registry", "keys", "store", "evidence.rows", "studies.code",
    # networks that this study doesn't grow, and how networks are written for others
    *(f"organisms.{name}" for name in ELSEWHERE),
    "worlds.tokenise",
)  # fmt: skip


def test_the_key_counts_all_code_that_decides_the_rows() -> None:
    found = imported("terrarium.studies.says_knows.measure", set())
    for registry in (probes, detectors):
        for name in registry:
            imported(str(registry.module(name)), found)
    imported("terrarium.worlds.arithmetic", found)
    packages = {"terrarium.organisms", "terrarium.worlds", "terrarium.studies"}  # hold nothing
    left_out = {
        name
        for name in found - set(STUDY.code) - packages
        if not any(
            name == f"terrarium.{free}" or name.startswith(f"terrarium.{free}.")
            for free in UNDECIDING
        )
    }
    assert left_out == set()
    assert "terrarium.worlds.templates" in STUDY.code
    assert "terrarium.instruments.probes.newton" in STUDY.code


def test_an_organisms_key_counts_all_code_that_decides_its_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counted: set[str] = set()
    monkeypatch.setattr(lineage, "code_fingerprint", lambda *modules: counted.update(modules) or "")
    lineage.chain(QUIRKS[NEEDS_TRUTH].recipe(), 0)
    found: set[str] = set()
    for module in ("organisms.engine", "organisms.transformer", "worlds.arithmetic"):
        imported(f"terrarium.{module}", found)
    undeciding = {
        f"terrarium.{name}"
        for name in (
            *("errors", "progress", "registry", "organisms", "worlds", "worlds.tokenise"),
            *("organisms.recipe", "organisms.network"),  # the spec is in the key; a protocol
            *("organisms.recipe_models", "organisms.recipe_objectives"),
            *("organisms.export", "organisms.policy"),
            # other objectives
            *("organisms.decoding", "organisms.distillation", "organisms.likelihood"),
            *("organisms.preferences", "organisms.sampling"),
        )
    }
    assert found - counted - undeciding == set()
