import math

import numpy as np
import pytest
from scipy import stats

from terrarium.errors import InputError
from terrarium.evidence import laws
from terrarium.evidence.intervals import (
    auroc_interval,
    bootstrap_interval,
    clopper_pearson,
    grouped_auroc_interval,
    grouped_rate,
    mean_interval,
    overlaps,
    paired_interval,
    shown,
    wilson,
    zero_rate_bound,
)
from terrarium.evidence.rows import Interval
from terrarium.randomness import generator

VALUES = np.array([0.91, 0.93, 0.96, 0.90, 0.94])


def ends(interval):
    return [interval.low, interval.high]


def test_laws_agree_with_scipy_stats():
    assert laws.normal_quantile(0.975) == pytest.approx(stats.norm.ppf(0.975))
    assert laws.normal_tail(1.3) == pytest.approx(stats.norm.sf(1.3))
    assert laws.t_quantile(0.9, 4) == pytest.approx(stats.t.ppf(0.9, 4))
    assert laws.t_tail(-0.7, 3) == pytest.approx(stats.t.sf(-0.7, 3))
    assert laws.beta_quantile(0.2, 3, 7) == pytest.approx(stats.beta.ppf(0.2, 3, 7))
    assert laws.chi2_tail(3.2, 1) == pytest.approx(stats.chi2.sf(3.2, 1))
    for k in range(6):
        assert laws.binomial_tail(k, 5, 0.3) == pytest.approx(stats.binom.sf(k - 1, 5, 0.3))


def test_mean_interval_is_scipys_t_interval():
    found = mean_interval(VALUES, level=0.9)
    judge = stats.ttest_1samp(VALUES, 0).confidence_interval(0.9)
    assert ends(found) == pytest.approx([judge.low, judge.high])
    assert (found.level, found.over, found.method) == (0.9, "seeds", "t")


def test_mean_interval_by_hand():
    # mean 2, standard deviation 1, n = 3, t(.975, 2) = 4.302653
    half = 4.302652729696142 / math.sqrt(3)
    assert ends(mean_interval([1.0, 2.0, 3.0])) == pytest.approx([2 - half, 2 + half])


def test_t_interval_covers_as_it_says():
    draws = generator("coverage").normal(0.3, 2.0, (2000, 5))
    covered = np.mean([overlaps(mean_interval(row, level=0.9), 0.3) for row in draws])
    assert 0.88 < covered < 0.92


def test_no_spread_gives_no_width_and_says_so():
    found = mean_interval([0.1] * 7)
    assert ends(found) == [0.1, 0.1]
    assert found.method == "t (no spread)"


def test_paired_interval_is_scipys():
    other = VALUES - np.array([0.2, 0.1, 0.15, 0.3, 0.2])
    judge = stats.ttest_rel(VALUES, other).confidence_interval(0.95)
    assert ends(paired_interval(VALUES, other)) == pytest.approx([judge.low, judge.high])
    # Pairing matters: the unpaired interval is another one.
    unpaired = stats.ttest_ind(VALUES, other).confidence_interval(0.95)
    assert unpaired.low != pytest.approx(judge.low)


@pytest.mark.parametrize("bad", [[1.0], [1.0, math.nan], [[1.0, 2.0]], [1.0, math.inf]])
def test_bad_values_are_refused(bad):
    with pytest.raises(InputError):
        mean_interval(bad)


def test_bad_levels_lengths_and_counts_are_refused():
    with pytest.raises(InputError, match="level"):
        mean_interval(VALUES, level=95)
    with pytest.raises(InputError, match="pair"):
        paired_interval(VALUES, VALUES[:3])
    for successes, n in [(3, 2), (-1, 2), (0, 0)]:
        with pytest.raises(InputError, match="rate"):
            clopper_pearson(successes, n)
    with pytest.raises(InputError, match="no method"):
        bootstrap_interval(VALUES, method="magic")


@pytest.mark.parametrize(("k", "n"), [(0, 20), (3, 20), (20, 20), (1, 1), (250, 1000)])
def test_rates_agree_with_scipy(k, n):
    judge = stats.binomtest(k, n)
    exact = judge.proportion_ci(0.95, "exact")
    score = judge.proportion_ci(0.95, "wilson")
    assert ends(clopper_pearson(k, n)) == pytest.approx([exact.low, exact.high], abs=1e-12)
    assert ends(wilson(k, n)) == pytest.approx([score.low, score.high], abs=1e-12)


def test_a_rate_by_group_counts_groups():
    hits = np.array([1, 0, 0, 1, 0, 0, 0, 0])
    assert ends(grouped_rate(hits, np.arange(8))) == pytest.approx(ends(clopper_pearson(2, 8)))
    asked_four_times = grouped_rate(np.repeat(hits, 4), np.repeat(np.arange(8), 4))
    assert ends(asked_four_times) == pytest.approx(ends(clopper_pearson(2, 8)))
    never = grouped_rate(np.zeros(300), np.arange(300) % 8)
    assert ends(never) == pytest.approx(ends(clopper_pearson(0, 8)))
    with pytest.raises(InputError, match="two lists of one length"):
        grouped_rate([1, 0], [0])


def test_clopper_pearson_never_covers_less():
    n, p = 12, 0.23
    law = stats.binom.pmf(np.arange(n + 1), n, p)
    covered = sum(law[k] for k in range(n + 1) if overlaps(clopper_pearson(k, n), p))
    assert covered >= 0.95


def test_zero_rate_bound_is_the_rate_at_which_zero_has_five_percent():
    for n in (1, 10, 500):
        assert (1 - zero_rate_bound(n)) ** n == pytest.approx(0.05)
    # The rule of three.
    assert zero_rate_bound(1000) == pytest.approx(3 / 1000, rel=0.01)
    # The one-sided bound is the upper end of the two-sided exact interval at 90 %.
    assert zero_rate_bound(30) == pytest.approx(clopper_pearson(0, 30, level=0.9).high)


def test_bca_agrees_with_scipy():
    values = generator("skew").exponential(1.0, 30)
    judge = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(0)
    ).confidence_interval
    found = bootstrap_interval(values, resamples=20_000)
    assert ends(found) == pytest.approx([judge.low, judge.high], abs=0.02)
    assert ends(found) == ends(bootstrap_interval(values, resamples=20_000))


def test_small_bootstrap_is_exact_and_close_to_scipy():
    found = bootstrap_interval(VALUES)
    assert "all resamples" in found.method
    judge = stats.bootstrap(
        (VALUES,), np.mean, n_resamples=50_000, method="BCa", rng=np.random.default_rng(1)
    ).confidence_interval
    assert ends(found) == pytest.approx([judge.low, judge.high], abs=0.003)


def test_percentile_t_by_brute_force():
    import itertools

    values = np.array([1.0, 2.0, 4.0, 8.0])
    ts = []
    for resample in itertools.product(values, repeat=4):
        spread = np.std(resample, ddof=1)
        if spread > 0:
            ts.append((np.mean(resample) - values.mean()) / (spread / 2))
    low, high = np.quantile(ts, [0.05, 0.95])
    error = values.std(ddof=1) / 2
    judge = [values.mean() - high * error, values.mean() - low * error]
    found = bootstrap_interval(values, level=0.9, method="percentile_t")
    assert ends(found) == pytest.approx(judge)


def test_bootstrap_without_spread():
    assert ends(bootstrap_interval([0.1, 0.1, 0.1])) == [0.1, 0.1]


def brute_delong(x, y):
    kernel = (x[:, None] > y[None, :]) + 0.5 * (x[:, None] == y[None, :])
    variance = kernel.mean(1).var(ddof=1) / len(x) + kernel.mean(0).var(ddof=1) / len(y)
    return kernel.mean(), variance


def test_auroc_interval_is_delongs_by_brute_force():
    rng = generator("auroc")
    # Rounded, so that there are ties.
    x, y = rng.normal(1, 1, 40).round(1), rng.normal(0, 1, 30).round(1)
    area, interval = auroc_interval(x, y)
    judge, variance = brute_delong(x, y)
    assert area == pytest.approx(judge)
    logit, half = math.log(judge / (1 - judge)), 1.959963985 * math.sqrt(variance)
    half /= judge * (1 - judge)
    expected = [1 / (1 + math.exp(-(logit - half))), 1 / (1 + math.exp(-(logit + half)))]
    assert ends(interval) == pytest.approx(expected)
    assert interval.over == "rows"
    mirrored, other = auroc_interval(y, x)
    assert mirrored == pytest.approx(1 - area)
    assert [1 - other.high, 1 - other.low] == pytest.approx(ends(interval))


def test_auroc_interval_covers():
    rng = generator("auroc coverage")
    truth = stats.norm.cdf(1.2 / math.sqrt(2))
    x, y = rng.normal(1.2, 1, (600, 40)), rng.normal(0, 1, (600, 40))
    covered = np.mean([overlaps(auroc_interval(a, b)[1], truth) for a, b in zip(x, y, strict=True)])
    assert 0.92 < covered < 0.98


def test_perfect_auroc_keeps_a_width():
    area, interval = auroc_interval(np.arange(10, 20), np.arange(10))
    assert area == 1.0
    assert interval.high == 1.0
    # Newcombe's equation at the lower end: 1 - a = z sqrt(V(a)).
    a, m, n = interval.low, 10, 10
    v = a * (1 - a) * (1 + ((m + n) / 2 - 1) * ((1 - a) / (2 - a) + a / (1 + a))) / (m * n)
    assert 1 - a == pytest.approx(1.959963985 * math.sqrt(v))
    zero, below = auroc_interval(np.arange(10), np.arange(10, 20))
    assert (zero, below.low) == (0.0, 0.0)
    assert below.high == pytest.approx(1 - a)


def test_constant_scores_are_chance_with_a_width():
    area, interval = auroc_interval(np.ones(20), np.ones(20))
    assert area == 0.5
    assert interval.low < 0.4 < 0.6 < interval.high


def brute_obuchowski(scores, labels, groups):
    """Sums over groups, one at a time, as the paper writes them."""
    x, y = scores[labels], scores[~labels]
    kernel = (x[:, None] > y[None, :]) + 0.5 * (x[:, None] == y[None, :])
    area, m, n, names = kernel.mean(), len(x), len(y), sorted(set(groups))
    s10 = s01 = s11 = 0.0
    sizes = []
    for name in names:
        mine, other = (
            kernel.mean(1)[groups[labels] == name],
            kernel.mean(0)[groups[~labels] == name],
        )
        won, lost = mine.sum() - len(mine) * area, other.sum() - len(other) * area
        s10, s01, s11 = s10 + won**2, s01 + lost**2, s11 + won * lost
        sizes.append((len(mine) > 0, len(other) > 0))
    i10, i01 = np.sum(sizes, axis=0)
    s10, s01 = s10 * i10 / ((i10 - 1) * m), s01 * i01 / ((i01 - 1) * n)
    s11 *= len(names) / (len(names) - 1)
    return area, s10 / m + s01 / n + 2 * s11 / (m * n), len(names)


def grouped_rows(rng, groups=25, size=8, shared=1.0):
    """Scores of which a part is each group's own; labels are mixed within groups."""
    names = np.repeat([f"g{i}" for i in range(groups)], size)
    labels = rng.random(groups * size) < 0.5
    own = np.repeat(rng.normal(0, shared, groups), size)
    return labels + own * np.where(labels, 1, -1) + rng.normal(0, 1, groups * size), labels, names


def test_grouped_auroc_interval_is_obuchowskis_by_brute_force():
    scores, labels, groups = grouped_rows(generator("groups"))
    scores, labels[groups == "g3"] = scores.round(1), True  # ties, and a group with one class
    area, interval = grouped_auroc_interval(scores, labels, groups)
    judge, variance, count = brute_obuchowski(scores, labels, groups)
    assert area == pytest.approx(judge)
    half = stats.t.ppf(0.975, count - 1) * math.sqrt(variance) / (judge * (1 - judge))
    logit = math.log(judge / (1 - judge))
    expected = [1 / (1 + math.exp(-(logit - half))), 1 / (1 + math.exp(-(logit + half)))]
    assert ends(interval) == pytest.approx(expected)
    assert interval.over == "groups"


def test_groups_of_one_row_are_delongs():
    scores, labels, _ = grouped_rows(generator("singles"))
    area, interval = grouped_auroc_interval(scores, labels, np.arange(len(scores)))
    same, other = auroc_interval(scores[labels], scores[~labels])
    assert area == pytest.approx(same)
    assert ends(interval) == pytest.approx(ends(other), abs=1e-3)  # t instead of normal


def test_grouped_auroc_interval_covers_where_rows_depend_on_each_other():
    rng, truth = generator("grouped coverage"), stats.norm.cdf(1 / 2)
    by_group, by_row = [], []
    for _ in range(400):
        scores, labels, groups = grouped_rows(rng)
        by_group.append(overlaps(grouped_auroc_interval(scores, labels, groups)[1], truth))
        by_row.append(overlaps(auroc_interval(scores[labels], scores[~labels])[1], truth))
    assert 0.92 < np.mean(by_group) < 0.98
    assert np.mean(by_row) < 0.85  # what it is there for


def test_perfect_grouped_auroc_counts_groups():
    labels, groups = np.tile([True, False], 40), np.repeat(np.arange(8), 10)
    area, interval = grouped_auroc_interval(labels.astype(float), labels, groups)
    assert (area, interval.high, interval.over) == (1.0, 1.0, "groups")
    assert interval.low == pytest.approx(auroc_interval(np.arange(8) + 8, np.arange(8))[1].low)


def test_too_few_groups_and_odd_lengths_are_refused():
    labels = np.array([True, False, True, False])
    with pytest.raises(InputError, match="two groups"):
        grouped_auroc_interval(np.arange(4), labels, ["a", "a", "a", "b"])
    with pytest.raises(InputError, match="one of each"):
        grouped_auroc_interval(np.arange(4), labels, ["a", "b"])


def test_numbers_are_shown_with_decimals_that_fit():
    assert shown(0.93, Interval(0.90, 0.96)) == "0.93 [0.90, 0.96]"
    assert shown(0.93123, Interval(0.9301, 0.9323)) == "0.931 [0.930, 0.932]"
    assert shown(412.3, Interval(250.0, 601.0), "steps") == "412 [250, 601] steps"
    assert shown(-0.0001, Interval(-0.05, 0.05)) == "0.00 [-0.05, 0.05]"
    assert shown(0.0) == "0.00"
