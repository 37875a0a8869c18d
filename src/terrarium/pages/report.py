"""The report: one self-contained HTML file computed from stored rows, verdicts, checks, figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from terrarium.evidence.checks import Check
from terrarium.evidence.hypotheses import Verdict
from terrarium.evidence.rows import Row, records
from terrarium.figures.cards import Card
from terrarium.figures.figure import Figure
from terrarium.figures.theme import css_variables
from terrarium.pages import assets, view
from terrarium.pages.info import RunInfo
from terrarium.store import Store

if TYPE_CHECKING:
    from jinja2 import Environment

    from terrarium.studies.base import Study

CSV_ROWS = 4_000
"""Up to this many rows the report carries all of them as a download."""
_STANDINGS = ("supported", "contradicted", "undecided", "uninformative")


def render_report(
    study: Study,
    rows: Sequence[Row],
    verdicts: Sequence[Verdict],
    checks: Sequence[Check],
    figures: Sequence[Figure],
    info: RunInfo | None = None,
    *,
    cards: Sequence[Card] = (),
    store: Store | None = None,
) -> str:
    """Return the report as one HTML page that works from a file, offline.

    Nothing is measured here: all numbers come from ``rows`` and from what was computed of them.
    The charts are in the page as SVG and, where scripts run, replaced by the same charts with
    tooltips, fitted to the width.  ``store`` keeps the charts' drawings for the next time; without
    it they are drawn afresh, which takes about a second.
    """
    about = info or RunInfo()
    hypotheses = {hypothesis.name: hypothesis for hypothesis in study.hypotheses}
    drawn = [view.figure_view(f, _safe(assets.static_chart(f.spec, store))) for f in figures]
    gaps = view.gaps_table(rows)
    flat = records(rows)
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            study=study,
            info=about,
            facts=_facts(about, rows),
            sections=_sections(bool(cards), bool(study.hypotheses)),
            css=_css(),
            cards=[view.card_view(card) for card in cards],
            cards_show="; ".join(dict.fromkeys(card.what for card in cards)),
            gated=any(card.gate is not None for card in cards),
            verdicts=[view.verdict_view(v, hypotheses.get(v.hypothesis)) for v in verdicts],
            verdict_summary=_verdict_summary(verdicts),
            figures=drawn,
            checks=checks,
            check_summary=view.check_summary(checks),
            gaps=gaps,
            gap_summary=_gap_summary(rows),
            commands="\n".join(about.commands),
            duration=_duration(about),
            reproduce=_pairs(about),
            keys=view.table([{"cell": k, "key": v} for k, v in about.keys.items()], most=10_000),
            rows_csv=view.csv_uri(flat) if len(flat) <= CSV_ROWS else "",
            row_count=f"{len(flat):,}",
            licences=assets.text_of("licences.txt"),
            javascript=_script(assets.chart_library(store)) if figures else "",
            report_js=_script(assets.text_of("report.js")),
        )
    )


def _environment() -> Environment:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    return Environment(
        loader=FunctionLoader(assets.text_of),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _safe(text: str) -> Any:
    from markupsafe import Markup

    return Markup(text)


def _css() -> Any:
    css = assets.text_of("report.css")
    css = css.replace("/*LIGHT*/", css_variables("light"))
    return _safe(css.replace("/*DARK*/", css_variables("dark")))


def _script(code: str) -> Any:
    # "</script" inside a string would end the element.
    return _safe(code.replace("</script", "<\\/script").replace("<!--", "<\\!--"))


def _sections(cards: bool, hypotheses: bool) -> list[tuple[str, str]]:
    first = [("organisms", "What was grown")] if cards else []
    judged = [("verdicts", "Verdicts")] if hypotheses else []
    return [
        *first,
        *judged,
        ("figures", "Figures"),
        ("checks", "Checks"),
        ("gaps", "What has no value"),
        ("reproduce", "Reproduce"),
    ]


def _facts(info: RunInfo, rows: Sequence[Row]) -> list[str]:
    seeds = {row.factors["seed"] for row in rows if row.factors.get("seed") is not None}
    cells = {row.cell for row in rows}
    facts = [
        f"size {info.size}" if info.size else "",
        f"{len(seeds)} seed{'' if len(seeds) == 1 else 's'}" if seeds else "",
        f"{len(cells)} cell{'' if len(cells) == 1 else 's'}, {len(rows):,} rows",
        f"measured in {duration(info.seconds)}" if info.seconds is not None else "",
        info.date,
    ]
    return [fact for fact in facts if fact]


def _verdict_summary(verdicts: Sequence[Verdict]) -> str:
    said = view.counted((verdict.verdict for verdict in verdicts), _STANDINGS)
    return f"{said[0].upper()}{said[1:]}." if said else ""


def _gap_summary(rows: Sequence[Row]) -> str:
    said = view.counted((row.status for row in rows), ("undefined", "failed", "skipped"))
    if not said:
        return f"All {len(rows)} rows have a value: nothing was undefined, failed or skipped."
    return f"Of {len(rows)} rows: {said}. They stay in every count."


def duration(seconds: float) -> str:
    """Return ``"42 s"``, ``"7 min 05 s"`` or ``"3 h 12 min"``."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _duration(info: RunInfo) -> str:
    if info.seconds is None:
        return ""
    took = f"The run took {duration(info.seconds)} of wall time on the machine below."
    if not info.found:
        return took
    return f"{took} It measured {info.measured} cells and found {info.found} in the store."


def _pairs(info: RunInfo) -> list[tuple[str, list[tuple[str, str]]]]:
    blocks = (("Settings", info.settings), ("Versions", info.versions), ("Machine", info.machine))
    return [
        (name, [(k, view.setting(v)) for k, v in block.items()]) for name, block in blocks if block
    ]
