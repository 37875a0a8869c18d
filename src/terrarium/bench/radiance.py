"""What a fast picture of a radiance field costs beside the full quadrature, and their agreement.

200 x 200 pixels of each field, four arms in one run: the fast renderer's first picture, its grid
included, and its next one; the published sampling (64 and 64 + 128 samples a ray); and the full
quadrature of 1,024 samples a ray.  The last two are run on one pixel in 16, and their seconds
multiplied (every ray costs the same there); agreement is measured on those pixels.

``counted`` is a ratio too: of the multiplications and additions inside the networks, which no busy
machine disturbs.  Run ``terrarium bench radiance``; about a minute on two cores.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrarium.organisms.build import build
from terrarium.organisms.engine import Runner, run_phase
from terrarium.organisms.feed import own_turn
from terrarium.organisms.radiance import RadianceField, net_shapes
from terrarium.organisms.radiance_fast import FastRenderer
from terrarium.organisms.radiance_file import load_radiance
from terrarium.organisms.radiance_render import (
    Hierarchical,
    RadiancePicture,
    Uniform,
    psnr,
    render_radiance,
)
from terrarium.organisms.recipe import Optimizer, Phase, RadianceModel, Rendering, Source
from terrarium.worlds.base import worlds
from terrarium.worlds.scenes.camera import Camera, on_sphere

SCENES = ("lego", "chair", "hotdog")
SIDE = 200
STRIDE = 4
FULL = 1024


def main(side: int = SIDE, samples: int = FULL) -> list[dict[str, Any]]:
    """Time all arms; returns one row per field."""
    return [_row(name, field, side, samples) for name, field in fields()]


def fields() -> Iterator[tuple[str, RadianceField]]:
    """Yield the published fields where they are there, else a small one that is grown first.

    They lie in the folder ``nerf`` of the one that ``TERRARIUM_DATA`` names, or of ``shared/data``
    beside the checkout.
    """
    beside = Path(__file__).parents[4] / "shared" / "data"
    folder = Path(os.environ.get("TERRARIUM_DATA", beside)) / "nerf"
    found = [name for name in SCENES if (folder / f"{name}.ckpt").is_file()]
    for name in found:
        yield name, load_radiance(folder / f"{name}.ckpt")
    if not found:
        yield "a sphere, grown here", _grown()


def _grown() -> RadianceField:
    model = RadianceModel(position={"frequencies": 4}, widths=(32,), feature=None, coarse=True)
    views = {"quantity": "view"}
    phase = Phase(
        name="fit",
        sources=(Source(world="scenes", options=views),),
        objective=Rendering(samples=32),
        steps=150,
        batch=128,
        optimizer=Optimizer(lr=1e-2, warmup=5),
    )
    network: RadianceField = build(model, [("bench", 0)])
    world = worlds.get("scenes").model_validate(views)
    run_phase(network, [Runner(phase, 0, 0, [own_turn(phase, [world])])])
    return network.eval()


@dataclass(frozen=True)
class Every:
    """One pixel in ``stride ** 2`` of a camera's picture."""

    camera: Camera
    stride: int

    def rays(self, unit: bool = True) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return origins and directions of those pixels."""
        origins, directions = (self.of(part) for part in self.camera.rays(unit))
        return origins, directions

    def of(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Return those pixels of ``(rows, columns, ...)``."""
        chosen: NDArray[Any] = pixels[:: self.stride, :: self.stride]
        return chosen


def _row(name: str, field: RadianceField, side: int, samples: int) -> dict[str, Any]:
    camera = Camera(side, side, field.spec.fov_rad, on_sphere(4.0, np.pi / 4, np.pi / 6))
    some = Every(camera, STRIDE)
    fast = FastRenderer(field, samples)
    first, seconds, cpu = _timed(lambda: fast.render(camera))
    _, next_seconds, _ = _timed(lambda: fast.render(camera))
    published, published_s, _ = _timed(lambda: render_radiance(field, some, Hierarchical()))
    full, full_s, full_cpu = _timed(lambda: render_radiance(field, some, Uniform(samples)))
    times = side * side / full.colour[..., 0].size
    return {
        "field": name,
        "seconds": seconds,
        "cpu_seconds": cpu,
        "next_seconds": next_seconds,
        "published_seconds": published_s * times,
        "full_seconds": full_s * times,
        "ratio": full_cpu * times / cpu,
        "counted": times * operations(field, full) / operations(field, first),
        "psnr_db": psnr(some.of(first.colour), full.colour),
        "published_psnr_db": psnr(published.colour, full.colour),
        "gflop": operations(field, first) / 1e9,
    }


def operations(field: RadianceField, picture: RadiancePicture) -> float:
    """Return how many multiplications and additions a picture asked of the finest net."""
    each = {name: 2 * a * b for name, (a, b) in net_shapes(field.spec).items()}
    of_density = sum(n for name, n in each.items() if name.startswith(("trunk", "density")))
    density, colour = picture.asked
    return float(density * of_density + colour * (sum(each.values()) - of_density))


def _timed(draw: Callable[[], RadiancePicture]) -> tuple[RadiancePicture, float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    picture = draw()
    return picture, time.perf_counter() - wall, time.process_time() - cpu
