"""A run's results on disk: a folder with rows, how they were made, and the report."""

from __future__ import annotations

import json
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from terrarium.cli.places import RUN, SIZES, remembered, write_text
from terrarium.errors import InputError
from terrarium.evidence.checks import Check, cells_check
from terrarium.evidence.hypotheses import Verdict, judge
from terrarium.evidence.rows import Row
from terrarium.pages.info import RunInfo
from terrarium.store import Store
from terrarium.studies.base import Study, studies

if TYPE_CHECKING:
    from terrarium.studies.plan import Plan
    from terrarium.studies.runner import StudyResult

_PACKAGES = (
    "terrarium",
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "peft",
    "numpy",
    "scipy",
    "scikit-learn",
)


@dataclass(frozen=True)
class Results:
    """A study's results as they lie in a folder."""

    study: Study
    folder: Path
    rows: list[Row]
    info: RunInfo

    def verdicts(self) -> list[Verdict]:
        """Return the verdicts that the rows allow."""
        return judge(self.study.hypotheses, self.rows)

    def checks(self) -> list[Check]:
        """Return the study's checks, and the one that every cell was measured."""
        planned = {key: name for name, key in self.info.keys.items()}
        return [*self.study.checks(self.rows), cells_check(self.rows, planned or None)]

    def report(self, store: Store) -> str:
        """Return the report's HTML."""
        from terrarium.pages.report import render_report

        return render_report(
            self.study,
            self.rows,
            self.verdicts(),
            self.checks(),
            self.study.figures(self.rows),
            self.info,
            cards=self.study.cards(self.rows),
            store=store,
        )


def save(
    folder: Path,
    study: Study,
    planned: Plan,
    result: StudyResult,
    overrides: Mapping[str, str],
    command: str = "",
) -> Results:
    """Write rows and how they were made into ``folder``, and remember where that is.

    A run that measured nothing (all was in the store) keeps the time noted by the one that did.
    """
    from terrarium.evidence.table import write_rows

    info = _info(planned, result, command or _command(planned, overrides), folder)
    if len(study.defaults) == 1:
        info = replace(info, size="")  # a size that nobody chose says nothing
    earlier = _read_info(folder) if result.measured == 0 else None
    if earlier is not None and earlier.keys == info.keys and earlier.seconds is not None:
        kept = {name: getattr(earlier, name) for name in ("seconds", "measured", "found", "date")}
        info = RunInfo(**{**_fields(info), **kept})
    write_rows(result.rows, folder)
    told = {"study": study.name, "question": study.question, **asdict(info)}
    write_text(folder / RUN, json.dumps(told, indent=1, ensure_ascii=False, default=str))
    return Results(study, folder, result.rows, info)


def find(name: str, size: str | None, store: Store) -> Results:
    """Return the results that lie where `locate` says."""
    return _load(locate(name, size, store))


def locate(name: str, size: str | None, store: Store) -> Path:
    """Return the folder of a study's last results, or that called ``name``.

    Without ``size`` the latest run of any size is taken.  Raises ``InputError`` for an unknown
    study and where nothing has been run.
    """
    folder = Path(name)
    if name not in studies and (folder / RUN).is_file():
        return folder
    places = remembered(store, name, size, SIZES) if name in studies else []
    if places:
        return places[0]
    studies.get(name)  # an unknown study is told here
    of = f" in size {size}" if size else ""
    command = f"terrarium run {name}" + (f" --size {size}" if size else "")
    raise InputError(f"{name} has not been run{of} yet; run it with: {command}")


def _load(folder: Path) -> Results:
    from terrarium.evidence.table import read_rows

    try:
        told = json.loads((folder / RUN).read_text(encoding="utf-8"))
        name, question = str(told["study"]), str(told.get("question", ""))
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{folder / RUN} is damaged; run the study again to rewrite it.") from None
    rows = read_rows(folder)
    return Results(_study(name, question, rows), folder, rows, _parsed(told))


def _study(name: str, question: str, rows: Sequence[Row]) -> Study:
    """Return the study of that name; those of the user's own things can only be shown again."""
    if name in studies:
        return studies.get(name)
    if name in ("probe", "detect"):
        from terrarium.studies import own_model

        return own_model.shown(name, question)
    if name == "compare":
        from terrarium.studies import compare

        return compare.shown(question, rows)
    return studies.get(name)  # says what there is


def _read_info(folder: Path) -> RunInfo | None:
    try:
        return _parsed(json.loads((folder / RUN).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def _parsed(told: Mapping[str, Any]) -> RunInfo:
    return RunInfo(**{name: told[name] for name in RunInfo.__dataclass_fields__ if name in told})


def _fields(info: RunInfo) -> dict[str, Any]:
    return {name: getattr(info, name) for name in RunInfo.__dataclass_fields__}


def _info(planned: Plan, result: StudyResult, command: str, folder: Path) -> RunInfo:
    return RunInfo(
        size=planned.size,
        commands=[command, f"terrarium report {shlex.quote(str(folder))}"],
        settings=dict(planned.settings),
        versions=_versions(),
        machine=_machine(),
        keys={one.cell.name: one.key for one in planned.cells},
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        seconds=result.seconds,
        measured=result.measured,
        found=result.found,
    )


def _command(planned: Plan, overrides: Mapping[str, str]) -> str:
    changes = [f"--set {shlex.quote(f'{name}={value}')}" for name, value in overrides.items()]
    return " ".join(["terrarium run", planned.study, "--size", planned.size, *changes])


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _machine() -> dict[str, str]:
    from terrarium.studies.resources import usable_cores

    return {
        "processor": _processor(),
        "cores used at most": str(usable_cores()),
        "system": f"{platform.system()} {platform.release()}",
        "interpreter": f"{platform.python_implementation()}, {sys.maxsize.bit_length() + 1} bit",
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
