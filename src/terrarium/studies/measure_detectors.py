"""Detector rows: which contexts look odd to a detector that saw trusted rows alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrarium.errors import InputError
from terrarium.evidence.rows import Row, measured
from terrarium.instruments.base import detectors, probes
from terrarium.instruments.detectors.log_odds import log_odds_features
from terrarium.instruments.metrics import auroc, optional, recall_at_fpr
from terrarium.studies.contexts import Contexts

Mask = NDArray[np.bool_]

SUSPECTS = (
    "quirky, untruthful",
    "quirky, answer true",
    "truthful third name",
    "unfamiliar honest name",
)
"""What is held against trusted rows: the wanted find, and the three that must not explain it."""

METRICS = ("detector_auroc", "recall_at_1_percent_fpr")
FALSE_POSITIVE_RATE = 0.01
PER_LAYER = tuple(name for name in detectors if name != "probe_log_odds")


def suspects(contexts: Contexts) -> dict[str, tuple[str, Mask]]:
    """Return, for each kind of suspect, its split and its rows."""
    family, untrue = contexts.fact("test", "family"), contexts.fact("test", "disagree").astype(bool)
    return {
        "quirky, untruthful": ("test", (family == "quirky") & untrue),
        "quirky, answer true": ("test", (family == "quirky") & ~untrue),
        "truthful third name": ("test", family == "third"),
        "unfamiliar honest name": (
            "heldout_names",
            contexts.fact("heldout_names", "family") == "honest",
        ),
    }


def detector_rows(contexts: Contexts, most: int = 600) -> list[Row]:
    """Return AUROC and recall at 1 % false positives of every detector at every layer.

    Detectors are fitted on trusted rows (honest names, training split); false positives are
    counted on trusted rows of the test split.  At most ``most`` rows of each kind are scored.
    """
    trusted = {
        split: np.flatnonzero(contexts.fact(split, "family") == "honest")[:most]
        for split in ("train", "test")
    }
    kinds = {
        name: (split, np.flatnonzero(mask)[:most])
        for name, (split, mask) in suspects(contexts).items()
    }
    rows: list[Row] = []
    for name in PER_LAYER:
        fitted = _fitted(name, contexts, trusted["train"])
        features = {split: contexts.features(split) for split in ("test", "heldout_names")}
        places = list(zip(contexts.layers, contexts.sites, strict=True))
        rows += _rows(fitted, features, trusted["test"], kinds, places, detector=name)
    rows += _log_odds_rows(contexts, trusted, kinds)
    return rows


def _fitted(name: str, contexts: Contexts, trusted: NDArray[np.int64]) -> Any:
    x = contexts.features("train")[:, trusted]
    if name == "relative_mahalanobis":
        # The classes are what the organism itself says: known without any label of untruth.
        return _fit(name, x, groups=contexts.answered("train")[trusted] > 0)
    return _fit(name, x)


def _fit(name: str, x: NDArray[Any], **options: Any) -> Any:
    """Return the fitted detector, or why it refuses its rows.

    One detector that cannot be fitted must not cost the rows of all others.
    """
    try:
        return detectors.get(name)().fit(x, **options)
    except InputError as error:
        return str(error)


def _log_odds_rows(
    contexts: Contexts,
    trusted: Mapping[str, NDArray[np.int64]],
    kinds: Mapping[str, tuple[str, NDArray[np.int64]]],
) -> list[Row]:
    """The Gaussian over the probe's log-odds at all layers together (Mallen et al. 2023)."""
    x = contexts.features("train")[:, trusted["train"]]
    truth = contexts.fact("train", "truth")[trusted["train"]].astype(bool)
    probe = probes.get("logistic_regression")().fit(x, truth)
    fitted = _fit("probe_log_odds", log_odds_features(probe, x))
    features = {
        split: log_odds_features(probe, contexts.features(split))[None]
        for split in ("test", "heldout_names")
    }
    return list(
        _rows(fitted, features, trusted["test"], kinds, [(0, "all")], detector="probe_log_odds")
    )


def _rows(
    fitted: Any,
    features: Mapping[str, NDArray[Any]],
    trusted: NDArray[np.int64],
    kinds: Mapping[str, tuple[str, NDArray[np.int64]]],
    places: Sequence[tuple[int, str]],
    **factors: Any,
) -> Iterator[Row]:
    for kind, (split, rows) in kinds.items():
        x = np.concatenate([features["test"][:, trusted], features[split][:, rows]], axis=1)
        odd = np.arange(len(trusted) + len(rows)) >= len(trusted)
        reason = f"there are no rows of this kind in the split '{split}'"
        found: dict[str, Any] = dict.fromkeys(METRICS)
        if isinstance(fitted, str):
            reason = fitted
        else:
            scores = np.asarray(fitted.score(x)).reshape(len(places), -1)
            found["detector_auroc"] = auroc(scores, odd)
            found["recall_at_1_percent_fpr"] = recall_at_fpr(scores, odd, FALSE_POSITIVE_RATE)
        for index, (layer, site) in enumerate(places):
            for metric, values in found.items():
                yield measured(
                    metric,
                    None if values is None else optional(values[index]),
                    unit="proportion",
                    n=len(rows),
                    reason=reason,
                    suspect=kind,
                    layer=layer,
                    site=site,
                    **factors,
                )
