"""Every instrument on one organism: how well it finds the facts that the world knows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrarium.errors import InputError
from terrarium.evidence.rows import Row, measured
from terrarium.instruments.base import detectors, dictionaries, probes
from terrarium.instruments.dictionaries.train import Training
from terrarium.instruments.metrics import auroc
from terrarium.randomness import generator
from terrarium.readings.read import read
from terrarium.studies.across_modalities.tasks import CLASSIFY, TEXT
from terrarium.worlds.base import Batch
from terrarium.worlds.images.factors import RANGES
from terrarium.worlds.images.shapes import SHAPES

NUMBERS = ("row", "column", "size", "hue", "light_deg", "rotation_deg")
"""Factors that vary beside the shape; each is asked about as "above the middle of its range"."""

PROBES = ("logistic_regression", "difference_in_means", "lda")
DETECTORS = (
    *("pca_reconstruction", "mahalanobis", "local_outlier_factor", "isolation_forest"),
    *("one_class_svm", "quantum_entropy", "spectral_signature"),
)
DICTIONARIES = (
    *("topk", "batch_topk", "matryoshka", "jump_relu", "gated", "relu"),
    *("pca", "ica", "nmf"),
)
UNITS, INPUT, SHUFFLED = "single units", "input only", "shuffled labels"
FAMILIES: Mapping[str, tuple[str, ...]] = {
    "probes": PROBES,
    "detectors": DETECTORS,
    "dictionaries": (*DICTIONARIES, UNITS),
}
"""Instruments by kind.  A dictionary counts by its best single feature, chosen on other rows."""

READ = "logistic_regression"
"""The supervised probe that says whether a fact is there at all."""

FEATURES, ACTIVE = 64, 4

Values = NDArray[np.float32]


@dataclass(frozen=True)
class Split:
    """Activations ``(n, d)``, raw inputs ``(n, k)`` and facts ``(f, n)`` of some rows."""

    x: Values
    raw: Values
    facts: NDArray[np.bool_]


def facts_of(batch: Batch, side: int) -> tuple[tuple[str, ...], NDArray[np.bool_]]:
    """Return names and truth ``(f, n)`` of the facts asked about."""
    found = {f"is a {s}": batch.facts["shape"] == s for s in SHAPES}
    for name in NUMBERS:
        scale = side if name in ("row", "column", "size") else 1
        found[f"{name} above the middle"] = (
            batch.facts[name] > float(RANGES[name].at(np.array(0.5))) * scale
        )
    return tuple(found), np.stack(list(found.values()))


def read_split(network: Any, world: Any, batch: Batch, task: tuple[str, str]) -> Split:
    """Read an organism where its task comes together.

    The code of an autoencoder, the units before a classifier's logits, the last residual stream
    of a language model at the last token before the answer.
    """
    modality, objective = task
    if modality == TEXT:
        site = [s for s in network.sites() if s.startswith("resid.post")][-1:] or ["latent"]
        at = "prompt_end" if objective == CLASSIFY else "last"
        x = read(network, batch, site, (at,)).at(site[0], at)[0]
        raw = world.input_features(batch)
        return Split(x, raw, facts_of(batch, world.side)[1])
    x = read(network, batch, ("latent",), None).at("latent")[0]
    raw = batch.inputs.reshape(len(batch), -1)
    return Split(x, raw, facts_of(batch, world.side)[1])


def instrument_rows(
    splits: Mapping[str, Split], names: tuple[str, ...], seed: int, shown: int = 200_000
) -> list[Row]:
    """Return each instrument's AUROC for each fact on the split ``"test"``, and its mean.

    Sparse autoencoders are shown ``shown`` rows in all.
    """
    rows: list[Row] = []
    for family, members in FAMILIES.items():
        for name in members:
            if family == "dictionaries":
                found, why = _dictionary(name, splits, seed, shown)
            else:
                found, why = (_probe if family == "probes" else _detector)(name, splits)
            rows += _rows(found, why, names, len(splits["test"].x), family, name)
    rows += _rows(*_baseline(splits, INPUT, seed), names, len(splits["test"].x), "baseline", INPUT)
    rows += _rows(
        *_baseline(splits, SHUFFLED, seed), names, len(splits["test"].x), "baseline", SHUFFLED
    )
    return rows


def _rows(
    found: NDArray[np.float64] | None,
    why: str,
    names: tuple[str, ...],
    n: int,
    family: str,
    instrument: str,
) -> Iterator[Row]:
    told: dict[str, Any] = {"family": family, "instrument": instrument}
    values = [None] * len(names) if found is None else [float(v) for v in found]
    for name, value in zip(names, values, strict=True):
        yield measured("fact_auroc", value, unit="proportion", n=n, reason=why, fact=name, **told)
    mean = None if found is None else float(found.mean())
    yield measured("instrument_auroc", mean, unit="proportion", n=n, reason=why, **told)


Found = tuple[NDArray[np.float64] | None, str]


def _probe(name: str, splits: Mapping[str, Split]) -> Found:
    fitted = probes.get(name)()
    train, test = splits["train"], splits["test"]
    return _areas([fitted.fit(train.x, y).score(test.x) for y in train.facts], test.facts), ""


def _baseline(splits: Mapping[str, Split], which: str, seed: int) -> Found:
    """A linear model of the raw input, or the supervised probe with labels out of order."""
    probe, train, test = probes.get(READ)(), splits["train"], splits["test"]
    if which == INPUT:
        return _areas(_input_only(train, test), test.facts), ""
    order = generator("across modalities", "shuffled", seed).permutation(len(train.x))
    told = [probe.fit(train.x, y[order]).score(test.x) for y in train.facts]
    return _areas(told, test.facts), ""


def _input_only(train: Split, test: Split) -> list[NDArray[np.float64]]:
    """Return scores of scikit-learn's logistic regression (C = 1), which takes sparse tokens."""
    from scipy import sparse
    from sklearn.linear_model import LogisticRegression

    a, b = (sparse.csr_matrix(x) if (x == 0).mean() > 0.9 else x for x in (train.raw, test.raw))
    model = LogisticRegression(max_iter=300)
    return [model.fit(a, y).decision_function(b) for y in train.facts]


def _areas(scores: Any, facts: NDArray[np.bool_]) -> NDArray[np.float64]:
    return np.ma.filled(auroc(np.stack(list(scores)), facts), np.nan)


def _detector(name: str, splits: Mapping[str, Split]) -> Found:
    """Fitted on rows of which the fact does not hold: do rows of which it does look odd?"""
    train, test = splits["train"], splits["test"]
    try:
        told = [detectors.get(name)().fit(train.x[~y]).score(test.x) for y in train.facts]
    except InputError as error:
        return None, str(error)
    return _areas(told, test.facts), ""


def _dictionary(name: str, splits: Mapping[str, Split], seed: int, shown: int) -> Found:
    """The single feature that tells a fact best on the training rows, on the test's."""
    train, test = splits["train"].x.T, splits["test"].x.T
    if name != UNITS:
        try:
            fitted = _fitted(name, splits["train"].x, seed, shown)
        except InputError as error:
            return None, str(error)
        train, test = (fitted.encode(splits[split].x).T for split in ("train", "test"))
    found = np.empty(len(splits["train"].facts))
    for place, (before, after) in enumerate(
        zip(splits["train"].facts, splits["test"].facts, strict=True)
    ):
        area = np.ma.filled(auroc(train, before), 0.5)
        best = int(np.abs(area - 0.5).argmax())
        sign = 1.0 if area[best] >= 0.5 else -1.0
        found[place] = float(np.ma.filled(auroc(sign * test[best], after), np.nan))
    return found, ""


def _fitted(name: str, x: Values, seed: int, shown: int) -> Any:
    kind = dictionaries.get(name)
    if name in ("pca", "ica", "nmf"):
        # a linear dictionary has no more features than channels; NMF takes twice as many parts
        return kind(features=min(x.shape[1], FEATURES), seed=seed).fit(x)
    training = Training(samples=shown, batch=512, dead_after=20_000)
    sparse = {"features": FEATURES, "training": training, "seed": seed}
    if name in ("topk", "batch_topk", "matryoshka"):
        sparse["active"] = ACTIVE
    elif name == "jump_relu":
        sparse["target"] = float(ACTIVE)
    return kind(**sparse).fit(x)
