import numpy as np
import pytest
from scipy import stats

from terrarium.errors import InputError
from terrarium.evidence.survival import (
    first_time_below,
    half_life,
    kaplan_meier,
    log_rank,
)
from terrarium.randomness import generator

TIMES = np.array([6, 6, 6, 7, 10, 13, 16, 22, 23, 6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35.0])
ENDED = np.array([1] * 9 + [0] * 12, dtype=bool)
PLACEBO = np.array([1, 1, 2, 2, 3, 4, 4, 5, 5, 8, 8, 8, 8, 11, 11, 12, 12, 15, 17, 22, 23.0])


def censored(times, ended):
    return stats.CensoredData(uncensored=times[ended], right=times[~ended])


def test_kaplan_meier_on_the_classic_remission_data():
    # Freireich et al. (1963), 6-MP arm: S(6) = .857, S(7) = .807, S(10) = .753, S(23) = .448.
    curve = kaplan_meier(TIMES, ENDED)
    at = dict(zip(curve.times, curve.survival, strict=True))
    assert [round(at[t], 3) for t in (6, 7, 10, 23)] == [0.857, 0.807, 0.753, 0.448]


def test_kaplan_meier_and_band_agree_with_scipy():
    rng = generator("km")
    times, ended = rng.integers(1, 15, 30).astype(float), rng.random(30) < 0.6
    curve = kaplan_meier(times, ended)
    judge = stats.ecdf(censored(times, ended)).sf
    assert curve.survival == pytest.approx(judge.evaluate(curve.times))
    # scipy warns that the band has no value where S is 0 or 1; those times are left out below.
    with pytest.warns(RuntimeWarning, match="undefined at some"):
        band = judge.confidence_interval(0.95, method="log-log")
    low, high = curve.band()
    inside = (curve.survival > 0) & (curve.survival < 1)
    assert inside.sum() > 5
    assert low[inside] == pytest.approx(band.low.evaluate(curve.times)[inside])
    assert high[inside] == pytest.approx(band.high.evaluate(curve.times)[inside])


def test_half_life_of_the_remission_data():
    # Published: 23 weeks with 6-MP, upper end not reached; 8 weeks [4, 11] with placebo.
    treated = half_life(TIMES, ENDED)
    assert (treated.estimate, treated.low, treated.high) == (23, 13, None)
    assert treated.text == "23 [13, not reached in 35]"
    placebo = half_life(PLACEBO, np.ones(21, dtype=bool))
    assert (placebo.estimate, placebo.low, placebo.high) == (8, 4, 11)
    row = placebo.row(unit="weeks", arm="placebo")
    assert (row.value, row.interval.low, row.n, row.reason) == (8, 4, 21, "")


def test_what_does_not_decay_is_censored_not_infinite():
    found = half_life([1000] * 5, [False] * 5)
    assert (found.estimate, found.low, found.high) == (None, None, None)
    row = found.row(recipe="mixture")
    assert (row.status, row.value, row.n) == ("undefined", None, 5)
    assert row.reason == "not reached in 1000; 5 of 5 had not ended"
    half = half_life([400, 1000, 1000, 1000, 1000], [True] + [False] * 4)
    assert half.estimate is None
    open_ended = half_life(TIMES, ENDED).row()
    assert (open_ended.value, open_ended.interval) == (23, None)
    assert "not reached in 35" in open_ended.reason


def test_half_of_an_even_number_is_the_lower_middle():
    assert half_life([1, 2, 3, 4], [True] * 4).estimate == 2
    # (2/3)(3/4) and the like must not miss one half by rounding.
    assert half_life(np.arange(1.0, 11), [True] * 10).estimate == 5


def test_half_life_interval_covers():
    rng = generator("half-life")
    draws = rng.exponential(100 / np.log(2), (500, 30))
    covered = 0
    for row in draws:
        found = half_life(np.minimum(row, 300), row <= 300)
        low = 0 if found.low is None else found.low
        covered += low <= 100 and (found.high is None or found.high >= 100)
    assert 0.92 < covered / 500 < 0.985


def test_log_rank_agrees_with_scipy():
    judge = stats.logrank(censored(TIMES, ENDED), censored(PLACEBO, np.ones(21, dtype=bool)))
    found = log_rank(
        np.r_[TIMES, PLACEBO], np.r_[ENDED, np.ones(21, dtype=bool)], np.arange(42) < 21
    )
    assert found.chi2 == pytest.approx(judge.statistic**2)
    assert found.p == pytest.approx(judge.pvalue)
    assert found.chi2 == pytest.approx(16.79, abs=0.01)


def test_bad_survival_data_is_refused():
    with pytest.raises(InputError, match="negative"):
        kaplan_meier([-1.0], [True])
    with pytest.raises(InputError, match="flag"):
        kaplan_meier([1.0, 2.0], [True])
    with pytest.raises(InputError, match="both present"):
        log_rank([1.0, 2.0], [True, True], [True, True])
    with pytest.raises(InputError, match="nothing ended"):
        log_rank([1.0, 2.0], [False, False], [True, False])


def test_first_time_below():
    assert first_time_below([0, 50, 200, 400], [1.0, 0.8, 0.5, 0.1], 0.5) == (200, True)
    assert first_time_below([0, 50, 200], [1.0, 1.0, 0.9], 0.5) == (200, False)
    with pytest.raises(InputError, match="increasing"):
        first_time_below([0, 0], [1.0, 0.2], 0.5)
