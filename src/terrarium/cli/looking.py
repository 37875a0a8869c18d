"""``terrarium list``, ``show``, ``rows``, ``verdicts``, ``report``, ``figure``: reading only."""

from __future__ import annotations

import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from terrarium.cli import words
from terrarium.cli.console import give, give_json, give_table, tell
from terrarium.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from terrarium.cli.results import Results
    from terrarium.evidence.rows import Row
    from terrarium.figures.figure import Figure
    from terrarium.store import Store
    from terrarium.studies.base import Study

KINDS = ("studies", "worlds", "probes", "detectors", "organisms", "store")
SHOWN = 40
"""Rows that ``terrarium rows`` prints for people."""

StudyArgument = Annotated[
    str, typer.Argument(metavar="STUDY", help="A study's name, or a folder of results.")
]
LastSize = Annotated[
    str | None,
    typer.Option("--size", "-s", metavar="smoke|quick|full", help="Size (that of the last run)."),
]


def add_to(app: typer.Typer) -> None:
    """Add this module's commands to the application."""
    app.command("list", epilog="Example:\n\n  terrarium list probes")(list_)
    app.command(
        epilog="Examples:\n\n  terrarium show says-knows\n\n  terrarium show my-recipe.yaml\n\n"
        "  terrarium show 3f9a1c"
    )(show)
    app.command(
        epilog="Examples:\n\n  terrarium rows says-knows --json\n\n"
        '  terrarium rows says-knows --sql "select layer, avg(value) from rows '
        "where metric = 'auroc' group by layer order by layer\""
    )(rows)
    app.command(epilog="Example:\n\n  terrarium verdicts says-knows --json")(verdicts)
    app.command(epilog="Example:\n\n  terrarium report says-knows -o report.html --open")(report)
    app.command(
        epilog="Examples:\n\n  terrarium figure says-knows\n\n"
        "  terrarium figure says-knows layers -o layers.svg\n\n"
        "  terrarium figure says-knows layers -o layers.png --theme dark --width 900"
    )(figure)


def list_(
    kind: Annotated[
        str, typer.Argument(metavar="[KIND]", help=f"What to list: {', '.join(KINDS)}.")
    ] = "studies",
    as_json: words.JsonOption = False,
) -> None:
    """List studies, or another kind of thing with a name."""
    if kind not in KINDS:
        raise InputError(f"There is no kind '{kind}'{did_you_mean(kind, KINDS)}")
    found = {"studies": _studies, "organisms": _organisms, "store": _kinds_in_store}.get(
        kind, lambda: _registered(kind)
    )()
    if as_json:
        give_json(found)
        return
    if not found:
        tell(f"There are no {kind} yet.")
        return
    give_table(list(found[0]), [[str(value) for value in line.values()] for line in found])
    if kind == "studies":
        give("Run one with: terrarium run STUDY --size smoke")


def _studies() -> list[dict[str, Any]]:
    from terrarium.studies.base import studies

    return [{"study": name, "question": studies.get(name).question} for name in studies]


def _registered(kind: str) -> list[dict[str, Any]]:
    import importlib

    modules = {"worlds": "terrarium.worlds.base"}
    module = importlib.import_module(modules.get(kind, "terrarium.instruments.base"))
    return [{kind[:-1]: name} for name in getattr(module, kind)]


def _organisms() -> list[dict[str, Any]]:
    from terrarium.store import Store

    return [
        {
            "key": entry.key,
            "made": entry.made,
            "MB": round(entry.size / 1e6, 2),
            "phase": str((entry.spec or {}).get("phase", {}).get("kind", "")) or _short(entry.spec),
        }
        for entry in Store().entries("organism")
    ]


def _kinds_in_store() -> list[dict[str, Any]]:
    from terrarium.store import Store

    summary = Store().describe()
    return [
        {"kind": kind, "values": count, "MB": round(size / 1e6, 2), "folder": str(summary.home)}
        for kind, (count, size) in summary.kinds.items()
    ]


def _short(value: Any, most: int = 100) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= most else f"{text[: most - 1]}…"


def show(
    thing: Annotated[
        str, typer.Argument(metavar="STUDY|RECIPE|KEY", help="A study, a recipe file, or a key.")
    ],
    as_json: words.JsonOption = False,
) -> None:
    """Show a study's question, hypotheses and settings, a recipe's phases, or a stored value."""
    from terrarium.studies.base import studies

    if thing in studies:
        _show_study(studies.get(thing), as_json)
    elif Path(thing).suffix in (".yaml", ".yml"):
        _show_recipe(Path(thing), as_json)
    elif len(thing) >= 4 and set(thing) <= set("0123456789abcdef"):
        _show_key(thing, as_json)
    else:
        known = did_you_mean(thing, studies.names())
        raise InputError(
            f"'{thing}' is no study, no recipe file (.yaml) and no key of 4 or more hex digits"
            f"{known}"
        )


def _show_study(study: Study, as_json: bool) -> None:
    told = {
        "study": study.name,
        "question": study.question,
        "hypotheses": [
            {
                "name": h.name,
                "claim": h.claim,
                "rival": h.rival,
                "counts_for": h.counts_for,
                "counts_against": h.counts_against,
                "prediction": h.text,
            }
            for h in study.hypotheses
        ],
        "sizes": {size: dict(settings) for size, settings in study.defaults.items()},
    }
    if as_json:
        give_json(told)
        return
    give(f"{study.name}: {study.question}\n")
    for hypothesis in study.hypotheses:
        give(f"{hypothesis.name}: {hypothesis.claim}")
        give(f"  rival: {hypothesis.rival}\n  predicted: {hypothesis.text}\n")
    for size, settings in study.defaults.items():
        give(f"--size {size}")
        words.give_pairs(settings, "    ")


def _show_recipe(path: Path, as_json: bool) -> None:
    from terrarium.organisms.recipe import load_recipe

    recipe = load_recipe(path)
    if as_json:
        give_json(recipe.model_dump(mode="json"))
        return
    give(f"{recipe.name}: {_short(recipe.model, 200)}")
    for phase in recipe.phases:
        worlds = ", ".join(f"{s.world} (weight {s.weight:g})" for s in phase.sources)
        lora = f", LoRA rank {phase.lora.rank}" if phase.lora else ""
        goal = phase.objective.kind.replace("_", " ")
        give(f"  {phase.name}: {phase.steps} steps of {phase.batch} rows, {goal}{lora}; {worlds}")
    give("  with a twin" if recipe.has_twin else "  without a twin: no source says what it sees")


def _show_key(key: str, as_json: bool) -> None:
    import json

    from terrarium.store import Store

    store = Store()
    # Folders that begin with a dot hold locks and drafts.
    found = [p for p in sorted(store.home.glob(f"[a-z]*/{key[:2]}/{key}*")) if p.is_dir()]
    if not found:
        raise InputError(f"The store at {store.home} holds no value whose key begins with {key}.")
    if len(found) > 1:
        names = ", ".join(f"{p.parent.parent.name} {p.name[:12]}" for p in found[:4])
        raise InputError(f"{len(found)} values begin with {key}: {names}; give more digits.")
    folder = found[0]
    told = json.loads((folder / "spec.json").read_text(encoding="utf-8"))
    files = {p.name: p.stat().st_size for p in sorted(folder.iterdir()) if p.is_file()}
    if as_json:
        give_json({"folder": str(folder), **told, "files": files})
        return
    give(f"{folder.parent.parent.name} {folder.name}\n  {folder}")
    words.give_pairs({name: _short(value, 300) for name, value in told.items()})
    words.give_pairs({name: f"{size:,} bytes" for name, size in files.items()}, "    ")


def _results(study: str, size: str | None, store: Store) -> Results:
    from terrarium.cli.results import find

    return find(study, words.size(size) if size else None, store)


def rows(
    study: StudyArgument,
    size: LastSize = None,
    sql: Annotated[
        str | None, typer.Option(help="A query on the view `rows`, one column per factor.")
    ] = None,
    as_json: words.JsonOption = False,
) -> None:
    """Print a study's rows, or what a query makes of them."""
    from terrarium.evidence.table import query
    from terrarium.pages.view import plain
    from terrarium.store import Store

    results = _results(study, size, Store())
    if sql is None and not as_json:
        _give_rows(results.rows)
        return
    found = query(results.rows, sql or "select * from rows")
    if as_json:
        give_json(found)
        return
    columns = [c for c in (found[0] if found else {}) if any(r[c] not in (None, "") for r in found)]
    give_table(columns, [[plain(row[c]) for c in columns] for row in found[:SHOWN]])
    if len(found) > SHOWN:
        tell(f"{SHOWN} of {len(found)} rows; all with --json, some with --sql.")


def _give_rows(found: Sequence[Row]) -> None:
    from terrarium.evidence.intervals import shown
    from terrarium.pages.view import plain

    lines = []
    for row in found[:SHOWN]:
        factors = ", ".join(f"{name}={plain(level)}" for name, level in row.factors.items())
        value = row.status if row.value is None else shown(row.value, row.interval, row.unit)
        lines.append((row.metric, value, str(row.n), row.reason or factors))
    give_table(("metric", "value", "n", "factors (or why there is no value)"), lines)
    tell(f"{len(lines)} of {len(found)} rows; all with --json, some with --sql.")


def verdicts(
    study: StudyArgument, size: LastSize = None, as_json: words.JsonOption = False
) -> None:
    """Print what became of a study's hypotheses, and its checks."""
    from terrarium.store import Store

    results = _results(study, size, Store())
    judged, checks = results.verdicts(), results.checks()
    if as_json:
        give_json(
            {
                "study": results.study.name,
                "size": results.info.size,
                "verdicts": [verdict.record() for verdict in judged],
                "checks": [check.record() for check in checks],
            }
        )
        return
    words.give_verdicts(judged)
    give_table(
        ("check", "status", "what was found"), [(c.name, c.status, c.sentence) for c in checks]
    )


def report(
    study: StudyArgument,
    size: LastSize = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="HTML file (report.html among the results).")
    ] = None,
    show_it: Annotated[bool, typer.Option("--open/--no-open", help="Open in a browser.")] = False,
) -> None:
    """Write a study's report from its stored rows alone.

    A report that was made from these very rows by this very code is left as it is.
    """
    from terrarium.cli import fresh, results
    from terrarium.cli.places import REPORT, write_text
    from terrarium.store import Store

    store = Store()
    folder = results.locate(study, words.size(size) if size else None, store)
    made, mark = folder / REPORT, fresh.made_from(folder)
    target = out or made
    if mark is None or not fresh.is_fresh(made, mark):
        html = results.find(str(folder), None, store).report(store)
        write_text(target, fresh.marked(html, mark))
    elif target != made:
        write_text(target, made.read_text(encoding="utf-8"))
    give(str(target))
    if show_it:
        webbrowser.open(target.absolute().as_uri())


def figure(
    study: StudyArgument,
    name: Annotated[
        str | None, typer.Argument(help="Name of a figure; without one they are listed.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="File: .svg, .png, .json (Vega-Lite) or .csv (NAME.svg)."),
    ] = None,
    size: LastSize = None,
    theme: Annotated[str, typer.Option(metavar="light|dark", help="Colours.")] = "light",
    width: Annotated[int, typer.Option(min=200, max=4000, help="Width in pixels.")] = 720,
) -> None:
    """Write one of a study's figures with its caption, or list them."""
    from terrarium.store import Store

    results = _results(study, size, Store())
    made = {one.name: one for one in results.study.figures(results.rows)}
    if not made:
        raise InputError(f"{results.study.name} draws no figure from these rows; see its report.")
    if name is None:
        give_table(("figure", "title"), [(one.name, one.title) for one in made.values()])
        return
    if name not in made:
        raise InputError(f"{results.study.name} has no figure '{name}'{did_you_mean(name, made)}")
    give(str(_export(made[name], out or Path(f"{name}.svg"), theme, width)))


def _export(made: Figure, out: Path, theme: str, width: int) -> Path:
    from terrarium.pages.export import export_figure

    themes: Sequence[Any] = ("light", "dark")
    if theme not in themes:
        raise InputError(f"There is no theme '{theme}'{did_you_mean(theme, themes)}")
    return export_figure(made, out, theme="dark" if theme == "dark" else "light", width=width)
