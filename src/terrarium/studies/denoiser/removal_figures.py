"""The figures of `denoiser` about what removals of units and features do to the regret."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from terrarium.evidence.rows import Row
from terrarium.figures.curves import layer_curves
from terrarium.figures.figure import Figure
from terrarium.figures.gallery import gallery
from terrarium.studies.denoiser.laws import AS_FEATURE, FEATURE, GAUSSIANS, RANDOM, UNIT, VARYING
from terrarium.studies.rows_of import mean_of, records_of

SIGMA = "noise level sigma"


def removal_figures(rows: Sequence[Row]) -> list[Figure]:
    """Return effects of removals by level, the units that matter most, and what features add."""
    made = [*(_effects(rows, part) for part in _REMOVED), _units(rows), _features(rows)]
    return [figure for figure in made if figure is not None]


def first_pictures(rows: Sequence[Row], which: str, law: str) -> list[dict[str, Any]]:
    """Return the pictures of a gallery, first seed."""
    found = records_of(rows, "picture", gallery=which, law=law)
    first = min((r["seed"] for r in found), default=None)
    keep = ("line", "column", "image", "value", "seed", "law")
    return [{name: r[name] for name in keep} for r in found if r["seed"] == first]


_REMOVED = {
    "units": ("effects", "a hidden unit", {UNIT: "a unit", RANDOM: "a matched direction"}),
    "features": (
        "feature-effects",
        "a dictionary feature",
        {FEATURE: "a feature", AS_FEATURE: "a random direction", VARYING: "a varying direction"},
    ),
}
"""Parts whose removal is shown: the figure's name, the words, and the kinds of removals."""


def _effects(rows: Sequence[Row], part: str) -> Figure | None:
    """Mean and largest effects of removals by level."""
    figure, noun, words = _REMOVED[part]
    grouped: dict[tuple[Any, float, str], list[float]] = {}
    for r in records_of(rows, "removal_effect", kind=tuple(words)):
        if r["value"] is not None:
            grouped.setdefault((r["seed"], r["level"], r["kind"]), []).append(r["value"])
    found = [
        {
            "seed": seed,
            "level": level,
            "quantity": f"{name}, {word}",
            "value": sum(values) / len(values) if word == "mean" else max(values),
        }
        for kind, name in words.items()
        for word in ("mean", "largest")
        for (seed, level, own), values in grouped.items()
        if own == kind
    ]
    if not found:
        return None
    against = RANDOM if part == "units" else VARYING
    ratio = mean_of(records_of(rows, "effect_ratio", part=part, against=against))
    beside = "a random direction" if part == "units" else "a direction in which units vary"
    told = "" if ratio is None else f": {10**ratio:.2f} times {beside}"
    how = "Units of the dense block are set to their mean" if part == "units" else (
        "Features of a sparse dictionary of the dense block's units are taken out; varying "
        "directions are drawn with the units' covariance"
    )  # fmt: skip
    return layer_curves(
        figure,
        found,
        title=f"What removing {noun} adds to the regret, on average{told}",
        caption=f"{how}; a matched direction moves every "
        "image as far. Regret of a whole image over sigma squared (nats per unit of ln sigma).",
        x="level",
        x_title=SIGMA,
        x_scale="symlog",
        y_title="added regret (nats)",
        y_domain=None,
    )


def _features(rows: Sequence[Row]) -> Figure | None:
    """The features that matter most, and what each adds."""
    shown = first_pictures(rows, "features", GAUSSIANS)
    if not shown:
        return None
    largest = max(r["value"] for r in shown)
    return gallery(
        "features",
        shown,
        title=f"What dictionary features add to the denoised image: up to {largest:.1f} nats",
        caption="The six features whose removal adds most to the regret, each at the noise level "
        "where it does, on the three noisy images where it is most active, first seed. 'Adds': the "
        "output less the output without the feature, enlarged three times over the range of the "
        "law's means, grey where nothing is added.",
        row="line",
        column="column",
        size=64,
    )


def _units(rows: Sequence[Row]) -> Figure | None:
    """The units that matter most, and at which level."""
    found = [r for r in records_of(rows, "removal_effect", kind="unit") if r["value"] is not None]
    if not found:
        return None
    first = min(r["seed"] for r in found)
    own = [r for r in found if r["seed"] == first]
    total: dict[str, float] = {}
    for r in own:
        total[r["feature"]] = total.get(r["feature"], 0.0) + r["value"]
    top = sorted(total, key=lambda name: -total[name])[:8]
    shown = [
        {"seed": r["seed"], "level": r["level"], "quantity": r["feature"], "value": r["value"]}
        for name in top
        for r in own
        if r["feature"] == name
    ]
    peaks = {max((r for r in shown if r["quantity"] == n), key=lambda r: r["value"])["level"]
             for n in top}  # fmt: skip
    told = ", ".join(f"{level:g}" for level in sorted(peaks))
    return layer_curves(
        "units",
        shown,
        title=f"The eight units that matter most have their largest effect at sigma {told}",
        caption="Added regret when a unit is set to its mean, by noise level, first seed (nats per "
        "unit of ln sigma).",
        x="level",
        x_title=SIGMA,
        x_scale="symlog",
        y_title="added regret (nats)",
        y_domain=None,
    )
