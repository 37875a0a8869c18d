"""The description that lies beside a stored value."""

from __future__ import annotations

import json
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from terrarium.store.differences import plain

SPEC = "spec.json"
"""The file in a value's folder that says what it is and how it was made."""


def spec_fault(folder: Path) -> str:
    """Return what is wrong with the description in ``folder``, ``""`` if nothing is."""
    try:
        there = json.loads((folder / SPEC).read_text(encoding="utf-8"))
        return "" if {"spec", "code", "made"} <= set(there) else f"{SPEC} is incomplete"
    except (OSError, ValueError, TypeError):
        return f"{SPEC} cannot be read"


def description(kind: str, key: str, spec: Any, code: str) -> dict[str, Any]:
    """Return the content of ``spec.json``: what the value is, when and where it was made."""
    return {
        "kind": kind,
        "key": key,
        "spec": plain(spec),
        "code": code,
        "made": now(),
        "terrarium": _version("terrarium"),
        "platform": {
            "system": platform.platform(),
            "processor": platform.machine(),
            "python": platform.python_version(),
            **{name: _version(name) for name in ("torch", "transformers", "numpy")},
        },
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def now() -> str:
    """Return the present time in UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")
