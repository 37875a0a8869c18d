"""Student's law, worked out without scipy, against scipy and against closed forms."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
from scipy import special

from terrarium.evidence.laws import t_quantile, t_tail


@pytest.mark.parametrize("df", [1, 2, 3, 4, 9, 19, 199, 2.5, 0.7])
def test_tails_and_quantiles_are_scipys(df: float) -> None:
    for t in (-30.0, -3.0, -0.5, 0.0, 0.1, 0.5, 1.0, 2.7, 10.0, 50.0, 1e3):
        assert t_tail(t, df) == pytest.approx(float(special.stdtr(df, -t)), rel=1e-10)
    for p in (1e-6, 0.025, 0.3, 0.5, 0.6, 0.975, 0.995, 1 - 1e-9):
        assert t_quantile(p, df) == pytest.approx(float(special.stdtrit(df, p)), rel=1e-8)


def test_closed_forms() -> None:
    # One degree of freedom is Cauchy's law; two has an algebraic tail.
    assert t_tail(1e-6, 1) == pytest.approx(0.5 - math.atan(1e-6) / math.pi, rel=1e-15)
    assert t_quantile(0.975, 1) == pytest.approx(math.tan(math.pi * 0.475), rel=1e-12)
    assert t_tail(3.0, 2) == pytest.approx(0.5 - 3 / (2 * math.sqrt(11)), rel=1e-12)
    assert t_quantile(0.975, 4) == pytest.approx(2.7764451051977987, rel=1e-13)


def test_ends() -> None:
    assert t_quantile(1.0, 4) == math.inf
    assert t_quantile(0.0, 4) == -math.inf
    assert t_tail(math.inf, 4) == 0.0
    assert t_tail(-math.inf, 4) == 1.0
    assert math.isnan(t_tail(1.0, 0))
    assert math.isnan(t_quantile(1.5, 4))


def test_intervals_need_no_scipy() -> None:
    code = (
        "import sys; from terrarium.evidence.intervals import mean_interval; "
        "mean_interval([1.0, 2.0, 3.0]); sys.exit('scipy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
