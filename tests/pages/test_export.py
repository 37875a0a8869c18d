from __future__ import annotations

import csv
import json
import xml.etree.ElementTree as ET
from pathlib import Path
from types import ModuleType

import pytest

from terrarium.errors import InputError
from terrarium.pages.export import export_figure


def test_every_suffix_holds_the_figure(planted: ModuleType, tmp_path: Path) -> None:
    figure = planted.figures()[1]
    svg = export_figure(figure, tmp_path / "f.svg").read_text(encoding="utf-8")
    root = ET.fromstring(svg)
    assert float(root.attrib["width"]) > 300
    text = " ".join(root.itertext())
    assert "misreads Bob" in text
    assert "validation" in text
    assert "var(" not in svg
    png = export_figure(figure, tmp_path / "f.PNG").read_bytes()
    assert png.startswith(b"\x89PNG")
    spec = json.loads(export_figure(figure, tmp_path / "f.json").read_text(encoding="utf-8"))
    assert spec["data"]["values"] == [dict(row) for row in figure.data]
    with export_figure(figure, tmp_path / "f.csv").open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == len(figure.data)


def test_dark_theme_changes_the_paper(planted: ModuleType, tmp_path: Path) -> None:
    figure = planted.figures()[1]
    dark = export_figure(figure, tmp_path / "d.svg", theme="dark").read_text(encoding="utf-8")
    assert 'fill="#16191d"' in dark


def test_unknown_suffix_and_missing_folder_say_what_to_do(
    planted: ModuleType, tmp_path: Path
) -> None:
    figure = planted.figures()[1]
    with pytest.raises(InputError, match=r"did you mean '\.svg'"):
        export_figure(figure, tmp_path / "f.svgg")
    with pytest.raises(InputError, match="make it first"):
        export_figure(figure, tmp_path / "nowhere" / "f.svg")
