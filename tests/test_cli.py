"""The command line: what it prints, where, with which exit code, and what it doesn't import."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from terrarium.cli import fresh, places, results
from terrarium.cli.app import run
from terrarium.cli.display import Display, words_for
from terrarium.errors import InputError
from terrarium.evidence.hypotheses import Hypothesis
from terrarium.evidence.predictions import above
from terrarium.evidence.quantities import per_seed
from terrarium.evidence.rows import Row, measured
from terrarium.evidence.table import read_rows
from terrarium.figures.curves import layer_curves
from terrarium.figures.figure import Figure
from terrarium.pages import assets
from terrarium.progress import Progress
from terrarium.store import Store
from terrarium.studies.base import Cell, Study, studies

HEAVY = ("torch", "transformers", "sklearn", "pandas", "altair", "scipy", "peft")
TROUBLE: dict[str, BaseException] = {}


def _cells(settings: Any) -> list[Cell]:
    return [Cell(f"seed {s}", {"seed": s, "level": settings["level"]}) for s in range(5)]


def _measure(cell: Cell, home: str, progress: Progress) -> Sequence[Row]:
    seed = cell.spec["seed"]
    if cell.name in TROUBLE:
        raise TROUBLE[cell.name]
    progress.start(cell.name, 2)
    progress.advance(cell.name, 2)
    return [
        measured("auroc", cell.spec["level"] + seed / 100, unit="", n=9, seed=seed, layer=layer)
        for layer in (0, 1)
    ]


def _figures(rows: Sequence[Row]) -> list[Figure]:
    flat = [
        {"layer": r.factors["layer"], "seed": r.factors["seed"], "quantity": "knows"}
        | {"value": r.value}
        for r in rows
        if r.metric == "auroc"
    ]
    return [layer_curves("layers", flat, title="It rises", caption="Seeds and mean.")]


TINY = Study(
    name="tiny",
    question="Does <tiny> rise?",
    hypotheses=(
        Hypothesis(
            "rises", "It rises.", "It falls.", "Above.", "Below.",
            above(per_seed("auroc", layer=1), 0.6),
        ),
    ),
    defaults={size: {"level": 0.8} for size in ("smoke", "quick", "full")},
    cells=_cells,
    measure=_measure,
    figures=_figures,
)  # fmt: skip


@dataclass
class Said:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def cli(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Said]]:
    monkeypatch.setenv("TERRARIUM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.chdir(tmp_path)
    # Bundling Vega takes a second in each fresh store; tests/pages tests the real one.
    monkeypatch.setattr(assets, "chart_library", lambda store: "window.vegaEmbed = null;")
    studies.add("tiny", TINY)

    def call(*arguments: str) -> Said:
        capsys.readouterr()
        code = run(list(arguments))
        out, err = capsys.readouterr()
        return Said(code, out, err)

    yield call
    TROUBLE.clear()
    del studies._loaded["tiny"]


def go(cli: Callable[..., Said], *more: str) -> Said:
    return cli("run", "tiny", "--workers", "0", "--no-open", *more)


def test_run_prints_verdicts_report_and_rows(cli: Callable[..., Said], tmp_path: Path) -> None:
    said = go(cli)
    assert said.code == 0
    assert "supported" in said.out
    folder = tmp_path / "terrarium-results" / "tiny-quick"
    assert "Report: terrarium-results/tiny-quick/report.html" in said.out
    assert {p.name for p in folder.iterdir()} == {
        "rows.parquet", "rows.csv", "run.json", "report.html",
    }  # fmt: skip
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert "Does &lt;tiny&gt; rise?" in html
    assert "terrarium run tiny --size quick" in html
    assert len(read_rows(folder)) == 10


def test_json_is_all_that_stands_on_standard_output(cli: Callable[..., Said]) -> None:
    said = go(cli, "--json", "--set", "level=0.3")
    assert said.json["settings"] == {"level": 0.3}
    assert said.json["verdicts"][0]["verdict"] == "contradicted"
    assert said.json["measured"] == 5
    assert "5 cells" in said.err
    again = go(cli, "--json", "--set", "level=0.3")
    assert (again.json["measured"], again.json["found"]) == (0, 5)


def test_a_second_run_keeps_the_time_of_the_first(cli: Callable[..., Said], tmp_path: Path) -> None:
    go(cli)
    file = tmp_path / "terrarium-results" / "tiny-quick" / "run.json"
    first = json.loads(file.read_text(encoding="utf-8"))
    go(cli)
    second = json.loads(file.read_text(encoding="utf-8"))
    assert second["seconds"] == first["seconds"]
    assert second["measured"] == 5


def test_changed_settings_have_a_folder_of_their_own(
    cli: Callable[..., Said], tmp_path: Path
) -> None:
    go(cli)
    said = go(cli, "--json", "--set", "level=0.3")
    folders = sorted((tmp_path / "terrarium-results").iterdir())
    assert len(folders) == 2
    own = Path(said.json["report"]).parent
    assert own.name.startswith("tiny-quick-")
    told = [json.loads((f / "run.json").read_text(encoding="utf-8")) for f in folders]
    assert sorted(t["settings"]["level"] for t in told) == [0.3, 0.8]
    # the last run is the one that commands read
    assert cli("verdicts", "tiny", "--json").json["verdicts"][0]["verdict"] == "contradicted"


def test_a_file_is_no_folder_of_results(cli: Callable[..., Said], tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    said = cli("run", "tiny", "--out", "notes.txt")
    assert said.code == 2
    assert "notes.txt is a file" in " ".join(said.err.split())
    assert (tmp_path / "notes.txt").read_text(encoding="utf-8") == "mine"


def test_dry_run_measures_nothing(cli: Callable[..., Said], tmp_path: Path) -> None:
    said = cli("run", "tiny", "--dry-run", "--json")
    assert (said.code, said.json["to_run"], said.json["settings"]) == (0, 5, {"level": 0.8})
    assert not (tmp_path / "terrarium-results").exists()
    assert "5 to run" in cli("run", "tiny", "--dry-run").out


def test_reading_commands_find_the_last_run_wherever_it_lies(
    cli: Callable[..., Said], tmp_path: Path
) -> None:
    go(cli, "--size", "smoke", "--set", "level=0.3", "--out", "elsewhere")
    assert cli("verdicts", "tiny", "--json").json["size"] == "smoke"
    go(cli)
    assert cli("verdicts", "tiny", "--json").json["size"] == "quick"
    smoke = cli("verdicts", "tiny", "--size", "smoke", "--json").json
    assert smoke["verdicts"][0]["verdict"] == "contradicted"
    assert cli("verdicts", "elsewhere", "--json").json["size"] == "smoke"
    assert "supported" in cli("verdicts", "tiny").out
    assert "all cells" in cli("verdicts", "tiny").out


def test_rows_and_sql(cli: Callable[..., Said]) -> None:
    go(cli)
    assert len(cli("rows", "tiny", "--json").json) == 10
    found = cli("rows", "tiny", "--json", "--sql", "select avg(value) as mean, layer from rows "
                "group by layer order by layer")  # fmt: skip
    assert [line["layer"] for line in found.json] == [0, 1]
    assert found.json[0]["mean"] == pytest.approx(0.82)
    assert "layer=0" in cli("rows", "tiny").out
    assert "0.82" in cli("rows", "tiny", "--sql", "select avg(value) as mean from rows").out
    wrong = cli("rows", "tiny", "--sql", "selekt 1")
    assert wrong.code == 2
    assert wrong.err.count("\n") == 1


def test_report_and_figure(cli: Callable[..., Said], tmp_path: Path) -> None:
    go(cli)
    made = cli("report", "tiny", "-o", "r.html")
    assert (made.code, made.out) == (0, "r.html\n")
    assert "vegaEmbed" in (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "It rises" in cli("figure", "tiny").out
    assert cli("figure", "tiny", "layers", "-o", "f.png").code == 0
    assert (tmp_path / "f.png").read_bytes().startswith(b"\x89PNG")
    assert cli("figure", "tiny", "layers").out == "layers.svg\n"
    assert "did you mean 'layers'" in cli("figure", "tiny", "layer").err
    assert "did you mean 'dark'" in cli("figure", "tiny", "layers", "--theme", "drak").err


def test_list_and_show(cli: Callable[..., Said], tmp_path: Path) -> None:
    assert {"study": "tiny", "question": "Does <tiny> rise?"} in cli("list", "--json").json
    assert "logistic_regression" in cli("list", "probes").out
    assert cli("list", "organisms").code == 0
    shown = cli("show", "tiny", "--json").json
    assert shown["hypotheses"][0]["rival"] == "It falls."
    assert shown["sizes"]["full"] == {"level": 0.8}
    assert "It falls." in cli("show", "tiny").out
    go(cli)
    key = read_rows(tmp_path / "terrarium-results" / "tiny-quick")[0].cell
    assert cli("show", key[:10], "--json").json["spec"]["study"] == "tiny"
    assert key in cli("show", key).out
    assert "rows" in cli("list", "store").out
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "name: r\nphases:\n- name: a\n  steps: 3\n  objective: {kind: next_token}\n"
        "  sources: [{world: arithmetic}]\n",
        encoding="utf-8",
    )
    assert "3 steps of 256 rows" in cli("show", str(recipe)).out


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("run tyni", "did you mean 'tiny'"),
        ("run tiny --set lvl=1", "did you mean 'level'"),
        ("run tiny --set level", "expects KEY=VALUE"),
        ("run tiny --set level=high", "expects a finite number"),
        ("run tiny --size smoky", "did you mean 'smoke'"),
        ("run tiny --sizes quick", "No such option: --sizes"),
        ("run", "Missing argument 'STUDY'"),
        ("rnu tiny", "run"),
        ("rows tiny", "has not been run yet; run it with: terrarium run tiny"),
        ("verdicts tiny --size full", "terrarium run tiny --size full"),
        ("list probse", "did you mean 'probes'"),
        ("show nothing", "no study, no recipe file"),
        ("show missing.yaml", "There is no recipe file"),
        ("show 0123456789", "no value whose key begins with"),
        ("grow missing.yaml", "There is no recipe file"),
        ("compare missing.py", "There is no file missing.py"),
        ("probe nowhere missing.csv", "missing.csv"),
        ("detect nowhere --trusted missing.csv", "Missing option '--suspect'"),
    ],
)
def test_bad_input_gets_one_sentence_and_exit_code_2(
    cli: Callable[..., Said], line: str, said: str
) -> None:
    found = cli(*line.split())
    assert found.code == 2
    assert said in found.err
    assert found.err.count("\n") == 1
    assert found.out == ""


def test_failed_cells_stay_and_the_code_says_so(cli: Callable[..., Said]) -> None:
    TROUBLE["seed 3"] = InputError("The dog ate it.")
    said = go(cli, "--json")
    assert said.code == 1
    assert said.json["failures"][0]["cell"] == "seed 3"
    assert "Cell 'seed 3' failed: The dog ate it." in said.err
    TROUBLE.clear()
    again = go(cli, "--json")
    assert (again.code, again.json["measured"]) == (0, 1)


def test_interrupt_says_what_is_left_and_the_same_command_goes_on(
    cli: Callable[..., Said],
) -> None:
    TROUBLE["seed 2"] = KeyboardInterrupt()
    said = go(cli)
    assert said.code == 130
    assert "of 5 cells are measured and stored" in said.err
    assert "the same command goes on from there" in said.err
    TROUBLE.clear()
    again = go(cli, "--json")
    assert again.code == 0
    assert again.json["found"] == 2


def test_an_interrupt_anywhere_else_is_told_too(
    cli: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    go(cli)

    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(results, "judge", stopped)
    said = cli("verdicts", "tiny")
    assert said.code == 130
    assert said.err.splitlines() == ["Stopped; the same command goes on from what is stored."]


def test_the_unexpected_is_one_sentence_and_a_log(
    cli: Callable[..., Said], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    go(cli)

    def broken(*_: Any) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(results, "judge", broken)
    said = cli("verdicts", "tiny")
    assert said.code == 1
    assert said.err.count("\n") == 1
    assert "ZeroDivisionError: a bug" in said.err
    (log,) = (tmp_path / "home" / "logs").iterdir()
    assert str(log) in said.err
    assert "Traceback" in log.read_text(encoding="utf-8")
    with pytest.raises(ZeroDivisionError):
        cli("verdicts", "tiny", "--traceback")


@pytest.mark.parametrize(
    "trouble",
    [
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        RuntimeError("CUDA out of memory. Tried to allocate 9 GiB."),
    ],
)
def test_too_little_memory_says_what_to_do(
    cli: Callable[..., Said], monkeypatch: pytest.MonkeyPatch, trouble: Exception
) -> None:
    go(cli)

    def broken(*_: Any) -> None:
        raise trouble

    monkeypatch.setattr(results, "judge", broken)
    said = cli("verdicts", "tiny")
    assert said.code == 1
    assert said.err.startswith("This needs more memory than there is (")
    assert said.err.count("\n") == 1


def test_without_arguments_the_help_is_all(cli: Callable[..., Said]) -> None:
    said = cli()
    assert said.code == 2
    assert "Start here" in said.out
    assert said.err == ""
    assert "?. " not in cli("probee").err


def test_a_store_that_cannot_be_written_has_its_own_code(
    cli: Callable[..., Said], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("TERRARIUM_HOME", str(tmp_path / "file"))
    said = go(cli)
    assert said.code == 3
    assert said.err.splitlines()[-1].endswith(".")


def test_a_damaged_run_file_is_told(cli: Callable[..., Said], tmp_path: Path) -> None:
    go(cli)
    (tmp_path / "terrarium-results" / "tiny-quick" / places.RUN).write_text("{")
    said = cli("report", "tiny")
    assert said.code == 2
    assert "is damaged; run the study again" in said.err


def test_an_output_folder_that_cannot_be_made_is_a_store_error(
    cli: Callable[..., Said], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("not a folder")
    said = go(cli, "--out", "file/results")
    assert said.code == 3


def test_every_command_teaches(cli: Callable[..., Said]) -> None:
    first = cli("--help")
    commands = [
        "run",
        "list",
        "show",
        "rows",
        "verdicts",
        "report",
        "figure",
        "grow",
        "probe",
        "detect",
        "compare",
        "bench",
    ]
    for command in commands:
        assert command in first.out
        text = cli(command, "--help").out
        assert f"terrarium {command}" in text.split("Options")[-1], command  # an example
    assert cli("--version").out.startswith("terrarium 0.")


def _modules_after(arguments: list[str], cwd: Path, home: Path) -> set[str]:
    code = (
        "import sys, json; from terrarium.cli.app import run; "
        f"code = run({arguments!r}); "
        "print(json.dumps([code, sorted(sys.modules)]))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=cwd,
        env={"TERRARIUM_HOME": str(home), "PATH": "/usr/bin:/bin"},
    )
    exit_code, modules = json.loads(found.stdout.splitlines()[-1])
    assert exit_code == 0, found.stderr
    return set(modules)


def test_help_is_light(tmp_path: Path) -> None:
    modules = _modules_after(["--help"], tmp_path, tmp_path / "home")
    assert not modules & {*HEAVY, "numpy", "pyarrow", "duckdb"}


def test_report_is_light(cli: Callable[..., Said], tmp_path: Path) -> None:
    go(cli)
    folder = tmp_path / "terrarium-results" / "tiny-quick"
    run_file = folder / places.RUN
    # The subprocess doesn't know the study of this test: show the rows as the built-in one's.
    run_file.write_text(run_file.read_text().replace('"tiny"', '"says-knows"', 1))
    modules = _modules_after(["report", str(folder)], tmp_path, tmp_path / "home")
    assert not modules & set(HEAVY)


def test_a_report_of_the_same_rows_and_code_is_left_as_it_is(
    cli: Callable[..., Said], tmp_path: Path
) -> None:
    go(cli)
    folder = tmp_path / "terrarium-results" / "tiny-quick"
    page, run_file = folder / places.REPORT, folder / places.RUN
    assert fresh.made_from(folder) is None  # a study from outside: its code is not known
    run_file.write_text(run_file.read_text().replace('"tiny"', '"says-knows"', 1))
    cli("report", str(folder))
    mark = fresh.made_from(folder)
    assert mark is not None
    assert fresh.is_fresh(page, mark)
    page.write_text(page.read_text(encoding="utf-8") + "<!-- kept -->", encoding="utf-8")
    cli("report", str(folder), "-o", "copy.html")
    assert (tmp_path / "copy.html").read_text(encoding="utf-8").endswith("<!-- kept -->")
    run_file.write_text(run_file.read_text().replace('"smoke"', '"other"') + " ")
    assert fresh.made_from(folder) != mark
    cli("report", str(folder))
    assert "<!-- kept -->" not in page.read_text(encoding="utf-8")
    (folder / "rows.parquet").unlink()
    assert fresh.made_from(folder) is None


@pytest.mark.parametrize("how", [["-c", "from terrarium.cli import main; main()"],
                                 ["-m", "terrarium"]])  # fmt: skip
def test_commands_run_as_a_program(tmp_path: Path, how: list[str]) -> None:
    program = [sys.executable, *how]
    found = subprocess.run(
        [*program, "run", "nothing"], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert found.returncode == 2
    assert found.stderr.startswith("There is no 'nothing' among the studies")


# Progress


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_plain_lines_come_early_and_then_seldom() -> None:
    clock, stream = Clock(), io.StringIO()
    with Display(stream, clock, every_s=10.0) as display:
        display.start("tiny", 100.0, "%")
        for _ in range(50):
            clock.now += 0.5
            display.advance("tiny", 1.0, "seed 1 of many")
        display.finish("tiny")
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3  # after 1, 11 and 21 seconds
    assert lines[0] == "tiny: 2 %, about 49 s left (seed 1 of many)"


def test_time_left_is_that_of_all_tasks() -> None:
    clock = Clock()
    display = Display(io.StringIO(), clock)
    assert display.seconds_left is None
    display.start("a", 10)
    display.start("b", 1000, "rows")
    clock.now = 10.0
    display.advance("a", 10)
    assert display.fraction == 0.5
    assert display.seconds_left == pytest.approx(10.0)
    display.finish("b")
    assert display.seconds_left == 0.0


def test_a_terminal_gets_one_live_line() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    with Display(stream) as display:
        display.start("[tiny]", 10)
        display.advance("[tiny]", 5, "halfway [there]")
        time.sleep(0.3)
    text = stream.getvalue()
    assert "[tiny]" in text
    assert "left" in text


def test_long_notes_are_cut() -> None:
    clock, stream = Clock(), io.StringIO()
    display = Display(stream, clock)
    display.start("t", 10)
    clock.now = 5.0
    display.advance("t", 1, "x" * 500)
    assert len(stream.getvalue()) < 150


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "time left not known yet"),
        (0.2, "about 1 s left"),
        (125, "about 2 min 05 s left"),
        (7260, "about 2 h 01 min left"),
    ],
)
def test_words_for_time(seconds: float | None, text: str) -> None:
    assert words_for(seconds) == text


def test_results_are_found_by_folder_before_any_run_is_remembered(
    cli: Callable[..., Said], tmp_path: Path
) -> None:
    go(cli)
    other = Store(tmp_path / "another home")
    assert results.find("tiny", None, other).info.size == "quick"


def test_bench_refuses_an_unknown_benchmark_in_a_sentence(capsys):
    assert run(["bench", "reeding"]) == 2
    assert "did you mean 'reading'" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["run", "report", "figure", "probe", "grow", "compare"])
def test_help_loses_nothing_to_markup(command, capsys):
    assert run([command, "--help"]) == 0
    assert not re.search(r"\w \.(\s|$)", capsys.readouterr().out)  # "Size [last]." lost its bracket
