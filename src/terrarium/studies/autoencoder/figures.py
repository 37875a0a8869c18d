"""The figures of `autoencoder`, from stored rows alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from terrarium.evidence.rows import Row
from terrarium.figures.dots import dots
from terrarium.figures.figure import Figure
from terrarium.figures.gallery import gallery
from terrarium.figures.matrix import matrix
from terrarium.studies.autoencoder.arms import (
    ANY,
    ARMS,
    AUTOENCODER,
    CODERS,
    FEATURES,
    GROWN,
    LATENT,
    PCA,
    SINGLE,
    UNITS,
    VARYING,
)
from terrarium.studies.rows_of import mean_of, records_of

REGIONS = ("outline", "shape", "ground")
MOST = 16
"""Lines of a figure of latents."""


def figures(rows: Sequence[Row]) -> list[Figure]:
    """Return every figure that the rows allow."""
    seen = [arm for arm in ARMS if records_of(rows, "reconstruction", arm=arm)]
    made = [
        _kept(rows),
        *(_gallery(rows, "kept", arm) for arm in seen),
        _regions(rows),
        _losses(rows),
        *(_gallery(rows, "added", arm) for arm in seen),
        *(_gallery(rows, "features", arm) for arm in seen),
        _latents(rows, seen),
        *(_factors(rows, arm) for arm in seen),
        _alignment(rows),
    ]
    return [figure for figure in made if figure is not None]


def _by_arm(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(records, key=lambda r: ARMS.index(r["arm"]))


def _kept(rows: Sequence[Row]) -> Figure | None:
    found = [
        {**r, "label": coder}
        for coder in CODERS
        for r in _by_arm(records_of(rows, "reconstruction", coder=coder))
    ]
    if not found:
        return None
    told = []
    for arm in ARMS:
        own, other = (
            mean_of(records_of(rows, "reconstruction", arm=arm, coder=coder))
            for coder in (AUTOENCODER, PCA)
        )
        if own is not None and other is not None:
            told.append(f"{own:.1f} dB against PCA's {other:.1f} ({arm})")
    return dots(
        "reconstruction",
        found,
        title=f"Reconstruction of unseen images: {'; '.join(told)}",
        caption="Peak signal-to-noise ratio over all pixels of images that nobody was trained on. "
        "PCA has as many components as the code has numbers (for a code that is a map, of patches "
        f"of its stride). Ticks are seeds.{_left_out(found)}",
        group="arm",
        x_title="PSNR (dB)",
    )


def _left_out(found: Sequence[dict[str, Any]]) -> str:
    if all(r["arm"] in GROWN for r in found):
        return ""
    return (
        " Nobody knows the factors of these images: errors by region, and which factors decide a "
        "latent, are left out."
    )


def _gallery(rows: Sequence[Row], which: str, arm: str) -> Figure | None:
    found = records_of(rows, "picture", gallery=which, arm=arm)
    if not found:
        return None
    first = min(r["seed"] for r in found)
    keep = ("line", "column", "image", "value", "seed", "arm")
    shown = [{name: r[name] for name in keep} for r in found if r["seed"] == first]
    shown.sort(key=lambda r: r["line"] != "image")
    title, caption = _told(rows, which, arm, max(r["value"] for r in shown))
    return gallery(
        f"{which}-{arm.lower().replace(', ', '-').replace(' ', '-')}",
        shown,
        title=title,
        caption=caption,
        row="line",
        column="column",
        size=64,
    )


def _told(rows: Sequence[Row], which: str, arm: str, largest: float) -> tuple[str, str]:
    """Return a gallery's title and caption; ``largest`` is the largest value in it, dB."""
    if which == "kept":
        return f"What is kept of four unseen images, {arm}", (
            "First seed, images not chosen. 'Difference' is autoencoder minus image, enlarged "
            "three times, grey where there is none; 'error map' is the size of each pixel's "
            "error, white where it is largest in that image."
        )
    if which == "added":
        return f"What each latent adds, {arm}: up to {largest:.1f} dB", (
            "The output less the output with the latent at its mean, enlarged three times, grey "
            "where nothing is added; in brackets the dB that are lost without it, over all images. "
            "First seed, images not chosen; the latents that matter most."
        )
    ratio = mean_of(
        records_of(rows, "effect_ratio", arm=arm, site=UNITS, part=FEATURES, against=VARYING)
    )
    told = "" if ratio is None else f"; {10**ratio:.2f} times a direction that varies, on average"
    return f"What features add, {arm}: up to {largest:.2f} dB{told}", (
        "Features of a sparse dictionary of the encoder's last maps, the six whose removal costs "
        "most (in brackets the dB that are lost without it, over all images), each on the three "
        "unseen images where it is most active. 'Adds': the output less the output without the "
        "feature, enlarged three times, grey where nothing is added. First seed."
    )


def _regions(rows: Sequence[Row]) -> Figure | None:
    found = [
        {**r, "label": region, "value": _log10(r["value"])}
        for region in REGIONS
        for r in _by_arm(records_of(rows, "region_error", region=region))
    ]
    if not found:
        return None
    ratio = mean_of(records_of(rows, "outline_ratio"))
    told = "" if ratio is None else f": {10**ratio:.2f} times as much at outlines as inside shapes"
    return dots(
        "regions",
        found,
        title=f"Where the error lies{told}",
        caption="log10 of the mean squared error per pixel: at pixels that the outline crosses, "
        "inside the shape, on the ground. Ticks are seeds.",
        group="arm",
        x_title="log10 of squared error",
    )


def _log10(value: float | None) -> float | None:
    return math.log10(value) if value is not None and value > 0 else None


_PLACES = {
    "latents": (LATENT, SINGLE),
    "units of the encoder's last maps": (UNITS, SINGLE),
    "dictionary features of those maps": (UNITS, FEATURES),
}


_BESIDE = {"a random direction": (ANY,), "a direction in which it varies": (VARYING,)}


def _losses(rows: Sequence[Row]) -> Figure | None:
    words = {"what is named above": ("unit", "feature"), **_BESIDE}
    found = []
    for place, (site, part) in _PLACES.items():
        for text, kinds in words.items():
            per: dict[tuple[str, Any], list[float]] = {}
            for r in _by_arm(records_of(rows, "loss", site=site, part=part, kind=kinds)):
                if r["value"] is not None:
                    per.setdefault((r["arm"], r["seed"]), []).append(r["value"])
            found += [
                {"arm": arm, "seed": seed, "label": text, "site": place, "value": sum(v) / len(v)}
                for (arm, seed), v in per.items()
            ]
    if not found:
        return None
    told = []
    for place, (site, part) in _PLACES.items():
        shown = []
        for against in (ANY, VARYING):
            ratios = records_of(rows, "effect_ratio", site=site, part=part, against=against)
            ratio = mean_of(ratios)
            # a random direction can do good, and a ratio to that means nothing
            if ratios:
                shown.append("no ratio" if ratio is None else f"{10**ratio:.2f}")
        if shown:
            told.append(f"{' and '.join(shown)} ({place})")
    return dots(
        "losses",
        found,
        title="Loss without one latent, unit or feature, in times that of a random direction, and "
        "of one in which the maps vary: "
        f"{', '.join(told) or 'not defined'}",
        caption="Mean fall of the PSNR (dB) when one latent or unit is set to its mean, or a "
        "feature of a sparse dictionary taken out, over all of them. Directions beside it move "
        "each image at each place as far: random ones of all channels alike, and random ones with "
        "the maps' covariance (some channels never vary). Ticks are seeds.",
        group="arm",
        facet="site",
        x_title="loss (dB)",
    )


def _latents(rows: Sequence[Row], seen: Sequence[str]) -> Figure | None:
    """Return the loss without each latent of the first seed."""
    found = [r for r in records_of(rows, "loss", site=LATENT) if r["value"] is not None]
    if not found:
        return None
    first = min(r["seed"] for r in found)
    lines = []
    for arm in seen:
        own = [r for r in found if r["seed"] == first and r["arm"] == arm]
        top = sorted((r for r in own if r["kind"] == "unit"), key=lambda r: -r["value"])[:MOST]
        other = {r["feature"]: r["value"] for r in own if r["kind"] == "random"}
        for place, r in enumerate(top, start=1):
            base = {"arm": arm, "seed": None, "label": f"{place}."}
            lines.append({**base, "removed": "latent", "value": r["value"]})
            lines.append({**base, "removed": "random direction", "value": other[r["feature"]]})
    largest = max(r["value"] for r in lines)
    return dots(
        "latents",
        lines,
        title=f"Loss without each latent, first seed: up to {largest:.1f} dB",
        caption="Fall of the PSNR (dB) when a latent is set to its mean, largest first, beside the "
        f"mean of random directions of the same displacement; at most {MOST} latents.",
        group="removed",
        facet="arm",
        x_title="loss (dB)",
        label_title="latent, by loss",
    )


def _factors(rows: Sequence[Row], arm: str) -> Figure | None:
    found = records_of(rows, "factor_share", arm=arm)
    if not found:
        return None
    first = min(r["seed"] for r in found)
    shown = [{**r, "value": min(1.0, r["value"])} for r in found if r["seed"] == first]
    best: dict[str, tuple[float, str]] = {}
    for r in shown:
        best[r["feature"]] = max(best.get(r["feature"], (0.0, "")), (r["value"], r["factor"]))
    names = sorted({name for _, name in best.values()})
    return matrix(
        f"factors-{arm.lower().replace(', ', '-').replace(' ', '-')}",
        shown,
        title=f"Which factors decide each latent, {arm}: most of all {', '.join(names)}",
        caption="Total Sobol index: half the mean squared change of the latent when the factor "
        "alone is drawn anew, over the latent's variance. Factors that act together both count, so "
        "that rows may add up to more than 1. First seed.",
        x="factor",
        y="feature",
        x_title="factor drawn anew",
        y_title="latent",
    )


def _alignment(rows: Sequence[Row]) -> Figure | None:
    words = {"latent": "latents", "random": "random directions"}
    panels = {
        "alignment": "largest factor's part of the variance",
        "effect_explained": "R² of the loss by one factor",
    }
    found = [
        {**r, "label": text, "panel": panel}
        for metric, panel in panels.items()
        for kind, text in words.items()
        for r in _by_arm(records_of(rows, metric, kind=kind))
    ]
    if not found:
        return None
    own, other = (mean_of(records_of(rows, "alignment", kind=kind)) for kind in words)
    told = "" if own is None or other is None else f": {own:.2f} against {other:.2f} on average"
    return dots(
        "alignment",
        found,
        title=f"Do latents follow single factors more than random directions do{told}",
        caption="Left: how much of all factors' shares of a latent's variance the largest has. "
        "Right: how well one factor (chosen on half of the images) predicts on the other half how "
        "many dB an image loses without the latent. Ticks are seeds.",
        group="arm",
        facet="panel",
        x_title="proportion",
        domain=(0.0, 1.0),
    )
