"""Causal rows: does what a probe reads matter to what is said?"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from terrarium.evidence.rows import Row, measured
from terrarium.instruments.base import probes
from terrarium.instruments.causal import causal_effects
from terrarium.instruments.erasure import fit_leace
from terrarium.instruments.interventions import ablate, add, random_like, reflect
from terrarium.organisms.objectives import answer_tokens
from terrarium.randomness import generator
from terrarium.studies.contexts import POSITION, Contexts
from terrarium.studies.measure_probes import context_mask

Edit = Callable[[Tensor], Tensor]


def causal_rows(
    network: Any, world: Any, contexts: Contexts, key: int, layers: tuple[int, ...], most: int = 500
) -> list[Row]:
    """Return what editing the truth direction of honest contexts does, by layer and context.

    At each of ``layers`` (numbered as in ``contexts.layers``) the activation of the last prompt
    token is reflected across the probe's hyperplane, has the direction ablated, is erased by
    LEACE, or has the direction added.  The random controls have the activations' covariance and
    move each row as far as the edit beside them.
    """
    rows: list[Row] = []
    for layer in layers:
        edits = _edits(contexts, layer, key)
        for context in ("honest", "quirky"):
            chosen = np.flatnonzero(context_mask(contexts, "test", context))[:most]
            batch = contexts.batches["test"].take(chosen)
            truth = batch.facts["truth"].astype(bool)
            effects = causal_effects(
                network,
                batch,
                contexts.sites[layer - 1],
                POSITION,
                edits,
                answers=answer_tokens(world),
                target=np.where(truth, 1, 0),
            )
            for name, effect in effects.items():
                direction, _, kind = name.partition(": ")
                shared: dict[str, Any] = {
                    "edit": kind,
                    "direction": direction,
                    "context": context,
                    "layer": layer,
                    "site": contexts.sites[layer - 1],
                }
                rows += [
                    measured(
                        "answers_flipped",
                        float(effect.flipped[0]),
                        unit="proportion",
                        n=len(chosen),
                        **shared,
                    ),
                    measured(
                        "log_odds_change",
                        float(effect.log_odds_change[0]),
                        unit="nats towards the opposite of the truth",
                        n=len(chosen),
                        **shared,
                    ),
                    measured(
                        "displacement",
                        float(effect.displacement.mean()),
                        unit="activation",
                        n=len(chosen),
                        **shared,
                    ),
                ]
    return rows


def _edits(contexts: Contexts, layer: int, key: int) -> dict[str, Edit]:
    """Return the edits of one layer by ``"direction: edit"``."""
    mask = context_mask(contexts, "train", "honest")
    x = contexts.features("train")[layer - 1][mask].astype(np.float64)
    truth = contexts.fact("train", "truth")[mask].astype(bool)
    fitted = probes.get("logistic_regression")().fit(x, truth)
    mean = x.mean(axis=0)
    # The distance between the two classes along the direction: "add" moves a row by that much.
    gap = x[truth].mean(axis=0) - x[~truth].mean(axis=0)
    rng = generator("causal", key, layer)
    random = random_like(fitted.direction, np.cov(x, rowvar=False), rng)
    bias = float(fitted.bias)
    # Each random edit moves every row as far as the edit that it is the control of: activations
    # vary more along other directions than along this one, and any large enough shove tells.
    truth_edits: dict[str, Edit] = {
        "reflect": partial(reflect, direction=fitted.direction, offset=bias),
        "ablate": partial(ablate, direction=fitted.direction, mean=mean),
        "add": partial(add, direction=gap, strength=1.0),
    }
    edits: dict[str, Edit] = {}
    for name, edit in truth_edits.items():
        edits[f"truth: {name}"] = edit
        edits[f"random: {name}"] = partial(_as_far, edit=edit, direction=random, mean=mean)
    edits["truth: LEACE"] = fit_leace(x, truth)
    return edits


def _as_far(
    x: Tensor, edit: Edit, direction: NDArray[np.float64], mean: NDArray[np.float64]
) -> Tensor:
    """Move each row along ``direction``, towards the mean, as far as ``edit`` would move it."""
    length = torch.linalg.vector_norm(edit(x) - x, dim=-1, keepdim=True)
    unit = torch.as_tensor(direction / np.linalg.norm(direction), dtype=x.dtype, device=x.device)
    side = torch.sign((x - torch.as_tensor(mean, dtype=x.dtype, device=x.device)) @ unit)
    moved: Tensor = x - length * side[..., None] * unit
    return moved
