"""Two-sample tests: planted shifts are found, none where none is; scikit-learn and scipy judge."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression as Judge

from terrarium.errors import InputError
from terrarium.instruments.two_sample import TwoSampleTest, counts, frequent_runs
from terrarium.randomness import generator


def texts(n, seed, shift=0.0, kinds=20, length=6):
    """Sequences of tokens of which each is token 0 with probability ``shift``, else even."""
    rng = generator("texts", seed)
    rows = rng.integers(1, kinds, (n, length))
    return np.where(rng.random((n, length)) < shift, 0, rows).tolist()


def test_a_planted_shift_is_found_and_named():
    found = TwoSampleTest().compare(texts(200, 0), texts(300, 1, shift=0.3))
    assert found.n == 200
    assert found.accuracy > 0.75
    assert found.p < 1e-6
    gram, weight = found.telling[0]
    assert gram == (0,)
    assert weight > 0, "what speaks for the second set is positive"


def test_equal_laws_are_not_told_apart():
    p = [TwoSampleTest().compare(texts(100, 2 * s), texts(100, 2 * s + 1)).p for s in range(40)]
    assert stats.kstest(p, "uniform").pvalue > 1e-3
    assert np.mean(np.array(p) < 0.05) < 0.2


def test_the_binomial_law_is_scipys():
    found = TwoSampleTest().compare(texts(60, 0), texts(60, 1, shift=0.05))
    judge = stats.binomtest(found.right, 2 * found.n, 0.5, alternative="greater")
    assert found.p == pytest.approx(judge.pvalue)
    assert found.accuracy == found.right / 120


def test_shuffled_labels_agree_with_the_binomial_law():
    first, second = texts(80, 3), texts(80, 4, shift=0.15)
    plain = TwoSampleTest().compare(first, second)
    shuffled = TwoSampleTest(permutations=99).compare(first, second)
    assert shuffled.accuracy == plain.accuracy
    assert shuffled.p == pytest.approx(0.01)
    assert TwoSampleTest(permutations=99).compare(first, texts(80, 9)).p > 0.05


def test_counts_and_fits_are_scikit_learns():
    first, second = texts(120, 5), texts(120, 6, shift=0.2)
    rows = first + second
    runs = frequent_runs(rows, 2, 10_000)
    words = [" ".join(f"t{token}" for token in row) for row in rows]
    vectors = CountVectorizer(ngram_range=(1, 2), token_pattern=r"\S+")
    theirs = vectors.fit_transform(words).toarray()
    columns = [vectors.vocabulary_[" ".join(f"t{token}" for token in run)] for run in runs]
    ours = counts(rows, runs)
    assert len(runs) == theirs.shape[1]
    assert (ours == theirs[:, columns]).all()
    found = TwoSampleTest(features=len(runs)).compare(first, second)
    y = np.repeat([0, 1], 120)
    judge = Judge(C=1.0, tol=1e-10, max_iter=1000).fit(ours, y)
    telling = {runs.index(gram): weight for gram, weight in found.telling}
    for column, weight in telling.items():
        assert weight == pytest.approx(judge.coef_[0][column], abs=2e-4)


def test_what_comes_twice_is_not_learnt_by_heart():
    # 40 prompts, each several times, in one set each: only grouping keeps them from being known
    rng = generator("repeats")
    once = [[100 + i] for i in range(80)]
    first = [once[i] for i in rng.integers(0, 40, 200)]
    second = [once[i] for i in rng.integers(40, 80, 200)]
    grouped = TwoSampleTest().compare(first, second)
    assert grouped.accuracy < 0.6
    loose = (list(range(200)), list(range(200, 400)))
    assert TwoSampleTest().compare(first, second, loose).accuracy > 0.9


def test_the_same_rows_in_both_sets_are_even():
    rows = texts(150, 7)
    found = TwoSampleTest().compare(rows, rows)
    assert found.accuracy == pytest.approx(0.5)
    assert found.p > 0.4


def test_what_decides_the_draws_is_the_key():
    first, second = texts(90, 0), texts(150, 1, shift=0.1)
    one = TwoSampleTest().compare(first, second, key=("a", 1))
    assert one == TwoSampleTest().compare(first, second, key=("a", 1))
    assert one != TwoSampleTest().compare(first, second, key=("a", 2))


def test_bad_input_is_refused():
    with pytest.raises(InputError, match="smaller set has 3 rows"):
        TwoSampleTest().compare(texts(3, 0), texts(50, 1))
    with pytest.raises(InputError, match="folds expects at least 2"):
        TwoSampleTest(folds=1)
