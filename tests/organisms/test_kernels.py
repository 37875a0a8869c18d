"""Settings of the process: exact, undone afterwards, and worth it."""

from __future__ import annotations

import json
import platform
import subprocess
import sys

import pytest
import torch

from terrarium.organisms import kernels
from terrarium.organisms.kernels import fast_float32


def precision():
    matmul = getattr(torch.backends.mkldnn, "matmul", None)
    return getattr(matmul, "fp32_precision", None)


def test_products_keep_the_precision_of_float32():
    drawn = torch.Generator().manual_seed(0)
    for m, k, n in ((64, 64, 192), (300, 176, 64), (7, 1000, 5)):
        a, b = torch.randn(m, k, generator=drawn), torch.randn(k, n, generator=drawn)
        exact = a.double() @ b.double()
        with fast_float32():
            error = (a @ b - exact).abs().max() / exact.abs().max()
        assert error < 1e-6  # bfloat16 would err by 1e-3


def test_the_setting_is_undone_whatever_happens():
    before = precision()
    with pytest.raises(KeyError), fast_float32():
        raise KeyError
    assert precision() == before


def test_nothing_is_set_where_it_would_not_be_exact(monkeypatch):
    monkeypatch.setattr(kernels, "_exact_and_faster", lambda: False)
    before = precision()
    with fast_float32():
        assert precision() == before


SCRIPT = """
import json, resource
import psutil, torch
from terrarium.organisms.kernels import kept_memory

def faults():
    # page faults while 128 MB are taken in blocks of 16 MB, and freed again
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.ones(4 << 20) for _ in range(8)]
    del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

resident = lambda: psutil.Process().memory_info().rss
before = [faults() for _ in range(3)]
try:
    with kept_memory():
        inside = [faults() for _ in range(4)]
        kept = resident()
        raise KeyError
except KeyError:
    pass
print(json.dumps({"before": before, "inside": inside, "given_back": kept - resident()}))
"""


def test_freed_memory_is_used_again_inside_and_given_back_after():
    # in a process of its own: what memory was used for before matters
    run = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    told = json.loads(run.stdout)
    if platform.libc_ver()[0] == "glibc":
        assert min(told["inside"]) < min(told["before"]) / 100
        assert told["given_back"] > 64 << 20
    else:
        assert len(told["inside"]) == 4  # nothing is set there, and nothing breaks
