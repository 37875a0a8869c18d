"""What the report's templates show: plain values worked out from verdicts, checks and rows."""

from __future__ import annotations

import base64
import csv
import io
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from terrarium.evidence.checks import Check
from terrarium.evidence.findings import Finding
from terrarium.evidence.hypotheses import Hypothesis, Verdict
from terrarium.evidence.intervals import mean_interval, shown
from terrarium.evidence.predictions import Prediction
from terrarium.evidence.rows import Row
from terrarium.figures.cards import Card
from terrarium.figures.draw import columns_of
from terrarium.figures.figure import Figure
from terrarium.figures.theme import themed

TABLE_ROWS = 200
"""Rows of a table that a page shows; the CSV holds all of them."""
_LEFT, _RIGHT = 8.0, 232.0


def strip(
    values: Sequence[float],
    *,
    interval: tuple[float, float] | None = None,
    low: float | None = None,
    high: float | None = None,
    ends: tuple[float, float] | None = None,
    label: str = "",
) -> dict[str, Any] | None:
    """Return the coordinates of a strip of dots: seeds, mean, interval and predicted region.

    ``low`` and ``high`` bound the region (None is no bound, both None no region); ``ends`` fixes
    the axis, which otherwise holds all that is drawn.  None where there is nothing to draw.
    """
    bars = [bar for bar in (low, high) if bar is not None]
    points = [*values, *(interval or ()), *bars]
    if not values:
        return None
    start, end = ends or _axis(points)

    def at(value: float) -> float:
        share = (value - start) / (end - start)
        return round(_LEFT + min(1.0, max(0.0, share)) * (_RIGHT - _LEFT), 1)

    region = None
    if bars:
        region = (at(start if low is None else low), at(end if high is None else high))
    return {
        "label": label,
        "dots": [at(value) for value in values],
        "mean": at(math.fsum(values) / len(values)),
        "interval": (at(interval[0]), at(interval[1])) if interval else None,
        "bars": [at(bar) for bar in bars],
        "region": region,
        "ticks": _ticks(start, end, bars, at),
    }


def _axis(points: Sequence[float]) -> tuple[float, float]:
    low, high = min(points), max(points)
    if low >= -1e-9 and high <= 1 + 1e-9 and high - low > 0.15:
        return 0.0, 1.0
    pad = 0.12 * (high - low) or 0.5 * abs(high) or 1.0
    return low - pad, high + pad


def _ticks(
    start: float, end: float, bars: Sequence[float], at: Any
) -> list[tuple[float, str, str]]:
    ticks = [(_LEFT, f"{start:.3g}", "start"), (_RIGHT, f"{end:.3g}", "end")]
    # A bar's number stands between the ends where there is room for it.
    inner = sorted(b for b in bars if 45 < at(b) < 195)
    if len(inner) > 1 and at(inner[-1]) - at(inner[0]) < 30:
        between = (at(inner[0]) + at(inner[-1])) / 2
        return [*ticks, (between, f"{inner[0]:.3g}–{inner[-1]:.3g}", "middle")]
    return [*ticks, *((at(b), f"{b:.3g}", "middle") for b in inner)]


def verdict_view(verdict: Verdict, hypothesis: Hypothesis | None) -> dict[str, Any]:
    """Return what the page shows of a verdict, with what was written before the run."""
    predictions: Sequence[Prediction | None] = (
        hypothesis.predictions if hypothesis else [None] * len(verdict.findings)
    )
    pairs = zip(verdict.findings, predictions, strict=True)
    return {
        "name": verdict.hypothesis,
        "standing": verdict.verdict,
        "claim": verdict.claim,
        "reason": verdict.reason,
        "findings": [_finding(finding, prediction) for finding, prediction in pairs],
        "gates": verdict.gates,
        "prediction": hypothesis.text if hypothesis else "",
        "rival": hypothesis.rival if hypothesis else "",
        "counts_for": hypothesis.counts_for if hypothesis else "",
        "counts_against": hypothesis.counts_against if hypothesis else "",
    }


def _finding(finding: Finding, prediction: Prediction | None) -> dict[str, Any]:
    found = "no value"
    if finding.estimate is not None:
        found = shown(finding.estimate, finding.interval, finding.unit)
    of = f"{finding.n} of {finding.seeds}" if finding.missing else f"{finding.n}"
    what = finding.prediction.removesuffix(finding.predicted).removeprefix("mean over seeds of ")
    note = f"{what.strip()}, over {of} seed{'' if finding.seeds == 1 else 's'}; "
    note += f"predicted {finding.predicted}"
    if finding.p_adjusted is not None:
        note += f"; {_p(finding.p_adjusted)} after Holm"
    interval = finding.interval
    values = list(finding.values.values())
    return {
        "found": found,
        "note": note,
        "tested": f"{finding.prediction}: {finding.outcome}"
        + (f"; {finding.reason}" if finding.reason else ""),
        "strip": strip(
            values,
            interval=(interval.low, interval.high) if interval else None,
            low=prediction.low if prediction else None,
            high=prediction.high if prediction else None,
            label=f"{found}, {note}. Seeds: {', '.join(f'{value:.3g}' for value in values)}.",
        ),
    }


def _p(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def card_view(card: Card) -> dict[str, Any]:
    """Return what the page shows of an organism."""
    lines = []
    reached: dict[Any, bool] = {}
    for context, seeds in card.contexts.items():
        values = [value for value in seeds.values() if value is not None]
        for seed, value in seeds.items():
            if card.gated is None or context in card.gated:
                ok = value is not None and (card.gate is None or value >= card.gate)
                reached[seed] = reached.get(seed, True) and ok
        text = "no value"
        if values:
            band = mean_interval(values) if len(values) > 1 else None
            text = shown(math.fsum(values) / len(values), band)
        lost = len(seeds) - len(values)
        text += f" ({lost} without a value)" if lost and values else ""
        label = f"{context}: {text}"
        picture = strip(values, low=card.gate, ends=(_least(card), 1.0), label=label)
        lines.append({"context": context, "text": text, "strip": picture})
    count = sum(reached.values())
    gate_text = ""
    if card.gate is not None and reached:
        where = "every context" if card.gated is None else " and ".join(card.gated)
        gate_text = f"{count} of {len(reached)} seeds reach {100 * card.gate:g} % in {where}."
    return {
        "name": card.name,
        "note": card.note,
        "lines": lines,
        "gate_text": gate_text,
        "gate_standing": "passed" if count == len(reached) else "failed",
        "facts": card.facts,
    }


def _least(card: Card) -> float:
    """Where the axis of a card's strips begins: one for all, so that they can be compared."""
    values = [v for seeds in card.contexts.values() for v in seeds.values() if v is not None]
    least = min([1.0, *values, *([] if card.gate is None else [card.gate])])
    return 0.5 if least >= 0.5 else math.floor(10 * min(0.0, least)) / 10


def table(records: Sequence[Mapping[str, Any]], most: int = TABLE_ROWS) -> dict[str, Any]:
    """Return columns and the first ``most`` rows, each cell as text; empty columns are left out."""
    columns = [c for c in columns_of(records) if any(r.get(c) not in (None, "") for r in records)]
    rows = [[_cell(record.get(column)) for column in columns] for record in records[:most]]
    return {"columns": columns, "rows": rows}


def _cell(value: Any) -> dict[str, Any]:
    numeric = isinstance(value, (int, float)) and not isinstance(value, bool)
    return {"text": plain(value), "numeric": numeric}


def plain(value: Any) -> str:
    """Return ``value`` as a person would write it: four digits after the point at most."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e-3 or abs(value) >= 1e6 else f"{value:.4f}"
    if isinstance(value, (list, tuple)):
        return ", ".join(plain(item) for item in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {plain(item)}" for key, item in value.items())
    return str(value)


def setting(value: Any) -> str:
    """Return a setting in full: what stands here must reproduce the run."""
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return ", ".join(setting(item) for item in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {setting(item)}" for key, item in value.items())
    return plain(value)


def csv_text(records: Sequence[Mapping[str, Any]]) -> str:
    """Return flat rows as CSV; None is an empty field."""
    columns = columns_of(records)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(columns)
    writer.writerows([record.get(column) for column in columns] for record in records)
    return out.getvalue()


def csv_uri(records: Sequence[Mapping[str, Any]]) -> str:
    """Return the CSV of flat rows as a ``data:`` URI that a page can offer for download."""
    packed = base64.b64encode(csv_text(records).encode("utf-8")).decode("ascii")
    return f"data:text/csv;charset=utf-8;base64,{packed}"


def figure_view(figure: Figure, picture: str) -> dict[str, Any]:
    """Return what the page shows of a figure; ``picture`` is its SVG."""
    spec = themed(figure.spec, "page")
    spec.pop("title", None)
    return {
        "name": figure.name,
        "title": figure.title if figure.title.endswith((".", "?", "!")) else f"{figure.title}.",
        "caption": figure.caption,
        "svg": picture,
        "spec": spec,
        "rows": len(figure.data),
        "table": table(figure.data),
        "csv": csv_uri(figure.data),
    }


def gaps_table(rows: Iterable[Row], most: int = TABLE_ROWS) -> dict[str, Any]:
    """Return the rows that have no value, those that differ in their seed alone put together."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for row in rows:
        if row.status == "ok":
            continue
        told = {k: v for k, v in row.factors.items() if k != "seed" and v is not None}
        factors = ", ".join(f"{k} = {plain(v)}" for k, v in told.items())
        seeds = groups.setdefault((row.status, row.metric, factors, row.reason), [])
        seeds.append(plain(row.factors.get("seed")))
    records = [
        {
            "status": status,
            "metric": metric,
            "factors": factors,
            "seeds": ", ".join(dict.fromkeys(filter(None, seeds))),
            "rows": len(seeds),
            "reason": reason,
        }
        for (status, metric, factors, reason), seeds in groups.items()
    ]
    return table(records, most)


def counted(names: Iterable[str], order: Sequence[str]) -> str:
    """Return ``"3 supported, 1 undecided"`` in the given order, leaving out what didn't occur."""
    counts = Counter(names)
    return ", ".join(f"{counts[name]} {name}" for name in order if counts[name])


def check_summary(checks: Sequence[Check]) -> str:
    """Return how many checks passed, failed and were not made, in a sentence."""
    said = counted((check.status for check in checks), ("passed", "failed", "not made"))
    return f"{said}." if said else "This study makes no checks."
