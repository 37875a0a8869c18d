"""The figures of `denoiser`, from stored rows alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from terrarium.evidence.rows import Row
from terrarium.figures.curves import layer_curves
from terrarium.figures.dots import dots
from terrarium.figures.figure import Figure
from terrarium.figures.gallery import gallery
from terrarium.studies.denoiser.laws import (
    DENOISERS,
    EXACT,
    FEW,
    GAUSSIANS,
    LAWS,
    LINEAR,
    MANY,
    NEAREST,
    SMALL,
    STANDARD,
)
from terrarium.studies.denoiser.removal_figures import SIGMA, first_pictures, removal_figures
from terrarium.studies.rows_of import mean_of, records_of

FAINT = 1e-9
"""Smaller regrets are not drawn: they are rounding, beside pixels between 0 and 1."""


def figures(rows: Sequence[Row]) -> list[Figure]:
    """Return every figure that the rows allow."""
    made = [
        _regret(rows),
        _nats(rows),
        _undecided(rows),
        *(_denoised(rows, law) for law in LAWS),
        _memorised(rows),
        *(_samples(rows, law) for law in LAWS),
        _frequencies(rows),
        _likelihood(rows),
        _unseen(rows),
        *removal_figures(rows),
    ]
    return [figure for figure in made if figure is not None]


def _by_law(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(records, key=lambda r: LAWS.index(r["law"]))


def _log10(value: float | None, least: float = 0.0) -> float | None:
    return math.log10(value) if value is not None and value > least else None


def _regret(rows: Sequence[Row]) -> Figure | None:
    found = [
        {**r, "quantity": r["denoiser"], "value": _log10(r["value"], FAINT)}
        for name in DENOISERS
        for r in _by_law(records_of(rows, "regret", denoiser=name))
    ]
    if not found:
        return None
    wins = _levels_won(rows)
    return layer_curves(
        "regret",
        sorted(found, key=lambda r: LAWS.index(r["law"])),
        title=f"Regret to the exact posterior mean: the network beats the linear filter {wins}",
        caption="log10 of the mean squared difference to the exact denoiser's output, per pixel, "
        "by noise level and law. 'Linear' is the Wiener filter made from the law's exact mean and "
        "covariance, 'untrained' shrinks towards the centre. Sigma is the noise's standard "
        f"deviation per pixel, pixels lie in 0 to 1. Regrets under {FAINT:g} are not drawn: there "
        "the nearest image is the exact answer.",
        x="level",
        x_title=SIGMA,
        x_scale="symlog",
        y_title="log10 of regret (squared intensity)",
        y_domain=None,
        facet="law",
        height=300,
    )


def _levels_won(rows: Sequence[Row]) -> str:
    told = []
    for law in LAWS:
        own = records_of(rows, "regret_to_linear", law=law, denoiser=STANDARD)
        levels = sorted({r["level"] for r in own})
        means = {s: mean_of([r for r in own if r["level"] == s]) for s in levels}
        won = [s for s, mean in means.items() if mean is not None and mean < 0]
        text = f"{len(won)} of {len(levels)} levels"
        if won:
            text += f", {won[0]:g} to {won[-1]:g}"
        told.append(f"at {text} ({law})")
    return "; ".join(told)


def _nats(rows: Sequence[Row]) -> Figure | None:
    found = [
        {**r, "label": r["denoiser"], "value": _log10(r["value"])}
        for name in DENOISERS
        for r in _by_law(records_of(rows, "regret_nats", denoiser=name))
    ]
    if not found:
        return None
    told = []
    for law in LAWS:
        means = {
            name: mean_of(records_of(rows, "regret_nats", law=law, denoiser=name))
            for name in (STANDARD, LINEAR, NEAREST)
        }
        if None not in means.values():
            told.append(f"{law} " + ", ".join(f"{v:.3g} {name}" for name, v in means.items()))
    return dots(
        "nats",
        found,
        title=f"Regret over all levels in nats: {'; '.join(told)}",
        caption="log10 of the regret of a whole image over sigma squared, integrated over "
        "ln(sigma): how far (nats) the law for which a denoiser would be exact lies from the true "
        "one. Ticks are seeds.",
        group="law",
        x_title="log10 of regret (nats)",
    )


def _undecided(rows: Sequence[Row]) -> Figure | None:
    found = [{**r, "quantity": r["law"]} for r in _by_law(records_of(rows, "undecided"))]
    if not found:
        return None
    few = [r for r in found if r["law"] == FEW]
    between = sorted(
        level
        for level in {r["level"] for r in few}
        if 0.1 < (mean_of([r for r in few if r["level"] == level]) or 0) < 0.9
    )
    told = ", ".join(f"{level:g}" for level in between) or "none of the levels"
    return layer_curves(
        "undecided",
        found,
        title=f"With few images the posterior is undecided between them at sigma {told}",
        caption="Entropy of the exact posterior over components, as a share of that of all being "
        "equally likely.",
        x="level",
        x_title=SIGMA,
        x_scale="symlog",
        y_title="posterior entropy (proportion)",
    )


def _name(law: str) -> str:
    return law.lower().replace(" ", "-")


def _denoised(rows: Sequence[Row], law: str) -> Figure | None:
    shown = first_pictures(rows, "denoised", law)
    if not shown:
        return None
    return gallery(
        f"denoised-{_name(law)}",
        shown,
        title=f"What is best and what the network says, {law}",
        caption="One image at each noise level, first seed. 'Exact' is the posterior mean, the "
        "best that anything can give; 'difference' is network minus exact, enlarged three times, "
        "grey where there is none. Black to white is the range of the law's means.",
        row="line",
        column="column",
        size=64,
    )


def _samples(rows: Sequence[Row], law: str) -> Figure | None:
    shown = first_pictures(rows, "samples", law)
    if not shown:
        return None
    share = mean_of(records_of(rows, "memorised", law=law, sampler=STANDARD))
    told = "" if share is None else f": {100 * share:.0f} % are images of the training set"
    if law == GAUSSIANS:
        told = ""
    noun = "Gaussian's mean" if law == GAUSSIANS else "image of the training set"
    return gallery(
        f"samples-{_name(law)}",
        shown,
        title=f"Samples of the network, {law}{told}",
        caption=f"Drawn from the same noise by network, linear filter and exact denoiser, each "
        f"above the nearest {noun}; first seed, not chosen.",
        row="line",
        column="column",
        size=64,
    )


SAMPLERS = (STANDARD, SMALL, LINEAR, EXACT, "true", "unseen images")


def _sampler_dots(rows: Sequence[Row], metric: str, laws: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {**r, "label": name if name != "true" else "true samples"}
        for name in SAMPLERS
        for r in _by_law(records_of(rows, metric, sampler=name, law=tuple(laws)))
    ]


def _memorised(rows: Sequence[Row]) -> Figure | None:
    found = _sampler_dots(rows, "memorised", (FEW, MANY))
    if not found:
        return None
    ends = {
        law: mean_of(records_of(rows, "memorised", law=law, sampler=STANDARD))
        for law in (FEW, MANY)
    }
    told = ", ".join(f"{100 * v:.0f} % ({law})" for law, v in ends.items() if v is not None)
    return dots(
        "memorised",
        found,
        title=f"Samples of the network that are training images: {told}",
        caption="Share of samples whose nearest training image is less than a third as far as the "
        "second nearest. 'Unseen images' are of the same family and were not trained on: what "
        "counts there counts by accident. Ticks are seeds.",
        group="law",
        x_title="share of samples (proportion)",
        domain=(0.0, 1.0),
    )


def _frequencies(rows: Sequence[Row]) -> Figure | None:
    found = _sampler_dots(rows, "frequency_error", (FEW, GAUSSIANS))
    if not found:
        return None
    tests = records_of(rows, "frequency_p", sampler=STANDARD, law=(FEW, GAUSSIANS))
    small = sum(r["value"] is not None and r["value"] < 0.05 for r in tests)
    return dots(
        "frequencies",
        found,
        title="How often each image or Gaussian is drawn: the network's frequencies differ at "
        f"p < 0.05 in {small} of {len(tests)} tests",
        caption="Total variation between the frequencies of the nearest components and the law's "
        "weights, less what chance alone gives; tests are Pearson's. Ticks are seeds.",
        group="law",
        x_title="excess total variation (proportion)",
        references={"chance": 0.0},
    )


def _likelihood(rows: Sequence[Row]) -> Figure | None:
    found = _sampler_dots(rows, "log_likelihood_gap", (GAUSSIANS,))
    if not found:
        return None
    own = mean_of([r for r in found if r["sampler"] == STANDARD])
    told = "" if own is None else f": {own:+.2f} nats per pixel for the network"
    return dots(
        "likelihood",
        found,
        title=f"Log-likelihood of samples under the law, against true ones{told}",
        caption="Mean log-density of samples less that of true samples, mixture of Gaussians: "
        "below 0 they are less likely than they should be, above 0 too smooth. Ticks are seeds.",
        x_title="difference of log-density (nats per pixel)",
        references={"true": 0.0},
    )


def _unseen(rows: Sequence[Row]) -> Figure | None:
    found = [
        {
            **r,
            "label": r["denoiser"],
            "value": _log10(r["value"]),
            "panel": f"sigma {r['level']:g}",
        }
        for r in sorted(
            _by_law(records_of(rows, "unseen_error")), key=lambda r: (r["level"], r["law"])
        )
    ]
    if not found:
        return None
    ends = {
        name: mean_of(records_of(rows, "unseen_error", law=MANY, denoiser=name, level=0.2))
        for name in (STANDARD, "exact for the training set")
    }
    told = " against ".join(f"{v:.2g} ({name})" for name, v in ends.items() if v is not None)
    return dots(
        "unseen",
        found,
        title=f"Denoising images that were not trained on, sigma 0.2, many images: {told}",
        caption="log10 of the mean squared error per pixel to the clean image, by noise level. The "
        "exact denoiser of the training set can only give mixtures of it; the exact denoiser of "
        "the unseen set is what nothing beats. Ticks are seeds.",
        group="law",
        facet="panel",
        x_title="log10 of squared error",
    )
