"""`check_detector` passes on every detector and catches broken ones, each by the right check."""

from dataclasses import dataclass

import numpy as np
import pytest

from terrarium.instruments.base import Detector, FittedDetector, detectors
from terrarium.instruments.check_detector import DETECTOR_CHECKS, check_detector
from terrarium.instruments.detectors.forest import IsolationForest
from terrarium.instruments.detectors.mahalanobis import Mahalanobis


@pytest.mark.parametrize("name", detectors.names())
def test_every_detector_passes(name):
    detector = IsolationForest(trees=20) if name == "isolation_forest" else detectors.get(name)()
    assert isinstance(detector, Detector)
    check_detector(detector)


def test_the_contract_is_met():
    fitted = Mahalanobis().fit(np.random.default_rng(0).standard_normal((20, 3)))
    assert isinstance(fitted, FittedDetector)
    with pytest.raises(AttributeError):
        fitted.gaussian = None


class Broken:
    """A correct detector, spoilt in one place by its subclasses."""

    def fit(self, trusted):
        return Spoilt(Mahalanobis().fit(self.before_fit(trusted)), self)

    def before_fit(self, trusted):
        return trusted

    def before_score(self, x):
        return x

    def after_score(self, scores, x):
        return scores


@dataclass
class Spoilt:
    fitted: object
    owner: Broken

    def score(self, x):
        return self.owner.after_score(self.fitted.score(self.owner.before_score(x)), x)


class UpsideDown(Broken):
    def after_score(self, scores, x):
        return -scores


class AcceptsNaN(Broken):
    def before_fit(self, trusted):
        return np.nan_to_num(trusted, posinf=0.0)


class Noisy(Broken):
    def after_score(self, scores, x):
        return scores + 1e-3 * np.random.default_rng().standard_normal(scores.shape)


class Ranks(Broken):
    def after_score(self, scores, x):
        return scores.argsort(-1).argsort(-1).astype(float)


class ClaimsToBeTransductive(Broken):
    transductive = True


class NeedsOrder(Broken):
    def after_score(self, scores, x):
        return scores * np.arange(1, scores.shape[-1] + 1)


class ChangesItsInput(Broken):
    def before_score(self, x):
        x -= 1.0
        return x


class FirstSiteForAll(Broken):
    def before_fit(self, trusted):
        return trusted if trusted.ndim < 3 else np.broadcast_to(trusted[:1, :1], trusted.shape)


class Memorises(Broken):
    def fit(self, trusted):
        self.seen = trusted.copy()
        return super().fit(trusted)

    def after_score(self, scores, x):
        if x.ndim > 2 or self.seen.ndim > 2:
            return scores
        known = (x[:, None] == self.seen).all(-1).any(-1)
        return np.where(known, 0.0, scores + 1.0)


class SharesState(Broken):
    def before_fit(self, trusted):
        self.mean = trusted.sum()
        return trusted

    def after_score(self, scores, x):
        return scores + self.mean


class SinglePrecision(Broken):
    def after_score(self, scores, x):
        return scores.astype(np.float32)


class PromisesTooMuch(Broken):
    invariant_to = ("translation",)

    def after_score(self, scores, x):
        return scores + np.abs(x).sum(-1)


@pytest.mark.parametrize(
    ("broken", "check"),
    [
        (UpsideDown, "planted anomalies"),
        (AcceptsNaN, "refusals"),
        (Noisy, "determinism"),
        (Ranks, "batch independence"),
        (ClaimsToBeTransductive, "batch independence"),
        (NeedsOrder, "row order"),
        (ChangesItsInput, "inputs are kept"),
        (FirstSiteForAll, "leading axes"),
        (Memorises, "null"),
        (SharesState, "fitted is separate"),
        (SinglePrecision, "output"),
        (PromisesTooMuch, "invariances"),
    ],
)
def test_a_broken_detector_is_caught(broken, check):
    with pytest.raises(AssertionError):
        DETECTOR_CHECKS[check](broken())
    with pytest.raises(AssertionError, match=f"- {check}: "):
        check_detector(broken())


def test_the_unspoilt_one_passes():
    check_detector(Broken())
