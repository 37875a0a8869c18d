"""The hypotheses of `denoiser`, written before the run."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from terrarium.evidence.hypotheses import Hypothesis
from terrarium.evidence.predictions import Gate, above, below
from terrarium.evidence.quantities import Missing, Quantity, combined, difference, per_seed
from terrarium.studies.denoiser.laws import (
    EXACT,
    FEW,
    GAUSSIANS,
    LINEAR,
    MANY,
    RANDOM,
    SMALL,
    STANDARD,
    UNTRAINED,
    VARYING,
)

UNDECIDED = (0.4, 0.8)
"""Levels at which the posterior of a few images is undecided (a check shows it)."""

LEARNT = 0.8
"""Share of the untrained network's regret that training must remove."""

DECIDED = (0.05, 1.6)
"""Levels at which it has decided, or knows nothing."""


def nats(denoiser: str, law: str) -> Quantity:
    """Regret over all levels."""
    return per_seed("regret_nats", denoiser=denoiser, law=law).called(
        f"regret of the {denoiser} ({law})", "nats"
    )


def removed(denoiser: str, of: str, law: str) -> Quantity:
    """Share of another denoiser's regret that one does not have."""
    return combined(
        f"share of the {of}'s regret that the {denoiser} removes ({law})",
        lambda own, other: 1 - own / other if other > 0 else Missing("no regret to remove"),
        nats(denoiser, law),
        nats(of, law),
    )


def log_ratio(text: str, a: Quantity, b: Quantity) -> Quantity:
    """log10 of a ratio of positive quantities."""

    def of(x: float, y: float) -> float | Missing:
        return math.log10(x / y) if min(x, y) > 0 else Missing("one of the two is not above 0")

    return replace(combined(text, of, a, b), unit="log10 of the ratio")


def sampled(metric: str, sampler: str, law: str, **factors: Any) -> Quantity:
    """What the law says of samples."""
    words = metric.replace("_", " ")
    return per_seed(metric, sampler=sampler, law=law, **factors).called(
        f"{words} of samples drawn by the {sampler} ({law})"
    )


def unseen(denoiser: str, law: str, level: float) -> Quantity:
    """Error on images of the family that were not trained on."""
    return per_seed("unseen_error", denoiser=denoiser, law=law, level=level)


def _at(levels: tuple[float, ...], how: Any) -> Quantity:
    parts = [per_seed("regret", denoiser=STANDARD, law=FEW, level=level) for level in levels]
    word = "mean" if how is not max else "larger"
    told = " and ".join(f"{level:g}" for level in levels)
    return combined(f"{word} regret at sigma {told}", lambda *found: how(found), *parts)


def learnt(law: str, network: str = STANDARD) -> Gate:
    """Gate: training removes most of the untrained network's regret."""
    return Gate(removed(network, UNTRAINED, law), at_least=LEARNT)


SAMPLER = Gate(sampled("memorised", EXACT, FEW), at_least=0.95)
"""Gate: the sampler itself is sound: with the exact denoiser it gives the images of the set."""

HYPOTHESES = (
    Hypothesis(
        name="beats-linear",
        claim="A small diffusion network closes most of what separates the best linear filter from "
        "the posterior mean of a mixture of Gaussians.",
        rival="What it learns is hardly more than a Wiener filter.",
        counts_for="It removes more than half of the linear filter's regret in nats.",
        counts_against="It removes less than half.",
        prediction=above(removed(STANDARD, LINEAR, GAUSSIANS), 0.5),
        gates=(learnt(GAUSSIANS),),
    ),
    Hypothesis(
        name="gap-where-undecided",
        claim="The network is furthest from the exact denoiser where the posterior is undecided "
        "between images.",
        rival="The regret grows (or falls) with the noise all the way.",
        counts_for="With few images the mean regret at sigma 0.4 and 0.8 exceeds the larger of "
        "those at 0.05 and 1.6.",
        counts_against="It is smaller.",
        prediction=above(
            log_ratio(
                "regret where undecided (sigma 0.4, 0.8) to that where not (0.05, 1.6)",
                _at(UNDECIDED, lambda found: sum(found) / len(found)),
                _at(DECIDED, max),
            ),
            0.0,
        ),
        gates=(learnt(FEW),),
    ),
    Hypothesis(
        name="larger-is-nearer",
        claim="A larger network comes nearer: what is missing is capacity.",
        rival="Both are held back alike by what training finds.",
        counts_for="The small network's regret in nats is more than 1.26 times (10^0.1) the "
        "standard one's on the Gaussians.",
        counts_against="It is less.",
        prediction=above(
            log_ratio(
                "regret of the small network to that of the standard one",
                nats(SMALL, GAUSSIANS),
                nats(STANDARD, GAUSSIANS),
            ),
            0.1,
        ),
        gates=(learnt(GAUSSIANS),),
    ),
    Hypothesis(
        name="samples-follow-the-law",
        claim="With few images the network draws these images, as often as the law does.",
        rival="It draws mixtures of images, or some images too often.",
        counts_for="More than 0.9 of its samples are images of the set, and their frequencies are "
        "less than 0.05 further from the law's than chance.",
        counts_against="Fewer are, or frequencies are further.",
        prediction=(
            above(sampled("memorised", STANDARD, FEW), 0.9),
            below(sampled("frequency_error", STANDARD, FEW), 0.05),
        ),
        gates=(learnt(FEW), SAMPLER),
    ),
    Hypothesis(
        name="many-images-generalise",
        claim="With many images the network of the same size and training no longer copies them "
        "(Yoon et al. 2023), and denoises unseen images of the family better than the exact "
        "denoiser of its set does (Kadkhodaie et al. 2024, arXiv 2310.02557).",
        rival="It becomes the exact denoiser of its training set, whatever its size.",
        counts_for="The share of samples that are training images falls by more than 0.5 from few "
        "to many, and on unseen images (sigma 0.2) the network's error is smaller.",
        counts_against="The share falls by less, or the error is larger.",
        prediction=(
            above(
                difference(
                    sampled("memorised", STANDARD, FEW), sampled("memorised", STANDARD, MANY)
                ).called("samples that are training images: few minus many"),
                0.5,
            ),
            below(
                log_ratio(
                    "error on unseen images: network to the exact denoiser of its set",
                    unseen(STANDARD, MANY, 0.2),
                    unseen("exact for the training set", MANY, 0.2),
                ),
                0.0,
            ),
        ),
        gates=(learnt(FEW), learnt(MANY), SAMPLER),
    ),
    Hypothesis(
        name="units-are-special",
        claim="Single hidden units of the dense block carry the denoising: removing one does more "
        "than moving as far in a random direction.",
        rival="The basis of units is not special.",
        counts_for="The mean effect of units exceeds that of matched directions by a factor of "
        "more than 1.26 (10^0.1).",
        counts_against="By less.",
        prediction=above(
            per_seed("effect_ratio", law=GAUSSIANS, part="units", against=RANDOM).called(
                "mean effect of removing a unit to that of a matched direction",
                "log10 of the ratio",
            ),
            0.1,
        ),
        gates=(learnt(GAUSSIANS),),
    ),
    Hypothesis(
        name="features-matter",
        claim="Features of a sparse dictionary of the dense block's hidden units carry the "
        "denoising: removing one does more than moving as far in another direction in which they "
        "vary.",
        rival="A dictionary finds directions in which activations vary, and any such direction "
        "serves as well.",
        counts_for="The mean effect of features exceeds that of directions drawn with the units' "
        "covariance by a factor of more than 1.26 (10^0.1).",
        counts_against="By less.",
        prediction=above(
            per_seed("effect_ratio", law=GAUSSIANS, part="features", against=VARYING).called(
                "mean effect of removing a dictionary feature to that of a direction in which "
                "units vary",
                "log10 of the ratio",
            ),
            0.1,
        ),
        gates=(learnt(GAUSSIANS),),
    ),
)
