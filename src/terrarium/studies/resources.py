"""What the machine lets this process use: cores, memory; one thread per worker."""

from __future__ import annotations

import contextlib
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path

THREADS = {
    name: "1"
    for name in (
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "VECLIB_MAXIMUM_THREADS",
        "NUMEXPR_NUM_THREADS",
    )
}
"""Environment in which numpy and torch use one thread; it must be set before they load."""


def usable_cores() -> int:
    """Return the number of cores this process may use: affinity and control-group quota."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    for folder in _control_groups():
        quota = _cpu_quota(folder)
        if quota is not None:
            cores = min(cores, max(1, math.ceil(quota - 0.05)))
    return max(1, cores)


def available_memory_mb() -> float | None:
    """Return the memory in MB that can be taken without swapping, None where it isn't known."""
    known: list[float] = []
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                known.append(int(line.split()[1]) / 1024)
    for folder in _control_groups():
        for most, used in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            with contextlib.suppress(OSError, ValueError):
                known.append((_number(folder / most) - _number(folder / used)) / 2**20)
    return min(known, default=None)


@contextlib.contextmanager
def single_thread() -> Iterator[None]:
    """Let torch and the linear algebra below numpy use one thread within the block.

    Sums come out in another order with more threads, so a cell measured in this process equals
    one measured by a worker only if both use one.
    """
    # Comes with scikit-learn, which needs it.
    from threadpoolctl import threadpool_limits

    before = {name: os.environ.get(name) for name in THREADS}
    torch = sys.modules.get("torch")
    threads = torch.get_num_threads() if torch else usable_cores()
    os.environ.update(THREADS)
    if torch:
        torch.set_num_threads(1)
    try:
        with threadpool_limits(limits=1):
            yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(threads)


def _control_groups() -> list[Path]:
    """Return the folders of this process' control groups, up to the root, both versions."""
    root = Path("/sys/fs/cgroup")
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    found: dict[Path, None] = {}
    for line in lines:
        _, _, rest = line.partition(":")
        names, _, below = rest.partition(":")
        for top in [root] if not names else [root / names, *(root / n for n in names.split(","))]:
            at = top / below.lstrip("/")
            while at.is_relative_to(top):
                found[at] = None
                at = at.parent
    return [folder for folder in found if folder.is_dir()]


def _cpu_quota(folder: Path) -> float | None:
    try:
        quota, _, period = (folder / "cpu.max").read_text(encoding="ascii").strip().partition(" ")
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        pass
    try:
        limit = _number(folder / "cpu.cfs_quota_us")
        return limit / _number(folder / "cpu.cfs_period_us") if limit > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _number(path: Path) -> int:
    return int(path.read_text(encoding="ascii").strip())
