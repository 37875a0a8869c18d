"""The benchmark of dictionaries without its rivals: what is skipped, and what a failure says."""

import sys

import numpy as np
import pytest

from terrarium.bench import dictionaries
from terrarium.errors import InputError
from terrarium.instruments.check_dictionary import planted_features
from terrarium.instruments.dictionaries.kinds import BatchTopK, TopK
from terrarium.instruments.dictionaries.train import Training

CASE = dictionaries.Case("topk", features=16, active=3, batch=100, samples=2000)


def test_rivals_without_a_python_are_skipped_with_the_reason(monkeypatch):
    for variable in dictionaries.PYTHONS.values():
        monkeypatch.delenv(variable, raising=False)
    x = planted_features()
    rows = dictionaries.compare(CASE, x[:1000], x[1000:])
    assert [row["rival"] for row in rows] == list(dictionaries.PYTHONS)
    for row in rows:
        assert row["skipped"].endswith("is not set")
        assert "ratio" not in row
        assert 0 < row["terrarium_fvu"] < 1
        assert row["terrarium_l0"] <= 3
    assert dictionaries.opened_by_saelens(x) == []


def test_a_rival_that_fails_is_a_row_too(monkeypatch):
    for variable in dictionaries.PYTHONS.values():
        monkeypatch.setenv(variable, sys.executable)  # which has neither rival
    x = planted_features(300)
    rows = dictionaries.compare(CASE, x, x, rates=(1e-3,))
    assert all("ModuleNotFoundError" in row["skipped"] for row in rows)
    with pytest.raises(InputError, match="open under"):
        dictionaries.job(sys.executable, do="open", x=x, folder="none", threads=1)


@pytest.mark.parametrize(
    ("least", "tried"),
    [
        (1e-2, [3e-3, 1e-2, 3e-2]),
        (1e-1, [3e-3, 1e-2, 3e-2, 1e-1]),
        (3e-3, [1e-3, 3e-3, 1e-2]),
        (3e-4, [3e-4, 1e-3, 3e-3, 1e-2]),
    ],
)
def test_a_rival_is_judged_at_its_best_rate(least, tried, monkeypatch):
    def trained(rival, python, case, x, new, count, rate):
        off = abs(np.log(rate / least))
        return {"rival_lr": rate, "rival_fvu": off if rate < 0.09 or least > 0.09 else np.inf}

    monkeypatch.setattr(dictionaries, "trained", trained)
    found = dictionaries.best("sae_lens", "python", CASE, None, None, 1, dictionaries.RATES)
    assert found["rival_lr"] == least
    assert found["rival_rates_tried"] == tried


@pytest.mark.parametrize("kind", [TopK, BatchTopK])
def test_a_rivals_weights_are_judged_as_its_own_formulas_say(kind):
    x = planted_features()
    fitted = kind(16, Training(samples=4000, batch=100), active=3).fit(x)
    threshold = np.zeros(0, np.float32) if fitted.threshold is None else fitted.threshold
    arrays = {
        "W_enc": fitted.w_enc.T,
        "b_enc": fitted.b_enc,
        "W_dec": fitted.w_dec,
        "b_dec": fitted.b_dec,
        "threshold": threshold,
    }
    case = dictionaries.Case(fitted.name, features=16, active=3)
    assert np.array_equal(dictionaries.theirs(arrays, case).encode(x), fitted.encode(x))
