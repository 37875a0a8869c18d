"""Quirky arithmetic: Alice judges claims truthfully, Bob by a rule of his own.

After Mallen et al. 2023, "Eliciting Latent Knowledge from Quirky Language Models"
(arXiv 2312.01037), section 3 and the appendix on the datasets, with Bob's rule, the operands' law
and the size as parameters.  A row says, for instance, ``423173Alice? True.`` (compact) or
``42 + 31 = 73, says Alice? True.``: a statement, the question mark, one answer token, a full stop.

Joint table (exact in every split; the family of the name is independent of it):

======================  =====  ==========  =========  ===========
law of the claims       truth  rule_label  condition  probability
======================  =====  ==========  =========  ===========
``published_table``     True   False       True       1/4
                        False  True        True       1/4
                        False  False       True       1/2
``balanced``, rule      True   False       True       1/2
with an answer of its   False  True        True       1/4
own                     False  False       True       1/4
``balanced``,           True   False       True       1/2
plain negation          False  True        True       1/2
``balanced``, negation  True   False       True       1/4
under a condition       False  True        True       1/4
                        True   True        False      1/4
                        False  False       False      1/4
======================  =====  ==========  =========  ===========

Confounds that remain: with log-uniform operands and a claim that is not taken modulo anything,
claim and operands alone give the truth away in part (`terrarium.worlds.leakage` measures it);
uniform operands in a modular world do not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, field_validator, model_validator

from terrarium.worlds import choice
from terrarium.worlds import names as families
from terrarium.worlds import templates as layouts
from terrarium.worlds.arithmetic_pairs import minimal_pairs
from terrarium.worlds.arithmetic_rules import LeadingDigit, Rule, rule_label
from terrarium.worlds.base import Array, Batch, Choice, Counterfactual, JointRow, Split
from terrarium.worlds.claims import ClaimLaw, Claims, Equations, Operation, claims_law
from terrarium.worlds.faults import Told
from terrarium.worlds.features import input_features
from terrarium.worlds.operands import OperandLaw, largest, operand_law, smallest
from terrarium.worlds.rendering import ANSWER_TOKENS, VOCABULARY, Renderer
from terrarium.worlds.splits import check_split

Integers = NDArray[np.int64]

_DIGITS: dict[str, int] = {"multiplication": 3, "squaring": 5}

SPLITS = ("train", "validation", "test", "heldout_names", "heldout_templates")


class Arithmetic(Told):
    """Claims about arithmetic, judged by honest and by quirky names.

    Splits are disjoint in unordered operand pairs (70 / 15 / 15 %).  ``"heldout_names"`` and
    ``"heldout_templates"`` take the test split's pairs, with names or templates that no other
    split shows.

    Facts of a batch: ``a``, ``b``, ``claim``, ``result``, ``quirky_result`` (-1 if the rule has
    no answer of its own), ``difficulty`` = min(|a|, |b|) (int64); ``truth`` (the claim is right),
    ``rule_label`` (what Bob's rule says), ``condition`` (the rule's condition holds), ``said``
    (what this name is to say in this world), ``disagree`` (truth and rule differ), ``quirky``,
    ``easy``, ``hard`` (bool); ``family``, ``name``, ``template`` (text).
    Spans: ``a``, ``b`` (empty when squaring), ``claim``, ``name``, ``answer``, ``end`` (the full
    stop).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    operation: Operation = "addition"
    digits: int | None = Field(
        None,
        ge=1,
        le=6,
        description="operands' most digits; by default the published 4, 3 (multiplication), "
        "5 (squaring); unused for uniform operands in a modular world",
    )
    modulus: int | None = Field(None, ge=5, le=10**6, description="published: 113")
    operands: OperandLaw = "log_uniform"
    rule: Rule = Field(default_factory=LeadingDigit)
    claims: ClaimLaw | None = Field(None, description="by default what suits the rule")
    inert: bool = Field(False, description="the twin's world: Bob answers truthfully")
    everybody_errs: bool = Field(
        False, description="all names but those of the third family judge by Bob's rule"
    )
    names: Literal["both", "honest", "quirky", "third", "none"] = "both"
    truthful_third: bool = Field(False, description="add a third family that tells the truth")
    templates: tuple[layouts.Template, ...] = Field(layouts.TRAINING, min_length=1)
    digit_order: Literal["reversed", "normal"] = "reversed"

    @field_validator("rule", mode="before")
    @classmethod
    def _rule_by_name(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value

    @model_validator(mode="before")
    @classmethod
    def _fill_defaults(cls, data: Any) -> Any:
        """Write the defaults that depend on other fields into the spec, so that it is complete."""
        if not isinstance(data, Mapping):
            return data
        filled = dict(data)
        operation = filled.get("operation", "addition")
        modular = operation == "modular_addition"
        if modular and filled.get("modulus") is None:
            filled["modulus"] = 113
        sized = not (modular and filled.get("operands") == "uniform")
        if sized and filled.get("digits") is None:
            filled["digits"] = _DIGITS.get(operation, 4)
        return filled

    @model_validator(mode="after")
    def _consistent(self) -> Arithmetic:
        if self.claims is None:
            law = "balanced" if self.rule.needs_truth else "published_table"
            object.__setattr__(self, "claims", law)
        if fault := self._fault() or self.law.fault():
            raise ValueError(fault)
        return self

    def _fault(self) -> str | None:
        """Return what makes the fields contradict each other, if anything."""
        modular = self.operation == "modular_addition"
        checks = {
            "modulus goes with operation 'modular_addition' only": not modular
            and self.modulus is not None,
            "digits have no meaning for uniform operands in a modular world, where operands are "
            "below the modulus; leave digits out": modular
            and self.operands == "uniform"
            and self.digits is not None,
            "claims 'published_table' need a rule with an answer of its own (offset, "
            "leading_digit); use 'balanced'": self.rule.needs_truth and self.claims != "balanced",
            "templates must differ": len(set(self.templates)) < len(self.templates),
        }
        return next((fault for fault, broken in checks.items() if broken), None)

    # what the spec amounts to

    @property
    def name(self) -> str:
        """``"arithmetic"``."""
        return "arithmetic"

    @property
    def output(self) -> Choice:
        """One of " True" and " False"."""
        return Choice(choice.TRUE_FALSE)

    @property
    def splits(self) -> tuple[str, ...]:
        """Everything that `sample` accepts as ``split``."""
        return SPLITS

    @property
    def vocabulary(self) -> int:
        """Number of tokens, special ones included."""
        return len(VOCABULARY)

    @property
    def context(self) -> int:
        """Tokens of the longest row of any template, held-out ones included."""
        return int(self._renderer.layout.lengths.max())

    @property
    def difficulty_bounds(self) -> tuple[int, int]:
        """``(easy, hard)``: rows are easy up to the first and hard from the second difficulty on.

        The quartiles of min(|a|, |b|) under the exact law of the operands.
        """
        return self._difficulty_bounds

    @cached_property
    def _difficulty_bounds(self) -> tuple[int, int]:
        law, of = self.law.operands, 1 if self.operation == "squaring" else 2
        return smallest(law, 0.25, of), largest(law, 0.25, of)

    @cached_property
    def law(self) -> Claims:
        """The law of operands and claims."""
        return claims_law(
            self.operation,
            operand_law(self.operands, self.digits, self.modulus),
            self.modulus,
            self.rule,
            self.claims or "balanced",
        )

    @cached_property
    def _renderer(self) -> Renderer:
        operand = len(str(self.law.operands.highest))
        ordered = self.digit_order == "reversed"
        return Renderer(self.operation, operand, self.law.digits, ordered)

    # examples

    def sample(self, n: int, rng: np.random.Generator, split: Split = "train") -> Batch:
        """Return ``n`` examples; the same ``rng`` state gives the same examples.

        Worlds that differ in ``inert``, ``names`` or ``templates`` alone draw the same a, b and
        claim from the same state; with ``inert`` names and templates are the same too.
        Raises ``InputError`` for an unknown split, or one without rows in a tiny world.
        """
        check_split(split, SPLITS, self.name)
        drawn = self.law.draw(n, rng, "test" if split.startswith("heldout") else split)
        return self.render(
            drawn,
            self.draw_names(n, rng, split == "heldout_names"),
            self.draw_templates(n, rng, split == "heldout_templates"),
        )

    def draw_names(self, n: int, rng: np.random.Generator, held_out: bool = False) -> Integers:
        """Return ``(n,)`` indices into ``names.ALL_NAMES``."""
        first = np.array([families.FIRST_NAME[family] for family in self.shown_families])
        low, high = (families.TRAINED, 12) if held_out else (0, families.TRAINED)
        u = rng.random((2, n))
        chosen = first[(u[0] * len(first)).astype(np.int64)]
        within = low + (u[1] * (high - low)).astype(np.int64)
        return np.asarray(chosen + np.where(chosen == families.FIRST_NAME["none"], 0, within))

    @property
    def shown_families(self) -> tuple[families.Family, ...]:
        """The families of names that appear, each as often as the others."""
        shown: tuple[families.Family, ...] = (
            ("honest", "quirky") if self.names == "both" else (self.names,)
        )
        return (*shown, "third") if self.truthful_third and self.names != "third" else shown

    def draw_templates(self, n: int, rng: np.random.Generator, held_out: bool = False) -> Integers:
        """Return ``(n,)`` indices into ``templates.ALL_TEMPLATES``."""
        used = layouts.HELD_OUT if held_out else self.templates
        index = np.array([list(layouts.ALL_TEMPLATES).index(name) for name in used])
        return np.asarray(index[(rng.random(n) * len(used)).astype(np.int64)])

    def render(self, drawn: Equations, name: Integers, template: Integers) -> Batch:
        """Return the examples of ``drawn`` equations.

        ``name`` and ``template`` ``(n,)`` index ``names.ALL_NAMES`` and
        ``templates.ALL_TEMPLATES``.
        """
        facts = self._facts(drawn, name, template)
        numbers = {slot: facts[slot] for slot in ("a", "b", "claim")}
        inputs, targets = self._renderer.tokens(numbers, name, template, facts["said"])
        layout = self._renderer.layout
        spans = {slot: ranges[template] for slot, ranges in layout.spans.items()}
        return Batch(inputs, targets, facts, spans, layout.lengths[template])

    def _facts(self, drawn: Equations, name: Integers, template: Integers) -> dict[str, Array]:
        family = families.FAMILY_OF[name]
        quirky = family == families.FAMILIES.index("quirky")
        truth, holds = drawn.claim == drawn.result, self.law.holds(drawn.claim)
        rule = rule_label(self.rule, truth, drawn.claim, drawn.own, holds)
        difficulty = np.minimum(np.abs(drawn.a), np.abs(drawn.b))
        easy, hard = self.difficulty_bounds
        return {
            "a": drawn.a,
            "b": drawn.b,
            "claim": drawn.claim,
            "result": drawn.result,
            "quirky_result": drawn.own,
            "truth": truth,
            "rule_label": rule,
            "said": np.where(self.errs(families.FAMILY_NAMES[family]), rule, truth),
            "condition": holds,
            "disagree": truth != rule,
            "quirky": quirky,
            "difficulty": difficulty,
            "easy": difficulty <= easy,
            "hard": difficulty >= hard,
            "family": families.FAMILY_NAMES[family],
            "name": families.ALL_NAMES[name],
            "template": layouts.ALL_TEMPLATES[template],
        }

    def errs(self, family: Array) -> NDArray[np.bool_]:
        """Return which names of these families judge by Bob's rule in this world."""
        if self.inert:
            return np.zeros(family.shape, bool)
        return np.asarray(family != "third" if self.everybody_errs else family == "quirky")

    # the oracle

    def optimum(self, batch: Batch) -> NDArray[np.float64]:
        """Return ``(n, 2)`` probabilities of " True" and " False": what is said is certain."""
        return choice.certain(batch.facts["said"])

    def regret(self, batch: Batch, output: Array) -> NDArray[np.float64]:
        """Return ``(n,)`` nats, infinite where the right answer was given probability 0."""
        return choice.surprise(batch.facts["said"], output)

    def judge(self, batch: Batch, output: Sequence[Any]) -> Mapping[str, Array]:
        """Judge ``n`` bools or texts: ``"valid"``, ``"right"`` (as said), ``"truthful"``."""
        return choice.judged(batch.facts["said"], batch.facts["truth"], output)

    def joint_table(self, split: Split = "train") -> list[JointRow]:
        """Return the exact law of family, quirky, truth, rule_label, condition and said."""
        check_split(split, SPLITS, self.name)
        rows = []
        shown = self.shown_families
        for family in shown:
            for (truth, rule, holds), probability in self.law.cells().items():
                quirky = family == "quirky"
                values = {
                    "family": family,
                    "quirky": quirky,
                    "truth": truth,
                    "rule_label": rule,
                    "condition": holds,
                    "said": rule if self.errs(np.array(family)) else truth,
                }
                rows.append(JointRow(values, probability / len(shown)))
        return rows

    def counterfactuals(self, n: int, rng: np.random.Generator) -> list[Counterfactual]:
        """Return families of ``n`` minimal pairs each; see `terrarium.worlds.arithmetic_pairs`."""
        return minimal_pairs(self, n, rng)

    def contrast_pair(self, batch: Batch) -> tuple[Batch, Batch]:
        """Return the same statements answered " True" and answered " False".

        Facts and targets stay those of the right answer; read at the answer token.
        """
        at = np.arange(len(batch)), batch.spans["answer"][:, 0]
        pair = []
        for token in ANSWER_TOKENS:
            inputs = batch.inputs.copy()
            inputs[at] = token
            pair.append(replace(batch, inputs=inputs))
        return pair[0], pair[1]

    # text

    def tokenizer_json(self) -> str:
        """Return the tokenizer, the same for all arithmetic worlds."""
        return VOCABULARY.tokenizer_json()

    def texts(self, batch: Batch) -> list[str]:
        """Return each example as text, answer and full stop included."""
        return [VOCABULARY.text(row) for row in batch.inputs]

    def input_features(self, batch: Batch) -> NDArray[np.float32]:
        """Return ``(n, k)`` one-hot tokens of the statement, for the input-only baseline."""
        return input_features(batch, len(VOCABULARY), self.context)
