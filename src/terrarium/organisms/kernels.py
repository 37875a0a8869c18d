"""Settings of the process under which training runs fast: matrix kernels, freed memory."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch


@contextlib.contextmanager
def fast_float32() -> Iterator[None]:
    """Let float32 matrix products run on oneDNN inside the block where that is exact and faster.

    PyTorch sends float32 products to MKL, which leaves the wide vector units of processors that
    are not Intel's idle (about 105 against 230 GFLOP/s on one core of a Zen 5).  PyTorch offers
    oneDNN under the setting for reduced precision; on processors without bfloat16 matrix tiles
    it computes in full float32 there, and only then is it used: a product is checked first.
    """
    if not _exact_and_faster():
        yield
        return
    matmul = _mkldnn().matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        matmul.fp32_precision = before


@contextlib.contextmanager
def kept_memory() -> Iterator[None]:
    """Let the C library keep freed memory inside the block, for the next step to use again.

    glibc hands large blocks back to the system when they are freed and gets them anew, zeroed
    page by page, at the next step: a quarter to a half of the time of steps of 4,096 tokens and
    more.  Its limits (mallopt(3)) are raised here, and afterwards left where glibc itself moves
    them in a program that frees large blocks; what is unused then goes back.  No other C library
    is touched.
    """
    libc = _glibc()
    if libc is None:
        yield
        return
    libc.mallopt(_M_MMAP_THRESHOLD, 32 << 20)
    libc.mallopt(_M_TRIM_THRESHOLD, 1 << 30)
    try:
        yield
    finally:
        libc.mallopt(_M_TRIM_THRESHOLD, 64 << 20)
        libc.malloc_trim(0)


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # as in malloc.h


def _glibc() -> ctypes.CDLL | None:
    if platform.libc_ver()[0] != "glibc":
        return None
    return ctypes.CDLL(None)


@functools.cache
def _exact_and_faster() -> bool:
    if not _mkldnn().is_available() or _made_by_intel():
        return False
    matmul = getattr(_mkldnn(), "matmul", None)
    if matmul is None or not hasattr(matmul, "fp32_precision"):
        return False
    drawn = torch.Generator().manual_seed(0)
    a, b = torch.randn(64, 96, generator=drawn), torch.randn(96, 64, generator=drawn)
    before = matmul.fp32_precision
    try:
        matmul.fp32_precision = "bf16"
        error = ((a @ b).double() - a.double() @ b.double()).abs().max().item()
    except RuntimeError:
        return False
    finally:
        matmul.fp32_precision = before
    return error < 1e-4  # bfloat16 errs by about 0.1 here


def _mkldnn() -> Any:
    return torch.backends.mkldnn  # its attributes are made at import, where mypy sees none


def _made_by_intel() -> bool:
    """Whether MKL runs at full speed: on Intel's processors, or where we cannot tell."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return True
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("vendor_id"):
                return "GenuineIntel" in line
    return "AuthenticAMD" not in platform.processor()
