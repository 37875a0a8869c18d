"""Hypotheses written before the run, and the verdicts that intervals over seeds allow.

A hypothesis says in words what it claims, what its rival claims and which result counts for and
against, and makes machine-readable `predictions` about `quantities`.  `judge` gives each one of:

- ``uninformative``: a gate failed (the property didn't arise, the input alone explains it, ...);
- ``undecided``: fewer than 5 seeds (`MIN_SEEDS`), or an interval that reaches the bar;
- ``supported``: the Holm-adjusted interval over seeds lies wholly on the predicted side;
- ``contradicted``: it lies wholly on the other side.

Holm's family is every prediction of every hypothesis of the study, fixed before the run: what
could not be tested counts with p = 1.  Gates are no claims and stand outside.  Seeds without a
value stay in the count, and a verdict must survive putting them on the bar, where they speak for
neither side.

Sources: `significance`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from terrarium.errors import InputError
from terrarium.evidence.findings import ALPHA, MIN_SEEDS, Finding, decided, measure
from terrarium.evidence.predictions import Gate, GateResult, Prediction
from terrarium.evidence.rows import Interval, Row
from terrarium.evidence.significance import holm, holm_alphas

__all__ = ["ALPHA", "MIN_SEEDS", "Hypothesis", "Standing", "Verdict", "judge"]

Standing = Literal["supported", "contradicted", "undecided", "uninformative"]


@dataclass(frozen=True)
class Hypothesis:
    """A claim with its rival, and the predictions that decide between them.

    Attributes
    ----------
    name:
        Short and unique within the study (``"reads-truth"``).
    claim, rival:
        One sentence each.
    counts_for, counts_against:
        Which result would count, in words.
    prediction:
        One prediction, or several that must all hold: supported when each is, contradicted when
        one is.
    gates:
        What must hold for the result to mean anything: a share of seeds (`Gate`), or a prediction
        that must itself be supported.
    """

    name: str
    claim: str
    rival: str
    counts_for: str
    counts_against: str
    prediction: Prediction | tuple[Prediction, ...]
    gates: tuple[Prediction | Gate, ...] = ()

    def __post_init__(self) -> None:
        if not self.predictions:
            raise InputError(f"hypothesis '{self.name}' predicts nothing.")

    def __repr__(self) -> str:
        return f"Hypothesis({self.name}: {self.claim})"

    @property
    def predictions(self) -> tuple[Prediction, ...]:
        """The predictions as a tuple."""
        if isinstance(self.prediction, Prediction):
            return (self.prediction,)
        return self.prediction

    @property
    def text(self) -> str:
        """The predictions and gates in words, for the report."""
        said = "; and ".join(prediction.text for prediction in self.predictions)
        needs = "; ".join(gate.text for gate in self.gates)
        return f"{said}. Needs: {needs}." if needs else f"{said}."


@dataclass(frozen=True)
class Verdict:
    """What became of a hypothesis.

    ``findings`` holds one entry per prediction and ``gates`` one per gate.  `decisive` is the
    finding that made the verdict; estimate, interval, p-values and values are its own.
    """

    hypothesis: str
    claim: str
    verdict: Standing
    reason: str
    findings: tuple[Finding, ...]
    gates: tuple[GateResult, ...] = ()

    def __repr__(self) -> str:
        return f"Verdict({self.hypothesis}, {self.sentence})"

    @property
    def decisive(self) -> Finding:
        """The first contradicted finding, else the first undecided, else the weakest."""
        for outcome in ("contradicted", "undecided"):
            for finding in self.findings:
                if finding.outcome == outcome:
                    return finding
        return max(self.findings, key=lambda finding: finding.p_adjusted or 0.0)

    @property
    def estimate(self) -> float | None:
        """Mean over seeds."""
        return self.decisive.estimate

    @property
    def interval(self) -> Interval | None:
        """The 95 % interval over seeds, unadjusted."""
        return self.decisive.interval

    @property
    def adjusted_interval(self) -> Interval | None:
        """The interval at the level at which Holm tested it."""
        return self.decisive.adjusted_interval

    @property
    def p(self) -> float | None:
        """The raw p-value."""
        return self.decisive.p

    @property
    def p_adjusted(self) -> float | None:
        """Holm's p-value within the study."""
        return self.decisive.p_adjusted

    @property
    def n(self) -> int:
        """Seeds with a value."""
        return self.decisive.n

    @property
    def sentence(self) -> str:
        """``"supported: 0.93 [0.90, 0.96] over 5 seeds, predicted > 0.65"``; why, if it isn't."""
        said = f"{self.verdict}: " + "; and ".join(finding.text for finding in self.findings)
        return f"{said} ({self.reason})" if self.reason else said

    def record(self) -> dict[str, Any]:
        """Return the verdict as plain data for JSON."""
        return {
            "hypothesis": self.hypothesis,
            "claim": self.claim,
            "verdict": self.verdict,
            "sentence": self.sentence,
            "reason": self.reason,
            "findings": [finding.record() for finding in self.findings],
            "gates": [
                {"gate": gate.text, "passed": gate.passed, "reason": gate.reason}
                for gate in self.gates
            ],
        }


def judge(hypotheses: Sequence[Hypothesis], rows: Sequence[Row]) -> list[Verdict]:
    """Return the verdict on each hypothesis of one study from all of its rows.

    Pure, and independent of the order of rows.  Raises ``InputError`` where two hypotheses share
    a name, or where a prediction finds several rows for one seed.
    """
    names = [hypothesis.name for hypothesis in hypotheses]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"hypotheses: the name '{twice[0]}' is there twice; names are unique.")
    gates = [tuple(judge_gate(gate, rows) for gate in h.gates) for h in hypotheses]
    measured = [
        (index, prediction, measure(prediction, rows))
        for index, hypothesis in enumerate(hypotheses)
        for prediction in hypothesis.predictions
    ]
    testable = [
        finding.p is not None and not finding.reason and all(g.passed for g in gates[index])
        for index, _, finding in measured
    ]
    family = [
        finding.p if test and finding.p is not None else 1.0
        for (_, _, finding), test in zip(measured, testable, strict=True)
    ]
    findings: list[list[Finding]] = [[] for _ in hypotheses]
    for (index, prediction, finding), test, adjusted, alpha in zip(
        measured, testable, holm(family), holm_alphas(family, ALPHA), strict=True
    ):
        done = decided(finding, prediction, float(adjusted), float(alpha)) if test else finding
        findings[index].append(done)
    return [
        _verdict(hypothesis, tuple(found), gate)
        for hypothesis, found, gate in zip(hypotheses, findings, gates, strict=True)
    ]


def judge_gate(gate: Prediction | Gate, rows: Sequence[Row]) -> GateResult:
    """Return whether a gate holds; a prediction must be supported by itself, without Holm."""
    if isinstance(gate, Gate):
        return gate.judge(rows)
    finding = measure(gate, rows)
    finding = decided(finding, gate, 1.0 if finding.p is None else finding.p, ALPHA)
    why = f"; {finding.reason}" if finding.reason else ""
    return GateResult(gate.text, finding.outcome == "supported", f"{finding.text}{why}")


def _verdict(
    hypothesis: Hypothesis, findings: tuple[Finding, ...], gates: tuple[GateResult, ...]
) -> Verdict:
    standing: Standing = "undecided"
    failed = [gate for gate in gates if not gate.passed]
    few = [finding for finding in findings if finding.seeds < MIN_SEEDS]
    outcomes = {finding.outcome for finding in findings}
    if few:
        reason = few[0].reason
    elif failed:
        standing = "uninformative"
        reason = "; ".join(f"gate failed: {gate.text}: {gate.reason}" for gate in failed)
    else:
        if "contradicted" in outcomes:
            standing = "contradicted"
        elif outcomes == {"supported"}:
            standing = "supported"
        said = [f.reason for f in findings if f.reason and f.outcome == standing]
        reason = "; ".join(dict.fromkeys(said))
    return Verdict(hypothesis.name, hypothesis.claim, standing, reason, findings, gates)
