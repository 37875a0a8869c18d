"""Growing against what a user would pick instead: the `transformers` Trainer, and a bare loop.

Three arms train the same decoder (about 100,000 parameters, float32) from the same first weights
on the same batches with the same AdamW, and reach the same loss on held-out rows:

* ``terrarium``: as `terrarium.organisms.grow` runs on this machine, one process of one thread for
  each core, in each a fleet of as many members as its rule allows;
* ``trainer``: `transformers.Trainer` on ``LlamaForCausalLM`` with all cores, one organism;
* ``bare``: a plain PyTorch loop on the same ``LlamaForCausalLM`` with all cores, one organism.

The measure is organism-tokens per second of wall-clock time spent training (not of loading and
building): medians over repetitions, in which the arms take turns.  With a GPU, terrarium is one
fleet of 64 on it, and the others have it for one organism at a time.

Run ``terrarium bench growing`` on a machine that does nothing else; under three minutes.  Threads
that wait for each other suffer far more from other work than processes that do not, so on a busy
machine the ratios flatter terrarium; ``load_before`` (runnable processes when the benchmark began)
tells.
"""

from __future__ import annotations

import functools
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from terrarium.organisms.engine import Runner, run_phase
from terrarium.organisms.feed import own_turn
from terrarium.organisms.grow import TOKENS_PER_STEP
from terrarium.organisms.offline import import_offline, quiet
from terrarium.organisms.recipe import NextToken, Optimizer, Phase, Source, TransformerModel
from terrarium.organisms.transformer import Transformer
from terrarium.worlds.base import Batch

TOKENS, VOCABULARY = 16, 64
MODEL = TransformerModel(
    layers=2, width=64, heads=4, mlp=176, vocabulary=VOCABULARY, context=TOKENS
)
RATE = Optimizer(lr=3e-3, betas=(0.9, 0.98), weight_decay=0.0, clip=1.0, warmup=0)
"""Without decay and warm-up: the Trainer does both a little differently."""

GPU_MEMBERS = 64
REPETITIONS = 5
PATIENCE = 70.0
"""Seconds after which no further repetition of a task starts: on a busy machine fewer must do."""


@dataclass(frozen=True)
class Task:
    """What each organism learns from: ``steps`` batches of ``rows`` examples."""

    rows: int
    steps: int


TASKS = (Task(16, 200), Task(64, 150))


@dataclass(frozen=True)
class Outcome:
    """When training began and ended (s, one clock for all processes), and what came of it."""

    start: float
    stop: float
    tokens: int
    loss: float


@dataclass(frozen=True)
class Arm:
    """A way to train: how it uses the machine, and one run of it."""

    plan: str
    train: Callable[[], list[Outcome]]


def main(repetitions: int = REPETITIONS) -> list[dict[str, Any]]:
    """Return a row per task and arm: the plan, tokens per second, terrarium's ratio, the loss."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    cores, gpu = _cores(), torch.cuda.is_available()
    processes = 1 if gpu else cores
    # spawned, because a process that has computed with threads must not be forked
    start = functools.partial(ProcessPoolExecutor, mp_context=get_context("spawn"))
    rows = []
    with (
        start(processes, initializer=torch.set_num_threads, initargs=(1,)) as growers,
        start(1, initializer=torch.set_num_threads, initargs=(cores,)) as other,
    ):
        for task in TASKS:
            members = GPU_MEMBERS if gpu else max(1, TOKENS_PER_STEP // (task.rows * TOKENS))
            plan = f"1 x {cores} threads, one organism"
            arms = {
                "terrarium": Arm(
                    f"{processes} x 1 thread, fleets of {members}",
                    functools.partial(_grow_all, growers, task, members, processes),
                ),
                "trainer": Arm(plan, functools.partial(_alone, other, train_by_trainer, task)),
                "bare": Arm(plan, functools.partial(_alone, other, train_bare, task)),
            }
            rows += [{**row, "load_before": load} for row in timed(task, arms, repetitions)]
    return rows


def timed(task: Task, arms: dict[str, Arm], repetitions: int) -> list[dict[str, Any]]:
    """Let the arms take turns; return a row for each."""
    began = time.monotonic()
    rates: dict[str, list[float]] = {name: [] for name in arms}
    losses = {}
    for repetition in range(-1, repetitions):  # the first one warms up
        for name, arm in arms.items():
            outcomes = arm.train()
            spent = max(o.stop for o in outcomes) - min(o.start for o in outcomes)
            losses[name] = outcomes[0].loss
            if repetition >= 0:
                rates[name].append(sum(o.tokens for o in outcomes) / spent)
        if repetition >= 0 and time.monotonic() - began > PATIENCE:
            break
    return [
        {
            "rows": task.rows,
            "tokens": TOKENS,
            "arm": name,
            "plan": arms[name].plan,
            "tokens_per_second": statistics.median(found),
            "ratio": statistics.median(
                a / b for a, b in zip(rates["terrarium"], found, strict=True)
            ),
            "held_out_loss": losses[name],
            "optimal_loss": optimal_loss(),
            "steps": task.steps,
            "repetitions": len(found),
        }
        for name, found in rates.items()
    ]


def _cores() -> int:
    known = getattr(os, "sched_getaffinity", None)
    return len(known(0)) if known else os.cpu_count() or 1


# what is learnt: a Markov chain


@functools.cache
def chain() -> NDArray[np.float64]:
    """Return the transition matrix of the chain, ``(token, next token)``."""
    return np.random.default_rng(0).dirichlet(np.full(VOCABULARY, 0.1), VOCABULARY)


@functools.cache
def examples(split: str) -> NDArray[np.int64]:
    """Return rows of the chain, ``(n, TOKENS)``."""
    rng = np.random.default_rng({"train": 1, "test": 2}[split])
    rows = np.zeros((20_000 if split == "train" else 2_000, TOKENS), np.int64)
    rows[:, 0] = rng.integers(VOCABULARY, size=len(rows))
    steps = chain().cumsum(axis=1)
    for t in range(1, TOKENS):
        drawn = (steps[rows[:, t - 1]] < rng.random((len(rows), 1))).sum(axis=1)
        rows[:, t] = np.minimum(drawn, VOCABULARY - 1)
    return rows


def optimal_loss() -> float:
    """Return the held-out loss of the chain itself, nats per token."""
    rows = examples("test")
    return float(-np.log(chain()[rows[:, :-1], rows[:, 1:]]).mean())


class Rows:
    """A world in as much as growing needs it: rows drawn from those of the chain."""

    def sample(self, n: int, rng: np.random.Generator, split: str = "train") -> Batch:
        """Return ``n`` rows with next-token targets."""
        rows = examples(split)
        inputs = rows[rng.integers(len(rows), size=n)]
        targets = np.full_like(inputs, -100)
        targets[:, :-1] = inputs[:, 1:]
        return Batch(inputs, targets, {}, {}, np.full(n, TOKENS))


def runner(task: Task, seed: int) -> Runner:
    """Return an organism's place in the phase; its seed decides its batches."""
    phase = Phase(
        name="chain",
        sources=(Source(world="chain"),),
        objective=NextToken(),
        steps=task.steps,
        batch=task.rows,
        optimizer=RATE,
    )
    return Runner(phase, 0, seed, [own_turn(phase, [Rows()])])


# the arms; the first organism of each is the one of seed 0


def _grow_all(
    growers: ProcessPoolExecutor, task: Task, members: int, processes: int
) -> list[Outcome]:
    first = range(0, processes * members, members)
    jobs = [growers.submit(grow_fleet, task, range(s, s + members)) for s in first]
    return [job.result() for job in jobs]


def _alone(
    other: ProcessPoolExecutor, train: Callable[[Task], Outcome], task: Task
) -> list[Outcome]:
    return [other.submit(train, task).result()]


def grow_fleet(task: Task, seeds: range) -> Outcome:
    """Train a fleet as `terrarium.organisms.grow` does."""
    network = Transformer(MODEL, [("organism", seed) for seed in seeds])
    if torch.cuda.is_available():
        network.to_device("cuda")
    members = [runner(task, seed) for seed in seeds]
    start = time.monotonic()
    run_phase(network, members)
    _finish()
    stop = time.monotonic()
    alone = network.select([0])
    alone.load_member_state(0, members[0].final)
    loss = _held_out(lambda rows: alone(rows[None])[0], alone.device)
    return Outcome(start, stop, len(seeds) * task.rows * TOKENS * task.steps, loss)


def train_bare(task: Task) -> Outcome:
    """Train one organism in a plain loop."""
    model, batches = _same_start(task)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=RATE.lr, betas=RATE.betas, weight_decay=0.0, fused=True
    )
    model.train()
    start = time.monotonic()
    for batch in torch.split(batches, task.rows):
        rows = batch.to(model.device)
        model(input_ids=rows, labels=rows).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    _finish()
    stop = time.monotonic()
    loss = _held_out(lambda rows: model(input_ids=rows).logits, model.device)
    return Outcome(start, stop, batches.numel(), loss)


def train_by_trainer(task: Task) -> Outcome:
    """Train one organism with `transformers.Trainer`, logging and saving nothing."""
    transformers = import_offline("transformers")
    model, batches = _same_start(task)
    times: dict[str, float] = {}

    class Clock(transformers.TrainerCallback):  # type: ignore[misc,name-defined]
        def on_train_begin(self, *args: Any, **options: Any) -> None:
            times["start"] = time.monotonic()

        def on_train_end(self, *args: Any, **options: Any) -> None:
            _finish()
            times["stop"] = time.monotonic()

    class InOrder(transformers.Trainer):  # type: ignore[misc,name-defined]
        def get_train_dataloader(self) -> Any:
            batched: Any = torch.utils.data.DataLoader(
                self.train_dataset, task.rows, collate_fn=transformers.default_data_collator
            )
            return self.accelerator.prepare(batched)

    # the first token is never predicted, and must not count as a label
    labels = torch.cat([torch.full((len(batches), 1), -100), batches[:, 1:]], dim=1)
    data = [{"input_ids": x, "labels": y} for x, y in zip(batches, labels, strict=True)]
    with tempfile.TemporaryDirectory() as folder, quiet():
        settings = transformers.TrainingArguments(
            folder,
            max_steps=task.steps,
            per_device_train_batch_size=task.rows,
            learning_rate=RATE.lr,
            lr_scheduler_type="constant",
            adam_beta1=RATE.betas[0],
            adam_beta2=RATE.betas[1],
            weight_decay=0.0,
            max_grad_norm=1.0,
            optim="adamw_torch_fused",
            logging_strategy="no",
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=not torch.cuda.is_available(),
        )
        trainer = InOrder(model=model, args=settings, train_dataset=data, callbacks=[Clock()])
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
    loss = _held_out(lambda rows: model(input_ids=rows).logits, model.device)
    return Outcome(times["start"], times["stop"], batches.numel(), loss)


def _same_start(task: Task) -> tuple[Any, torch.Tensor]:
    """Return the organism of seed 0 as a `transformers` model, and all its batches in one."""
    transformers = import_offline("transformers")
    with tempfile.TemporaryDirectory() as folder, quiet():
        Transformer(MODEL, [("organism", 0)]).save(0, Path(folder))
        model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    if torch.cuda.is_available():
        model.cuda()
    batches = np.concatenate([runner(task, 0).batch(step).inputs for step in range(task.steps)])
    return model, torch.from_numpy(batches)


@torch.no_grad()
def _held_out(logits: Callable[[torch.Tensor], torch.Tensor], device: torch.device) -> float:
    """Return the mean loss on held-out rows, nats per token."""
    rows = torch.from_numpy(examples("test")).to(device)
    return float(F.cross_entropy(logits(rows)[:, :-1].flatten(0, 1), rows[:, 1:].flatten()))


def _finish() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
