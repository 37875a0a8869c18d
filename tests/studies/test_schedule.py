"""Longest first, after what it needs; the time left is right from the guesses on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from terrarium.errors import InputError
from terrarium.organisms.recipe_models import HuggingFaceModel, TransformerModel
from terrarium.studies import resources
from terrarium.studies.base import Cell
from terrarium.studies.pace import START_S, Forecast, Stage, remembered_scale, times_as_slow
from terrarium.studies.schedule import Schedule


def cells(**needs: str) -> list[Cell]:
    return [Cell(name, {}, needs=tuple(need.split())) for name, need in needs.items()]


def order(schedule: Schedule) -> list[int]:
    taken = []
    while not schedule.finished:
        cell = schedule.take(0.0)
        assert cell is not None
        taken.append(cell)
        schedule.done(cell)
    return taken


def test_longest_first() -> None:
    assert order(Schedule(cells(a="", b="", c="", d=""), [1, 3, 2, 3], done={2})) == [1, 3, 0]


def test_a_chain_counts_as_long_as_it_is() -> None:
    toy = cells(long="", prefix="", branch="prefix", leaf="branch")
    assert order(Schedule(toy, [5, 2, 2, 2], done=())) == [1, 0, 2, 3]
    busy = Schedule(toy, [5, 2, 2, 2], done={1})
    assert [busy.take(0.0), busy.take(0.0), busy.take(0.0)] == [0, 2, None]


def test_what_needs_a_failed_cell_is_lost() -> None:
    schedule = Schedule(cells(a="", b="a", c="b", d=""), [1, 1, 1, 1], done=())
    assert schedule.take(0.0) == 0
    assert schedule.failed(0) == [1, 2]
    assert order(schedule) == [3]


def test_the_second_try_is_last_and_alone() -> None:
    schedule = Schedule(cells(a="", b="", c=""), [3, 2, 1], done=())
    assert schedule.take(0.0) == 0
    assert schedule.died(0)
    assert [schedule.take(0.0), schedule.take(0.0), schedule.take(0.0)] == [1, 2, None]
    schedule.done(1)
    assert schedule.take(0.0) is None, "another cell still runs"
    schedule.put_back(2, until=5.0)
    assert schedule.take(0.0) == 0
    assert schedule.take(6.0) is None, "alone"
    assert not schedule.died(0)
    assert schedule.failed(0) == []
    assert schedule.take(4.0) is None, "put back until 5"
    assert schedule.take(6.0) == 2


@pytest.mark.parametrize(
    ("toy", "said"),
    [
        (cells(a="", b="alpha"), "needs 'alpha', which is no cell"),
        (cells(a="b", b="c", c="a"), "needs itself by way of others"),
        (cells(a="") * 2, "Two cells are called 'a'"),
    ],
)
def test_impossible_needs_are_refused(toy: list[Cell], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Schedule(toy, [1.0] * len(toy), done=())


@pytest.mark.parametrize(
    ("wrong_by", "within_cells", "limits"),
    [
        (1.0, False, {0.0: 3.0, 1.0: 1.0}),
        (3.0, False, {9.0: 5.0, 20.5: 2.0}),
        (3.0, True, {2.0: 6.0, 10.5: 1.5}),
        (0.3, True, {2.0: 6.0, 10.5: 1.5}),
    ],
)
def test_forecast_of_a_simulated_run(
    wrong_by: float, within_cells: bool, limits: dict[float, float]
) -> None:
    """Eight cells of 10 s on two workers end after 40 s; the guesses are wrong by a factor."""
    true, began = 10.0, 100.0
    forecast = Forecast([true / wrong_by] * 8, 2, began)
    assert forecast.left(began) == pytest.approx(4 * true / wrong_by + START_S)
    errors = {}
    running: dict[int, float] = {}
    waiting = list(range(8))
    for tick in range(401):
        now = began + tick / 10
        for cell in [one for one, since in running.items() if now - since >= true - 1e-9]:
            forecast.done(cell, true)
            del running[cell]
        while len(running) < 2 and waiting:
            running[waiting.pop(0)] = now
            forecast.started(list(running)[-1], now)
        for cell, since in running.items():
            forecast.step(cell, (now - since) / true if within_cells else None)
        errors[tick / 10] = forecast.left(now) - (began + 40 - now)
    for early, limit in limits.items():
        assert max(abs(error) for at, error in errors.items() if at >= early) <= limit
    assert errors[40.0] == 0


def test_forecast_forgets_what_was_put_back_and_ignores_what_was_found() -> None:
    forecast = Forecast([4.0, 4.0], 1, 0.0)
    forecast.done(0, None)
    forecast.started(1, 0.0)
    forecast.step(1, 0.5)
    assert forecast.left(2.0) == pytest.approx(2.0)
    assert forecast.fraction(2.0) == pytest.approx(0.5)
    forecast.put_back(1)
    assert forecast.left(10.0) == pytest.approx(4.0)


def test_stages_share_a_cell() -> None:
    told: list[tuple[str, float]] = []

    class Outer:
        def start(self, task: str, total: float, unit: str = "steps") -> None: ...
        def finish(self, task: str) -> None: ...
        def advance(self, task: str, amount: float = 1.0, note: str = "") -> None:
            told.append((task, amount))

    stage = Stage(Outer(), "cell", 8.0)
    stage.start("grow", 100)
    stage.advance("grow", 25)
    stage.advance("grow", 25)
    stage.finish("grow")
    stage.start("more", 10)
    stage.advance("more", 10)
    assert told == [("cell", 2.0), ("cell", 2.0), ("cell", 4.0), ("cell", 0.0)]


def test_remembered_scale_is_a_median_and_survives_rubbish() -> None:
    facts = {str(s): {"seconds": s, "guess": 2.0} for s in (1.0, 4.0, 100.0)}
    assert remembered_scale({**facts, "x": "rubbish", "y": {"guess": 1}}, 2.0) == 2.0
    assert remembered_scale({}, 2.0) == 1.0


def test_cells_of_a_second_do_not_set_the_pace_of_long_ones() -> None:
    smoke = {f"smoke {i}": {"seconds": 5.0, "guess": 0.5} for i in range(20)}
    assert remembered_scale(smoke, 20.0) == 1.0
    assert remembered_scale(smoke, 0.5) == 10.0, "but that of cells like them"
    long = {f"long {i}": {"seconds": 30.0, "guess": 20.0} for i in range(3)}
    assert remembered_scale({**smoke, **long}, 20.0) == 1.5
    weighed = {f"short {i}": {"seconds": 18.0, "guess": 3.0} for i in range(5)}
    assert remembered_scale({**weighed, **long}, 20.0) == 1.5, "five cells, 15 s of 75 s guessed"


def test_cores_follow_affinity_and_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from terrarium.studies.resources import usable_cores as c; raise SystemExit(c())"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 1
    monkeypatch.setattr(resources.os, "sched_getaffinity", lambda pid: set(range(8)))
    for below, files, cores in [
        ("new", {"cpu.max": "250000 100000\n"}, 3),
        ("free", {"cpu.max": "max 100000\n"}, 8),
        ("half", {"cpu.max": "50000 100000\n"}, 1),
        ("old", {"cpu.cfs_quota_us": "200000\n", "cpu.cfs_period_us": "100000\n"}, 2),
        ("unlimited", {"cpu.cfs_quota_us": "-1\n", "cpu.cfs_period_us": "100000\n"}, 8),
    ]:
        folder = tmp_path / below
        folder.mkdir()
        for name, text in files.items():
            (folder / name).write_text(text)
        monkeypatch.setattr(resources, "_control_groups", lambda found=folder: [found])
        assert resources.usable_cores() == cores
    (folder / "memory.max").write_text(str(3 * 2**20))
    (folder / "memory.current").write_text(str(2**20))
    assert resources.available_memory_mb() == 2


def test_larger_models_take_longer(tmp_path: Path) -> None:
    assert times_as_slow(TransformerModel(layers=2, width=64)) == 1.0
    assert times_as_slow(TransformerModel(layers=4, width=256)) == 16.0
    folder = HuggingFaceModel(folder=str(tmp_path))
    assert times_as_slow(folder) == 1.0, "nothing is known of it"
    (tmp_path / "config.json").write_text('{"n_layer": 4, "n_embd": 256}')
    assert times_as_slow(folder) == 16.0
