"""Fits of coordinate networks, side by side: a hash grid, a plain SIREN, plain Fourier features.

Four photographs that ship with scikit-image, cut to their centre square and resized to 256 x 256
(PSNR over all pixels, dB), and the signed distance of a mesh (mean absolute error, % of the
diagonal of its box, in the volume and near the surface each).  Every network has fewer than 300,000
parameters, the tables of hash grids included, and is grown as any organism is: recipe, engine,
store, truth drawn from the world.

Each fit runs in a process of one thread, two at a time where there are two cores.  Steps are fixed
so that on an otherwise idle machine of 2 cores no fit of a photograph takes more than 60 s and none
of a distance more than 90 s; ``seconds`` is wall-clock time from the recipe to the grown organism
in the store, ``cpu_seconds`` tells what it needed if others had the machine too.

The hash grid is fitted from 3 seeds, the plain networks from the first of them: they get about
four times the hash grid's time.  Run ``terrarium bench coordinate_fits``; about seven minutes.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from terrarium.organisms.grow import Organism, grow
from terrarium.organisms.recipe import (
    CoordinateModel,
    Optimizer,
    Phase,
    Recipe,
    Reconstruction,
    Source,
)
from terrarium.organisms.recipe_models import HashGrid
from terrarium.randomness import generator
from terrarium.store import Store

PHOTOGRAPHS = ("astronaut", "coffee", "chelsea", "rocket")
SEEDS = 3
SIDE = 256
MESH = "meshes/spot.obj"
"""In the folder that ``TERRARIUM_DATA`` names, or in ``shared/data`` beside the checkout."""

DRAWN = 200_000
"""Points of a mesh whose distance is computed before training."""

POINTS = 50_000
"""Points at which an error of distance is measured, in the volume and near the surface each."""

NEAR = 0.01
"""Standard deviation of the step away from the surface, in diagonals."""


@dataclass(frozen=True)
class Arm:
    """One kind of network: how it is built, and how long and fast it trains."""

    name: str
    model: dict[str, Any]
    steps: int
    batch: int
    lr: float

    def recipe(self, source: Source, inputs: int, outputs: int) -> Recipe:
        """Return the recipe of a fit."""
        rate = Optimizer(
            lr=self.lr,
            betas=(0.9, 0.99),
            weight_decay=0.0,
            clip=None,
            warmup=10,
            schedule="cosine",
            final=0.02,
        )
        fit = Phase(
            name="fit",
            sources=(source,),
            objective=Reconstruction(),
            steps=self.steps,
            batch=self.batch,
            optimizer=rate,
        )
        model = CoordinateModel(inputs=inputs, outputs=outputs, **self.model)
        return Recipe(name=self.name, model=model, phases=(fit,))


_GRID_2D = HashGrid(levels=6, features=2, table=2**15, coarsest=16, finest=255)
_GRID_3D = HashGrid(levels=6, features=2, table=2**13, coarsest=8, finest=64)

PICTURE_ARMS = (
    Arm("hash grid", {"encoding": "hash", "grid": _GRID_2D, "width": 64}, 1000, 8192, 1e-2),
    Arm(
        "SIREN",
        {"encoding": "none", "activation": "sine", "layers": 3, "width": 128},
        2500,
        4096,
        3e-3,
    ),
    Arm(
        "Fourier features",
        {"frequencies": 128, "scale": 6.0, "layers": 3, "width": 128},
        2500,
        4096,
        1e-2,
    ),
)
DISTANCE_ARMS = (
    Arm("hash grid", {"encoding": "hash", "grid": _GRID_3D, "width": 64}, 1200, 4096, 5e-3),
    Arm(
        "SIREN",
        {"encoding": "none", "activation": "sine", "layers": 3, "width": 128},
        2500,
        4096,
        3e-3,
    ),
    Arm(
        "Fourier features",
        {"frequencies": 128, "scale": 0.7, "layers": 3, "width": 128},
        2500,
        4096,
        1e-2,
    ),
)


@dataclass(frozen=True)
class Job:
    """One fit: of a photograph by name, or of the distance to a mesh, by its path."""

    arm: Arm
    seed: int
    photograph: str = ""
    mesh: str = ""


def main(
    photographs: Sequence[str] = PHOTOGRAPHS,
    seeds: int = SEEDS,
    steps: int | None = None,
) -> list[dict[str, Any]]:
    """Fit all; returns one row per fit and measure, and a mean over each network's photographs.

    ``steps`` replaces every arm's own number (for trying it out).  Where the mesh is not there,
    the distance fitted is that of the world's own sphere, and the rows say so.
    """
    jobs = _jobs(photographs, seeds)
    cores = min(2, os.cpu_count() or 1)
    with ProcessPoolExecutor(cores, mp_context=get_context("spawn")) as pool:
        found = list(pool.map(_fit, jobs, [steps] * len(jobs)))
    rows = [row for each in found for row in each]
    return rows + _means(rows)


def _jobs(photographs: Sequence[str], seeds: int) -> list[Job]:
    jobs = [
        Job(arm, seed, photograph=name)
        for arm in PICTURE_ARMS
        for name in photographs
        for seed in range(seeds if arm is PICTURE_ARMS[0] else 1)
    ]
    return jobs + [Job(arm, 0, mesh=str(mesh_file() or "")) for arm in DISTANCE_ARMS]


def mesh_file() -> Path | None:
    """Return the mesh, or None where it is not there."""
    beside = Path(__file__).parents[4] / "shared" / "data"
    path = Path(os.environ.get("TERRARIUM_DATA", beside)) / MESH
    return path if path.is_file() else None


def _fit(job: Job, steps: int | None) -> list[dict[str, Any]]:
    """Grow one organism and measure it."""
    torch.set_num_threads(1)
    arm = job.arm if steps is None else Arm(job.arm.name, job.arm.model, steps, 1024, job.arm.lr)
    if job.photograph:
        source = Source(world="picture", options={"image": job.photograph, "side": SIDE})
        recipe = arm.recipe(source, 2, 3)
    else:
        inner = {"scene": job.mesh} if job.mesh else {}
        options = {"world": "scenes", "options": inner, "rows": DRAWN if steps is None else 5000}
        recipe = arm.recipe(Source(world="finite", options=options), 3, 1)
    with tempfile.TemporaryDirectory() as folder:
        wall, cpu = time.perf_counter(), time.process_time()
        (organism,) = grow([(recipe, job.seed)], Store(Path(folder)))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        measured = _decibels(organism) if job.photograph else _distances(organism)
        what = job.photograph or (Path(job.mesh).stem if job.mesh else "sphere")
        common = {
            "network": arm.name,
            "fitted": what,
            "seed": job.seed,
            "parameters": organism.network().parameters_per_member,
            "steps": arm.steps,
            "seconds": wall,
            "cpu_seconds": cpu,
        }
    return [common | {"measure": name, "value": value} for name, value in measured.items()]


@torch.no_grad()
def _says(organism: Organism, points: Any) -> Any:
    """Return a grown network's outputs ``(n, d)`` at points, a few at a time."""
    network = organism.network().eval()
    parts = torch.split(torch.from_numpy(points.astype(np.float32)), 1 << 15)
    return torch.cat([network(part[None])[0] for part in parts]).numpy()


def _decibels(organism: Organism) -> dict[str, float]:
    world = organism.world
    return {"PSNR, dB": world.psnr(_says(organism, world.grid().inputs))}


def _distances(organism: Organism) -> dict[str, float]:
    """Return the mean absolute errors, % of the diagonal.

    The points are drawn from the whole box, the cells that training never sees included.
    """
    world, rng = organism.world.inner, generator("coordinate fits")
    low, high = np.asarray(world.box)
    surface = world.oracle.surface(POINTS, rng)
    near = surface + rng.normal(0, NEAR * world.diagonal, surface.shape)
    places = {
        "error in the volume, % of diagonal": rng.uniform(low, high, (POINTS, 3)),
        "error near the surface, % of diagonal": near,
    }
    errors = {}
    for name, points in places.items():
        said = _says(organism, points)[:, 0]
        far = np.abs(said - world.oracle.distance(points.astype(np.float32).astype(np.float64)))
        errors[name] = float(100 * far.mean() / world.diagonal)
    return errors


def _means(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return each network's mean over photographs and seeds."""
    of_photographs = [row for row in rows if row["measure"] == "PSNR, dB"]
    means = []
    for name in dict.fromkeys(row["network"] for row in of_photographs):
        mine = [row for row in of_photographs if row["network"] == name]
        average = {
            column: statistics.fmean(row[column] for row in mine)
            for column in ("seconds", "cpu_seconds", "value")
        }
        means.append({**mine[0], "fitted": "mean of photographs", "seed": "all", **average})
    return means
