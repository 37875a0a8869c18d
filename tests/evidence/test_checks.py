import pytest

from terrarium.errors import InputError
from terrarium.evidence.checks import (
    Check,
    bound_check,
    cells_check,
    chance_check,
    gate_check,
    not_made,
)
from terrarium.evidence.predictions import Gate
from terrarium.evidence.quantities import CELL, per_seed
from terrarium.evidence.rows import Row

AUROC = per_seed("auroc")


def rows_of(values, metric="auroc"):
    return [
        Row("s", f"k{i}", metric, "", v, {"seed": i}, None, 9)
        if v is not None
        else Row("s", f"k{i}", metric, "", None, {"seed": i}, None, 9, "undefined", "one class")
        for i, v in enumerate(values)
    ]


def test_shuffled_labels():
    fine = chance_check("shuffled", AUROC, rows_of([0.48, 0.52, 0.5, 0.51, 0.47]))
    assert fine.status == "passed"
    assert fine.sentence == "auroc: 0.50 [0.47, 0.52] over 5 seeds, chance is 0.5"
    assert chance_check("s", AUROC, rows_of([0.58, 0.6, 0.59])).status == "failed"
    wide = chance_check("s", AUROC, rows_of([0.4, 0.6, 0.45]))
    assert wide.status == "not made", "no evidence is no evidence of chance"
    assert "too wide to tell (margin 0.1)" in wide.sentence
    assert chance_check("s", AUROC, rows_of([0.4, 0.6, 0.45]), margin=0.3).status == "passed"


def test_what_cannot_be_made_says_so():
    assert chance_check("s", AUROC, []).sentence == "no rows of auroc"
    one = bound_check("b", AUROC, rows_of([0.5, None]), at_most=0.55)
    assert one.status == "not made"
    assert "seed 1: undefined: one class" in one.sentence
    assert gate_check("g", Gate(AUROC, at_least=0.9), []).status == "not made"
    assert cells_check([]).status == "not made"
    assert not_made("trained by others", "no such model here").record()["status"] == "not made"
    with pytest.raises(InputError):
        Check("c", "not made", "")


def test_bounds_need_the_whole_interval():
    assert bound_check("b", AUROC, rows_of([0.5, 0.51, 0.49]), at_most=0.55).status == "passed"
    # Mean below the bound, interval not.
    assert bound_check("b", AUROC, rows_of([0.5, 0.57, 0.45]), at_most=0.55).status == "failed"
    assert bound_check("b", AUROC, rows_of([0.99, 0.98, 0.99]), at_least=0.95).status == "passed"
    assert bound_check("b", AUROC, rows_of([0.9, 0.91, 0.9]), at_least=0.95).status == "failed"
    with pytest.raises(InputError, match="either"):
        bound_check("b", AUROC, [])


def test_gate():
    gate = Gate(per_seed("balanced_accuracy"), at_least=0.95)
    good = rows_of([0.99, 0.98, 0.97, 0.96, 0.8], "balanced_accuracy")
    assert gate_check("g", gate, good).status == "passed"
    assert gate_check("g", gate, good[2:]).status == "failed"


def test_all_cells():
    rows = rows_of([0.5, 0.6])
    assert cells_check(rows, {"k0": "seed 0", "k1": "seed 1"}).status == "passed"
    lost = Row("s", "k2", CELL, "", None, {"seed": 2}, None, 0, "failed", "out of memory")
    skipped = Row("s", "k0", "pgr", "", None, {"seed": 0}, None, 0, "skipped", "no hard rows")
    check = cells_check([*rows, lost, skipped], {"k2": "seed 2", "k3": "seed 3"})
    assert check.status == "failed"
    assert check.sentence == (
        "seed 3: absent; seed 2: failed, out of memory; k0 pgr: skipped, no hard rows"
    )
    # Undefined is a result, not a lost cell.
    assert cells_check(rows_of([0.5, None])).status == "passed"
