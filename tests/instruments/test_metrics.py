"""Metrics against scikit-learn, scipy and brute-force counting."""

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from terrarium.errors import InputError
from terrarium.instruments.metrics import (
    auroc,
    balanced_accuracy,
    brier,
    earliest_informative_layer,
    log_loss,
    optional,
    performance_gap_recovered,
    recall_at_fpr,
)


def rng(seed=0):
    return np.random.default_rng(seed)


def pairs_won(scores, labels):
    wins = [(a > b) + 0.5 * (a == b) for a in scores[labels] for b in scores[~labels]]
    return np.mean(wins)


@pytest.mark.parametrize("levels", [3, 10**9], ids=["ties", "no ties"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_auroc_counts_pairs(levels, dtype):
    scores = rng().integers(0, levels, (2, 3, 40)).astype(dtype)
    labels = rng(1).random((2, 3, 40)) < 0.3
    found = auroc(scores, labels)
    assert found.shape == (2, 3)
    for index in np.ndindex(2, 3):
        assert found[index] == pytest.approx(pairs_won(scores[index], labels[index]), abs=1e-12)
        judge = sklearn.metrics.roc_auc_score(labels[index], scores[index])
        assert found[index] == pytest.approx(judge, abs=1e-12)
        u = scipy.stats.mannwhitneyu(scores[index][labels[index]], scores[index][~labels[index]])
        n1 = labels[index].sum()
        assert found[index] == pytest.approx(u.statistic / (n1 * (40 - n1)), abs=1e-12)


def test_labels_broadcast_and_integers_do():
    scores, labels = rng().standard_normal((4, 30)), rng(1).integers(0, 2, 30)
    found = auroc(scores, labels)
    assert np.allclose(found, [sklearn.metrics.roc_auc_score(labels, s) for s in scores])
    assert optional(auroc(-scores[0], labels)) == pytest.approx(1 - found[0])


def test_infinite_scores_rank_and_nan_is_refused():
    assert optional(auroc([-np.inf, 0.0, np.inf], [0, 0, 1])) == 1.0
    with pytest.raises(InputError, match="NaN"):
        auroc([np.nan, 1.0], [0, 1])


@pytest.mark.parametrize("metric", [auroc, recall_at_fpr, balanced_accuracy])
def test_a_missing_class_is_masked_not_a_number(metric):
    labels = np.array([[1, 1, 1], [0, 1, 0], [0, 0, 0]])
    found = metric(np.array([0.1, 0.2, 0.3]), labels)
    assert found.mask.tolist() == [True, False, True]
    assert optional(found[0]) is None
    assert isinstance(optional(found[1]), float)
    assert np.isnan(found.data[[0, 2]]).all()  # what lies under the mask cannot pass for a number


def brute_recall(scores, labels, fpr):
    """The best recall over thresholds (flag strictly above) with an allowed false-positive rate."""
    best = 0.0
    for threshold in [*np.unique(scores[~labels])]:
        if (scores[~labels] > threshold).mean() <= fpr + 1e-12:
            best = max(best, (scores[labels] > threshold).mean())
    return best


@pytest.mark.parametrize("fpr", [0.0, 0.01, 0.05, 0.1, 0.29, 0.5, 0.99])
@pytest.mark.parametrize("levels", [4, 10**9], ids=["ties", "no ties"])
def test_recall_at_fpr_against_all_thresholds(fpr, levels):
    scores = rng(2).integers(0, levels, (5, 100)).astype(float)
    labels = rng(3).random((5, 100)) < 0.4
    scores += labels * levels / 4
    found = recall_at_fpr(scores, labels, fpr)
    assert np.allclose(
        found, [brute_recall(s, y, fpr) for s, y in zip(scores, labels, strict=True)]
    )


def test_recall_allows_exactly_the_share_asked_for():
    scores, labels = np.arange(200.0), np.arange(200) >= 100
    mixed = np.where(np.arange(200) == 99, 500.0, scores)  # one false row above all true ones
    assert optional(recall_at_fpr(mixed, labels, 0.01)) == 1.0
    assert optional(recall_at_fpr(mixed, labels, 0.009)) == 0.0
    with pytest.raises(InputError, match="fpr"):
        recall_at_fpr(scores, labels, 1.0)


def test_accuracy_brier_and_log_loss_against_scikit_learn():
    p, labels = rng(4).random((3, 50)), rng(5).random((3, 50)) < 0.2
    for k in range(3):
        said = p[k] > 0.5
        judge = sklearn.metrics.balanced_accuracy_score(labels[k], said)
        assert balanced_accuracy(p, labels, 0.5)[k] == pytest.approx(judge)
        assert balanced_accuracy(said, labels[k]) == pytest.approx(judge)
        assert brier(p, labels)[k] == pytest.approx(
            sklearn.metrics.brier_score_loss(labels[k], p[k])
        )
        assert log_loss(p, labels)[k] == pytest.approx(sklearn.metrics.log_loss(labels[k], p[k]))


def test_an_infinite_log_loss_is_undefined():
    found = log_loss([[0.0, 1.0], [0.5, 0.5]], [1, 1])
    assert optional(found[0]) is None
    assert optional(found[1]) == pytest.approx(np.log(2))
    with pytest.raises(InputError, match="between 0 and 1"):
        brier([1.5], [1])


def test_performance_gap_recovered():
    found = performance_gap_recovered([0.9, 0.5, 1.1, 0.7], [0.5, 0.5, 0.5, 0.8], [1, 1, 1, 0.8])
    assert found[:3].tolist() == pytest.approx([0.8, 0.0, 1.2])
    assert optional(found[3]) is None  # no gap to recover
    assert optional(performance_gap_recovered(0.9, 0.8, 0.7)) is None
    undefined = np.ma.masked_array([0.9], [True])
    assert optional(performance_gap_recovered(undefined, 0.5, 1.0)) is None
    assert optional(performance_gap_recovered(np.nan, 0.5, 1.0)) is None
    assert optional(performance_gap_recovered(0.75, 0.5, 1.0)) == 0.5


def test_earliest_informative_layer():
    table = np.array([[0.5, 0.88, 0.976, 1.0], [0.4, 0.5, 0.45, 0.3], [0.9, 0.5, 0.9, 0.9]])
    found = earliest_informative_layer(table)
    assert found[0] == 2  # 0.976 - 0.5 >= 0.95 * 0.5 = 0.475 > 0.88 - 0.5
    assert optional(found[1]) is None
    assert found[2] == 0
    assert earliest_informative_layer(table.T, axis=0).tolist() == found.tolist()
    assert earliest_informative_layer([0.5, 0.9, 0.975, 1.0]) == 2  # exactly at the share
    assert earliest_informative_layer([0.5, 0.9, 1.0], share=0.5) == 1
    assert optional(earliest_informative_layer([0.5, 0.505])) is None
    assert optional(earliest_informative_layer([0.5, 0.505], tolerance=0)) == 1
    masked = np.ma.masked_array([0.99, 0.6, 0.9], [True, False, False])
    assert earliest_informative_layer(masked) == 2


def test_shapes_are_asserted():
    with pytest.raises(InputError, match="last axes"):
        auroc(np.zeros(3), np.zeros(4))
    with pytest.raises(InputError, match="leading axes"):
        auroc(np.zeros((2, 3)), np.zeros((3, 3)))
    with pytest.raises(InputError, match="no rows"):
        auroc(np.zeros((2, 0)), np.zeros((2, 0)))
    with pytest.raises(InputError, match="true or false"):
        auroc(np.zeros(2), np.array([1, 2]))
    with pytest.raises(InputError, match="one metric value"):
        optional(np.ma.masked_array([1.0, 2.0]))
