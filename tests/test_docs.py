"""The how-to pages are executed: code, commands and the output that the pages show.

A fenced block says in its first line what becomes of it; blocks of a page run in order, in an
empty folder, with an empty store, without network:

- ``python`` runs, all of a page in one namespace;
- ``console run``: each line that begins with ``$ terrarium`` runs and must succeed;
- ``text``, right behind one of the two: what it printed (``...`` stands for anything);
- ``python file=my_probe.py`` (or csv, yaml): is written to that file;
- anything else is only shown.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import linecache
import re
import shlex
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import terrarium as tm
from terrarium.cli.app import run

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("*.md"))
FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MATCH = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass(frozen=True)
class Block:
    """One fenced block: its first line's words, its text, the line of the page it begins at."""

    kind: str
    words: tuple[str, ...]
    text: str
    line: int

    @property
    def file(self) -> str | None:
        return next((w.removeprefix("file=") for w in self.words if w.startswith("file=")), None)


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(text):
        kind, *words = match[1].split() or [""]
        line = text.count("\n", 0, match.start()) + 2
        found.append(Block(kind, tuple(words), match[2], line))
    return found


class Reader:
    """Executes a page's blocks as a reader would, and remembers what the last one printed."""

    def __init__(self, page: Path, folder: Path) -> None:
        self.page, self.folder = page, folder
        self.names: dict[str, Any] = {"__name__": f"docs_{page.stem}"}
        self.printed: str | None = None

    def take(self, block: Block) -> None:
        if block.file is not None:
            (self.folder / block.file).write_text(block.text, encoding="utf-8")
            self.printed = None
        elif block.kind == "python":
            self.printed = self.python(block)
        elif block.kind == "console" and "run" in block.words:
            self.printed = self.console(block)
        elif block.kind == "text" and self.printed is not None:
            self.compare(block)
            self.printed = None

    def python(self, block: Block) -> str:
        name = f"{self.page.name}:{block.line}"
        # for tracebacks, and for inspect.getsource
        linecache.cache[name] = (len(block.text), None, block.text.splitlines(True), name)
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(compile(block.text, name, "exec"), self.names)
        return out.getvalue()

    def console(self, block: Block) -> str:
        commands = [line[2:] for line in block.text.splitlines() if line.startswith("$ ")]
        assert commands, f"{self.page.name}:{block.line} runs nothing"
        with contextlib.redirect_stdout(io.StringIO()) as out:
            for command in commands:
                program, *arguments = shlex.split(command, comments=True)
                assert program == "terrarium", command
                errors = io.StringIO()
                with contextlib.redirect_stderr(errors):
                    code = run(arguments)
                assert code == 0, f"{self.page.name}:{block.line}: {command}\n{errors.getvalue()}"
        return out.getvalue()

    def compare(self, block: Block) -> None:
        assert self.printed is not None
        right = doctest.OutputChecker().check_output(block.text, self.printed, MATCH)
        where = f"{self.page.name}:{block.line}"
        assert right, f"{where} shows\n{block.text}\nbut it prints\n{self.printed}"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to work in, with a store of its own and no way to the network."""

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("the pages must work offline")

    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("TERRARIUM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.syspath_prepend(str(work))
    for registry in (tm.all_worlds, tm.all_studies, tm.probes, tm.detectors):
        # what a page adds is gone afterwards
        monkeypatch.setattr(registry, "_loaded", dict(registry._loaded))
    before = set(sys.modules)
    yield work
    for name in set(sys.modules) - before:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(work)):
            del sys.modules[name]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page(page: Path, folder: Path) -> None:
    reader = Reader(page, folder)
    for block in blocks(page):
        reader.take(block)


def test_every_how_to_page_runs_something() -> None:
    told = {"sources"}  # tables of papers
    for page in (ROOT / "docs").glob("*.md"):
        if page.stem not in told:
            assert any(block.kind == "python" for block in blocks(page)), page.name


LINK = re.compile(r"\]\(([^)#\s]+)[^)\s]*\)")


@pytest.mark.parametrize(
    "page",
    [*PAGES, *sorted((ROOT / "docs" / "decisions").glob("*.md"))],
    ids=lambda page: page.stem,
)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_names_of_files_and_modules_on_the_pages_exist() -> None:
    named = re.compile(r"`((?:src|tests|docs|benchmarks|examples)/[\w./-]+)`")
    for page in [*PAGES, *DECISIONS]:
        for name in named.findall(page.read_text(encoding="utf-8")):
            assert (ROOT / name).exists(), f"{page.name} names {name}"


def test_the_reader_notices_what_is_wrong(folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    faults = {
        "```python\nassert False\n```\n": AssertionError,
        "```python\nprint(1)\n```\n\n```text\n2\n```\n": AssertionError,
        "```console run\n$ terrarium list nonsense\n```\n": AssertionError,
        "```python\nimport socket\nsocket.create_connection(('127.0.0.1', 9))\n```\n": OSError,
    }
    for text, error in faults.items():
        page.write_text(text, encoding="utf-8")
        with pytest.raises(error):
            test_page(page, folder)
    page.write_text("```python\nprint('1 2.345 3')\n```\n\n```text\n1 ... 3\n```\n")
    test_page(page, folder)


def test_every_paper_that_the_code_names_is_listed() -> None:
    listed = (ROOT / "docs" / "sources.md").read_text(encoding="utf-8")
    for path in (ROOT / "src").rglob("*.py"):
        text = " ".join(path.read_text(encoding="utf-8").split())
        for paper in re.findall(r"arXiv[: ](\d{4}\.\d{4,5})", text):
            assert paper in listed, f"{path.name} names arXiv {paper}"
        for author, year in re.findall(r"([A-Z][a-z]+) et al\. \(?((?:19|20)\d\d)", text):
            named = re.search(rf"{author}[^|;]*{year}", listed)
            assert named, f"{path.name} names {author} et al. {year}"


def test_every_instrument_is_on_its_page_and_has_a_source() -> None:
    page = (ROOT / "docs" / "instruments.md").read_text(encoding="utf-8")
    listed = (ROOT / "docs" / "sources.md").read_text(encoding="utf-8")
    for registry in (tm.probes, tm.detectors):
        for name in registry:
            assert name in page, name
            module = registry.module(name)
            assert module is not None
            assert f"src/{module.replace('.', '/')}.py" in listed, name
