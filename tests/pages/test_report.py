"""The report from planted rows: what it says, that it is sound HTML, that nothing is left out."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import pytest

from terrarium.evidence.rows import measured
from terrarium.figures.cards import Card
from terrarium.pages.assets import chart_library, static_chart
from terrarium.pages.report import duration, render_report
from terrarium.pages.view import card_view, csv_text, plain, setting, strip, table
from terrarium.store import Store

VOID = {"meta", "link", "br", "img", "hr", "input"}


class Outline(HTMLParser):
    """Checks that elements nest, and notes ids, links, headings and text."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.headings: list[str] = []
        self.faults: list[str] = []
        self.addresses: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        self.ids += [found["id"] or ""] if "id" in found else []
        self.links += [found["href"] or ""] if "href" in found else []
        self.addresses += [found[k] or "" for k in ("src", "href") if k in found]
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> at {self.getpos()}")

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text.append(data)


@pytest.fixture(scope="module")
def outline(page: str) -> Outline:
    parser = Outline()
    parser.feed(page)
    parser.close()
    return parser


def said(outline: Outline) -> str:
    return " ".join(" ".join(outline.text).split())


def test_elements_nest_ids_are_unique_and_links_lead_somewhere(outline: Outline) -> None:
    assert outline.faults == []
    assert outline.open == []
    assert len(outline.ids) == len(set(outline.ids))
    inner = [link[1:] for link in outline.links if link.startswith("#")]
    assert len(inner) >= 5
    assert set(inner) <= set(outline.ids)
    assert outline.headings[0] == "h1"
    assert outline.headings.count("h1") == 1


def test_nothing_is_loaded_from_elsewhere(outline: Outline) -> None:
    assert all(a.startswith(("#", "data:")) for a in outline.addresses)


def test_question_verdicts_and_what_was_written_before(outline: Outline) -> None:
    text = said(outline)
    assert "Does a probe that never saw Bob read the truth" in text
    assert "1 supported, 1 contradicted, 1 undecided, 1 uninformative." in text.replace(
        "1 S", "1 s"
    )
    assert "It reads what is said." in text  # the rival
    assert "mean over seeds of auroc" in text  # the prediction
    assert "gate failed" in text
    assert "a verdict needs 5" in text


def test_user_text_is_escaped(page: str, outline: Outline) -> None:
    assert "<LoRA>" in said(outline)
    assert "<LoRA>" not in re.sub(r"<script.*?</script>", "", page, flags=re.S)


def test_checks_of_all_three_kinds_and_rows_without_value_are_shown(outline: Outline) -> None:
    text = said(outline)
    assert "1 passed, 1 failed, 1 not made." in text
    assert "size smoke measures no untrained network" in text
    assert "2 undefined, 1 failed" in text
    assert "only one class among 12 rows" in text
    assert "its worker process was killed (SIGKILL)" in text


def test_how_to_reproduce(outline: Outline) -> None:
    text = said(outline)
    assert "terrarium run planted --size quick" in text
    assert "7 min 05 s" in text
    assert "0.003" in text  # a setting in full
    assert f"{3:032x}" in text  # a key


def test_organisms_stand_against_their_gate(outline: Outline) -> None:
    assert "5 of 5 seeds reach 95 % in Alice and Bob." in said(outline)


def test_csv_of_a_figure_holds_the_rows_drawn(planted: ModuleType, outline: Outline) -> None:
    links = [link for link in outline.links if link.startswith("data:text/csv")]
    figures = planted.figures()
    assert len(links) == len(figures) + 1
    for figure, link in zip(figures, links, strict=False):
        text = base64.b64decode(link.split(",", 1)[1]).decode("utf-8")
        read = list(csv.DictReader(io.StringIO(text)))
        assert len(read) == len(figure.data)
        assert read[0].keys() == figure.data[0].keys()


def test_page_reads_without_scripts(page: str) -> None:
    bare = re.sub(r"<script.*?</script>", "", page, flags=re.S)
    assert bare.count('class="marks"') == 4  # the four charts as SVG
    assert "var(--c1)" in bare


def test_embedded_specs_are_the_figures(planted: ModuleType, page: str) -> None:
    found = re.findall(r'data-spec="(\w+)">(.*?)</script>', page, flags=re.S)
    specs = {name: json.loads(text) for name, text in found}
    for figure in planted.figures():
        assert specs[figure.name]["data"] == figure.spec["data"]
        assert specs[figure.name]["config"]["axis"]["labelColor"] == "var(--muted)"


def test_parts_are_kept_in_the_store_and_a_store_that_cannot_be_written_is_no_obstacle(
    planted: ModuleType, tmp_path: Path
) -> None:
    spec = planted.figures()[1].spec
    store = Store(tmp_path / "home")
    first = static_chart(spec, store)
    assert [entry.kind for entry in store.entries()] == ["page-part"]
    assert static_chart(spec, Store(tmp_path / "home")) == first == static_chart(spec)
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    assert static_chart(spec, Store(blocked)) == first


def test_library_sets_vega_embed_and_cannot_end_its_element() -> None:
    library = chart_library()
    assert "window.vegaEmbed" in library
    assert len(library) > 500_000


def test_a_study_without_anything_still_gives_a_page(planted: ModuleType) -> None:
    html = render_report(planted.study(), [], [], [], [])
    assert "This study makes no checks." in html
    assert "vegaEmbed" not in html
    parser = Outline()
    parser.feed(html)
    assert parser.faults == []


def test_strip_places_numbers_on_the_axis() -> None:
    drawn = strip([0.0, 1.0], interval=(0.25, 0.75), low=0.5, ends=(0.0, 1.0))
    assert drawn is not None
    assert drawn["dots"] == [8.0, 232.0]
    assert drawn["mean"] == 120.0
    assert drawn["interval"] == (64.0, 176.0)
    assert drawn["region"] == (120.0, 232.0)
    assert strip([], low=0.5) is None


@pytest.mark.parametrize(
    ("values", "gate", "begins"),
    [(0.97, 0.95, "0.5"), (0.3, 0.95, "0"), (0.97, 0.2, "0"), (-0.002, 0.2, "-0.1")],
)
def test_strips_of_a_card_share_an_axis_that_holds_gate_and_values(
    values: float, gate: float, begins: str
) -> None:
    card = Card("it", {"a": {0: values, 1: 0.99}, "b": {0: 0.96, 1: None}}, gate=gate)
    strips = [line["strip"] for line in card_view(card)["lines"]]
    assert [text for s in strips for _, text, at in s["ticks"] if at == "start"] == [begins] * 2
    assert strips[0]["bars"] == strips[1]["bars"]


def test_bars_that_stand_close_share_a_label() -> None:
    drawn = strip([-0.2, 1.2], low=0.45, high=0.55)
    assert drawn is not None
    assert [text for _, text, _ in drawn["ticks"]][2:] == ["0.45–0.55"]
    apart = strip([0.3, 0.7], low=0.4, high=0.6, ends=(0.3, 0.7))
    assert apart is not None
    assert [text for _, text, _ in apart["ticks"]][2:] == ["0.4", "0.6"]


def test_a_finding_names_what_the_number_is(outline: Outline) -> None:
    assert re.search(r"\] auroc [^;]*, over 5 seeds; predicted > ", said(outline))


def test_many_rows_without_value_are_folded(planted: ModuleType) -> None:
    lost = [measured("auroc", None, unit="", n=0, layer=i, reason="no rows") for i in range(11)]
    for rows, folds in ((lost[:10], 0), (lost, 1)):
        html = render_report(planted.study(), rows, [], [], [])
        assert html.count("<summary>Which, and why") == folds
        assert "no rows" in html


def test_equal_values_have_an_axis_too() -> None:
    drawn = strip([0.7, 0.7])
    assert drawn is not None
    assert drawn["dots"] == [120.0, 120.0]


def test_tables_leave_out_empty_columns_and_say_no_zero_for_nothing() -> None:
    found = table([{"a": 1, "b": None, "c": None}, {"a": None, "b": None, "c": 0.0}])
    assert found["columns"] == ["a", "c"]
    assert [[cell["text"] for cell in row] for row in found["rows"]] == [["1", ""], ["", "0"]]


def test_numbers_for_people_and_for_reproducing() -> None:
    assert plain(0.123456) == "0.1235"
    assert plain(1.5e-7) == "1.5e-07"
    assert plain(True) == "yes"
    assert setting(0.123456) == "0.123456"
    assert setting([1, 0.5]) == "1, 0.5"
    assert csv_text([{"a": None, "b": 'x,"y'}]) == 'a,b\r\n,"x,""y"\r\n'


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.6, "1 min 00 s"), (425, "7 min 05 s"), (7320, "2 h 02 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
