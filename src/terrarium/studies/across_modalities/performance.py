"""How near an organism comes to the oracle, on one scale for all tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from terrarium.errors import InputError
from terrarium.evidence.rows import Row, measured
from terrarium.organisms.objectives import answer_tokens
from terrarium.organisms.text_reconstruction import text_errors
from terrarium.readings.read import read
from terrarium.studies.across_modalities.tasks import AUTOENCODE, CLASSIFY, IMAGES, TEXT
from terrarium.worlds.base import Batch

SHARE = "share_of_oracle"


def share_rows(network: Any, world: Any, batches: Mapping[str, Batch], task: Any) -> list[Row]:
    """Return the task's loss, the blind loss, and the share of it that the organism removes.

    1 is the oracle, whose loss is 0 in every task; 0 the best output that is the same for every
    example (fitted on the split ``"train"``).  Losses are nats per example to classify, nats per
    token to autoencode text, squared error per number to autoencode images; on ``"test"``.
    """
    modality, objective = task
    test = batches["test"]
    losses = {
        (TEXT, CLASSIFY): _choice_nats,
        (IMAGES, CLASSIFY): _class_nats,
        (TEXT, AUTOENCODE): _token_nats,
        (IMAGES, AUTOENCODE): _squared_error,
    }
    loss = float(losses[modality, objective](network, world, test).mean())
    blind = _blind(modality, objective, batches["train"], test)
    unit = {CLASSIFY: "nats", AUTOENCODE: "nats per token"}[objective]
    unit = unit if modality == TEXT or objective == CLASSIFY else "squared error per number"
    n = len(test)
    return [
        measured("loss", loss, unit=unit, n=n),
        measured("blind_loss", blind, unit=unit, n=n),
        measured(SHARE, 1 - loss / blind, unit="proportion", n=n),
        measured("parameters", float(network.parameters_per_member), unit="parameters", n=1),
    ]


def _choice_nats(network: Any, world: Any, batch: Batch) -> NDArray[np.float64]:
    site, answers = "resid.post[-1]", answer_tokens(world)
    says = read(network, batch, site, ("prompt_end",), answers=answers).says
    if says is None:
        raise InputError("The organism says nothing about the answers; give a language model.")
    return np.asarray(world.regret(batch, np.exp(says[0].astype(np.float64))))


def outputs(network: Any, inputs: NDArray[Any], rows: int = 256) -> NDArray[np.float32]:
    """Return what a fleet of one makes of ``inputs``, ``rows`` at a time."""
    parts = []
    with torch.no_grad():
        for start in range(0, len(inputs), rows):
            block = torch.from_numpy(np.ascontiguousarray(inputs[start : start + rows]))
            parts.append(network(block[None])[0].numpy())
    return np.concatenate(parts)


def _class_nats(network: Any, world: Any, batch: Batch) -> NDArray[np.float64]:
    logits = torch.from_numpy(outputs(network, batch.inputs)).double().log_softmax(-1).numpy()
    return np.asarray(-logits[np.arange(len(batch)), batch.facts["label"]])


def _token_nats(network: Any, world: Any, batch: Batch) -> NDArray[np.float64]:
    return np.asarray(text_errors(network, batch.inputs).nats[0], np.float64)


def _squared_error(network: Any, world: Any, batch: Batch) -> NDArray[np.float64]:
    made = outputs(network, batch.inputs)
    return np.asarray(world.regret(batch, made) / batch.inputs[0].size)


def _blind(modality: str, objective: str, train: Batch, test: Batch) -> float:
    """Return the test loss of the best constant output, fitted on ``train``."""
    if objective == CLASSIFY:
        share = np.bincount(train.facts["label"], minlength=4) / len(train)
        return float(-np.log(share[test.facts["label"]]).mean())
    if modality == IMAGES:
        return float(np.square(test.inputs - train.inputs.mean(axis=0)).mean())
    vocabulary = int(max(train.inputs.max(), test.inputs.max())) + 1
    nats: float = 0.0
    for column in range(test.inputs.shape[1]):
        # one half is added to each count (Jeffreys), so that no token of the test is impossible
        count = np.bincount(train.inputs[:, column], minlength=vocabulary) + 0.5
        nats -= float(np.log(count / count.sum())[test.inputs[:, column]].mean())
    return float(nats / test.inputs.shape[1])
