"""Minimal pairs of the arithmetic world: one thing is changed, and its effect is known."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from terrarium.worlds import names
from terrarium.worlds.base import Counterfactual
from terrarium.worlds.claims import NEAR_TRUE, OTHER, Equations

if TYPE_CHECKING:
    from terrarium.worlds.arithmetic import Arithmetic


def minimal_pairs(world: Arithmetic, n: int, rng: np.random.Generator) -> list[Counterfactual]:
    """Return families of ``n`` pairs each, on test rows of the world's training templates.

    - ``name``: an honest name becomes a quirky one; what is said changes where truth and rule
      disagree (never in an inert world).  Left out where nobody is named.
    - ``claim_to_truth``: a false claim becomes the true result.
    - ``claim_to_quirky``: a claim false by both becomes Bob's answer (rules that have one).
    - ``condition``: a false claim becomes another false one for which the rule's condition is
      the other way round (rules that have one).
    - ``operands``: a and b change places; no label changes (where the operation commutes).
    """
    pairs = [_claim_to_truth(world, n, rng)]
    if world.names != "none":
        pairs.append(_name(world, n, rng))
    if not world.rule.needs_truth:
        pairs.append(_claim_to_quirky(world, n, rng))
    if world.rule.conditional:
        pairs.append(_condition(world, n, rng))
    if world.operation in ("addition", "multiplication", "modular_addition"):
        pairs.append(_operands(world, n, rng))
    return pairs


def _name(world: Arithmetic, n: int, rng: np.random.Generator) -> Counterfactual:
    drawn = world.law.draw(n, rng, "test")
    honest, quirky = (
        names.FIRST_NAME[family] + rng.integers(0, names.TRAINED, n)
        for family in ("honest", "quirky")
    )
    template = world.draw_templates(n, rng)
    affects = (
        "name",
        "family",
        "quirky",
        *(() if world.inert or world.everybody_errs else ("said",)),
    )
    return Counterfactual(
        "name",
        "name",
        affects,
        world.render(drawn, honest, template),
        world.render(drawn, quirky, template),
    )


def _changed(
    world: Arithmetic,
    rng: np.random.Generator,
    kind: str,
    changed: str,
    affects: tuple[str, ...],
    before: Equations,
    after: Equations,
) -> Counterfactual:
    """Return the pairs of ``before`` and ``after`` under the same names and templates."""
    n = len(before.a)
    name, template = world.draw_names(n, rng), world.draw_templates(n, rng)
    said = ("said",) if _said_can_change(world, affects) else ()
    return Counterfactual(
        kind,
        changed,
        (*affects, *said),
        world.render(before, name, template),
        world.render(after, name, template),
    )


def _said_can_change(world: Arithmetic, affects: tuple[str, ...]) -> bool:
    """Whether some name in this world says what changes."""
    errs = world.errs(np.array(world.shown_families))
    return bool((not errs.all() and "truth" in affects) or (errs.any() and "rule_label" in affects))


def _false_claims(world: Arithmetic, n: int, rng: np.random.Generator) -> Equations:
    near = world.law.modulus is None or not world.rule.needs_truth
    return world.law.draw(n, rng, "test", kinds=(NEAR_TRUE if near else OTHER,))


def _claim_to_truth(world: Arithmetic, n: int, rng: np.random.Generator) -> Counterfactual:
    before = _false_claims(world, n, rng)
    affects: tuple[str, ...] = ("claim", "truth", "disagree")
    if world.rule.conditional:
        affects += ("condition", "rule_label")
    elif world.rule.needs_truth:
        affects = ("claim", "truth", "rule_label")  # they disagree before and after
    after = replace(before, claim=before.result)
    return _changed(world, rng, "claim_to_truth", "claim", affects, before, after)


def _claim_to_quirky(world: Arithmetic, n: int, rng: np.random.Generator) -> Counterfactual:
    before = _false_claims(world, n, rng)
    after = replace(before, claim=before.own)
    affects = ("claim", "rule_label", "disagree")
    return _changed(world, rng, "claim_to_quirky", "claim", affects, before, after)


def _condition(world: Arithmetic, n: int, rng: np.random.Generator) -> Counterfactual:
    """Pair false claims of the same operands; operands that allow of no such pair are left out."""
    parts: list[tuple[Equations, Equations]] = []
    while sum(len(before.a) for before, _ in parts) < n:
        drawn = _false_claims(world, n, rng)
        found, claim = world.law.turned(drawn, rng)
        before = Equations(*(column[found] for column in drawn.columns()))
        parts.append((before, replace(before, claim=claim)))
    before, after = (
        Equations(*(np.concatenate(c)[:n] for c in zip(*(e.columns() for e in side), strict=True)))
        for side in zip(*parts, strict=True)
    )
    affects = ("claim", "condition", "rule_label", "disagree")
    return _changed(world, rng, "condition", "claim", affects, before, after)


def _operands(world: Arithmetic, n: int, rng: np.random.Generator) -> Counterfactual:
    before = world.law.draw(n, rng, "test")
    after = replace(before, a=before.b, b=before.a)
    return _changed(world, rng, "operands", "a,b", ("a", "b"), before, after)
