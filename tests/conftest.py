"""What tests of several folders share: tiny models that terrarium never made, and the command."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@dataclass
class Said:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def sentence(self) -> str:
        """The last line on standard error."""
        return self.err.strip().splitlines()[-1]


@pytest.fixture(scope="session")
def foreign() -> ModuleType:
    """The helper that builds models by transformers alone (tests are no package)."""
    path = Path(__file__).parent / "studies" / "foreign_models.py"
    spec = importlib.util.spec_from_file_location("foreign_models", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def tiny_models(
    foreign: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """Return the folder of a tiny model of the named architecture; not to be written to."""
    home = tmp_path_factory.mktemp("foreign")

    def folder(kind: str) -> Path:
        if not (home / kind).exists():
            foreign.build(kind, home / kind)
        return home / kind

    return folder


@pytest.fixture
def own_model(tiny_models: Callable[[str], Path], tmp_path: Path) -> Path:
    """A tiny Llama in a folder that the test may spoil."""
    return shutil.copytree(tiny_models("llama"), tmp_path / "my-model")


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Said]:
    """Run ``terrarium ...`` in this process, in a fresh folder with a fresh store."""
    from terrarium.cli.app import run
    from terrarium.pages import assets

    monkeypatch.setenv("TERRARIUM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "160")
    # Drawing charts takes longer than the tiny runs; tests/pages tests the real ones.
    monkeypatch.setattr(assets, "chart_library", lambda store: "window.vegaEmbed = null;")
    monkeypatch.setattr(assets, "static_chart", lambda spec, store: "<svg></svg>")
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str | Path) -> Said:
        capsys.readouterr()
        code = run([str(a) for a in arguments])
        out, err = capsys.readouterr()
        return Said(code, out, err)

    return call


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """Return a real input that is not in the repository, such as ``meshes/spot.obj``.

    They lie in the folder that ``TERRARIUM_DATA`` names, else in ``shared/data`` beside the
    checkout; a test that needs an absent one is skipped.
    """
    beside = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("TERRARIUM_DATA", beside))

    def real(name: str) -> Path:
        if not (folder / name).exists():
            pytest.skip(f"there is no {name} in {folder}; set TERRARIUM_DATA")
        return folder / name

    return real
