import pytest

from terrarium.errors import InputError
from terrarium.evidence.intervals import mean_interval
from terrarium.evidence.rows import Row
from terrarium.evidence.summary import over_seeds


def row(value, seed, status="undefined", /, **factors):
    factors["seed"] = seed
    if value is None:
        return Row("s", f"c{seed}", "auroc", "", None, factors, None, 9, status, "why not")
    return Row("s", f"c{seed}", "auroc", "", value, factors, None, 9)


def test_mean_and_interval_by_factor():
    rows = [row(v, s, layer=k) for k in (2, 1) for s, v in enumerate([0.8, 0.9, k / 10])]
    second, first = over_seeds(rows)
    assert (second.factors, first.factors) == ({"layer": 2}, {"layer": 1})
    assert first.value == pytest.approx(0.6)
    assert first.interval == mean_interval([0.8, 0.9, 0.1])
    assert (first.interval.over, first.n, first.reason, first.study) == ("seeds", 3, "", "s")


def test_missing_seeds_stay_in_the_count():
    (one,) = over_seeds([row(0.8, 0), row(0.9, 1), row(None, 2)])
    assert one.n == 3
    assert one.value == pytest.approx(0.85)
    assert one.reason == "2 of 3 seeds have a value; seed 2 undefined: why not"
    (single,) = over_seeds([row(0.8, 0), row(None, 1)])
    assert (single.value, single.interval) == (0.8, None)
    (none,) = over_seeds([row(None, 0, "failed"), row(None, 1, "failed")])
    assert (none.value, none.status, none.n) == (None, "failed", 2)
    assert "0 of 2 seeds" in none.reason
    (mixed,) = over_seeds([row(None, 0, "failed"), row(None, 1)])
    assert mixed.status == "undefined"


def test_levels_of_different_type_are_different_groups():
    assert len(over_seeds([row(0.5, 0, k=1), row(0.5, 0, k=True), row(0.5, 0, k="1")])) == 3


def test_what_cannot_be_grouped_is_refused():
    rows = [row(0.5, 0, layer=1, probe="lda"), row(0.6, 0, layer=2, probe="lda")]
    with pytest.raises(InputError, match="add layer to 'by'"):
        over_seeds(rows, by=["probe"])
    with pytest.raises(InputError, match="did you mean 'layer'"):
        over_seeds(rows, by=["layr"])
    with pytest.raises(InputError, match="twice"):
        over_seeds([rows[0], rows[0]])
    with pytest.raises(InputError, match="names no 'seed'"):
        over_seeds([Row("s", "c", "auroc", "", 0.5)])
    assert over_seeds([], by=["layer"]) == []
