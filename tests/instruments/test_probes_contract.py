"""Every built-in probe passes the public suite, and the suite catches broken probes."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from terrarium.errors import InputError
from terrarium.instruments.base import ContrastPairs, FittedLinearProbe, FittedProbe, Probe, probes
from terrarium.instruments.check_probe import CHECKS, check_probe, planted
from terrarium.instruments.metrics import auroc
from terrarium.instruments.probes.lda import LDA
from terrarium.instruments.probes.linear import LinearProbe
from terrarium.instruments.probes.logistic import LogisticRegression
from terrarium.instruments.probes.means import DifferenceInMeans
from terrarium.instruments.probes.random import RandomDirections
from terrarium.instruments.sklearn_adapter import ProbeClassifier

VARIANTS = [
    LogisticRegression(standardize="feature"),
    LogisticRegression(standardize="none", C=0.01),
    LDA(shrinkage=0.1),
    LDA(shrinkage="oas"),
    RandomDirections(k=200, covariance_matched=False),
    probes.get("contrast_logistic_regression")(features="difference"),
    probes.get("contrast_difference_in_means")(features="difference"),
    probes.get("vinc")(supervision=1.0),
]


@pytest.mark.parametrize("name", [n for n in probes.names() if "." not in n])
def test_built_in_probes_pass(name):
    probe = probes.get(name)()
    assert isinstance(probe, Probe)
    assert len(check_probe(probe)) == len(CHECKS)


@pytest.mark.parametrize("probe", VARIANTS, ids=repr)
def test_variants_pass(probe):
    check_probe(probe)


def test_fitted_probes_follow_the_contract():
    data = planted(False)
    for probe in (LogisticRegression(), DifferenceInMeans(), LDA(), RandomDirections(k=20)):
        fitted = probe.fit(data.x, data.y)
        assert isinstance(fitted, FittedProbe)
        assert isinstance(fitted, FittedLinearProbe)
        assert np.allclose(fitted.score(data.x), data.x @ fitted.direction + fitted.bias)


# --- broken probes ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sound:
    """A probe by a third party, correct; the broken ones differ from it in one thing each."""

    supervised = True

    def fit(self, x, y=None):
        return DifferenceInMeans().fit(x, y)


class Rolls(Sound):  # not deterministic
    def fit(self, x, y=None):
        return replace(super().fit(x, y), bias=np.random.default_rng().random(np.shape(x)[:-2]))


class MixesProblems(Sound):  # one direction for all leading axes
    def fit(self, x, y=None):
        fitted = super().fit(x, y)
        return (
            replace(fitted, direction=fitted.direction + fitted.direction.mean((0, 1)))
            if (fitted.direction.ndim == 3)
            else fitted
        )


class ReadsOrder(Sound):  # weighs later rows more
    def fit(self, x, y=None):
        weights = np.linspace(0, 2, np.shape(x)[-2])[:, None]
        return super().fit(np.asarray(x) * weights, y)


class Transductive(Sound):  # centres whatever it is given to score
    def fit(self, x, y=None):
        fitted = super().fit(x, y)

        @dataclass(frozen=True)
        class Centres:
            inner: LinearProbe

            def score(self, rows):
                scores = self.inner.score(rows)
                return scores - scores.mean(-1, keepdims=True)

        return Centres(fitted)


class Backwards(Sound):  # wrong sign
    def fit(self, x, y=None):
        fitted = super().fit(x, y)
        return replace(fitted, direction=-fitted.direction)


class Blind(Sound):  # reads the first channel only
    def fit(self, x, y=None):
        fitted = super().fit(x, y)
        return replace(fitted, direction=fitted.direction * (np.arange(np.shape(x)[-1]) == 0))


class Promises(Sound):  # says that rotations change nothing, and standardises channels
    rotation_equivariant = True

    def fit(self, x, y=None):
        return LogisticRegression(C=0.001, standardize="feature").fit(x, y)


class Swallows(Sound):  # turns NaN into 0
    def fit(self, x, y=None):
        return super().fit(np.nan_to_num(x, posinf=0, neginf=0), y)


class AcceptsOneClass(Sound):
    def fit(self, x, y=None):
        if y is not None and np.all(y):
            y = np.arange(np.shape(x)[-2]) % 2 == 0
        return super().fit(x, y)


class Rounds(Sound):  # rounds the rows in place
    def fit(self, x, y=None):
        if isinstance(x, np.ndarray):
            np.round(x, 6, out=x)
        return super().fit(x, y)


class Thawed(Sound):  # a fitted object that anybody can change
    def fit(self, x, y=None):
        inner = super().fit(x, y)

        class Fitted:
            def __init__(self):
                self.inner = inner

            def score(self, rows):
                return self.inner.score(rows)

        return Fitted()


class KeepsTheRows(Sound):  # nearest class mean, computed when scoring
    def fit(self, x, y=None):
        DifferenceInMeans().fit(x, y)

        @dataclass(frozen=True, eq=False)
        class Lazy:
            def score(self, rows):
                return DifferenceInMeans().fit(x, y).score(rows)

        return Lazy()


class AtChance(Sound):  # direction has nothing to do with the labels
    def fit(self, x, y=None):
        fitted = super().fit(x, y)
        return replace(fitted, direction=np.ones_like(fitted.direction))


class Memorises(Sound):  # answers a long list of rows with the labels it was fitted on
    def fit(self, x, y=None):
        inner, answers = super().fit(x, y), np.array(y, float)

        @dataclass(frozen=True)
        class Memory:
            def score(self, rows):
                scores = inner.score(rows)
                return scores + answers if scores.shape == answers.shape == (2000,) else scores

        return Memory()


class HalfPrecision(Sound):
    def fit(self, x, y=None):
        inner = super().fit(x, y)

        @dataclass(frozen=True)
        class Half:
            def score(self, rows):
                return inner.score(rows).astype(np.float16)

        return Half()


def test_a_sound_probe_of_a_third_party_passes():
    check_probe(Sound())


@pytest.mark.parametrize(
    ("broken", "caught_by"),
    [
        (Rolls, "is_deterministic"),
        (MixesProblems, "leading_axes_equal_a_loop"),
        (ReadsOrder, "row_order_does_not_matter"),
        (Transductive, "a_score_depends_on_its_row_alone"),
        (Backwards, "a_planted_direction_is_found"),
        (Blind, "a_planted_direction_is_found"),
        (AtChance, "a_planted_direction_is_found"),
        (Promises, "rotation_changes_nothing_where_promised"),
        (Swallows, "refuses_bad_input"),
        (AcceptsOneClass, "refuses_bad_input"),
        (Rounds, "leaves_its_input_alone"),
        (KeepsTheRows, "leaves_its_input_alone"),
        (Thawed, "the_fitted_probe_is_frozen"),
        (HalfPrecision, "scores"),
        (Memorises, "chance_on_unrelated_labels"),
    ],
)
def test_broken_probes_are_caught(broken, caught_by):
    with pytest.raises(AssertionError, match=f"fails '({caught_by})'"):
        check_probe(broken())


# --- inputs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_torch_tensors_and_half_precision_are_read(dtype):
    data = planted(False)
    x = torch.tensor(data.x).to(dtype)
    fitted = LDA().fit(x, torch.tensor(data.y))
    assert fitted.direction.dtype == np.float64
    assert np.allclose(fitted.score(x), LDA().fit(x.double().numpy(), data.y).score(x), rtol=1e-3)


def test_read_only_memory_maps_are_read(tmp_path):
    data = planted(False)
    np.save(tmp_path / "x.npy", np.stack([data.x, -data.x]).astype(np.float32))
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    for probe in (LogisticRegression(), LDA(), DifferenceInMeans(), RandomDirections(k=10)):
        direction = probe.fit(x, data.y).direction
        assert np.allclose(direction[0], -direction[1], rtol=1e-3, atol=1e-4)


def test_labels_may_bring_leading_axes_of_their_own():
    data = planted(False)
    both = np.stack([data.y, ~data.y])  # say, what is true and what is said
    for probe in (LogisticRegression(), LDA(), DifferenceInMeans(), RandomDirections(k=10)):
        fitted = probe.fit(data.x, both)
        assert fitted.direction.shape == (2, data.x.shape[1])
        assert np.allclose(
            auroc(fitted.score(data.x), both), auroc(fitted.score(data.x)[0], data.y)
        )


def test_mismatched_leading_axes_are_refused():
    x, y = np.random.default_rng(0).random((2, 8, 3)), np.arange(8) % 2
    with pytest.raises(InputError, match="leading axes"):
        LDA().fit(x, np.stack([y, y, y]))
    with pytest.raises(InputError, match="leading axes"):
        LDA().fit(x, y).score(np.ones((3, 8, 3)))
    with pytest.raises(InputError, match="paired row by row"):
        ContrastPairs(x, x[:, :-1])
    with pytest.raises(InputError, match="contrast pairs"):
        probes.get("ccs")().fit(x)
    with pytest.raises(InputError, match="real numbers"):
        LDA().fit(np.full((8, 3), "a"), y)


@pytest.mark.parametrize(
    "make",
    [
        lambda: LogisticRegression(C=0),
        lambda: LogisticRegression(standardize="rows"),
        lambda: LDA(shrinkage=2.0),
        lambda: RandomDirections(k=0),
        lambda: probes.get("ccs")(restarts=0),
        lambda: probes.get("vinc")(variance=-1),
        lambda: probes.get("vinc")(variance=0, invariance=0, negative_covariance=0),
        lambda: probes.get("contrast_logistic_regression")(features="sum"),
        lambda: probes.get("contrast_difference_in_means")(features="sum"),
    ],
)
def test_parameters_are_checked(make):
    with pytest.raises(InputError):
        make()


# --- scikit-learn -------------------------------------------------------------------------------


@pytest.mark.parametrize("probe", [None, LDA(), DifferenceInMeans()], ids=repr)
def test_scikit_learn_accepts_the_adapter(probe):
    check_estimator(ProbeClassifier(probe))


def test_the_adapter_works_in_a_pipeline_with_any_labels():
    data = planted(False)
    names = np.where(data.y, "true", "false")
    pipeline = make_pipeline(StandardScaler(), ProbeClassifier(LDA())).fit(data.x, names)
    assert pipeline.score(data.x, names) > 0.9
