"""Runs under another Python, which has SAELens or dictionary_learning and no terrarium.

``python dictionaries_rival.py JOB.json``: a job names the library, what to do, and files.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

Job = dict[str, Any]
Done = tuple[tuple[float, float], dict[str, Any]]
"""Seconds and processor seconds, and arrays."""


def batches(x: Any, batch: int, seed: int = 0) -> Iterator[torch.Tensor]:
    """Yield batches without end, every row once an epoch, as terrarium does."""
    rng = np.random.default_rng(seed)
    left = np.empty(0, np.int64)
    while True:
        while len(left) < batch:
            left = np.concatenate([left, rng.permutation(len(x))])
        taken, left = left[:batch], left[batch:]
        yield torch.from_numpy(x[taken])


def by_sae_lens(job: Job, x: Any) -> Done:
    """Train with ``SAETrainer``; return seconds, processor seconds, weights."""
    from sae_lens import (
        BatchTopKTrainingSAE,
        BatchTopKTrainingSAEConfig,
        TopKTrainingSAE,
        TopKTrainingSAEConfig,
    )
    from sae_lens.config import SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    kinds = {
        "topk": (TopKTrainingSAE, TopKTrainingSAEConfig),
        "batch_topk": (BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig),
    }
    kind, config = kinds[job["kind"]]
    steps = job["samples"] // job["batch"]
    torch.manual_seed(0)
    sae = kind(
        config(
            d_in=x.shape[1],
            d_sae=job["features"],
            k=job["active"],
            normalize_activations="expected_average_only_in",
        )
    )
    settings = SAETrainerConfig(
        total_training_samples=steps * job["batch"],
        train_batch_size_samples=job["batch"],
        lr=job["lr"] or 3e-4,
        lr_end=0.0,
        lr_warm_up_steps=int(job["warmup"] * steps),
        lr_decay_steps=int(job["decay"] * steps),
        n_batches_for_norm_estimate=10,
    )
    trainer = SAETrainer(cfg=settings, sae=sae, data_provider=batches(x, job["batch"]))
    wall, cpu = time.perf_counter(), time.process_time()
    trainer.fit()
    spent = time.perf_counter() - wall, time.process_time() - cpu
    state = {name: value.detach().clone() for name, value in sae.state_dict().items()}
    sae.process_state_dict_for_saving_inference(state)
    threshold = state.get("threshold", torch.zeros(0))
    names = ("W_enc", "b_enc", "W_dec", "b_dec")
    return spent, {name: state[name].numpy() for name in names} | {"threshold": threshold.numpy()}


def by_dictionary_learning(job: Job, x: Any) -> Done:
    """Train with ``trainSAE``; return seconds, processor seconds, weights."""
    from dictionary_learning.trainers.batch_top_k import BatchTopKSAE, BatchTopKTrainer
    from dictionary_learning.trainers.top_k import AutoEncoderTopK, TopKTrainer
    from dictionary_learning.training import trainSAE

    kinds = {"topk": (TopKTrainer, AutoEncoderTopK), "batch_topk": (BatchTopKTrainer, BatchTopKSAE)}
    trainer, kind = kinds[job["kind"]]
    steps = job["samples"] // job["batch"]
    config = {
        "trainer": trainer,
        "dict_class": kind,
        "steps": steps,
        "activation_dim": x.shape[1],
        "dict_size": job["features"],
        "k": job["active"],
        "layer": 0,
        "lm_name": "none",
        "lr": job["lr"],
        "warmup_steps": int(job["warmup"] * steps),
        "decay_start": int((1 - job["decay"]) * steps),
        "threshold_start_step": int(0.5 * steps),
        "seed": 0,
        "device": "cpu",
    }
    folder = Path(job["out"]).parent
    wall, cpu = time.perf_counter(), time.process_time()
    trainSAE(
        batches(x, job["batch"]),
        [config],
        steps,
        save_dir=str(folder),
        normalize_activations=True,
        device="cpu",
    )
    spent = time.perf_counter() - wall, time.process_time() - cpu
    state = torch.load(folder / "trainer_0" / "ae.pt", weights_only=True)
    threshold = np.zeros(0, np.float32)
    if job["kind"] == "batch_topk":
        threshold = np.full(job["features"], float(state["threshold"]), np.float32)
    return spent, {
        "W_enc": state["encoder.weight"].numpy().T,
        "b_enc": state["encoder.bias"].numpy(),
        "W_dec": state["decoder.weight"].numpy().T,
        "b_dec": state["b_dec"].numpy(),
        "threshold": threshold,
    }


def opened(job: Job, x: Any) -> Done:
    """Open a folder with SAELens; return what it encodes and decodes."""
    from sae_lens import SAE

    sae = SAE.load_from_disk(job["folder"])
    with torch.no_grad():
        features = sae.encode(torch.from_numpy(x))
        return (0.0, 0.0), {"features": features.numpy(), "decoded": sae.decode(features).numpy()}


DO: dict[str, Callable[[Job, Any], Done]] = {
    "sae_lens": by_sae_lens,
    "dictionary_learning": by_dictionary_learning,
    "open": opened,
}


def main() -> None:
    """Do the job; write arrays and seconds."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    torch.set_num_threads(job["threads"])
    spent, arrays = DO[job["do"]](job, np.load(job["x"]))
    np.savez(job["out"], seconds=spent[0], cpu_seconds=spent[1], **arrays)


if __name__ == "__main__":
    main()
