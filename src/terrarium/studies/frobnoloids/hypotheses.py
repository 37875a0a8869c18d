"""The hypotheses of `frobnoloids`, written before the run."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from terrarium.evidence.hypotheses import Hypothesis
from terrarium.evidence.predictions import Gate, above, below
from terrarium.evidence.quantities import (
    CELL,
    SEED,
    Missing,
    PerSeed,
    Quantity,
    Seed,
    combined,
    difference,
    per_seed,
    where,
)
from terrarium.evidence.rows import Row
from terrarium.studies.frobnoloids.organisms import (
    ALL_KINDS,
    ANSWER,
    ARITHMETIC,
    AUTOENCODE,
    CLASSIFY,
    COORDINATES,
    DENOISE,
    IMAGES,
    KINDS,
    MODALITIES,
    POINTS,
    QUIRKY,
    RANDOM,
    TEXT,
    TRAINED,
)
from terrarium.studies.scene.networks import SIREN

LEVEL = 0.1
"""The rate of false discoveries at which features are called frobnoloids."""

LEARNT: dict[tuple[str, str], float] = {
    (IMAGES, CLASSIFY): 0.5,
    (IMAGES, AUTOENCODE): 0.5,
    (IMAGES, DENOISE): 0.5,
    (TEXT, CLASSIFY): 0.2,
    (TEXT, AUTOENCODE): 0.2,
    QUIRKY: 0.5,
    **dict.fromkeys(COORDINATES, 0.9),
}
"""Share of the oracle's performance (of the noise, for denoisers) from which organisms count as
grown; a code of 16 numbers holds a text's words badly, as in `across-modalities`; a distance is
held where nine tenths of the blind error are gone."""

HARMONICS = 3 / 64
"""What three of the 64 sines of a first layer explain of their sum, if all weigh the same."""


def kinds_of(rows: Sequence[Row]) -> tuple[tuple[str, str], ...]:
    """Return the kinds that rows tell of, and those that every size grows."""
    told = {(row.factors.get("modality"), row.factors.get("objective")) for row in rows}
    return tuple(kind for kind in ALL_KINDS if kind in KINDS or kind in told)


def learnt(modality: str, objective: str) -> Gate:
    """Gate: the organism does what it was trained for."""
    share = per_seed("share_of_oracle", modality=modality, objective=objective)
    return Gate(
        share.called(f"share of the oracle's performance ({objective} {modality})"),
        at_least=LEARNT[modality, objective],
    )


def fraction(
    modality: str, objective: str, variant: str = TRAINED, score: str = "frobnoloid"
) -> Quantity:
    """Share of the live features that are regular, important and nameless."""
    levels = {"modality": modality, "objective": objective, "variant": variant, "score": score}
    words = {"frobnoloid": "nameless but useful"}.get(score, score)
    return per_seed("share", **levels).called(
        f"share of features that are {words} ({objective} {modality}, {variant})"
    )


def _mean(text: str, *parts: Quantity) -> Quantity:
    return combined(text, lambda *values: sum(values) / len(values), *parts)


def in_modality(modality: str) -> Quantity:
    """Mean over the objectives that both modalities have."""
    return _mean(
        f"share of nameless but useful features in {modality}, mean of classify and autoencode",
        fraction(modality, CLASSIFY),
        fraction(modality, AUTOENCODE),
    )


def any_in_random() -> Quantity:
    """Share of a seed's random networks in which any feature is called a frobnoloid.

    All hypotheses are null there, so that this is the rate of false discoveries.  Over all kinds
    that were scored; a network without a value leaves its seed without one.
    """
    selection = where("any", variant=RANDOM)

    def reduce(rows: Sequence[Row]) -> PerSeed:
        found: dict[Seed, list[float | None]] = {}
        for row in selection.matching(rows):
            found.setdefault(row.factors.get(SEED), []).append(row.value)
        for row in rows:
            if row.metric == CELL and SEED in row.factors:
                found.setdefault(row.factors[SEED], []).append(None)
        made: dict[Seed, float | Missing] = {}
        for seed, values in found.items():
            known = [value for value in values if value is not None]
            whole = len(known) == len(values)
            made[seed] = fmean(known) if whole else Missing("a random network was not scored")
        return made

    return Quantity("share of random networks with any frobnoloid", reduce)


def important_in_random() -> Quantity:
    """Share of all live features of a seed's random networks that matter at p of at most 0.05."""
    selection = where("share", variant=RANDOM, score="important by p alone")

    def reduce(rows: Sequence[Row]) -> PerSeed:
        found: dict[Seed, list[Row]] = {}
        for row in selection.matching(rows):
            found.setdefault(row.factors.get(SEED), []).append(row)
        made: dict[Seed, float | Missing] = {}
        for seed, mine in found.items():
            known = [(row.value, row.n) for row in mine if row.value is not None]
            count = sum(n for _, n in known)
            made[seed] = (
                sum(value * n for value, n in known) / count
                if count
                else Missing("no random network has a live feature")
            )
        return made

    return Quantity("share of features important by p alone (all kinds, random)", reduce)


def faithful(modality: str, circuit: str) -> Quantity:
    """Share of variance that circuits of frobnoloids keep, on examples that did not choose them.

    The mean over all of a seed's frobnoloids whose circuit was looked for; an objective may have
    none.
    """
    selection = where(
        "faithfulness", modality=modality, variant=TRAINED, circuit=circuit, frobnoloid=True
    )

    def reduce(rows: Sequence[Row]) -> PerSeed:
        found: dict[Seed, list[float]] = {
            row.factors.get(SEED): [] for row in rows if row.factors.get("modality") == modality
        }
        for row in selection.matching(rows):
            if row.value is not None:
                found[row.factors.get(SEED)].append(row.value)
        none = Missing("none of the features whose circuit was looked for is a frobnoloid")
        return {seed: fmean(values) if values else none for seed, values in found.items()}

    what = "circuits" if circuit == "circuit" else "random circuits"
    return Quantity(f"variance kept by {what} of frobnoloids ({modality})", reduce)


def _more(objective: str) -> Quantity:
    return difference(fraction(IMAGES, objective), fraction(IMAGES, CLASSIFY)).called(
        f"share of nameless but useful features, {objective} minus classify (images)"
    )


GUESTS: tuple[Hypothesis, ...] = (
    Hypothesis(
        name="arithmetic-is-more-named",
        claim="A smaller share of features is nameless but useful in the organism of says-knows, "
        "whose world labels all that decides what is said, than in networks of images.",
        rival="Labels name what goes in and out, not what is made of it in between; or its "
        "features are not regular, and none is a frobnoloid for that reason.",
        counts_for="The mean over classifiers and autoencoders of images is larger.",
        counts_against="It is smaller.",
        prediction=above(
            difference(in_modality(IMAGES), fraction(ARITHMETIC, ANSWER)).called(
                "share of nameless but useful features, images minus arithmetic"
            ),
            0.0,
        ),
        gates=(
            learnt(IMAGES, CLASSIFY),
            learnt(IMAGES, AUTOENCODE),
            learnt(ARITHMETIC, ANSWER),
        ),
    ),
    Hypothesis(
        name="scenes-are-more-named",
        claim="A smaller share of units is nameless but useful in a SIREN, whose scene and "
        "frequencies are computable at every point, than of features in autoencoders of images.",
        rival="Units are coordinates of the network's own making, and no name of the scene fits.",
        counts_for="The share in autoencoders of images is larger.",
        counts_against="It is smaller.",
        prediction=above(
            difference(fraction(IMAGES, AUTOENCODE), fraction(POINTS, SIREN)).called(
                "share of nameless but useful features, autoencoders of images minus SIREN"
            ),
            0.0,
        ),
        gates=(learnt(IMAGES, AUTOENCODE), learnt(POINTS, SIREN)),
    ),
    Hypothesis(
        name="frequencies-name-sirens",
        claim="Harmonics and beats of a SIREN's own frequencies explain what the scene and the "
        "coordinates leave of its second layer.",
        rival="Frequencies are so low that coordinates, their products and the distance say as "
        "much; or a unit mixes so many that three names never do.",
        counts_for="They add more than three of 64 equal sines explain of their sum, 3/64 of the "
        "variance, on blocks of space that were held out.",
        counts_against="They add less.",
        prediction=above(
            per_seed("named_gain", modality=POINTS, objective=SIREN, variant=TRAINED).called(
                "held-out R² that frequencies add (SIREN)"
            ),
            HARMONICS,
        ),
        gates=(learnt(POINTS, SIREN),),
    ),
)
"""Those about the organisms of other studies, written before any run on seeds from 20."""

HYPOTHESES: tuple[Hypothesis, ...] = (
    Hypothesis(
        name="making-images-needs-the-nameless",
        claim="Of the features of autoencoders and denoisers more are nameless but useful than of "
        "classifiers of the same images.",
        rival="The images decide which features there are: objectives have as many.",
        counts_for="The share is larger in both.",
        counts_against="It is smaller in one of them.",
        prediction=(above(_more(AUTOENCODE), 0.0), above(_more(DENOISE), 0.0)),
        gates=tuple(learnt(IMAGES, objective) for objective in (CLASSIFY, AUTOENCODE, DENOISE)),
    ),
    Hypothesis(
        name="images-are-less-named",
        claim="A larger share of features is nameless but useful in images than in text that "
        "holds the same facts.",
        rival="Words are no better names for what networks of text make of them; or the "
        "vocabulary of images, which is larger, explains more.",
        counts_for="The mean over classifiers and autoencoders is larger in images.",
        counts_against="It is smaller.",
        prediction=above(
            difference(in_modality(IMAGES), in_modality(TEXT)).called(
                "share of nameless but useful features, images minus text"
            ),
            0.0,
        ),
        gates=tuple(
            learnt(m, objective) for m in MODALITIES for objective in (CLASSIFY, AUTOENCODE)
        ),
    ),
    Hypothesis(
        name="random-networks-have-none",
        claim="Random networks have no frobnoloids beyond the stated rate.",
        rival="Regular and nameless features of random networks pass for useful.",
        counts_for=f"In less than {LEVEL:.0%} of random networks any feature is called one.",
        counts_against="In more.",
        prediction=below(any_in_random(), LEVEL),
    ),
    *(
        Hypothesis(
            name=f"circuits-are-faithful-{modality}",
            claim=f"Few upstream units compute a frobnoloid of {modality}: its circuit keeps more "
            "of its variance than random circuits of its size.",
            rival="It is spread over all upstream units; what greedy search finds does not hold "
            "on other examples.",
            counts_for="Circuits keep a larger share of the variance on examples that did not "
            "choose them, by more than 0.1.",
            counts_against="By less.",
            prediction=above(
                difference(faithful(modality, "circuit"), faithful(modality, "random")).called(
                    f"variance kept, circuits minus random circuits ({modality})"
                ),
                0.1,
            ),
        )
        for modality in (*MODALITIES, ARITHMETIC, POINTS)
    ),
    *GUESTS,
)

__all__ = [
    "HYPOTHESES",
    "LEVEL",
    "any_in_random",
    "fraction",
    "important_in_random",
    "kinds_of",
    "learnt",
]
