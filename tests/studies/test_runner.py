"""The runner: every cell once, whoever is killed, and the same rows however many workers."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest

from terrarium.errors import InputError, StoreError, TerrariumError
from terrarium.evidence.rows import Row
from terrarium.progress import Pace
from terrarium.store import Store
from terrarium.studies.pace import remembered_scale
from terrarium.studies.runner import Snapshot, StudyResult, plan, run_study, stored_rows

HERE = Path(__file__).parent
PAUSE = 0.2

LONG = 1.5
"""Seconds of a cell that is to be interrupted: a busy machine must not get to its end first."""


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(HERE))
    monkeypatch.setenv("TOY_LOG", str(tmp_path / "log"))
    (tmp_path / "log").mkdir()
    import toy_study

    return toy_study


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home")


def process(store: Store, size: str = "quick", workers: int = 2, **overrides: Any) -> Any:
    command = [sys.executable, "-c", "import toy_study; toy_study.main()", str(store.home), size]
    return subprocess.Popen(
        [*command, json.dumps(overrides), str(workers)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(HERE)},
    )


def wait_for(condition: Any, seconds: float = 20.0) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "waited in vain"
        time.sleep(0.01)


def values(rows: list[Row]) -> list[float | None]:
    return [row.value for row in rows if row.metric == "norm"]


@pytest.fixture
def undisturbed(toy: ModuleType, tmp_path: Path) -> list[Row]:
    """The rows of the quick size, measured in this process."""
    return run_study(
        toy.STUDY, "quick", {"pause": PAUSE}, Store(tmp_path / "other"), workers=0
    ).rows


def test_rows_are_stored_and_not_measured_again(toy: ModuleType, store: Store) -> None:
    first = run_study(toy.STUDY, "smoke", {}, store, workers=1)
    assert (first.measured, first.found, first.failures) == (2, 0, [])
    assert [row.factors.get("seed", row.factors.get("layer")) for row in first.rows] == [0, 0, 1, 1]
    assert {row.study for row in first.rows} == {"toy"}
    assert [row.status for row in first.rows] == ["ok", "undefined"] * 2
    again = run_study(toy.STUDY, "smoke", {"seeds": "3"}, Store(store.home), workers=0)
    assert (again.measured, again.found) == (1, 2)
    assert again.rows[:4] == first.rows
    assert toy.starts() == ["seed 0", "seed 1", "seed 2"]
    other_code = dataclasses.replace(toy.STUDY, code=("toy_study", "terrarium.keys"))
    assert plan(other_code, "smoke", {}, store).to_run == 2, "other code, other rows"


def test_the_number_of_workers_does_not_matter(toy: ModuleType, tmp_path: Path) -> None:
    results: list[StudyResult] = [
        run_study(toy.STUDY, "quick", {"pause": 0}, Store(tmp_path / str(n)), workers=n)
        for n in (0, 1, 2)
    ]
    assert results[0].rows == results[1].rows == results[2].rows
    assert len(values(results[0].rows)) == 4
    assert [result.measured for result in results] == [4, 4, 4]


def test_every_worker_has_one_thread_and_may_chatter(
    toy: ModuleType, store: Store, tmp_path: Path
) -> None:
    overrides = {"seeds": 0, "extra": ["torch"]}
    assert [row.value for row in run_study(toy.STUDY, "smoke", overrides, store).rows] == [1.0]
    here = run_study(toy.STUDY, "smoke", overrides, Store(tmp_path / "here"), workers=0)
    assert [row.value for row in here.rows] == [1.0]


def test_a_cell_that_raises_is_a_failed_row_and_is_tried_again(
    toy: ModuleType, store: Store
) -> None:
    overrides = {"extra": ["raise", "after", "after-extra", "raise-once", "junk"]}
    result = run_study(toy.STUDY, "smoke", overrides, store, workers=2)
    failed = {row.factors["cell"]: row for row in result.rows if row.metric == "cell"}
    assert list(failed) == ["extra 0", "extra 2", "extra 3", "extra 4"]
    assert {row.status for row in failed.values()} == {"failed"}
    assert failed["extra 0"].reason == "ValueError: no value for seed -1"
    assert failed["extra 0"].factors == {"cell": "extra 0", "act": "raise", "seed": -1}
    assert failed["extra 2"].reason.startswith("it needs 'extra 0', which failed: ValueError")
    assert "returned str where a Row" in failed["extra 4"].reason
    assert "raise ValueError" in result.failures[0].trace
    assert len(values(result.rows)) == 3, "the others were measured"
    assert "extra 2" not in toy.starts()
    assert stored_rows(toy.STUDY, "smoke", overrides, store) == result.rows
    again = run_study(toy.STUDY, "smoke", overrides, Store(store.home), workers=0)
    assert [failure.cell for failure in again.failures] == ["extra 0", "extra 2", "extra 4"]
    assert again.measured == 1
    told = stored_rows(toy.STUDY, "smoke", {**overrides, "seeds": 3}, store)
    assert [row.status for row in told if row.metric == "cell"] == [
        "skipped", "failed", "failed", "failed",
    ]  # fmt: skip


def test_a_cell_waits_for_what_it_needs(toy: ModuleType, store: Store) -> None:
    overrides = {"seeds": 1, "extra": ["after"], "pause": 0.2}
    run_study(toy.STUDY, "smoke", overrides, store, workers=2)
    log = {path.name.split("@")[0]: path for path in Path(os.environ["TOY_LOG"]).iterdir()}
    apart = log["extra 0"].stat().st_mtime - log["seed 0"].stat().st_mtime
    assert apart >= 0.2


def test_a_worker_that_dies_is_noticed(toy: ModuleType, store: Store) -> None:
    overrides = {"extra": ["die", "die-once", "leave", "exhaust"]}
    result = run_study(toy.STUDY, "smoke", overrides, store, workers=2)
    reasons = {failure.cell: failure.reason for failure in result.failures}
    assert list(reasons) == ["extra 0", "extra 2"]
    assert "tried twice" in reasons["extra 0"]
    assert "SIGKILL" in reasons["extra 0"]
    assert "exit code 7: a last word" in reasons["extra 2"]
    assert toy.starts("extra*") == [f"extra {i}" for i in (0, 0, 1, 1, 2, 2, 3, 3)]
    assert len(values(result.rows)) == 4
    assert sum("tried again" in note for note in result.notes) == 4


def test_a_broken_store_stops_the_run(toy: ModuleType, store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="The store is full; free some space"):
        run_study(toy.STUDY, "smoke", {"extra": ["full"]}, store)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="set TERRARIUM_HOME"):
        run_study(toy.STUDY, "smoke", {}, Store(tmp_path / "file"))


def test_a_damaged_value_is_measured_again(toy: ModuleType, store: Store) -> None:
    first = run_study(toy.STUDY, "smoke", {}, store, workers=0)
    path = store.path("rows", first.rows[0].cell) / "rows.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    again = run_study(toy.STUDY, "smoke", {}, Store(store.home), workers=0)
    assert (again.measured, again.found) == (1, 1)
    assert again.rows == first.rows
    assert any("was damaged" in note for note in again.notes)


def alive(one: psutil.Process) -> bool:
    try:
        # An orphan that has ended stays a zombie until whoever adopted it looks.
        return bool(one.is_running() and one.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def family(parent: Any) -> list[psutil.Process]:
    return psutil.Process(parent.pid).children(recursive=True)


def test_kill_and_go_on(toy: ModuleType, store: Store, undisturbed: list[Row]) -> None:
    before = len(toy.starts())
    for more in (1, 2):
        running = process(store, pause=PAUSE)
        wait_for(lambda: len(toy.starts()) - before >= more)  # noqa: B023
        workers = family(running)
        assert workers
        running.kill()
        running.wait()
        wait_for(lambda: not any(alive(one) for one in workers), 5.0)  # noqa: B023
        before = len(toy.starts())
    stored = len(list(store.entries("rows")))
    rest = process(store, pause=PAUSE)
    out, _ = rest.communicate(timeout=60)
    measured, found, failed = json.loads(out.splitlines()[-1])
    assert (found, failed) == (stored, 0)
    assert measured == 4 - stored
    assert stored_rows(toy.STUDY, "quick", {"pause": PAUSE}, store) == undisturbed
    assert [path for path in (store.home / ".tmp").iterdir() if path.is_dir()] == []


def test_interrupt_leaves_no_worker_and_a_resumable_state(toy: ModuleType, store: Store) -> None:
    running = process(store, pause=LONG)
    wait_for(lambda: len(toy.starts()) >= 2)
    workers = family(running)
    sent = time.monotonic()
    running.send_signal(signal.SIGINT)
    out, _ = running.communicate(timeout=20)
    assert time.monotonic() - sent < 5
    assert out.splitlines()[-1] == "interrupted"
    assert running.returncode == 130
    assert not any(alive(one) for one in workers)
    result = run_study(toy.STUDY, "quick", {"pause": LONG}, store, workers=0)
    assert result.measured + result.found == 4
    assert result.failures == []


def test_two_runs_at_once(toy: ModuleType, store: Store, undisturbed: list[Row]) -> None:
    before = len(toy.starts())
    both = [process(store, pause=PAUSE) for _ in range(2)]
    counts = [json.loads(one.communicate(timeout=60)[0].splitlines()[-1]) for one in both]
    assert [sum(count) for count in counts] == [4, 4]
    assert sum(count[0] for count in counts) == 4, "each cell was measured once"
    assert len(toy.starts()) - before == 4
    assert stored_rows(toy.STUDY, "quick", {"pause": PAUSE}, store) == undisturbed


def test_a_plan_runs_and_writes_nothing(toy: ModuleType, store: Store) -> None:
    told = plan(toy.STUDY, "smoke", {"seeds": 3}, store, workers=1)
    assert told.to_run == 3
    assert told.seconds == pytest.approx(1 + 2 + 3 + 3, abs=0.5), "guesses and the worker's start"
    assert told.memory_mb == 150 + 60
    assert told.disk_mb == 3
    assert "3 to run on 1 worker: about 9 s" in str(told)
    assert not store.home.exists()
    run_study(toy.STUDY, "smoke", {"seeds": 3}, store, workers=0)
    assert "all of them in the store" in str(plan(toy.STUDY, "smoke", {"seeds": 3}, store))
    more = plan(toy.STUDY, "smoke", {"seeds": 4}, store, workers=1)
    scale = remembered_scale(store.recall("durations-toy"), 4.0)
    assert scale < 1
    told_s = pytest.approx(4 * scale + 3, abs=0.01)
    assert more.seconds == told_s, "what cells took before corrects the guess"


def test_what_is_asked_wrongly_is_refused(toy: ModuleType, store: Store) -> None:
    with pytest.raises(InputError, match=r"no setting 'seed'; did you mean 'seeds'\?"):
        run_study(toy.STUDY, "smoke", {"seed": 3}, store)
    with pytest.raises(InputError, match="no cells with these settings"):
        run_study(toy.STUDY, "smoke", {"seeds": 0}, store)
    with pytest.raises(InputError, match="workers expects 0"):
        run_study(toy.STUDY, "smoke", {}, store, workers=-1)
    assert not store.home.exists()
    told = plan(toy.STUDY, "smoke", {}, store, workers=99)
    assert told.workers <= 2
    assert "99 workers were asked for" in told.notes[0]


def test_a_study_that_workers_cannot_load(toy: ModuleType, store: Store) -> None:
    local = dataclasses.replace(toy.STUDY, measure=lambda cell, home, progress: [])
    result = run_study(local, "smoke", {}, store, workers=2)
    assert (result.measured, result.rows) == (2, [])
    assert any("lives in a notebook or script" in note for note in result.notes)


def test_workers_that_do_not_start(
    toy: ModuleType, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOY_BROKEN", "1")
    with pytest.raises(InputError, match=r"toy cannot be loaded in a worker process: .*broken toy"):
        run_study(toy.STUDY, "smoke", {}, store, workers=1)
    monkeypatch.delenv("TOY_BROKEN")
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(TerrariumError, match=r"do not start .*exit code 1"):
        run_study(toy.STUDY, "smoke", {}, store, workers=1)


def test_progress_from_the_first_seconds(toy: ModuleType, store: Store) -> None:
    snapshots: list[Snapshot] = []
    shown: list[float] = []

    class Shown:
        def start(self, task: str, total: float, unit: str = "steps") -> None:
            self.pace = Pace(total)

        def advance(self, task: str, amount: float = 1.0, note: str = "") -> None:
            self.pace.advance(amount)
            if self.pace.seconds_left is not None:
                shown.append(self.pace.seconds_left)

        def finish(self, task: str) -> None:
            assert self.pace.done == pytest.approx(100)

    run_study(
        toy.STUDY, "smoke", {"pause": 1.2}, store, workers=1, progress=Shown(),
        watch=snapshots.append,
    )  # fmt: skip
    assert snapshots[0].cells == 2
    assert snapshots[0].done == 0
    assert snapshots[0].seconds_left > 3, "the guess, before anything is known"
    assert any(0 < one.fraction < 0.9 and one.running for one in snapshots), "within a cell"
    assert any("pausing" in note for one in snapshots for note in one.running.values())
    assert snapshots[-1].done == 2
    assert snapshots[-1].seconds_left == 0
    assert shown[-1] == pytest.approx(0, abs=1e-6)
    middle = [one.seconds_left for one in snapshots if one.done == 1]
    assert middle
    assert middle[0] < 2.0, "the second cell, guessed at 1 s, by the pace of the first"


def test_the_parent_loads_no_torch() -> None:
    code = "import sys, terrarium.studies.runner; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
