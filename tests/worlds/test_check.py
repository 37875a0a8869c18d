"""`check_world` passes good worlds and names the fault of broken ones."""

from dataclasses import replace

import numpy as np
import pytest

from terrarium.worlds.arithmetic import Arithmetic
from terrarium.worlds.bandit import Bandit
from terrarium.worlds.base import Counterfactual, JointRow
from terrarium.worlds.check import CHECKS, check_world
from terrarium.worlds.field import AnalyticField
from terrarium.worlds.patches import Patches

SMALL = {"digits": 2, "rule": "negate", "templates": ("compact",)}


class GlobalRandom(Arithmetic):
    def sample(self, n, rng, split="train"):
        return super().sample(n, np.random.default_rng(np.random.randint(2**31)), split)  # noqa: NPY002


class IgnoresTheGenerator(Arithmetic):
    def sample(self, n, rng, split="train"):
        return super().sample(n, np.random.default_rng(5), split)


class OneRowShort(Arithmetic):
    def sample(self, n, rng, split="train"):
        return super().sample(n, rng, split).take(np.arange(n - 1))


class LeakySplits(Arithmetic):
    def sample(self, n, rng, split="train"):
        return super().sample(n, rng, "train" if split == "test" else split)


class WrongOptimum(Arithmetic):
    def optimum(self, batch):
        return super().optimum(batch)[:, ::-1]


class NoRegretAtAll(Arithmetic):
    def regret(self, batch, output):
        return np.zeros(len(batch))


class LenientJudge(Arithmetic):
    def judge(self, batch, output):
        return {**super().judge(batch, output), "right": np.ones(len(batch), bool)}


class StrictJudge(Arithmetic):
    def judge(self, batch, output):
        return {**super().judge(batch, output), "right": np.zeros(len(batch), bool)}


class SumsToLess(Arithmetic):
    def joint_table(self, split="train"):
        return super().joint_table(split)[1:]


class SkewedTable(Arithmetic):
    def joint_table(self, split="train"):
        table = super().joint_table(split)
        shift = [0.1, -0.1, *[0.0] * (len(table) - 2)]
        return [
            JointRow(row.values, row.probability + s) for row, s in zip(table, shift, strict=True)
        ]


class ForgetsAnEffect(Arithmetic):
    def counterfactuals(self, n, rng):
        return [
            replace(pair, affects=tuple(f for f in pair.affects if f != "said"))
            for pair in super().counterfactuals(n, rng)
        ]


class NoEffect(Arithmetic):
    def counterfactuals(self, n, rng):
        batch = self.sample(n, rng, "test")
        return [Counterfactual("nothing", "claim", ("truth",), batch, batch)]


class ChangesMore(Arithmetic):
    def counterfactuals(self, n, rng):
        return [replace(pair, changed="name") for pair in super().counterfactuals(n, rng)]


class WrongTexts(Arithmetic):
    def texts(self, batch):
        return [text + " " for text in super().texts(batch)]


class ShiftedAnswer(Arithmetic):
    def sample(self, n, rng, split="train"):
        batch = super().sample(n, rng, split)
        return replace(batch, targets=np.where(batch.targets > 0, batch.targets + 1, -100))


class SpanOutside(Arithmetic):
    def sample(self, n, rng, split="train"):
        batch = super().sample(n, rng, split)
        return replace(batch, spans={**batch.spans, "name": batch.spans["name"] + 50})


class HiddenState(Arithmetic):
    """Something that decides the rows is not in the spec."""

    def sample(self, n, rng, split="train"):
        return super().sample(n, rng, "validation" if "_odd" in self.__dict__ else split)


class Doubles(AnalyticField):
    def sample(self, n, rng, split="train"):
        batch = super().sample(n, rng, split)
        return replace(batch, inputs=batch.inputs.astype(np.float64))


class RewardsNonsense(Bandit):
    def regret(self, batch, output):
        return np.where(super().regret(batch, output) > 0, -1.0, 0.0)


BROKEN = {
    GlobalRandom: ("determinism", "different inputs"),
    IgnoresTheGenerator: ("determinism", "different generators gave the same"),
    OneRowShort: ("shapes", "asked for 1 rows, it gave 0"),
    LeakySplits: ("splits", "rows of 'train' stand in 'test' too"),
    WrongOptimum: ("optimum", "the optimum's regret is inf"),
    NoRegretAtAll: ("optimum", "off the optimum has no regret"),
    LenientJudge: ("judge", "calls nonsense right"),
    StrictJudge: ("judge", "does not call the optimum right"),
    SumsToLess: ("joint table", "probabilities sum to 0.75"),
    SkewedTable: ("joint table", "came in 0.2"),
    ForgetsAnEffect: ("counterfactuals", "changes 'said', which it is not to affect"),
    NoEffect: ("counterfactuals", "is to affect 'truth', which never changes"),
    ChangesMore: ("counterfactuals", "changes tokens outside 'name'"),
    WrongTexts: ("tokenizer", "does not give the inputs back"),
    ShiftedAnswer: ("tokens", "targets before the answer are not"),
    SpanOutside: ("tokens", "span 'name' leaves its row"),
    Doubles: ("shapes", "not float32"),
    RewardsNonsense: ("optimum", "negative regret"),
}


@pytest.mark.parametrize(
    ("broken", "fault"), BROKEN.items(), ids=lambda x: getattr(x, "__name__", "")
)
def test_the_fault_of_a_broken_world_is_named(broken, fault):
    world = broken() if issubclass(broken, (AnalyticField, Bandit)) else broken(**SMALL)
    check, sentence = fault
    findings = check_world(world, collect=True)
    assert any(f.startswith(f"{broken.__name__}, {check}: ") and sentence in f for f in findings), (
        findings
    )
    with pytest.raises(AssertionError):
        check_world(world)


def test_what_the_spec_does_not_hold_is_noticed():
    world = HiddenState(**SMALL)
    world.__dict__["_odd"] = True
    assert any("spec" in finding for finding in check_world(world, collect=True))


def test_a_stranger_is_told_what_it_lacks():
    findings = check_world(object(), collect=True)
    assert len(findings) >= 5
    assert "lacks counterfactuals, joint_table, judge" in findings[0]
    with pytest.raises(AssertionError, match="lacks"):
        check_world(object())


@pytest.mark.parametrize(
    "world",
    [
        AnalyticField(),
        AnalyticField(shape="smooth_union"),
        Patches(),
        Patches(side=12, channels=3),
        Bandit(),
        Bandit(letters=9, length=2),
    ],
)
def test_the_tiny_worlds_keep_the_contract(world):
    assert check_world(world) == []
    assert len(CHECKS) == 11
