"""What units of the dense block, and features of its dictionary, do to the regret, and add."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from terrarium.evidence.rows import Row, measured
from terrarium.instruments.control_directions import ROWS, isotropic, taking, varying
from terrarium.instruments.effects import what_it_adds
from terrarium.instruments.site_features import SiteFeatures, dictionary_features
from terrarium.randomness import generator
from terrarium.studies.denoiser.effects import (
    SITE,
    Removal,
    matched_removals,
    removal_effects,
    site_rows,
    unit_removals,
)
from terrarium.studies.denoiser.laws import (
    AS_FEATURE,
    EFFECT_LEVELS,
    FEATURE,
    RANDOM,
    UNIT,
    VARYING,
    Float64,
    noisy_images,
)
from terrarium.studies.denoiser.pictures import address
from terrarium.studies.site_dictionaries import Fit, activations, live
from terrarium.worlds.images.law import ImageLaw

Noisy = Callable[[float, int], NDArray[np.float64]]
"""Takes a noise level and a number; returns so many noisy images of the law."""

FITTED = 1000
"""Images at each level whose activations a dictionary is fitted to."""

LINES, SHOWN = 6, 3
"""Features in a gallery, and images of each."""


def effect_rows(network: Any, law: ImageLaw, n: int, *key: str | int) -> list[Row]:
    """Return what the removal of each unit of a site does to the regret, and matched directions."""

    def removals(noisy: Float64, sigma: float) -> dict[str, dict[str, Removal]]:
        rows = site_rows(network, noisy, sigma)
        kinds = {UNIT: unit_removals(rows.mean(dim=0)), RANDOM: matched_removals(rows, key)}
        return {
            kind: {f"{kind} {place}": removal for place, removal in enumerate(found)}
            for kind, found in kinds.items()
        }

    return removal_rows(network, law, n, "units", removals, *key)


def feature_rows(
    network: Any, law: ImageLaw, fit: Fit, n: int, pictures: bool, name: str, seed: int
) -> list[Row]:
    """Return the same for features of a dictionary of the site, and pictures of what they add.

    The dictionary is one for all levels.
    """

    def noisy(sigma: float, count: int) -> Float64:
        return noisy_images(law, sigma, count, "dictionary", name, seed)[1]

    def read(count: int) -> NDArray[np.float32]:
        rows = [activations(network, noisy(sigma, count), SITE, sigma) for sigma in EFFECT_LEVELS]
        return np.concatenate(rows)

    rows = read(FITTED)
    fitted = fit.dictionary(rows, seed)
    which = [] if fitted is None else live(fitted, read(n)).tolist()
    made = [measured("live", float(len(which)), unit="features", n=fit.features)]
    if not which:
        return [*made, *_ratio_rows({FEATURE: [], AS_FEATURE: [], VARYING: []}, "features", n)]
    found = feature_removals(dictionary_features(fitted, which), rows, (name, seed))
    named = {
        kind: {f"{kind} {j}": removal for j, removal in zip(which, removals, strict=True)}
        for kind, removals in found.items()
    }
    effects = removal_rows(network, law, n, "features", lambda *_: named, name, seed)
    made += effects
    if pictures:
        made += feature_pictures(network, fitted, noisy, effects, n, law)
    return made


def removal_rows(
    network: Any,
    law: ImageLaw,
    n: int,
    part: str,
    removals: Callable[[Float64, float], Mapping[str, Mapping[str, Removal]]],
    *key: str | int,
) -> list[Row]:
    """Return what removals do to the regret by level, and the first kind against the others.

    In nats per unit of ln(sigma), as regrets are integrated.  ``removals`` takes noisy images and
    their level and returns removals by kind and name.
    """
    rows: list[Row] = []
    totals: dict[str, list[float]] = {}
    for sigma in EFFECT_LEVELS:
        _, noisy = noisy_images(law, sigma, n, "effects", *key)
        exact = law.exact_denoiser(noisy, sigma)
        for kind, named in removals(noisy, sigma).items():
            effects = removal_effects(network, noisy, exact, sigma, named)
            for name, effect in effects.items():
                value = effect * law.size / sigma**2
                told: dict[str, Any] = {"feature": name, "kind": kind, "level": sigma}
                rows.append(measured("removal_effect", value, unit="nats", n=n, **told))
            mean = float(np.mean(list(effects.values())) * law.size / sigma**2)
            totals.setdefault(kind, []).append(mean)
    return [*rows, *_ratio_rows(totals, part, n)]


def _ratio_rows(totals: Mapping[str, list[float]], part: str, n: int) -> list[Row]:
    (own, *others) = totals
    rows = []
    for against in others:
        a, b = (
            float(np.trapezoid(totals[kind], np.log(EFFECT_LEVELS))) if totals[kind] else 0.0
            for kind in (own, against)
        )
        ratio = float(np.log10(a / b)) if min(a, b) > 0 else None
        rows.append(
            measured(
                "effect_ratio", ratio, unit="log10 of the ratio", n=n,
                reason="a mean effect is not above 0", part=part, against=against,
            )
        )  # fmt: skip
    return rows


def feature_removals(
    features: SiteFeatures, rows: NDArray[np.float32], key: Sequence[str | int]
) -> dict[str, list[Removal]]:
    """Return removals of features, and of the same distance in other directions for each.

    Every image is moved exactly as far as the feature's removal moves it, in a random direction
    of all channels alike, and in one in which activations ``rows`` ``(n, d)`` vary; over all rows
    each takes from the activations as the feature's removal does.
    """
    own = features.directions
    k, d = own.shape
    some = rows[:: -(-len(rows) // ROWS)].astype(np.float64)
    along = -features.coefficients(torch.from_numpy(some)[None])[0].numpy().T @ some
    units = {
        AS_FEATURE: isotropic(k, d, generator("feature directions", *key)),
        VARYING: varying(k, some, generator("varying", *key)),
    }
    lengths = features.lengths(1)[0]
    directions = {FEATURE: own} | {
        kind: np.stack([taking(u[[j]], along[j], own[j])[0] * lengths[j] for j in range(k)])
        for kind, u in units.items()
    }

    def removal(place: int, direction: NDArray[np.float64]) -> Removal:
        def change(x: Tensor) -> Tensor:
            part = features.coefficients(x)[..., place, None]
            return x - part * torch.from_numpy(direction).to(x)

        return change

    return {
        kind: [removal(place, direction) for place, direction in enumerate(found)]
        for kind, found in directions.items()
    }


def feature_pictures(
    network: Any,
    fitted: Any,
    noisy: Noisy,
    effects: Sequence[Row],
    n: int,
    law: ImageLaw,
) -> list[Row]:
    """Return the features whose removal does most, on the noisy images that activate each most.

    Each at the level where it does most; beside an image stands the output with the feature less
    the output without it.
    """
    best: dict[str, Row] = {}
    for row in effects:
        name = str(row.factors.get("feature"))
        if row.factors.get("kind") == FEATURE and (
            name not in best or (row.value or 0) > (best[name].value or 0)
        ):
            best[name] = row
    rows = []
    for row in sorted(best.values(), key=lambda r: -(r.value or 0))[:LINES]:
        j, sigma = int(str(row.factors["feature"]).split()[-1]), float(str(row.factors["level"]))
        images = noisy(sigma, n)
        seen = np.asarray(fitted.encode(activations(network, images, SITE, sigma)))[:, j]
        top = images[np.argsort(-seen, kind="stable")[:SHOWN]].astype(np.float32)
        levels = np.full(len(top), sigma, np.float32)
        feature = dictionary_features(fitted, [j])
        added = what_it_adds(network, top, SITE, feature, extra={"sigma": levels})[0, 0]
        line = f"{row.factors['feature']}, sigma {sigma:g}"
        rows += [
            measured(
                "picture", row.value, unit="nats", n=1, gallery="features", line=line,
                column=f"{column} {place}", image=address(pixels, law, column == "adds"),
            )
            for place, pair in enumerate(zip(top, added, strict=True), start=1)
            for column, pixels in zip(("noisy", "adds"), pair, strict=True)
        ]  # fmt: skip
    return rows
