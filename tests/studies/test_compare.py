"""`terrarium compare`: a user's own probe or detector beside the built-in ones."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from terrarium.errors import InputError
from terrarium.evidence.hypotheses import judge
from terrarium.evidence.rows import measured
from terrarium.evidence.table import read_rows
from terrarium.studies import compare
from terrarium.studies.compare import compare_study, load_instrument
from terrarium.studies.measure_detectors import PER_LAYER
from terrarium.studies.quirky import NEEDS_TRUTH

EXAMPLE = Path(__file__).parents[2] / "examples" / "my_probe.py"
SMALL = (
    "--size", "smoke", "--workers", "0", "--set", "seeds=1", "--set", "truth_steps=2",
    "--set", "quirk_steps=2", "--set", "train_rows=300", "--set", "test_rows=300",
)  # fmt: skip

DETECTOR = """
import numpy as np
from terrarium.instruments.detectors.mahalanobis import Mahalanobis

class Mine:
    def fit(self, trusted):
        return Mahalanobis().fit(trusted)
"""


def written(tmp_path, text, name="mine.py"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_the_example_is_compared_with_every_built_in_probe(command, tmp_path):
    file = shutil.copy(EXAMPLE, tmp_path / "my_probe.py")
    said = command("compare", file, *SMALL)
    assert said.code == 0, said.err
    folder = tmp_path / "terrarium-results" / "compare-my_probe"
    rows = [r for r in read_rows(folder) if r.metric == compare.PROBE_METRIC]
    assert {r.factors["instrument"] for r in rows} == {
        "logistic_regression", "difference_in_means", "lda", "random_direction", "Ridge",
        compare.SHUFFLED,
    }  # fmt: skip
    assert [r.factors["instrument"] for r in rows if r.factors["own"]] == ["Ridge"]
    assert "Ridge reaches" in said.out
    assert "undecided" in said.out or "uninformative" in said.out
    again = command("compare", file, *SMALL, "--json")
    assert (again.json["measured"], again.json["found"]) == (0, 1)
    shown = command("verdicts", folder, "--json")
    assert shown.json["verdicts"][0]["hypothesis"] == "better-than-standard"
    assert "Ridge does better than logistic_regression" in command("verdicts", folder).out + str(
        shown.json
    )
    assert command("report", folder).code == 0


def test_a_detector_is_compared_with_the_detectors(command, tmp_path):
    said = command("compare", written(tmp_path, DETECTOR), *SMALL)
    assert said.code == 0, said.err
    rows = read_rows(tmp_path / "terrarium-results" / "compare-mine")
    found = {
        str(r.factors["instrument"]): r.value for r in rows if r.metric == compare.DETECTOR_METRIC
    }
    assert set(found) == {*PER_LAYER, "Mine"}
    assert found["Mine"] == found["mahalanobis"] is not None
    (lost,) = [r for r in rows if r.factors.get("instrument") == "relative_mahalanobis"]
    assert lost.value is not None or "hold a single group" in lost.reason
    assert "Mine reaches" in said.out


def test_a_probe_of_pairs_meets_those_of_pairs(command, tmp_path):
    text = (
        "from terrarium.instruments.probes.contrast import ContrastDifferenceInMeans\n"
        "class Pairs(ContrastDifferenceInMeans):\n    pass\n"
    )
    said = command("compare", written(tmp_path, text), *SMALL)
    assert said.code == 0, said.err
    rows = read_rows(tmp_path / "terrarium-results" / "compare-mine")
    found = {str(r.factors["instrument"]): r.value for r in rows
             if r.metric == compare.PROBE_METRIC}  # fmt: skip
    assert found["Pairs"] == found["contrast_difference_in_means"]
    assert "ccs" in found


def test_a_probe_that_fails_on_real_rows_is_a_failed_row(command, tmp_path):
    text = EXAMPLE.read_text(encoding="utf-8").replace(
        "        x = _activations(x)\n        y = _labels",
        "        x = _activations(x)\n        assert x.shape[-1] < 60, 'too wide for me'\n"
        "        y = _labels",
    )
    said = command("compare", written(tmp_path, text), *SMALL)
    assert said.code == 0, said.err
    rows = read_rows(tmp_path / "terrarium-results" / "compare-mine")
    (own,) = [r for r in rows if r.factors.get("own")]
    assert (own.status, own.reason) == ("failed", "AssertionError: too wide for me")
    assert "Ridge reaches no value" in said.out


BAD = {
    "none": ("x = 1\n", "must define exactly one class with a method 'fit' (found: none)"),
    "several": (
        "class A:\n    def fit(self, x): ...\nclass B:\n    def fit(self, x): ...\n",
        "(found: A, B); begin helpers' names with an underscore.",
    ),
    "syntax": ("class A:\n    def fit(self x): ...\n", "mine.py, line 2: "),
    "import": ("import nonsense_module\n", "cannot be run (ModuleNotFoundError: No module named"),
    "arguments": (
        "class A:\n    def __init__(self, k): ...\n    def fit(self, x): ...\n",
        "A() cannot be made without arguments",
    ),
    "probe": (
        "import numpy as np\nclass A:\n    supervised = True\n"
        "    def fit(self, x, y=None):\n        return self\n"
        "    def score(self, x):\n        return np.zeros(3)\n",
        "breaks the contract of a probe: A fails 'scores': scores have shape (3,), not (240,)",
    ),
    "detector": (
        "import numpy as np\nclass A:\n    def fit(self, x):\n        return self\n"
        "    def score(self, x):\n        return np.zeros(len(x))\n",
        "breaks the contract of a detector: ",
    ),
    "raises": (
        "class A:\n    supervised = True\n    def fit(self, x, y=None):\n        return 1 / 0\n",
        "breaks the contract of a probe: ZeroDivisionError: division by zero",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_refused_before_anything_grows(kind, command, tmp_path):
    text, words = BAD[kind]
    said = command("compare", written(tmp_path, text), *SMALL)
    assert said.code == 2
    assert words in said.err
    assert said.err.count("\n") == 1
    assert not (tmp_path / "terrarium-results").exists()


def test_only_python_files_and_known_organisms(command, tmp_path):
    said = command("compare", written(tmp_path, "", "mine.txt"))
    assert (said.code, "is not a Python file" in said.err) == (2, True)
    said = command("compare", EXAMPLE, "--set", "organisms=negat")
    assert said.code == 2
    assert "did you mean 'negate'?" in said.err
    with pytest.raises(InputError, match="There is no file"):
        load_instrument(tmp_path / "missing.py")


def test_the_settings_of_a_study_can_be_given_in_python():
    study = compare_study(EXAMPLE, seeds=3, truth_steps=7)
    cells = study.cells(study.defaults["quick"])
    assert [c.spec["seed"] for c in cells] == [0, 1, 2]
    assert cells[0].spec["recipe"]["phases"][0]["steps"] == 7


def test_better_means_better_in_pairs_on_organisms_that_arose():
    def rows(gap, accuracy):
        for seed in range(5):
            noise = np.sin(seed) / 5
            for name, value in (("Ridge", 0.6 + gap + noise), ("logistic_regression", 0.6 + noise)):
                yield measured(
                    compare.PROBE_METRIC, value + seed * 1e-3 * (name == "Ridge"),
                    unit="proportion", n=9, instrument=name, own=name == "Ridge", seed=seed,
                    organism=NEEDS_TRUTH,
                )  # fmt: skip
            for context in ("honest", "quirky"):
                yield measured(
                    "balanced_accuracy", accuracy, unit="proportion", n=9, context=context,
                    rows="disagree", split="test", seed=seed, organism=NEEDS_TRUTH,
                )  # fmt: skip

    hypotheses = compare_study(EXAMPLE).hypotheses
    for gap, accuracy, verdict in (
        (0.05, 0.99, "supported"),
        (-0.05, 0.99, "contradicted"),
        (0.05, 0.6, "uninformative"),
    ):
        (found,) = judge(hypotheses, list(rows(gap, accuracy)))
        assert found.verdict == verdict
        shown = compare.shown("Why?", list(rows(gap, accuracy)))
        assert shown.hypotheses[0].claim.startswith("Ridge does better than logistic_regression")
