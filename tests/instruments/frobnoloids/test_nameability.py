"""Names: what they explain is found, and nothing is explained by pixels of the same image."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict

from terrarium.errors import InputError
from terrarium.instruments.frobnoloids.basis import design
from terrarium.instruments.frobnoloids.nameability import nameability
from terrarium.instruments.frobnoloids.pursuit import Columns, Moments, pursue

RNG = np.random.default_rng(1)
N = 400
GROUPS = np.repeat(np.arange(20), 20)
CONCEPTS = {f"c{i}": RNG.normal(size=N) for i in range(8)}


def test_one_linear_concept_is_scikit_learns_held_out_r2():
    y = CONCEPTS["c3"] * 2 + RNG.normal(size=N)
    found = nameability(y[:, None], {"c3": CONCEPTS["c3"]}, GROUPS, knots=0, folds=20, penalty=1e-9)
    x = CONCEPTS["c3"][:, None]
    folds = LeaveOneGroupOut()
    guess = cross_val_predict(LinearRegression(), x, y, groups=GROUPS, cv=folds)
    mean = cross_val_predict(LinearRegression(), 0 * x, y, groups=GROUPS, cv=folds)
    expected = 1 - ((y - guess) ** 2).sum() / ((y - mean) ** 2).sum()
    assert np.isclose(found.single[0], expected, atol=1e-6)


def test_pursuit_takes_what_brute_force_takes():
    table = design({name: c + 0.3 * CONCEPTS["c0"] for name, c in CONCEPTS.items()}, 2)
    y = RNG.normal(size=(N, 5)) + table.x[:, RNG.integers(0, table.x.shape[1], 5)]
    moments = Moments.of(table.x, y)
    fits = pursue(Columns.of(moments, table.block, 1e-9), moments, 3)
    for j in range(5):
        chosen: list[int] = []
        for step in range(3):
            own = [np.flatnonzero(table.block == b) for b in chosen]
            base = table.x[:, np.concatenate(own)] if own else np.empty((N, 0))
            rest = y[:, j] - LinearRegression().fit(np.c_[base, np.ones(N)], y[:, j]).predict(
                np.c_[base, np.ones(N)]
            )
            gains = []
            for b in range(8):
                x = table.x[:, table.block == b]
                fitted = LinearRegression().fit(x, rest).predict(x)
                penalty = x.shape[1] * (rest @ rest) / (N - 1)
                gains.append(-np.inf if b in chosen else (fitted - fitted.mean()) @ rest - penalty)
            if max(gains) <= 0:
                break
            chosen.append(int(np.argmax(gains)))
            assert fits.blocks[step, j] == chosen[-1]
        columns = table.x[:, np.isin(table.block, chosen)]
        judge = LinearRegression().fit(columns, y[:, j]).predict(columns)
        ours = table.x @ fits.weights[len(chosen) - 1][:, j] + fits.offset[len(chosen) - 1][j]
        assert np.allclose(ours, judge, atol=1e-5)


def test_smooth_functions_categories_and_sums_are_named():
    kind = RNG.integers(0, 4, N)
    concepts = {**CONCEPTS, "kind": kind}
    features = np.stack(
        [
            np.maximum(CONCEPTS["c1"], 0),
            CONCEPTS["c2"] - 2 * CONCEPTS["c5"] + CONCEPTS["c7"] ** 2,
            np.array([0.0, 2.0, -1.0, 5.0])[kind],
            RNG.normal(size=N),
            np.zeros(N),
        ],
        1,
    )
    found = nameability(features, concepts, GROUPS, knots=6)
    assert found.score.value[:3].min() > 0.9
    assert found.concept[0] == "c1"
    assert set(found.combination[1]) == {"c2", "c5", "c7"}
    assert found.concept[2] == "kind"
    assert found.single[1] < 0.75
    assert found.score.value[3] < 0.1
    assert np.isnan(found.score.value[4])
    assert found.score.p[:3].max() < 0.05 < found.score.p[3]
    assert found.score.p[4] == 1.0


def test_auroc_of_where_a_feature_is_active():
    features = np.stack([np.maximum(CONCEPTS["c1"] - 0.5, 0), np.maximum(RNG.normal(size=N), 0)], 1)
    found = nameability(features, CONCEPTS, GROUPS, metric="auroc")
    assert found.score.value[0] > 0.99
    assert 0.3 < found.score.value[1] < 0.65
    assert found.score.p[0] < 0.05 < found.score.p[1]


def test_maps_are_judged_by_image_never_by_pixel():
    # a concept and a feature that are one unrelated number in each image: by pixel, a fit of the
    # twelve images' numbers would explain everything
    level, other = RNG.normal(size=(2, 12))
    flat = np.ones((12, 10, 10))
    ramp = np.broadcast_to(np.linspace(0, 1, 10), (12, 10, 10))
    concept = np.rint(level[:, None, None] * 1e6).astype(np.int64) * flat.astype(np.int64)
    features = np.stack(
        [other[:, None, None] * flat, ramp + 0.01 * RNG.normal(size=flat.shape)], -1
    )
    found = nameability(features, {"image": concept, "x": ramp}, permutations=12)
    assert found.score.value[0] < 0.2
    assert found.score.value[1] > 0.95
    # rolled, even a place loses its name in the null
    assert found.score.null[:, 1].min() < 0.8


def test_nulls_are_uniform_for_features_that_depend_within_groups():
    features = np.repeat(RNG.normal(size=(20, 200)), 20, 0) + RNG.normal(size=(N, 200))
    concepts = {f"c{i}": np.repeat(RNG.normal(size=20), 20) for i in range(4)}
    p = nameability(features, concepts, GROUPS, permutations=10).score.p
    assert np.mean(p < 0.05) < 0.11
    assert np.mean(p < 0.5) > 0.3


def test_rows_beyond_the_cap_change_little_and_order_of_features_nothing():
    features = np.stack([CONCEPTS["c1"], CONCEPTS["c2"] + RNG.normal(size=N)], 1)
    whole = nameability(features, CONCEPTS, GROUPS)
    fewer = nameability(features, CONCEPTS, GROUPS, points=200)
    turned = nameability(features[:, ::-1], CONCEPTS, GROUPS)
    assert np.allclose(whole.score.value, fewer.score.value, atol=0.25)
    assert np.allclose(whole.score.value, turned.score.value[::-1])


def test_bad_input_is_one_sentence():
    y = CONCEPTS["c1"][:, None]
    with pytest.raises(InputError, match="shape"):
        nameability(y, {"c": np.zeros(3)}, GROUPS)
    with pytest.raises(InputError, match="NaN"):
        nameability(y, {"c": np.full(N, np.nan)}, GROUPS)
    with pytest.raises(InputError, match="no concept that varies"):
        nameability(y, {"c": np.zeros(N)}, GROUPS)
    with pytest.raises(InputError, match="groups"):
        nameability(y, CONCEPTS, np.zeros(N))
    with pytest.raises(InputError, match="neither"):
        nameability(y[:, 0], CONCEPTS, GROUPS)
    with pytest.raises(InputError, match="metric"):
        nameability(y, CONCEPTS, GROUPS, metric="f1")  # type: ignore[arg-type]


def test_blocks_are_made_orthonormal_as_the_dense_product_does():
    x = np.random.default_rng(0).normal(size=(60, 12))
    block = np.repeat([0, 1, 2, 3], [3, 1, 5, 3])
    moments = Moments.of(x, x[:, :1])
    columns = Columns.of(moments, block, 1e-3)
    centred = x - x.mean(0)
    dense = columns.white.T @ centred.T @ centred @ columns.white
    assert np.allclose(columns.gram, dense, atol=1e-9)
    for one in range(4):
        own = np.flatnonzero(block == one)
        assert np.allclose(columns.gram[np.ix_(own, own)], np.eye(len(own)), atol=2e-2)
