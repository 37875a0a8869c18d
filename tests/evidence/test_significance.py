import itertools

import numpy as np
import pytest
from scipy import stats

from terrarium.errors import InputError
from terrarium.evidence.intervals import mean_interval, overlaps
from terrarium.evidence.significance import (
    equivalence_test,
    holm,
    holm_alphas,
    sign_flip_test,
    sign_test,
    t_test,
)
from terrarium.randomness import generator

VALUES = np.array([0.11, -0.02, 0.31, 0.17, 0.25])
SIDES = ["two-sided", "greater", "less"]


@pytest.mark.parametrize("side", SIDES)
def test_t_test_is_scipys(side):
    judge = stats.ttest_1samp(VALUES, 0.05, alternative=side).pvalue
    assert t_test(VALUES, 0.05, alternative=side) == pytest.approx(judge)


def test_t_test_without_spread_decides_for_certain():
    assert t_test([0.0] * 5, 0.5) == 0.0
    assert t_test([0.5] * 5, 0.5) == 1.0
    assert t_test([0.0] * 5, 0.5, alternative="greater") == 1.0
    assert t_test([0.1] * 3, 0.0, alternative="greater") == 0.0


def test_t_test_and_interval_agree():
    for null in np.linspace(-0.2, 0.5, 29):
        assert (t_test(VALUES, null) > 0.05) == overlaps(mean_interval(VALUES), null)


@pytest.mark.parametrize("side", SIDES)
def test_sign_flips_agree_with_scipy_and_brute_force(side):
    judge = stats.permutation_test(
        (VALUES,), np.mean, permutation_type="samples", alternative=side, n_resamples=np.inf
    ).pvalue
    assert sign_flip_test(VALUES, alternative=side) == pytest.approx(judge)
    means = [np.mean(np.array(s) * VALUES) for s in itertools.product([1, -1], repeat=5)]
    greater = np.mean([m >= VALUES.mean() - 1e-12 for m in means])
    assert sign_flip_test(VALUES, alternative="greater") == greater


def test_sign_flips_have_a_floor_and_know_zeros():
    assert sign_flip_test([1.0, 2.0, 3.0, 4.0, 5.0], alternative="greater") == 1 / 32
    assert sign_flip_test([0.0, 0.0]) == 1.0
    assert sign_flip_test([1.0, 2.0, 0.0], alternative="greater") == 1 / 4
    # Equal differences: rounding in the sums must not lose the observed pattern.
    assert sign_flip_test([0.1] * 10) == 2 / 1024


def test_many_sign_flips_are_drawn_and_repeatable():
    values = generator("flips").normal(0.35, 1, 40)
    found = sign_flip_test(values)
    assert found == sign_flip_test(values)
    assert found == pytest.approx(stats.ttest_1samp(values, 0).pvalue, abs=0.01)
    assert sign_flip_test(np.ones(40), alternative="greater") >= 1 / 20_001


@pytest.mark.parametrize("side", SIDES)
def test_sign_test_is_the_binomial_test(side):
    judge = stats.binomtest(4, 5, alternative=side).pvalue
    assert sign_test([*VALUES, 0.0], alternative=side) == pytest.approx(judge)
    assert sign_test([0.0], alternative=side) == 1.0


def test_unknown_side_is_refused():
    with pytest.raises(InputError, match="alternative"):
        t_test(VALUES, alternative="both")


def test_tost_is_two_t_tests_and_its_interval():
    values = VALUES / 10
    found = equivalence_test(values, -0.05, 0.05)
    judges = [
        stats.ttest_1samp(values, -0.05, alternative="greater").pvalue,
        stats.ttest_1samp(values, 0.05, alternative="less").pvalue,
    ]
    assert found.p == pytest.approx(max(judges))
    assert found.interval.level == pytest.approx(0.9)
    assert found.equivalent
    for margin in np.linspace(0.001, 0.06, 30):
        inside = -margin < found.interval.low and found.interval.high < margin
        assert equivalence_test(values, -margin, margin).equivalent == inside
    with pytest.raises(InputError, match="order"):
        equivalence_test(values, 0.1, -0.1)


def test_tost_errs_at_most_as_often_as_it_says():
    draws = generator("tost").normal(0.3, 0.2, (2000, 5))
    # The truth lies on the margin: "equivalent" is wrong, at most one time in twenty.
    wrong = np.mean([equivalence_test(row, -0.3, 0.3).equivalent for row in draws])
    assert wrong < 0.065


def brute_holm(p, alpha):
    """The step-down procedure as Holm wrote it."""
    rejected = [False] * len(p)
    for step, index in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        if p[index] > alpha / (len(p) - step):
            break
        rejected[index] = True
    return rejected


def test_holm_is_the_step_down_procedure():
    rng = generator("holm")
    for _ in range(200):
        p = rng.uniform(0, 1, rng.integers(1, 9)) ** rng.integers(1, 5)
        for alpha in (0.01, 0.05, 0.3):
            assert (holm(p) <= alpha).tolist() == brute_holm(p.tolist(), alpha)


def test_holm_is_the_closed_bonferroni_test():
    p = np.array([0.01, 0.04, 0.03, 0.005])
    subsets = [s for r in range(1, 5) for s in itertools.combinations(range(4), r)]
    # A hypothesis' adjusted p is the largest Bonferroni p over all intersections that hold it.
    judge = [max(min(1, len(s) * p[list(s)].min()) for s in subsets if i in s) for i in range(4)]
    assert holm(p) == pytest.approx(judge)
    assert holm(p) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_alphas_make_intervals_that_agree_with_the_rejections():
    rng = generator("holm intervals")
    for _ in range(100):
        draws = rng.normal(0.4, 0.5, (6, 5))
        p = [t_test(row) for row in draws]
        rejected = holm(p) <= 0.05
        for row, alpha, out in zip(draws, holm_alphas(p), rejected, strict=True):
            assert overlaps(mean_interval(row, level=1 - alpha), 0.0) != out


def test_holm_edges():
    assert holm([]).tolist() == []
    assert holm([0.9, 0.8]).tolist() == [1.0, 1.0]
    for bad in ([1.2], [-0.1], [float("nan")]):
        with pytest.raises(InputError, match="Holm"):
            holm(bad)
