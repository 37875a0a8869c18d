"""Verdicts on planted rows: the eight predictions of says-knows and every way to a verdict."""

import json
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from terrarium.errors import InputError
from terrarium.evidence.hypotheses import Hypothesis, judge
from terrarium.evidence.predictions import Gate, above, below, within
from terrarium.evidence.quantities import (
    CELL,
    at_best,
    difference,
    over_levels,
    per_seed,
    recovered,
    where,
)
from terrarium.evidence.rows import Row
from terrarium.randomness import generator

HIGH = [0.93, 0.92, 0.95, 0.91, 0.94]


def rows_of(values, metric="auroc", /, **factors):
    rows = []
    for seed, value in enumerate(values):
        kind = {"status": "undefined", "reason": "one class"} if value is None else {}
        rows.append(Row("s", "c", metric, "", value, {"seed": seed, **factors}, None, 9, **kind))
    return rows


def hypothesis(prediction, *gates, name="h"):
    return Hypothesis(name, "It does.", "It doesn't.", "More.", "Less.", prediction, gates)


def only(prediction, rows, *gates):
    return judge([hypothesis(prediction, *gates)], rows)[0]


AUROC = per_seed("auroc")
READS_TRUTH = above(AUROC, 0.5, margin=0.15)


def test_supported_with_its_sentence_and_numbers():
    verdict = only(READS_TRUTH, rows_of(HIGH))
    assert verdict.verdict == "supported"
    assert verdict.sentence == "supported: 0.93 [0.91, 0.95] over 5 seeds, predicted > 0.65"
    assert verdict.estimate == pytest.approx(0.93)
    judged = stats.ttest_1samp(HIGH, 0.65)
    ends = judged.confidence_interval(0.95)
    assert [verdict.interval.low, verdict.interval.high] == pytest.approx([ends.low, ends.high])
    assert verdict.p == pytest.approx(judged.pvalue)
    assert (verdict.p_adjusted, verdict.n) == (verdict.p, 5)
    assert verdict.decisive.values == dict(enumerate(HIGH))
    assert json.loads(json.dumps(verdict.record()))["findings"][0]["values"]["3"] == 0.91


def test_contradicted_when_the_rival_is_right():
    verdict = only(READS_TRUTH, rows_of([0.0, 0.01, 0.02, 0.0, 0.01]))
    assert verdict.verdict == "contradicted"
    # Above chance but under the margin counts against the claim too.
    assert only(READS_TRUTH, rows_of([0.58, 0.6, 0.59, 0.61, 0.6])).verdict == "contradicted"


def test_undecided_when_the_interval_reaches_the_bar():
    verdict = only(READS_TRUTH, rows_of([0.5, 0.9, 0.6, 0.95, 0.7]))
    assert verdict.verdict == "undecided"
    assert "reaches the bar" in verdict.reason


def test_equal_values_without_spread():
    assert only(below(AUROC, 0.5), rows_of([0.0] * 5)).verdict == "supported"
    assert only(below(AUROC, 0.5), rows_of([0.5] * 5)).verdict == "undecided"


def test_four_seeds_are_undecided_whatever_they_say():
    verdict = only(READS_TRUTH, rows_of(HIGH[:4]))
    assert verdict.verdict == "undecided"
    assert verdict.reason == "4 seeds; a verdict needs 5"
    assert verdict.interval is not None
    one = only(READS_TRUTH, rows_of(HIGH[:1]))
    assert one.sentence.startswith("undecided: 0.93 over 1 seed, predicted > 0.65")
    none = only(READS_TRUTH, [])
    assert none.reason == "no rows of auroc"
    assert none.estimate is None


def test_failed_gate_makes_it_uninformative():
    gate = Gate(per_seed("balanced_accuracy"), at_least=0.95)
    rows = rows_of(HIGH)
    good = rows_of([0.99, 0.98, 0.757, 0.97, 0.99], "balanced_accuracy")
    bad = rows_of([0.99, 0.8, 0.757, 0.7, 0.99], "balanced_accuracy")
    assert only(READS_TRUTH, rows + good, gate).verdict == "supported"
    verdict = only(READS_TRUTH, rows + bad, gate)
    assert verdict.verdict == "uninformative"
    assert "reached by 2 of 5 seeds (not by seed 1, 2, 3)" in verdict.reason
    assert verdict.estimate == pytest.approx(0.93)
    assert verdict.p_adjusted is None
    assert only(READS_TRUTH, rows, gate).verdict == "uninformative"
    # A prediction as a gate must itself be supported.
    baseline = below(per_seed("auroc_input"), 0.55)
    low = rows_of([0.5, 0.52, 0.51, 0.49, 0.5], "auroc_input")
    high = rows_of([0.88, 0.87, 0.88, 0.86, 0.88], "auroc_input")
    assert only(READS_TRUTH, rows + low, baseline).verdict == "supported"
    confounded = only(READS_TRUTH, rows + high, baseline)
    assert confounded.verdict == "uninformative"
    assert "predicted < 0.55" in confounded.reason


def test_organisms_without_the_property_stay_in_the_denominator():
    gate = Gate(per_seed("balanced_accuracy"), at_least=0.95)
    rows = rows_of([*HIGH[:4], 0.4]) + rows_of([0.99] * 4 + [0.5], "balanced_accuracy")
    verdict = only(READS_TRUTH, rows, gate)
    assert verdict.n == 5
    assert verdict.estimate == pytest.approx(np.mean([*HIGH[:4], 0.4]))
    assert verdict.verdict == "undecided"


def test_undefined_seeds_stay_in_the_count():
    # Five of six have a value and lie far from the bar: the sixth on the bar changes nothing.
    verdict = only(above(AUROC, 0.5), rows_of([*HIGH, None]))
    assert verdict.verdict == "supported"
    assert "over 5 of 6 seeds" in verdict.sentence
    assert "seed 5: undefined: one class" in verdict.sentence
    # Near the bar it does.
    near = [0.56, 0.58, 0.53, 0.57, 0.55]
    assert only(above(AUROC, 0.533), rows_of(near)).verdict == "supported"
    undecided = only(above(AUROC, 0.533), rows_of([*near, None, None]))
    assert undecided.verdict == "undecided"
    assert "could move" in undecided.reason
    few = only(above(AUROC, 0.5), rows_of([*HIGH[:4], None]))
    assert few.verdict == "undecided"
    assert "4 seeds with a value" in few.reason


def test_a_missing_seed_never_makes_a_verdict_easier():
    rng = generator("missing")
    for _ in range(200):
        values = rng.normal(0.55, 0.05, 5).tolist()
        for prediction in (above(AUROC, 0.5), within(AUROC, 0.1, around=0.5)):
            whole = only(prediction, rows_of(values))
            holed = only(prediction, rows_of([*values, None]))
            assert holed.p == whole.p or holed.p > whole.p
            assert holed.verdict in (whole.verdict, "undecided")


def test_a_failed_cell_counts_for_what_it_would_have_measured():
    lost = [
        Row("s", "c", CELL, "", None, {"seed": 5, "recipe": r}, None, 0, "failed", "killed")
        for r in ("a", "b")
    ]
    verdict = only(above(per_seed("auroc", recipe="a"), 0.5), rows_of(HIGH, recipe="a") + lost)
    assert "over 5 of 6 seeds" in verdict.sentence
    assert verdict.reason == "without a value: seed 5: cell failed: killed"


# The eight predictions of says-knows, each planted true and planted false.
MIDDLE = at_best(
    "layer",
    read=where("auroc", rows="disagree", layer=[0, 1]),
    chosen_on=where("auroc", rows="validation", layer=[0, 1]),
)
LAST = per_seed("auroc", rows="disagree", layer=2)


def curve(last, middle=0.95):
    rows = rows_of([0.9, 0.91, 0.9, 0.92, 0.9], rows="validation", layer=0)
    rows += rows_of([0.97, 0.98, 0.97, 0.99, 0.98], rows="validation", layer=1)
    rows += rows_of([0.2] * 5, rows="disagree", layer=0)
    jitter = [0.0, 0.01, -0.01, 0.02, -0.02]
    rows += rows_of([middle + j for j in jitter], rows="disagree", layer=1)
    return rows + rows_of([last + j for j in jitter], rows="disagree", layer=2)


def test_b_contrast_of_recipes():
    prediction = above(
        difference(per_seed("auroc", rule="odd"), per_seed("auroc", rule="ten more")), 0.0
    )
    needs, doesnt = rows_of(HIGH, rule="odd"), rows_of([0.3, 0.1, 0.4, 0.2, 0.3], rule="ten more")
    assert only(prediction, needs + doesnt).verdict == "supported"
    swapped = rows_of(HIGH, rule="ten more") + rows_of([0.3, 0.1, 0.4, 0.2, 0.3], rule="odd")
    assert only(prediction, swapped).verdict == "contradicted"
    # Pairing: a shift of .05 shows although seeds differ by far more.
    a = [0.9, 0.3, 0.6, 0.5, 0.75]
    b = [v - d for v, d in zip(a, [0.05, 0.04, 0.06, 0.05, 0.05], strict=True)]
    paired = rows_of(a, rule="odd") + rows_of(b, rule="ten more")
    assert only(prediction, paired).verdict == "supported"
    assert stats.ttest_ind(a, b).pvalue > 0.5


def test_c_middle_above_last_and_last_reads_what_is_said():
    prediction = (above(difference(MIDDLE, LAST), 0.0), below(LAST, 0.5))
    verdict = only(prediction, curve(last=0.05))
    assert verdict.verdict == "supported"
    assert verdict.sentence.count("predicted") == 2
    both = only(prediction, curve(last=0.8))
    assert both.verdict == "contradicted"
    assert both.decisive.predicted == "< 0.5"
    assert both.estimate == pytest.approx(0.8)
    assert [f.outcome for f in both.findings] == ["supported", "contradicted"]
    # One undecided part leaves the whole undecided.
    assert only(prediction, curve(last=0.5)).verdict == "undecided"
    assert "layer=2" in hypothesis(prediction).text


def test_d_easy_carries_to_hard():
    pgr = recovered(
        per_seed("auroc", probe="easy"),
        per_seed("auroc", probe="floor"),
        per_seed("auroc", probe="c"),
    )
    ends = rows_of([0.33, 0.3, 0.35, 0.32, 0.34], probe="floor") + rows_of(HIGH, probe="c")
    good = rows_of([0.8, 0.82, 0.79, 0.81, 0.8], probe="easy")
    poor = rows_of([0.4, 0.42, 0.39, 0.41, 0.4], probe="easy")
    assert only(above(pgr, 0.5), ends + good).verdict == "supported"
    assert only(above(pgr, 0.5), ends + poor).verdict == "contradicted"


def test_e_and_g_detector_excess_and_the_twin():
    excess = difference(per_seed("auroc", rows="untruthful"), per_seed("auroc", rows="new name"))
    names = rows_of([0.58, 0.6, 0.57, 0.59, 0.58], rows="new name")
    found = rows_of([0.97, 0.95, 0.96, 0.98, 0.96], rows="untruthful")
    inert = rows_of([0.585, 0.592, 0.573, 0.588, 0.583], rows="untruthful")
    assert only(above(excess, 0.0), names + found).verdict == "supported"
    assert only(above(excess, 0.0), names + inert).verdict == "undecided"
    twin = within(excess, 0.05)
    verdict = only(twin, names + inert)
    assert verdict.verdict == "supported"
    assert verdict.adjusted_interval.level == pytest.approx(0.9)
    contradicted = only(twin, names + found)
    assert contradicted.verdict == "contradicted"
    below_margin = rows_of([0.1, 0.12, 0.11, 0.13, 0.1], rows="untruthful")
    assert only(twin, names + below_margin).verdict == "contradicted"
    # Not significantly different from 0 is not "nothing": the interval is too wide for the margin.
    wide = rows_of([0.4, 0.8, 0.5, 0.7, 0.55], rows="untruthful")
    assert only(twin, names + wide).verdict == "undecided"


def test_f_input_only_baseline():
    worst = over_levels("max", "world", where("auroc", probe="input only"))
    prediction = below(worst, 0.55)
    flat = rows_of([0.5, 0.49, 0.51, 0.5, 0.52], probe="input only", world="modular")
    leak = rows_of([0.88, 0.87, 0.88, 0.89, 0.88], probe="input only", world="published")
    assert only(prediction, flat).verdict == "supported"
    assert only(prediction, flat + leak).verdict == "contradicted"


def test_h_share_of_the_untrained_residual():
    share = recovered(per_seed("r2", net="trained"), per_seed("r2", net="untrained"), 1.0)
    untrained = rows_of([0.959, 0.955, 0.96, 0.957, 0.958], "r2", net="untrained")
    trained = rows_of([0.995, 0.994, 0.996, 0.995, 0.994], "r2", net="trained")
    same = rows_of([0.96, 0.957, 0.961, 0.957, 0.96], "r2", net="trained")
    assert only(above(share, 0.5), untrained + trained).verdict == "supported"
    assert only(above(share, 0.5), untrained + same).verdict == "contradicted"


def test_holm_within_the_study():
    values = [0.56, 0.62, 0.51, 0.6, 0.54]
    rows = rows_of(values) + rows_of([0.4, 0.6, 0.5, 0.45, 0.55], "other")
    p = stats.ttest_1samp(values, 0.5).pvalue
    assert 0.025 < p < 0.05
    mine = hypothesis(above(AUROC, 0.5), name="mine")
    assert judge([mine], rows)[0].verdict == "supported"
    other = hypothesis(above(per_seed("other"), 0.5), name="other")
    found = judge([mine, other], rows)[0]
    assert found.verdict == "undecided"
    assert found.p == pytest.approx(p)
    assert found.p_adjusted == pytest.approx(2 * p)
    assert found.adjusted_interval.level == pytest.approx(0.975)
    assert found.adjusted_interval.low < 0.5 < found.interval.low
    # What could not be tested was planned all the same and counts.
    absent = hypothesis(above(per_seed("absent"), 0.5), name="absent")
    assert judge([mine, absent], rows)[0].verdict == "undecided"


def test_verdicts_err_at_most_as_often_as_they_say():
    # Eight true nulls a study; any decision is false.  400 studies.
    draws = generator("family").normal(0.5, 0.1, (400, 8, 5))
    plans = [hypothesis(above(per_seed("m", k=k), 0.5), name=str(k)) for k in range(8)]
    wrong = 0
    for study in draws:
        rows = [r for k, values in enumerate(study) for r in rows_of(values.tolist(), "m", k=k)]
        wrong += any(v.verdict != "undecided" for v in judge(plans, rows))
    assert wrong / 400 < 0.085


def test_order_of_rows_does_not_matter():
    plans = [hypothesis((above(difference(MIDDLE, LAST), 0.0), below(LAST, 0.5)))]
    rows = curve(last=0.05)
    shuffled = [rows[i] for i in generator("order").permutation(len(rows))]
    assert judge(plans, rows)[0].record() == judge(plans, shuffled)[0].record()


def test_bad_plans_are_refused():
    plan = hypothesis(READS_TRUTH)
    with pytest.raises(InputError, match="unique"):
        judge([plan, plan], [])
    with pytest.raises(InputError, match="predicts nothing"):
        hypothesis(())
    assert judge([], []) == []


def test_plans_are_read_without_heavy_imports():
    # The command line lists studies, hypotheses included, in well under half a second.
    code = (
        "import sys, terrarium.evidence.hypotheses, terrarium.evidence.table\n"
        "heavy = {'torch', 'pandas', 'scipy', 'pyarrow', 'duckdb'} & sys.modules.keys()\n"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
