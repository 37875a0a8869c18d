"""``terrarium run``."""

from __future__ import annotations

import sys
import webbrowser
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from terrarium.cli import words
from terrarium.cli.console import give, give_json, tell
from terrarium.cli.places import REPORT, default_folder, remember, write_text
from terrarium.errors import InputError

if TYPE_CHECKING:
    from terrarium.cli.results import Results
    from terrarium.store import Store
    from terrarium.studies.base import Study
    from terrarium.studies.plan import Plan
    from terrarium.studies.runner import Snapshot, StudyResult


def add_to(app: typer.Typer) -> None:
    """Add this module's commands to the application."""
    app.command(
        epilog="Examples:\n\n"
        "  terrarium run says-knows --size smoke\n\n"
        "  terrarium run says-knows --set seeds=8 --dry-run\n\n"
        "  terrarium run says-knows --size full --workers 8 --out results/full"
    )(run)


def run(
    study: Annotated[
        str, typer.Argument(metavar="STUDY", help="Name of a study; see: terrarium list.")
    ],
    size: words.SizeOption = "quick",
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a setting; may be repeated."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would run: cells, time, memory, disk.")
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(help="Worker processes of one thread each; 0: in this process.", min=0),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder of the results (terrarium-results/...)."),
    ] = None,
    as_json: words.JsonOption = False,
    show: Annotated[
        bool | None,
        typer.Option("--open/--no-open", help="Open the report in a browser (in a terminal)."),
    ] = None,
) -> None:
    """Run a study: grow, measure, judge, and write rows and report.

    What is in the store already is not measured again, so the same command goes on where it was
    stopped, and a second run takes seconds.
    """
    from terrarium.store import Store
    from terrarium.studies.base import studies
    from terrarium.studies.plan import plan

    asked = studies.get(study)
    overrides = words.settings(changes or [])
    store = Store()
    planned = plan(asked, words.size(size), overrides, store, workers=workers)
    if dry_run:
        _tell_plan(planned, as_json)
        return
    if out is not None and out.exists() and not out.is_dir():
        raise InputError(f"--out expects a folder, and {out} is a file; name another.")
    folder = out or default_folder(study, planned.size, overrides)
    failed = conduct(
        asked,
        planned,
        store,
        folder,
        overrides=overrides,
        workers=workers,
        as_json=as_json,
        show=show,
    )
    remember(store, study, planned.size, folder)
    if failed:
        raise typer.Exit(1)


def conduct(
    study: Study,
    planned: Plan,
    store: Store,
    folder: Path,
    *,
    command: str = "",
    overrides: Mapping[str, str] | None = None,
    workers: int | None = None,
    as_json: bool = False,
    show: bool | None = None,
    strict: bool = False,
) -> int:
    """Run a planned study with progress, write its results into ``folder`` and tell what came out.

    ``command`` is the line that reproduces it, where ``terrarium run`` isn't.  Returns how many
    cells failed.  With ``strict``, a cell that could not use what the user handed in raises its
    ``InputError`` and nothing is written.  Raises ``StoppedError`` with a sentence that says what
    is left.
    """
    from terrarium.cli import results
    from terrarium.cli.fresh import made_from, marked

    tell(str(planned))
    result = _measure(study, planned, overrides or {}, store, workers)
    refused = [failure.reason for failure in result.failures if failure.kind == "input"]
    if strict and refused:
        raise InputError(refused[0])
    for note in dict.fromkeys(result.notes):
        tell(note)
    kept = results.save(folder, study, planned, result, overrides or {}, command)
    report = folder / REPORT
    write_text(report, marked(kept.report(store), made_from(folder)))
    _tell_results(kept, result, report, as_json)
    if show or (show is None and sys.stdout.isatty() and not as_json):
        webbrowser.open(report.absolute().as_uri())
    return len(result.failures)


def _measure(
    study: Study, planned: Plan, overrides: Mapping[str, str], store: Store, workers: int | None
) -> StudyResult:
    from terrarium.cli.display import Display
    from terrarium.studies.runner import run_study

    seen: list[Snapshot] = []

    def watch(snapshot: Snapshot) -> None:
        seen[:] = [snapshot]

    try:
        with Display() as display:
            return run_study(
                study,
                planned.size,
                overrides,
                store,
                workers=workers,
                progress=display,
                watch=watch,
            )
    except KeyboardInterrupt:
        done = seen[0].done if seen else len(planned.cells) - planned.to_run
        left = len(planned.cells) - done
        raise words.StoppedError(
            f"Stopped: {done} of {len(planned.cells)} cells are measured and stored, {left} are "
            "left; the same command goes on from there."
        ) from None


def _tell_plan(planned: Plan, as_json: bool) -> None:
    if not as_json:
        give(str(planned))
        words.give_pairs(planned.settings)
        for note in planned.notes:
            tell(note)
        return
    give_json(
        {
            "study": planned.study,
            "size": planned.size,
            "settings": dict(planned.settings),
            "cells": len(planned.cells),
            "to_run": planned.to_run,
            "workers": planned.workers,
            "seconds": round(planned.seconds, 1),
            "memory_mb": round(planned.memory_mb),
            "disk_mb": round(planned.disk_mb),
            "notes": list(planned.notes),
        }
    )


def _tell_results(results: Results, result: StudyResult, report: Path, as_json: bool) -> None:
    from terrarium.studies.base import studies

    verdicts = results.verdicts()
    failures = [{"cell": f.cell, "key": f.key, "reason": f.reason} for f in result.failures]
    if as_json:
        give_json(
            {
                "study": result.study,
                "size": result.size,
                "settings": dict(result.settings),
                "verdicts": [verdict.record() for verdict in verdicts],
                "checks": [check.record() for check in results.checks()],
                "failures": failures,
                "rows": str(results.folder / "rows.parquet"),
                "report": str(report),
                "measured": result.measured,
                "found": result.found,
                "seconds": round(result.seconds, 2),
            }
        )
    else:
        if verdicts:
            words.give_verdicts(verdicts)
        if result.study not in studies:
            _tell_findings(results)
        give(f"Report: {report}")
        give(f"Rows:   {results.folder / 'rows.parquet'} and rows.csv ({len(results.rows)} rows)")
    _tell_failures(result.failures)


def _tell_findings(results: Results) -> None:
    """Say what a study of the user's own found: its figures' titles, and checks that failed."""
    for figure in results.study.figures(results.rows):
        give(f"- {figure.title}")
    for check in results.checks():
        if check.status == "failed":
            give(f"- Check failed: {check.name} ({check.sentence})")


def _tell_failures(failures: Sequence[Any]) -> None:
    for failure in failures[:5]:
        tell(f"Cell '{failure.cell}' failed: {failure.reason}")
    if len(failures) > 5:
        tell(f"{len(failures) - 5} more cells failed; the report lists them.")
    if failures:
        tell("The same command tries the failed cells again.")
