"""Timings beside what a user would pick instead, as ratios, in one run on one machine.

Never a test: a ratio depends on the machine and on what else it does.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from terrarium.errors import InputError, did_you_mean
from terrarium.progress import Progress, Silent

BENCHES = (
    "growing",
    "reading",
    "probe_sweep",
    "dictionaries",
    "coordinate_fits",
    "radiance",
    "policy",
)
"""The modules of this package that have a ``main() -> rows``."""


MOST_COLUMNS = 9
"""What a terminal can show; `summary` keeps the columns of a row that come to that."""

SHOWN = {
    "coordinate_fits": (
        "network",
        "fitted",
        "seed",
        "measure",
        "value",
        "parameters",
        "steps",
        "seconds",
        "cpu_seconds",
    ),
    "dictionaries": (
        "kind",
        "rival",
        "ratio",
        "terrarium_cpu_s",
        "rival_cpu_s",
        "terrarium_fvu",
        "rival_fvu",
        "skipped",
        "largest_feature_difference",
    ),
    "radiance": (
        "field",
        "seconds",
        "cpu_seconds",
        "next_seconds",
        "full_seconds",
        "ratio",
        "counted",
        "psnr_db",
        "published_psnr_db",
    ),
    "policy": (
        "arm",
        "steps",
        "seconds",
        "cpu_seconds",
        "ratio",
        "reward_first",
        "reward_last",
        "kl_nats",
        "repeats",
    ),
    "probe_sweep": (
        "problems",
        "n",
        "d",
        "C",
        "terrarium_s",
        "scikit_learn_s",
        "ratio",
        "ratio_to_default",
        "largest_auroc_difference",
    ),
}
"""Which columns of a benchmark with many are shown."""


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one benchmark's rows with as many columns as a terminal can show."""
    chosen = SHOWN.get(rows[0]["benchmark"], tuple(k for k in rows[0] if k != "benchmark"))
    return [{k: row[k] for k in chosen[:MOST_COLUMNS] if k in row} for row in rows]


def run(progress: Progress | None = None, only: str | None = None) -> list[dict[str, Any]]:
    """Run all benchmarks (or ``only`` one) and return a summary line for each comparison.

    Each line says what was compared, at what size, both times and the ratio: how many times
    faster terrarium is than the alternative, or how much it adds.
    """
    if only is not None and only not in BENCHES:
        raise InputError(f"There is no benchmark '{only}'{did_you_mean(only, BENCHES)}")
    chosen = BENCHES if only is None else (only,)
    shown = progress or Silent()
    shown.start("bench", len(chosen), "benchmarks")
    lines: list[dict[str, Any]] = []
    for name in chosen:
        rows = importlib.import_module(f"terrarium.bench.{name}").main()
        lines += [{"benchmark": name, **_rounded(row)} for row in rows]
        shown.advance("bench", 1, name)
    shown.finish("bench")
    return lines


def _rounded(row: Mapping[str, Any]) -> dict[str, Any]:
    return {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in row.items()}
