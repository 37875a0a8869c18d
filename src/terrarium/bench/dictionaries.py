"""Training dictionaries beside SAELens and dictionary_learning, on the same activations.

Both rivals pin versions that terrarium does not share, so each runs under a Python of its own,
named by an environment variable (`PYTHONS`); a rival without one is skipped and the row says so.

Every arm sees the same rows of one of our organisms (a transformer grown on two-digit arithmetic,
its residual stream) in batches of the same size, for as many steps, with the same warm-up and
decay, in one thread; a short and a long training of each kind.  Terrarium trains once, at its
default learning rate; for a rival the rates of `RATES` are climbed as long as its FVU falls, and
the best of its dictionaries is compared.  Fraction of variance unexplained, L0 and the share of
dead latents are measured on other rows, by one function for all.  Seconds are CPU seconds of the
training call alone, fair on a busy machine; wall-clock seconds stand beside them, and the floor:
the encoder's dense products, which no method avoids.

Where SAELens is there, files written here are opened with it, and what it encodes and decodes is
compared with what we do.

Run ``terrarium bench dictionaries``; about ten minutes with both rivals.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from terrarium.errors import InputError
from terrarium.instruments.dictionaries.fitted import SparseDictionary
from terrarium.instruments.dictionaries.kinds import BatchTopK, Gated, JumpReLU, ReLU, TopK
from terrarium.instruments.dictionaries.metrics import DictionaryScores, evaluate
from terrarium.instruments.dictionaries.rows import site_rows
from terrarium.instruments.dictionaries.saelens import save_saelens
from terrarium.instruments.dictionaries.train import Training
from terrarium.organisms.grow import grow
from terrarium.organisms.kernels import fast_float32
from terrarium.organisms.recipe import Recipe
from terrarium.randomness import generator
from terrarium.readings.read import read
from terrarium.store import Store

Float32 = NDArray[np.float32]

PYTHONS = {
    "sae_lens": "TERRARIUM_SAELENS_PYTHON",
    "dictionary_learning": "TERRARIUM_DICTIONARY_LEARNING_PYTHON",
}
"""Which environment variable names the Python of each rival."""

RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
"""Learning rates that a rival may choose among; the defaults of both lie within them."""

FIRST_RATE = 3e-3
"""Where the search among `RATES` starts."""

SCRIPT = Path(__file__).with_name("dictionaries_rival.py")
LIMIT_S = 1800.0


@dataclass(frozen=True)
class Case:
    """Sizes of one comparison."""

    kind: str
    features: int = 1024
    active: int = 16
    batch: int = Training.batch
    samples: int = 200_000


CASES = tuple(Case(kind, samples=n) for kind in ("topk", "batch_topk") for n in (200_000, 800_000))


def activations(rows: int = 120_000, seed: int = 0) -> Float32:
    """Return ``(rows, 64)``: the residual stream of a small grown transformer, all positions.

    ``seed`` is the organism's; the defaults of `kinds` were chosen on seed 0.
    """
    phase = {
        "name": "answers",
        "sources": [{"world": "arithmetic", "options": {"digits": 2}}],
        "objective": {"kind": "next_token"},
        "steps": 150,
        "batch": 128,
    }
    model = {"kind": "transformer", "layers": 2, "width": 64, "heads": 4, "mlp": 84}
    recipe = Recipe.model_validate({"name": "bench", "model": model, "phases": [phase]})
    with tempfile.TemporaryDirectory() as folder:
        (organism,) = grow([(recipe, seed)], Store(Path(folder) / "store"))
        network, world = organism.network(), organism.world
        batch = world.sample(rows // 6, generator("bench", "dictionaries"), "train")
        reading = read(network, batch, "resid.post[1]", "all")
    found = site_rows(reading, "resid.post[1]")
    return found[np.random.default_rng(0).permutation(len(found))[:rows]]


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Compute in ``count`` threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def ours(case: Case, x: Float32, count: int) -> tuple[SparseDictionary, float, float]:
    """Return our dictionary, its wall-clock and its CPU seconds."""
    training = Training(samples=case.samples // case.batch * case.batch, batch=case.batch)
    spec = {"topk": TopK, "batch_topk": BatchTopK}[case.kind](
        case.features, training, active=case.active
    )
    with threads(count):
        wall, cpu = time.perf_counter(), time.process_time()
        fitted = spec.fit(x)
        return fitted, time.perf_counter() - wall, time.process_time() - cpu


def floor(case: Case, x: Float32, count: int) -> float:
    """Return CPU seconds of the dense encoder products of all steps alone."""
    weights, rows = torch.randn(x.shape[1], case.features), torch.from_numpy(x[: case.batch])
    out = torch.empty(len(rows), case.features)
    steps = case.samples // case.batch
    with threads(count), fast_float32():
        began = time.process_time()
        for _ in range(min(steps, 50)):
            torch.mm(rows, weights, out=out)
        return (time.process_time() - began) * steps / min(steps, 50)


def job(python: str, **what: Any) -> dict[str, NDArray[Any]]:
    """Run a job of `SCRIPT` under ``python``; return its arrays.

    Raises ``InputError`` with the last line it wrote where it fails.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "x.npy", what.pop("x"))
        paths = {"x": str(folder / "x.npy"), "out": str(folder / "out.npz")}
        (folder / "job.json").write_text(json.dumps(what | paths), encoding="utf-8")
        environment = os.environ | {
            "OMP_NUM_THREADS": str(what["threads"]),
            "WANDB_MODE": "disabled",
        }
        done = subprocess.run(
            [python, str(SCRIPT), str(folder / "job.json")],
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            env=environment,
            check=False,
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise InputError(f"{what['do']} under {python} failed: {last}")
        with np.load(folder / "out.npz") as found:
            return {key: found[key] for key in found.files}


def theirs(arrays: dict[str, NDArray[Any]], case: Case) -> SparseDictionary:
    """Return a rival's weights as one of our dictionaries, so that all are judged alike."""
    by_row = case.kind == "topk"
    return SparseDictionary(
        "topk" if by_row else "jumprelu",
        arrays["W_enc"].T,
        arrays["b_enc"],
        arrays["W_dec"],
        arrays["b_dec"],
        threshold=None if by_row else arrays["threshold"],
        active=case.active if by_row else None,
    )


def compare(
    case: Case, x: Float32, new: Float32, count: int = 1, rates: tuple[float, ...] = RATES
) -> list[dict[str, Any]]:
    """Return a row for each rival: seconds, ratio, FVU, L0 and dead latents of both."""
    fitted, wall, cpu = ours(case, x, count)
    scores = evaluate(fitted, new)
    own = {
        "kind": case.kind,
        "d": x.shape[1],
        "features": case.features,
        "batch": case.batch,
        "samples": case.samples,
        "threads": count,
        "terrarium_cpu_s": cpu,
        "terrarium_wall_s": wall,
        "terrarium_fvu": scores.fvu,
        "terrarium_l0": scores.l0,
        "terrarium_dead": scores.dead,
        "floor_cpu_s": floor(case, x, count),
    }
    rows = []
    for rival, variable in PYTHONS.items():
        python = os.environ.get(variable)
        if not python:
            rows.append({**own, "rival": rival, "skipped": f"{variable} is not set"})
            continue
        try:
            figures = best(rival, python, case, x, new, count, rates)
        except InputError as error:
            rows.append({**own, "rival": rival, "skipped": str(error)})
            continue
        rows.append({**own, "rival": rival, **figures, "ratio": figures["rival_cpu_s"] / cpu})
    return rows


def best(
    rival: str,
    python: str,
    case: Case,
    x: Float32,
    new: Float32,
    count: int,
    rates: tuple[float, ...],
) -> dict[str, Any]:
    """Return the rival's figures at the rate that gives it the lowest FVU.

    Starts at `FIRST_RATE` (or the first of ``rates``, ascending) and goes up, or else down, until
    the FVU rises or is not a number.
    """

    def figures(rate: float) -> dict[str, Any]:
        return trained(rival, python, case, x, new, count, rate)

    start = rates.index(FIRST_RATE) if FIRST_RATE in rates else 0
    least, tried = figures(rates[start]), [rates[start]]
    for way in (rates[start + 1 :], rates[:start][::-1]):
        for rate in way:
            found = figures(rate)
            tried.append(rate)
            if not found["rival_fvu"] < least["rival_fvu"]:
                break
            least = found
        if least["rival_lr"] > rates[start]:
            break
    return {**least, "rival_rates_tried": sorted(tried)}


def trained(
    rival: str, python: str, case: Case, x: Float32, new: Float32, count: int, rate: float
) -> dict[str, Any]:
    """Return the rival's figures at one rate; FVU is infinite where its weights are no numbers."""
    arrays = job(
        python,
        do=rival,
        x=x,
        kind=case.kind,
        features=case.features,
        active=case.active,
        batch=case.batch,
        samples=case.samples,
        warmup=Training.warmup,
        decay=Training.decay,
        lr=rate,
        threads=count,
    )
    figures = {
        "rival_cpu_s": float(arrays["cpu_seconds"]),
        "rival_wall_s": float(arrays["seconds"]),
        "rival_lr": rate,
    }
    if not all(np.isfinite(values).all() for values in arrays.values()):
        return {**figures, "rival_fvu": float("inf"), "rival_l0": None, "rival_dead": None}
    scores: DictionaryScores = evaluate(theirs(arrays, case), new)
    return {
        **figures,
        "rival_fvu": float("inf") if scores.fvu is None else scores.fvu,
        "rival_l0": scores.l0,
        "rival_dead": scores.dead,
    }


def opened_by_saelens(x: Float32) -> list[dict[str, Any]]:
    """Return, for each architecture, how far SAELens' encoding of our files is from ours."""
    python = os.environ.get(PYTHONS["sae_lens"])
    if not python:
        return []
    training = Training(samples=50_000, batch=500)
    rows = []
    for spec in (
        TopK(256, training),
        BatchTopK(256, training),
        JumpReLU(256, training),
        Gated(256, training),
        ReLU(256, training),
    ):
        fitted = spec.fit(x[:20_000])
        with tempfile.TemporaryDirectory() as name:
            folder = save_saelens(fitted, Path(name) / "saved")
            judge = job(python, do="open", x=x[:500], folder=str(folder), threads=1)
        features = fitted.encode(x[:500])
        rows.append(
            {
                "kind": spec.name,
                "rival": "sae_lens opens our file",
                "largest_feature_difference": float(np.abs(features - judge["features"]).max()),
                "largest_decoded_difference": float(
                    np.abs(fitted.decode(features) - judge["decoded"]).max()
                ),
                "largest_feature": float(features.max()),
            }
        )
    return rows


def main(cases: tuple[Case, ...] = CASES, count: int = 1) -> list[dict[str, Any]]:
    """Compare all cases; returns one row for each rival and case, and for each file opened."""
    x = activations()
    x, new = x[:-20_000], x[-20_000:]
    rows = [row for case in cases for row in compare(case, x, new, count)]
    return rows + opened_by_saelens(x)
