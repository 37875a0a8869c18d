"""`says-knows`: does a probe that never saw Bob read the truth where Bob says otherwise?

Question 1 of the mission, after Mallen et al. 2023 (arXiv 2312.01037).  Organisms answer
truthfully for Alice's kind of name and by a rule for Bob's.  Every organism is read beside its
twin (Bob answers truthfully), the untrained network and the input alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from terrarium.errors import InputError, did_you_mean
from terrarium.evidence.rows import Row
from terrarium.progress import Progress
from terrarium.studies.base import Cell, Size, Study
from terrarium.studies.code import road
from terrarium.studies.quirky import NEEDS_TRUTH, OWN_ANSWER, QUIRKS, Quirk
from terrarium.studies.says_knows.checks import cards, checks
from terrarium.studies.says_knows.figures import figures
from terrarium.studies.says_knows.hypotheses import HYPOTHESES
from terrarium.studies.settings import check_least

QUESTION = (
    "A model answers truthfully for Alice and by a systematic error for Bob. Does a probe that "
    "never saw Bob read the truth in Bob's contexts, where, and why?"
)

# What was set beforehand

FRESH_SEED = 5
"""Seeds 0 to 4 were on the screen while recipes were chosen and bars were set."""


def _defaults(size: Size) -> dict[str, Any]:
    quick = [NEEDS_TRUTH, OWN_ANSWER]
    sizes: dict[str, dict[str, Any]] = {
        "smoke": {
            "recipes": quick,
            "seeds": 2,
            "first_seed": 0,
            "truth_steps": 4,
            "quirk_steps": 4,
            "train_rows": 600,
            "test_rows": 600,
        },
        "quick": {
            "recipes": quick,
            "seeds": 5,
            "first_seed": FRESH_SEED,
            "truth_steps": 0,
            "quirk_steps": 0,
            "train_rows": 3000,
            "test_rows": 8000,
        },
        "full": {
            "recipes": list(QUIRKS),
            "seeds": 5,
            "first_seed": FRESH_SEED,
            "truth_steps": 0,
            "quirk_steps": 0,
            "train_rows": 6000,
            "test_rows": 8000,
        },
    }
    return sizes[size]


def cells(settings: Mapping[str, Any]) -> list[Cell]:
    """Return one cell for each seed's truthful phase, and one for each recipe and seed.

    ``truth_steps`` and ``quirk_steps`` replace the recipes' own budgets where they are not 0.

    Raises ``InputError`` for unknown recipes, and for settings that leave nothing to measure.
    """
    _check(settings)
    made: dict[str, Cell] = {}
    rows = {k: settings[k] for k in ("train_rows", "test_rows")}
    for seed in range(settings["first_seed"], settings["first_seed"] + settings["seeds"]):
        for label in settings["recipes"]:
            quirk = _quirk(label, settings)
            shared = f"truth before '{quirk.label}', seed {seed}"
            before = _before(quirk)
            same = [c for c in made.values() if c.spec.get("before") == [before, seed]]
            if not same:
                spec = {
                    "kind": "truth",
                    "before": [before, seed],
                    "recipe": quirk.recipe().model_dump(mode="json"),
                    "seed": seed,
                    "label": label,
                    **rows,
                }
                made[shared] = Cell(shared, spec, cost_s=5 + quirk.truth_steps / 30)
            needed = same[0].name if same else shared
            spec = {
                "kind": "quirk",
                "recipe": quirk.recipe().model_dump(mode="json"),
                "seed": seed,
                "label": label,
                "picture": seed == settings["first_seed"],
                **rows,
            }
            name = f"{label}, seed {seed}"
            made[name] = Cell(name, spec, cost_s=5 + quirk.quirk_steps / 12.5, needs=(needed,))
    return list(made.values())


LEAST_ROWS = 100
"""Rows per split below which some contexts hold a single class, so that no probe can be fitted."""


def _check(settings: Mapping[str, Any]) -> None:
    least = {
        "first_seed": 0,
        "train_rows": LEAST_ROWS,
        "test_rows": LEAST_ROWS,
        "truth_steps": 0,
        "quirk_steps": 0,
    }
    check_least("says-knows", settings, least)


def _before(quirk: Quirk) -> dict[str, Any]:
    """Return the model and phases before the quirk: recipes that agree in them share a cell."""
    recipe = quirk.recipe()
    return {
        "model": recipe.model.model_dump(mode="json"),
        "phases": [phase.model_dump(mode="json") for phase in recipe.phases[:-1]],
    }


def _quirk(label: str, settings: Mapping[str, Any]) -> Quirk:
    if label not in QUIRKS:
        whole = next((name for name in QUIRKS if name.endswith(f", {label}")), None)
        if whole is not None:  # its comma was taken for the end of a name
            raise InputError(
                f"There is no recipe '{label}'; names with commas are given as JSON, such as "
                f"""--set 'recipes=["{whole}"]'."""
            )
        raise InputError(f"There is no recipe '{label}'{did_you_mean(label, QUIRKS)}")
    steps = {k: settings[k] for k in ("truth_steps", "quirk_steps") if settings[k]}
    return replace(QUIRKS[label], **steps)


def measure(cell: Cell, store_home: str, progress: Progress) -> Sequence[Row]:
    """Grow what the cell asks for and measure it; pure in ``cell.spec``."""
    # torch is only needed where cells are measured, not where results are shown
    from terrarium.studies.says_knows.measure import measure_cell

    return measure_cell(cell.spec, store_home, progress)


STUDY = Study(
    name="says-knows",
    question=QUESTION,
    hypotheses=HYPOTHESES,
    defaults={size: _defaults(size) for size in ("smoke", "quick", "full")},
    cells=cells,
    measure=measure,
    figures=figures,
    checks=checks,
    cards=cards,
    code=(
        "terrarium.studies.says_knows.measure",
        "terrarium.studies.contexts",
        "terrarium.studies.measure_probes",
        "terrarium.studies.measure_detectors",
        "terrarium.studies.measure_causal",
        "terrarium.studies.measure_organism",
        "terrarium.studies.measure_recency",
        *road("arithmetic"),
    ),
)
