"""Measuring one instrument beside all built-in ones on a standard organism."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from terrarium.errors import InputError
from terrarium.evidence.rows import Row, measured
from terrarium.instruments.base import detectors, probes
from terrarium.instruments.metrics import auroc, earliest_informative_layer, optional
from terrarium.organisms.grow import grow
from terrarium.organisms.recipe import Recipe
from terrarium.progress import Progress
from terrarium.store import Store
from terrarium.studies.compare import DETECTOR_METRIC, PROBE_METRIC, load_instrument
from terrarium.studies.contexts import Contexts, read_contexts
from terrarium.studies.measure_detectors import PER_LAYER, suspects
from terrarium.studies.measure_probes import PLAIN, context_mask


def compare_rows(spec: Mapping[str, Any], store_home: str, progress: Progress) -> list[Row]:
    """Return one row for each instrument on the organism of the cell's seed."""
    name, own = load_instrument(Path(spec["path"]))
    if spec["seed"] == 0:
        _check(own, spec["kind"], spec["path"])
    recipe = Recipe.model_validate(spec["recipe"])
    (organism,) = grow([(recipe, spec["seed"])], Store(store_home), progress)
    if organism.status != "grown":
        reason = f"the organism {organism.status}: {organism.reason}"
        return [Row("", "", "cell", "", None, {"seed": spec["seed"]}, None, 1, "failed", reason)]
    rows = {
        "train": spec["train_rows"],
        "validation": spec["test_rows"] // 2,
        "test": spec["test_rows"],
        "heldout_names": spec["test_rows"] // 2,
    }
    contexts = read_contexts(organism.network(), organism.world, rows, spec["seed"], pairs=False)
    made = _probe_rows if spec["kind"] == "probe" else _detector_rows
    return [row.with_factors(seed=spec["seed"]) for row in made(contexts, name, own)]


def _check(own: Any, kind: str, path: str) -> None:
    from terrarium.instruments.check_detector import check_detector
    from terrarium.instruments.check_probe import check_probe

    check: Callable[[Any], Any] = check_probe if kind == "probe" else check_detector
    try:
        check(own)
    except AssertionError as error:
        told = " ".join(str(error).split())
        raise InputError(f"{path} breaks the contract of a {kind}: {told}") from None


def _probe_rows(contexts: Contexts, name: str, own: Any) -> Iterator[Row]:
    honest = context_mask(contexts, "train", "honest")
    x, y = contexts.features("train")[:, honest], contexts.fact("train", "truth")[honest]
    validation = context_mask(contexts, "validation", "honest")
    quirky = context_mask(contexts, "test", "quirky") & contexts.fact("test", "disagree")
    for label, probe in {**{n: probes.get(n)() for n in PLAIN}, name: own}.items():
        fitted = probe.fit(x, y.astype(bool))
        inside = auroc(
            fitted.score(contexts.features("validation")[:, validation]),
            contexts.fact("validation", "truth")[validation].astype(bool),
        )
        layer = optional(earliest_informative_layer(inside))
        outside = auroc(
            fitted.score(contexts.features("test")[:, quirky]),
            contexts.fact("test", "truth")[quirky].astype(bool),
        )
        yield measured(
            PROBE_METRIC,
            None if layer is None else optional(outside[int(layer)]),
            unit="proportion",
            n=int(quirky.sum()),
            reason="no layer is informative on honest validation rows",
            instrument=label,
            layer=None if layer is None else int(layer) + 1,
        )


def _detector_rows(contexts: Contexts, name: str, own: Any) -> Iterator[Row]:
    trusted = np.flatnonzero(contexts.fact("train", "family") == "honest")[:600]
    held = np.flatnonzero(contexts.fact("test", "family") == "honest")[:600]
    kinds = suspects(contexts)
    x, last = contexts.features("train")[-1:, trusted], contexts.features("test")[-1:]
    for label, detector in {**{n: detectors.get(n)() for n in PER_LAYER}, name: own}.items():
        fitted = detector.fit(x)
        areas = []
        for kind in ("quirky, untruthful", "truthful third name"):
            chosen = np.flatnonzero(kinds[kind][1])[:600]
            scores = fitted.score(last[:, np.r_[held, chosen]])
            odd = np.arange(len(held) + len(chosen)) >= len(held)
            areas.append(float(auroc(scores, odd)[0]))
        yield measured(
            DETECTOR_METRIC,
            areas[0] - areas[1],
            unit="difference of proportions",
            n=len(held),
            instrument=label,
        )
