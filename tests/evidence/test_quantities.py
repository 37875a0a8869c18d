import pytest

from terrarium.errors import InputError
from terrarium.evidence.predictions import Gate, above, below, within
from terrarium.evidence.quantities import (
    CELL,
    Missing,
    at_best,
    combined,
    difference,
    over_levels,
    per_seed,
    recovered,
    where,
)
from terrarium.evidence.rows import Row


def row(value, metric="auroc", /, **factors):
    if isinstance(value, str):
        return Row("s", "c", metric, "proportion", None, factors, None, 10, "undefined", value)
    return Row("s", "c", metric, "proportion", value, factors, None, 10)


def lost_cell(**factors):
    return Row("s", "c", CELL, "", None, factors, None, 0, "failed", "disk full")


def test_per_seed_takes_one_row_each_in_the_order_of_seeds():
    rows = [row(v, seed=s, layer=2) for s, v in [(10, 0.9), (2, 0.8)]]
    rows += [row(0.1, seed=2, layer=3), row(0.2, "accuracy", seed=2, layer=2)]
    assert list(per_seed("auroc", layer=2).values(rows).items()) == [(2, 0.8), (10, 0.9)]


def test_levels_are_told_apart_by_type():
    rows = [row(0.9, seed=0, flag=True), row(0.1, seed=0, flag=1)]
    assert per_seed("auroc", flag=True).values(rows) == {0: 0.9}
    assert per_seed("auroc", flag=1).values(rows) == {0: 0.1}


def test_any_of_several_levels():
    rows = [row(0.9, seed=0, layer=1), row(0.8, seed=1, layer=2), row(0.1, seed=2, layer=3)]
    found = per_seed("auroc", layer=[1, 2])
    assert found.values(rows) == {0: 0.9, 1: 0.8}
    assert found.text == "auroc (layer=1 or 2)"


def test_ambiguity_is_refused_with_what_varies():
    rows = [row(0.9, seed=0, layer=1, probe="lda"), row(0.8, seed=0, layer=2, probe="lda")]
    with pytest.raises(InputError, match="2 rows for one seed; fix or reduce layer"):
        per_seed("auroc").values(rows)
    with pytest.raises(InputError, match="twice"):
        per_seed("auroc").values([rows[0], rows[0]])
    with pytest.raises(InputError, match="names no 'seed'"):
        per_seed("auroc").values([row(0.5, layer=1)])


def test_undefined_and_lost_stay():
    rows = [row(0.9, seed=0, recipe="a"), row("one class only", seed=1, recipe="a")]
    rows += [lost_cell(seed=2, recipe="a"), lost_cell(seed=3, recipe="b")]
    assert per_seed("auroc", recipe="a").values(rows) == {
        0: 0.9,
        1: Missing("undefined: one class only"),
        2: Missing("cell failed: disk full"),
    }


def test_over_levels():
    rows = [row(v, seed=0, layer=k) for k, v in enumerate([0.9, 0.2, 0.6])]
    rows += [row(0.9, seed=1, layer=0), row("nothing", seed=1, layer=1)]
    for how, value in [("min", 0.2), ("max", 0.9), ("mean", 1.7 / 3)]:
        found = over_levels(how, "layer", where("auroc")).values(rows)
        assert found[0] == pytest.approx(value)
        assert found[1] == Missing("undefined: nothing")


def layered(validation, test, seed=0):
    return [
        row(v, seed=seed, layer=k, split=split)
        for split, curve in [("validation", validation), ("test", test)]
        for k, v in enumerate(curve)
    ]


READ, CHOSEN = where("auroc", split="test"), where("auroc", split="validation")


def test_the_layer_is_chosen_on_validation_rows_alone():
    rows = layered([0.6, 0.9, 0.8], [0.99, 0.7, 0.95])
    assert at_best("layer", read=READ, chosen_on=CHOSEN).values(rows) == {0: 0.7}
    # Ties go to the first layer; order of rows doesn't matter.
    rows = layered([0.6, 0.9, 0.9], [0.99, 0.7, 0.95])
    assert at_best("layer", read=READ, chosen_on=CHOSEN).values(rows[::-1]) == {0: 0.7}
    with pytest.raises(InputError, match="validation"):
        at_best("layer", read=READ, chosen_on=READ)


def test_earliest_informative_layer():
    # Greatest gain .4, 95 % of it .38: layer 1 (.88) is the first to reach .88.
    rows = layered([0.87, 0.885, 0.9], [0.1, 0.2, 0.3])
    assert at_best("layer", read=READ, chosen_on=CHOSEN, rule="earliest").values(rows) == {0: 0.2}
    # Nothing informative anywhere: the best there is.
    rows = layered([0.3, 0.5, 0.4], [0.1, 0.2, 0.3])
    assert at_best("layer", read=READ, chosen_on=CHOSEN, rule="earliest").values(rows) == {0: 0.2}


def test_a_layer_that_cannot_be_chosen_or_read_is_missing():
    found = at_best("layer", read=READ, chosen_on=CHOSEN)
    rows = layered([], [0.9, 0.8], 0) + layered([0.5, 0.9], [0.9], 1)
    rows += layered([0.5, 0.9], [0.9, "no rows"], 2)
    reasons = [value.reason for value in found.values(rows).values()]
    assert "no layer could be chosen" in reasons[0]
    assert "not measured at layer 1" in reasons[1]
    assert reasons[2] == "undefined: no rows"


def test_difference_is_paired_by_seed():
    rows = [row(v, seed=s, who="a") for s, v in enumerate([0.9, 0.8, 0.7])]
    rows += [row(v, seed=s, who="b") for s, v in [(2, 0.5), (0, 0.2)]]
    found = difference(per_seed("auroc", who="a"), per_seed("auroc", who="b")).values(rows)
    assert found[0] == pytest.approx(0.7)
    assert found[2] == pytest.approx(0.2)
    assert found[1] == Missing("no row of auroc (who=b)")


def test_recovered_is_pgr_and_share_of_the_residual():
    rows = [row(v, who, seed=0) for who, v in [("floor", 0.3), ("probe", 0.8), ("ceiling", 0.9)]]
    pgr = recovered(per_seed("probe"), per_seed("floor"), per_seed("ceiling"))
    assert pgr.values(rows)[0] == pytest.approx(0.5 / 0.6)
    # R2 .959 untrained and .995 trained: .878 of the residual removed.
    rows = [row(0.995, "r2", seed=0, net="trained"), row(0.959, "r2", seed=0, net="untrained")]
    share = recovered(per_seed("r2", net="trained"), per_seed("r2", net="untrained"), 1.0)
    assert share.values(rows)[0] == pytest.approx(1 - 0.005 / 0.041)
    nothing = recovered(per_seed("r2", net="trained"), 0.99, 0.995)
    assert "too small" in nothing.values(rows)[0].reason


def test_not_finite_is_missing():
    found = combined("ratio", lambda a: a / 0.0 if a else float("inf"), per_seed("auroc"))
    assert isinstance(found.values([row(0.0, seed=0)])[0], Missing)


def test_predictions_read_as_text():
    auroc = per_seed("auroc", rows="disagree")
    assert above(auroc, 0.5, margin=0.15).text == (
        "mean over seeds of auroc (rows=disagree) > 0.65"
    )
    assert below(auroc.called("last layer"), 0.5).text == "mean over seeds of last layer < 0.5"
    assert within(auroc, 0.05).predicted == "within 0.05 of 0"
    gate = Gate(per_seed("balanced_accuracy"), at_least=0.95)
    assert gate.text == "balanced_accuracy >= 0.95 in at least 80 % of seeds"


def test_predictions_without_sense_are_refused():
    auroc = per_seed("auroc")
    for make in (
        lambda: above(auroc, 0.5, margin=-0.1),
        lambda: within(auroc, 0.0),
        lambda: above(auroc, float("nan")),
        lambda: Gate(auroc),
        lambda: Gate(auroc, at_least=0.9, share=80),
    ):
        with pytest.raises(InputError):
            make()


def test_gate_counts_missing_seeds():
    gate = Gate(per_seed("accuracy"), at_least=0.95)
    rows = [row(v, "accuracy", seed=s) for s, v in enumerate([0.99, 0.98, 0.97, 0.96])]
    assert gate.judge([*rows, row(0.757, "accuracy", seed=4)]).passed
    result = gate.judge([*rows[:3], row(0.757, "accuracy", seed=4), lost_cell(seed=5)])
    assert not result.passed
    assert result.reason == "reached by 3 of 5 seeds (not by seed 4, 5)"
    assert not gate.judge([]).passed
    assert Gate(per_seed("accuracy"), at_most=0.97, share=0.5).judge(rows).passed
