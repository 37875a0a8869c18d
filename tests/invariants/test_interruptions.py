"""Whatever becomes of a run, the same command gives the rows of an undisturbed one."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from terrarium.cli.app import run
from terrarium.evidence.rows import Row
from terrarium.evidence.table import read_rows
from terrarium.store import Store, files
from terrarium.studies.base import studies
from terrarium.studies.quirky import NEEDS_TRUTH
from terrarium.studies.runner import run_study

pytestmark = pytest.mark.timeout(300)

SETTINGS: dict[str, Any] = {
    "recipes": NEEDS_TRUTH,
    "seeds": 1,
    "truth_steps": 2,
    "quirk_steps": 2,
    "train_rows": 100,
    "test_rows": 100,
}
SCIENCE = {**SETTINGS, "seeds": 2, "train_rows": 600, "test_rows": 600}
RESULTS = ["report.html", "rows.csv", "rows.parquet", "run.json"]


def arguments(out: Path, settings: dict[str, Any], workers: int) -> list[str]:
    changes = [f"--set={name}={value}" for name, value in settings.items()]
    fixed = ["--size=smoke", "--no-open", "--json", f"--workers={workers}", f"--out={out}"]
    return ["run", "says-knows", *fixed, *changes]


def started(
    home: Path, out: Path, settings: dict[str, Any] = SETTINGS, workers: int = 2
) -> subprocess.Popen[str]:
    """The command in a process group of its own, as a terminal starts it."""
    code = "from terrarium.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments(out, settings, workers)],
        env={**os.environ, "TERRARIUM_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finished(running: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = running.communicate(timeout=240)
    assert running.returncode == 0, err
    told: dict[str, Any] = json.loads(out)
    return told


@dataclass(frozen=True)
class Undisturbed:
    rows: list[Row]
    home: Path


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """A run in this process, without workers."""
    home = tmp_path_factory.mktemp("undisturbed")
    result = run_study(studies.get("says-knows"), "smoke", SETTINGS, Store(home), workers=0)
    assert result.failures == []
    return Undisturbed(result.rows, home)


def alive(one: psutil.Process) -> bool:
    try:
        # An orphan that has ended stays a zombie until whoever adopted it looks.
        return bool(one.is_running() and one.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def nobody_is_left(family: list[psutil.Process]) -> None:
    ends = time.monotonic() + 10
    while left := [one for one in family if alive(one)]:
        assert time.monotonic() < ends, f"orphans: {left}"
        time.sleep(0.01)


def nothing_is_left(home: Path, out: Path) -> None:
    assert [path for path in (home / ".tmp").iterdir() if path.is_dir()] == []
    assert [path for path in (home / ".scratch").rglob("*") if path.is_file()] == []
    assert not (home / "damaged").exists()
    assert sorted(path.name for path in out.iterdir()) == RESULTS


def wait_for(condition: Callable[[], Any], running: subprocess.Popen[str]) -> None:
    ends = time.monotonic() + 60
    while not condition():
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < ends, "waited in vain"
        time.sleep(0.01)


def killed(running: subprocess.Popen[str], how: str) -> None:
    """Kill the run and see that nobody survives it."""
    family = psutil.Process(running.pid).children(recursive=True)
    if how == "group":
        os.killpg(running.pid, signal.SIGKILL)
    else:
        running.kill()
    running.communicate(timeout=30)
    nobody_is_left(family)


def killed_again_and_again(
    home: Path, out: Path, settings: dict[str, Any], rows: list[Row], times: int, longest_s: float
) -> None:
    """Kill runs at random moments, in turn the parent alone and the whole group.

    A run that was done before its moment must have given ``rows``; the next one starts afresh.
    """
    moments, count = random.Random(5), 0
    while count < times:
        running = started(home, out, settings)
        ends = time.monotonic() + moments.uniform(0.2, longest_s)
        while time.monotonic() < ends and running.poll() is None:
            time.sleep(0.01)
        if running.poll() is None:
            killed(running, ("parent", "group")[count % 2])
            count += 1
        else:
            finished(running)
            assert read_rows(out) == rows
            shutil.rmtree(home)
            shutil.rmtree(out)


def test_killed_runs_give_the_rows_of_an_undisturbed_one(
    undisturbed: Undisturbed, tmp_path: Path
) -> None:
    home, out = tmp_path / "home", tmp_path / "out"
    killed_again_and_again(home, out, SETTINGS, undisturbed.rows, times=3, longest_s=3.5)
    told = finished(started(home, out))
    assert told["measured"] + told["found"] == 2
    assert read_rows(out / "rows.parquet") == undisturbed.rows
    nothing_is_left(home, out)


@pytest.mark.science
@pytest.mark.timeout(1800)
def test_ten_kills_of_a_larger_run(tmp_path: Path) -> None:
    whole = finished(started(tmp_path / "other", tmp_path / "whole", SCIENCE))
    assert whole["measured"] == 4
    home, out = tmp_path / "home", tmp_path / "out"
    rows = read_rows(tmp_path / "whole")
    killed_again_and_again(home, out, SCIENCE, rows, times=10, longest_s=whole["seconds"])
    finished(started(home, out, SCIENCE))
    assert read_rows(out) == rows
    nothing_is_left(home, out)


@pytest.mark.science
@pytest.mark.timeout(900)
def test_the_number_of_workers_does_not_matter(tmp_path: Path) -> None:
    found = []
    for workers in (0, 1, 2):
        out = tmp_path / f"out-{workers}"
        finished(started(tmp_path / f"home-{workers}", out, SCIENCE, workers))
        found.append(read_rows(out))
    assert found[0] == found[1] == found[2]


def test_two_runs_at_once(undisturbed: Undisturbed, tmp_path: Path) -> None:
    """Both with one worker: the rows are those of none and of two."""
    home = tmp_path / "home"
    outs = [tmp_path / "one", tmp_path / "other"]
    told = [finished(one) for one in [started(home, out, workers=1) for out in outs]]
    assert [each["measured"] + each["found"] for each in told] == [2, 2]
    assert sum(each["measured"] for each in told) == 2, "each cell was measured once"
    for out in outs:
        assert read_rows(out / "rows.parquet") == undisturbed.rows
        nothing_is_left(home, out)


def test_ctrl_c_says_that_the_same_command_goes_on(tmp_path: Path) -> None:
    home, out = tmp_path / "home", tmp_path / "out"
    running = started(home, out)
    # The first organism is grown; its cell is being measured.
    wait_for(lambda: list(home.glob("organism/*/*")), running)
    family = psutil.Process(running.pid).children(recursive=True)
    os.killpg(running.pid, signal.SIGINT)  # as the terminal does
    said, told = running.communicate(timeout=30)
    assert running.returncode == 130
    assert said == ""
    last = told.strip().splitlines()[-1]
    assert last.startswith("Stopped: ")
    assert last.endswith("of 2 cells are measured and stored, 2 are left; the same command goes on "
                         "from there.")  # fmt: skip
    assert "Traceback" not in told
    nobody_is_left(family)
    assert not out.exists()


def in_this_process(
    home: Path, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of the command without workers."""
    monkeypatch.setenv("TERRARIUM_HOME", str(home))
    code = run(arguments(out, SETTINGS, workers=0))
    return (code, *capsys.readouterr())


def test_damaged_files_are_noticed_and_made_again(
    undisturbed: Undisturbed,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    home, out = tmp_path / "home", tmp_path / "out"
    shutil.copytree(undisturbed.home, home)
    store = Store(home)
    (quirk,) = [e for e in store.entries("rows") if e.spec["cell"]["kind"] == "quirk"]
    (organism,) = [
        e
        for e in store.entries("organism")
        if e.spec["parent"] and not e.spec["phase"]["sources"][0]["options"]["inert"]
    ]
    for path in (quirk.path / "rows.parquet", organism.path / "model.safetensors"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(bytes(content))
    code, said, told = in_this_process(home, out, monkeypatch, capsys)
    assert code == 0
    assert json.loads(said)["measured"] == 1
    assert f"rows {quirk.key} was damaged (rows.parquet does not match its checksum)" in told
    assert f"organism {organism.key} was damaged (model.safetensors does not match" in told
    assert read_rows(out / "rows.parquet") == undisturbed.rows
    aside = sorted(path.name.rsplit("-", 1)[0] for path in (home / "damaged").iterdir())
    assert aside == [f"organism-{organism.key}", f"rows-{quirk.key}"]
    again = organism.path / "model.safetensors"
    assert again.read_bytes() == (undisturbed.home / again.relative_to(home)).read_bytes(), (
        "grown again to the bit"
    )


@contextlib.contextmanager
def little_space(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """A full disk at ``folder``; what is yielded makes room on it.

    A small file system of its own where we may mount one, else a disk that says it is full.
    """
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    mounted = os.getuid() == 0 and shutil.which("mount") is not None
    mounted = mounted and subprocess.run(mount, capture_output=True, check=False).returncode == 0
    if mounted:
        try:
            yield lambda: subprocess.run(
                ["mount", "-o", "remount,size=64m", str(folder)], check=True
            )
        finally:
            subprocess.run(["umount", "-l", str(folder)], check=True)
        return

    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with monkeypatch.context() as patched:
        patched.setattr(files, "seal", full)
        yield patched.undo


def test_a_full_disk_is_told_and_the_next_run_goes_on(
    undisturbed: Undisturbed,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    disk, out = tmp_path / "disk", tmp_path / "out"
    with little_space(disk, monkeypatch) as make_room:
        home = disk / "home"
        code, said, told = in_this_process(home, out, monkeypatch, capsys)
        assert code == 3
        assert said == ""
        last = told.strip().splitlines()[-1]
        assert last == (
            f"The store at {home} cannot be used: the disk is full; free some space, or set "
            "TERRARIUM_HOME to a folder elsewhere."
        )
        assert "Traceback" not in told
        assert not out.exists()
        make_room()
        code, said, _ = in_this_process(home, out, monkeypatch, capsys)
        assert code == 0
        assert json.loads(said)["failures"] == []
        assert read_rows(out / "rows.parquet") == undisturbed.rows
        nothing_is_left(home, out)
