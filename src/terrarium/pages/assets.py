"""The script and the pictures inside a report, made once and then kept in the store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from terrarium.errors import StoreError
from terrarium.figures.draw import svg
from terrarium.store import Store

KIND = "page-part"
"""The store's kind of what is kept here; all of it can be made again in a second or two."""
_TEMPLATES = Path(__file__).parent / "templates"


def text_of(name: str) -> str:
    """Return the text of a file among the templates."""
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def chart_library(store: Store | None = None) -> str:
    """Return the JavaScript of Vega, Vega-Lite and Vega-Embed, which sets ``window.vegaEmbed``.

    vl-convert carries it, so that no network and no copy in this repository is needed.
    """

    def bundle() -> str:
        import vl_convert

        return str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))

    return _kept(store, {"part": "javascript"}, _vega(), bundle)


def static_chart(spec: Mapping[str, Any], store: Store | None = None) -> str:
    """Return the chart as SVG whose colours are the page's CSS variables, without a heading."""
    return _kept(store, {"part": "svg", "spec": spec}, _vega(), lambda: svg(spec, theme="page"))


@cache
def _vega() -> str:
    # Cached, for looking into the metadata takes longer than reading the part itself.
    return f"vl-convert {version('vl-convert-python')}"


def _kept(store: Store | None, spec: Any, code: str, make: Callable[[], str]) -> str:
    if store is None:
        return make()
    try:
        folder = store.obtain(KIND, spec, code, lambda into: _write(into / "part", make()))
        return (folder / "part").read_text(encoding="utf-8")
    except StoreError:
        # A report can still be read from a store that cannot be written.
        return make()


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
