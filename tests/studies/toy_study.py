"""A study of toy cells that do what their spec says: measure, raise, die, wait.

Imported by the tests and by the worker processes they start; ``TOY_LOG`` names a folder in which
every start of a cell leaves a file.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from terrarium.errors import StoreError
from terrarium.evidence.rows import Row, measured
from terrarium.progress import Progress
from terrarium.randomness import generator
from terrarium.studies.base import Cell, Study

if os.environ.get("TOY_BROKEN"):
    raise ImportError("a broken toy")


def cells(settings: Mapping[str, Any]) -> list[Cell]:
    made = []
    for seed in range(settings["seeds"]):
        spec = {"seed": seed, "act": settings["act"], "pause": settings["pause"]}
        made.append(Cell(f"seed {seed}", spec, cost_s=1.0 + seed, memory_mb=60))
    for at, act in enumerate(settings["extra"]):
        needs = ("seed 0",) if act == "after" else ("extra 0",) if act == "after-extra" else ()
        made.append(Cell(f"extra {at}", {"act": act, "seed": -1}, needs=needs))
    return made


def starts(name: str = "*") -> list[str]:
    return sorted(path.name.split("@")[0] for path in Path(os.environ["TOY_LOG"]).glob(f"{name}@*"))


def measure(cell: Cell, home: str, progress: Progress) -> Sequence[Row]:
    (Path(os.environ["TOY_LOG"]) / f"{cell.name}@{uuid.uuid4().hex}").write_text(str(os.getpid()))
    act, seed = cell.spec["act"], int(cell.spec["seed"])
    if act == "raise":
        raise ValueError(f"no value\nfor seed {seed}")
    if act == "raise-once" and len(starts(cell.name)) == 1:
        raise ValueError("not yet")
    if act == "die" or (act == "die-once" and len(starts(cell.name)) == 1):
        os.kill(os.getpid(), signal.SIGKILL)
    if act == "leave":
        sys.stderr.write("a last word\n")
        sys.stderr.flush()
        os._exit(7)
    if act == "exhaust" and len(starts(cell.name)) == 1:
        raise MemoryError
    if act == "full":
        raise StoreError("The store is full; free some space.")
    if act == "junk":
        return ["not a row"]  # type: ignore[list-item]
    if act == "torch":
        import torch

        sys.stdout.write("library chatter on standard output\n")
        return [measured("threads", torch.get_num_threads(), unit="threads", n=1)]
    parts = 10
    progress.start(cell.name, parts, "parts")
    for _ in range(parts):
        time.sleep(float(cell.spec.get("pause", 0)) / parts)
        progress.advance(cell.name, 1, "pausing")
    progress.finish(cell.name)
    x = generator("toy", seed).normal(size=(300, 300))
    product = float(np.linalg.norm(x @ x.T @ x))
    odd = measured("odd", None, unit="nats", n=3, reason="undefined on purpose", layer=seed)
    return [measured("norm", product, unit="none", n=300, seed=seed, act=act), odd]


STUDY = Study(
    name="toy",
    question="Does the runner run?",
    hypotheses=(),
    defaults={
        "smoke": {"seeds": 2, "act": "measure", "pause": 0.0, "extra": ()},
        "quick": {"seeds": 4, "act": "measure", "pause": 0.2, "extra": ()},
    },
    cells=cells,
    measure=measure,
    figures=lambda rows: [],
    code=("toy_study",),
)


def main() -> None:
    """Run the study as a process of its own: HOME SIZE OVERRIDES-AS-JSON WORKERS."""
    from terrarium.store import Store
    from terrarium.studies.runner import run_study

    home, size, overrides, workers = sys.argv[1:5]
    try:
        result = run_study(STUDY, size, json.loads(overrides), Store(home), workers=int(workers))
    except KeyboardInterrupt:
        sys.stdout.write("interrupted\n")
        raise SystemExit(130) from None
    sys.stdout.write(json.dumps([result.measured, result.found, len(result.failures)]))
