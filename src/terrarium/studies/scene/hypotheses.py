"""The hypotheses of `scene`, written before the run."""

from __future__ import annotations

from itertools import pairwise

from terrarium.evidence.hypotheses import Hypothesis
from terrarium.evidence.predictions import Gate, above, below
from terrarium.evidence.quantities import Quantity, difference, over_levels, per_seed, where
from terrarium.studies.scene.networks import DISTANCE, FOURIER, GATE, HASH, RELU, SIREN
from terrarium.studies.scene.removals import AS_FEATURE, FEATURE, TURNED, UNIT

ALL = "all"
"""The mean over hidden layers."""


def fits(network: str) -> Gate:
    """Gate: one kind's mean absolute error, in the volume and near the surface, is small."""
    worst = per_seed("worst_error", network=network, quantity=DISTANCE)
    return Gate(
        worst.called(f"larger of the two mean errors, {network}", "% of the diagonal"),
        at_most=GATE,
    )


def all_fit() -> Gate:
    """Gate: the kind that fits worst fits."""
    worst = over_levels("max", "network", where("worst_error", quantity=DISTANCE))
    return Gate(
        worst.called("larger of the two mean errors, worst network", "% of the diagonal"),
        at_most=GATE,
    )


def over_networks(metric: str, words: str, unit: str = "", **factors: str | int) -> Quantity:
    """Mean over the networks (kinds, or the loaded one) of a measure of the distance."""
    selection = where(metric, quantity=DISTANCE, **factors)
    return over_levels("mean", "network", selection).called(f"{words}, mean over networks", unit)


def _selectivity(kind: str, partition: str) -> Quantity:
    words = f"selectivity of a {kind}'s effect ({partition})"
    # features are those of one layer
    told = {} if kind in (FEATURE, AS_FEATURE) else {"layer": ALL}
    return over_networks("selectivity", words, kind=kind, partition=partition, **told)


def _more_local(first: str, second: str) -> Hypothesis:
    sizes = [
        per_seed("log_footprint", network=network, quantity=DISTANCE, kind=UNIT, layer=ALL)
        for network in (first, second)
    ]
    return Hypothesis(
        name=f"more-local-{first}-than-{second}".lower().replace(" ", "-"),
        claim=f"What a unit of a {first} network does covers less of the volume than in a "
        f"{second} network.",
        rival="The hidden layers of both compose global functions of their inputs, whatever "
        "enters them.",
        counts_for="Its footprint (participation ratio) is smaller by more than a factor of 1.12 "
        "(10^0.05).",
        counts_against="It is not.",
        prediction=below(
            difference(*sizes).called(
                f"footprint of units: {first} minus {second}", "log10 of the share of the volume"
            ),
            -0.05,
        ),
        gates=(fits(first), fits(second)),
    )


HYPOTHESES = (
    Hypothesis(
        name="units-matter",
        claim="Taking a hidden unit out costs more than moving as far in a random direction.",
        rival="Units are no special directions: the same displacement costs the same.",
        counts_for="The mean rise of the absolute error exceeds that of matched directions by a "
        "factor of more than 1.26 (10^0.1), mean over layers and networks.",
        counts_against="By less.",
        prediction=above(
            over_networks(
                "cost_ratio",
                "cost of a unit to that of a matched direction",
                "log10 of the ratio",
                layer=ALL,
            ),
            0.1,
        ),
        gates=(all_fit(),),
    ),
    Hypothesis(
        name="units-stand-out",
        claim="The unit that changes the output most changes it more than the best of as many "
        "matched directions.",
        rival="The best of any set of directions is as good: the maximum is chosen.",
        counts_for="By a factor of more than 1.26 (10^0.1).",
        counts_against="By less.",
        prediction=above(
            over_networks(
                "largest_ratio",
                "largest effect of a unit to that of as many matched directions",
                "log10 of the ratio",
                layer=ALL,
            ),
            0.1,
        ),
        gates=(all_fit(),),
    ),
    Hypothesis(
        name="units-are-local",
        claim="What a unit does covers less of the volume than what an axis of a random rotation "
        "of the layer does.",
        rival="The layer's activations are local or not; its units are no more so than any axes.",
        counts_for="The footprint is smaller by a factor of more than 1.26 (10^0.1).",
        counts_against="By less.",
        prediction=above(
            over_networks(
                "locality",
                "footprint of a turned unit to that of a unit",
                "log10 of the ratio",
                layer=ALL,
            ),
            0.1,
        ),
        gates=(all_fit(),),
    ),
    *(_more_local(first, second) for first, second in pairwise((HASH, SIREN, FOURIER, RELU))),
    Hypothesis(
        name="last-layer-more-local",
        claim="Units of the last hidden layer do more local things than units of the first.",
        rival="Depth composes global functions: the last layer is as global as the first.",
        counts_for="The footprint is smaller by a factor of more than 1.26 (10^0.1).",
        counts_against="By less.",
        prediction=above(
            over_networks(
                "depth_locality",
                "footprint in the first hidden layer to that in the last",
                "log10 of the ratio",
            ),
            0.1,
        ),
        gates=(all_fit(),),
    ),
    Hypothesis(
        name="units-serve-parts",
        claim="A unit's effect falls on one part of the scene more than that of an axis of a "
        "random rotation.",
        rival="Units are as mixed as any axes.",
        counts_for="Its selectivity (total variation from an even spread) is larger by more than "
        "0.02.",
        counts_against="By less.",
        prediction=above(
            difference(_selectivity(UNIT, "parts"), _selectivity(TURNED, "parts")).called(
                "selectivity for parts, units minus turned units"
            ),
            0.02,
        ),
        gates=(all_fit(),),
    ),
    Hypothesis(
        name="parts-not-places",
        claim="A unit's effect keeps to the parts more than to slabs of the same sizes that "
        "ignore them.",
        rival="Any smooth effect is larger in one place than in another; parts are places.",
        counts_for="The selectivity for parts is larger by more than 0.02.",
        counts_against="By less.",
        prediction=above(
            difference(_selectivity(UNIT, "parts"), _selectivity(UNIT, "slabs")).called(
                "selectivity of units, parts minus slabs"
            ),
            0.02,
        ),
        gates=(all_fit(),),
    ),
    Hypothesis(
        name="error-follows-curvature",
        claim="Networks err more where the surface is curved more.",
        rival="Errors lie elsewhere: at seams, or at random.",
        counts_for="The rank correlation of the absolute error with the size of the mean "
        "curvature on the surface is above 0.1.",
        counts_against="It is below.",
        prediction=above(
            over_networks(
                "curvature_rank", "rank correlation of error and curvature", order="as it is"
            ),
            0.1,
        ),
        gates=(all_fit(),),
    ),
    Hypothesis(
        name="removals-add-up",
        claim="What half of the first layer's units do together is what they do one by one.",
        rival="Later layers put units together: what one does depends on the others.",
        counts_for="Single changes, summed, miss the joint one by less than a fifth of its size.",
        counts_against="By more.",
        prediction=below(
            over_networks(
                "interaction",
                "part of a joint removal that single ones do not add up to",
                layer=1,
                together="half",
            ),
            0.2,
        ),
        gates=(all_fit(),),
    ),
    Hypothesis(
        name="features-serve-parts",
        claim="What features of a sparse dictionary of the middle layer do keeps to the parts of "
        "the scene.",
        rival="A feature is active in a place, and a part is a place: slabs of the same sizes, or "
        "directions that move the same points as far, keep as well.",
        counts_for="The selectivity for parts is larger by more than 0.02 than that for slabs that "
        "ignore them, and than that of matched directions.",
        counts_against="By less than either.",
        prediction=(
            above(
                difference(_selectivity(FEATURE, "parts"), _selectivity(FEATURE, "slabs")).called(
                    "selectivity of dictionary features, parts minus slabs"
                ),
                0.02,
            ),
            above(
                difference(
                    _selectivity(FEATURE, "parts"), _selectivity(AS_FEATURE, "parts")
                ).called("selectivity for parts, dictionary features minus matched directions"),
                0.02,
            ),
        ),
        gates=(all_fit(),),
    ),
)
