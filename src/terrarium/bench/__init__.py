"""Timings beside what a user would pick instead, as ratios, in one run on one machine.

Never a test: a ratio depends on the machine and on what else it does.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from terrarium.errors import InputError, did_you_mean
from terrarium.progress import Progress, Silent

BENCHES = ("growing", "reading", "probe_sweep")
"""The modules of this package that have a ``main() -> rows``."""


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
