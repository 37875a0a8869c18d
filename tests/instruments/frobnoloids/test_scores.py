"""p-values, false discoveries and jackknife errors against simulation, brute force and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import false_discovery_control

from terrarium.errors import InputError
from terrarium.instruments.frobnoloids.arrays import folds_of, phase_scrambled, shuffled
from terrarium.instruments.frobnoloids.ranking import grouped_auroc
from terrarium.instruments.frobnoloids.scores import (
    GroupedR2,
    Score,
    benjamini_hochberg,
    by_group,
    pooled_p,
)

RNG = np.random.default_rng(0)


def test_benjamini_hochberg_is_scipys():
    p = RNG.uniform(size=50) ** 3
    assert np.allclose(benjamini_hochberg(p), false_discovery_control(p))
    with pytest.raises(InputError):
        benjamini_hochberg([0.2, np.nan])


def test_ties_up_to_rounding_are_no_evidence():
    rounding = 1e-15 * RNG.normal(size=(11, 60))
    for share in (False, True):
        whole = Score(1 + rounding[0], np.zeros(60), 5, 1 + rounding[1:], share=share)
        assert whole.p.min() == 1.0


@pytest.mark.parametrize("draws", [4, 8, 30])
def test_pooled_p_is_uniform_under_the_null(draws):
    # features of different places and spreads
    scale, place = np.exp(RNG.normal(size=400)), RNG.normal(size=400)
    ps = []
    for _ in range(20):
        all_draws = place + scale * RNG.normal(size=(draws + 1, 400))
        ps.append(pooled_p(all_draws[0], all_draws[1:]))
    p = np.concatenate(ps)
    for level in (0.01, 0.05, 0.2):
        assert np.mean(p <= level) <= level * 1.15 + 0.002
        assert np.mean(p <= level) >= level * 0.7 - 0.002


def test_pooled_p_sees_what_is_there_and_leaves_out_what_is_constant():
    null = RNG.normal(size=(8, 100))
    value = np.r_[np.full(10, 12.0), RNG.normal(size=89), np.nan]
    p = pooled_p(value, null)
    assert p[:10].max() < 0.005
    assert p[-1] == 1.0
    with pytest.raises(InputError):
        pooled_p(value, null[:3])


def test_a_dead_feature_takes_nothing_from_the_others():
    null = RNG.normal(size=(8, 3))
    alone = Score(np.ones(2), np.ones(2), 9, null[:, :2]).deviations
    null[:, 2] = np.nan
    beside = Score(np.array([1.0, 1.0, np.nan]), np.ones(3), 9, null).deviations
    assert np.allclose(beside[:2], alone)
    assert np.isnan(beside[2])


def test_interval_and_p_below_are_students():
    score = Score(np.array([0.5]), np.array([0.1]), 9, np.zeros((4, 1)))
    assert np.allclose([score.low[0], score.high[0]], 0.5 + 0.1 * np.array([-2.262157, 2.262157]))
    assert np.isclose(score.p_below(0.5)[0], 0.5)
    assert np.isclose(score.p_below(0.5 + 0.2262157)[0], 0.025, atol=1e-6)


def test_jackknife_equals_leaving_groups_out():
    errors, totals = RNG.uniform(size=(7, 3)), 1 + RNG.uniform(size=(7, 3))
    found = GroupedR2(errors, totals)
    left = np.array(
        [1 - np.delete(errors, g, 0).sum(0) / np.delete(totals, g, 0).sum(0) for g in range(7)]
    )
    assert np.allclose(found.error, np.sqrt(6 / 7 * ((left - left.mean(0)) ** 2).sum(0)))


def test_auroc_is_all_pairs_and_its_error_covers_dependence_within_groups():
    scores = RNG.integers(0, 6, (60, 2)).astype(float)
    positive = RNG.random((60, 2)) < 0.4
    groups = np.repeat(np.arange(12), 5)
    area, error = grouped_auroc(scores, positive, groups)
    for j in range(2):
        high, low = scores[positive[:, j], j], scores[~positive[:, j], j]
        pairs = (high[:, None] > low).mean() + (high[:, None] == low).mean() / 2
        assert np.isclose(area[j], pairs)
    # the same rows five times over are five times as many rows, and no more groups
    twice, same = grouped_auroc(
        np.repeat(scores, 5, 0), np.repeat(positive, 5, 0), np.repeat(groups, 5)
    )
    assert np.allclose(twice, area)
    assert np.allclose(same, error)


def test_group_sums():
    groups = np.array([2, 0, 2, 1, 0])
    assert np.allclose(by_group(np.eye(5), groups, 3).sum(0), 1)
    assert np.allclose(by_group(np.arange(5.0)[:, None], groups, 4)[:, 0], [5, 3, 2, 0])


def test_scrambled_maps_keep_spectrum_and_mean_and_lose_phases():
    maps = np.zeros((5, 16, 12, 2))
    maps[:, 4:9, 3:7] = 1.0 + RNG.uniform(size=(5, 1, 1, 2))
    fake = phase_scrambled(maps, RNG)
    old, new = (np.abs(np.fft.fft2(m, axes=(1, 2))) for m in (maps, fake))
    assert np.allclose(old, new, atol=1e-9)
    assert np.allclose(maps.mean((1, 2)), fake.mean((1, 2)))
    assert np.abs(np.corrcoef(maps[..., 0].ravel(), fake[..., 0].ravel())[0, 1]) < 0.5


def test_shuffling_moves_whole_groups_and_folds_keep_them_together():
    groups = np.array([0, 1, 1, 2, 0, 3, 3, 3])
    new = shuffled(np.arange(8.0)[:, None], groups, RNG)
    assert sorted(new[:, 0]) == list(range(8))
    in_order = new[np.argsort(groups, kind="stable"), 0].astype(int)
    runs = groups[in_order]
    assert (runs[1:] != runs[:-1]).sum() == 3  # every group still in one piece
    fold = folds_of(groups, 3, RNG)
    assert all(len(set(fold[groups == g])) == 1 for g in range(4))
